"""Hidden correlations: the Hermite series against quadrature, and what data of a known rho give."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from models.basis import Basis, encode
from models.copula import Moments, bin_scores
from models.latent import (
    hermite_coefficients,
    latent_correlations,
    score_correlations,
    solve_correlations,
)


def test_coefficients_are_the_integrals_of_the_polynomials() -> None:
    """Of degree 1 to 3, by quadrature; the squares come near the variance of 1."""
    p, s = np.array([0.3, 0.5, 0.2]), np.array([-1.0, 0.5, 4.0])
    x = np.linspace(-9, 9, 1_800_001)
    step = s[np.searchsorted(norm.ppf(np.cumsum(p)[:-1]), x)]
    sd = np.sqrt(np.sum(p * s**2) - np.sum(p * s) ** 2)
    polynomials = [x, (x**2 - 1) / np.sqrt(2), (x**3 - 3 * x) / np.sqrt(6)]
    expected = [np.sum(step * h * norm.pdf(x)) * (x[1] - x[0]) / sd for h in polynomials]
    got = hermite_coefficients(p, s)
    assert got[:3] == pytest.approx(expected, abs=1e-5)
    assert 0.9 < np.sum(got**2) <= 1.0


def test_a_constant_has_no_coefficients_and_no_correlation() -> None:
    """Whatever is asked for."""
    constant = hermite_coefficients(np.array([1.0]), np.array([3.0]))
    other = hermite_coefficients(np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    assert not constant.any()
    assert solve_correlations(np.array([0.7]), constant[None], other[None]).tolist() == [0.0]


@pytest.mark.parametrize("rho", [-0.8, -0.3, 0.0, 0.5, 0.9])
def test_rho_is_found_from_the_correlation_of_two_outcomes(rho: float) -> None:
    """Tetrachoric: expected correlation from the bivariate normal distribution."""
    p, q = 0.3, 0.6
    both = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([norm.ppf(p), norm.ppf(q)])
    correlation = (both - p * q) / np.sqrt(p * (1 - p) * q * (1 - q))
    first, second = (
        hermite_coefficients(np.array([one, 1 - one]), np.array([1.0, 0.0])) for one in (p, q)
    )
    got = solve_correlations(np.array([correlation]), first[None], second[None])
    assert got[0] == pytest.approx(rho, abs=2e-3)


BASIS = Basis(
    number=1,
    schema_hash="0" * 16,
    edges=np.array([-1.0, 0.0, 1.0, 0.5], np.float32),
    n_edges=np.array([3, 1], np.int32),
    coarse_edges=np.empty(0, np.float32),
    n_coarse_edges=np.array([0, 0], np.int32),
    crosses=np.empty((0, 2), np.int32),
    selected=np.arange(len(np.array([3, 1], np.int32)), dtype=np.int32),
    n_categories=np.zeros(len(np.array([3, 1], np.int32)), np.int32),
)


def test_rho_of_binned_rows_is_that_of_the_normal_behind_them() -> None:
    """Two features of 4 and 2 bins, rho .6, the second absent at random: four standard errors."""
    n, rho = 200_000, 0.6
    rng = np.random.default_rng(5)
    g = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    rows = g.astype(np.float32)
    rows[rng.random(n) < 0.3, 1] = np.nan
    moments = Moments.empty(2)
    moments.add(encode(BASIS, rows), bin_scores(BASIS), np.ones(n, bool), sampled=np.ones(n, bool))
    p4, p2 = norm.cdf([-1, 0, 1, np.inf]), norm.cdf([0.5, np.inf])
    scores = bin_scores(BASIS).astype(float)
    presences = [(np.array([0.0, 1.0])), np.array([0.3, 0.7])]
    coefficients = np.array(
        [
            hermite_coefficients(np.diff(p4, prepend=0), scores[1:5]),
            hermite_coefficients(np.diff(p2, prepend=0), scores[5:7]),
            *(hermite_coefficients(p, np.array([0.0, 1.0])) for p in presences),
        ]
    )
    got = latent_correlations(moments, 1, coefficients)
    assert got[0, 1] == pytest.approx(rho, abs=0.012)
    assert got[0, 3] == pytest.approx(0.0, abs=0.012)
    assert np.array_equal(got, got.T)


def test_correlations_are_numpys_where_both_features_are_there() -> None:
    """Exactly so where nothing is absent; shrunk by n / (n + 30)."""
    n = 500
    g = np.random.default_rng(2).normal(size=(n, 2))
    rows = np.column_stack([g[:, 0], g[:, 0] + g[:, 1]]).astype(np.float32)
    moments, active = Moments.empty(2), encode(BASIS, rows)
    scores = bin_scores(BASIS)
    moments.add(active, scores, np.ones(n, bool), sampled=np.ones(n, bool))
    expected = np.corrcoef(scores[active[:, 1:3]].T)[0, 1] * n / (n + 30)
    assert score_correlations(moments, 1)[0, 1] == pytest.approx(expected, abs=1e-12)
    assert score_correlations(moments, 0).tolist() == np.eye(4).tolist()
    assert not score_correlations(moments, 1)[:2, 2:].any()  # a presence that never varies
