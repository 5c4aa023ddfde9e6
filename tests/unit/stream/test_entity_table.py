"""Entities: own outcomes as published cells, and the others' evidence with the own taken out."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.entity_risk import (
    EvidenceCells,
    added,
    aggregate,
    capped,
    concatenate,
    most_telling,
    present_in,
    pseudonym,
)
from models.evidence_changes import Changes
from models.features.accounts import DAY_MS, HOUR_MS
from models.features.entities import N_FEATURES, read
from models.schema import ENTITY_FEATURES
from stream.entity_table import EntityTable

SECRET = b"s" * 32
DAY = 20_000
NAMES = [f"T{i}" for i in range(12)]
WEIGHTS = (("north", "0", 1.0), ("south", "0", 1.0))
Outcomes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def a_table() -> EntityTable:
    return EntityTable(("terminal", "merchant"), SECRET)


def outcomes(seed: int, n: int = 300, n_days: int = 10) -> Outcomes:
    """Return (name index, paid, known, fraud) over some days, in order of becoming known."""
    rng = np.random.default_rng(seed)
    known_ms = DAY * DAY_MS + np.sort(rng.integers(0, n_days * DAY_MS, n))
    paid_ms = known_ms - rng.integers(0, 5 * DAY_MS, n)
    return rng.integers(0, len(NAMES), n), paid_ms, known_ms, rng.random(n) < 0.3


def learn(table: EntityTable, some: Outcomes) -> None:
    """Let a table learn outcomes of terminals."""
    name, paid_ms, known_ms, is_fraud = some
    rows = table.rows(0, [NAMES[i] for i in name.tolist()])
    table.learn(rows, paid_ms, known_ms, is_fraud)


def part(some: Outcomes, chosen: np.ndarray) -> Outcomes:
    name, paid_ms, known_ms, is_fraud = (column[chosen] for column in some)
    return name, paid_ms, known_ms, is_fraud


def joined(*several: Outcomes) -> Outcomes:
    """Return outcomes together, in order of becoming known."""
    name, paid_ms, known_ms, is_fraud = (np.concatenate(c) for c in zip(*several, strict=True))
    order = np.argsort(known_ms, kind="stable")
    return name[order], paid_ms[order], known_ms[order], is_fraud[order]


def changed(table: EntityTable) -> dict[int, EvidenceCells]:
    """Return the cells of the days that changed since the last call, as they are now."""
    whole = {day: added(known, new.all()) for day, (known, new) in table.unpublished().items()}
    table.hold(whole)
    return whole


def cells_of(some: Outcomes) -> dict[int, EvidenceCells]:
    """Return what a table that learns these publishes."""
    table = a_table()
    learn(table, some)
    return changed(table)


def merged(*parts: tuple[dict[int, EvidenceCells], float]) -> dict[int, EvidenceCells]:
    """Return the weighted sum of several members' cells."""
    days = sorted({day for cells, _ in parts for day in cells})
    weighted = [
        {day: replace(c, n=c.n * np.float32(w), f=c.f * np.float32(w)) for day, c in cells.items()}
        for cells, w in parts
    ]
    return {day: aggregate(concatenate([w[day] for w in weighted if day in w])) for day in days}


def publish(table: EntityTable, seq: int) -> dict[int, EvidenceCells]:
    """Publish what changed under one number."""
    cells = changed(table)
    table.published({day: (seq, each) for day, each in cells.items()}, open_day=DAY)
    return cells


def install(
    table: EntityTable,
    evidence: dict[int, EvidenceCells],
    *,
    seq: int = -1,
    weight: float = 1.0,
    weights: tuple[tuple[str, str, float], ...] = WEIGHTS,
) -> None:
    table.install(evidence, seq=seq, weight=weight, weights=weights)


def features(table: EntityTable, at_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a payment at each terminal sees: own evidence, and own with the others'."""
    own = np.empty((len(NAMES), N_FEATURES), np.float32)
    shared = np.empty_like(own)
    rows = table.rows(0, NAMES)
    read(table.state, table.days, rows, np.full(len(NAMES), at_ms), own, shared)
    return own, shared


def bits(table: EntityTable) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in table.arrays().items()}


NORTH, SOUTH = outcomes(1), outcomes(2)
AT_MS = (DAY + 9) * DAY_MS + 20 * HOUR_MS + 1_234_567
UNTIL = [some[2] <= AT_MS for some in (NORTH, SOUTH)]
NORTH, SOUTH = part(NORTH, UNTIL[0]), part(SOUTH, UNTIL[1])


def test_rows_tell_kinds_apart_and_leave_out_what_is_absent() -> None:
    """In order of first sight; -1 for None."""
    table = a_table()
    assert table.rows(0, ["x", None, "y", "x"]).tolist() == [0, -1, 1, 0]
    assert table.rows(1, ["x", "y"]).tolist() == [2, 3]
    assert table.rows(0, ["y", "z"]).tolist() == [1, 4]
    assert table.size == 5


def test_thousands_of_entities_fit() -> None:
    """The state grows with the names."""
    table = a_table()
    names = [f"n{i}" for i in range(5_000)]
    assert table.rows(0, names).tolist() == list(range(5_000))
    table.learn(
        np.array([4_999]), np.array([DAY * DAY_MS]), np.array([DAY * DAY_MS]), np.array([True])
    )
    assert table.rows(0, names[::-1]).tolist() == list(range(4_999, -1, -1))
    assert table.state["day_f"][: table.size].sum(axis=1).tolist() == [0.0] * 4_999 + [1.0]


def test_published_cells_are_a_count_of_outcomes() -> None:
    """By pseudonym and hour of the day in which they became known."""
    n: Counter[tuple[int, bytes, int]] = Counter()
    f: Counter[tuple[int, bytes, int]] = Counter()
    legit_ms: dict[tuple[int, bytes, int], int] = {}
    for name, paid_ms, known_ms, is_fraud in zip(*NORTH, strict=True):
        day, hour = divmod(int(known_ms) // HOUR_MS, 24)
        key = day, pseudonym(SECRET, "terminal", NAMES[name]), hour
        n[key] += 1
        f[key] += bool(is_fraud)
        if not is_fraud:
            legit_ms[key] = max(legit_ms.get(key, -1), int(paid_ms))
    found = {
        (day, cells.name[i].tobytes(), int(cells.hour[i])): (
            cells.n[i],
            cells.f[i],
            cells.last_legit_ms[i],
        )
        for day, cells in cells_of(NORTH).items()
        for i in range(len(cells))
    }
    assert found == {key: (n[key], f[key], legit_ms.get(key, -1)) for key in n}


def test_a_day_is_published_whole_when_it_changed_and_not_otherwise() -> None:
    """Cumulative, until the day is over."""
    table = a_table()
    first = NORTH[2] < (DAY + 1) * DAY_MS + 12 * HOUR_MS
    learn(table, part(NORTH, first))
    assert sorted(publish(table, 1)) == [DAY, DAY + 1]
    learn(table, part(NORTH, ~first))
    again = publish(table, 2)
    assert sorted(again) == list(range(DAY + 1, DAY + 10))
    whole = cells_of(NORTH)
    assert all(
        again[day].arrays()[k].tobytes() == whole[day].arrays()[k].tobytes()
        for day in again
        for k in whole[day].arrays()
    )
    assert publish(table, 3) == {}


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_day_of_which_a_part_was_published_goes_on_whole(*, is_restored: bool) -> None:
    """What had no room the first time counts the next time, also after a restart."""
    table = a_table()
    first = np.arange(len(NORTH[0])) % 2 == 0
    learn(table, part(NORTH, first))
    cut = {day: most_telling(cells, 2) for day, cells in changed(table).items()}
    table.published({day: (1, cells) for day, cells in cut.items()}, open_day=DAY)
    if is_restored:
        arrays, table = table.arrays(), a_table()
        table.load(arrays)
    learn(table, part(NORTH, ~first))
    found, whole = changed(table), cells_of(NORTH)
    for day in found:
        assert found[day].arrays().keys() == whole[day].arrays().keys()
        for name, array in found[day].arrays().items():
            assert array.tobytes() == whole[day].arrays()[name].tobytes()


def test_nobody_elses_outcome_is_in_the_own_features() -> None:
    """A release changes what is shared alone."""
    table = a_table()
    learn(table, NORTH)
    before = features(table, AT_MS)[0]
    install(table, merged((cells_of(NORTH), 1.0), (cells_of(SOUTH), 1.0)))
    assert features(table, AT_MS)[0].tobytes() == before.tobytes()


@pytest.mark.parametrize("kept", [1.0, 0.6])
def test_with_a_release_a_bank_sees_what_one_with_all_outcomes_would(kept: float) -> None:
    """Own evidence counts once, though the release, perhaps older than it, holds it too."""
    table = a_table()
    old = part(NORTH, np.arange(len(NORTH[0])) < kept * len(NORTH[0]))
    new = part(NORTH, np.arange(len(NORTH[0])) >= kept * len(NORTH[0]))
    learn(table, old)
    in_release = publish(table, 4)
    learn(table, new)
    publish(table, 9)
    install(table, merged((in_release, 1.0), (cells_of(SOUTH), 1.0)), seq=7)
    pooled = a_table()
    learn(pooled, joined(NORTH, SOUTH))
    expected = features(pooled, AT_MS)[0]
    assert features(table, AT_MS)[1] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_own_counts_are_taken_out_with_the_weight_they_were_added_with() -> None:
    """Half a member leaves nothing of itself behind; the others stay whole."""
    table = a_table()
    learn(table, NORTH)
    own = publish(table, 1)
    evidence = merged((own, 0.5), (cells_of(SOUTH), 1.0))
    install(table, evidence, seq=1, weight=0.5)
    alone = a_table()
    learn(alone, NORTH)
    install(alone, cells_of(SOUTH))
    for name in ("others_day_n", "others_day_f", "others_hour_n", "others_hour_f"):
        rows = [each.state[name][each.rows(0, NAMES)] for each in (table, alone)]
        assert np.array_equal(*rows)


@pytest.mark.parametrize(("cap", "weight"), [(1, 1.0), (1, 0.5625), (2, 0.6875), (1, 0.0)])
def test_capped_own_counts_are_taken_out_to_the_last_bit(cap: int, weight: float) -> None:
    """Own + others = merged, under any cap and any weight in sixteenths."""
    table, south = a_table(), cells_of(SOUTH)
    learn(table, NORTH)
    own = {day: capped(cells, cap) for day, cells in publish(table, 1).items()}
    assert any((own[day].f != cells.f).any() for day, cells in cells_of(NORTH).items())
    others = {day: capped(cells, cap) for day, cells in south.items()}
    evidence = merged((own, weight), (others, 1.0))
    table.install(evidence, seq=1, weight=weight, weights=WEIGHTS, max_frauds=cap)
    alone = a_table()
    alone.rows(0, NAMES)
    install(alone, others)
    for name in ("others_day_n", "others_day_f", "others_hour_n", "others_hour_f"):
        rows = [each.state[name][each.rows(0, NAMES)] for each in (table, alone)]
        assert np.array_equal(*rows)


def test_own_cells_that_a_full_release_had_no_room_for_are_not_taken_out_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what was never added would be missing from the others' counts."""
    table = a_table()
    learn(table, NORTH)
    whole = merged((publish(table, 1), 1.0), (cells_of(SOUTH), 1.0))
    n = min(len(cells) for cells in whole.values()) // 2
    monkeypatch.setattr("models.evidence_changes.MAX_CELLS", n)
    cut = {day: most_telling(cells, n) for day, cells in whole.items()}
    install(table, cut, seq=1)
    alone = a_table()
    alone.rows(0, NAMES)
    install(alone, {day: present_in(cells, cut[day]) for day, cells in cells_of(SOUTH).items()})
    for name in ("others_day_n", "others_day_f", "others_hour_n", "others_hour_f"):
        rows = [each.state[name][each.rows(0, NAMES)] for each in (table, alone)]
        assert np.array_equal(*rows)
        assert np.all(rows[0] >= 0.0)


def test_versions_stay_few_while_no_release_comes() -> None:
    """Yet what a release then holds, the last one's or a recent one, is taken out exactly."""
    first, rest = (part(NORTH, np.arange(len(NORTH[0])) % 2 == k) for k in (0, 1))
    table, alone = a_table(), a_table()
    for seq, i in enumerate(range(0, len(first[0])), start=1):
        learn(table, part(first, np.arange(len(first[0])) == i))
        publish(table, seq)
    for seq in range(1_000, 1_200):
        table.published({DAY: (seq, cells_of(first)[DAY])}, open_day=DAY)
    kept = {name.split("/")[2] for name in table.arrays() if name.startswith(f"published/{DAY}/")}
    assert len(kept) <= 65
    assert {"1", "1199"} <= kept
    learn(table, rest)
    learn(alone, joined(first, rest))
    install(table, merged((cells_of(first), 1.0), (cells_of(SOUTH), 1.0)), seq=1_199)
    install(alone, cells_of(SOUTH))
    for name in ("others_day_n", "others_day_f"):
        rows = [each.state[name][each.rows(0, NAMES)] for each in (table, alone)]
        assert np.array_equal(*rows)


def test_a_release_that_comes_again_changes_no_bit() -> None:
    """Nor does the same content in other arrays, as from the wire."""
    table = a_table()
    learn(table, NORTH)
    evidence = merged((publish(table, 1), 1.0), (cells_of(SOUTH), 1.0))
    install(table, evidence, seq=1)
    before = bits(table)
    install(table, evidence, seq=1)
    assert bits(table) == before
    copies = {
        day: EvidenceCells(**{k: v.copy() for k, v in cells.arrays().items()})  # type: ignore[arg-type]  # its fields
        for day, cells in evidence.items()
    }
    install(table, copies, seq=1)
    assert bits(table) == before


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16), weight=st.sampled_from([1.0, 0.5]), cap=st.sampled_from([0, 1]))
def test_a_change_of_a_few_is_as_if_all_had_been_replaced(
    seed: int, weight: float, cap: int
) -> None:
    """A table that installs release after release beside one that is restarted before each.

    It is told what changes, or is not, or what did the last time.
    """
    rng = np.random.default_rng(seed)
    table, other = a_table(), a_table()
    stale: Changes = {}
    mine, theirs = outcomes(seed, 80, 3), outcomes(seed + 1, 80, 3)
    weights = (("north", "0", weight), ("south", "0", 1.0))
    for seq in range(1, 7):
        stored = {name: array.copy() for name, array in other.arrays().items()}
        other = a_table()
        other.load(stored)
        until_ms = DAY * DAY_MS + seq * DAY_MS // 2
        fresh = (mine[2] >= until_ms - DAY_MS // 2) & (mine[2] < until_ms)
        for each in (table, other):
            learn(each, part(mine, fresh))
            publish(each, seq)
        told = seq - int(rng.integers(0, 2))  # the release may lag by one
        ours = cells_of(part(mine, mine[2] < until_ms - (seq - told) * DAY_MS // 2))
        ours = {day: capped(cells, cap) for day, cells in ours.items()}
        seen = (theirs[2] < until_ms) & (rng.random(len(theirs[2])) < 0.9)  # some come and go
        evidence = merged((ours, weight), (cells_of(part(theirs, seen)), 1.0))
        changes = [{}, table.changes_of(evidence, seq=told, max_frauds=cap), stale][seq % 3]
        stale = table.changes_of(evidence, seq=told, max_frauds=cap)
        given = {"seq": told, "weight": weight, "weights": weights, "max_frauds": cap}
        table.install(evidence, **given, changes=changes)
        other.install(evidence, **given)
        assert bits(table) == bits(other)


def test_counts_that_a_release_no_longer_has_are_gone() -> None:
    """A day's cells are replaced, not added to."""
    table = a_table()
    install(table, cells_of(joined(NORTH, SOUTH)))
    install(table, cells_of(SOUTH))
    fresh = a_table()
    install(fresh, cells_of(SOUTH))
    for name in ("others_day_n", "others_day_f"):
        left = table.state[name][table.rows(0, NAMES)]
        assert np.array_equal(left, fresh.state[name][fresh.rows(0, NAMES)])


def test_other_weights_install_everything_afresh() -> None:
    """An expelled member leaves neither counts nor ages."""
    table = a_table()
    install(table, merged((cells_of(NORTH), 1.0), (cells_of(SOUTH), 1.0)))
    only_south = cells_of(SOUTH)
    install(table, only_south, weights=WEIGHTS[1:])
    fresh = a_table()
    fresh.rows(0, NAMES)
    install(fresh, only_south, weights=WEIGHTS[1:])
    assert features(table, AT_MS)[1].tobytes() == features(fresh, AT_MS)[1].tobytes()


def test_a_restored_table_goes_on_where_it_stopped() -> None:
    """Open days, published versions and installed evidence included."""
    stop = len(NORTH[0]) // 2
    table = a_table()
    learn(table, part(NORTH, np.arange(len(NORTH[0])) < stop // 2))
    publish(table, 1)
    learn(table, part(NORTH, np.arange(len(NORTH[0])) // (stop // 2) == 1))
    install(table, cells_of(SOUTH), seq=1)
    arrays = {name: array.copy() for name, array in table.arrays().items()}
    restored = a_table()
    restored.load(arrays)
    assert bits(restored) == bits(table)
    rest = part(NORTH, np.arange(len(NORTH[0])) >= stop // 2 * 2)
    for each in (table, restored):
        learn(each, rest)
        own = publish(each, 2)
        install(each, merged((own, 1.0), (cells_of(SOUTH), 1.0)), seq=2)
    assert bits(restored) == bits(table)


def test_windows_of_days_stay_right_while_the_rings_turn() -> None:
    """Over more days than a ring has, with a release of the newest 32 each day."""
    some = outcomes(5, n=900, n_days=45)
    evidence = cells_of(some)
    table = a_table()
    columns = [ENTITY_FEATURES.index(name) for name in ("n_7d", "n_30d", "f_7d", "f_30d")]
    for today in range(DAY, DAY + 45, 4):
        for newest in range(max(DAY, today - 3), today + 1):
            install(table, {d: c for d, c in evidence.items() if newest - 32 < d <= newest})
        at_ms = today * DAY_MS + DAY_MS // 4
        expected = np.zeros((len(NAMES), 4))
        for name, _, known_ms, is_fraud in zip(*some, strict=True):
            age = today - known_ms // DAY_MS
            for i, width in enumerate((7, 30)):
                share = 1.0 if 0 <= age < width else 0.75 if age == width else 0.0
                expected[name, i] += share
                expected[name, 2 + i] += share * is_fraud
        found = features(table, at_ms)[1][:, columns]
        assert found == pytest.approx(np.log1p(expected), rel=1e-5, abs=1e-6)


def test_stored_names_are_pseudonyms() -> None:
    """No entity is named in the state."""
    table = a_table()
    learn(table, (np.array([0]), *(np.array([DAY * DAY_MS]) for _ in "ab"), np.array([True])))
    arrays = table.arrays()
    assert arrays["names"].tobytes() == pseudonym(SECRET, "terminal", NAMES[0])
    assert arrays["kinds"].tolist() == [0]


def a_day(name: str, day: int) -> EvidenceCells:
    """Return two frauds of three outcomes of one terminal, known at five in the morning."""
    at_ms = np.array([day * DAY_MS], np.int64)
    return EvidenceCells(
        name=np.frombuffer(pseudonym(SECRET, "terminal", name), np.uint8).reshape(1, -1),
        kind=np.zeros(1, np.uint8),
        hour=np.array([5], np.uint8),
        n=np.array([3], np.float32),
        f=np.array([2], np.float32),
        first_fraud_ms=at_ms,
        last_fraud_ms=at_ms,
        last_legit_ms=np.array([-1], np.int64),
    )


def test_hours_of_earlier_days_are_not_taken_for_today() -> None:
    """The ring of hours goes round in two days, that of days in 32; 33 releases one by one."""
    table, fresh = a_table(), a_table()
    others = {day: a_day("A" if day in {100, 131, 132} else "B", day) for day in range(100, 133)}
    for day in range(100, 133):
        install(table, {d: cells for d, cells in others.items() if day - 32 < d <= day})
    install(fresh, {d: cells for d, cells in others.items() if d > 100})
    at_ms = 132 * DAY_MS + 10 * HOUR_MS
    row = [(name, at_ms) for name in ("A", "B")]
    found = [
        [float(shared) for shared in _shared(one, row)[:, ENTITY_FEATURES.index("f_1d")]]
        for one in (table, fresh)
    ]
    assert found[0] == found[1]
    assert found[0][1] == 0.0


def _shared(table: EntityTable, asked: list[tuple[str, int]]) -> np.ndarray:
    own, shared = (np.empty((len(asked), N_FEATURES), np.float32) for _ in range(2))
    rows = table.rows(0, [name for name, _ in asked])
    read(table.state, table.days, rows, np.array([at for _, at in asked], np.int64), own, shared)
    return shared
