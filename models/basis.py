"""The consortium's basis: versioned data that turns a row of features into active weights."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.histograms import N_CELLS, lower_edges, quantile_edges
from models.schema import Schema

MISSING = -1
FINE_QUANTILES = np.r_[np.linspace(0, 1, 21)[1:-1], 0.97, 0.99, 0.995, 0.999]
COARSE_QUANTILES = np.r_[np.linspace(0, 1, 5)[1:-1], 0.9, 0.97, 0.99, 0.998]
MAX_WEIGHTS = 8_192
_LANES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """A list of transforms, each of which activates at most one weight per row.

    Weight 0 is the bias; then the bins of each feature, then the cells of each cross. A feature
    that is absent (NaN) activates nothing, which pins the weight of "missing" to 0.

    Parameters
    ----------
    number
        Version, >= 1; a higher number replaces a lower.
    schema_hash
        Of the schema whose features the edges belong to.
    edges
        float32 of shape (sum of counts,): ascending bin edges, feature after feature; a value v
        lies in bin #(edges <= v).
    n_edges
        int32 of shape (n_features,): edges per feature.
    coarse_edges, n_coarse_edges
        The same for the coarse bins that crosses use.
    crosses
        int32 of shape (n_crosses, 2): feature positions.

    Raises
    ------
    InvalidInputError
        If the counts do not fit the edges, edges do not ascend, a cross names no feature, or
        there would be more than ``MAX_WEIGHTS`` weights.
    """

    number: int
    schema_hash: str
    edges: NDArray[np.float32]
    n_edges: NDArray[np.int32]
    coarse_edges: NDArray[np.float32]
    n_coarse_edges: NDArray[np.int32]
    crosses: NDArray[np.int32]
    tables: "_Tables" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_edges("edges", self.edges, self.n_edges)
        _check_edges("coarse_edges", self.coarse_edges, self.n_coarse_edges)
        n = len(self.n_edges)
        if len(self.n_coarse_edges) != n:
            raise InvalidInputError(f"n_coarse_edges: expected {n}, got {len(self.n_coarse_edges)}")
        crosses = self.crosses
        if crosses.ndim != 2 or not bool(np.all((crosses >= 0) & (crosses < n))):
            raise InvalidInputError(f"crosses: expected pairs of positions below {n}")
        if not self.number >= 1 or not self.n_weights <= MAX_WEIGHTS:
            raise InvalidInputError(
                f"expected number >= 1 and at most {MAX_WEIGHTS} weights, "
                f"got number {self.number} with {self.n_weights}"
            )
        object.__setattr__(self, "tables", _tables(self))

    @property
    def n_features(self) -> int:
        """Columns of a row."""
        return len(self.n_edges)

    @property
    def n_transforms(self) -> int:
        """Columns of the encoded row: bias, features, crosses."""
        return 1 + len(self.n_edges) + len(self.crosses)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """First weight of each transform and, last, the number of weights; (n_transforms + 1,)."""
        bins = self.n_edges.astype(np.int64) + 1
        coarse = self.n_coarse_edges.astype(np.int64) + 1
        cells = coarse[self.crosses[:, 0]] * coarse[self.crosses[:, 1]]
        return np.concatenate([[0], np.cumsum(np.concatenate([[1], bins, cells]))])

    @property
    def n_weights(self) -> int:
        """Weights in all, the bias included."""
        return int(self.offsets[-1])


def _check_edges(name: str, edges: NDArray[np.float32], counts: NDArray[np.int32]) -> None:
    if not bool(np.all(counts >= 0)) or int(counts.sum()) != len(edges):
        raise InvalidInputError(f"{name}: expected as many edges as the counts say")
    last_of_feature = np.zeros(len(edges), bool)
    last_of_feature[np.cumsum(counts)[counts > 0] - 1] = True
    ascending = np.diff(edges) > 0
    if not bool(np.all(np.isfinite(edges))) or not bool(np.all(ascending | last_of_feature[:-1])):
        raise InvalidInputError(f"{name}: expected finite, ascending values within each feature")


def build_basis(counts: NDArray[np.integer], schema: Schema, number: int) -> Basis:
    """Return the basis whose bins lie at the quantiles of merged histograms.

    Parameters
    ----------
    counts
        Integers of shape (n_features, 2, N_CELLS), see `models.histograms.add_rows`.
    schema
        Gives the features' names and the crosses.
    number
        Version of the result.
    """
    names = schema.feature_names
    if counts.shape != (len(names), 2, N_CELLS):
        raise InvalidInputError(
            f"counts: expected shape {(len(names), 2, N_CELLS)}, got {counts.shape}"
        )
    of_feature = counts.sum(axis=1, dtype=np.int64)
    grid = lower_edges()
    fine = [quantile_edges(c, FINE_QUANTILES, edges=grid) for c in of_feature]
    coarse = [quantile_edges(c, COARSE_QUANTILES, edges=grid) for c in of_feature]
    position = {name: i for i, name in enumerate(names)}
    crosses = [(position[a], position[b]) for a, b in schema.crosses]
    return Basis(
        number=number,
        schema_hash=schema.hash,
        edges=np.concatenate(fine),
        n_edges=np.array([len(e) for e in fine], np.int32),
        coarse_edges=np.concatenate(coarse),
        n_coarse_edges=np.array([len(e) for e in coarse], np.int32),
        crosses=np.array(crosses, np.int32).reshape(-1, 2),
    )


class _Tables(NamedTuple):
    """What the kernel reads: edges in rows of one width, filled up with NaN, never reached."""

    fine: NDArray[np.float32]
    coarse: NDArray[np.float32]
    crossed: NDArray[np.int32]
    crosses: NDArray[np.int32]
    widths: NDArray[np.int64]
    offsets: NDArray[np.int64]


def _tables(basis: Basis) -> _Tables:
    return _Tables(
        fine=_rows_of_edges(basis.edges, basis.n_edges),
        coarse=_rows_of_edges(basis.coarse_edges, basis.n_coarse_edges),
        crossed=np.unique(basis.crosses).astype(np.int32),
        crosses=basis.crosses,
        widths=basis.n_coarse_edges.astype(np.int64) + 1,
        offsets=basis.offsets,
    )


def _rows_of_edges(edges: NDArray[np.float32], counts: NDArray[np.int32]) -> NDArray[np.float32]:
    width = -(-max(int(counts.max(initial=0)), 1) // _LANES) * _LANES
    table = np.full((len(counts), width), np.nan, np.float32)
    table[np.arange(width) < counts[:, None]] = edges
    return table


@nb.njit(cache=True)
def _bin(value, edges):  # type: ignore[no-untyped-def]  # compiled
    """Count edges that are not above the value: no branches, eight at a time."""
    found = np.int32(0)
    for k in range(edges.shape[0]):
        found += np.int32(edges[k] <= value)
    return found


@nb.njit(cache=True)
def _encode(rows, fine, coarse, crossed, crosses, widths, offsets, out):  # type: ignore[no-untyped-def]  # compiled: takes columns
    n_features = rows.shape[1]
    cell = np.empty(n_features, np.int64)
    for i in range(rows.shape[0]):
        out[i, 0] = 0
        for j in range(n_features):
            value = rows[i, j]
            out[i, 1 + j] = -1 if np.isnan(value) else offsets[1 + j] + _bin(value, fine[j])
        for j in crossed:
            value = rows[i, j]
            cell[j] = _bin(value, coarse[j]) if out[i, 1 + j] >= 0 else -1
        for c in range(crosses.shape[0]):
            left, right = cell[crosses[c, 0]], cell[crosses[c, 1]]
            column = 1 + n_features + c
            active = offsets[column] + left * widths[crosses[c, 1]] + right
            out[i, column] = active if left >= 0 and right >= 0 else -1


def encode(basis: Basis, rows: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the active weights of each row.

    Parameters
    ----------
    basis
        Of the same schema as the rows.
    rows
        float32 of shape (n, n_features); NaN is absent.

    Returns
    -------
    ndarray of shape (n, n_transforms), int32
        Ascending weight indices; ``MISSING`` where a transform has nothing to see.
    """
    out = np.empty((len(rows), basis.n_transforms), np.int32)
    _encode(rows, *basis.tables, out)
    return out
