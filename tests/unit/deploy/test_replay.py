"""A replay is cut into ticks: transactions at event time, labels after their delay, watermarks."""

from pathlib import Path

import numpy as np
import pytest

from deploy.bank_formats import LabelledBatch
from deploy.replay import (
    ReplayChunk,
    ReplayConfig,
    Replayer,
    joined_ticks,
    plan_replay,
    watermark_headers,
)
from models.decoding import LabelDecoder, TransactionDecoder
from models.errors import InvalidInputError
from models.mapping import load_mapping
from models.records import TransactionBatch
from models.words import Words

MAPPING = load_mapping(Path(__file__).parents[3] / "deploy" / "mappings" / "simulated.toml")
START_MS = 1_767_571_200_000
HOUR_MS = 3_600_000


def part(times_h, frauds, first=0):
    """Return transactions at hours after the start."""
    n = len(times_h)
    return LabelledBatch(
        batch=TransactionBatch(
            transaction_id=[f"P{first + i}" for i in range(n)],
            account_id=[f"A{i % 3}" for i in range(n)],
            event_time_ms=np.array([START_MS + round(t * HOUR_MS) for t in times_h], np.int64),
            amount_minor=np.full(n, 100, np.int64),
            amount=np.ones(n),
            currency=["EUR"] * n,
            entities={kind: [None] * n for kind in ("terminal", "merchant", "device")},
            attributes={"channel": Words.of([None] * n)},
        ),
        is_fraud=np.array(frauds, np.bool_),
    )


def ids(records, decoder):
    """Return the transaction ids of records."""
    decoded = decoder(MAPPING).decode([record.value for record in records])
    assert decoded.errors == []
    if isinstance(decoder(MAPPING), LabelDecoder):
        return [(label.transaction_id, label.is_fraud) for label in decoded.labels]
    return list(decoded.batch.transaction_id)


def plan(parts, **config):
    """Return the chunks as (hour, transactions, labels, is_last)."""
    chunks = plan_replay(parts, MAPPING, ReplayConfig(**config))
    return [
        (
            (chunk.watermark_ms - START_MS) / HOUR_MS,
            ids(chunk.transactions, TransactionDecoder),
            ids(chunk.labels, LabelDecoder),
            chunk.is_last,
        )
        for chunk in chunks
    ]


def test_labels_of_frauds_follow_after_their_delay():
    """Every tick has a watermark, also an empty one; a time on the border is in the later tick."""
    parts = [part([0.5, 0.75, 1.0, 3.25], [True, False, True, False])]
    assert plan(parts, label_delay_ms=2 * HOUR_MS) == [
        (1, ["P0", "P1"], [], False),
        (2, ["P2"], [], False),
        (3, [], [("P0", True)], False),
        (4, ["P3"], [("P2", True)], True),
    ]


def test_all_labels_are_sent_when_asked_for():
    """Legitimate ones as well, by time; or none."""
    parts = [part([0.5, 0.75, 1.0], [True, False, True])]
    chunks = plan(parts, label_delay_ms=0, labels="all")
    assert [labels for _, _, labels, _ in chunks] == [[("P0", True), ("P1", False)], [("P2", True)]]
    assert [labels for _, _, labels, _ in plan(parts, label_delay_ms=0, labels="none")] == [[], []]


def test_parts_that_share_a_tick_are_one_chunk():
    """Else the first watermark of the tick would promise too much."""
    whole = plan([part([0.2, 0.4, 0.6, 2.1], [True, True, False, True])], label_delay_ms=HOUR_MS)
    parts = [part([0.2, 0.4], [True, True]), part([], []), part([0.6, 2.1], [False, True], first=2)]
    assert plan(parts, label_delay_ms=HOUR_MS) == whole


def test_nothing_to_replay_is_one_last_chunk():
    """So that whoever waits for the end sees it."""
    assert [(chunk.transactions, chunk.labels, chunk.is_last)
            for chunk in plan_replay([], MAPPING, ReplayConfig())] == [([], [], True)]  # fmt: skip


def test_joined_ticks_lose_nothing():
    """Three chunks by twos are two, the last one marked."""
    chunks = list(
        plan_replay([part([0.5, 1.5, 2.5], [True] * 3)], MAPPING, ReplayConfig(label_delay_ms=0))
    )
    joined = list(joined_ticks(chunks, 2))
    assert [len(chunk.transactions) for chunk in joined] == [2, 1]
    assert [len(chunk.labels) for chunk in joined] == [2, 1]
    assert [chunk.watermark_ms for chunk in joined] == [
        chunks[1].watermark_ms,
        chunks[2].watermark_ms,
    ]
    assert [chunk.is_last for chunk in joined] == [False, True]


def test_disorder_is_refused():
    """Within a part and between parts."""
    for parts in ([part([2, 1], [False] * 2)], [part([2], [False]), part([1], [False])]):
        with pytest.raises(InvalidInputError, match="event time"):
            list(plan_replay(parts, MAPPING, ReplayConfig()))


@pytest.mark.parametrize("config", [{"tick_ms": 0}, {"label_delay_ms": -1}, {"labels": "some"}])
def test_wrong_configuration_is_refused(config):
    """Each names its field."""
    with pytest.raises(InvalidInputError, match=next(iter(config))):
        ReplayConfig(**config)


class FakeSender:
    """Keeps what is sent, in order."""

    def __init__(self):
        self.sent = []

    def partitions(self, topic):
        """Return two partitions for each topic."""
        assert topic
        return (0, 1)

    def send(self, topic, *, key, value, headers, partition):
        """Keep one record."""
        self.sent.append((topic, key, value, headers, partition))

    def flush(self):
        """Note it."""
        self.sent.append("flush")


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s

    def sleep(self, duration_s):
        """Let time pass."""
        self.now_s += duration_s


def replay(chunks, speed=0.0):
    """Run a replay against fakes."""
    sender, clock = FakeSender(), FakeClock()
    replayer = Replayer(
        sender, transactions_topic="b.transactions", labels_topic="b.labels",
        speed=speed, clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    sent = replayer.run(chunks)
    return sender, clock, sent


def test_every_partition_of_both_topics_gets_each_watermark_after_its_records():
    """Keys are accounts; the last watermark says that it is the end."""
    chunks = list(
        plan_replay([part([0.5, 1.5], [True, False])], MAPPING, ReplayConfig(label_delay_ms=0))
    )
    sender, _, sent = replay(chunks)
    assert (sent.transactions, sent.labels) == (2, 1)
    kinds = [(topic, key, partition) for topic, key, _, _, partition in sender.sent[:-1]]
    marks = [
        (topic, b"amalgam-watermark", p) for topic in ("b.labels", "b.transactions") for p in (0, 1)
    ]
    assert kinds == [
        ("b.labels", b"A0", None), ("b.transactions", b"A0", None), *marks,
        ("b.transactions", b"A1", None), *marks,
    ]  # fmt: skip
    first, last = sender.sent[2][3], sender.sent[-2][3]
    assert first == [("amalgam-watermark", str(START_MS + HOUR_MS).encode())]
    assert last == [
        ("amalgam-watermark", str(START_MS + 2 * HOUR_MS).encode()),
        ("amalgam-end", b"1"),
    ]
    assert sender.sent[-1] == "flush"


def test_speed_is_event_time_per_wall_time():
    """Four ticks of an hour at 3,600 take three seconds; at 0 none."""
    chunks = list(plan_replay([part([0.5, 3.5], [False] * 2)], MAPPING, ReplayConfig()))
    assert replay(chunks, speed=3600.0)[1].now_s == pytest.approx(103.0)
    assert replay(chunks)[1].now_s == 100.0


def test_speed_that_is_not_a_number_is_refused():
    """NaN would wait forever or never."""
    for speed in (float("nan"), -1.0, float("inf")):
        with pytest.raises(InvalidInputError, match="speed"):
            replay([], speed=speed)


def test_end_is_said_once():
    """Only the last chunk carries the end."""
    chunk = ReplayChunk(watermark_ms=5, transactions=[], labels=[], is_last=False)
    assert watermark_headers(chunk) == [("amalgam-watermark", b"5")]
