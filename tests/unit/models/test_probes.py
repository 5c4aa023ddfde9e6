"""Probes, answers and what is refused of either."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.basis_builder import build_basis
from models.copula import Moments
from models.errors import InvalidInputError, QuarantinedError
from models.histograms import add_rows, empty_counts
from models.probes import (
    MAX_PROBES,
    answer,
    check_answers,
    check_probes,
    draw_probes,
    feature_groups,
    pooled_answers,
)
from models.schema import ACCOUNT_FEATURES, ENTITY_FEATURES, Schema
from models.twin import build_twin

SCHEMA = Schema(entity_kinds=("terminal", "device"))
D = len(SCHEMA.feature_names)
GROUPS = feature_groups(SCHEMA)


def twin_of_two_levels():
    """Return a twin whose legitimate rows lie in (0, 1) and whose frauds in (10, 11)."""
    rng = np.random.default_rng(0)
    rows = rng.random((4_000, D)).astype(np.float32)
    is_fraud = np.arange(4_000) % 4 == 0
    rows[is_fraud] += 10
    counts = empty_counts(D)
    add_rows(counts, rows, is_fraud)
    return build_twin(counts, Moments.empty(D), build_basis(counts, SCHEMA, 1))


TWIN = twin_of_two_levels()


def test_groups_follow_the_schemas_names() -> None:
    """The account's features, then those of each kind."""
    n = len(ENTITY_FEATURES)
    assert GROUPS.tolist() == [0] * len(ACCOUNT_FEATURES) + [1] * n + [2] * n


def test_probes_mix_the_classes_feature_by_feature_and_group_by_group() -> None:
    """Shares follow from the recipe; five standard deviations, correlated features counted as 1."""
    n = 20_000
    is_high = draw_probes(TWIN, n, 3, groups=GROUPS) > 5
    swapped = 0.6 / 3  # the mean of .6 u^2
    of_account = 0.3 + swapped * (0.7 - 0.3)
    of_entity = 0.3 + (1 - (1 - swapped) * 0.6) * (0.7 - 0.3)
    tolerance = 5 * np.sqrt(0.25 / n)
    assert abs(is_high[:, GROUPS == 0].mean() - of_account) < tolerance
    assert abs(is_high[:, GROUPS == 1].mean() - of_entity) < tolerance
    assert abs(is_high[:, GROUPS == 2].mean() - of_entity) < tolerance
    whole = is_high[:, GROUPS == 1].all(axis=1) & ~is_high[:, GROUPS == 0].any(axis=1)
    assert whole.mean() > 0.02


def test_a_seed_names_a_set_of_probes() -> None:
    """The same seed, the same probes; another, others."""
    first = draw_probes(TWIN, 50, 3, groups=GROUPS)
    assert first.dtype == np.float32
    assert np.array_equal(first, draw_probes(TWIN, 50, 3, groups=GROUPS))
    assert not np.array_equal(first, draw_probes(TWIN, 50, 4, groups=GROUPS))
    check_probes(first, D)


def test_an_answer_is_the_scorers_log_odds_within_bounds() -> None:
    """Clipped to +-30, float32."""
    probes = np.array([[1.5], [99.0], [-99.0]], np.float32)
    got = answer(lambda rows: rows[:, 0].astype(np.float64), probes)
    assert got.dtype == np.float32
    assert got.tolist() == [1.5, 30.0, -30.0]
    check_answers({"logit": got}, 3)


def test_an_untrained_scorer_gives_no_answer() -> None:
    """NaN, or another number of log-odds."""
    probes = np.zeros((3, 1), np.float32)
    for bad in (np.full(3, np.nan), np.zeros(2)):
        with pytest.raises(InvalidInputError, match="expected 3"):
            answer(lambda _, bad=bad: bad, probes)


@pytest.mark.parametrize(
    ("logit", "reason"),
    [([0.0, 1.0], "shape"), ([0.0, 1.0, 31.0], "range"), ([0.0, 1.0, np.nan], "range")],
)
def test_foreign_answers_are_checked(logit, reason) -> None:
    """Number and bounds."""
    with pytest.raises(QuarantinedError) as caught:
        check_answers({"logit": np.array(logit, np.float32)}, 3)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "probes",
    [
        np.zeros((3, D - 1), np.float32),
        np.zeros((0, D), np.float32),
        np.zeros((3, D)),
        np.full((3, D), np.inf, np.float32),
    ],
)
def test_foreign_probes_are_checked(probes) -> None:
    """Shape, dtype, infinite values."""
    with pytest.raises(InvalidInputError, match="probes: expected"):
        check_probes(probes, D)


def test_more_probes_than_a_release_carries_are_not_drawn() -> None:
    """Nor none, nor with groups of other features."""
    for n in (0, MAX_PROBES + 1):
        with pytest.raises(InvalidInputError, match="probes: expected 1 to"):
            draw_probes(TWIN, n, 1, groups=GROUPS)
    with pytest.raises(InvalidInputError, match="groups: expected"):
        draw_probes(TWIN, 3, 1, groups=GROUPS[:-1])


@given(
    logits=st.lists(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=2), min_size=1),
    data=st.data(),
)
def test_pooled_is_numpys_weighted_mean_in_any_order(logits, data) -> None:
    """The order in which answers came does not move a bit; a weight of 0 leaves a member out."""
    names = [f"m{i}" for i in range(len(logits))]
    answers = {n: np.array(x, np.float32) for n, x in zip(names, logits, strict=True)}
    weights = {n: data.draw(st.floats(0.5, 1e6)) for n in names}
    got = pooled_answers(answers, weights)
    expected = np.average(list(answers.values()), axis=0, weights=list(weights.values()))
    assert np.abs(got - expected).max() < 1e-9
    backwards = dict(reversed(answers.items()))
    assert got.tolist() == pooled_answers(backwards, weights).tolist()
    more = answers | {"a": np.zeros(2, np.float32)}
    assert got.tolist() == pooled_answers(more, weights | {"a": 0.0}).tolist()


def test_answers_that_nobody_vouches_for_do_not_pool() -> None:
    """No weight, a negative one, other lengths."""
    one, two = np.zeros(2, np.float32), np.zeros(3, np.float32)
    for answers, weights in (
        ({"a": one}, {}),
        ({"a": one, "b": one}, {"a": 2.0, "b": -1.0}),
        ({"a": one, "b": two}, {"a": 1.0, "b": 1.0}),
    ):
        with pytest.raises(InvalidInputError, match="answers: expected"):
            pooled_answers(answers, weights)
