"""The scorecard: an additive model on the basis, learnt from statistics that merge by addition.

For a matured row with active weights x, log-odds z from the weights in force and p = 1/(1+e^-z),
the statistics are those of a quadratic model of the log-loss around z::

    A += v h x x^T          b += ((y - p) + v h z) x          h = max(p (1 - p), |y - p| / 10)

so that w = solve(sum A + ridge I, sum b + ridge w0) is one Newton step for the pooled data. The
bound on h keeps the working response (y - p) / h within 10 log-odds, which makes statistics that
were taken at old weights harmless. Rows that are legitimate and scored p <= .02 are thinned to a
tenth in A (v = 10), by a hash of the transaction, and all count in y - p.
"""

from collections.abc import Callable, Mapping

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.families.curvature import CurvatureSum
from models.families.solver import n_packed
from models.matured import Matured

DULL_P = 0.02
THINNING = 10
MAX_LOGIT = 30.0
DULL_LOGIT = float(np.log(DULL_P / (1.0 - DULL_P)))


@nb.njit(cache=True)
def _logits(active, weights, out):  # type: ignore[no-untyped-def]  # compiled
    for i in range(active.shape[0]):
        total = 0.0
        for k in active[i]:
            if k >= 0:
                total += weights[k]
        out[i] = min(max(total, -MAX_LOGIT), MAX_LOGIT)


def logits(active: NDArray[np.int32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's log-odds: the sum of its active weights, within +-30.

    Parameters
    ----------
    active
        Result of `models.basis.encode`.
    weights
        float64 of shape (n_weights,).
    """
    out = np.empty(len(active))
    _logits(active, weights, out)
    return out


@nb.njit(cache=True)
def _add_gradient(active, is_fraud, z, kept, gradient, h):  # type: ignore[no-untyped-def]  # compiled
    """Add to b, and fill in what each row adds to A: 0 where it is thinned out."""
    for i in range(active.shape[0]):
        y = 1.0 if is_fraud[i] else 0.0
        p = 1.0 / (1.0 + np.exp(-z[i]))
        v = 1.0
        if y == 0.0 and p <= DULL_P:
            v = THINNING if kept[i] else 0.0
        h[i] = v * max(p * (1.0 - p), abs(y - p) / 10.0)
        g = (y - p) + h[i] * z[i]
        for a in active[i]:
            if a >= 0:
                gradient[a] += g


def is_kept(transaction_hash: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which transactions carry the curvature of the dull: a tenth, the same on every run."""
    mixed = transaction_hash * np.uint64(0x9E3779B97F4A7C15)
    kept: NDArray[np.bool_] = (mixed >> np.uint64(32)) % np.uint64(THINNING) == 0
    return kept


def thinned(matured: Matured) -> tuple[Matured, NDArray[np.float32]]:
    """Return the rows that matter and their weights, float32 of shape (n,).

    As in the statistics: legitimate rows that the consortium's scorer put at p <= .02 are thinned
    to a tenth of ten times the weight, by hash. Where it gave no score, all stay.
    """
    z = matured.base_logits
    if z is None:
        return matured, np.ones(len(matured), np.float32)
    dull = ~matured.is_fraud & (z <= DULL_LOGIT)
    index = np.flatnonzero(~dull | is_kept(matured.hashes))
    return matured.take(index), np.where(dull[index], float(THINNING), 1.0).astype(np.float32)


class Statistics:
    """Normal equations of one basis: upper triangle of A, and b.

    Parameters
    ----------
    n_weights
        Weights of the basis.
    on_change
        See `models.families.curvature.CurvatureSum`.

    Attributes
    ----------
    gradient
        float64 of shape (n_weights,).
    n
        Rows that were added.
    """

    def __init__(self, n_weights: int, *, on_change: Callable[[], None] = lambda: None) -> None:
        self._sum = CurvatureSum(n_weights, on_change=on_change)
        self.gradient: NDArray[np.float64] = np.zeros(n_weights)
        self.n = 0

    def curvature(self) -> NDArray[np.float64]:
        """Return A of all rows so far, its upper triangle; O(n_weights ** 2).

        float64 of shape (n_weights, n_weights).
        """
        return self._sum.square()

    def copied(self) -> "Statistics":
        """Return statistics that do not follow these, for another thread."""
        other = Statistics(0)
        other.load(self.arrays())
        return other

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        return {
            **self._sum.arrays(),
            "gradient": self.gradient,
            "n": np.array([self.n], np.int64),
        }

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        self._sum.load(arrays)
        self.gradient = np.array(arrays["gradient"], np.float64)
        self.n = int(arrays["n"][0])

    def add(
        self,
        active: NDArray[np.int32],
        is_fraud: NDArray[np.bool_],
        z: NDArray[np.float64],
        *,
        kept: NDArray[np.bool_],
    ) -> None:
        """Add matured rows, in order; O(n_transforms ** 2) for each row that is not thinned.

        Parameters
        ----------
        active
            Result of `models.basis.encode`, shape (n, n_transforms).
        is_fraud
            Outcomes of shape (n,).
        z
            Log-odds of shape (n,) from the weights in force.
        kept
            Result of `is_kept`.
        """
        h = np.empty(len(active))
        _add_gradient(active, is_fraud, z, kept, self.gradient, h)
        self.n += len(active)
        index = np.flatnonzero(h)  # NaN too: it must show
        self._sum.add(active[index], h[index])

    def decay(self, factor: float) -> None:
        """Forget in part: multiply both sums."""
        self._sum.decay(factor)
        self.gradient *= factor

    def published(self, weights: NDArray[np.float64]) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of a ``statistics`` contribution, see `rounded`."""
        curvature, gradient = self.rounded(weights)
        return {"curvature": curvature, "gradient": gradient}

    def rounded(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return (packed float32 A, b) for the wire.

        Rounding A shifts the solution unless b moves with it: b is corrected so that the residual
        b - A w at the weights in force stays exact.
        """
        packed = np.empty(n_packed(len(weights)), np.float32)
        corrected = self.gradient.copy()
        _round(self.curvature(), weights, packed, corrected)
        return packed, corrected


@nb.njit(cache=True)
def _round(square, weights, packed, gradient):  # type: ignore[no-untyped-def]  # compiled
    k = 0
    for i in range(square.shape[0]):
        for j in range(i, square.shape[0]):
            packed[k] = square[i, j]
            error = packed[k] - square[i, j]
            if error != 0.0:
                gradient[i] += error * weights[j]
                if i != j:
                    gradient[j] += error * weights[i]
            k += 1
