"""Whether a member's statistics can be what they say, and whether they harm the others; pure.

Each member's sums define a quadratic model of its own log-loss, L_r(w) = w'A_r w / 2 - b_r'w. A
sender's presence moves the solution from w_without to w_with; it harms r by L_r(w_with) -
L_r(w_without), held against the most that r could gain, L_r(prior) - L_r(w_r), w_r being its own
solution, and ``prior_gain`` more: what a few frauds seem to teach is mostly chance.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amalgamator.narrow import is_narrow
from amalgamator.policy import FoldConfig, TrustPolicy
from models.families.cholesky import solve_positive
from models.families.conjugate import multiply, quadratics, solve_packed
from models.families.scorecard import DULL_P, MAX_LOGIT
from models.families.solver import unpack
from models.packed import add_scaled, diagonal

MAX_RESPONSE = 10.0
"""|y - p| <= 10 h: see `models.families.scorecard`."""
_ROUNDING = 1e-2
_N_SLACK = 1.25
_N_LATE = 1_000
_TOLERANCE = 0.02  # losses are flat at a solution: their error is the square of this
_STEP_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemberSums:
    """A member's statistics of one basis, buckets decayed and added.

    Parameters
    ----------
    curvature, gradient
        Packed A, of float32 where that is enough (`amalgamator.narrow`), else float64, and b.
    n
        Decayed number of matured transactions behind them.
    n_published
        The same, not decayed.
    n_matured
        What the member's histograms say; None if there are none.
    """

    curvature: NDArray[np.floating]
    gradient: NDArray[np.float64]
    n: float
    n_published: int
    n_matured: int | None


class Verdict(NamedTuple):
    """Factor on a member's statistics in [0, 1], and why it is below 1.

    ``why`` is empty, or one of `REASONS`; ``harm`` is the median of what the others say.
    """

    weight: float
    why: str
    harm: float


REASONS = ("n", "gradient", "curvature", "norm", "harm")


class _Model(NamedTuple):
    """A voter: its sums, and the most that it can gain."""

    sums: MemberSums
    best_gain: float


def judge_statistics(
    sums: Mapping[str, MemberSums], config: FoldConfig, policy: TrustPolicy, *, exact: bool = False
) -> dict[str, Verdict]:
    """Return a verdict on each member.

    Parameters
    ----------
    sums
        Member -> sums, all of one basis.
    config
        Ridge and prior.
    policy
        Bounds.
    exact
        Factor every member's curvature, instead of looking for a direction of negative curvature
        on the way to its solution: for a sum that turned out to be indefinite.
    """
    prior = prior_weights(config, len(next(iter(sums.values())).gradient)) if sums else np.empty(0)
    verdicts = {
        member: Verdict(0.0, why, 0.0)
        for member, one in sums.items()
        if (why := _impossible(one)) is not None
    }
    models: dict[str, _Model] = {}
    for member, one in sums.items():
        if member in verdicts:
            continue
        model = _model(one, prior, config.ridge / len(sums), exact=exact)
        if model is None:
            verdicts[member] = Verdict(0.0, "curvature", 0.0)
        else:
            models[member] = model
    majority = len(models) // 2 + 1
    while (found := _most_harmful(models, prior, config, policy)).worst is not None:
        if len(models) == majority:
            break
        verdicts[found.worst] = Verdict(0.0, "harm", found.harm[found.worst])
        del models[found.worst]
    scales = _norm_scales({m: model.sums for m, model in models.items()}, prior, policy)
    for member, scale in scales.items():
        why = "norm" if scale < 1.0 else ""
        verdicts[member] = Verdict(scale, why, found.harm.get(member, 0.0))
    return {member: verdicts[member] for member in sums}


def prior_weights(config: FoldConfig, n_weights: int) -> NDArray[np.float64]:
    """Return the weights before any data: the prior's log-odds on the bias."""
    weights = np.zeros(n_weights)
    weights[:1] = config.prior_logit
    return weights


def losses(sums: MemberSums, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return w'Aw / 2 - b'w, log-loss in nats up to a constant, for the weights in each column."""
    return quadratics(sums.curvature, sums.gradient, points)


def _impossible(sums: MemberSums) -> str | None:
    """Return what no honest sums can show, None if there is nothing.

    A row adds h to a_ii and (y - p) + h z to b_i; |y - p| <= 10 h and |z| <= 30, but where a dull
    row is thinned out h is 0 and |y - p| = p <= .02. So |b_i| <= 40 a_ii + .02 n, to which the
    rounding of A on the wire adds a little.
    """
    if sums.n_matured is not None and not (sums.n_published <= _N_SLACK * sums.n_matured + _N_LATE):
        return "n"
    bound = (MAX_RESPONSE + MAX_LOGIT) * diagonal(sums.curvature, len(sums.gradient))
    if not bool(np.all(np.abs(sums.gradient) <= (1 + _ROUNDING) * bound + DULL_P * sums.n + 1e-6)):
        return "gradient"
    return None


def _model(
    sums: MemberSums, prior: NDArray[np.float64], ridge: float, *, exact: bool
) -> _Model | None:
    """Return the voter; None if A + ridge I is not positive definite."""
    if exact and not _is_positive(sums, ridge):
        return None
    own = solve_packed(
        sums.curvature,
        sums.gradient + ridge * prior,
        ridge=ridge,
        start=prior,
        tolerance=_TOLERANCE,
    )
    if not own.is_positive:
        return None
    before, after = losses(sums, np.column_stack([prior, own.x])).tolist()
    return _Model(sums, max(before - after, 0.0))


def _is_positive(sums: MemberSums, ridge: float) -> bool:
    system = unpack(sums.curvature, len(sums.gradient))
    system[np.diag_indices(len(system))] += ridge
    try:
        solve_positive(system, np.zeros(len(system)))
    except np.linalg.LinAlgError:
        return False
    return True


def _norm_scales(
    sums: Mapping[str, MemberSums], prior: NDArray[np.float64], policy: TrustPolicy
) -> dict[str, float]:
    """Return the factors that bring norms per transaction to at most a multiple of the median."""
    norms = np.array([_norms(one, prior) for one in sums.values()]).reshape(-1, 2)
    if len(norms) < 3:
        return dict.fromkeys(sums, 1.0)
    limits = policy.max_norm_ratio * np.median(norms, axis=0)
    shares = np.divide(limits, norms, out=np.ones_like(norms), where=norms > limits)
    return dict(zip(sums, shares.min(axis=1).tolist(), strict=True))


def _norms(sums: MemberSums, prior: NDArray[np.float64]) -> tuple[float, float]:
    n = max(sums.n, 1.0)
    pull = sums.gradient - multiply(sums.curvature, prior)
    trace = float(diagonal(sums.curvature, len(prior)).sum())
    return trace / n, float(np.sqrt(np.sum(pull * pull))) / n


class _Harm(NamedTuple):
    """The median harm of each sender to the others, and the worst one above the bound."""

    harm: dict[str, float]
    worst: str | None


def _most_harmful(
    models: Mapping[str, _Model],
    prior: NDArray[np.float64],
    config: FoldConfig,
    policy: TrustPolicy,
) -> _Harm:
    """Return the harms in the presence of all ``models``; those that were left out have no voice.

    Jurors speak for all where there are many models.

    With w the solution of all, H and g the curvature with ridge and the gradient of a sender's
    absence, w_without = w + H^-1 (A_s w - b_s).
    """
    if len(models) < 3:
        return _Harm({}, None)
    curvature, gradient = _total([model.sums for model in models.values()])
    start = solve_packed(
        curvature,
        gradient + config.ridge * prior,
        ridge=config.ridge,
        start=prior,
        tolerance=_TOLERANCE,
    ).x
    others = _room_for_others(curvature, len(gradient), config)
    points = np.empty((len(gradient), len(models) + 1))
    points[:, -1] = start
    for column, model in enumerate(models.values()):
        pull = multiply(model.sums.curvature, start) - model.sums.gradient
        # In float64, then rounded: the difference of what was rounded could be indefinite.
        np.subtract(curvature, model.sums.curvature, out=others, casting="same_kind")
        step = solve_packed(others, pull, ridge=config.ridge, tolerance=_STEP_TOLERANCE).x
        points[:, column] = start + step
    jurors = _jurors(list(models), policy.max_jurors)
    said = np.empty((len(jurors), len(models)))
    for row, (column, juror) in enumerate(jurors):
        *without, with_all = losses(models[juror].sums, points)
        said[row] = (with_all - np.array(without)) / (models[juror].best_gain + policy.prior_gain)
        said[row, column] = np.nan  # nobody has a voice on itself, and NaN comes last
    n_voices = np.count_nonzero(~np.isnan(said), axis=0)
    medians = np.take_along_axis(np.sort(said, axis=0), (n_voices - 1)[None, :] // 2, axis=0)[0]
    harm = dict(zip(models, medians.tolist(), strict=True))
    worst = max(sorted(harm), key=lambda member: harm[member])
    return _Harm(harm, worst if harm[worst] > policy.max_harm else None)


def _jurors(members: Sequence[str], max_jurors: int) -> list[tuple[int, str]]:
    """Return the members that have a voice, and their places: those with the lowest digests.

    A digest is nobody's to choose, and who has a voice changes only as members come and go.
    """
    placed = list(enumerate(members))
    if len(placed) <= max_jurors:
        return placed
    drawn = sorted(placed, key=lambda each: hashlib.sha256(each[1].encode()).digest())
    return sorted(drawn[:max_jurors])


def _room_for_others(
    total: NDArray[np.float64], n_weights: int, config: FoldConfig
) -> NDArray[np.floating]:
    """Return an array for a total less one of its parts, which adds up to less in every row."""
    if is_narrow(total, n_weights, ridge=config.ridge):
        return np.empty(len(total), np.float32)
    return np.empty(len(total))


def _total(parts: Sequence[MemberSums]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    curvature, gradient = np.zeros(len(parts[0].curvature)), np.zeros(len(parts[0].gradient))
    for sums in parts:
        add_scaled(curvature, 1.0, sums.curvature)
        gradient += sums.gradient
    return curvature, gradient
