"""From moments of binned scores to the correlations of the Gaussian variables behind them.

A feature is a monotone function of a hidden standard normal variable, and so is its presence. The
score of its bin is then a step function of that variable; expanded in normalised Hermite
polynomials h_k with coefficients c_k (k >= 1, scaled to unit variance), two step functions of
variables with correlation rho correlate by sum_k c_ik c_jk rho^k. That is solved for rho, so
ties, coarse bins and rare outcomes do not weaken the correlations of what is drawn.
"""

import numpy as np
from numpy.typing import NDArray

from models.copula import Moments, unpacked
from models.normal import density, quantile

_DEGREE = 40
_BISECTIONS = 22
_MAX_RHO = 0.998
_DIGITS = 6  # coarser than what libraries' last bits can move
_PRIOR_ROWS = 30.0
_CONSTANT = 1e-9  # of the mean square: less is rounding


def hermite_coefficients(
    probability: NDArray[np.float64], score: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the coefficients of a step function of a standard normal, scaled to unit variance.

    Parameters
    ----------
    probability
        float64 of shape (n_steps,): of each step, from the lowest; sums to 1.
    score
        float64 of shape (n_steps,): value on the step.

    Returns
    -------
    ndarray of shape (40,), float64
        Of degree 1 and up; zeros where the function is constant.
    """
    mean = float(np.sum(probability * score))
    variance = float(np.sum(probability * (score - mean) ** 2))
    out = np.zeros(_DEGREE)
    if not variance > 0.0:
        return out
    border = quantile(np.cumsum(probability)[:-1])
    step = np.diff(score) * density(border)
    before, current = np.zeros_like(border), np.ones_like(border)
    for k in range(1, _DEGREE + 1):
        out[k - 1] = np.sum(step * current) / np.sqrt(k)
        following = (border * current - np.sqrt(k - 1.0) * before) / np.sqrt(float(k))
        before, current = current, following
    out /= np.sqrt(variance)
    return out


def solve_correlations(
    target: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for each pair the rho at which its step functions correlate as wanted.

    Parameters
    ----------
    target
        float64 of shape (n,), in [-1, 1].
    left, right
        float64 of shape (n, 40): results of `hermite_coefficients`.

    Returns
    -------
    ndarray of shape (n,), float64
        Within +-.998; at a bound where no rho reaches the target, 0 where one is constant.
    """
    product = left * right
    low, high = np.full(len(target), -_MAX_RHO), np.full(len(target), _MAX_RHO)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        reached = np.zeros_like(middle)
        for k in range(_DEGREE - 1, -1, -1):
            reached = (reached + product[:, k]) * middle
        is_below = reached < target
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    is_constant = ~(left.any(axis=1) & right.any(axis=1))
    return np.where(is_constant, 0.0, np.round((low + high) / 2.0, _DIGITS))


def score_correlations(moments: Moments, which: int) -> NDArray[np.float64]:
    """Return how scores and presences of a class correlate, each pair where it can be seen.

    Two scores: over rows that have both features. A score and another feature's presence: over rows
    that have the score. Two presences: over all rows. Pairs that cannot be seen give 0; few rows
    are drawn towards 0.

    Parameters
    ----------
    moments
        Merged.
    which
        0 for legitimate, 1 for fraud.

    Returns
    -------
    ndarray of shape (2 * n_features, 2 * n_features), float64
        Unit diagonal.
    """
    d, n = moments.n_features, float(moments.n[which])
    out = np.eye(2 * d)
    if not n > 0.0:
        return out
    total = unpacked(moments.products[which], 2 * d)
    zz, zp, pp = total[:d, :d], total[:d, d:], total[d:, d:]
    with np.errstate(divide="ignore", invalid="ignore"):
        present = np.diag(pp)
        mean = np.diag(zp) / present
        square = np.diag(zz) / present
        variance = square - mean**2
        variance = np.where(variance > _CONSTANT * square, variance, 0.0)
        both = pp
        out[:d, :d] = (zz / both - (zp / both) * (zp / both).T) / np.sqrt(
            variance[:, None] * variance[None, :]
        )
        share = pp / present[:, None]  # [j, i]: of i's presence where j is present
        covariance = zp / present[:, None] - share * mean[:, None]
        out[:d, d:] = covariance / np.sqrt(variance[:, None] * share * (1.0 - share))
        rate = present / n
        spread = np.sqrt(rate * (1.0 - rate))
        out[d:, d:] = (pp / n - rate[:, None] * rate[None, :]) / (spread[:, None] * spread[None, :])
    np.fill_diagonal(out[:d, d:], 0.0)
    out[d:, :d] = out[:d, d:].T
    out = np.clip(np.where(np.isfinite(out), out, 0.0), -1.0, 1.0) * (n / (n + _PRIOR_ROWS))
    np.fill_diagonal(out, 1.0)
    return out


def latent_correlations(
    moments: Moments, which: int, coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the hidden variables' pairwise correlations; not yet positive definite.

    Parameters
    ----------
    moments, which
        See `score_correlations`.
    coefficients
        float64 of shape (2 * n_features, 40): of each feature's score, then of each presence.
    """
    wanted = score_correlations(moments, which)
    i, j = np.triu_indices(len(wanted), 1)
    rho = solve_correlations(wanted[i, j], coefficients[i], coefficients[j])
    out = np.eye(len(wanted))
    out[i, j] = out[j, i] = rho
    return out
