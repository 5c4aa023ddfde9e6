"""Reasons: summands that add up, told in words that undo the features' formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.basis import Basis, encode
from models.basis_builder import BasisShape, build_basis
from models.errors import InvalidInputError
from models.histograms import add_rows, empty_counts
from models.reasons import baseline, contributions, describe, explain
from models.schema import ACCOUNT_FEATURES, Schema
from models.trees import TreeList, bare_trees

SCHEMA = Schema(entity_kinds=("terminal", "device"))
NAMES = SCHEMA.feature_names


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(1.0, 1.0, (3_000, len(NAMES))).astype(np.float32)


@pytest.fixture(scope="module")
def basis(rows: np.ndarray) -> Basis:
    counts = empty_counts(len(NAMES))
    add_rows(counts, rows, np.zeros(len(rows), bool))
    return build_basis(counts, SCHEMA, 1, shape=BasisShape(plain_weights=5_000))


@pytest.fixture(scope="module")
def weights(basis: Basis) -> np.ndarray:
    return np.random.default_rng(1).normal(size=basis.n_weights)


def test_contributions_and_baseline_add_up_to_the_score(
    rows: np.ndarray, basis: Basis, weights: np.ndarray
) -> None:
    """The sum over transforms is the log-odds, and the mean excess over the sample is 0."""
    holed = rows.copy()
    holed[::3, 4] = np.nan
    active = encode(basis, holed)
    parts = contributions(weights, active)
    by_row = [sum(weights[k] for k in row if k >= 0) for row in active[:50]]
    assert parts[:50].sum(axis=1) == pytest.approx(by_row)
    usual = baseline(weights, active)
    assert (parts - usual).mean(axis=0) == pytest.approx(np.zeros(basis.n_transforms), abs=1e-12)
    assert baseline(weights, active[:0]).tolist() == [0.0] * basis.n_transforms


def test_the_strongest_summands_come_first_in_both_directions(
    rows: np.ndarray, basis: Basis
) -> None:
    """Towards fraud, then against; the bias and what is next to nothing are no reasons."""
    excess = np.zeros((1, basis.n_transforms))
    excess[0, 0] = 9.0
    excess[0, [1, 2, 3, 4]] = [0.5, -2.0, 1.5, 0.01]
    (reasons,) = explain(NAMES, basis, rows[:1], excess)
    assert [r.feature for r in reasons] == [NAMES[2], NAMES[0], NAMES[1]]
    assert [r.contribution for r in reasons] == [1.5, 0.5, -2.0]


def test_no_more_reasons_than_asked_for(
    rows: np.ndarray, basis: Basis, weights: np.ndarray
) -> None:
    """Three towards and one against, on every row."""
    active = encode(basis, rows)
    excess = contributions(weights, active) - baseline(weights, active)
    for reasons in explain(NAMES, basis, rows[:40], excess[:40], n_towards=3, n_against=1):
        signs = [r.contribution > 0 for r in reasons]
        assert signs == [True, True, True, False]


def test_a_cross_is_told_as_both_its_sides(rows: np.ndarray, basis: Basis) -> None:
    """And passed over where both were told already, in the same direction."""
    first_cross = 1 + len(NAMES)
    left, right = basis.crosses[0].tolist()
    excess = np.zeros((2, basis.n_transforms))
    excess[:, first_cross] = 1.0
    excess[1, [1 + left, 1 + right]] = 2.0
    alone, told = explain(NAMES, basis, rows[:2], excess)
    assert [r.feature for r in alone] == [f"{NAMES[left]} x {NAMES[right]}"]
    assert " together with " in alone[0].text
    assert [r.feature for r in told] == [NAMES[left], NAMES[right]]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("weekend", 1.0, "paid on a weekend"),
        ("night", 1.0, "paid at night, before 07:00 UTC"),
        ("night", 0.0, "paid in the daytime, UTC"),
        ("n_1d", math.log1p(1), "first payment of this account in the last 24 hours"),
        ("n_7d", math.log1p(9), "9 payments of this account in the last 7 days"),
        ("ratio_30d", math.log(6), "amount 6 times this account's mean of 30 days"),
        ("ratio_30d", math.log(0.5), "amount 50 % of this account's mean of 30 days"),
        ("ratio_30d", 0.0, "amount near this account's mean of 30 days"),
        ("ratio_30d", math.nan, "no earlier payment of this account to compare with"),
        ("z_30d", -1.25, "amount 1.2 standard deviations below this account's mean"),
        ("mean_1d_30d", math.log(2.5), "mean payment of 24 hours 2.5 times that of 30 days"),
        ("frauds_7d", math.log1p(2), "2 frauds known on this account in the last 7 days"),
        ("frauds_30d", 0.0, "no fraud known on this account in the last 30 days"),
        ("robust_ratio", math.log(12.3), "amount 12 times what this account usually pays"),
        (
            "spikes_3d",
            math.log1p(2.1),
            "2 unusually high payments of this account in about the last 3 days",
        ),
        ("spike_age", 30.0, "no unusually high payment of this account within 30 days"),
        ("fraud_age", 3.0, "last fraud on this account 3 days ago"),
        ("first_fraud_age", 1.0, "first fraud label of this account's run 1 day ago"),
        ("gap_d", 0.125, "previous payment of this account 3 hours ago"),
        ("gap_d", 10.0, "no payment of this account for 10 days or more"),
        ("terminal.n_7d", math.log1p(40), "40 outcomes known at this terminal in the last 7 days"),
        ("terminal.f_7d", math.log1p(12), "12 frauds known at this terminal in the last 7 days"),
        ("device.f_1d", math.log1p(1), "1 fraud known at this device in the last 24 hours"),
        (
            "terminal.risk_30d",
            0.634,
            "fraud share of 63 % at this terminal in the last 30 days, smoothed",
        ),
        ("terminal.fraud_age", math.log(3), "last fraud known at this terminal 3 days ago"),
        ("terminal.fraud_age", math.log(60), "no fraud known at this terminal within 60 days"),
        (
            "terminal.legit_age",
            math.log(7),
            "last legitimate payment known at this terminal 7 days ago",
        ),
        ("terminal.last_label_is_fraud", 1.0, "newest known outcome at this terminal was fraud"),
        ("terminal.episode_age", 0.1, "first fraud label of the run at this terminal 3 days ago"),
        ("terminal.episode_age", 2.0, "no run of frauds at this terminal within 60 days"),
        ("device.f_7d", math.nan, "no device named"),
    ],
)
def test_words_undo_the_features_formula(name: str, value: float, text: str) -> None:
    """Values as the features have them, given by the inverse of the words."""
    assert describe(name, value) == text


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_of_the_schema_has_words_of_its_own(name: str) -> None:
    """None falls back to its bare name, nor shows a place that was not filled."""
    for value in (0.0, 1.0):
        assert not describe(name, value, lambda: 0.5).endswith(f"medium {name}")
    for value in (0.0, 1.0, 2.0, 60.0, math.nan):
        assert "{" not in describe(name, value)


@given(st.floats(0.0, 14.0, width=32), st.floats(0.0, 1.0))
def test_amounts_are_told_by_level_only(value: float, level: float) -> None:
    """No digit of an amount, or of an account's mean, in the words."""
    for name in ("log_amount", "log_mean_30d"):
        assert not any(c.isdigit() for c in describe(name, value, lambda: level))


def test_levels_come_from_the_features_own_bins(rows: np.ndarray, basis: Basis) -> None:
    """The largest value of a column is exceptionally high, the smallest low."""
    j = ACCOUNT_FEATURES.index("log_amount")
    ends = rows[[int(rows[:, j].argmax()), int(rows[:, j].argmin())]]
    excess = np.zeros((2, basis.n_transforms))
    excess[:, 1 + j] = 1.0
    high, low = explain(NAMES, basis, ends, excess)
    assert high[0].text == "exceptionally high amount among all payments"
    assert low[0].text == "low amount among all payments"


def test_an_unknown_feature_is_told_by_its_name_and_level() -> None:
    """A schema may grow before this table does."""
    assert describe("colour", 3.0, lambda: 0.99) == "exceptionally high colour"
    assert describe("colour", math.nan) == "colour not known"


def test_columns_that_do_not_fit_the_basis_are_refused(rows: np.ndarray, basis: Basis) -> None:
    """Names, features and summands belong to one basis."""
    excess = np.zeros((1, basis.n_transforms))
    with pytest.raises(InvalidInputError, match="features"):
        explain(NAMES[1:], basis, rows[:1], excess)
    with pytest.raises(InvalidInputError, match="excess"):
        explain(NAMES, basis, rows[:1], excess[:, 1:])


def test_an_attribute_is_told_by_its_name_alone() -> None:
    """A category has no level, and its value is not told."""
    assert describe("attribute.a.b", 3.5, lambda: 1.0) == "value of attribute a.b"
    assert describe("attribute.f_7d", float("nan")) == "attribute f_7d not given"


def a_rule(basis: Basis) -> TreeList:
    """Return one tree: an amount below its first edge; else night; else the terminal's frauds."""
    looks_at = [NAMES.index(name) for name in ("log_amount", "night", "terminal.f_7d")]
    first = np.cumsum(basis.n_edges) - basis.n_edges
    return bare_trees(
        n_nodes=np.array([3], np.int32),
        feature=np.array(looks_at, np.int16),
        threshold=basis.edges[first[looks_at]],
        absent_left=np.zeros(3, np.uint8),
        left=np.array([-1, -2, -3], np.int16),
        right=np.array([1, 2, -4], np.int16),
    )


@pytest.mark.parametrize(
    ("values", "code", "begin"),
    [
        ((-9.0, 9.0, 9.0), "log_amount", "low amount among all payments"),
        ((9.0, -9.0, 9.0), "log_amount x night", "exceptionally high amount among all payments to"),
        (
            (9.0, 9.0, math.log1p(3)),
            "log_amount x night x terminal.f_7d",
            "all at once: exceptionally high amount among all payments; paid at night, before "
            "07:00 UTC; 3 frauds known at this terminal in the last 7 days",
        ),
    ],
)
def test_a_leaf_is_told_as_the_rule_that_leads_to_it(
    rows: np.ndarray, basis: Basis, values: tuple[float, ...], code: str, begin: str
) -> None:
    """By the features on the row's own way, with the row's own values."""
    with_tree = replace(basis, trees=a_rule(basis), number=2)
    row = rows[:1].copy()
    for name, value in zip(("log_amount", "night", "terminal.f_7d"), values, strict=True):
        row[0, NAMES.index(name)] = value
    excess = np.zeros((1, with_tree.n_transforms))
    excess[0, -1] = 1.5
    ((reason,),) = explain(NAMES, with_tree, row, excess)
    assert reason.feature == code
    assert reason.text.startswith(begin)
    assert reason.contribution == 1.5
