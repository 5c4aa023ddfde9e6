"""The basis: bins from merged counts, encoding against plain NumPy, what is refused."""

from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.basis import MAX_WEIGHTS, MISSING, Basis, encode
from models.basis_builder import (
    COARSE_QUANTILES,
    FINE_QUANTILES,
    FRAUD_QUANTILES,
    BasisShape,
    build_basis,
)
from models.errors import InvalidInputError
from models.histograms import add_rows, empty_counts, lower_edges
from models.schema import ENTITY_FEATURES, Schema

SCHEMA = Schema(entity_kinds=("terminal",))
N_FEATURES = 32
EDGES = lower_edges()


def random_rows(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows of the schema's width: scales differ, some values repeat, some are absent."""
    rng = np.random.default_rng(seed)
    rows = rng.lognormal(0, 1, (n, N_FEATURES)) * 10.0 ** rng.integers(-2, 3, N_FEATURES)
    rows[:, ::3] = np.round(rows[:, ::3])
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows.astype(np.float32)


def counts_of(rows: NDArray[np.float32], first: int = 0) -> NDArray[np.uint32]:
    """Return the histograms of rows that are numbered from ``first``, every fourth a fraud."""
    counts = empty_counts(rows.shape[1])
    add_rows(counts, rows, np.arange(first, first + len(rows)) % 4 == 0)
    return counts


def expected_edges(values: NDArray[np.float32], quantiles: NDArray[np.float64]) -> list[float]:
    """Return the lower ends of the cells of the quantiles that have something below."""
    ordered = np.sort(values[~np.isnan(values)])
    if not len(ordered):
        return []
    ranks = np.ceil(quantiles * len(ordered)).astype(int) - 1
    cells = np.searchsorted(EDGES, ordered[ranks], side="right") - 1
    return [end for end in np.unique(EDGES[cells]).tolist() if ordered[0] < end]


def small_basis(**changes: Any) -> Basis:
    """Features with 2, 0 and 3 edges, coarsely 1, 2 and 0; crosses (0, 1) and (1, 2)."""
    basis = Basis(
        number=1,
        schema_hash="0" * 16,
        edges=np.array([1, 2, -1, 0, 4], np.float32),
        n_edges=np.array([2, 0, 3], np.int32),
        coarse_edges=np.array([1.5, 10, 20], np.float32),
        n_coarse_edges=np.array([1, 2, 0], np.int32),
        selected=np.arange(3, dtype=np.int32),
        crosses=np.array([[0, 1], [1, 2]], np.int32),
        n_categories=np.zeros(3, np.int32),
    )
    return replace(basis, **changes)


def encoded_by_numpy(basis: Basis, rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Encode column by column: bins by `searchsorted`, places of weights by counting them."""
    fine = np.split(basis.edges, np.cumsum(basis.n_edges)[:-1])
    coarse = np.split(basis.coarse_edges, np.cumsum(basis.n_coarse_edges)[:-1])
    columns, first = [np.zeros(len(rows), int)], 1
    for j, edges in enumerate(fine):
        columns.append(first + np.searchsorted(edges, rows[:, j], side="right"))
        columns[-1][np.isnan(rows[:, j])] = MISSING
        first += len(edges) + 1
    for left, right in basis.crosses.tolist():
        a = np.searchsorted(coarse[left], rows[:, left], side="right")
        b = np.searchsorted(coarse[right], rows[:, right], side="right")
        columns.append(first + a * (len(coarse[right]) + 1) + b)
        columns[-1][np.isnan(rows[:, left]) | np.isnan(rows[:, right])] = MISSING
        first += (len(coarse[left]) + 1) * (len(coarse[right]) + 1)
    assert first == basis.n_weights
    return np.stack(columns, axis=1)


def test_edges_are_the_quantiles_of_the_pooled_rows() -> None:
    """And those of the frauds, to the width of a cell; absent values do not count."""
    rows = random_rows(3_000)
    basis = build_basis(counts_of(rows), SCHEMA, 7)
    fine = [
        sorted(
            {*expected_edges(column, FINE_QUANTILES)}
            | {*expected_edges(column[::4], FRAUD_QUANTILES)}
        )
        for column in rows.T
    ]
    coarse = [expected_edges(column, COARSE_QUANTILES) for column in rows.T]
    assert basis.edges.tolist() == list(chain(*fine))
    assert basis.n_edges.tolist() == [len(edges) for edges in fine]
    assert basis.coarse_edges.tolist() == list(chain(*coarse))
    assert basis.n_coarse_edges.tolist() == [len(edges) for edges in coarse]
    assert (basis.number, basis.schema_hash) == (7, SCHEMA.hash)
    for j, column in enumerate(rows.T):
        there = column[~np.isnan(column)]
        edges, ranks = basis.fine_of(j)
        assert ranks == pytest.approx([(there < edge).mean() for edge in edges])


@pytest.mark.parametrize("sizes", [(500, 500), (999, 1), (0, 1000), (300, 300, 400)])
def test_merged_counts_give_the_basis_of_the_pooled_rows(sizes: tuple[int, ...]) -> None:
    """In any order, with a bank of one row and one of none, to the bit."""
    rows = random_rows(1_000, seed=1)
    ends = np.cumsum(sizes)
    parts = [counts_of(rows[end - n : end], end - n) for n, end in zip(sizes, ends, strict=True)]
    pooled = build_basis(counts_of(rows), SCHEMA, 1)
    for order in (parts, parts[::-1]):
        merged = build_basis(sum(order[1:], order[0]), SCHEMA, 1)
        assert merged.edges.tobytes() == pooled.edges.tobytes()
        assert merged.n_edges.tobytes() == pooled.n_edges.tobytes()
        assert merged.coarse_edges.tobytes() == pooled.coarse_edges.tobytes()
        assert merged.n_coarse_edges.tobytes() == pooled.n_coarse_edges.tobytes()


def test_counts_beyond_32_bits_do_not_wrap() -> None:
    """Of 6e9 and .1e9 and 1.65e9 the second holds no quantile; of 1.7e9, .1e9, 1.65e9 the median.

    The first is 3e9 in each class, each of which fits into 32 bits.
    """
    counts = empty_counts(N_FEATURES)
    counts[0, :, 5000] = 3_000_000_000
    counts[0, 0, [6000, 7000]] = 100_000_000, 1_650_000_000
    assert build_basis(counts, SCHEMA, 1).edges.tolist() == [EDGES[7000]]


def test_crosses_are_the_schema_s_by_position() -> None:
    """Each pair of names is found in the names of the columns."""
    names = SCHEMA.feature_names
    basis = build_basis(empty_counts(N_FEATURES), SCHEMA, 1)
    assert len(names) == N_FEATURES
    assert [(names[a], names[b]) for a, b in basis.crosses] == list(SCHEMA.crosses)


def test_no_counts_at_all_give_one_bin_for_each_transform() -> None:
    """Before any data a row activates one weight of each, and absence none."""
    basis = build_basis(empty_counts(N_FEATURES), SCHEMA, 1)
    assert basis.n_weights == basis.n_transforms == 1 + N_FEATURES + len(SCHEMA.crosses)
    rows = np.zeros((1, N_FEATURES), np.float32)
    assert encode(basis, rows).tolist() == [list(range(basis.n_transforms))]


def test_weights_are_laid_out_bias_bins_cells() -> None:
    """1 + (3 + 1 + 4) + (2 * 3 + 3 * 1), written out."""
    basis = small_basis()
    assert basis.offsets.tolist() == [0, 1, 4, 5, 9, 15, 18]
    assert (basis.n_features, basis.n_transforms, basis.n_weights) == (3, 6, 18)


def test_a_row_is_encoded_as_the_text_says() -> None:
    """Bins #(edges <= v) = 1, 0, 2 and cells (0, 1) and (1, 0), by hand; then absent values."""
    nan = np.nan
    rows = np.array([[1.0, 10.0, 0.0], [nan, 25.0, 9.0], [2.0, nan, nan], [nan] * 3], np.float32)
    assert encode(small_basis(), rows).tolist() == [
        [0, 1 + 1, 4, 5 + 2, 9 + 0 * 3 + 1, 15 + 1],
        [0, MISSING, 4, 5 + 3, MISSING, 15 + 2],
        [0, 1 + 2, MISSING, MISSING, MISSING, MISSING],
        [0] + [MISSING] * 5,
    ]


@given(
    values=st.lists(
        st.sampled_from([-np.inf, -1.0, 0.0, -0.0, 1.0, 1.5, 2.0, 4.0, 10.0, 20.0, np.inf, np.nan])
        | st.floats(width=32),
        max_size=30,
    )
)
def test_any_row_is_encoded_as_by_numpy(values: list[float]) -> None:
    """On edges, infinite, absent; at most one weight of each transform and those ascending."""
    rows = np.array(values[: len(values) // 3 * 3], np.float32).reshape(-1, 3)
    got = encode(small_basis(), rows)
    assert got.dtype == np.int32
    assert got.tolist() == encoded_by_numpy(small_basis(), rows).tolist()
    assert all((np.diff(row[row != MISSING]) > 0).all() for row in got)


def test_a_full_basis_encodes_as_numpy() -> None:
    """Rows it was built from, and rows of another draw."""
    shape = BasisShape(plain_weights=5_000)
    basis = build_basis(counts_of(random_rows(2_000)), SCHEMA, 1, shape=shape)
    for seed in (0, 3):
        rows = random_rows(200, seed=seed)
        assert encode(basis, rows).tolist() == encoded_by_numpy(basis, rows).tolist()


def test_counts_of_another_schema_are_refused() -> None:
    """The message says which shape is expected."""
    wider = empty_counts(N_FEATURES + len(ENTITY_FEATURES))
    with pytest.raises(InvalidInputError, match=r"counts: expected shape \(32, 2, "):
        build_basis(wider, SCHEMA, 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_edges", [2, 0, 2], "^edges: .*counts"),
        ("n_edges", [6, 0, -1], "^edges: .*counts"),
        ("n_coarse_edges", [1, 1, 0], "^coarse_edges: .*counts"),
        ("n_coarse_edges", [1, 2], "n_coarse_edges: expected 3, got 2"),
        ("ranks", [0.1, 0.2, 0.1, 0.2], "^ranks: .*for each cut"),
        ("ranks", [0.1, 0.2, 0.1, 0.2, 1.1], "^ranks: .*in .0, 1."),
        ("ranks", [0.1, 0.2, 0.1, 0.3, 0.2], "^ranks: .*never fall"),
        ("edges", [2, 1, -1, 0, 4], "^edges: .*ascending"),
        ("edges", [1, 1, -1, 0, 4], "^edges: .*ascending"),
        ("edges", [1, 2, -1, 0, np.inf], "^edges: .*finite"),
        ("edges", [1, np.nan, -1, 0, 4], "^edges: .*finite"),
        ("coarse_edges", [1.5, 20, 10], "^coarse_edges: .*ascending"),
        ("n_cuts", [2, 3], "n_cuts: expected 3, got 2"),
        ("n_cuts", [2, 1, 3], "^cuts: .*counts"),
        ("cuts", [2, 1, -1, 0, 4], "^cuts: .*ascending"),
        ("cuts", [1, 3, -1, 0, 4], "^cuts: .*the edges"),
        ("crosses", [[0, 3]], "crosses: .*below 3"),
        ("crosses", [[-1, 0]], "crosses: .*below 3"),
        ("crosses", [0, 1], "crosses: .*pairs"),
        ("number", 0, "number >= 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(name: str, value: Any, message: str) -> None:
    """Whichever field it is, the message names it."""
    like = getattr(small_basis(), name)
    new = value if name == "number" else np.array(value, like.dtype)
    with pytest.raises(InvalidInputError, match=message):
        small_basis(**{name: new})


def test_edges_start_anew_with_each_feature() -> None:
    """A feature's first edge may lie below the last of the one before."""
    counts = np.array([2, 2, 1], np.int32)
    basis = small_basis(n_edges=counts, n_cuts=counts)
    assert basis.offsets[:5].tolist() == [0, 1, 4, 7, 9]


def test_the_number_of_weights_is_bounded() -> None:
    """With n edges of the second feature there are 1 + 3 + (n + 1) + 1 + 9 weights."""
    n = MAX_WEIGHTS - 15
    for more in (0, 1):
        edges = np.r_[1, 2, np.arange(n + more)].astype(np.float32)
        changes = {"edges": edges, "n_edges": np.array([2, n + more, 0], np.int32)}
        changes |= {name: np.empty(0, edges.dtype) for name in ("cuts", "ranks")}
        changes["n_cuts"] = np.empty(0, np.int32)  # the edges, at even ranks
        if more:
            with pytest.raises(InvalidInputError, match=f"at most {MAX_WEIGHTS} weights"):
                small_basis(**changes)
        else:
            assert small_basis(**changes).n_weights == MAX_WEIGHTS
