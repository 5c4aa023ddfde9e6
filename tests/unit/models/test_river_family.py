"""River's classifiers: what they are shown, the corrected prior, a bounded log, their trees."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from river.linear_model import LogisticRegression

from models.families.ordinals import Binning, ordinals
from models.families.river_family import P_MIN, RiverFamily, RiverOptions, levels
from models.families.scorecard import is_kept
from models.tree_checks import TreeLimits, check_trees
from tests.contract.test_families import BASIS, FIRST, OTHER_BASIS, SECOND, TEST

LOGISTIC = "river.linear_model.LogisticRegression"
TREE = "river.tree.HoeffdingTreeClassifier"
FEW = TEST.take(slice(0, 200))


def a_family(model: str = LOGISTIC, **options: Any) -> RiverFamily:
    family = RiverFamily(RiverOptions(model=model, **options), seed=1)
    family.install(BASIS)
    family.end_day(1, lambda: FIRST)
    return family


@pytest.mark.parametrize("every", [1, 10])
def test_it_scores_as_the_same_model_fed_by_hand(every: int) -> None:
    """Levels from -1 to 1, the absent left out, one legitimate row in ten, the prior corrected."""
    model, binning = LogisticRegression(), Binning.of(BASIS)

    def dicts(x: np.ndarray) -> list[dict[int, float]]:
        bins, n = ordinals(binning, x).astype(int) - 1, binning.n_edges
        return [{j: 2 * b / n[j] - 1 for j, b in enumerate(row) if b >= 0} for row in bins]

    learnt = FIRST.is_fraud | (is_kept(FIRST.hashes) if every == 10 else True)
    shown = dicts(FIRST.features[learnt])
    for x, y in zip(shown, FIRST.is_fraud[learnt].tolist(), strict=True):
        model.learn_one(x, y)
    p = np.array([model.predict_proba_one(x)[True] for x in dicts(FEW.features)])
    expected = np.log(p / (1 - p)) - math.log(every)
    np.testing.assert_allclose(a_family(every=every).score(FEW.features), expected, atol=1e-9)


def test_levels_go_from_minus_one_to_one() -> None:
    """A feature without edges says nothing but that it is there."""
    binning = Binning(number=1, edges=np.arange(3.0, dtype=np.float32), n_edges=np.array([0, 3]))
    found = [each.tolist() for each in levels(binning)]
    assert found[0] == [0.0]
    assert found[1] == pytest.approx([-1, -1 / 3, 1 / 3, 1])


def test_certain_models_stay_finite() -> None:
    """A probability of 0 or 1, or none at all, is held away from infinity."""
    family = a_family(every=1)

    class Certain:
        def __init__(self) -> None:
            self.answers = iter([{True: 0.0}, {True: 1.0}, {}, {True: math.nan}])

        def predict_proba_one(self, x: object) -> dict[bool, float]:
            return next(self.answers)

    family._model = Certain()
    bound = math.log((1 - P_MIN) / P_MIN)
    expected = [-bound, bound, -bound, 0.0]
    np.testing.assert_allclose(family.score(FEW.features[:4]), expected, atol=1e-9)


def n_logged(family: RiverFamily) -> int:
    return len(family.arrays()["log/is_fraud"])


def test_the_log_is_bounded_by_beginning_anew() -> None:
    """After so many days, or rows, with the last learnable rows alone."""
    family = a_family(renew_n=150, log_n=200, renew_d=10, every=1)
    assert n_logged(family) == 150
    np.testing.assert_array_equal(family.arrays()["log/is_fraud"], FIRST.is_fraud[-150:])
    family.learn(SECOND.take(slice(0, 40)))
    family.end_day(2, lambda: SECOND)
    assert n_logged(family) == 190
    family.learn(SECOND.take(slice(40, 60)))
    family.end_day(3, lambda: FIRST)
    assert n_logged(family) == 150
    family.learn(SECOND.take(slice(0, 10)))
    family.end_day(12, lambda: FIRST)
    assert n_logged(family) == 160
    family.end_day(13, lambda: FIRST)
    assert n_logged(family) == 150


def test_it_begins_anew_on_the_basis_that_was_asked_for() -> None:
    """The log goes with the basis that its ordinals are of."""
    family = a_family(renew_d=5)
    family.install(OTHER_BASIS)
    family.end_day(2, lambda: FIRST)
    assert family.arrays()["fitted/number"].tolist() == [BASIS.number]
    family.end_day(6, lambda: FIRST)
    assert family.arrays()["fitted/number"].tolist() == [OTHER_BASIS.number]
    learnt = FIRST.is_fraud | is_kept(FIRST.hashes)
    np.testing.assert_array_equal(
        family.arrays()["log/found"],
        ordinals(Binning.of(OTHER_BASIS), FIRST.features[learnt]),
    )


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (TREE, {"grace_period": 50, "delta": 0.05}),
        ("river.tree.HoeffdingAdaptiveTreeClassifier", {"grace_period": 50, "delta": 0.05}),
        ("river.forest.ARFClassifier", {"grace_period": 50, "delta": 0.05, "n_models": 2}),
    ],
)
def test_trees_are_proposed_as_they_are(model: str, parameters: dict[str, Any]) -> None:
    """Within the consortium's bounds; of other bins than the basis' none."""
    family = a_family(model, parameters=parameters, every=1, renew_d=3)
    grow = family.propose(BASIS, n_trees=9, day=4)
    assert grow is not None
    family.learn(SECOND)  # goes on, and what grows the trees has what it needs
    found = grow(FIRST)
    assert found is not None
    check_trees(found, BASIS, TreeLimits())
    assert family.propose(OTHER_BASIS, n_trees=9, day=4) is None


def test_models_without_trees_and_rows_without_accounts_propose_nothing() -> None:
    """Nor does a model that has not begun."""
    assert a_family(renew_d=3).propose(BASIS, n_trees=9, day=4) is None
    grow = a_family(TREE, renew_d=3).propose(BASIS, n_trees=9, day=4)
    assert grow is not None
    assert grow(replace(FIRST, accounts=None)) is None
