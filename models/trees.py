"""Bounded decision trees as data: flat arrays that a member proposes and that everybody can read.

A node looks at one feature: a value v goes left where ``v < threshold``, and an absent value goes
left where ``absent_left`` says so. Thresholds are edges of a basis, so that "v < edges[k]" is
"v lies in one of the bins 0..k". `ONLY_ABSENT` stands for a threshold below every value: what goes
left there is the absent alone. Nodes of a tree are numbered from its root, which is 0; a child is
a later node, or, negative, the leaf ``-1 - child``. So every walk ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidTreesError
from models.walks import walk

_BLOCK = 8_192
"""Rows for which a thread keeps Python's lock."""
ONLY_ABSENT = np.finfo(np.float32).min
REASONS = (
    "malformed",
    "cycle",
    "not_finite",
    "too_many_trees",
    "too_many_leaves",
    "too_deep",
    "unknown_feature",
    "unknown_threshold",
    "small_leaf",
    "repeated",
)
_NODES = {
    "feature": np.int16,
    "threshold": np.float32,
    "absent_left": np.uint8,
    "left": np.int16,
    "right": np.int16,
}
_LEAVES = {"leaf_n": np.uint32, "leaf_accounts": np.uint32}
_TREES = {"n_nodes": np.int32, "gain": np.float32}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TreeList:
    """Decision trees, one after the other; a tree of n nodes has n + 1 leaves.

    Parameters
    ----------
    n_nodes
        int32 of shape (n_trees,), inner nodes of each tree; 0 is a single leaf.
    feature, threshold, absent_left, left, right
        int16, float32, uint8, int16, int16 of shape (sum of n_nodes,).
    leaf_n, leaf_accounts
        uint32 of shape (sum of n_nodes + n_trees,): rows, and distinct accounts, of the grower
        that fell into each leaf.
    gain
        float32 of shape (n_trees,): what the tree was worth to its grower, in units of its own.
    leaf_value
        float32 of the shape of ``leaf_n``, log-odds, for scorers that are frozen; None elsewhere.

    Raises
    ------
    InvalidTreesError
        With reason ``malformed`` or ``cycle`` if the arrays are no trees.
    """

    n_nodes: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    absent_left: NDArray[np.uint8]
    left: NDArray[np.int16]
    right: NDArray[np.int16]
    leaf_n: NDArray[np.uint32]
    leaf_accounts: NDArray[np.uint32]
    gain: NDArray[np.float32]
    leaf_value: NDArray[np.float32] | None = None
    starts: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_shapes(self)
        starts = np.concatenate([[0], np.cumsum(self.n_nodes, dtype=np.int64)])
        object.__setattr__(self, "starts", starts)
        for tree in range(len(self)):
            _check_links(tree, self.left[self.nodes(tree)], self.right[self.nodes(tree)])
        for name in (*_TREES, *_NODES, *_LEAVES):
            _freeze(self, name)
        if self.leaf_value is not None:
            _freeze(self, "leaf_value")

    def __len__(self) -> int:
        return len(self.n_nodes)

    @property
    def n_leaves(self) -> NDArray[np.int64]:
        """Leaves of each tree, shape (n_trees,)."""
        return self.n_nodes.astype(np.int64) + 1

    @property
    def first_leaf(self) -> NDArray[np.int64]:
        """Position of each tree's first leaf and, last, the number of leaves; (n_trees + 1,)."""
        return self.starts + np.arange(len(self) + 1)

    def nodes(self, tree: int) -> slice:
        """Return where the nodes of one tree stand."""
        return slice(int(self.starts[tree]), int(self.starts[tree + 1]))

    def leaves(self, tree: int) -> slice:
        """Return where the leaves of one tree stand."""
        return slice(int(self.first_leaf[tree]), int(self.first_leaf[tree + 1]))

    def arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Return the trees as named arrays (views)."""
        out: dict[str, NDArray[np.generic]] = {
            f"{prefix}/{name}": getattr(self, name) for name in (*_TREES, *_NODES, *_LEAVES)
        }
        if self.leaf_value is not None:
            out[f"{prefix}/leaf_value"] = self.leaf_value
        return out

    @classmethod
    def load(cls, prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> Self | None:
        """Return what `arrays` gave under that prefix; None where there is nothing."""
        if f"{prefix}/n_nodes" not in arrays:
            return None
        kinds = {**_TREES, **_NODES, **_LEAVES}
        values = {name: np.array(arrays[f"{prefix}/{name}"], kinds[name]) for name in kinds}
        leaf_value = arrays.get(f"{prefix}/leaf_value")
        if leaf_value is not None:
            values["leaf_value"] = np.array(leaf_value, np.float32)
        return cls(**values)


def _freeze(trees: TreeList, name: str) -> None:
    """Put a read-only array in the place of what was given, which stays as it was."""
    view = np.ascontiguousarray(getattr(trees, name)).view()
    view.setflags(write=False)
    object.__setattr__(trees, name, view)


def _check_shapes(trees: TreeList) -> None:
    n_trees = trees.n_nodes.shape
    if len(n_trees) != 1 or not bool(np.all((trees.n_nodes >= 0) & (trees.n_nodes < 2**15))):
        raise InvalidTreesError("malformed", "n_nodes: expected counts from 0 to 32767")
    total = int(trees.n_nodes.sum(dtype=np.int64))
    shapes = dict.fromkeys(_TREES, n_trees) | dict.fromkeys(_NODES, (total,))
    shapes |= dict.fromkeys((*_LEAVES, "leaf_value"), (total + n_trees[0],))
    for name, kind in ({**_TREES, **_NODES, **_LEAVES, "leaf_value": np.float32}).items():
        array = getattr(trees, name)
        if array is not None and (array.shape != shapes[name] or array.dtype != kind):
            raise InvalidTreesError(
                "malformed",
                f"{name}: expected {np.dtype(kind)} of shape {shapes[name]}, "
                f"got {array.dtype} of shape {array.shape}",
            )


def _check_links(tree: int, left: NDArray[np.int16], right: NDArray[np.int16]) -> None:
    """Demand later nodes as children, and that every node and every leaf has one parent."""
    n = len(left)
    own = np.arange(n)
    if n and not bool(np.all(((left < 0) | (left > own)) & ((right < 0) | (right > own)))):
        raise InvalidTreesError("cycle", f"tree {tree}: expected children after their parent")
    found = np.sort(np.concatenate([left, right]).astype(np.int64))
    if n and not np.array_equal(found, np.concatenate([np.arange(-n - 1, 0), np.arange(1, n)])):
        raise InvalidTreesError("malformed", f"tree {tree}: expected each node and leaf once")


def take_trees(trees: TreeList, index: Sequence[int]) -> TreeList:
    """Return some of the trees, in the order asked for."""
    return together([_one(trees, tree) for tree in index], has_values=trees.leaf_value is not None)


def _one(trees: TreeList, tree: int) -> TreeList:
    nodes, leaves = trees.nodes(tree), trees.leaves(tree)
    values = {name: getattr(trees, name)[nodes] for name in _NODES}
    values |= {name: getattr(trees, name)[leaves] for name in _LEAVES}
    values |= {name: getattr(trees, name)[tree : tree + 1] for name in _TREES}
    leaf_value = None if trees.leaf_value is None else trees.leaf_value[leaves]
    return TreeList(**values, leaf_value=leaf_value)


def together(several: Sequence[TreeList], *, has_values: bool = False) -> TreeList:
    """Return several lists as one; values of leaves are kept where asked for and all have them."""
    kinds = {**_TREES, **_NODES, **_LEAVES}
    values = {
        name: np.concatenate([np.empty(0, kind), *(getattr(each, name) for each in several)])
        for name, kind in kinds.items()
    }
    if has_values:
        given = [each.leaf_value for each in several if each.leaf_value is not None]
        values["leaf_value"] = np.concatenate([np.empty(0, np.float32), *given])
    return TreeList(**values)


def bare_trees(
    *,
    n_nodes: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    absent_left: NDArray[np.uint8],
    left: NDArray[np.int16],
    right: NDArray[np.int16],
) -> TreeList:
    """Return trees that say nothing of who grew them: no counts of leaves, no gain."""
    none = np.zeros(len(feature) + len(n_nodes), np.uint32)
    return TreeList(
        n_nodes=n_nodes,
        feature=feature,
        threshold=threshold,
        absent_left=absent_left,
        left=left,
        right=right,
        leaf_n=none,
        leaf_accounts=none,
        gain=np.zeros(len(n_nodes), np.float32),
    )


def leaves_of(trees: TreeList, rows: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the leaf of each tree that each row falls into.

    Parameters
    ----------
    trees
        Of the same schema as the rows.
    rows
        float32 of shape (n, n_features), finite; NaN is absent.

    Returns
    -------
    ndarray of shape (n, n_trees), int32
        Number of the leaf within its tree.

    Raises
    ------
    InvalidTreesError
        With reason ``unknown_feature`` if a node names a column that the rows lack.
    """
    check_features(trees, rows.shape[1])
    rows = np.asarray(rows, np.float32)
    out = np.empty((len(rows), len(trees)), np.int32)
    t = trees
    for start in range(0, len(rows), _BLOCK):
        some = slice(start, start + _BLOCK)
        walk(
            rows[some], t.starts, t.feature, t.threshold, t.absent_left, t.left, t.right, out[some]
        )
    return out


def check_features(trees: TreeList, n_features: int) -> None:
    """Refuse trees that look at a column which rows do not have.

    Raises
    ------
    InvalidTreesError
        With reason ``unknown_feature``.
    """
    if not bool(np.all((trees.feature >= 0) & (trees.feature < n_features))):
        raise InvalidTreesError("unknown_feature", f"expected positions below {n_features}")


@nb.njit(cache=True)
def _sum_values(leaves, first, values, out):  # type: ignore[no-untyped-def]  # compiled
    for i in range(leaves.shape[0]):
        total = 0.0
        for tree in range(leaves.shape[1]):
            total += values[first[tree] + leaves[i, tree]]
        out[i] = total


def sum_of_leaf_values(trees: TreeList, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each row's sum of the values of its leaves, tree after tree, shape (n,).

    Raises
    ------
    InvalidTreesError
        With reason ``malformed`` if the trees have no values.
    """
    if trees.leaf_value is None:
        raise InvalidTreesError("malformed", "leaf_value: expected values, got none")
    out = np.empty(len(rows))
    _sum_values(leaves_of(trees, rows), trees.first_leaf, trees.leaf_value, out)
    return out
