"""A basis for any bank's attributes: categories in order of risk, useless ones left out; trees."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.basis import MISSING, Basis, encode, view
from models.basis_builder import BasisShape, build_basis, schema_crosses
from models.categories import category_value
from models.errors import InvalidInputError
from models.histograms import add_rows, empty_counts
from models.schema import Schema, attribute_specs
from models.trees import TreeList, bare_trees, leaves_of

NAMES = {f"n{i}": "number" for i in range(6)} | {"city": "text"}
SCHEMA = Schema(entity_kinds=(), attributes=attribute_specs(NAMES))
CITIES = ("Lund", "Oslo", "Bergen", "Turku", "Nuuk")
RISK = (0.02, 0.3, 0.1, 0.5, 0.1)
FIRST = len(SCHEMA.feature_names) - SCHEMA.n_attributes
AT = {name: SCHEMA.feature_names.index(f"attribute.{name}") for name in NAMES}


def rows_and_outcomes(
    n: int = 6_000, seed: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return rows in which city and n3 tell, n4 tells by its absence, and the others nothing."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, len(SCHEMA.feature_names))).astype(np.float32)
    city = rng.choice(len(CITIES), n, p=(0.4, 0.3, 0.2, 0.0995, 0.0005))
    is_fraud = rng.random(n) < np.array(RISK)[city]
    rows[:, AT["city"]] = np.array([category_value("city", c) for c in CITIES])[city]
    rows[:, AT["n3"]] += 2.0 * is_fraud
    rows[rng.random(n) < np.where(is_fraud, 0.9, 0.5), AT["n4"]] = np.nan
    return rows, is_fraud


ROWS, IS_FRAUD = rows_and_outcomes()


def counts_of(rows: NDArray[np.float32], is_fraud: NDArray[np.bool_]) -> NDArray[np.uint32]:
    counts = empty_counts(rows.shape[1])
    add_rows(counts, rows, is_fraud)
    return counts


COUNTS = counts_of(ROWS, IS_FRAUD)
WIDE = BasisShape(plain_weights=5_000)
BASIS = build_basis(COUNTS, SCHEMA, 1, shape=WIDE)


def test_attributes_that_tell_nothing_get_no_weights() -> None:
    """Features of the account always have them; of seven attributes three tell."""
    assert set(range(FIRST)) <= set(BASIS.selected.tolist())
    chosen = set(BASIS.selected.tolist()) - set(range(FIRST))
    assert chosen == {AT["city"], AT["n3"], AT["n4"]}
    assert len(BASIS.n_edges) == len(SCHEMA.feature_names)


def test_a_category_stands_for_how_much_more_often_it_was_fraud() -> None:
    """log-odds with 20 transactions of the usual rate added, less the usual log-odds."""
    usual = (IS_FRAUD.sum() + 0.5) / (len(ROWS) + 1.0)
    seen = view(BASIS, ROWS)[:, AT["city"]]
    for city in CITIES[:4]:
        mine = ROWS[:, AT["city"]] == category_value("city", city)
        fraud, legit = IS_FRAUD[mine].sum(), (~IS_FRAUD[mine]).sum()
        odds = (fraud + 20 * usual) / (legit + 20 * (1 - usual))
        expected = math.log(odds) - math.log(usual / (1 - usual))
        assert np.unique(seen[mine]) == pytest.approx([expected], abs=1e-4)


def test_rare_and_unknown_categories_stand_for_the_usual() -> None:
    """Nuuk has fewer than 20 transactions, Atlantis none."""
    rows = ROWS[:2].copy()
    rows[0, AT["city"]] = category_value("city", "Nuuk")
    rows[1, AT["city"]] = category_value("city", "Atlantis")
    assert view(BASIS, rows)[:, AT["city"]].tolist() == [0.0, 0.0]


def test_absent_values_stay_absent_in_the_view_and_nothing_else_changes() -> None:
    """A row is copied only where there are categories."""
    rows = ROWS[:5].copy()
    rows[2, AT["city"]] = np.nan
    seen = view(BASIS, rows)
    assert np.isnan(seen[2, AT["city"]])
    others = [j for j in range(rows.shape[1]) if j != AT["city"]]
    np.testing.assert_array_equal(seen[:, others], rows[:, others])
    plain = Schema(entity_kinds=())
    basis = build_basis(empty_counts(plain.n_features), plain, 1)
    few = ROWS[:3, : plain.n_features]
    assert view(basis, few) is few


def test_bins_of_a_category_ascend_with_its_risk() -> None:
    """Lund, Bergen, Oslo, Turku in this order, each in a bin of its own."""
    column = 1 + BASIS.selected.tolist().index(AT["city"])
    active = encode(BASIS, ROWS)[:, column]
    bins = [
        set(active[ROWS[:, AT["city"]] == category_value("city", city)].tolist())
        for city in ("Lund", "Bergen", "Oslo", "Turku")
    ]
    assert all(len(found) == 1 for found in bins)
    assert [next(iter(found)) for found in bins] == sorted(next(iter(found)) for found in bins)
    assert len({next(iter(found)) for found in bins}) == 4


def test_attributes_have_many_cuts_and_few_bins() -> None:
    """All edges, quantiles in steps of 1/32, and those of the frauds; others have their edges."""
    firsts = np.cumsum(BASIS.n_cuts) - BASIS.n_cuts
    for j in range(BASIS.n_features):
        cuts = BASIS.cuts[firsts[j] : firsts[j] + BASIS.n_cuts[j]]
        edges = BASIS.fine_of(j)[0]
        if j < FIRST:
            np.testing.assert_array_equal(cuts, edges)
    j = AT["n3"]
    assert set(BASIS.fine_of(j)[0]) <= set(BASIS.cuts[firsts[j] : firsts[j] + BASIS.n_cuts[j]])
    there = ROWS[:, j]
    expected = {float(np.quantile(there, q)) for q in np.arange(1, 32) / 32}
    expected |= {float(np.quantile(there[IS_FRAUD], q)) for q in np.arange(1, 30) / 30}
    cuts = BASIS.cuts[firsts[j] : firsts[j] + BASIS.n_cuts[j]]
    for value in expected:
        assert np.abs(cuts - value).min() <= 0.02 * abs(value) + 0.02


def test_the_weights_of_attributes_are_bounded_and_the_best_come_first() -> None:
    """With room for one attribute's four bins it is the one that tells most."""
    shape = replace(WIDE, attribute_weights=4, attribute_bins=(4, 16))
    chosen = build_basis(COUNTS, SCHEMA, 1, shape=shape).selected.tolist()[FIRST:]
    assert len(chosen) == 1
    wide = replace(WIDE, attribute_weights=24, attribute_bins=(4, 16))
    basis = build_basis(COUNTS, SCHEMA, 1, shape=wide)
    assert (basis.n_edges[basis.selected[FIRST:]] + 1 <= 8).all()


KINDS = Schema(entity_kinds=("a", "b"))


def kind_counts() -> NDArray[np.uint32]:
    """Return counts in which the second kind's recent frauds tell, and the first's nothing."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(5_000, len(KINDS.feature_names))).astype(np.float32)
    is_fraud = rng.random(5_000) < 0.1
    rows[:, KINDS.feature_names.index("b.f_7d")] += 3.0 * is_fraud
    rows[:, KINDS.feature_names.index("b.risk_7d")] += 2.0 * is_fraud
    return counts_of(rows, is_fraud)


def test_all_features_of_accounts_and_entities_have_weights_where_they_fit() -> None:
    """Two kinds fit the usual bound where the crosses have fewer cells than these."""
    shape = BasisShape(plain_weights=100_000)
    basis = build_basis(kind_counts(), KINDS, 1, shape=shape)
    assert basis.selected.tolist() == list(range(len(KINDS.feature_names)))
    assert [tuple(pair) for pair in basis.crosses.tolist()] == schema_crosses(KINDS)


@pytest.mark.parametrize("most", [0, 44, 200, 400, 1_500, 2_000])
def test_weights_of_accounts_and_entities_are_bounded_and_the_best_come_first(most: int) -> None:
    """Bins before crosses: 44 are one feature at most; crosses are of features that are there."""
    basis = build_basis(kind_counts(), KINDS, 1, shape=BasisShape(plain_weights=most))
    assert basis.n_weights - 1 <= most
    selected = set(basis.selected.tolist())
    best = [KINDS.feature_names.index(f"b.{name}") for name in ("f_7d", "risk_7d")]
    assert selected >= set(best[: 0 if most == 0 else 1 if most == 44 else 2])
    crosses = [tuple(pair) for pair in basis.crosses.tolist()]
    assert crosses == [pair for pair in schema_crosses(KINDS) if pair in crosses]
    assert all({a, b} <= selected for a, b in crosses)
    assert not crosses or selected == set(range(len(KINDS.feature_names)))
    assert bool(crosses) == (most == 2_000)


def test_merged_counts_give_the_basis_of_the_pooled_rows() -> None:
    """Also of categories, to the bit, whatever the order of the banks."""
    parts = [counts_of(ROWS[i::3], IS_FRAUD[i::3]) for i in range(3)]
    merged = build_basis(parts[2] + parts[0] + parts[1], SCHEMA, 1, shape=WIDE)
    for name, array in BASIS.arrays().items():
        assert merged.arrays()[name].tobytes() == array.tobytes(), name


def stumps(basis: Basis, features: list[int]) -> TreeList:
    """Return one split on each feature, at its first edge; what is absent goes left."""
    first = np.cumsum(basis.n_edges) - basis.n_edges
    n = len(features)
    return bare_trees(
        n_nodes=np.ones(n, np.int32),
        feature=np.array(features, np.int16),
        threshold=basis.edges[first[features]],
        absent_left=np.ones(n, np.uint8),
        left=np.full(n, -1, np.int16),
        right=np.full(n, -2, np.int16),
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_leaves_follow_bins_and_crosses(seed: int) -> None:
    """Each tree activates the weight of its leaf, after all other transforms, on the view."""
    rng = np.random.default_rng(seed)
    features = rng.choice(np.flatnonzero(BASIS.n_edges), 3).tolist()
    basis = replace(BASIS, trees=stumps(BASIS, features), number=2)
    rows = ROWS[rng.integers(0, len(ROWS), 20)].copy()
    rows[rng.random(rows.shape) < 0.2] = np.nan
    active = encode(basis, rows)
    np.testing.assert_array_equal(active[:, :-3], encode(BASIS, rows))
    seen, thresholds = view(BASIS, rows)[:, features], basis.trees.threshold
    right = ~np.isnan(seen) & (seen >= thresholds)
    np.testing.assert_array_equal(active[:, -3:], BASIS.n_weights + 2 * np.arange(3) + right)
    assert basis.n_weights == BASIS.n_weights + 6


def test_a_basis_goes_through_arrays_and_back() -> None:
    """Trees and categories included."""
    basis = replace(BASIS, trees=stumps(BASIS, [0, AT["city"]]), number=9, drawn=4, grown=77)
    again = Basis.from_arrays(9, basis.schema_hash, basis.arrays())
    assert (again.drawn, again.grown, again.n_weights) == (4, 77, basis.n_weights)
    np.testing.assert_array_equal(encode(again, ROWS[:50]), encode(basis, ROWS[:50]))
    np.testing.assert_array_equal(
        leaves_of(again.trees, ROWS[:9]), leaves_of(basis.trees, ROWS[:9])
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("selected", [0, 0], "selected: expected ascending"),
        ("selected", [999], "selected: .* below"),
        ("n_categories", [1], "n_categories: expected"),
        ("category_cells", [-1] * len(BASIS.category_cells), "category_cells: expected ascending"),
        ("category_logits", [np.nan] * len(BASIS.category_logits), "category_logits: .* finite"),
        ("category_cells", [], "category_cells: expected as many"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: list[float], message: str) -> None:
    """Whichever field it is, the message names it."""
    changed = np.array(value, getattr(BASIS, name).dtype)
    with pytest.raises(InvalidInputError, match=message):
        replace(BASIS, **{name: changed})


def test_trees_of_unknown_features_are_refused() -> None:
    """A walk would read past the row."""
    trees = stumps(BASIS, [0])
    wrong = bare_trees(
        n_nodes=trees.n_nodes,
        feature=np.array([len(SCHEMA.feature_names)], np.int16),
        threshold=trees.threshold,
        absent_left=trees.absent_left,
        left=trees.left,
        right=trees.right,
    )
    with pytest.raises(InvalidInputError, match="trees: expected positions"):
        replace(BASIS, trees=wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"plain_weights": -1},
        {"attribute_bins": (1, 4)},
        {"attribute_bins": (8, 4)},
        {"category_prior": 0.0},
    ],
)
def test_wrong_shapes_are_refused(change: dict[str, object]) -> None:
    """Before anything is built."""
    with pytest.raises(InvalidInputError, match="basis shape"):
        BasisShape(**change)  # type: ignore[arg-type]  # as in the test's table


def test_a_column_with_one_value_makes_no_edges() -> None:
    """And an attribute that is never there neither bins nor weights."""
    rows = ROWS.copy()
    rows[:, AT["n0"]], rows[:, AT["n1"]] = 5.0, np.nan
    basis = build_basis(counts_of(rows, IS_FRAUD), SCHEMA, 1, shape=WIDE)
    assert basis.n_edges[[AT["n0"], AT["n1"]]].tolist() == [0, 0]
    assert not {AT["n0"], AT["n1"]} & set(basis.selected.tolist())
    assert (encode(basis, rows)[:, 0] != MISSING).all()
