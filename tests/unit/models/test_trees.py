"""Trees as data: walks equal the libraries' own, bounds hold, rules say what leaves hold."""

from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river.forest import ARFClassifier
from river.tree import HoeffdingAdaptiveTreeClassifier, HoeffdingTreeClassifier

from models.errors import InvalidTreesError
from models.families.grown_trees import (
    Leaf,
    Node,
    as_proposal,
    bounded,
    flat,
    from_lightgbm,
    from_river,
    split_at,
    with_counts,
)
from models.families.ordinals import Binning, ordinals
from models.families.river_family import levels
from models.tree_checks import (
    TreeLimits,
    check_trees,
    depths,
    rule_of_leaf,
    tree_hashes,
)
from models.trees import (
    ONLY_ABSENT,
    TreeList,
    leaves_of,
    sum_of_leaf_values,
    take_trees,
    together,
)

LIMITS = TreeLimits(max_trees=4, max_leaves=4, max_depth=3, min_accounts=2)


def a_binning(seed: int, n_features: int = 4) -> Binning:
    """Return bins with 0 to 6 edges a feature, whole and half numbers."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 7, n_features).astype(np.int32)
    edges = [np.sort(rng.choice(np.arange(-8, 9), n, replace=False)) / 2 for n in counts]
    return Binning(number=1, edges=np.concatenate(edges).astype(np.float32), n_edges=counts)


def some_rows(binning: Binning, n: int, seed: int, absent: float = 0.2) -> NDArray[np.float32]:
    """Return rows that often lie exactly on an edge, some values absent."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(-10, 11, (n, binning.n_features)) / 2).astype(np.float32)
    x += np.where(rng.random(x.shape) < 0.3, rng.normal(0, 0.1, x.shape), 0).astype(np.float32)
    x[rng.random(x.shape) < absent] = np.nan
    return x


def a_signal(x: NDArray[np.float32], seed: int) -> NDArray[np.bool_]:
    """Return outcomes that hang on values and on their absence."""
    z = np.nan_to_num(x, nan=3.0) @ np.array([1.0, -0.7, 0.4, 0.2])[: x.shape[1]]
    return np.random.default_rng(seed).random(len(x)) < 1 / (1 + np.exp(-z))


def boosted(binning: Binning, x: NDArray[np.float32], seed: int) -> lightgbm.Booster:
    parameters = {
        "objective": "binary",
        "num_leaves": 12,
        "min_data_in_leaf": 5,
        "min_data_in_bin": 1,
        "verbosity": -1,
        "num_threads": 1,
        "deterministic": True,
        "seed": seed,
    }
    data = lightgbm.Dataset(ordinals(binning, x), a_signal(x, seed), params=parameters)
    return lightgbm.train(parameters, data, num_boost_round=5)


def is_same_partition(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Tell whether two numberings of leaves put the same rows together."""
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.6]))
@settings(max_examples=25, deadline=None)
def test_a_row_falls_into_the_leaf_that_lightgbm_says(seed: int, absent: float) -> None:
    """Every tree, every row, absent values and values on an edge included."""
    binning = a_binning(seed)
    booster = boosted(binning, some_rows(binning, 300, seed, absent), seed)
    trees = flat(from_lightgbm(booster.dump_model(), binning))
    fresh = some_rows(binning, 400, seed + 1, 0.3)
    fresh[0] = np.nan
    expected = np.asarray(booster.predict(ordinals(binning, fresh), pred_leaf=True))
    found = leaves_of(trees, fresh)
    assert found.shape == (400, booster.num_trees())
    for tree in range(len(trees)):
        assert is_same_partition(found[:, tree], expected.reshape(400, -1)[:, tree])


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_values_of_leaves_sum_to_lightgbms_log_odds(seed: int) -> None:
    """A frozen scorer; values are float32, so five of them are off by 5 roundings at most."""
    binning = a_binning(seed)
    booster = boosted(binning, some_rows(binning, 300, seed), seed)
    trees = flat(from_lightgbm(booster.dump_model(), binning))
    fresh = some_rows(binning, 100, seed + 1)
    expected = np.asarray(booster.predict(ordinals(binning, fresh), raw_score=True))
    tolerance = np.finfo(np.float32).eps * float(np.abs(trees.leaf_value).max()) * len(trees)
    np.testing.assert_allclose(sum_of_leaf_values(trees, fresh), expected, rtol=0, atol=tolerance)


RIVER = {
    "hoeffding": lambda: HoeffdingTreeClassifier(grace_period=20, delta=0.1),
    "adaptive": lambda: HoeffdingAdaptiveTreeClassifier(grace_period=20, delta=0.1, seed=1),
    "forest": lambda: ARFClassifier(n_models=2, grace_period=20, delta=0.1, seed=1),
}


@pytest.mark.parametrize("kind", RIVER)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_row_falls_into_the_leaf_that_river_says(kind: str, seed: int) -> None:
    """Absent values take the way that river takes, to the side that has seen more."""
    binning = a_binning(seed)
    shown = levels(binning)

    def dicts(x: NDArray[np.float32]) -> list[dict[int, float]]:
        found = ordinals(binning, x).tolist()
        return [{j: float(shown[j][o - 1]) for j, o in enumerate(r) if o} for r in found]

    model = RIVER[kind]()
    x = some_rows(binning, 1_200, seed)
    for row, y in zip(dicts(x), a_signal(x, seed).tolist(), strict=True):
        model.learn_one(row, y)
    members = list(model) if kind == "forest" else [model]
    fresh = some_rows(binning, 300, seed + 1, 0.3)
    trees = flat([from_river(member._root, binning, shown) for member in members])
    assert int(trees.n_nodes.sum()) > 0
    for tree, member in enumerate(members):
        if not trees.n_nodes[tree]:
            continue
        ends = [member._root.traverse(row, until_leaf=True) for row in dicts(fresh)]
        expected = np.array([id(end[-1] if isinstance(end, list) else end) for end in ends])
        assert is_same_partition(leaves_of(trees, fresh)[:, tree], expected)


@given(st.integers(-1, 9), st.booleans())
def test_a_split_at_any_bin_is_said_on_edges(n_bins: int, absent_left: bool) -> None:
    """Also where all or none of the bins go left: then it splits absence, or nothing."""
    binning = a_binning(3, 1)
    n = int(binning.n_edges[0])
    join = split_at(binning, 0, n_bins, absent_left=absent_left, gain=1.0)
    trees = flat([join(Leaf(1.0), Leaf(2.0))])
    x = np.concatenate([binning.edges, binning.edges - 0.1, [-50, 50, np.nan]]).astype(np.float32)
    bins = np.searchsorted(binning.edges, x, side="right")
    goes_left = np.where(np.isnan(x), absent_left, bins < n_bins)
    expected = np.where(goes_left, 1.0, 2.0)
    np.testing.assert_array_equal(sum_of_leaf_values(trees, x[:, None]), expected)
    assert n > 1


class Cuts(NamedTuple):
    """Where trees may split."""

    cuts: NDArray[np.float32]
    n_cuts: NDArray[np.int32]


CUTS = Cuts(np.array([0.0, 1.0, 2.0, -1.0, 5.0], np.float32), np.array([3, 2, 0], np.int32))


def node(feature: int, threshold: float, left: Node | Leaf, right: Node | Leaf) -> Node:
    return Node(feature, np.float32(threshold), False, 1.0, left, right)


TREE = node(0, 1.0, node(1, 5.0, Leaf(), Leaf()), node(0, 2.0, Leaf(), Leaf()))
OTHER = node(1, -1.0, Leaf(), Leaf())


def good() -> TreeList:
    trees = flat([TREE, OTHER])
    return replace(trees, leaf_accounts=np.full(6, 2, np.uint32))


def test_trees_within_bounds_are_accepted() -> None:
    """What the following tests break is right."""
    check_trees(good(), CUTS, LIMITS)
    check_trees(take_trees(good(), []), CUTS, LIMITS)
    alone = flat([replace(OTHER, threshold=ONLY_ABSENT)])
    check_trees(replace(alone, leaf_accounts=np.full(2, 2, np.uint32)), CUTS, LIMITS)


def _with(name: str, at: int, value: float) -> TreeList:
    trees = good()
    array = np.array(getattr(trees, name))
    array[at] = value
    return replace(trees, **{name: array})


def _counted(roots: list[Node]) -> TreeList:
    trees = flat(roots)
    return replace(trees, leaf_accounts=np.full(len(trees.leaf_n), 9, np.uint32))


DEEP = node(0, 0.0, Leaf(), node(0, 1.0, Leaf(), node(0, 2.0, Leaf(), Leaf())))
BROKEN = {
    "too_many_trees": lambda: together([good(), good(), good()]),
    "not_finite": lambda: _with("threshold", 0, np.nan),
    "too_many_leaves": lambda: _counted([node(1, 5.0, DEEP, Leaf())]),
    "too_deep": lambda: check_trees(_counted([DEEP]), CUTS, replace(LIMITS, max_depth=2)),
    "unknown_feature": lambda: _with("feature", 1, 3),
    "unknown_threshold": lambda: _with("threshold", 1, 0.0),  # an edge of another feature
    "small_leaf": lambda: _with("leaf_accounts", 3, 1),
    "repeated": lambda: together([good(), take_trees(good(), [1])]),
    "cycle": lambda: _with("left", 1, 0),
    "malformed": lambda: _with("left", 1, -2),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_trees_out_of_bounds_are_refused_with_a_reason(reason: str) -> None:
    """Every reason of the closed set."""
    with pytest.raises(InvalidTreesError) as caught:
        check_trees(BROKEN[reason](), CUTS, LIMITS)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("left", np.array([5, -1, -3, -1], np.int16)),
        ("left", np.array([1, -1, -3], np.int16)),
        ("feature", np.zeros(4, np.int32)),
        ("n_nodes", np.array([-1, 5], np.int32)),
        ("n_nodes", np.array([[3, 1]], np.int32)),
        ("leaf_value", np.zeros(5, np.float32)),
        ("left", np.array([1, -1, -3, -32768], np.int16)),
    ],
)
def test_arrays_that_are_no_trees_make_no_value(name: str, value: NDArray[np.generic]) -> None:
    """So the compiled walk cannot leave its arrays."""
    with pytest.raises(InvalidTreesError, match="malformed"):
        replace(good(), **{name: value})


def test_rows_that_are_too_narrow_are_refused() -> None:
    """The compiled walk looks at no column that is not there."""
    with pytest.raises(InvalidTreesError, match="unknown_feature"):
        leaves_of(good(), np.zeros((2, 1), np.float32))


def test_depths_count_the_nodes_above_a_leaf() -> None:
    """By hand."""
    trees = flat([DEEP, Leaf()])
    assert depths(trees, 0).tolist() == [1, 2, 3, 3]
    assert depths(trees, 1).tolist() == [0]


def test_a_hash_does_not_hang_on_how_nodes_are_numbered() -> None:
    """The same tree with its inner nodes and its leaves numbered otherwise."""
    trees = flat([TREE])
    other = TreeList(
        n_nodes=trees.n_nodes,
        feature=trees.feature[[0, 2, 1]],
        threshold=trees.threshold[[0, 2, 1]] + np.float32(0.0),
        absent_left=trees.absent_left,
        left=np.array([2, -1, -4], np.int16),
        right=np.array([1, -2, -3], np.int16),
        leaf_n=np.arange(4).astype(np.uint32),
        leaf_accounts=trees.leaf_accounts,
        gain=trees.gain + 1,
    )
    assert tree_hashes(other) == tree_hashes(trees)
    for changed in (
        node(0, 1.0, OTHER, OTHER),
        replace(TREE, absent_left=True),
        replace(TREE, threshold=np.float32(0.0)),
        replace(TREE, left=TREE.right, right=TREE.left),
    ):
        assert tree_hashes(flat([changed])) != tree_hashes(trees)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_rule_holds_for_the_rows_of_its_leaf_and_for_no_other(seed: int) -> None:
    """Conditions merged per feature say exactly what the walk does."""
    binning = a_binning(seed)
    booster = boosted(binning, some_rows(binning, 300, seed), seed)
    trees = flat(from_lightgbm(booster.dump_model(), binning))
    fresh = some_rows(binning, 100, seed + 1, 0.3)
    found = leaves_of(trees, fresh)
    for tree in range(len(trees)):
        for leaf in range(int(trees.n_leaves[tree])):
            holds = np.ones(len(fresh), bool)
            rule = rule_of_leaf(trees, tree, leaf)
            assert [c.feature for c in rule] == sorted({c.feature for c in rule})
            for feature, low, high, is_absent_met in rule:
                v = fresh[:, feature]
                holds &= np.where(np.isnan(v), is_absent_met, (v >= low) & (v < high))
            np.testing.assert_array_equal(holds, found[:, tree] == leaf)


def test_a_rule_of_no_leaf_is_refused() -> None:
    """Out of the list, or out of the tree."""
    for tree, leaf in ((2, 0), (-1, 0), (0, 4), (0, -1)):
        with pytest.raises(InvalidTreesError):
            rule_of_leaf(good(), tree, leaf)


def test_many_rows_fall_where_few_at_a_time_do() -> None:
    """They are gone through in blocks, so that another thread gets its turn."""
    binning = a_binning(3)
    x = some_rows(binning, 20_001, 4)
    trees = flat(from_lightgbm(boosted(binning, x, 5).dump_model(), binning))
    few = np.concatenate([leaves_of(trees, part) for part in np.array_split(x, 7)])
    assert len(trees) > 1
    np.testing.assert_array_equal(leaves_of(trees, x), few)


def test_leaves_count_rows_and_distinct_accounts() -> None:
    """By hand: two accounts, one of them twice in a leaf."""
    trees = flat([OTHER, node(0, 1.0, Leaf(), Leaf())])
    x = np.array([[0, -2, 0], [0, -2, 0], [2, 0, 0], [2, np.nan, 0]], np.float32)
    counted = with_counts(trees, x, np.array([7, 7, 7, -9]))
    assert counted.leaf_n.tolist() == [2, 2, 2, 2]
    assert counted.leaf_accounts.tolist() == [1, 2, 1, 2]
    none = with_counts(trees, x[:0], np.empty(0, np.int64))
    assert none.leaf_accounts.tolist() == none.leaf_n.tolist() == [0, 0, 0, 0]


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_proposal_passes_the_check_and_singles_nobody_out(seed: int, n_accounts: int) -> None:
    """Whatever was grown, on however few accounts."""
    binning = a_binning(seed)
    x = some_rows(binning, 300, seed)
    accounts = np.random.default_rng(seed).integers(0, n_accounts, len(x))
    roots = from_lightgbm(boosted(binning, x, seed).dump_model(), binning)
    trees = as_proposal([*roots, *roots], x, accounts, min_accounts=8)
    if n_accounts < 8:
        assert trees is None
    if trees is not None:
        limits = TreeLimits(max_trees=5, max_leaves=12, max_depth=11, min_accounts=8)
        check_trees(trees, Cuts(binning.edges, binning.n_edges), limits)
        assert trees.leaf_value is None
        np.testing.assert_array_equal(
            np.add.reduceat(trees.leaf_n, trees.first_leaf[:-1]), np.full(len(trees), len(x))
        )


@pytest.mark.parametrize("small", [0, 1])
def test_a_leaf_of_few_accounts_gives_way_to_its_other_side(small: int) -> None:
    """By hand, on either side: the split above it goes, the others stay."""
    inner = node(1, 5.0, Leaf(), Leaf())
    x = np.zeros((7, 3), np.float32)
    x[:3, 0] = 2.0  # three to the right of the root
    x[3 if small else slice(4, 7), 1] = 9.0  # of the others, one on one side
    trees = as_proposal([node(0, 1.0, inner, Leaf())], x, np.arange(7), min_accounts=3)
    assert trees is not None
    assert tree_hashes(trees) == tree_hashes(flat([node(0, 1.0, Leaf(), Leaf())]))
    assert trees.leaf_n.tolist() == [4, 3]


@pytest.mark.parametrize("is_left_small", [True, False])
def test_the_other_side_of_a_small_leaf_may_be_a_split(is_left_small: bool) -> None:
    """It takes the place of its parent."""
    inner = node(1, 5.0, Leaf(), Leaf())
    x = np.zeros((7, 3), np.float32)
    x[0, 0] = 0.0 if is_left_small else 2.0
    x[1:, 0] = 2.0 if is_left_small else 0.0
    x[1:4, 1] = 9.0
    root = node(0, 1.0, Leaf(), inner) if is_left_small else node(0, 1.0, inner, Leaf())
    trees = as_proposal([root], x, np.arange(7), min_accounts=3)
    assert trees is not None
    assert tree_hashes(trees) == tree_hashes(flat([inner]))
    assert trees.leaf_n.tolist() == [4, 3]


def test_a_river_threshold_on_a_level_takes_that_bin_along() -> None:
    """River's test is "at most"; four bins lie at -1, -1/3, 1/3, 1."""
    end = SimpleNamespace(stats={})
    binning = Binning(number=1, edges=CUTS.cuts, n_edges=CUTS.n_cuts)
    at_level = float(levels(binning)[0][1])
    root = SimpleNamespace(
        feature=0,
        threshold=at_level,
        children=[end, end],
        total_weight=2.0,
        most_common_path=lambda: (0, end),
    )
    found = from_river(root, binning, levels(binning))
    assert isinstance(found, Node)
    assert found.threshold == 1.0  # the second edge: bins 0 and 1 go left


def test_a_cut_tree_keeps_within_bounds_and_its_upper_splits() -> None:
    """The depth is lowered until the leaves are few enough."""
    assert bounded(DEEP, max_leaves=4, max_depth=3) == DEEP
    assert bounded(DEEP, max_leaves=3, max_depth=3) == node(
        0, 0.0, Leaf(), node(0, 1.0, Leaf(), Leaf())
    )
    assert bounded(DEEP, max_leaves=1, max_depth=3) == Leaf()


def test_lists_of_trees_are_joined_taken_and_stored() -> None:
    """Bits survive; what was given stays as it was and what is made cannot be written."""
    trees = good()
    both = together([trees, take_trees(trees, [1, 0])], has_values=True)
    assert tree_hashes(both) == tree_hashes(trees) + tree_hashes(trees)[::-1]
    loaded = TreeList.load("a", {k: v.copy() for k, v in both.arrays("a").items()})
    assert loaded is not None
    for key, array in both.arrays("a").items():
        np.testing.assert_array_equal(loaded.arrays("a")[key], array)
    assert TreeList.load("b", both.arrays("a")) is None
    with pytest.raises(ValueError, match="read-only"):
        trees.feature[0] = 1
    with pytest.raises(InvalidTreesError, match="leaf_value"):
        sum_of_leaf_values(replace(trees, leaf_value=None), np.zeros((1, 3), np.float32))
