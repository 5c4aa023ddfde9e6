"""An attribute in another scale is read at its rank, against NumPy on the values themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.basis_builder import CUT_QUANTILES
from models.category_view import CategoryView
from models.errors import InvalidInputError
from models.histograms import N_CELLS, cells_of, lower_edges, quantile_edges
from models.scales import count_values, scale_table

N_THEIRS = 50_000


def counted(values: np.ndarray) -> np.ndarray:
    """Return the histogram of values."""
    return np.bincount(cells_of(values.astype(np.float32)), minlength=N_CELLS)


def cuts_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cuts at even quantiles and the shares of the values below them."""
    cuts = quantile_edges(counted(values), CUT_QUANTILES, edges=lower_edges())
    return cuts, np.array([(values < cut).mean() for cut in cuts], np.float32)


@pytest.mark.parametrize(
    "written",
    [
        lambda x: 3.7 * x + 11.0,
        lambda x: np.sign(x) * np.abs(x) ** 1.7,
        lambda x: 50.0 * np.arcsinh(x),
        lambda x: np.exp(x / 4.0),
    ],
)
def test_a_value_stands_at_the_rank_at_which_it_would_stand_in_their_scale(written) -> None:
    """To two in a hundred: 1.1 for the draws, the largest distance of 95 in 100, the rest grid."""
    theirs, own = (
        np.random.default_rng(seed).normal(1.0, 2.0, n) for seed, n in ((1, N_THEIRS), (2, 20_000))
    )
    in_own_scale = written(own).astype(np.float32)
    table = scale_table(counted(in_own_scale), *cuts_of(theirs.astype(np.float32)))
    found = table[cells_of(in_own_scale)]
    inner = np.abs(own - 1.0) < 3.5  # beyond the last cuts there is nothing to read by
    ordered = np.sort(theirs)
    found_rank, rank = (np.searchsorted(ordered, each[inner]) / N_THEIRS for each in (found, own))
    assert np.abs(found_rank - rank).max() < 0.02


def test_values_between_two_cuts_keep_their_order_and_their_distances() -> None:
    """Of an even distribution, in a straight line: to a hundredth of its width."""
    theirs, own = (np.random.default_rng(seed).random(40_000) for seed in (3, 4))
    table = scale_table(counted(1_000.0 * own + 70.0), *cuts_of(theirs.astype(np.float32)))
    inner = own[(own > 0.05) & (own < 0.95)]
    found = table[cells_of((1_000.0 * inner + 70.0).astype(np.float32))]
    assert np.abs(found - inner).max() < 0.015


def test_a_value_that_many_share_is_worth_the_one_that_stands_at_its_rank() -> None:
    """Grades 0 to 4, written as 1, 10, 100, ...; their shares differ a little."""
    theirs = np.repeat(np.arange(5.0), [5_000, 2_300, 1_500, 700, 500])
    own = np.repeat(10.0 ** np.arange(5), [480, 250, 150, 68, 52])
    cuts, ranks = cuts_of(theirs)
    assert cuts.tolist() == [1, 2, 3, 4]
    table = scale_table(counted(own), cuts, ranks)
    values = table[cells_of(10.0 ** np.arange(5, dtype=np.float32))]
    assert values[1:].tolist() == [1, 2, 3, 4]
    assert values[0] < 1


def test_with_one_cut_values_lie_on_both_sides_of_it() -> None:
    """As of a flag."""
    table = scale_table(
        counted(np.repeat([5.0, 9.0], [70, 30])),
        np.array([1.0], np.float32),
        np.array([0.7], np.float32),
    )
    assert table[cells_of(np.array([5.0, 9.0], np.float32))].tolist() == [0.0, 1.0]


CUTS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20, unique=True).map(sorted)
HELD = st.lists(
    st.tuples(st.integers(0, N_CELLS - 1), st.integers(1, 10_000)), min_size=1, max_size=30
)


@given(CUTS, HELD, st.integers(0, 2**32))
def test_a_table_never_falls_and_is_finite(
    cuts: list[float], held: list[tuple[int, int]], seed: int
) -> None:
    """Whatever is counted, and wherever the cuts and their ranks lie."""
    counts = np.zeros(N_CELLS, np.int64)
    for cell, n in held:
        counts[cell] += n
    ranks = np.sort(np.random.default_rng(seed).random(len(cuts))).astype(np.float32)
    table = scale_table(counts, np.array(cuts, np.float32), ranks)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    assert (np.diff(table) >= 0).all()
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()
    there = counts > 0
    below = np.searchsorted(np.array(cuts, np.float32), table[there], side="right")
    assert (below <= np.searchsorted(ranks.astype(np.float64), middle[there], side="right")).all()


def test_nothing_counted_or_no_cut_is_refused() -> None:
    """There is no rank to read by."""
    cuts = np.array([1.0], np.float32)
    with pytest.raises(InvalidInputError, match=r"scale: expected counts and cuts, got 0 and 1"):
        scale_table(np.zeros(N_CELLS, np.int64), cuts, cuts)
    with pytest.raises(InvalidInputError, match=r"scale: expected counts and cuts, got 3 and 0"):
        scale_table(counted(np.ones(3)), cuts[:0], cuts[:0])


def test_columns_are_counted_and_read_cell_by_cell() -> None:
    """Against NumPy; what is absent is neither, and other columns stay."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(400, 4)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.3] = np.nan
    columns, counts = np.array([3, 1]), np.zeros((2, N_CELLS), np.uint32)
    for part in np.split(rows, [1, 150]):
        count_values(part, columns, counts)
    tables = rng.normal(size=(2, N_CELLS)).astype(np.float32)
    before = rows.copy()
    found = CategoryView(columns, tables).apply(rows)
    assert np.array_equal(rows, before, equal_nan=True)
    for k, j in enumerate(columns.tolist()):
        there = ~np.isnan(rows[:, j])
        assert np.array_equal(counts[k], counted(rows[there, j]))
        expected = np.where(there, tables[k, cells_of(rows[:, j])], np.nan)
        assert np.array_equal(found[:, j], expected, equal_nan=True)
    assert np.array_equal(found[:, [0, 2]], rows[:, [0, 2]], equal_nan=True)
