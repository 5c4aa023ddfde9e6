"""Whether trees keep within bounds, what makes two the same, and what a leaf says."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidTreesError
from models.trees import ONLY_ABSENT, TreeList, check_features


class Cuts(Protocol):
    """What a basis says about where trees may split; see `models.basis.Basis`."""

    @property
    def cuts(self) -> NDArray[np.float32]:
        """Ascending thresholds, feature after feature."""

    @property
    def n_cuts(self) -> NDArray[np.int32]:
        """Thresholds of each feature, shape (n_features,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeLimits:
    """What a proposal may be at most.

    Parameters
    ----------
    max_trees, max_leaves, max_depth
        Trees of a list; leaves of a tree; nodes above a leaf.
    min_accounts
        Distinct accounts that a leaf must hold at its grower; a smaller one would single
        accounts out.
    """

    max_trees: int = 128
    max_leaves: int = 16
    max_depth: int = 6
    min_accounts: int = 20


class Condition(NamedTuple):
    """What a rule asks of one feature: ``low <= value < high``, or that it is absent.

    ``is_absent_met`` says whether an absent value meets it; where ``high`` is minus infinity,
    nothing else does.
    """

    feature: int
    low: float
    high: float
    is_absent_met: bool


def check_trees(trees: TreeList, basis: Cuts, limits: TreeLimits) -> None:
    """Refuse trees that a consortium must not take up.

    Parameters
    ----------
    trees
        A proposal; that its arrays are trees at all was checked when the value was made.
    basis
        Whose edges the thresholds must be.
    limits
        The consortium's.

    Raises
    ------
    InvalidTreesError
        With the reason ``too_many_trees``, ``not_finite``, ``too_many_leaves``, ``too_deep``,
        ``unknown_feature``, ``unknown_threshold``, ``small_leaf`` or ``repeated``.
    """
    if len(trees) > limits.max_trees:
        raise InvalidTreesError(
            "too_many_trees", f"expected at most {limits.max_trees}, got {len(trees)}"
        )
    _check_finite(trees)
    for tree in range(len(trees)):
        n_leaves, depth = int(trees.n_leaves[tree]), int(depths(trees, tree).max())
        if n_leaves > limits.max_leaves:
            raise InvalidTreesError(
                "too_many_leaves", f"expected at most {limits.max_leaves}, got {n_leaves}"
            )
        if depth > limits.max_depth:
            raise InvalidTreesError("too_deep", f"expected {limits.max_depth} at most, got {depth}")
    check_features(trees, len(basis.n_cuts))
    _check_thresholds(trees, basis)
    if not bool(np.all(trees.leaf_accounts >= limits.min_accounts)):
        raise InvalidTreesError(
            "small_leaf", f"expected leaves of at least {limits.min_accounts} accounts"
        )
    if len(set(tree_hashes(trees))) != len(trees):
        raise InvalidTreesError("repeated", "expected each tree once")


def _check_finite(trees: TreeList) -> None:
    for name in ("threshold", "gain", "leaf_value"):
        array = getattr(trees, name)
        if array is not None and not bool(np.all(np.isfinite(array))):
            raise InvalidTreesError("not_finite", f"{name}: expected finite numbers")


def _check_thresholds(trees: TreeList, basis: Cuts) -> None:
    ends = np.cumsum(basis.n_cuts, dtype=np.int64)
    for feature in np.unique(trees.feature).tolist():
        asked = trees.threshold[trees.feature == feature]
        cuts = basis.cuts[ends[feature] - basis.n_cuts[feature] : ends[feature]]
        if not bool(np.all(np.isin(asked, cuts) | (asked == ONLY_ABSENT))):
            raise InvalidTreesError(
                "unknown_threshold", f"feature {feature}: expected cuts of the basis"
            )


def depths(trees: TreeList, tree: int) -> NDArray[np.int64]:
    """Return how many nodes stand above each leaf of one tree, shape (n_leaves,)."""
    nodes = trees.nodes(tree)
    n = nodes.stop - nodes.start
    of_node, of_leaf = [0] * n, [0] * (n + 1)
    links = zip(trees.left[nodes].tolist(), trees.right[nodes].tolist(), strict=True)
    for node, children in enumerate(links):
        for child in children:
            if child >= 0:
                of_node[child] = of_node[node] + 1
            else:
                of_leaf[-1 - child] = of_node[node] + 1
    return np.array(of_leaf, np.int64)


def _preorder(trees: TreeList, tree: int) -> Iterator[int]:
    """Yield node numbers and negative leaf numbers from the root, left before right."""
    nodes = trees.nodes(tree)
    waiting = [0 if nodes.stop > nodes.start else -1]
    while waiting:
        node = waiting.pop()
        yield node
        if node >= 0:
            at = nodes.start + node
            waiting += [int(trees.right[at]), int(trees.left[at])]


def leaf_order(trees: TreeList, tree: int) -> NDArray[np.int64]:
    """Return the leaves of one tree, left before right; the same for trees of one hash.

    What stands at a place of trees with equal `tree_hashes` is the same rule, however their nodes
    and leaves are numbered.
    """
    return np.array([-1 - node for node in _preorder(trees, tree) if node < 0], np.int64)


def tree_hashes(trees: TreeList) -> tuple[str, ...]:
    """Return 16 hexadecimal digits of each tree, the same however its nodes are numbered.

    Features, thresholds and directions count; rows, accounts, gain and values do not.
    """
    return tuple(_hash(trees, tree) for tree in range(len(trees)))


def _hash(trees: TreeList, tree: int) -> str:
    start = int(trees.starts[tree])
    words = []
    for node in _preorder(trees, tree):
        if node < 0:
            words.append("leaf")
            continue
        at = start + node
        threshold = np.float32(trees.threshold[at] + np.float32(0.0))  # -0 is 0
        words.append(
            f"{trees.feature[at]}<{threshold.tobytes().hex()}|{int(trees.absent_left[at] != 0)}"
        )
    return hashlib.sha256(" ".join(("tree-1", *words)).encode()).hexdigest()[:16]


def rule_of_leaf(trees: TreeList, tree: int, leaf: int) -> tuple[Condition, ...]:
    """Return what a row must meet to fall into a leaf, one condition a feature, by position.

    Raises
    ------
    InvalidTreesError
        With reason ``malformed`` if there is no such tree or leaf.
    """
    if not (0 <= tree < len(trees) and 0 <= leaf <= trees.n_nodes[tree]):
        raise InvalidTreesError("malformed", f"expected a leaf of the list, got {tree}, {leaf}")
    rule: dict[int, Condition] = {}
    for at, is_left in _path(trees, tree, leaf):
        feature, threshold = int(trees.feature[at]), float(trees.threshold[at])
        threshold = -np.inf if threshold == float(ONLY_ABSENT) else threshold
        known = rule.get(feature, Condition(feature, -np.inf, np.inf, True))
        rule[feature] = Condition(
            feature,
            known.low if is_left else max(known.low, threshold),
            min(known.high, threshold) if is_left else known.high,
            known.is_absent_met and bool(trees.absent_left[at]) == is_left,
        )
    return tuple(rule[feature] for feature in sorted(rule))


def _path(trees: TreeList, tree: int, leaf: int) -> list[tuple[int, bool]]:
    """Return (position of a node, whether the leaf lies to its left) from the leaf upwards."""
    nodes = trees.nodes(tree)
    left, right = trees.left[nodes].tolist(), trees.right[nodes].tolist()
    parents = {child: (node, True) for node, child in enumerate(left)}
    parents |= {child: (node, False) for node, child in enumerate(right)}
    path, child = [], -1 - leaf
    while child in parents:
        node, is_left = parents[child]
        path.append((nodes.start + node, is_left))
        child = node
    return path
