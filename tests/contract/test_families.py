"""What every family of a bank's own must do, and what every merge of parameters must."""

import importlib.util
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from models.basis import Basis
from models.basis_builder import build_basis
from models.errors import SettingsError
from models.evaluation import average_precision
from models.families.base import Family
from models.families.registry import make_family
from models.histograms import add_rows, empty_counts
from models.matured import Matured
from models.schema import Schema

SCHEMA = Schema(entity_kinds=())
N_FEATURES = len(SCHEMA.feature_names)
RATE = 0.05
FAMILIES: dict[str, dict[str, object]] = {
    "lightgbm": {"family": "lightgbm", "n_trees": 20, "min_n": 500, "refit_d": 3},
    "mlp": {"family": "mlp", "min_n": 500, "epochs": 6, "batch_n": 64, "learning_rate": 0.003},
    "river linear": {
        "family": "river",
        "model": "river.linear_model.LogisticRegression",
        "every": 2,
        "renew_d": 3,
        "renew_n": 2_000,
    },
    "river tree": {
        "family": "river",
        "model": "river.tree.HoeffdingAdaptiveTreeClassifier",
        "parameters": {"grace_period": 50, "delta": 0.01},
        "every": 2,
        "renew_d": 3,
        "renew_n": 2_000,
    },
    "river forest": {
        "family": "river",
        "model": "river.forest.ARFClassifier",
        "parameters": {"n_models": 3, "grace_period": 50},
        "every": 2,
        "renew_d": 3,
        "renew_n": 2_000,
    },
}
LIBRARY = {"lightgbm": "lightgbm", "mlp": "torch"}


def a_family(name: str, seed: int = 7) -> Family:
    """Return an untrained family of a kind; skip, saying so, where its library is missing."""
    library = LIBRARY.get(name, "river")
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"NOT TESTED: family {name!r} needs {library}, which is not installed")
    return make_family(FAMILIES[name], seed=seed)


def rows(n: int, seed: int) -> Matured:
    """Return rows whose first two features tell frauds; a tenth of all values is absent."""
    rng = np.random.default_rng(seed)
    is_fraud = rng.random(n) < RATE
    x = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    x[:, 0] += 3 * is_fraud
    x[:, 1] -= 2 * is_fraud
    x[rng.random(x.shape) < 0.1] = np.nan
    return Matured(
        features=x,
        is_fraud=is_fraud,
        hashes=rng.integers(0, 2**63, n).astype(np.uint64),
        known_ms=np.arange(n),
        accounts=rng.integers(0, 300, n),
    )


def a_basis(some: Matured, number: int = 1) -> Basis:
    counts = empty_counts(N_FEATURES)
    add_rows(counts, some.features, some.is_fraud)
    return build_basis(counts, SCHEMA, number)


FIRST, SECOND, TEST = rows(2_500, 1), rows(600, 2), rows(1_500, 3)
BASIS, OTHER_BASIS = a_basis(FIRST), a_basis(SECOND, 2)


def trained(name: str, seed: int = 7) -> Family:
    family = a_family(name, seed)
    family.install(BASIS)
    family.end_day(100, lambda: FIRST)
    family.learn(SECOND)
    return family


def copied(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    return {key: array.copy() for key, array in arrays.items()}


def after(family: Family) -> NDArray[np.float64]:
    """Return the scores after some future: more rows, another basis, a refit."""
    family.learn(TEST.take(slice(0, 200)))
    family.install(OTHER_BASIS)
    family.end_day(101, lambda: SECOND)
    family.learn(TEST.take(slice(200, 300)))
    family.end_day(105, lambda: FIRST)
    family.learn(TEST.take(slice(300, 400)))
    return family.score(TEST.features)


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_nan_before_there_is_enough_and_finite_after(name: str) -> None:
    """Nobody takes an untrained score for one."""
    family = a_family(name)
    for _ in range(2):
        family.learn(SECOND)
        assert np.isnan(family.score(TEST.features)).all()
        family.install(BASIS)
        family.end_day(100, lambda: FIRST.take(slice(0, 100)))
        assert np.isnan(family.score(TEST.features)).all()
    family.end_day(101, lambda: FIRST)
    found = family.score(TEST.features)
    assert found.dtype == np.float64
    assert found.shape == (len(TEST),)
    assert np.isfinite(found).all()
    assert np.isfinite(family.score(np.full((1, N_FEATURES), np.nan, np.float32))).all()
    assert family.score(TEST.features[:0]).shape == (0,)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_does_not_start_on_one_outcome_alone(name: str) -> None:
    """Without frauds there is nothing to tell apart."""
    family = a_family(name)
    family.install(BASIS)
    family.end_day(100, lambda: FIRST.take(np.flatnonzero(~FIRST.is_fraud)))
    assert np.isnan(family.score(TEST.features)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_it_learns_what_tells_frauds(name: str) -> None:
    """Average precision on rows never seen is far above the share of frauds."""
    scores = trained(name).score(TEST.features)
    assert average_precision(TEST.is_fraud, scores) > 6 * RATE


@pytest.mark.parametrize("name", FAMILIES)
def test_log_odds_are_of_the_rate_that_was_seen(name: str) -> None:
    """Thinning and replay do not show: mean probability is near the share of frauds."""
    p = 1 / (1 + np.exp(-trained(name).score(TEST.features)))
    assert RATE / 2.5 < p.mean() < RATE * 2.5


@pytest.mark.parametrize("name", FAMILIES)
def test_state_goes_round_through_arrays(name: str) -> None:
    """Equal scores, and an equal future, from plain arrays into a fresh family."""
    family, other = trained(name), a_family(name)
    stored = copied(family.arrays())
    assert all(type(array) is np.ndarray and array.dtype != object for array in stored.values())
    other.load(stored)
    np.testing.assert_array_equal(other.score(TEST.features), family.score(TEST.features))
    for each in (family, other):
        each.learn(SECOND)
    np.testing.assert_array_equal(other.score(TEST.features), family.score(TEST.features))
    np.testing.assert_array_equal(after(other), after(family))
    np.testing.assert_equal(copied(other.arrays()), copied(family.arrays()))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_untrained_state_goes_round_too(name: str) -> None:
    """A checkpoint before the first fit loads, also over a trained one."""
    family, other = a_family(name), trained(name)
    family.install(BASIS)
    other.load(copied(family.arrays()))
    assert np.isnan(other.score(TEST.features)).all()
    family.end_day(100, lambda: FIRST)
    other.end_day(100, lambda: FIRST)
    np.testing.assert_array_equal(other.score(TEST.features), family.score(TEST.features))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_and_calls_give_the_same_bits(name: str) -> None:
    """Nothing is drawn from a global generator."""
    one = after(trained(name))
    np.random.default_rng(0)
    np.testing.assert_array_equal(after(trained(name)), one)


@pytest.mark.parametrize("name", ["mlp", "river linear", "river forest"])
def test_online_families_do_not_see_how_the_stream_was_cut(name: str) -> None:
    """Rows learnt one by one count as rows learnt at once."""
    one, other = trained(name), a_family(name)
    other.install(BASIS)
    other.end_day(100, lambda: FIRST)
    for k in range(0, len(SECOND), 7):
        other.learn(SECOND.take(slice(k, k + 7)))
    np.testing.assert_array_equal(one.score(TEST.features), other.score(TEST.features))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_keeps_its_basis_until_it_is_refitted(name: str) -> None:
    """A new basis does not shift scores by itself."""
    family = trained(name)
    before = family.score(TEST.features)
    family.install(OTHER_BASIS)
    np.testing.assert_array_equal(family.score(TEST.features), before)
    family.end_day(110, lambda: FIRST)
    assert not np.array_equal(family.score(TEST.features), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_it_is_given_stays_as_it_was(name: str) -> None:
    """Rows and basis belong to the caller."""
    names = ("features", "is_fraud", "hashes", "known_ms", "accounts")
    given = {key: getattr(FIRST, key).copy() for key in names}
    edges = BASIS.edges.copy()
    after(trained(name))
    for key in names:
        np.testing.assert_array_equal(getattr(FIRST, key), given[key])
    np.testing.assert_array_equal(BASIS.edges, edges)


@pytest.mark.parametrize("name", FAMILIES)
def test_options_are_read_strictly(name: str) -> None:
    """An unknown key, or a value of another kind, is refused with what was expected."""
    a_family(name)
    with pytest.raises(SettingsError, match="expected one of"):
        make_family({**FAMILIES[name], "colour": 1}, seed=1)
    with pytest.raises(SettingsError, match="min_n: expected a whole number"):
        make_family({**FAMILIES[name], "min_n": "many"}, seed=1)
    with pytest.raises(SettingsError, match="min_n"):
        make_family({**FAMILIES[name], "min_n": -3}, seed=1)
