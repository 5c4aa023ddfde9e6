"""Evidence cells: pseudonyms by the HMAC's definition, aggregation that merges like a sum."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.entity_risk import (
    EvidenceCells,
    added,
    aggregate,
    capped,
    concatenate,
    count_outcomes,
    empty_cells,
    most_telling,
    present_in,
    pseudonym,
)

COLUMNS = ("n", "f", "first_fraud_ms", "last_fraud_ms", "last_legit_ms")
DTYPES = {
    "name": "uint8",
    "kind": "uint8",
    "hour": "uint8",
    "n": "float32",
    "f": "float32",
    "first_fraud_ms": "int64",
    "last_fraud_ms": "int64",
    "last_legit_ms": "int64",
}


class Row(NamedTuple):
    name: bytes
    kind: int
    hour: int
    n: float
    f: float
    first_fraud_ms: int = -1
    last_fraud_ms: int = -1
    last_legit_ms: int = -1


TIMES = st.just(-1) | st.integers(0, 2**50)
ROWS = st.builds(
    Row,
    # neighbours in byte order that differ in either half, around the sign bit of both
    name=st.sampled_from([bytes(16), b"\x7f" * 16, b"\x80" + bytes(15), bytes(8) + b"\xff" * 8]),
    kind=st.integers(0, 2),
    hour=st.integers(0, 23) | st.just(5),
    n=st.integers(0, 1000),
    f=st.integers(0, 1000),
    first_fraud_ms=TIMES,
    last_fraud_ms=TIMES,
    last_legit_ms=TIMES,
)
ROW_LISTS = st.lists(ROWS, max_size=15)


def cells(rows: Sequence[Row]) -> EvidenceCells:
    """Return rows as columns, in their order."""
    names = b"".join(row.name for row in rows)
    columns = {
        name: np.array([getattr(row, name) for row in rows], DTYPES[name])
        for name in DTYPES
        if name != "name"
    }
    return EvidenceCells(name=np.frombuffer(names, np.uint8).reshape(-1, 16), **columns)


def rows_of(found: EvidenceCells) -> list[Row]:
    """Return columns as rows, in their order."""
    assert {name: str(array.dtype) for name, array in found.arrays().items()} == DTYPES
    assert found.name.shape == (len(found), 16)
    rest = (getattr(found, name).tolist() for name in DTYPES if name != "name")
    return [Row(bytes(name), *values) for name, *values in zip(found.name, *rest, strict=True)]


def merged(rows: Sequence[Row]) -> list[Row]:
    """Return what aggregation is by its definition, one key after the other."""
    found = []
    for key in sorted({row[:3] for row in rows}):
        same = [row for row in rows if row[:3] == key]
        known = [row.first_fraud_ms for row in same if row.first_fraud_ms >= 0]
        found.append(
            Row(
                *key,
                n=sum(row.n for row in same),
                f=sum(row.f for row in same),
                first_fraud_ms=min(known, default=-1),
                last_fraud_ms=max(row.last_fraud_ms for row in same),
                last_legit_ms=max(row.last_legit_ms for row in same),
            )
        )
    return found


def same_bits(one: EvidenceCells, two: EvidenceCells) -> bool:
    return rows_of(one) == rows_of(two)


def test_the_pseudonym_is_an_hmac_cut_to_16_bytes() -> None:
    """By RFC 2104: H(key ^ opad | H(key ^ ipad | kind, zero byte, id)), the key hashed if long."""
    for secret in (b"", b"k" * 32, b"k" * 64, b"k" * 65):
        key = (hashlib.sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
        message = b"terminal\x00" + "Kiosk Zürich".encode()
        inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + message).digest()
        outer = hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()
        assert pseudonym(secret, "terminal", "Kiosk Zürich") == outer[:16]


def test_pseudonyms_differ_by_key_kind_and_id() -> None:
    """Also where kind and id together are the same letters."""
    names = [
        pseudonym(secret, kind, entity)
        for secret in (b"a", b"b")
        for kind, entity in (("ip", "1"), ("ip1", ""), ("i", "p1"), ("ip", "2"))
    ]
    assert len(set(names)) == 8
    assert {len(name) for name in names} == {16}


@given(rows=ROW_LISTS)
def test_aggregate_is_its_definition(rows: list[Row]) -> None:
    """Sorted by bytes of the name, kind and hour; counts added, firsts least, lasts greatest."""
    given_cells = cells(rows)
    before = rows_of(given_cells)
    assert rows_of(aggregate(given_cells)) == merged(rows)
    assert rows_of(given_cells) == before


OUTCOMES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 23), st.integers(0, 2**45), st.booleans()),
    max_size=20,
)


@given(outcomes=OUTCOMES)
def test_counting_outcomes_is_aggregating_a_cell_for_each(
    outcomes: list[tuple[int, int, int, bool]],
) -> None:
    """Bit for bit; six entities, two of them of one name and two kinds."""
    names = np.random.default_rng(3).integers(0, 256, (6, 16)).astype(np.uint8)
    names[5] = names[0]
    kinds = np.array([0, 0, 1, 2, 1, 2], np.uint8)
    found = count_outcomes(
        names,
        kinds,
        *(np.array([each[k] for each in outcomes], np.int64) for k in range(3)),
        np.array([each[3] for each in outcomes], np.bool_),
    )
    singles = [
        Row(bytes(names[entity]), int(kinds[entity]), hour, 1.0, 1.0, at_ms, at_ms, -1)
        if is_fraud
        else Row(bytes(names[entity]), int(kinds[entity]), hour, 1.0, 0.0, -1, -1, at_ms)
        for entity, hour, at_ms, is_fraud in outcomes
    ]
    assert same_bits(found, aggregate(cells(singles)))


@given(rows=ROW_LISTS, data=st.data())
def test_the_order_of_cells_does_not_matter(rows: list[Row], data: st.DataObject) -> None:
    """Whole numbers add to the same in any order."""
    shuffled = data.draw(st.permutations(rows))
    assert same_bits(aggregate(cells(shuffled)), aggregate(cells(rows)))


@given(one=ROW_LISTS, two=ROW_LISTS, three=ROW_LISTS)
def test_merging_is_associative_and_commutative(
    one: list[Row], two: list[Row], three: list[Row]
) -> None:
    """Members merged in stages, in either order, are the pooled cells."""
    pooled = aggregate(cells(one + two + three))
    a, b, c = (aggregate(cells(rows)) for rows in (one, two, three))
    left = aggregate(concatenate([aggregate(concatenate([a, b])), c]))
    right = aggregate(concatenate([aggregate(concatenate([c, b])), a]))
    assert same_bits(left, pooled)
    assert same_bits(right, pooled)


@given(ROW_LISTS, ROW_LISTS)
def test_adding_sorted_cells_is_aggregating_them_together(one: list[Row], two: list[Row]) -> None:
    """To the bit, none of either included."""
    a, b = aggregate(cells(one)), aggregate(cells(two))
    assert same_bits(added(a, b), aggregate(concatenate([a, b])))


@given(rows=ROW_LISTS)
def test_empty_cells_are_the_identity(rows: list[Row]) -> None:
    """On either side and on both; what is aggregated stays as it is."""
    once = aggregate(cells(rows))
    assert same_bits(aggregate(concatenate([once, empty_cells()])), once)
    assert same_bits(aggregate(concatenate([empty_cells(), once])), once)
    assert same_bits(aggregate(once), once)
    assert rows_of(aggregate(empty_cells())) == []


@given(ours=ROW_LISTS, theirs=ROW_LISTS)
def test_own_counts_can_be_taken_out_of_a_merge(ours: list[Row], theirs: list[Row]) -> None:
    """Merged counts plus own ones negated are those of the others, zero where they have none."""
    everything = aggregate(cells(ours + theirs))
    negated = cells([row._replace(n=-row.n, f=-row.f) for row in ours])
    rest = rows_of(aggregate(concatenate([everything, negated])))
    expected = {row[:3]: (row.n, row.f) for row in merged(theirs)}
    assert {row[:3]: (row.n, row.f) for row in rest if row[:3] in expected} == expected
    assert all(row[3:5] == (0, 0) for row in rest if row[:3] not in expected)


@pytest.mark.parametrize("place", range(7))
def test_whole_numbers_stay_exact(place: int) -> None:
    """Six ones and 2**24 in any place lose some of the ones in float32 but not in float64."""
    counts = [1.0] * 6
    counts.insert(place, 2.0**24)
    (found,) = rows_of(aggregate(cells([Row(bytes(16), 0, 0, n, n) for n in counts])))
    assert (found.n, found.f) == (2.0**24 + 6, 2.0**24 + 6)


def test_a_fraud_at_the_epoch_is_known() -> None:
    """Instant 0 is a time, only -1 is none."""
    rows = [Row(bytes(16), 0, 0, 1, 1, first, first) for first in (-1, 0, 7)]
    (found,) = rows_of(aggregate(cells(rows)))
    assert (found.first_fraud_ms, found.last_fraud_ms, found.last_legit_ms) == (0, 7, -1)


@pytest.mark.parametrize("index", [[], [2], [2, 0, 2]])
def test_take_picks_cells_in_the_order_asked(index: list[int]) -> None:
    """All columns alike, repeats allowed."""
    rows = [Row(bytes([i] * 16), i, i, i, i, i, i, i) for i in range(3)]
    assert rows_of(cells(rows).take(np.array(index, np.int64))) == [rows[i] for i in index]


def test_arrays_are_the_registered_columns() -> None:
    """As a contribution's text lists them, and they make the same cells again."""
    found = cells([Row(b"\x01" * 16, 1, 2, 3, 1, 4, 5, 6)])
    assert tuple(found.arrays()) == ("name", "kind", "hour", *COLUMNS)
    assert same_bits(EvidenceCells(**found.arrays()), found)


def cells_with(entity: list[int], n: list[float], f: list[float]) -> EvidenceCells:
    """Return cells of numbered entities, each in an hour of its own."""
    name = np.zeros((len(n), 16), np.uint8)
    name[:, 15] = entity
    nothing = np.full(len(n), -1, np.int64)
    return EvidenceCells(
        name=name,
        kind=np.zeros(len(n), np.uint8),
        hour=np.arange(len(n), dtype=np.uint8),
        n=np.array(n, np.float32),
        f=np.array(f, np.float32),
        first_fraud_ms=nothing,
        last_fraud_ms=nothing,
        last_legit_ms=nothing,
    )


def test_a_cap_scales_all_hours_of_an_entity_that_has_more_frauds() -> None:
    """24 frauds of 40 in two hours, capped to 8: a third of both counts, in sixteenths."""
    found = capped(cells_with([1, 1, 2], [24, 16, 9], [12, 12, 8]), 8)
    assert found.f.tolist() == [4.0, 4.0, 8.0]
    assert found.n.tolist() == [8.0, round(16 / 3 * 16) / 16, 9.0]


def test_a_cap_that_nobody_reaches_changes_nothing() -> None:
    """Nor does none, nor one on no cells."""
    cells = cells_with([1, 2], [9, 9], [8, 1])
    assert capped(cells, 8) is cells
    assert capped(cells_with([1], [99], [99]), 0).f.tolist() == [99.0]
    assert len(capped(empty_cells(), 8)) == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 500), st.integers(0, 500)), max_size=20),
    st.integers(1, 30),
)
def test_capped_counts_are_sixteenths_within_the_cap(
    rows: list[tuple[int, int, int]], cap: int
) -> None:
    """0 <= f <= n stays, and the frauds of an entity exceed the cap by rounding at most."""
    rows = sorted(rows)
    cells = cells_with([r[0] for r in rows], [r[1] + r[2] for r in rows], [r[2] for r in rows])
    found = capped(cells, cap)
    assert np.all((found.f >= 0) & (found.f <= found.n))
    assert np.array_equal(found.f * 16, np.rint(found.f * 16))
    assert np.array_equal(found.n * 16, np.rint(found.n * 16))
    for entity in range(4):
        mine = cells.name[:, 15] == entity
        assert found.f[mine].sum() <= cap + mine.sum() / 32
        if cells.f[mine].sum() <= cap:
            assert np.array_equal(found.n[mine], cells.n[mine])


def test_the_cells_left_out_are_of_entities_without_frauds_and_the_emptiest_first() -> None:
    """Entity 2 has a fraud in one of its hours, and keeps both."""
    all_cells = cells_with([1, 2, 2, 3, 3], [9, 1, 1, 8, 7], [0, 0, 1, 0, 0])
    kept = {n: most_telling(all_cells, n).hour.tolist() for n in range(6)}
    # Of entity 2's hours, in the order of the day; 1 and 3 by how many outcomes they have.
    assert kept == {
        0: [],
        1: [1],
        2: [1, 2],
        3: [0, 1, 2],
        4: [0, 1, 2, 3],
        5: [0, 1, 2, 3, 4],
    }


@given(ROW_LISTS, st.integers(0, 16))
def test_what_is_kept_is_sorted_and_unchanged(rows: list[Row], n: int) -> None:
    """As many as there is room for, however they lie in memory."""
    whole = aggregate(cells(rows))
    kept = most_telling(whole, n)
    assert len(kept) == min(n, len(whole))
    assert same_bits(aggregate(kept), kept)
    assert set(rows_of(kept)) <= set(rows_of(whole))


@given(ROW_LISTS, ROW_LISTS)
def test_cells_present_in_others_are_those_of_the_same_entity_and_hour(
    ours: list[Row], theirs: list[Row]
) -> None:
    """Whatever the others counted there."""
    mine, others = aggregate(cells(ours)), aggregate(cells(theirs))
    places = {row[:3] for row in rows_of(others)}
    expected = [row for row in rows_of(mine) if row[:3] in places]
    assert rows_of(present_in(mine, others)) == expected
