"""The consortium in one process calls its parts in the order that its module states."""

from types import SimpleNamespace

import numpy as np
import pytest

from deploy.local import BankStream, LocalConsortium
from models.errors import InvalidInputError
from models.records import Label, TransactionBatch

TICK = 10


def payments(times_ms):
    """Return payments at these times."""
    n = len(times_ms)
    return TransactionBatch(
        transaction_id=[f"P{t}" for t in times_ms],
        account_id=["A"] * n,
        event_time_ms=np.array(times_ms, np.int64),
        amount_minor=np.full(n, 100, np.int64),
        amount=np.ones(n),
        currency=["EUR"] * n,
    )


def said(*times_ms):
    """Return labels said at these times."""
    return [
        Label(transaction_id=f"L{t}", is_fraud=True, source="chargeback", labelled_at_ms=t)
        for t in times_ms
    ]


def stream(times_ms, labelled_ms=()):
    """Return what a bank sees."""
    return BankStream(transactions=payments(times_ms), labels=said(*labelled_ms))


class FakePipeline:
    """Notes its calls in a list that all fakes share."""

    def __init__(self, name, notes, *, tick_ms=TICK, n_pieces=1):
        self.config = SimpleNamespace(tick_ms=tick_ms)
        self._name, self._notes, self._n_pieces = name, notes, n_pieces

    def learn(self, labels):
        """Note the labels' ids."""
        self._note("learn", [one.transaction_id for one in labels])

    def advance(self, tick_ms):
        """Note the time."""
        self._note("advance", tick_ms)

    def contributions(self, epoch):
        """Return as many pieces as asked for."""
        self._note("contributions", epoch)
        return [f"{self._name}-{epoch}-{i}" for i in range(self._n_pieces)]

    def published(self, seqs):
        """Note the sequence numbers."""
        self._note("published", list(seqs))

    def install(self, release):
        """Note the release."""
        self._note("install", release)

    def score(self, batch):
        """Return the ids of the rows."""
        self._note("score", batch.transaction_id)
        return batch.transaction_id

    def _note(self, what, value):
        self._notes.append((self._name, what, value))


class FakeAmalgamator:
    """Notes what it is given, and releases the number of each epoch, or nothing."""

    def __init__(self, notes, *, is_silent=False):
        self._notes, self._is_silent = notes, is_silent

    def accept(self, contribution, seq):
        """Note a contribution."""
        self._notes.append(("amalgamator", "accept", (contribution, seq)))

    def close_epoch(self, epoch):
        """Return a release."""
        self._notes.append(("amalgamator", "close", epoch))
        return None if self._is_silent else f"release-{epoch}"


def run(streams, *, cadence_ms=TICK, n_pieces=1, with_amalgamator=True, is_silent=False):
    """Return all calls in order, and what the callers' functions were given."""
    notes, heard = [], []
    pipelines = {name: FakePipeline(name, notes, n_pieces=n_pieces) for name in streams}
    amalgamator = FakeAmalgamator(notes, is_silent=is_silent) if with_amalgamator else None
    LocalConsortium(pipelines, amalgamator, cadence_ms=cadence_ms).run(
        streams,
        on_scored=lambda name, rows, scored: heard.append(("scored", name, rows, scored)),
        on_release=lambda release: heard.append(("release", release)),
        on_tick=lambda tick_ms: heard.append(("tick", tick_ms)),
    )
    return notes, heard


def calls(notes, what):
    """Return (who, value) of one kind of call."""
    return [(who, value) for who, kind, value in notes if kind == what]


def test_a_tick_learns_then_exchanges_then_scores():
    """All banks learn before any publishes, and all install before any scores."""
    notes, _ = run({"b": stream([12]), "a": stream([11])})
    assert notes == [
        ("a", "learn", []), ("a", "advance", 10), ("b", "learn", []), ("b", "advance", 10),
        ("a", "contributions", 0), ("amalgamator", "accept", ("a-0-0", 1)), ("a", "published", [1]),
        ("b", "contributions", 0), ("amalgamator", "accept", ("b-0-0", 1)), ("b", "published", [1]),
        ("amalgamator", "close", 0),
        ("a", "install", "release-0"), ("b", "install", "release-0"),
        ("a", "score", ["P11"]), ("b", "score", ["P12"]),
    ]  # fmt: skip


def test_a_payment_on_the_border_is_scored_in_the_later_tick():
    """Scored are those of [T, T + tick), each once and in order."""
    notes, heard = run({"a": stream([9, 10, 19, 20, 41])})
    assert [rows for _, rows in calls(notes, "score")] == [["P9"], ["P10", "P19"], ["P20"], ["P41"]]
    slices = [one[2] for one in heard if one[0] == "scored"]
    assert slices == [slice(0, 1), slice(1, 3), slice(3, 4), slice(4, 5)]


def test_a_label_is_learnt_at_the_first_tick_at_or_after_it_was_said():
    """On the border already; never twice; what is said after the last tick is never heard."""
    notes, _ = run({"a": stream([0, 35], [10, 11, 20, 31])})
    assert calls(notes, "learn") == [
        ("a", []), ("a", ["L10"]), ("a", ["L11", "L20"]), ("a", []),
    ]  # fmt: skip


def test_epochs_are_closed_at_multiples_of_the_cadence():
    """The tick that begins epoch n closes n - 1; ticks start at the cadence before all payments."""
    notes, heard = run({"a": stream([57]), "b": stream([65, 81])}, cadence_ms=2 * TICK)
    assert [value for _, value in calls(notes, "close")] == [1, 2, 3]
    assert [one[1] for one in heard if one[0] == "tick"] == [40, 50, 60, 70, 80]
    assert [one[1] for one in heard if one[0] == "release"] == [
        "release-1", "release-2", "release-3",
    ]  # fmt: skip


def test_sequence_numbers_of_a_bank_rise_without_a_gap():
    """Three pieces an epoch: 1 to 3, then 4 to 6."""
    notes, _ = run({"a": stream([0, 15])}, n_pieces=3)
    assert calls(notes, "published") == [("a", [1, 2, 3]), ("a", [4, 5, 6])]
    assert [seq for _, (_, seq) in calls(notes, "accept")] == [1, 2, 3, 4, 5, 6]


def test_without_a_release_nothing_is_installed():
    """An amalgamator that has nothing to say is no error."""
    notes, heard = run({"a": stream([0, 15])}, is_silent=True)
    assert calls(notes, "install") == []
    assert [one for one in heard if one[0] == "release"] == []


def test_banks_without_an_amalgamator_stay_alone():
    """They learn and score, and publish nothing."""
    notes, _ = run({"a": stream([0, 15], [3])}, with_amalgamator=False)
    assert {what for _, what, _ in notes} == {"learn", "advance", "score"}


def test_a_bank_without_payments_takes_part():
    """It is never asked to score, but gets every release; with no payments at all nothing runs."""
    notes, _ = run({"a": stream([5]), "b": stream([])})
    assert calls(notes, "score") == [("a", ["P5"])]
    assert calls(notes, "install") == [("a", "release--1"), ("b", "release--1")]
    assert run({"a": stream([])}) == ([], [])


def test_streams_out_of_order_are_refused():
    """Payments by event time, labels by when they were said; equal times are in order."""
    stream([3, 3], [4, 4])
    for times, labelled in (([3, 2], ()), ([2, 3], (5, 4))):
        with pytest.raises(InvalidInputError, match="time order"):
            stream(times, labelled)


@pytest.mark.parametrize(("ticks", "cadence_ms"), [((10,), 15), ((10, 20), 20), ((), 10)])
def test_cadence_that_is_no_multiple_of_one_tick_is_refused(ticks, cadence_ms):
    """Else an epoch would end between ticks, or the banks would tick apart."""
    pipelines = {str(tick): FakePipeline(str(tick), [], tick_ms=tick) for tick in ticks}
    with pytest.raises(InvalidInputError, match="cadence_ms"):
        LocalConsortium(pipelines, None, cadence_ms=cadence_ms)


def test_a_liar_publishes_what_it_makes_of_its_contributions():
    """Two for one or none at all; its own count of what it sent goes on."""
    notes = []
    pipelines = {"a": FakePipeline("a", notes, n_pieces=2), "b": FakePipeline("b", notes)}
    consortium = LocalConsortium(
        pipelines,
        FakeAmalgamator(notes),
        cadence_ms=TICK,
        tampers={"a": lambda one: [] if one.endswith("0") else [one, one.upper()]},
    )
    consortium.run({"a": stream([0]), "b": stream([0])}, on_scored=lambda name, rows, scored: None)
    assert calls(notes, "accept") == [
        ("amalgamator", ("a--1-1", 1)),
        ("amalgamator", ("A--1-1", 2)),
        ("amalgamator", ("b--1-0", 1)),
    ]
    assert calls(notes, "published") == [("a", [0, 2]), ("b", [1])]
