"""The worker's edge: bad records become dead letters, the others pass, nothing leaks."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from models.features.accounts import DAY_MS, HOUR_MS
from models.records import DeadLetter, Decision
from models.topics import BankTopics
from stream.outputs import Outputs
from stream.pipeline import Pipeline
from stream.sequencer import Sequencer
from stream.telemetry import Telemetry
from stream.worker import WATERMARK_HEADER, BankWorker, watermark_of
from tests.unit.stream.small_bank import MAPPING, a_config

TOPICS = BankTopics("north")
START_MS = 20_500 * DAY_MS
ACCOUNT, AMOUNT = "ACC-77001", 8675309.25
DECIMALS = [repr(AMOUNT), "867530925"]


@dataclass(frozen=True)
class FakeRecord:
    """A record as a Kafka client gives it."""

    value: bytes | None
    offset: int = 0
    topic: str = TOPICS.transactions
    partition: int = 2
    headers: Sequence[tuple[str, bytes]] = ()


class Bank:
    """A worker with its registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.telemetry = Telemetry(self.registry)
        self.worker = BankWorker(Pipeline(a_config()), MAPPING, TOPICS, self.telemetry)

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"amalgam_stream_{name}", labels)


@pytest.fixture
def bank() -> Bank:
    return Bank()


def payment(name: str, after_ms: int = 0, **changes: object) -> bytes:
    """Return a transaction record."""
    record: dict[str, object] = {
        "transaction_id": name,
        "event_time_ms": START_MS + after_ms,
        "account_id": ACCOUNT,
        "amount": AMOUNT,
        "currency": "EUR",
        "terminal": "TERM-5",
    }
    return json.dumps({k: v for k, v in (record | changes).items() if v is not None}).encode()


def label(name: str, after_ms: int, *, is_fraud: bool = True) -> bytes:
    """Return a label record."""
    at_ms = START_MS + after_ms
    return json.dumps(
        {"transaction_id": name, "fraud": int(is_fraud), "labelled_at_ms": at_ms}
    ).encode()


def records(*values: bytes | None, topic: str = TOPICS.transactions) -> list[FakeRecord]:
    """Return records with offsets 100, 101, ..."""
    return [FakeRecord(value, 100 + i, topic) for i, value in enumerate(values)]


def mark(after_ms: int, topic: str = TOPICS.transactions, offset: int = 0) -> FakeRecord:
    """Return a watermark record."""
    header = (WATERMARK_HEADER, b"%d" % (START_MS + after_ms))
    return FakeRecord(None, offset, topic, headers=[header])


def sent(outputs: Sequence[Outputs]) -> list[tuple[str, bytes, bytes]]:
    """Return topic, key and value of each record."""
    return [
        (topic, *pair) for topic, keys, values in outputs for pair in zip(keys, values, strict=True)
    ]


def of_topic(outputs: Sequence[Outputs], topic: str) -> list[tuple[str, bytes, bytes]]:
    """Return the records that go to a topic."""
    return [record for record in sent(outputs) if record[0] == topic]


def decisions(outputs: Sequence[Outputs]) -> list[Decision]:
    found = of_topic(outputs, TOPICS.decisions)
    return [msgspec.json.decode(value, type=Decision) for _, _, value in found]


def letters(outputs: Sequence[Outputs]) -> list[DeadLetter]:
    found = of_topic(outputs, TOPICS.dead_letters)
    return [msgspec.json.decode(value, type=DeadLetter) for _, _, value in found]


BAD: list[tuple[bytes | None, str]] = [
    (None, "not_an_object"),
    (b"{", "malformed_json"),
    (b"[1]", "not_an_object"),
    (payment("b3", amount=-AMOUNT), "negative_amount"),
    (payment("b4", currency="XXX"), "unknown_currency"),
    (payment("b5", account_id=None), "missing_field"),
    (payment("b6", event_time_ms="soon"), "wrong_type"),
    (payment("b7", -20 * 366 * DAY_MS * 2), "bad_time"),
    (payment("b7", amount=1e300), "too_large"),
    (payment("b8", amount={"of": AMOUNT}), "wrong_type"),
    (payment("g0"), "duplicate_transaction"),
    (payment("b10", -3 * DAY_MS), "late_event"),
    (payment("b11", 2 * DAY_MS), "future_event"),
]
GOOD = [payment(f"g{i}", i * 1_000) for i in range(len(BAD) + 1)]
CLOCK_MS = START_MS + HOUR_MS


def mixed() -> list[bytes | None]:
    """Return good records with a bad one behind each."""
    out: list[bytes | None] = []
    for good, (bad, _) in zip(GOOD, BAD, strict=False):
        out += [good, bad]
    return [*out, GOOD[-1]]


def test_bad_records_become_dead_letters_with_reason_place_and_payload(bank: Bank) -> None:
    """Each bad one, and no good one."""
    outputs = bank.worker.score(records(*mixed()), clock_ms=CLOCK_MS)
    found = sorted(letters(outputs), key=lambda letter: letter.offset)
    assert [letter.reason for letter in found] == [reason for _, reason in BAD]
    assert [letter.offset for letter in found] == [101 + 2 * i for i in range(len(BAD))]
    assert [letter.payload for letter in found] == [value or b"" for value, _ in BAD]
    assert {(letter.topic, letter.partition) for letter in found} == {(TOPICS.transactions, 2)}
    keys = {key for _, key, _ in of_topic(outputs, TOPICS.dead_letters)}
    assert keys == {f"{TOPICS.transactions}/2/{x.offset}".encode() for x in found}


def test_the_good_records_are_decided_as_if_alone(bank: Bank) -> None:
    """To the byte, in order, under their account."""
    found = bank.worker.score(records(*mixed()), clock_ms=CLOCK_MS)
    alone = Bank().worker.score(records(*GOOD), clock_ms=CLOCK_MS)
    assert len(sent(alone)) == len(GOOD)
    assert of_topic(found, TOPICS.decisions) == sent(alone)
    assert [decision.transaction_id for decision in decisions(alone)] == [
        f"g{i}" for i in range(len(GOOD))
    ]
    assert {key for _, key, _ in sent(alone)} == {ACCOUNT.encode()}


def test_what_happened_is_counted_by_reason(bank: Bank) -> None:
    """And decisions by what was decided."""
    bank.worker.score(records(*mixed()), clock_ms=CLOCK_MS)
    reasons = [reason for _, reason in BAD]
    for reason in set(reasons):
        assert bank.count("dead_letters_total", reason=reason) == reasons.count(reason)
    assert bank.count("dead_letters_total", reason="bug") == 0
    assert bank.count("transactions_scored_total", decision="pass") == len(GOOD)
    assert bank.count("transactions_scored_total", decision="alert") == 0


def test_no_account_amount_or_id_leaves_but_in_payload_and_answers(
    bank: Bank, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a letter's reason, detail or key, not in a log, not in a metric."""
    caplog.set_level(logging.DEBUG)
    outputs = bank.worker.score(records(*mixed()), clock_ms=CLOCK_MS)
    told = [letter.reason + letter.detail for letter in letters(outputs)]
    told += [key.decode() for _, key, _ in of_topic(outputs, TOPICS.dead_letters)]
    told += [bank.telemetry.render().decode(), caplog.text]
    for secret in (ACCOUNT, "77001", *DECIMALS, "TERM-5", "b10", "soon", "XXX", "1e300"):
        assert not [text for text in told if secret in text], secret


def test_a_decision_says_what_scored_it(bank: Bank) -> None:
    """Without a scorer: the prior, no release, no expert."""
    (decision,) = decisions(bank.worker.score(records(payment("g")), clock_ms=CLOCK_MS))
    prior = bank.worker.pipeline.config.judging.blend.prior_logit
    assert decision.y_score == pytest.approx(1 / (1 + 2.718281828459045**-prior))
    assert (decision.event_time_ms, decision.alert, decision.release) == (START_MS, False, "0")
    assert decision.expert_scores == {}


def test_labels_that_cannot_be_used_become_dead_letters(bank: Bank) -> None:
    """Undecodable ones and contradictions; duplicates and early ones are merely counted."""
    bank.worker.score(records(payment("x"), payment("y")), clock_ms=CLOCK_MS)
    values = [
        label("x", HOUR_MS),
        b"{}",
        label("x", HOUR_MS, is_fraud=False),
        label("x", 2 * HOUR_MS),
        label("unseen", HOUR_MS),
        None,
    ]
    found = letters(bank.worker.learn(records(*values, topic=TOPICS.labels)))
    places = {letter.offset: (letter.reason, letter.payload) for letter in found}
    assert places == {
        101: ("missing_field", b"{}"),
        102: ("contradicting_label", values[2]),
        105: ("not_an_object", b""),
    }
    counts = {
        outcome: bank.count("labels_total", outcome=outcome)
        for outcome in ("joined", "duplicate", "contradicting", "parked_dropped")
    }
    assert counts == {"joined": 1, "duplicate": 1, "contradicting": 1, "parked_dropped": 0}
    assert bank.count("labels_parked") == 1
    bank.worker.learn(records(label("y", HOUR_MS), topic=TOPICS.labels))
    assert bank.count("labels_total", outcome="joined") == 2
    assert bank.count("labels_total", outcome="duplicate") == 1


def test_watermarks_of_a_replay_are_passed_over_live(bank: Bank) -> None:
    """They are neither scored nor dead letters."""
    chunk = [mark(0), *records(payment("g")), mark(HOUR_MS)]
    outputs = bank.worker.score(chunk, clock_ms=CLOCK_MS)
    assert [decision.transaction_id for decision in decisions(outputs)] == ["g"]
    assert letters(outputs) == []
    assert bank.worker.score([mark(0)], clock_ms=CLOCK_MS) == []
    assert bank.worker.learn([mark(0, TOPICS.labels)]) == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([("other", b"5")], None),
        ([("other", b"5"), (WATERMARK_HEADER, b"17")], 17),
        ([(WATERMARK_HEADER, b"-17")], None),
        ([(WATERMARK_HEADER, b"soon")], None),
        ([(WATERMARK_HEADER, b"")], None),
    ],
)
def test_a_watermark_is_a_header_of_digits(
    headers: list[tuple[str, bytes]], expected: int | None
) -> None:
    """Anything else is a record like another."""
    assert watermark_of(FakeRecord(b"", headers=headers)) == expected


def replayed(worker: BankWorker, chunks: Sequence[Sequence[FakeRecord]]) -> list[Outputs]:
    """Hand chunks to a sequencer and take every step that becomes ready."""
    places = frozenset({(TOPICS.transactions, 2), (TOPICS.labels, 2)})
    sequencer = Sequencer(places, HOUR_MS)
    outputs = []
    for chunk in chunks:
        outputs += worker.hold(sequencer, chunk)
        while (step := sequencer.step()) is not None:
            outputs += worker.begin(step)
            sequencer.begun()
            outputs += worker.finish(step)
            sequencer.finished()
    return outputs


PAID = [
    mark(0),
    *records(*(payment(f"p{i}", i * 20 * 60_000) for i in range(9))),
    mark(6 * HOUR_MS),
]
SAID = [
    mark(0, TOPICS.labels),
    *records(label("p0", HOUR_MS), label("p1", HOUR_MS + 1), topic=TOPICS.labels),
    mark(6 * HOUR_MS, TOPICS.labels),
]


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_a_replay_gives_the_same_answers_however_chunks_come(bank: Bank, n: int) -> None:
    """Labels first or last, records alone or together with watermarks."""
    cut = [part[i : i + n] for part in (SAID, PAID) for i in range(0, len(part), n)]
    found = replayed(bank.worker, cut)
    whole = replayed(Bank().worker, [PAID, SAID])
    assert len(sent(whole)) == 9
    assert sent(found) == sent(whole)
    pipeline = bank.worker.pipeline
    assert pipeline.panel.shared.counts[0, 1].sum() == 2
    assert pipeline.tick_ms == START_MS + 5 * HOUR_MS


def test_a_replay_names_the_places_of_records_it_refuses_late(bank: Bank) -> None:
    """A bad record comes with its payload; of a duplicate, found later, only the place is left."""
    chunk = [
        mark(0),
        *records(payment("a"), b"{", payment("a", 5)),
        mark(2 * HOUR_MS, offset=103),
    ]
    outputs = replayed(
        bank.worker, [chunk, [mark(0, TOPICS.labels), mark(2 * HOUR_MS, TOPICS.labels)]]
    )
    found = [(x.offset, x.reason, x.payload) for x in letters(outputs)]
    assert found == [(101, "malformed_json", b"{"), (102, "duplicate_transaction", b"")]
    assert [decision.transaction_id for decision in decisions(outputs)] == ["a"]
    assert bank.count("dead_letters_total", reason="duplicate_transaction") == 1


def test_a_contradicting_label_of_a_replay_is_refused_by_its_place(bank: Bank) -> None:
    """Whichever was said first stands."""
    said = [
        mark(0, TOPICS.labels),
        *records(
            b"{}",
            label("p0", HOUR_MS + 1),
            label("p0", HOUR_MS + 2, is_fraud=False),
            topic=TOPICS.labels,
        ),
        mark(6 * HOUR_MS, TOPICS.labels),
    ]
    found = letters(replayed(bank.worker, [PAID, said]))
    assert [(x.topic, x.offset, x.reason) for x in found] == [
        (TOPICS.labels, 100, "missing_field"),
        (TOPICS.labels, 102, "contradicting_label"),
    ]
