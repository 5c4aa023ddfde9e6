"""The twin: marginals, dependence, presence and determinism against the rows behind its sums."""

import numpy as np
import pytest

from models.basis import Basis, encode
from models.basis_builder import BasisShape, build_basis
from models.copula import Moments, bin_scores
from models.errors import InvalidInputError
from models.histograms import N_CELLS, add_rows, empty_counts
from models.latent import score_correlations
from models.schema import Schema
from models.twin import build_twin

SCHEMA = Schema(entity_kinds=())
D = len(SCHEMA.feature_names)
N = 40_000


def real_rows():
    """Return rows of both classes: skewed, tied, whole and absent features that vary together."""
    rng = np.random.default_rng(11)
    is_fraud = rng.random(N) < 0.25
    mix = rng.normal(size=(D, D)) * 0.4 + np.eye(D)
    g = rng.normal(size=(N, D)) @ mix.T
    g[is_fraud] = rng.normal(size=(is_fraud.sum(), D)) @ (mix.T * 0.7 + 0.3 * np.eye(D)) + 0.5
    rows = g.astype(np.float32)
    rows[:, 1] = g[:, 1] > 0.3  # a flag
    rows[:, 2] = np.floor(np.exp(np.clip(g[:, 2], None, 4)))  # counts
    rows[:, 3] = np.maximum(g[:, 3], 0)  # an atom at 0
    rows[:, 4] = np.exp(3 * np.clip(g[:, 4], -3, 3))  # skewed
    rows[rng.random(N) < 0.4, 5] = np.nan
    rows[g[:, 7] > 0.5, 6] = np.nan  # absent where another feature is high
    return rows, is_fraud


def summed(rows, is_fraud, basis: Basis):
    counts, moments = empty_counts(D), Moments.empty(D)
    add_rows(counts, rows, is_fraud)
    active = encode(basis, rows)
    moments.add(active, bin_scores(basis), is_fraud, sampled=np.ones(len(rows), bool))
    return counts, moments


REAL, REAL_FRAUD = real_rows()
COUNTS = empty_counts(D)
add_rows(COUNTS, REAL, REAL_FRAUD)
BASIS = build_basis(COUNTS, SCHEMA, 1, shape=BasisShape(plain_weights=5_000))
MOMENTS = summed(REAL, REAL_FRAUD, BASIS)[1]
TWIN = build_twin(COUNTS, MOMENTS, BASIS)
SAMPLE = TWIN.sample(N, np.random.default_rng(1), 0.5)
DRAWN, DRAWN_MOMENTS = summed(SAMPLE.rows, SAMPLE.is_fraud, BASIS)


@pytest.mark.parametrize("which", [0, 1])
def test_marginals_are_the_merged_histograms(which: int) -> None:
    """Within the Dvoretzky-Kiefer-Wolfowitz bound at a chance of one in a million a feature."""
    for j in range(D):
        real, drawn = COUNTS[j, which].astype(float), DRAWN[j, which].astype(float)
        gap = np.abs(np.cumsum(real) / real.sum() - np.cumsum(drawn) / drawn.sum()).max()
        assert gap < np.sqrt(np.log(2e6) / (2 * drawn.sum()))


@pytest.mark.parametrize("which", [0, 1])
def test_presence_is_the_classs_own(which: int) -> None:
    """Within five standard deviations."""
    real = REAL[REAL_FRAUD if which else ~REAL_FRAUD]
    drawn = SAMPLE.rows[SAMPLE.is_fraud == which]
    p = (~np.isnan(real)).mean(axis=0)
    tolerance = 5 * np.sqrt(p * (1 - p) / len(drawn)) + 1e-12
    assert (np.abs((~np.isnan(drawn)).mean(axis=0) - p) <= tolerance).all()


@pytest.mark.parametrize("which", [0, 1])
def test_features_vary_together_as_in_the_data(which: int) -> None:
    """Correlations of scores within .05, on average .015; four standard errors are .03."""
    pairs = np.triu_indices(D, 1)
    real = score_correlations(MOMENTS, which)[pairs]
    drawn = score_correlations(DRAWN_MOMENTS, which)[pairs]
    assert np.abs(real).max() > 0.4
    assert np.abs(real - drawn).max() < 0.05
    assert np.abs(real - drawn).mean() < 0.015


def test_a_presence_follows_the_feature_that_decides_it() -> None:
    """Feature 6 is absent where feature 7 is high: so it is in the twin."""
    drawn = SAMPLE.rows[~SAMPLE.is_fraud]
    gone = np.isnan(drawn[:, 6])
    assert drawn[gone, 7].mean() > drawn[~gone, 7].mean() + 0.5


def test_flags_and_counts_stay_whole_and_a_zero_stays_zero() -> None:
    """Others are spread over their cells."""
    assert set(SAMPLE.rows[:, 1].tolist()) == {0.0, 1.0}
    assert (SAMPLE.rows[:, 2] % 1 == 0).all()
    assert (SAMPLE.rows[:, 3] == 0).mean() > 0.2
    assert (SAMPLE.rows[:, 0] % 1 != 0).mean() > 0.99


def test_the_seed_decides_everything() -> None:
    """The same seed, the same rows; another, others. The twin too is the same when built again."""
    again = build_twin(COUNTS, MOMENTS, BASIS).sample(500, np.random.default_rng(4))
    first = TWIN.sample(500, np.random.default_rng(4))
    other = TWIN.sample(500, np.random.default_rng(5))
    assert np.array_equal(first.rows, again.rows, equal_nan=True)
    assert np.array_equal(first.is_fraud, again.is_fraud)
    assert not np.array_equal(first.rows, other.rows, equal_nan=True)


def test_the_share_of_frauds_is_that_of_the_data_or_as_asked() -> None:
    """Five standard deviations."""
    n = 20_000
    for asked, share in ((None, REAL_FRAUD.mean()), (0.0, 0.0), (1.0, 1.0), (0.3, 0.3)):
        got = TWIN.sample(n, np.random.default_rng(8), asked).is_fraud.mean()
        assert abs(got - share) <= 5 * np.sqrt(share * (1 - share) / n)


def test_no_synthetic_row_is_a_real_one() -> None:
    """Not one of 40,000."""
    real = {row.tobytes() for row in REAL}
    assert not any(row.tobytes() in real for row in SAMPLE.rows)


def test_without_moments_or_without_frauds_there_still_is_a_twin() -> None:
    """Independent features; a class that was never seen has no features."""
    legit = COUNTS.copy()
    legit[:, 1] = 0
    twin = build_twin(legit, Moments.empty(D), BASIS)
    sample = twin.sample(2_000, np.random.default_rng(1))
    assert not sample.is_fraud.any()
    assert np.isnan(twin.sample(5, np.random.default_rng(1), 1.0).rows).all()
    assert twin.sample(0, np.random.default_rng(1)).rows.shape == (0, D)


def test_what_does_not_fit_is_refused() -> None:
    """Shapes and shares."""
    with pytest.raises(InvalidInputError, match="expected counts of shape"):
        build_twin(np.zeros((2, 2, N_CELLS), np.int64), MOMENTS, BASIS)
    with pytest.raises(InvalidInputError, match="share in"):
        TWIN.sample(3, np.random.default_rng(1), 1.5)
