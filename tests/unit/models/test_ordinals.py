"""Ordinals: bins counted by NumPy, one set per basis, strict about shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.basis import encode
from models.basis_builder import build_basis
from models.errors import InvalidInputError
from models.families.ordinals import MAX_EDGES, Binning, ordinals
from models.histograms import add_rows, empty_counts
from models.schema import Schema


@given(st.integers(0, 10_000))
def test_an_ordinal_is_the_bin_and_one_or_nothing(seed: int) -> None:
    """Against np.searchsorted, values on edges included."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 12, 3).astype(np.int32)
    edges = [np.unique(rng.normal(size=n).astype(np.float32)) for n in counts]
    binning = Binning(
        number=1,
        edges=np.concatenate(edges),
        n_edges=np.array([len(e) for e in edges], np.int32),
    )
    x = rng.normal(size=(30, 3)).astype(np.float32)
    for j, of_feature in enumerate(edges):
        x[: len(of_feature), j] = of_feature
        np.testing.assert_array_equal(binning.edges_of(j), of_feature)
    x[rng.random(x.shape) < 0.2] = np.nan
    expected = np.stack(
        [np.searchsorted(e, x[:, j], side="right") + 1 for j, e in enumerate(edges)], axis=1
    )
    expected[np.isnan(x)] = 0
    np.testing.assert_array_equal(ordinals(binning, x), expected)


def test_bins_are_those_of_the_basis() -> None:
    """The scorecard's active weights count the same bins."""
    schema = Schema(entity_kinds=())
    x = np.random.default_rng(1).normal(size=(200, len(schema.feature_names))).astype(np.float32)
    x[:, 3] = np.nan
    counts = empty_counts(x.shape[1])
    add_rows(counts, x, np.zeros(len(x), bool))
    basis = build_basis(counts, schema, 5)
    n = x.shape[1]
    active = encode(basis, x)[:, 1 : n + 1]
    expected = np.where(active >= 0, active - basis.offsets[1 : n + 1] + 1, 0)
    np.testing.assert_array_equal(ordinals(Binning.of(basis), x), expected)
    assert Binning.of(basis).number == 5


def test_many_rows_are_the_same_as_few_at_a_time() -> None:
    """They are gone through in blocks, so that another thread gets its turn."""
    binning = Binning(
        number=1, edges=np.array([-1, 0, 1, 0], np.float32), n_edges=np.array([3, 1], np.int32)
    )
    x = np.random.default_rng(2).normal(size=(20_001, 2)).astype(np.float32)
    few = np.concatenate([ordinals(binning, part) for part in np.array_split(x, 7)])
    np.testing.assert_array_equal(ordinals(binning, x), few)


def test_a_binning_goes_round_through_arrays() -> None:
    """And nothing comes from nothing."""
    binning = Binning(
        number=2, edges=np.array([1, 2], np.float32), n_edges=np.array([0, 2], np.int32)
    )
    loaded = Binning.load("a", binning.arrays("a"))
    assert loaded is not None
    x = np.array([[5, 1.5]], np.float32)
    np.testing.assert_array_equal(ordinals(loaded, x), [[1, 2]])
    assert Binning.load("b", binning.arrays("a")) is None


@pytest.mark.parametrize("counts", [[1, 2], [-1, 4], [MAX_EDGES + 1]])
def test_counts_that_do_not_fit_are_refused(counts: list[int]) -> None:
    """Three edges here, or more than a byte can tell."""
    n = 2 if len(counts) == 2 else MAX_EDGES + 1
    edges = np.arange(n, dtype=np.float32)
    with pytest.raises(InvalidInputError, match="expected"):
        Binning(number=1, edges=edges, n_edges=np.array(counts, np.int32))


def test_rows_of_another_width_are_refused() -> None:
    """The compiled kernel reads no edge that is not there."""
    binning = Binning(number=1, edges=np.zeros(1, np.float32), n_edges=np.array([1], np.int32))
    with pytest.raises(InvalidInputError, match="expected 1 columns"):
        ordinals(binning, np.zeros((2, 2), np.float32))
