"""Which pairs of features to cross: those whose dependence differs between the classes; pure.

If x is normal in either class, with precision (inverse covariance) P_c, the log-odds of fraud are
a quadratic function in which a pair enters as::

    -(P_fraud - P_legit)_ij x_i x_j

and everything else is additive, which bins of single features express already. An additive effect
on the log-odds tilts a normal distribution and leaves its covariance as it is, so it gives no
difference here. What the term adds is how far x_i and x_j move given all other features: by their
conditional standard deviations, P_ii ** -0.5, in legitimate rows, which almost all are. So::

    score_ij = |P_fraud - P_legit|_ij / sqrt(P_legit,ii P_legit,jj)

x are normal scores of bins less the class's mean, and at the mean where a feature is absent, so a
covariance is a sum of squares and never indefinite. Frauds are few: their covariance is drawn
towards the legitimate one, as if one more row for every feature had that. A tenth of each variance
is added to both, so that features which say nearly the same do not blow up the inverses. By
chance alone the numerator is about::

    noise_ij = a sqrt(P_fraud,ii P_fraud,jj / n_fraud + P_legit,ii P_legit,jj / n_legit)

with a = n_fraud / (n_fraud + n_features), and a pair must reach `SIGNIFICANT` times that.

What moments of second order cannot see: an interaction that is even in one of the two (fraud where
x_i is at either end and x_j is high) leaves the covariance alone, and so does one of three
features without a pair among them. Those are left to members' trees.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.copula import THINNING, Moments, unpacked
from models.families.cholesky import inverse_positive

SAME = 0.95
"""Correlation from which on two features are taken to say the same."""
SIGNIFICANT = 5.0
MIN_ROWS = 30
"""Rows of a class below which nothing is chosen."""
_RIDGE = 0.1
_CONSTANT = 1e-9

Pair = tuple[int, int]


def covariance(moments: Moments, which: int) -> NDArray[np.float64]:
    """Return the covariance of the scores of a class, an absent one being at the mean.

    Parameters
    ----------
    moments
        Merged, with at least one row of the class.
    which
        0 for legitimate, 1 for fraud.

    Returns
    -------
    ndarray of shape (n_features, n_features), float64
        In 64ths squared.
    """
    d, n = moments.n_features, float(moments.n[which])
    total = unpacked(moments.products[which], 2 * d)
    zz, zp, pp = total[:d, :d], total[:d, d:], total[d:, d:]
    mean = moments.sums[which, :d] / np.maximum(moments.sums[which, d:], 1)
    crossed = zp * mean[None, :]  # of sum (z_i - m_i p_i) (z_j - m_j p_j)
    centred = zz - crossed - crossed.T + mean[:, None] * mean[None, :] * pp
    return np.asarray(centred / n)


def pair_scores(moments: Moments) -> NDArray[np.float64]:
    """Return how much the dependence of each pair differs between the classes.

    Parameters
    ----------
    moments
        Merged.

    Returns
    -------
    ndarray of shape (n_features, n_features), float64
        Symmetric, >= 0. 0 on the diagonal, for what chance may give, where a feature is constant
        in either class, where two features say the same, and everywhere with fewer than `MIN_ROWS`
        rows of a class.
    """
    d = moments.n_features
    scores = np.zeros((d, d))
    if not int(moments.n.min()) >= MIN_ROWS:
        return scores
    legit, fraud = covariance(moments, 0), covariance(moments, 1)
    used = np.flatnonzero((np.diag(legit) > _CONSTANT) & (np.diag(fraud) > _CONSTANT))
    chosen = np.ix_(used, used)
    if len(used):
        n_legit, n_fraud = moments.n.tolist()
        scores[chosen] = _scores(legit[chosen], fraud[chosen], n_legit / THINNING, float(n_fraud))
    return scores


def _scores(
    legit: NDArray[np.float64], fraud: NDArray[np.float64], n_legit: float, n_fraud: float
) -> NDArray[np.float64]:
    is_same = (np.abs(_correlation(legit)) >= SAME) | (np.abs(_correlation(fraud)) >= SAME)
    spread = np.sqrt(np.diag(legit))
    scale = spread[:, None] * spread[None, :]
    share = n_fraud / (n_fraud + len(legit))
    drawn = share * fraud + (1.0 - share) * legit
    of_legit, of_fraud = (_precision(one / scale) for one in (legit, drawn))
    unit = _roots(of_legit)
    noise = share * np.sqrt(_roots(of_fraud) ** 2 / n_fraud + unit**2 / n_legit)
    difference = np.abs(of_fraud - of_legit)
    return np.where((difference >= SIGNIFICANT * noise) & ~is_same, difference / unit, 0.0)


def _correlation(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(covariances / _roots(covariances))


def _roots(square: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sqrt(a_ii a_jj) for every i, j."""
    root = np.sqrt(np.diag(square))
    return np.asarray(root[:, None] * root[None, :])


def _precision(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    return inverse_positive(covariances + np.diag(_RIDGE * np.diag(covariances)))


def choose_crosses(moments: Moments, basis: Basis, *, most: int, most_weights: int) -> list[Pair]:
    """Return the pairs of features to cross beside those that a basis crosses, best first.

    Parameters
    ----------
    moments
        Merged, of any basis with the same features.
    basis
        With the crosses that are known already, and the coarse bins of all.
    most
        How many are wanted at most.
    most_weights
        Cells that they may have together; a pair that does not fit any more is passed over.
    """
    scores = pair_scores(moments)
    cells = basis.n_coarse_edges.astype(np.int64) + 1
    scores[cells == 1] = scores[:, cells == 1] = 0.0
    scores[basis.crosses[:, 0], basis.crosses[:, 1]] = 0.0
    scores[basis.crosses[:, 1], basis.crosses[:, 0]] = 0.0
    found = np.argwhere(np.triu(scores) > 0.0).tolist()
    chosen: list[Pair] = []
    for a, b in sorted(found, key=lambda pair: (-scores[pair[0], pair[1]], pair)):
        n_cells = int(cells[a] * cells[b])
        if len(chosen) < most and n_cells <= most_weights:
            chosen.append((a, b))
            most_weights -= n_cells
    return chosen


def only_crosses(basis: Basis, crosses: Sequence[Pair]) -> Basis:
    """Return the basis with these crosses in the place of its own."""
    return replace(basis, crosses=np.array(crosses, np.int32).reshape(-1, 2))


def with_crosses(basis: Basis, crosses: Sequence[Pair]) -> Basis:
    """Return the basis with these crosses after its own."""
    return only_crosses(basis, [*((a, b) for a, b in basis.crosses.tolist()), *crosses])
