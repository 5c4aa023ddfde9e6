"""From the trees that a library grew on ordinals to trees as data, on the basis' edges.

Libraries are read by what their trees look like, none is imported.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.families.ordinals import Binning
from models.tree_checks import tree_hashes
from models.trees import ONLY_ABSENT, TreeList, leaves_of, take_trees


@dataclass(frozen=True, slots=True)
class Leaf:
    """An end of a tree, with its log-odds."""

    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Node:
    """A split: ``v < threshold`` goes left, an absent value where ``absent_left`` says."""

    feature: int
    threshold: np.float32
    absent_left: bool
    gain: float
    left: "Node | Leaf"
    right: "Node | Leaf"


def split_at(
    binning: Binning, feature: int, n_bins: int, *, absent_left: bool, gain: float
) -> Callable[[Node | Leaf, Node | Leaf], Node | Leaf]:
    """Return what joins two sides, of which the left takes a feature's first ``n_bins`` bins.

    Where all or none of the bins go left, what remains is a split between present and absent, or
    no split at all.
    """
    edges = binning.edges_of(feature)

    def join(left: Node | Leaf, right: Node | Leaf) -> Node | Leaf:
        if n_bins <= 0:
            return Node(feature, ONLY_ABSENT, True, gain, left, right) if absent_left else right
        if n_bins > len(edges):
            return left if absent_left else Node(feature, ONLY_ABSENT, True, gain, right, left)
        return Node(feature, edges[n_bins - 1], absent_left, gain, left, right)

    return join


def from_lightgbm(dump: Mapping[str, Any], binning: Binning) -> list[Node | Leaf]:
    """Return the trees of a LightGBM model that was trained on ordinals.

    An ordinal o is ``ABSENT`` or 1 + bin, so "o <= t" is "absent, or bin < floor(t)".

    Parameters
    ----------
    dump
        Result of ``Booster.dump_model()``.
    binning
        That made the ordinals.

    Raises
    ------
    InvalidInputError
        If a split is not numeric.
    """
    return [_of_lightgbm(tree["tree_structure"], binning) for tree in dump["tree_info"]]


def _of_lightgbm(node: Mapping[str, Any], binning: Binning) -> Node | Leaf:
    if "split_feature" not in node:
        return Leaf(float(node["leaf_value"]))
    if node["decision_type"] != "<=":
        raise InvalidInputError(f"expected numeric splits, got {node['decision_type']!r}")
    is_zero_missing = node["missing_type"] == "Zero"
    join = split_at(
        binning,
        int(node["split_feature"]),
        int(np.floor(node["threshold"])),
        absent_left=bool(node["default_left"]) if is_zero_missing else node["threshold"] >= 0,
        gain=float(node["split_gain"]),
    )
    left = _of_lightgbm(node["left_child"], binning)
    return join(left, _of_lightgbm(node["right_child"], binning))


def from_river(
    root: object, binning: Binning, levels: Sequence[NDArray[np.float64]]
) -> Node | Leaf:
    """Return a Hoeffding tree that learnt each feature as the level of its bin.

    An absent value takes the way that river takes now: to the side that has seen more.

    Parameters
    ----------
    root
        Root of a tree of ``river.tree``; alternate trees of an adaptive one are left out.
    binning
        That made the bins.
    levels
        Of each feature: what was shown to river for its bins, ascending.

    Raises
    ------
    InvalidInputError
        If a split is not numeric and binary.
    """
    node: Any = root
    if not hasattr(node, "children"):
        stats = node.stats if node is not None else {}
        frauds, legits = stats.get(True, 0.0), stats.get(False, 0.0)
        return Leaf(float(np.log((frauds + 0.5) / (legits + 0.5))))
    if not hasattr(node, "threshold"):
        raise InvalidInputError(f"expected numeric binary splits, got {type(node).__name__}")
    heavier, _ = node.most_common_path()
    join = split_at(
        binning,
        int(node.feature),
        int(np.searchsorted(levels[node.feature], node.threshold, side="right")),
        absent_left=heavier == 0,
        gain=float(node.total_weight),
    )
    left, right = node.children
    return join(from_river(left, binning, levels), from_river(right, binning, levels))


@dataclass(slots=True)
class _Rows:
    """Nodes of one tree as rows, and the values of its leaves."""

    nodes: list[Node]
    links: list[list[int]]
    values: list[float]

    def add(self, found: Node | Leaf) -> int:
        """Write a subtree, the left side first; return how its parent refers to it."""
        if isinstance(found, Leaf):
            self.values.append(found.value)
            return -len(self.values)
        at = len(self.nodes)
        self.nodes.append(found)
        self.links.append([0, 0])
        self.links[at] = [self.add(found.left), self.add(found.right)]
        return at


def flat(roots: Sequence[Node | Leaf]) -> TreeList:
    """Return trees as arrays, nodes and leaves numbered from the root, left before right."""
    trees = [_Rows([], [], []) for _ in roots]
    for tree, root in zip(trees, roots, strict=True):
        tree.add(root)
    nodes = [node for tree in trees for node in tree.nodes]
    links = np.array([pair for tree in trees for pair in tree.links], np.int16).reshape(-1, 2)
    values = [value for tree in trees for value in tree.values]
    return TreeList(
        n_nodes=np.array([len(tree.nodes) for tree in trees], np.int32),
        feature=np.array([node.feature for node in nodes], np.int16),
        threshold=np.array([node.threshold for node in nodes], np.float32),
        absent_left=np.array([node.absent_left for node in nodes], np.uint8),
        left=np.ascontiguousarray(links[:, 0]),
        right=np.ascontiguousarray(links[:, 1]),
        leaf_n=np.zeros(len(values), np.uint32),
        leaf_accounts=np.zeros(len(values), np.uint32),
        gain=np.array([sum(node.gain for node in tree.nodes) for tree in trees], np.float32),
        leaf_value=np.array(values, np.float32),
    )


def with_counts(
    trees: TreeList, rows: NDArray[np.float32], accounts: NDArray[np.int64] | None
) -> TreeList:
    """Return the trees with the rows and the distinct accounts that fall into each leaf.

    Parameters
    ----------
    trees
        To count for.
    rows
        float32 of shape (n, n_features).
    accounts
        int64 of shape (n,); None counts no accounts, which no consortium accepts.
    """
    found = leaves_of(trees, rows) + trees.first_leaf[:-1]
    n = np.bincount(found.ravel(), minlength=int(trees.first_leaf[-1]))
    distinct = np.zeros(len(n), np.int64)
    if accounts is not None:
        names, code = np.unique(accounts, return_inverse=True)
        for tree in range(len(trees)):
            pairs = np.unique(found[:, tree] * len(names) + code)
            distinct += np.bincount(pairs // max(len(names), 1), minlength=len(n))
    return replace(trees, leaf_n=n.astype(np.uint32), leaf_accounts=distinct.astype(np.uint32))


def as_proposal(
    roots: Sequence[Node | Leaf],
    rows: NDArray[np.float32],
    accounts: NDArray[np.int64],
    *,
    min_accounts: int,
) -> TreeList | None:
    """Return trees that a consortium may take up, without values; None where none is left.

    A leaf of too few accounts is cut off: its parent gives way to the other side, which takes
    its rows. Trees that are single leaves or were there before are left out.

    Parameters
    ----------
    roots
        Trees within the consortium's bounds on depth and leaves.
    rows, accounts
        float32 of shape (n, n_features) and int64 of shape (n,): what the grower counts by.
    min_accounts
        Distinct accounts of a leaf, at least.
    """
    counted = with_counts(flat(roots), rows, accounts).leaf_accounts.tolist()
    each = iter(counted)
    cut = [_without_small(root, each, min_accounts) for root in roots]
    trees = flat([root for root in cut if isinstance(root, Node)])
    first_of = {h: k for k, h in reversed(list(enumerate(tree_hashes(trees))))}
    kept = take_trees(trees, sorted(first_of.values()))
    return with_counts(replace(kept, leaf_value=None), rows, accounts) if len(kept) else None


def _without_small(
    found: Node | Leaf, accounts: Iterator[int], min_accounts: int
) -> Node | Leaf | None:
    """Walk in the order of `flat`, so that counts and leaves keep pace."""
    if isinstance(found, Leaf):
        return found if next(accounts) >= min_accounts else None
    left = _without_small(found.left, accounts, min_accounts)
    right = _without_small(found.right, accounts, min_accounts)
    if left is None or right is None:
        return left or right
    return replace(found, left=left, right=right)


def bounded(root: Node | Leaf, *, max_leaves: int, max_depth: int) -> Node | Leaf:
    """Return the tree cut at the greatest depth that keeps it within both bounds."""
    for depth in range(max_depth, 0, -1):
        cut = _cut(root, depth)
        if _n_leaves(cut) <= max_leaves:
            return cut
    return Leaf()


def _cut(found: Node | Leaf, depth: int) -> Node | Leaf:
    if isinstance(found, Leaf) or depth == 0:
        return found if isinstance(found, Leaf) else Leaf()
    return replace(found, left=_cut(found.left, depth - 1), right=_cut(found.right, depth - 1))


def _n_leaves(found: Node | Leaf) -> int:
    return 1 if isinstance(found, Leaf) else _n_leaves(found.left) + _n_leaves(found.right)
