"""Leaves found in blocks, against a walk down each tree in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.trees import TreeList, leaves_of
from models.walks import BLOCK, MAX_LEAVES

N_FEATURES = 3
LEVELS = np.array([-1.0, 0.0, 0.5, 2.0], np.float32)


def links_of(rng: np.random.Generator, n_leaves: int) -> tuple[list[int], list[int]]:
    """Return children, left and right, of a tree grown leaf by leaf, its leaves in any order."""
    children = np.zeros((n_leaves - 1, 2), int)
    ends: list[tuple[int, int]] = []
    for node in range(n_leaves - 1):
        if node:
            parent, side = ends.pop(int(rng.integers(len(ends))))
            children[parent, side] = node
        ends += [(node, 0), (node, 1)]
    for leaf, k in enumerate(rng.permutation(len(ends))):
        children[ends[k]] = -1 - leaf
    return children[:, 0].tolist(), children[:, 1].tolist()


def forest_of(seed: int, n_leaves: list[int]) -> TreeList:
    """Return trees of so many leaves, whose thresholds are values that rows have too."""
    rng = np.random.default_rng(seed)
    links = [links_of(rng, n) if n > 1 else ([], []) for n in n_leaves]
    n_nodes, total = np.array(n_leaves, np.int32) - 1, sum(n_leaves) - len(n_leaves)
    none = np.zeros(sum(n_leaves), np.uint32)
    return TreeList(
        n_nodes=n_nodes,
        feature=rng.integers(0, N_FEATURES, total).astype(np.int16),
        threshold=rng.choice(LEVELS, total),
        absent_left=rng.integers(0, 2, total).astype(np.uint8),
        left=np.array([a for one in links for a in one[0]], np.int16),
        right=np.array([a for one in links for a in one[1]], np.int16),
        leaf_n=none,
        leaf_accounts=none,
        gain=np.zeros(len(n_leaves), np.float32),
    )


def rows_of(seed: int, n: int) -> np.ndarray:
    """Return rows of thresholds' values, numbers between and beyond them, and absent ones."""
    rng = np.random.default_rng(seed)
    values = np.array([*LEVELS, 0.2, -5.0, 7.0, np.nan], np.float32)
    return rng.choice(values, (n, N_FEATURES))


def walked(trees: TreeList, rows: np.ndarray) -> list[list[int]]:
    """Return the leaves, one node after the other."""
    out = []
    for row in rows.tolist():
        leaves = []
        for tree in range(len(trees)):
            own = trees.nodes(tree)
            node = 0 if own.stop > own.start else -1
            while node >= 0:
                value, at = row[trees.feature[own][node]], own.start + node
                is_left = (
                    trees.absent_left[at] if math.isnan(value) else value < trees.threshold[at]
                )
                node = int((trees.left if is_left else trees.right)[at])
            leaves.append(-1 - node)
        out.append(leaves)
    return out


@pytest.mark.parametrize("n", [0, 1, 3, 4, BLOCK - 1, BLOCK, BLOCK + 3, BLOCK + 4, 3 * BLOCK])
def test_leaves_are_those_of_a_walk(n: int) -> None:
    """In whole blocks, in what is left over, and for trees too large for them."""
    trees = forest_of(3, [1, 2, 16, MAX_LEAVES - 1, MAX_LEAVES, MAX_LEAVES + 1, 60, 1])
    rows = rows_of(n, n)
    assert leaves_of(trees, rows).tolist() == walked(trees, rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), max_size=5), st.integers(0, 40))
def test_leaves_of_any_trees_are_those_of_a_walk(seed: int, n_leaves: list[int], n: int) -> None:
    """Of any shape and in any order of leaves."""
    trees, rows = forest_of(seed, n_leaves), rows_of(seed + 1, n)
    assert leaves_of(trees, rows).tolist() == walked(trees, rows)


def test_values_count_as_float32_however_many_rows_come() -> None:
    """A little below a threshold in float64 is on it in float32, for one row as for a block."""
    trees = forest_of(1, [2])
    rows = np.full((BLOCK, N_FEATURES), float(trees.threshold[0]) - 1e-12)
    one = leaves_of(trees, rows[:1])  # type: ignore[arg-type]  # on purpose
    assert one.tolist() == walked(trees, rows[:1].astype(np.float32))
    assert leaves_of(trees, rows).tolist() == [*one.tolist()] * BLOCK  # type: ignore[arg-type]


def test_rows_of_another_order_are_read_right() -> None:
    """Columns one after the other."""
    trees, rows = forest_of(5, [16, 8]), rows_of(6, 40)
    assert leaves_of(trees, np.asfortranarray(rows)).tolist() == walked(trees, rows)
