"""The grid and its counts: edges, cells, merging by addition, quantiles within a cell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.histograms import (
    N_CELLS,
    add_rows,
    empty_counts,
    lower_edges,
    quantile_edges,
    to_cells,
)

EDGES = lower_edges()
MIDDLE = N_CELLS // 2
QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.9, 0.99])
ANY_FLOAT = st.floats(width=32, allow_nan=False)
TAME_FLOAT = st.floats(-1000, 1000, width=32) | st.sampled_from([0.0, 1.0, 2.0, -1.0])


def counted(values: list[float] | NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return the legitimate counts of one feature, shape (N_CELLS,)."""
    rows = np.asarray(values, np.float32).reshape(-1, 1)
    counts = empty_counts(1)
    add_rows(counts, rows, np.zeros(len(rows), bool))
    assert not counts[0, 1].any()
    return counts[0, 0]


def cells_of(values: list[float] | NDArray[np.float32]) -> NDArray[np.intp]:
    """Return each value's cell by searching the edges; what is below the first is in cell 0."""
    found = np.searchsorted(EDGES, np.asarray(values, np.float32), side="right") - 1
    return np.maximum(found, 0)


def test_edges_ascend_one_for_each_cell() -> None:
    """Strictly, finite, and the grid is the same on both sides of zero."""
    assert EDGES.shape == (N_CELLS,)
    assert EDGES.dtype == np.float32
    assert np.isfinite(EDGES).all()
    assert (np.diff(EDGES) > 0).all()
    above = np.nextafter(EDGES[1:], np.float32(-np.inf))  # the greatest value of each cell
    assert (above[:MIDDLE] == -EDGES[MIDDLE + 1 :][::-1]).all()


def test_cells_are_a_128th_of_their_value_wide() -> None:
    """From 2**-14 to 2**24, 128 cells for each power of two."""
    positive = EDGES[MIDDLE + 1 :].astype(np.float64)
    exponents = np.repeat(np.arange(-14.0, 24.0), 128)
    expected = 2.0**exponents * (1 + np.tile(np.arange(128), 38) / 128)
    assert positive.tolist() == expected.tolist()


def test_each_edge_opens_its_cell_and_the_float_before_closes_the_last() -> None:
    """The inverse property at all the edges at once: one value in each cell, either way."""
    assert counted(EDGES).tolist() == [1] * N_CELLS
    before = counted(np.nextafter(EDGES, np.float32(-np.inf)))
    assert before.tolist() == [2] + [1] * (N_CELLS - 2) + [0]


@given(value=ANY_FLOAT)
def test_a_value_lies_between_its_cell_s_edges(value: float) -> None:
    """Whatever the float, infinite and subnormal included."""
    assert np.flatnonzero(counted([value])).tolist() == cells_of([value]).tolist()


def test_extremes_share_cells() -> None:
    """Small values the middle one, large ones the first and the last."""
    tiny = np.nextafter(np.float32(2.0**-14), np.float32(0))
    assert counted([0.0, -0.0, 1e-45, tiny, -tiny])[MIDDLE] == 5
    assert counted([np.inf, 2.0**24, 3e38])[-1] == 3
    assert counted([-np.inf, -(2.0**24), -3e38])[0] == 3


def test_counts_are_kept_by_feature_and_class() -> None:
    """Compared with a plain loop; a NaN is not counted, whatever its sign and payload."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    odd = np.array([0x7FC00001, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF], np.uint32)
    rows[:5, 0] = odd.view(np.float32)
    is_fraud = rng.random(200) < 0.3
    expected = np.zeros((3, 2, N_CELLS), np.int64)
    for row, y in zip(rows, is_fraud, strict=True):
        for j in np.flatnonzero(~np.isnan(row)):
            expected[j, int(y), cells_of(row[j : j + 1])[0]] += 1
    counts = empty_counts(3)
    add_rows(counts, rows, is_fraud)
    assert (counts == expected).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_layout_does_not_matter(order: str) -> None:
    """Rows in either order, or every second column of a wider array."""
    wide = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    y = np.arange(50) % 3 == 0
    one, two = empty_counts(2), empty_counts(2)
    add_rows(one, wide[:, ::2].copy(), y)
    add_rows(two, np.array(wide, order=order)[:, ::2], y)
    assert (one == two).all()


@given(
    rows=st.lists(st.tuples(ANY_FLOAT | st.just(np.nan), TAME_FLOAT, st.booleans()), max_size=20),
    cut=st.integers(0, 20),
)
def test_merging_is_adding_counts(rows: list[tuple[float, float, bool]], cut: int) -> None:
    """Counts of two banks, added, are the counts of the pooled rows; an empty bank adds nothing."""
    x = np.array([row[:2] for row in rows], np.float32).reshape(-1, 2)
    y = np.array([row[2] for row in rows], bool)
    first, second, pooled = empty_counts(2), empty_counts(2), empty_counts(2)
    add_rows(first, x[:cut], y[:cut])
    add_rows(second, x[cut:], y[cut:])
    add_rows(pooled, x, y)
    assert (first + second == pooled).all()
    assert pooled.sum() == np.isfinite(x).sum() + np.isinf(x).sum()


@given(values=st.lists(TAME_FLOAT, min_size=1, max_size=60))
def test_edges_are_the_lower_ends_of_the_quantiles_cells(values: list[float]) -> None:
    """Of the sorted values' order statistics; repeats and an edge with nothing below left out."""
    ordered = np.sort(np.array(values, np.float32))
    ranks = np.ceil(QUANTILES * len(values)).astype(int) - 1
    ends = np.unique(EDGES[cells_of(ordered[ranks])])
    expected = [end for end in ends if (ordered < end).any()]
    got = quantile_edges(counted(ordered).astype(np.int64), QUANTILES, edges=EDGES)
    assert got.tolist() == expected


def test_a_quantile_is_off_by_less_than_a_cell() -> None:
    """The relative error is at most 1/128 = 0.8 %, always downwards."""
    values = np.random.default_rng(2).lognormal(3, 2, 5_000).astype(np.float32)
    got = quantile_edges(counted(values).astype(np.int64), QUANTILES, edges=EDGES)
    exact = np.quantile(values, QUANTILES, method="inverted_cdf")
    assert (got <= exact).all()
    assert (got > exact * (1 - 1 / 128)).all()


def test_nothing_to_tell_apart_gives_no_edge() -> None:
    """No value at all, and all in one cell."""
    for values in ([], [3.0, 3.001, 3.002]):
        counts = counted(values).astype(np.int64)
        assert quantile_edges(counts, QUANTILES, edges=EDGES).tolist() == []


@given(rows=st.lists(st.tuples(ANY_FLOAT, st.booleans()), max_size=20))
def test_cells_hold_every_count_once_and_sorted(rows: list[tuple[float, bool]]) -> None:
    """They fill an empty grid to the same counts, in the order and types of the wire."""
    counts = empty_counts(2)
    x = np.array([(value, -value) for value, _ in rows], np.float32).reshape(-1, 2)
    add_rows(counts, x, np.array([y for _, y in rows], bool))
    cells = to_cells(counts)
    keys = list(
        zip(*(cells[name].tolist() for name in ("feature", "is_fraud", "cell")), strict=True)
    )
    assert keys == sorted(set(keys))
    dtypes = {name: array.dtype.str[1:] for name, array in cells.items()}
    assert dtypes == {"feature": "i2", "is_fraud": "u1", "cell": "i2", "count": "u4"}
    again = empty_counts(2)
    for key, count in zip(keys, cells["count"].tolist(), strict=True):
        again[key] = count
    assert (again == counts).all()
    assert (cells["count"] > 0).all()
