"""A basis from merged histograms: where bins end, what stands for a category, which features count.

A feature of accounts and entities gets edges at quantiles of all transactions and at quantiles of
the frauds, so that bins are narrow where frauds are. All have weights, with the schema's crosses,
while those fit their bound; beyond it features come before crosses, and what explains most before
the rest. Attributes are chosen: one is kept when its bins explain more of the outcomes than as
many useless bins would, twice over (half of the G-statistic against the number of bins, as in
Akaike's criterion), the best first, and they share a bounded number of weights. All of them get
many cuts for trees, which cost no weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.errors import InvalidInputError
from models.histograms import N_CELLS, lower_edges, quantile_edges
from models.schema import Schema
from models.trees import TreeList, together

FINE_QUANTILES = np.r_[np.linspace(0, 1, 11)[1:-1], 0.97, 0.99, 0.995, 0.999]
FRAUD_QUANTILES = np.linspace(0, 1, 31)[1:-1]
COARSE_QUANTILES = np.r_[np.linspace(0, 1, 5)[1:-1], 0.9, 0.97, 0.99, 0.998]
CUT_QUANTILES = np.linspace(0, 1, 33)[1:-1]
_ATTRIBUTE_COARSE = np.linspace(0, 1, 6)[1:-1]

Pair = tuple[int, int]
"""Positions of two features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BasisShape:
    """How large a basis may get, and what a category needs.

    Parameters
    ----------
    plain_weights
        Weights that the bins of all features of accounts and entities share with the schema's
        crosses, >= 0.
    attribute_weights
        Weights that all attributes' bins share.
    attribute_bins
        Bins of one attribute at most, >= 2, and at least: (least, most).
    category_prior
        Transactions of the usual fraud rate that are added to each category's.
    category_min_n
        Transactions below which a category is not told apart, in the consortium as a whole.
    proposed_crosses
        Pairs of features that are crossed beside the schema's, where moments show that their
        dependence differs between the classes, >= 0; see `models.cross_choice`.
    cross_weights
        Weights that all these share, >= 0.
    """

    plain_weights: int = 1_500
    attribute_weights: int = 400
    attribute_bins: tuple[int, int] = (4, 16)
    category_prior: float = 20.0
    category_min_n: int = 20
    proposed_crosses: int = 12
    cross_weights: int = 800

    def __post_init__(self) -> None:
        least, most = self.attribute_bins
        if not 2 <= least <= most or min(self.attribute_weights, self.plain_weights) < 0:
            raise InvalidInputError(
                "basis shape: expected 2 <= least <= most bins and weights >= 0, "
                f"got {self.attribute_bins}, {self.attribute_weights} and {self.plain_weights}"
            )
        if not (self.category_prior > 0.0 and self.category_min_n >= 1):
            raise InvalidInputError("basis shape: expected category_prior > 0, category_min_n >= 1")
        if not (self.proposed_crosses >= 0 and self.cross_weights >= 0):
            raise InvalidInputError(
                "basis shape: expected proposed_crosses, cross_weights >= 0, "
                f"got {self.proposed_crosses} and {self.cross_weights}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One feature's counts along ascending values, each class apart: shape (2, n_values)."""

    values: NDArray[np.float32]
    counts: NDArray[np.int64]
    cells: NDArray[np.int16]
    logits: NDArray[np.float32]

    def edges(self, quantiles: NDArray[np.float64]) -> NDArray[np.float32]:
        return quantile_edges(self.counts.sum(axis=0), quantiles, edges=self.values)

    def ranks(self, edges: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the share of transactions below each of some of the values."""
        below = np.concatenate([[0], np.cumsum(self.counts.sum(axis=0))])
        place = np.searchsorted(self.values, edges)
        return (below[place] / max(int(below[-1]), 1)).astype(np.float32)

    def fine_edges(self) -> NDArray[np.float32]:
        """Return edges at quantiles of all and of the frauds: where those are, bins are narrow."""
        return np.union1d(self.edges(FINE_QUANTILES), self._of_frauds())

    def cuts(self, edges: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return some edges and more: at even quantiles of all, and at quantiles of the frauds."""
        return np.unique(np.concatenate([edges, self.edges(CUT_QUANTILES), self._of_frauds()]))

    def _of_frauds(self) -> NDArray[np.float32]:
        return quantile_edges(self.counts[1], FRAUD_QUANTILES, edges=self.values)


def build_basis(
    counts: NDArray[np.integer],
    schema: Schema,
    number: int,
    *,
    shape: BasisShape = BasisShape(),
    trees: TreeList | None = None,
    made_from: tuple[int, int] = (-1, -1),
) -> Basis:
    """Return the basis whose bins lie at the quantiles of merged histograms.

    Parameters
    ----------
    counts
        Integers of shape (n_features, 2, N_CELLS), see `models.histograms.add_rows`.
    schema
        Gives the features' names, which are categories, and the crosses.
    number
        Version of the result.
    shape
        Bounds.
    trees
        Taken over as they are.
    made_from
        ``drawn`` and ``grown`` of `models.basis.Basis`.
    """
    names = schema.feature_names
    if counts.shape != (len(names), 2, N_CELLS):
        raise InvalidInputError(
            f"counts: expected shape {(len(names), 2, N_CELLS)}, got {counts.shape}"
        )
    columns = _columns(counts, schema, shape)
    n_plain = len(names) - len(schema.attributes)
    n_class = counts.sum(axis=2, dtype=np.int64).max(axis=0)
    chosen, quantiles = _chosen_attributes(columns, n_plain, n_class, shape)
    fine = [
        column.fine_edges() if j < n_plain else column.edges(quantiles)
        for j, column in enumerate(columns)
    ]
    coarse = [
        c.edges(COARSE_QUANTILES if j < n_plain else _ATTRIBUTE_COARSE)
        for j, c in enumerate(columns)
    ]
    plain, crosses = _chosen_plain(
        columns[:n_plain], (fine, coarse), schema_crosses(schema), n_class, shape.plain_weights
    )
    cuts = [edges if j < n_plain else columns[j].cuts(edges) for j, edges in enumerate(fine)]
    ranks = [column.ranks(each) for column, each in zip(columns, cuts, strict=True)]
    return Basis(
        number=number,
        schema_hash=schema.hash,
        edges=np.concatenate(fine),
        n_edges=_lengths(fine),
        coarse_edges=np.concatenate(coarse),
        n_coarse_edges=_lengths(coarse),
        cuts=np.concatenate(cuts),
        n_cuts=_lengths(cuts),
        ranks=np.concatenate(ranks),
        selected=np.array([*plain, *chosen], np.int32),
        crosses=np.array(crosses, np.int32).reshape(-1, 2),
        category_cells=np.concatenate([column.cells for column in columns]),
        category_logits=np.concatenate([column.logits for column in columns]),
        n_categories=_lengths([column.cells for column in columns]),
        trees=together([]) if trees is None else trees,
        drawn=made_from[0],
        grown=made_from[1],
    )


def schema_crosses(schema: Schema) -> list[Pair]:
    """Return the schema's pairs as positions of features."""
    position = {name: i for i, name in enumerate(schema.feature_names)}
    return [(position[a], position[b]) for a, b in schema.crosses]


def _lengths(arrays: Sequence[NDArray[np.generic]]) -> NDArray[np.int32]:
    return np.array([len(array) for array in arrays], np.int32)


def _columns(counts: NDArray[np.integer], schema: Schema, shape: BasisShape) -> list[_Column]:
    grid = lower_edges()
    prior = _base_rate(counts)
    return [
        _category(of_feature, prior, shape) if is_category else _number(of_feature, grid)
        for of_feature, is_category in zip(
            counts.astype(np.int64), schema.is_category.tolist(), strict=True
        )
    ]


def _base_rate(counts: NDArray[np.integer]) -> float:
    """Return the share of frauds among the feature that is present most often."""
    of_class = counts.sum(axis=2, dtype=np.int64)
    n_legit, n_fraud = of_class[int(np.argmax(of_class.sum(axis=1)))].tolist()
    return float((n_fraud + 0.5) / (n_legit + n_fraud + 1.0))


def _number(counts: NDArray[np.int64], grid: NDArray[np.float32]) -> _Column:
    return _Column(grid, counts, np.empty(0, np.int16), np.empty(0, np.float32))


def _category(counts: NDArray[np.int64], prior: float, shape: BasisShape) -> _Column:
    """Order categories by how often they were fraud; those too rare share the value 0."""
    n = counts.sum(axis=0)
    cells = np.flatnonzero(n >= shape.category_min_n)
    m = shape.category_prior
    fraud = counts[1, cells] + m * prior
    legit = counts[0, cells] + m * (1.0 - prior)
    # rounded, because the last bits of a logarithm differ between processors
    logits = np.round(np.log(fraud / legit) - np.log(prior / (1.0 - prior)), 5).astype(np.float32)
    of_cell = np.zeros(N_CELLS, np.float32)
    of_cell[cells] = logits
    values, place = np.unique(of_cell, return_inverse=True)
    ordered = np.zeros((2, len(values)), np.int64)
    for y in range(2):
        np.add.at(ordered[y], place, counts[y])
    return _Column(values, ordered, cells.astype(np.int16), logits)


def _chosen_plain(
    columns: Sequence[_Column],
    edges: tuple[Sequence[NDArray[np.float32]], Sequence[NDArray[np.float32]]],
    crosses: Sequence[Pair],
    n_class: NDArray[np.int64],
    room: int,
) -> tuple[list[int], list[Pair]]:
    """Return the features of accounts and entities, and the crosses, that get weights, in order.

    Features come first, those that explain most at the head; then crosses of such features.
    """
    fine, coarse = edges
    gains = [_gain(column, fine[j], n_class) for j, column in enumerate(columns)]
    kept: set[int] = set()
    for j in sorted(range(len(columns)), key=lambda j: (-gains[j], j)):
        if len(fine[j]) + 1 <= room:
            kept.add(j)
            room -= len(fine[j]) + 1
    crossed: set[Pair] = set()
    for a, b in sorted(crosses, key=lambda pair: (-gains[pair[0]] - gains[pair[1]], pair)):
        cells = (len(coarse[a]) + 1) * (len(coarse[b]) + 1)
        if {a, b} <= kept and cells <= room:
            crossed.add((a, b))
            room -= cells
    return sorted(kept), [pair for pair in crosses if pair in crossed]


def _chosen_attributes(
    columns: Sequence[_Column], n_plain: int, n_class: NDArray[np.int64], shape: BasisShape
) -> tuple[list[int], NDArray[np.float64]]:
    """Return the attributes that get weights, ascending, and the quantiles of their bins."""
    least, most = shape.attribute_bins
    quantiles = _even(least)
    gains = {
        j: _gain(columns[j], columns[j].edges(quantiles), n_class)
        for j in range(n_plain, len(columns))
    }
    ranked = sorted((j for j in gains if gains[j] > 0.0), key=lambda j: (-gains[j], j))
    ranked = ranked[: shape.attribute_weights // least]
    n_bins = min(most, shape.attribute_weights // max(len(ranked), 1))
    return sorted(ranked), _even(max(n_bins, least))


def _even(n_bins: int) -> NDArray[np.float64]:
    return np.linspace(0, 1, n_bins + 1)[1:-1]


def _gain(column: _Column, edges: NDArray[np.float32], n_class: NDArray[np.int64]) -> float:
    """Return half of the G-statistic of bins (and absence) against outcomes, less the bins."""
    place = np.searchsorted(edges, column.values, side="right")
    observed = np.zeros((2, len(edges) + 2))
    for y in range(2):
        np.add.at(observed[y], place, column.counts[y])
        observed[y, -1] = max(int(n_class[y]) - int(column.counts[y].sum()), 0)
    expected = observed.sum(axis=1)[:, None] * observed.sum(axis=0) / max(observed.sum(), 1.0)
    there = observed > 0
    g_half = float(np.sum(observed[there] * np.log(observed[there] / expected[there])))
    return float(g_half - (len(edges) + 1))
