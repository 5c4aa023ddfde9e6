"""Replay in lockstep: however the partitions are interleaved, the same steps come out."""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from models.records import Label, TransactionBatch
from stream.sequencer import Partition, Sequencer, Step

TICK_MS = 10
T0, T1, L0 = ("t", 0), ("t", 1), ("l", 0)
ALL = frozenset({T0, T1, L0})
Record = tuple[int, str] | int
"""(time, id) of a transaction or label, or the time of a watermark."""
Flat = tuple[int, list[tuple[int, str]], list[tuple[int, str]]]


def a_batch(rows: Sequence[tuple[int, str]]) -> TransactionBatch:
    n = len(rows)
    return TransactionBatch(
        transaction_id=[name for _, name in rows],
        account_id=["a"] * n,
        event_time_ms=np.array([time_ms for time_ms, _ in rows], np.int64),
        amount_minor=np.ones(n, np.int64),
        amount=np.ones(n),
        currency=["EUR"] * n,
    )


def a_label(time_ms: int, name: str) -> Label:
    return Label(transaction_id=name, is_fraud=True, source="analyst", labelled_at_ms=time_ms)


def add(sequencer: Sequencer, place: Partition, records: Sequence[Record], first: int = 0) -> None:
    """Hand over records of one partition, whose first one has this offset."""
    for offset, record in enumerate(records, first):
        if isinstance(record, int):
            sequencer.watermark(place, record, offset)
        elif place == L0:
            sequencer.add_labels(place, [a_label(*record)], [offset])
        else:
            sequencer.add_transactions(place, a_batch([record]), np.array([offset]))
        sequencer.seen(place, offset)


def flat(step: Step) -> Flat:
    """Return (tick, labels, transactions) of a step."""
    rows = step.transactions
    paid = [] if rows is None else list(zip(rows.event_time_ms, rows.transaction_id, strict=True))
    return (
        step.tick_ms,
        [(label.labelled_at_ms, label.transaction_id) for label in step.labels],
        [(int(time_ms), name) for time_ms, name in paid],
    )


def taken(sequencer: Sequencer, n: int) -> Iterator[Step]:
    """Take up to n steps."""
    for _ in range(n):
        step = sequencer.step()
        if step is None:
            return
        sequencer.begun()
        yield step
        sequencer.finished()


def drained(sequencer: Sequencer) -> list[Flat]:
    """Take all steps that are ready."""
    return [flat(step) for step in taken(sequencer, 1_000)]


times = st.lists(st.integers(0, 79), max_size=12).map(sorted)


@st.composite
def partitions(draw: st.DrawFn) -> dict[Partition, list[Record]]:
    """Return what three partitions hold: records in time order, watermarks in between."""
    out: dict[Partition, list[Record]] = {}
    for place in (T0, T1, L0):
        marks = {0, 80, *draw(st.sets(st.integers(1, 8).map(lambda k: k * TICK_MS)))}
        keyed: list[tuple[int, int, Record]] = [(mark, 0, mark) for mark in marks]
        keyed += [(t, 1, (t, f"{place}{i}")) for i, t in enumerate(draw(times))]
        keyed.sort(key=lambda entry: entry[:2])
        out[place] = [record for _, _, record in keyed]
    return out


def by_hand(records: dict[Partition, list[Record]]) -> list[Flat]:
    """Return the steps that the rules demand, from everything at once."""
    paid = sorted(r for p in (T0, T1) for r in records[p] if not isinstance(r, int))
    said = sorted(r for r in records[L0] if not isinstance(r, int))
    return [
        (
            tick,
            [r for r in said if (r[0] <= tick if tick == 0 else tick - TICK_MS < r[0] <= tick)],
            [r for r in paid if tick <= r[0] < tick + TICK_MS],
        )
        for tick in range(0, 80, TICK_MS)
    ]


@given(partitions(), st.lists(st.sampled_from([T0, T1, L0])), st.booleans())
def test_any_interleaving_gives_the_same_steps(
    records: dict[Partition, list[Record]], order: list[Partition], often: bool
) -> None:
    """Those of a sort of everything, whether asked for after each record or at the end."""
    sequencer = Sequencer(ALL, TICK_MS)
    waiting = {place: deque(enumerate(rest)) for place, rest in records.items()}
    steps = []
    for place in [*order, *(p for p in (L0, T1, T0) for _ in records[p])]:
        if waiting[place]:
            offset, record = waiting[place].popleft()
            add(sequencer, place, [record], offset)
            steps += drained(sequencer) if often else []
    steps += drained(sequencer)
    assert steps == by_hand(records)


@given(partitions(), st.data())
def test_reading_on_from_the_positions_gives_the_rest_of_the_steps(
    records: dict[Partition, list[Record]], data: st.DataObject
) -> None:
    """A crash after any step, or between the halves of one, repeats and loses nothing."""
    sequencer = Sequencer(ALL, TICK_MS)
    for place, rest in records.items():
        add(sequencer, place, rest[: data.draw(st.integers(1, len(rest)))])
    wanted = data.draw(st.integers(0, 8))
    steps = [flat(step) for step in taken(sequencer, wanted)]
    half = sequencer.step() if data.draw(st.booleans()) else None
    assume(steps or half)
    if half is not None:
        sequencer.begun()
    again = Sequencer(ALL, TICK_MS, len(steps) * TICK_MS, half is not None)
    positions = sequencer.positions()
    for place, rest in records.items():
        add(again, place, rest[positions[place] :], positions[place])
    rest_of_steps = drained(again)
    if half is not None:
        tick, labels, paid = rest_of_steps[0]
        assert labels == []
        rest_of_steps[0] = (tick, flat(half)[1], paid)
    assert steps + rest_of_steps == by_hand(records)


def test_nothing_is_handed_on_before_every_partition_has_spoken() -> None:
    """A partition that is empty speaks by its watermarks."""
    sequencer = Sequencer(ALL, TICK_MS)
    add(sequencer, T0, [0, (3, "a"), 20])
    add(sequencer, L0, [0, 20])
    assert sequencer.step() is None
    add(sequencer, T1, [0, 10])
    assert drained(sequencer) == [(0, [], [(3, "a")])]
    add(sequencer, T1, [20], 2)
    assert drained(sequencer) == [(10, [], [])]


def test_equal_times_go_by_the_transactions_id() -> None:
    """Across partitions; so no clock of the broker decides."""
    sequencer = Sequencer(frozenset({T0, T1}), TICK_MS)
    add(sequencer, T0, [0, (5, "b"), (5, "d"), 10])
    add(sequencer, T1, [0, (5, "c"), (5, "a"), 10])
    assert drained(sequencer) == [(0, [], [(5, "a"), (5, "b"), (5, "c"), (5, "d")])]


def test_a_label_belongs_to_the_tick_at_or_after_it_and_a_payment_to_the_one_before() -> None:
    """What is said at the tick itself is learnt in it."""
    sequencer = Sequencer(frozenset({T0, L0}), TICK_MS)
    add(sequencer, T0, [0, (10, "p"), 30])
    add(sequencer, L0, [0, (10, "on"), (11, "after"), 30])
    assert drained(sequencer) == [
        (0, [], []),
        (10, [(10, "on")], [(10, "p")]),
        (20, [(11, "after")], []),
    ]


def test_a_watermark_that_falls_is_not_believed() -> None:
    """Steps that were handed on cannot be taken back."""
    sequencer = Sequencer(frozenset({T0}), TICK_MS)
    add(sequencer, T0, [0, 20, 10])
    assert [step[0] for step in drained(sequencer)] == [0, 10]


def test_places_say_where_each_record_of_a_step_lies() -> None:
    """Partition and offset, in the order of the step."""
    sequencer = Sequencer(frozenset({T0, T1, L0}), TICK_MS)
    add(sequencer, T0, [0, (4, "b"), 10])
    add(sequencer, T1, [0, (2, "c"), (4, "a"), 10])
    add(sequencer, L0, [0, (0, "c"), 10])
    step = sequencer.step()
    assert step is not None
    assert step.transactions is not None
    assert list(step.transactions.transaction_id) == ["c", "a", "b"]
    assert list(step.transaction_places) == [(T1, 1), (T1, 2), (T0, 1)]
    assert list(step.label_places) == [(L0, 1)]


def test_a_step_stays_until_it_is_finished() -> None:
    """Asking again gives the same one."""
    sequencer = Sequencer(frozenset({T0}), TICK_MS)
    add(sequencer, T0, [0, (4, "a"), 20])
    assert sequencer.step() is sequencer.step()
    sequencer.begun()
    assert sequencer.is_begun
    sequencer.finished()
    assert not sequencer.is_begun
    step = sequencer.step()
    assert step is not None
    assert step.tick_ms == 10


def test_a_crash_before_the_first_step_forgets_no_tick() -> None:
    """One partition is ahead, the other has not spoken: the ticks still begin where they began."""
    ahead: list[Record] = [10, 20, (25, "x"), 30]
    behind: list[Record] = [10, (12, "y"), 20, 30]
    both = frozenset({T0, T1})
    sequencer = Sequencer(both, TICK_MS)
    add(sequencer, T0, ahead)
    again = Sequencer(both, TICK_MS)
    position = sequencer.positions()[T0]
    add(again, T0, ahead[position:], position)
    for one in (sequencer, again):
        add(one, T1, behind)
    steps = drained(sequencer)
    assert [tick for tick, _, _ in steps] == [10, 20]
    assert drained(again) == steps
