"""LightGBM as a yardstick: it sees no outcome too early, tells categories apart, refits in time."""

import lightgbm
import numpy as np
import pytest

from deploy.detection.yardsticks import YardstickRows, fine_bins, score_prequentially
from models.families.batch import BatchOptions
from models.families.ordinals import Binning, ordinals
from models.histograms import lower_edges
from models.schema import Schema, attribute_specs

DAY_MS = 86_400_000
DELAY_MS = 5 * DAY_MS
SCHEMA = Schema(entity_kinds=(), attributes=attribute_specs({"x": "number", "c": "text"}))
OPTIONS = BatchOptions(
    refit_d=4, n_trees=20, num_leaves=7, min_n=100, min_frauds=5, min_data_in_leaf=5,
    feature_fraction=1.0,
)  # fmt: skip
X, C = (SCHEMA.feature_names.index(f"attribute.{name}") for name in "xc")
WORDS = lower_edges()[[9_000, 5_432, 7_000]]


def made_rows(n=3_000, days=40):
    """Return rows whose frauds follow the attribute and one of three categories."""
    rng = np.random.default_rng(2)
    features = np.full((n, len(SCHEMA.feature_names)), np.nan, np.float32)
    word = rng.integers(3, size=n)
    features[:, X] = rng.normal(size=n)
    features[:, C] = WORDS[word]
    odds = 2.0 * features[:, X] + 3.0 * (word == 1) - 3.0
    return YardstickRows(
        features=features,
        is_fraud=rng.random(n) < 1.0 / (1.0 + np.exp(-odds)),
        event_ms=np.sort(rng.integers(0, days * DAY_MS, n)),
    )


def scores_of(rows, **changes):
    """Score days 20 to 33."""
    given = {"days": range(20, 34), "delay_ms": DELAY_MS, "options": OPTIONS} | changes
    return score_prequentially(rows, SCHEMA, **given)


def test_only_the_asked_days_are_scored():
    """One call for each."""
    rows, days = made_rows(), []
    scores = scores_of(rows, on_day=lambda: days.append(1))
    day = rows.event_ms // DAY_MS
    assert np.isfinite(scores[(day >= 20) & (day < 34)]).all()
    assert np.isnan(scores[(day < 20) | (day >= 34)]).all()
    assert len(days) == 14


def test_an_outcome_changes_nothing_before_it_is_known():
    """Outcomes from day 18 on are reversed: known from 23, so the refit on day 24 is the first."""
    rows = made_rows()
    late = rows.event_ms >= 18 * DAY_MS
    other = YardstickRows(
        features=rows.features,
        is_fraud=np.where(late, ~rows.is_fraud, rows.is_fraud),
        event_ms=rows.event_ms,
    )
    first, second = scores_of(rows), scores_of(other)
    day = rows.event_ms // DAY_MS
    before, after = (day >= 20) & (day < 24), (day >= 24) & (day < 34)
    assert np.array_equal(first[before], second[before])
    assert not np.array_equal(first[after], second[after])


def test_the_model_is_lightgbm_on_all_that_has_matured():
    """The same library, fed by hand with the ordinals of the same rows, says the same."""
    rows = made_rows()
    scores = scores_of(rows)
    end = int(np.searchsorted(rows.event_ms, 15 * DAY_MS, side="right"))
    matured = rows.until(15 * DAY_MS, DELAY_MS)
    assert len(matured) == end
    binning = Binning.of(fine_bins(matured, SCHEMA, number=1))
    parameters = {
        "objective": "binary", "deterministic": True, "force_row_wise": True, "num_threads": 1,
        "verbosity": -1, "bagging_freq": 1, "max_bin": 255, "min_data_in_bin": 1,
        "num_leaves": 7, "learning_rate": 0.05, "min_data_in_leaf": 5, "feature_fraction": 1.0,
        "bagging_fraction": 0.8, "lambda_l2": 5.0, "seed": 20,
    }  # fmt: skip
    data = lightgbm.Dataset(
        ordinals(binning, rows.features[:end]),
        rows.is_fraud[:end].astype(np.float32),
        params=parameters,
    )
    booster = lightgbm.train(parameters, data, num_boost_round=20)
    today = rows.event_ms // DAY_MS == 21
    expected = booster.predict(ordinals(binning, rows.features[today]), raw_score=True)
    assert scores[today] == pytest.approx(expected, abs=1e-5)  # leaves are float32


def test_bins_are_fine_and_categories_are_numbers():
    """Over two hundred bins of a number; the three categories in three bins, by risk."""
    rows = made_rows()
    basis = fine_bins(rows.until(40 * DAY_MS, 0), SCHEMA, number=1)
    assert 200 < basis.n_edges[X] <= 253
    found = ordinals(Binning.of(basis), rows.features)[:, C]
    of_word = {int(np.unique(found[rows.features[:, C] == word])[0]) for word in WORDS}
    assert len(of_word) == 3
    assert found[rows.features[:, C] == WORDS[1]][0] == max(of_word)


def test_there_is_no_score_before_enough_has_matured():
    """NaN, which counts as the prior."""
    rows = made_rows()
    options = BatchOptions(refit_d=4, min_n=10_000)
    assert np.isnan(scores_of(rows, options=options)).all()
