"""Rows as ordinals: which bin of the basis a value lies in, so that learners are free of units."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.binning import BLOCK, bins_of, rows_of_edges, turn
from models.category_view import CategoryView
from models.errors import InvalidInputError
from models.histograms import N_CELLS

ABSENT = 0
_BLOCK = 8_192
"""Rows for which a thread keeps Python's lock, a few milliseconds."""
MAX_EDGES = 253  # so that the highest ordinal fits a byte
NO_CATEGORIES = CategoryView(np.empty(0, np.int64), np.empty((0, N_CELLS), np.float32))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Binning:
    """The bins of one basis and nothing else of it: what a fitted model must keep.

    Parameters
    ----------
    number
        Version of the basis.
    edges
        float32 of shape (sum of counts,): ascending bin edges, feature after feature.
    n_edges
        int32 of shape (n_features,), at most ``MAX_EDGES`` each.
    categories
        What stands for categories.

    Raises
    ------
    InvalidInputError
        If the counts do not fit the edges or a byte.
    """

    number: int
    edges: NDArray[np.float32]
    n_edges: NDArray[np.int32]
    categories: CategoryView = NO_CATEGORIES
    table: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        counts = self.n_edges
        if not bool(np.all((counts >= 0) & (counts <= MAX_EDGES))):
            raise InvalidInputError(f"n_edges: expected 0 to {MAX_EDGES} of each feature")
        if int(counts.sum()) != len(self.edges):
            raise InvalidInputError(
                f"edges: expected {int(counts.sum())} as the counts say, got {len(self.edges)}"
            )
        object.__setattr__(self, "table", rows_of_edges(self.edges, counts))

    @classmethod
    def of(cls, basis: Basis) -> Self:
        """Return the bins of a basis, as copies."""
        return cls._between(basis, basis.edges, basis.n_edges)

    @classmethod
    def of_cuts(cls, basis: Basis) -> Self:
        """Return the finer bins between a basis' cuts, as copies: for what learns trees."""
        return cls._between(basis, basis.cuts, basis.n_cuts)

    @classmethod
    def _between(cls, basis: Basis, edges: NDArray[np.float32], n_edges: NDArray[np.int32]) -> Self:
        return cls(
            number=basis.number,
            edges=edges.copy(),
            n_edges=n_edges.copy(),
            categories=basis.tables.categories,
        )

    @property
    def n_features(self) -> int:
        """Columns of a row."""
        return len(self.n_edges)

    def edges_of(self, feature: int) -> NDArray[np.float32]:
        """Return the ascending edges of one feature."""
        return self.table[feature, : self.n_edges[feature]]

    def arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        return {
            f"{prefix}/number": np.array([self.number], np.int64),
            f"{prefix}/edges": self.edges,
            f"{prefix}/n_edges": self.n_edges,
            f"{prefix}/category_columns": self.categories.columns,
            f"{prefix}/category_logits": self.categories.logits,
        }

    @classmethod
    def load(cls, prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> Self | None:
        """Return what `arrays` gave under that prefix; None where there is nothing."""
        if f"{prefix}/number" not in arrays:
            return None
        return cls(
            number=int(arrays[f"{prefix}/number"][0]),
            edges=np.array(arrays[f"{prefix}/edges"], np.float32),
            n_edges=np.array(arrays[f"{prefix}/n_edges"], np.int32),
            categories=CategoryView(
                np.array(arrays[f"{prefix}/category_columns"], np.int64),
                np.array(arrays[f"{prefix}/category_logits"], np.float32),
            ),
        )


@nb.njit(cache=True)
def _ordinals(rows, table, n_edges, out):  # type: ignore[no-untyped-def]  # compiled
    values = np.empty((rows.shape[1], BLOCK), np.float32)
    found = np.empty(BLOCK, np.int32)
    for start in range(0, len(rows), BLOCK):
        n = turn(rows, start, values)
        for j in range(rows.shape[1]):
            bins_of(values[j], table[j], n_edges[j], found)
            for i in range(n):
                out[start + i, j] = 1 + found[i]


def ordinals(binning: Binning, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return each value's bin plus 1, ``ABSENT`` where it is NaN.

    Parameters
    ----------
    binning
        Of the same schema as the rows.
    rows
        float32 of shape (n, n_features).

    Returns
    -------
    ndarray of shape (n, n_features), uint8
        0, or 1 + number of edges that are not above the value.

    Raises
    ------
    InvalidInputError
        If the rows have another number of columns.
    """
    if rows.ndim != 2 or rows.shape[1] != binning.n_features:
        raise InvalidInputError(f"rows: expected {binning.n_features} columns, got {rows.shape}")
    out = np.empty(rows.shape, np.uint8)
    for start in range(0, len(rows), _BLOCK):
        some = slice(start, start + _BLOCK)
        seen = binning.categories.apply(rows[some])
        _ordinals(seen, binning.table, binning.n_edges, out[some])
    return out
