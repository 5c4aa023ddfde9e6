"""The consortium's basis: versioned data that turns a row of features into active weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.binning import BLOCK, bins_of, rows_of_edges, turn
from models.category_view import CategoryView
from models.errors import InvalidInputError
from models.histograms import N_CELLS
from models.named_arrays import digest_of
from models.trees import TreeList, bare_trees, leaves_of, together

MISSING = -1
MAX_WEIGHTS = 5_760
"""So many that their statistics, w (w + 1) / 2 float32 and w float64, fit into an envelope."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """A list of transforms, each of which activates at most one weight per row.

    Weight 0 is the bias; then the bins of each selected feature, the cells of each cross, the
    leaves of each tree. A feature that is absent (NaN) activates neither bin nor cell, which pins
    the weight of "missing" to 0; trees say themselves which way what is absent goes.

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
    cuts, n_cuts
        The same for where trees may split: finer than the bins, since a cut costs no weight, with
        the edges among them. Where none is given, the edges.
    ranks
        float32, one for each cut: the share of transactions below it, in [0, 1], never falling
        within a feature. Even steps where nothing is given.
    selected
        int32 of shape (n_selected,), ascending: features whose bins have weights.
    crosses
        int32 of shape (n_crosses, 2): feature positions.
    category_cells, category_logits, n_categories
        int16 and float32, feature after feature, and int32 of shape (n_features,): the grid cells
        (ascending) of the categories that are known, and what stands for each in `view`.
    trees
        Thresholds and bins are of values as `view` gives them.
    drawn, grown
        What edges and crosses, and what trees, were made from: how far the merged histograms had
        grown (`amalgamator.policy.BasisPolicy.number_due`), and the newest period of proposals; -1
        where nobody counts.

    Attributes
    ----------
    offsets
        int64 of shape (n_transforms + 1,): first weight of each transform and, last, how many.
    digest
        Hash of all but number and schema, by which it is told from others.

    Raises
    ------
    InvalidInputError
        If the counts do not fit the edges, edges do not ascend, a transform names no feature, or
        there would be more than ``MAX_WEIGHTS`` weights.
    """

    number: int
    schema_hash: str
    edges: NDArray[np.float32]
    n_edges: NDArray[np.int32]
    coarse_edges: NDArray[np.float32]
    n_coarse_edges: NDArray[np.int32]
    cuts: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    n_cuts: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    ranks: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    selected: NDArray[np.int32]
    crosses: NDArray[np.int32]
    category_cells: NDArray[np.int16] = field(default_factory=lambda: np.empty(0, np.int16))
    category_logits: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    n_categories: NDArray[np.int32]
    trees: TreeList = field(default_factory=lambda: together([]))
    drawn: int = -1
    grown: int = -1
    offsets: NDArray[np.int64] = field(init=False, repr=False)
    tables: "_Tables" = field(init=False, repr=False)
    digest: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_edges("edges", self.edges, self.n_edges)
        _check_edges("coarse_edges", self.coarse_edges, self.n_coarse_edges)
        if not len(self.n_cuts):
            object.__setattr__(self, "cuts", self.edges)
            object.__setattr__(self, "n_cuts", self.n_edges)
        _check_edges("cuts", self.cuts, self.n_cuts)
        _check_positions(self)
        if not len(self.ranks):
            object.__setattr__(self, "ranks", _even_ranks(self.n_cuts))
        _check_ranks(self)
        _check_categories(self)
        object.__setattr__(self, "offsets", _offsets(self))
        if not self.number >= 1 or not self.n_weights <= MAX_WEIGHTS:
            raise InvalidInputError(
                f"expected number >= 1 and at most {MAX_WEIGHTS} weights, "
                f"got number {self.number} with {self.n_weights}"
            )
        object.__setattr__(self, "tables", _tables(self))
        object.__setattr__(self, "digest", digest_of(self.arrays()))

    def fine_of(self, feature: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the edges of one feature and their ranks."""
        own = _of_feature(self.n_edges, feature)
        return self.edges[own], self.tables.ranks[own]

    def cuts_of(self, feature: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the cuts of one feature and their ranks."""
        own = _of_feature(self.n_cuts, feature)
        return self.cuts[own], self.ranks[own]

    @property
    def n_features(self) -> int:
        """Columns of a row."""
        return len(self.n_edges)

    @property
    def n_transforms(self) -> int:
        """Columns of the encoded row: bias, features, crosses, trees."""
        return 1 + len(self.selected) + len(self.crosses) + len(self.trees)

    @property
    def n_weights(self) -> int:
        """Weights in all, the bias included."""
        return int(self.offsets[-1])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all but the number and the schema's hash as named arrays, for wire and disk."""
        out: dict[str, NDArray[np.generic]] = {name: getattr(self, name) for name in _PLAIN}
        out |= {f"tree_{name}": getattr(self.trees, name) for name in _TREE}
        return out | {"made_from": np.array([self.drawn, self.grown], np.int32)}

    def is_same(self, other: "Basis | None") -> bool:
        """Return whether the other encodes rows alike; numbers may come again in a new log."""
        if other is None or (other.number, other.schema_hash) != (self.number, self.schema_hash):
            return False
        return self.digest == other.digest

    @classmethod
    def from_arrays(
        cls, number: int, schema_hash: str, arrays: Mapping[str, NDArray[np.generic]]
    ) -> "Basis":
        """Return the basis that `arrays` described; raise as the constructor does."""
        trees = bare_trees(**{name: arrays[f"tree_{name}"] for name in _TREE})  # type: ignore[arg-type]  # dtypes are the writer's
        drawn, grown = np.asarray(arrays["made_from"], np.int32).tolist()
        return cls(
            number=number,
            schema_hash=schema_hash,
            trees=trees,
            drawn=drawn,
            grown=grown,
            **{name: arrays[name] for name in _PLAIN},  # type: ignore[arg-type]  # as above
        )


_TREE = ("n_nodes", "feature", "threshold", "absent_left", "left", "right")
_PLAIN = (
    "edges",
    "n_edges",
    "coarse_edges",
    "n_coarse_edges",
    "cuts",
    "n_cuts",
    "ranks",
    "selected",
    "crosses",
    "category_cells",
    "category_logits",
    "n_categories",
)


def _check_edges(name: str, edges: NDArray[np.float32], counts: NDArray[np.int32]) -> None:
    if not bool(np.all(counts >= 0)) or int(counts.sum()) != len(edges):
        raise InvalidInputError(f"{name}: expected as many edges as the counts say")
    if not bool(np.all(np.isfinite(edges))) or not _ascend_within(edges, counts):
        raise InvalidInputError(f"{name}: expected finite, ascending values within each feature")


def _ascend_within(
    values: NDArray[np.generic], counts: NDArray[np.int32], *, strictly: bool = True
) -> bool:
    """Return whether each feature's values ascend, or at least never fall."""
    last_of_feature = np.zeros(len(values), bool)
    last_of_feature[np.cumsum(counts)[counts > 0] - 1] = True
    is_fit = values[1:] > values[:-1] if strictly else values[1:] >= values[:-1]  # type: ignore[operator]  # numbers
    return bool(np.all(is_fit | last_of_feature[:-1]))


def _even_ranks(counts: NDArray[np.int32]) -> NDArray[np.float32]:
    steps = [np.arange(1, n + 1, dtype=np.float32) / np.float32(n + 1) for n in counts.tolist()]
    return np.concatenate([*steps, np.empty(0, np.float32)])


def _check_ranks(basis: Basis) -> None:
    ranks = basis.ranks
    if len(ranks) != len(basis.cuts) or not bool(np.all((ranks >= 0.0) & (ranks <= 1.0))):
        raise InvalidInputError("ranks: expected a share in [0, 1] for each cut")
    if not _ascend_within(ranks, basis.n_cuts, strictly=False):
        raise InvalidInputError("ranks: expected shares that never fall within a feature")


def _of_feature(counts: NDArray[np.int32], feature: int) -> slice:
    stop = int(counts[: feature + 1].sum())
    return slice(stop - int(counts[feature]), stop)


def _ranks_of_edges(basis: Basis) -> NDArray[np.float32]:
    """Return the rank of each edge; refuse one that is not among the cuts."""
    found = [np.empty(0, np.float32)]
    for j in range(basis.n_features):
        edges = basis.edges[_of_feature(basis.n_edges, j)]
        cuts, ranks = basis.cuts_of(j)
        if not bool(np.isin(edges, cuts, assume_unique=True).all()):
            raise InvalidInputError("cuts: expected the edges of each feature among them")
        found.append(ranks[np.searchsorted(cuts, edges)])
    return np.concatenate(found)


def _check_positions(basis: Basis) -> None:
    n, crosses, selected = basis.n_features, basis.crosses, basis.selected
    for name in ("n_coarse_edges", "n_cuts"):
        if len(counts := getattr(basis, name)) != n:
            raise InvalidInputError(f"{name}: expected {n}, got {len(counts)}")
    if crosses.ndim != 2 or not bool(np.all((crosses >= 0) & (crosses < n))):
        raise InvalidInputError(f"crosses: expected pairs of positions below {n}")
    if not bool(np.all((selected >= 0) & (selected < n))) or not bool(
        np.all(np.diff(selected) > 0)
    ):
        raise InvalidInputError(f"selected: expected ascending positions below {n}")
    if not bool(np.all((basis.trees.feature >= 0) & (basis.trees.feature < n))):
        raise InvalidInputError(f"trees: expected positions below {n}")


def _check_categories(basis: Basis) -> None:
    cells, counts = basis.category_cells, basis.n_categories
    if len(counts) != basis.n_features or not bool(np.all(counts >= 0)):
        raise InvalidInputError(f"n_categories: expected {basis.n_features} counts >= 0")
    if not int(counts.sum()) == len(cells) == len(basis.category_logits):
        raise InvalidInputError("category_cells: expected as many as the counts say")
    if not bool(np.all((cells >= 0) & (cells < N_CELLS))) or not _ascend_within(cells, counts):
        raise InvalidInputError("category_cells: expected ascending cells within each feature")
    if not bool(np.isfinite(basis.category_logits).all()):
        raise InvalidInputError("category_logits: expected finite numbers")


def _offsets(basis: Basis) -> NDArray[np.int64]:
    """Return the first weight of each transform and, last, how many; (n_transforms + 1,)."""
    bins = basis.n_edges.astype(np.int64)[basis.selected] + 1
    coarse = basis.n_coarse_edges.astype(np.int64) + 1
    cells = coarse[basis.crosses[:, 0]] * coarse[basis.crosses[:, 1]]
    leaves = basis.trees.n_nodes.astype(np.int64) + 1
    return np.concatenate([[0], np.cumsum(np.concatenate([[1], bins, cells, leaves]))])


class _Tables(NamedTuple):
    """What the kernels read: edges in rows of one width, filled up with NaN; ranks of edges."""

    fine: NDArray[np.float32]
    coarse: NDArray[np.float32]
    selected: NDArray[np.int32]
    crossed: NDArray[np.int32]
    crosses: NDArray[np.int32]
    widths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    categories: CategoryView
    ranks: NDArray[np.float32]


def _tables(basis: Basis) -> _Tables:
    return _Tables(
        fine=rows_of_edges(basis.edges, basis.n_edges),
        coarse=rows_of_edges(basis.coarse_edges, basis.n_coarse_edges),
        selected=basis.selected,
        crossed=np.unique(basis.crosses).astype(np.int32),
        crosses=basis.crosses,
        widths=basis.n_coarse_edges.astype(np.int64) + 1,
        offsets=basis.offsets,
        categories=CategoryView.of(basis.category_cells, basis.category_logits, basis.n_categories),
        ranks=_ranks_of_edges(basis),
    )


@nb.njit(cache=True)
def _encode(rows, fine, coarse, selected, crossed, crosses, widths, offsets, out):  # type: ignore[no-untyped-def]  # noqa: PLR0913  # compiled: takes columns
    n_selected = len(selected)
    values = np.empty((rows.shape[1], BLOCK), np.float32)
    cells = np.empty((rows.shape[1], BLOCK), np.int32)
    found = np.empty(BLOCK, np.int32)
    for start in range(0, len(rows), BLOCK):
        n = turn(rows, start, values)
        for i in range(n):
            out[start + i, 0] = 0
        for s in range(n_selected):
            first, n_edges = np.int32(offsets[1 + s]), offsets[2 + s] - offsets[1 + s] - 1
            bins_of(values[selected[s]], fine[selected[s]], n_edges, found)
            for i in range(n):
                out[start + i, 1 + s] = first + found[i] if found[i] >= 0 else MISSING
        for j in crossed:
            bins_of(values[j], coarse[j], widths[j] - 1, cells[j])
        for c in range(len(crosses)):
            left, right = cells[crosses[c, 0]], cells[crosses[c, 1]]
            width = np.int32(widths[crosses[c, 1]])
            first = np.int32(offsets[1 + n_selected + c])
            for i in range(BLOCK):
                is_there = left[i] >= 0 and right[i] >= 0
                found[i] = first + left[i] * width + right[i] if is_there else np.int32(MISSING)
            for i in range(n):
                out[start + i, 1 + n_selected + c] = found[i]


def first_weights(basis: Basis) -> NDArray[np.int64]:
    """Return the first weight of each feature's bins, shape (n_features,), MISSING without any."""
    first = np.full(basis.n_features, MISSING, np.int64)
    first[basis.selected] = basis.offsets[1 : 1 + len(basis.selected)]
    return first


def feature_weights(basis: Basis, active: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return encoded rows whose columns 1 to n_features are the bins of the features in order.

    Parameters
    ----------
    basis
        That encoded the rows.
    active
        Result of `encode`; returned as it is where every feature has weights. Otherwise a feature
        without weights is MISSING in every row, and crosses and trees are left out.
    """
    if len(basis.selected) == basis.n_features:
        return active
    out = np.full((len(active), 1 + basis.n_features), MISSING, np.int32)
    out[:, 0] = active[:, 0]
    out[:, 1 + basis.selected] = active[:, 1 : 1 + len(basis.selected)]
    return out


def view(basis: Basis, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows in which each category is replaced by the number that stands for it.

    That number is how much more often than usual it was fraud, in log-odds, by merged counts; 0 for
    a category that is not known. Rows without categories are returned as they are.
    """
    return basis.tables.categories.apply(rows)


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
    tables, trees = basis.tables, basis.trees
    rows = view(basis, rows)
    out = np.empty((len(rows), basis.n_transforms), np.int32)
    n_plain = basis.n_transforms - len(trees)
    _encode(rows, *tables[:7], out)
    if len(trees):
        out[:, n_plain:] = leaves_of(trees, rows) + tables.offsets[n_plain:-1].astype(np.int32)
    return out
