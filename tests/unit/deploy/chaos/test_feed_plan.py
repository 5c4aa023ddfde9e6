"""A disturbed feed repeats, mixes and delays, and keeps a replay's promise in every partition."""

import numpy as np
import pytest

from deploy.chaos.feed_plan import FeedPolicy, partition_of, plan_feed
from deploy.replay import KeyedRecord, ReplayChunk

N_CHUNKS = 60
CALM = FeedPolicy(repeated_share=0.0, late_share=0.0, max_lag_ticks=0)
WILD = FeedPolicy(repeated_share=0.1, late_share=0.1, max_lag_ticks=6)


def record(topic, chunk, i):
    return KeyedRecord(f"A{(chunk * 7 + i) % 23}".encode(), f"{topic}/{chunk}/{i}".encode())


CHUNKS = [
    ReplayChunk(
        watermark_ms=chunk,
        transactions=[record("transactions", chunk, i) for i in range(10)],
        labels=[record("labels", chunk, i) for i in range(3)],
        is_last=chunk == N_CHUNKS - 1,
    )
    for chunk in range(N_CHUNKS)
]


def lanes(slots):
    """Return (topic, partition) -> what is sent there in order: values, and marks as numbers."""
    found = {}
    for slot in slots:
        for piece in slot.pieces:
            lane = found.setdefault((piece.topic, piece.partition), [])
            lane += [value for _, value in piece.records]
            lane.append(piece.mark.watermark_ms)
    return found


@pytest.fixture(params=range(5))
def wild(request):
    return plan_feed(CHUNKS, 2, WILD, np.random.default_rng(request.param))


def test_undisturbed_every_record_goes_out_once_in_the_slot_of_its_chunk():
    """With all shares 0 a feed is the replay itself."""
    slots = plan_feed(CHUNKS, 2, CALM, np.random.default_rng(0))
    assert len(slots) == N_CHUNKS
    for chunk, slot in zip(CHUNKS, slots, strict=True):
        sent = sorted(value for piece in slot.pieces for _, value in piece.records)
        assert sent == sorted(r.value for r in [*chunk.labels, *chunk.transactions])
        assert (slot.repeated, slot.late) == (0, 0)


def test_watermarks_of_a_partition_come_in_order_and_all(wild):
    """Whatever a partition's lag is."""
    for lane in lanes(wild).values():
        assert [one for one in lane if isinstance(one, int)] == list(range(N_CHUNKS))


def test_a_record_stands_before_the_watermark_of_its_chunk_and_again_at_most_a_day_later(wild):
    """The first copy keeps the promise; a later one is a repeat."""
    for lane in lanes(wild).values():
        mark, seen = -1, set()
        for one in lane:
            if isinstance(one, int):
                mark = one
                continue
            chunk = int(one.split(b"/")[1])
            assert chunk == mark + 1 or (one in seen and mark + 1 - chunk <= 24)
            seen.add(one)


def test_copies_are_those_that_are_counted(wild):
    """Every record is there; the rest is what the slots say, in the same tick or a later one."""
    every = [r.value for chunk in CHUNKS for r in [*chunk.labels, *chunk.transactions]]
    sent = [
        (value, int(value.split(b"/")[1]) < piece.mark.watermark_ms)
        for slot in wild
        for piece in slot.pieces
        for _, value in piece.records
    ]
    n_late = sum(is_late for _, is_late in sent)
    assert {value for value, _ in sent} == set(every)
    assert n_late == sum(slot.late for slot in wild) > 0
    assert len(sent) - len(every) - n_late == sum(slot.repeated for slot in wild) > 0


def test_partitions_go_apart(wild):
    """In some slot one partition gets another chunk than the other."""
    assert any(len({piece.mark.watermark_ms for piece in slot.pieces}) > 1 for slot in wild)


def test_an_account_stays_in_one_partition(wild):
    """In both topics the same: transactions and labels of an account meet at one worker."""
    for slot in wild:
        for piece in slot.pieces:
            assert {partition_of(key, 2) for key, _ in piece.records} <= {piece.partition}
