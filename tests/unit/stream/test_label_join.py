"""Labels and their transactions: in any order, twice, against each other, or without one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features.accounts import DAY_MS
from models.records import Label
from stream.label_join import LabelJoin, hash_ids
from stream.row_log import FRAUD, LEGIT, PENDING, RowLog

T = 100 * DAY_MS


def a_log(*ids: str, event_ms: int = T) -> RowLog:
    """Return a log that holds these transactions."""
    log = RowLog(n_entities=0, n_features=0, n_own=0, n_experts=0)
    if ids:
        append(log, *ids, event_ms=event_ms)
    return log


def append(log: RowLog, *ids: str, event_ms: int = T) -> slice:
    """Add transactions to a log; return their rows."""
    n = len(ids)
    return log.append(
        {
            "hash": hash_ids(ids),
            "event_ms": np.full(n, event_ms),
            "arrival_ms": np.full(n, event_ms),
            "account": np.zeros(n, np.int64),
            "entity": np.zeros((n, 0), np.int64),
            **{name: np.zeros((n, 0), np.float32) for name in ("features", "own", "scores")},
        }
    )


def label(transaction_id: str, *, is_fraud: bool = True, at_ms: int = T + 50) -> Label:
    return Label(
        transaction_id=transaction_id,
        is_fraud=is_fraud,
        source="chargeback",
        labelled_at_ms=at_ms,
    )


def counts(join: LabelJoin) -> tuple[int, int, int, int]:
    return join.joined, join.duplicates, join.contradicting, join.dropped


@pytest.mark.parametrize(("is_fraud", "outcome"), [(True, FRAUD), (False, LEGIT)])
def test_a_label_settles_its_transaction(is_fraud: bool, outcome: int) -> None:
    """With the outcome, the time at which it was said, and the row for the next tick."""
    log, join = a_log("x", "y"), LabelJoin()
    assert join.learn(log, [label("y", is_fraud=is_fraud)], T) == []
    assert log.outcome.tolist() == [PENDING, outcome]
    assert log.known_ms.tolist() == [-1, T + 50]
    assert counts(join) == (1, 0, 0, 0)
    assert join.take_fresh(log, T + 49).tolist() == []
    assert join.take_fresh(log, T + 50).tolist() == [1]
    assert join.take_fresh(log, T + 50).tolist() == []


@pytest.mark.parametrize(
    ("said_ms", "tick_ms", "known_ms"),
    [(T + 5, T + 3, T + 5), (T + 5, T + 9, T + 10), (T - 5, T - 9, T)],
)
def test_an_outcome_is_known_neither_before_it_is_said_nor_learnt_nor_paid(
    said_ms: int, tick_ms: int, known_ms: int
) -> None:
    """The latest of the three, learnt being after the last tick."""
    log, join = a_log("x"), LabelJoin()
    join.learn(log, [label("x", at_ms=said_ms)], tick_ms)
    assert log.known_ms.tolist() == [known_ms]


def test_a_label_before_its_transaction_waits_for_it() -> None:
    """And settles it as soon as it is there."""
    log, join = a_log("other"), LabelJoin()
    assert join.learn(log, [label("x", at_ms=T - 10)], T - 20) == []
    assert len(join.parked) == 1
    assert counts(join) == (0, 0, 0, 0)
    join.unpark(log, append(log, "y", "x"), T - 20)
    assert log.outcome.tolist() == [PENDING, PENDING, FRAUD]
    assert log.known_ms.tolist() == [-1, -1, T]
    assert counts(join) == (1, 0, 0, 0)
    assert len(join.parked) == 0
    assert join.take_fresh(log, T).tolist() == [2]


def test_a_label_twice_is_counted_and_learnt_once() -> None:
    """Whether its transaction is there or not; the first time it was said stays."""
    log, join = a_log("x"), LabelJoin()
    for at_ms in (T + 5, T + 9):
        join.learn(log, [label("x", at_ms=at_ms), label("unseen", at_ms=at_ms)], T)
    assert counts(join) == (1, 2, 0, 0)
    assert log.known_ms.tolist() == [T + 5]
    assert [parked.labelled_at_ms for parked in join.parked.values()] == [T + 5]
    assert join.take_fresh(log, T + 9).tolist() == [0]


def test_fraud_after_legitimate_is_learnt_as_a_late_chargeback() -> None:
    """Its row comes again, known from when the fraud was said."""
    log, join = a_log("x"), LabelJoin()
    join.learn(log, [label("x", is_fraud=False, at_ms=T + 5)], T)
    assert join.take_fresh(log, T + 5).tolist() == [0]
    assert join.learn(log, [label("x", at_ms=T + 80)], T) == []
    assert log.outcome.tolist() == [FRAUD]
    assert log.known_ms.tolist() == [T + 80]
    assert join.take_fresh(log, T + 80).tolist() == [0]
    assert counts(join) == (2, 0, 0, 0)


def test_legitimate_after_fraud_is_refused_by_its_position() -> None:
    """The fraud stays; the refusal names no transaction."""
    log, join = a_log("x", "y"), LabelJoin()
    rejected = join.learn(log, [label("x"), label("y"), label("x", is_fraud=False)], T)
    assert [(r.row, r.reason) for r in rejected] == [(2, "contradicting_label")]
    assert log.outcome.tolist() == [FRAUD, FRAUD]
    assert counts(join) == (2, 0, 1, 0)


def test_the_oldest_of_too_many_waiting_labels_is_dropped() -> None:
    """A flood of labels of unknown transactions does not fill the memory."""
    join, log = LabelJoin(max_parked=2), a_log()
    join.learn(log, [label("a"), label("b"), label("a"), label("c")], T)
    assert counts(join) == (0, 1, 0, 1)
    join.unpark(log, append(log, "a", "b", "c"), T)
    assert log.outcome.tolist() == [PENDING, FRAUD, FRAUD]


def test_the_text_of_an_unknown_transaction_is_not_kept() -> None:
    """Only its hash waits."""
    join = LabelJoin()
    join.learn(a_log(), [label("TX-4711")], T)
    assert "4711" not in repr(join)


def by_hand(
    events: list[tuple[str, str]],
) -> tuple[dict[str, int], tuple[int, int], list[str]]:
    """Return (outcome of each transaction, (duplicates, contradictions), what waits)."""
    outcome: dict[str, int] = {}
    waits: dict[str, int] = {}
    duplicates = contradicting = 0
    for kind, name in events:
        said = FRAUD if kind == "fraud" else LEGIT
        if kind == "paid":
            outcome.setdefault(name, waits.pop(name, PENDING))
        elif name not in outcome:
            duplicates += name in waits
            waits.setdefault(name, said)
        elif outcome[name] == said:
            duplicates += 1
        elif outcome[name] == FRAUD:
            contradicting += 1
        else:
            outcome[name] = said
    return outcome, (duplicates, contradicting), sorted(waits)


events = st.lists(
    st.tuples(st.sampled_from(["paid", "fraud", "legit"]), st.sampled_from("abcd")), max_size=25
)


@given(events)
def test_any_order_of_payments_and_labels_ends_as_the_rules_say(
    said: list[tuple[str, str]],
) -> None:
    """Outcomes, counts and what waits, also after a restart in between."""
    log, join = a_log(), LabelJoin()
    paid: list[str] = []
    for kind, name in said:
        if kind != "paid":
            join.learn(log, [label(name, is_fraud=kind == "fraud")], T)
        elif name not in paid:
            paid.append(name)
            join.unpark(log, append(log, name), T)
        arrays, join = join.arrays(), LabelJoin()
        join.load(arrays)
    outcome, refused, waits = by_hand(said)
    assert dict(zip(paid, log.outcome.tolist(), strict=True)) == outcome
    assert (join.duplicates, join.contradicting) == refused
    assert sorted(join.parked) == sorted(hash_ids(waits))
    fresh = join.take_fresh(log, T + DAY_MS).tolist()
    assert [paid[row] for row in fresh] == [name for name in paid if outcome[name] != PENDING]
