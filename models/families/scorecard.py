"""The scorecard: an additive model on the basis, learnt from statistics that merge by addition.

For a matured row with active weights x, log-odds z from the weights in force and p = 1/(1+e^-z),
the statistics are those of a quadratic model of the log-loss around z::

    A += v h x x^T          b += ((y - p) + v h z) x          h = max(p (1 - p), |y - p| / 10)

so that w = solve(sum A + ridge I, sum b + ridge w0) is one Newton step for the pooled data. The
bound on h keeps the working response (y - p) / h within 10 log-odds, which makes statistics that
were taken at old weights harmless. Rows that are legitimate and scored p <= .02 are thinned to a
tenth in A (v = 10), by a hash of the transaction, and all count in y - p.
"""

from collections.abc import Mapping
from typing import Self

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.families.solver import n_packed
from models.matured import Matured

DULL_P = 0.02
THINNING = 10
MAX_HELD = 8_192
_SHARES = 8
_BLOCK = 4_096  # rows that fit into caches with one row of A
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


@nb.njit(cache=True)
def _compact(active, n_weights):  # type: ignore[no-untyped-def]  # compiled
    """Return each row's weights without gaps, how many there are, and where each weight's begin."""
    weights = np.empty(active.shape, np.uint32)
    ends = np.zeros(len(active), np.int64)
    starts = np.zeros(n_weights + 1, np.int64)
    for i in range(len(active)):
        for a in active[i]:
            if a >= 0:
                weights[i, ends[i]] = a
                ends[i] += 1
                starts[a + 1] += 1
    for a in range(n_weights):
        starts[a + 1] += starts[a]
    return weights, ends, starts


@nb.njit(cache=True)
def _add_curvature(active, h, curvature):  # type: ignore[no-untyped-def]  # compiled
    """Add h x x^T of every row to A, one row of A after the other: each stays in the cache.

    Every element is the sum over rows in order, as if they came one by one.
    """
    n_weights = curvature.shape[0]
    weights, ends, starts = _compact(active, n_weights)
    row = np.empty(starts[n_weights], np.int32)
    position = np.empty(starts[n_weights], np.int32)
    place = starts[:-1].copy()
    for i in range(len(active)):
        for k in range(ends[i]):
            a = weights[i, k]
            row[place[a]], position[place[a]] = i, k
            place[a] += 1
    for a in range(n_weights):
        sums = curvature[a]
        for at in range(starts[a], starts[a + 1]):
            i = row[at]
            for k in range(position[at], ends[i]):
                sums[weights[i, k]] += h[i]


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

    Rows that add to A are held back and brought in together, so that A, which is larger than any
    cache, is gone through once for all of them and is mostly the same. Once they are many they are
    brought in a share with each call, so that none takes long. No bit tells when that was.

    Parameters
    ----------
    n_weights
        Weights of the basis.
    max_held
        So many rows are held back, >= 1, of a few hundred bytes each.

    Attributes
    ----------
    gradient
        float64 of shape (n_weights,).
    n
        Rows that were added.
    """

    def __init__(self, n_weights: int, *, max_held: int = MAX_HELD) -> None:
        self._curvature: NDArray[np.float64] = np.zeros((n_weights, n_weights))
        self.gradient: NDArray[np.float64] = np.zeros(n_weights)
        self.n = 0
        self._max_held = max_held
        self._held: list[tuple[NDArray[np.int32], NDArray[np.float64]]] = []
        self._n_held = 0
        self._is_full = False

    @property
    def curvature(self) -> NDArray[np.float64]:
        """float64 of shape (n_weights, n_weights); only the upper triangle is used.

        Holds all rows so far; those added later may reach it no sooner than it is asked for again.
        """
        self._bring_in()
        return self._curvature

    @curvature.setter
    def curvature(self, value: NDArray[np.float64]) -> None:
        self._held.clear()
        self._n_held = 0
        self._curvature = value
        self._changes()

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views); rows that are held back stand beside A.

        So A, by far the largest, is mostly the same from one checkpoint to the next.
        """
        self._held = [self._held_back()] if self._held else []
        active, h = self._held[0] if self._held else (np.empty((0, 0), np.int32), np.empty(0))
        return {
            "curvature": self._curvature,
            "gradient": self.gradient,
            "n": np.array([self.n], np.int64),
            "held_active": active,
            "held_h": h,
        }

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return what `arrays` gave."""
        loaded = cls(0)
        loaded.curvature = np.array(arrays["curvature"], np.float64)
        loaded.gradient = np.array(arrays["gradient"], np.float64)
        loaded.n = int(arrays["n"][0])
        h = np.array(arrays["held_h"], np.float64)
        if len(h):
            loaded._held = [(np.array(arrays["held_active"], np.int32), h)]
            loaded._n_held = len(h)
        return loaded

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
        if len(index):
            self._held.append((active[index], h[index]))
            self._n_held += len(index)
        self._is_full |= self._n_held >= self._max_held
        if self._is_full:
            self._bring_in(max(self._max_held // _SHARES, self._n_held - self._max_held))
            self._is_full = self._n_held > 0

    def _bring_in(self, n: int | None = None) -> None:
        """Add the first ``n`` rows that are held back to A, or all."""
        if not self._n_held:
            return
        self._changes()
        active, h = self._held_back()
        n = len(h) if n is None else min(n, len(h))
        for start in range(0, n, _BLOCK):
            rows = slice(start, min(start + _BLOCK, n))
            _add_curvature(active[rows], h[rows], self._curvature)
        self._held = [(active[n:], h[n:])] if n < len(h) else []
        self._n_held = len(h) - n

    def _changes(self) -> None:
        """Take note that A is about to change; for those who look on."""

    def _held_back(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        active, h = zip(*self._held, strict=True)
        return np.concatenate(active), np.concatenate(h)

    def decay(self, factor: float) -> None:
        """Forget in part: multiply both sums."""
        self._bring_in()
        self._changes()
        self._curvature *= factor
        self.gradient *= factor

    def rounded(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return (packed float32 A, b) for the wire.

        Rounding A shifts the solution unless b moves with it: b is corrected so that the residual
        b - A w at the weights in force stays exact.
        """
        packed = np.empty(n_packed(len(weights)), np.float32)
        corrected = self.gradient.copy()
        _round(self.curvature, weights, packed, corrected)
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
