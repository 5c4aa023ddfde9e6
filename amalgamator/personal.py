"""Personal solutions: the sum of all statistics, in which a member's own count more; pure.

For each member m that counts, w_m = solve(sum A + kappa A_m + ridge, sum b + kappa b_m + ridge w0):
the merged scorecard drawn towards what the member itself has seen, as far as it has seen enough. As
the merged weights w solve the first parts, it is d = w_m - w that is looked for::

    (sum A + ridge + kappa A_m) d = kappa (b_m - A_m w)

by a few steps from the factored sum instead of a factorisation for each member. A member without
statistics has the merged weights, and is left out.
"""

import logging

import numpy as np
from numpy.typing import NDArray

from amalgamator.policy import FoldConfig
from amalgamator.state import Pairs, by_bucket
from amalgamator.sums import Solution, Sums, bucket_decay, weighted_sums
from amalgamator.target import Target
from models.families.conjugate import multiply, solve_near
from models.release import PersonalWeights

log = logging.getLogger(__name__)


def personal_weights(
    used: Pairs, merged: Solution, target: Target, config: FoldConfig
) -> PersonalWeights | None:
    """Return the weights of each member that has statistics; None where they are not used.

    Parameters
    ----------
    used
        The statistics that ``merged`` was solved from, sorted by key.
    merged
        Their solution.
    target
        The basis.
    config
        ``kappa``, decay, and the members' weights, which count for their own too.
    """
    if config.kappa is None:
        return None
    newest = max((key.bucket for key, _ in used), default=0)
    found: dict[str, NDArray[np.float64]] = {}
    for member in sorted({key.member for key, _ in used}):
        own = Sums.zero(target.basis.n_weights)
        for bucket, pairs in by_bucket([p for p in used if p[0].member == member]).items():
            sums = weighted_sums(pairs, target, config)
            own.add(bucket_decay(bucket, newest, config), sums)
        weights = _drawn_towards(own, merged, config.kappa)
        if weights is None:
            log.warning("member=%s has no personal solution", member)
        else:
            found[member] = weights
    if not found:
        return None
    stacked = np.stack(list(found.values()))
    stacked.flags.writeable = False
    return PersonalWeights(members=tuple(found), weights=stacked)


def _drawn_towards(own: Sums, merged: Solution, kappa: float) -> NDArray[np.float64] | None:
    """Return the solution in which ``own`` counts kappa times more, None where there is none."""
    pull = kappa * (own.gradient - multiply(own.curvature, merged.weights))
    moved = solve_near(merged.solver.step, own.curvature, pull, factor=kappa)
    weights = merged.weights + moved.x
    is_solution = moved.is_positive and bool(np.isfinite(weights).all())
    return weights if is_solution else None
