"""The blend: own and consortium experts in one score, and the gate that drops a bad one.

A logistic stack on log-odds clipped to +-12, z = bias + sum of weight x expert, that minimises

    sum of log-loss + ridge / 2 * sum (weight - 1 / n_active) ** 2

by Newton's method with backtracking (undamped it diverges). Sums are elementwise products reduced
in one fixed order, never BLAS, so the same rows give the same bits whatever the number of threads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError, StateError
from models.evaluation import average_precision
from models.families.scorecard import DULL_LOGIT, THINNING, is_kept

MAX_EXPERT_LOGIT = 12.0
MAX_EXPERTS = 12
MAX_LEGIT = 100_000
_SPREAD = 1 << 20  # other bits of the hash than `is_kept` looks at
_BIAS_RIDGE = 1e-6
_MAX_STEPS = 50
_MAX_HALVINGS = 30
_ENOUGH = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendPolicy:
    """How experts are weighed.

    Parameters
    ----------
    ridge
        Pull of the weights towards equal ones, in units of curvature, > 0.
    window_d
        Days of outcomes that are fitted, > 0.
    gate_share
        An expert whose average precision is below this share of the best one's is dropped, [0, 1].
    gate_window_d
        Days over which that is judged, > 0.
    fresh_d
        An expert that left a row of this many newest days without a score is not used, > 0.
    min_frauds
        With fewer in the window nothing is fitted, and with fewer in the gate's nothing dropped.
    prior_logit
        Log-odds where no expert has a score.

    Raises
    ------
    InvalidInputError
        If a field is outside its range.
    """

    ridge: float = 10.0
    window_d: float = 60.0
    gate_share: float = 0.5
    gate_window_d: float = 60.0
    fresh_d: float = 7.0
    min_frauds: int = 10
    prior_logit: float = -4.5

    def __post_init__(self) -> None:
        positive = (self.ridge, self.window_d, self.gate_window_d, self.fresh_d, self.min_frauds)
        if not all(0.0 < value < np.inf for value in positive):
            raise InvalidInputError(f"expected ridge, days and min_frauds > 0, got {positive}")
        if not 0.0 <= self.gate_share <= 1.0:
            raise InvalidInputError(f"gate_share: expected [0, 1], got {self.gate_share}")
        if not -np.inf < self.prior_logit < np.inf:
            raise InvalidInputError(f"prior_logit: expected a number, got {self.prior_logit}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blend:
    """Weights of the experts, in the order of their columns.

    Parameters
    ----------
    weights
        float64 of shape (n_experts,); 0 where not ``active``.
    bias
        Log-odds added.
    active
        bool of shape (n_experts,).
    average_precision
        float64 of shape (n_experts,): over the gate's window, NaN where it is not known.
    prior_logit
        Log-odds where no expert has a score.
    is_fitted
        False for the equal weights of a cold bank.
    """

    weights: NDArray[np.float64]
    bias: float
    active: NDArray[np.bool_]
    average_precision: NDArray[np.float64]
    prior_logit: float
    is_fitted: bool

    def __post_init__(self) -> None:
        for array in (self.weights, self.active, self.average_precision):
            array.setflags(write=False)

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the blended log-odds, within +-30.

        Parameters
        ----------
        scores
            float64 of shape (n, n_experts): log-odds, NaN where an expert has none. A row that
            lacks an active expert is scored by the other active ones, their weights scaled up to
            the same sum; one that lacks all of them, by the mean of the experts it has; one
            without any gets the prior.
        """
        n_experts = len(self.weights)
        if scores.ndim != 2 or scores.shape[1] != n_experts:
            raise InvalidInputError(f"scores: expected shape (n, {n_experts}), got {scores.shape}")
        clipped = np.clip(scores, -MAX_EXPERT_LOGIT, MAX_EXPERT_LOGIT)
        z = np.full(len(scores), self.bias)
        for j in np.flatnonzero(self.active):
            z += self.weights[j] * clipped[:, j]
        lacking = np.flatnonzero(np.isnan(z) | (not self.active.any()))
        if len(lacking):
            z[lacking] = self._patched(clipped[lacking])
        within: NDArray[np.float64] = np.clip(z, -30.0, 30.0)
        return within

    def _patched(self, clipped: NDArray[np.float64]) -> NDArray[np.float64]:
        there = ~np.isnan(clipped)
        values = np.where(there, clipped, 0.0)
        n_there = there.sum(axis=1)
        mean = _row_sum(values) / np.maximum(n_there, 1)
        z = np.where(n_there > 0, mean, self.prior_logit)
        used = np.where(there & self.active, self.weights, 0.0)
        has_active = (there & self.active).any(axis=1) & (np.abs(_row_sum(used)) > 1e-6)
        scale = float(self.weights.sum()) / np.where(has_active, _row_sum(used), 1.0)
        return np.where(has_active, self.bias + scale * _row_sum(used * values), z)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole blend by name."""
        return {
            "weights": self.weights,
            "active": self.active,
            "average_precision": self.average_precision,
            "scalars": np.array([self.bias, self.prior_logit, float(self.is_fitted)]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "Blend":
        """Return the blend that `arrays` gave.

        Raises
        ------
        StateError
            If an array is missing or the shapes do not fit.
        """
        try:
            weights = np.array(arrays["weights"], np.float64)
            active = np.array(arrays["active"], np.bool_)
            ap = np.array(arrays["average_precision"], np.float64)
            bias, prior_logit, is_fitted = np.array(arrays["scalars"], np.float64).tolist()
        except (KeyError, ValueError) as error:
            raise StateError(f"blend: expected its four arrays, got {sorted(arrays)}") from error
        if not weights.shape == active.shape == ap.shape or weights.ndim != 1:
            raise StateError(f"blend: expected one shape, got {weights.shape}, {active.shape}")
        return cls(
            weights=weights,
            bias=bias,
            active=active,
            average_precision=ap,
            prior_logit=prior_logit,
            is_fitted=bool(is_fitted),
        )


def _row_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the few columns from left to right."""
    total = np.zeros(len(values))
    for j in range(values.shape[1]):
        total += values[:, j]
    return total


def equal_blend(
    active: NDArray[np.bool_],
    policy: BlendPolicy = BlendPolicy(),
    ap: NDArray[np.float64] | None = None,
) -> Blend:
    """Return the mean of the experts in ``active``: what a cold bank starts with."""
    n_active = max(int(np.count_nonzero(active)), 1)
    return Blend(
        weights=np.where(active, 1.0 / n_active, 0.0),
        bias=0.0,
        active=active.copy(),
        average_precision=np.full(len(active), np.nan) if ap is None else ap,
        prior_logit=policy.prior_logit,
        is_fitted=False,
    )


def fit_blend(
    scores: NDArray[np.floating],
    is_fraud: NDArray[np.bool_],
    age_d: NDArray[np.float64],
    hashes: NDArray[np.uint64],
    *,
    cold: NDArray[np.bool_],
    policy: BlendPolicy = BlendPolicy(),
) -> Blend:
    """Fit the blend to matured rows, each scored before its outcome was known.

    Legitimate rows that every expert puts at p <= .02 are thinned to a tenth of ten times the
    weight, by the hash of the transaction, and where more than `MAX_LEGIT` are left, all of them
    are thinned further; frauds all count.

    Parameters
    ----------
    scores
        float64 or float32 of shape (n, n_experts), at most 12 experts: log-odds as given at the
        time, NaN for none.
    is_fraud
        bool of shape (n,).
    age_d
        float64 of shape (n,), >= 0: days since the outcome became known.
    hashes
        uint64 of shape (n,): of the transaction ids.
    cold
        bool of shape (n_experts,): the consortium's experts, which a bank with too few frauds of
        its own uses alone, equally.
    policy
        Ridge, windows, gate.
    """
    n_experts = _shape(scores, is_fraud, age_d, hashes, cold=cold)
    candidates = _usable(scores, age_d, policy.window_d, policy.fresh_d)
    inside = age_d < policy.window_d
    rows, is_dull = _chosen(scores, is_fraud, inside, is_kept(hashes), candidates)
    y = is_fraud[rows]
    if int(np.count_nonzero(y)) < policy.min_frauds:
        return equal_blend(cold if cold.any() else ~cold, policy)
    share = -(-int(np.count_nonzero(~y)) // MAX_LEGIT)
    if share > 1:
        stays = np.flatnonzero(y | (hashes[rows] // np.uint64(_SPREAD) % np.uint64(share) == 0))
        rows, is_dull, y = rows[stays], is_dull[stays], y[stays]
    z = np.clip(scores[rows].astype(np.float64), -MAX_EXPERT_LOGIT, MAX_EXPERT_LOGIT)
    weight = np.where(is_dull, float(THINNING), 1.0) * np.where(y, 1.0, float(max(share, 1)))
    recent = age_d[rows] < policy.gate_window_d
    ap = _average_precisions(z[recent], y[recent], weight[recent], candidates=candidates)
    active = candidates.copy()
    if int(np.count_nonzero(y[recent])) >= policy.min_frauds:
        active[candidates] = ap[candidates] >= policy.gate_share * np.max(ap[candidates])
    every = np.zeros(n_experts)
    every[active], bias = _stack(z[:, active], y, weight, ridge=policy.ridge)
    return Blend(
        weights=every,
        bias=bias,
        active=active,
        average_precision=ap,
        prior_logit=policy.prior_logit,
        is_fitted=True,
    )


@nb.njit(cache=True, nogil=True)
def _usable(scores, age_d, window_d, fresh_d):  # type: ignore[no-untyped-def]  # compiled
    """Return which experts scored something in the window, and everything of its newest days."""
    n_experts = scores.shape[1]
    scored, lacks = np.zeros(n_experts, np.bool_), np.zeros(n_experts, np.bool_)
    for i in range(len(scores)):
        if age_d[i] < window_d:
            for j in range(n_experts):
                if not np.isnan(scores[i, j]):
                    scored[j] = True
                elif age_d[i] < fresh_d:
                    lacks[j] = True
    return scored & ~lacks


@nb.njit(cache=True, nogil=True)
def _chosen(scores, is_fraud, inside, kept, usable):  # type: ignore[no-untyped-def]  # compiled
    """Return the rows inside that every usable expert scored, thinned, and which are dull."""
    rows, is_dull = np.empty(len(scores), np.int64), np.empty(len(scores), np.bool_)
    n = 0
    for i in range(len(scores)):
        if not inside[i] or not usable.any():
            continue
        dull, is_whole = not is_fraud[i], True
        for j in range(scores.shape[1]):
            if usable[j]:
                is_whole &= not np.isnan(scores[i, j])
                dull &= scores[i, j] <= DULL_LOGIT
        if is_whole and (kept[i] or not dull):
            rows[n], is_dull[n] = i, dull
            n += 1
    return rows[:n].copy(), is_dull[:n].copy()


def _shape(
    scores: NDArray[np.floating],
    is_fraud: NDArray[np.bool_],
    age_d: NDArray[np.float64],
    hashes: NDArray[np.uint64],
    *,
    cold: NDArray[np.bool_],
) -> int:
    """Check the shapes; return the number of experts."""
    if scores.ndim != 2 or not 1 <= scores.shape[1] <= MAX_EXPERTS:
        raise InvalidInputError(
            f"scores: expected shape (n, 1 to {MAX_EXPERTS}), got {scores.shape}"
        )
    n, n_experts = len(scores), int(scores.shape[1])
    if not is_fraud.shape == age_d.shape == hashes.shape == (n,) or cold.shape != (n_experts,):
        raise InvalidInputError(f"expected {n} outcomes, ages and hashes, and {n_experts} in cold")
    if not bool(np.all(age_d >= 0.0)):
        raise InvalidInputError("age_d: expected days >= 0")
    return n_experts


def _average_precisions(
    z: NDArray[np.float64],
    y: NDArray[np.bool_],
    weight: NDArray[np.float64],
    *,
    candidates: NDArray[np.bool_],
) -> NDArray[np.float64]:
    out = np.full(z.shape[1], np.nan)
    for j in np.flatnonzero(candidates):
        value = average_precision(y, z[:, j], weight)
        out[j] = np.nan if value is None else value
    return out


def _stack(
    z: NDArray[np.float64], y: NDArray[np.bool_], weight: NDArray[np.float64], *, ridge: float
) -> tuple[NDArray[np.float64], float]:
    """Return the weights of the columns of ``z`` and the bias that minimise the penalised loss."""
    k = z.shape[1]
    columns = [np.ascontiguousarray(z[:, j]) for j in range(k)] + [np.ones(len(z))]
    centre = np.append(np.full(k, 1.0 / k), 0.0)
    pull = np.append(np.full(k, ridge), _BIAS_RIDGE)
    w = centre.copy()
    loss, margin = _loss(columns, y, weight, w, centre=centre, pull=pull)
    for _ in range(_MAX_STEPS):
        p = 1.0 / (1.0 + np.exp(-margin))
        slope, bend = weight * (p - y), weight * p * (1.0 - p)
        gradient = np.array([np.sum(slope * c) for c in columns]) + pull * (w - centre)
        step = np.linalg.solve(_hessian(columns, bend, pull), gradient)
        decrement = float(np.sum(gradient * step))
        if decrement <= _ENOUGH:
            break
        size = 1.0
        for _ in range(_MAX_HALVINGS):
            tried = w - size * step
            new_loss, new_margin = _loss(columns, y, weight, tried, centre=centre, pull=pull)
            if new_loss <= loss - 1e-4 * size * decrement:
                break
            size /= 2
        else:
            break
        w, loss, margin = tried, new_loss, new_margin
    return w[:k], float(w[k])


def _hessian(
    columns: list[NDArray[np.float64]], bend: NDArray[np.float64], pull: NDArray[np.float64]
) -> NDArray[np.float64]:
    hessian = np.diag(pull)
    for i in range(len(columns)):
        for j in range(i + 1):
            hessian[i, j] += np.sum(bend * columns[i] * columns[j])
            hessian[j, i] = hessian[i, j]
    return hessian


def _loss(
    columns: list[NDArray[np.float64]],
    y: NDArray[np.bool_],
    weight: NDArray[np.float64],
    w: NDArray[np.float64],
    *,
    centre: NDArray[np.float64],
    pull: NDArray[np.float64],
) -> tuple[float, NDArray[np.float64]]:
    margin = np.zeros(len(y))
    for value, column in zip(w.tolist(), columns, strict=True):
        margin += value * column
    losses = np.logaddexp(0.0, np.where(y, -margin, margin))
    return float(np.sum(weight * losses) + 0.5 * np.sum(pull * (w - centre) ** 2)), margin
