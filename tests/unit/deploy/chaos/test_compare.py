"""Whatever a disturbed run loses, adds, learns twice or stores otherwise has its own figure."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from amalgamator.state import Held
from deploy.chaos.compare import Difference, compare, expected_of
from deploy.chaos.outcome import BankOutcome, Outcome, said_of
from deploy.chaos.small_world import DELAY_MS, HORIZON_MS, HOUR_MS
from deploy.local import BankStream
from models.records import Decision, Label, TransactionBatch
from models.summary import Contribution, ContributionKey

N = 100
END_MS = N * HOUR_MS
KEY = ContributionKey("a", "0", "histograms", 0)
FRAUDS = range(0, N, 10)


def stream():
    """Return a payment an hour, every tenth a fraud."""
    return BankStream(
        transactions=TransactionBatch(
            transaction_id=[f"P{i}" for i in range(N)],
            account_id=["A"] * N,
            event_time_ms=np.arange(N) * HOUR_MS,
            amount_minor=np.ones(N, np.int64),
            amount=np.ones(N),
            currency=["EUR"] * N,
            entities={},
            attributes={},
        ),
        labels=[
            Label(
                transaction_id=f"P{i}",
                is_fraud=True,
                source="chargeback",
                labelled_at_ms=i * HOUR_MS + DELAY_MS,
            )
            for i in FRAUDS
        ],
    )


def decision(i, score=0.5):
    return Decision(
        transaction_id=f"P{i}",
        event_time_ms=i,
        y_score=score,
        alert=False,
        release="1",
        expert_scores={},
    )


def bank(n_learnt=None, n_frauds=None):
    expected = expected_of(stream(), END_MS)
    n = expected.matured if n_learnt is None else n_learnt
    frauds = expected.frauds if n_frauds is None else n_frauds
    counts = np.zeros((4, 2, 3), np.uint32)
    counts[:, 0, 1], counts[:, 1, 2] = n - frauds, frauds
    return BankOutcome(
        decisions=said_of(decision(i) for i in range(N))[0],
        alerts={"alert-1": [b"text"], "alert-2": [b"text"]},
        arrays={
            "panel/own/counts": counts,
            "panel/shared/counts": counts,
            "labels/counts": np.array([frauds, 0, 0, 0]),
            "log/known_ms": np.arange(5),
        },
        meta=msgspec.msgpack.encode({"tick_ms": 3, "release_number": 2}),
        seq=7,
    )


def outcome(one=None):
    contribution = Contribution(key=KEY, epoch=3, basis=0, n=5, arrays={"count": np.arange(3)})
    return Outcome(
        banks={"a": one or bank()},
        release=(4, "hash"),
        refolded="hash",
        held={KEY: Held(contribution, 7)},
    )


def figures(chaos):
    """Return the figures that are not those of a run in which nothing differs."""
    calm = compare(outcome(), outcome(), {"a": stream()}, END_MS)
    assert calm.differences == ()
    found = compare(chaos, outcome(), {"a": stream()}, END_MS)
    assert found.differences
    return {name: n for name, n in found.figures.items() if n != calm.figures[name]}


def with_arrays(**arrays):
    return replace(bank(), arrays={**bank().arrays, **arrays})


def test_what_is_known_by_the_last_tick_is_counted_by_the_calendar():
    """The hours 0 to 99: frauds by their label, the others by the horizon."""
    hours, last = np.arange(N), N - 1
    is_fraud = hours % 10 == 0
    frauds = int((is_fraud & (hours + DELAY_MS // HOUR_MS <= last)).sum())
    legit = int((~is_fraud & (hours + HORIZON_MS // HOUR_MS <= last)).sum())
    found = expected_of(stream(), END_MS)
    assert (found.matured, found.frauds) == (frauds + legit, frauds)
    assert 0 < frauds < len(FRAUDS)


def test_a_missing_a_second_and_a_strange_decision_are_lost_transactions():
    """Exactly one distinct decision for each transaction, and none for any other."""
    said, repeated = said_of(decision(i) for i in [*range(1, N), 1, N])
    assert repeated == 1
    said["P5"].append(b"another")
    found = figures(outcome(replace(bank(), decisions=said)))
    assert found == {"transactions_lost": 3.0, "decisions_changed": 1.0}


def test_another_score_is_a_changed_decision():
    """Nothing is lost, but it is not the same."""
    said, _ = said_of(decision(i, score=0.25 if i == 9 else 0.5) for i in range(N))
    assert figures(outcome(replace(bank(), decisions=said))) == {"decisions_changed": 1.0}


def test_alerts_are_compared_as_a_set():
    """One is missing, one is new."""
    one = replace(bank(), alerts={"alert-1": [b"text"], "alert-3": [b"text"]})
    assert figures(outcome(one)) == {"alerts_lost": 1.0, "alerts_added": 1.0}


def test_one_outcome_counted_twice_shows_against_stream_and_undisturbed_run():
    """In both histograms against both, and the arrays differ."""
    expected = expected_of(stream(), END_MS)
    found = figures(outcome(bank(n_learnt=expected.matured + 1)))
    assert found == {"learned_twice": 4.0, "state_equal": 0.0}


def test_one_outcome_never_learnt_is_lost():
    """As above, the other way."""
    expected = expected_of(stream(), END_MS)
    found = figures(outcome(bank(n_learnt=expected.matured - 1)))
    assert found == {"outcomes_lost": 4.0, "state_equal": 0.0}


def test_a_run_that_halted_differs_though_all_that_it_left_is_equal():
    """It says why."""
    found = compare(outcome(), outcome(), {"a": stream()}, END_MS, halted="nothing has moved")
    assert found.differences == (Difference("finished", "all", 1, "nothing has moved"),)
    assert found.figures["finished"] == 0


def test_repeated_labels_alone_are_not_compared():
    """The second count is of labels that came again; the first is of what was learnt."""
    frauds = expected_of(stream(), END_MS).frauds
    one = with_arrays(**{"labels/counts": np.array([frauds, 9, 0, 0])})
    assert compare(outcome(one), outcome(), {"a": stream()}, END_MS).differences == ()
    assert figures(outcome(with_arrays(**{"labels/counts": np.array([frauds, 0, 1, 0])}))) == {
        "state_equal": 0.0
    }


@pytest.mark.parametrize(
    "changed",
    [
        with_arrays(**{"log/known_ms": np.array([0, 1, 2, 3, 5])}),
        with_arrays(**{"log/known_ms": np.arange(6)}),
        with_arrays(**{"log/known_ms": np.arange(5, dtype=np.int32)}),
        with_arrays(another=np.arange(2)),
        replace(bank(), arrays={k: v for k, v in bank().arrays.items() if k != "log/known_ms"}),
        replace(bank(), meta=msgspec.msgpack.encode({"tick_ms": 4, "release_number": 2})),
        replace(bank(), seq=8),
        replace(bank(), letters=1),
        replace(bank(), faults=("array 'x': broken",)),
    ],
)
def test_every_part_of_a_stored_state_counts(changed):
    """A value, a shape, a type, an array more or less, a scalar, a number, a letter, a fault."""
    assert figures(outcome(changed)) == {"state_equal": 0.0}


def test_the_fold_and_the_release_have_figures_of_their_own():
    """Another release, another fold, another contribution, one that was refused."""
    plain = outcome()
    assert figures(replace(plain, release=(5, "hash"))) == {"release_equal": 0.0}
    assert figures(replace(plain, refolded="other")) == {"fold_equal": 0.0}
    assert figures(replace(plain, held={})) == {"fold_equal": 0.0}
    refused = replace(plain, quarantined=("fork",))
    assert figures(refused) == {"fold_equal": 0.0, "quarantined": 1.0}
    other = replace(plain.held[KEY].contribution, arrays={"count": np.array([0, 1, 3])})
    assert figures(replace(plain, held={KEY: Held(other, 7)})) == {"fold_equal": 0.0}
    again = Held(plain.held[KEY].contribution, 8)
    assert figures(replace(plain, held={KEY: again})) == {"fold_equal": 0.0}
