"""Personal solutions: the sum of all statistics, in which a member's own count more; pure.

For each member m that counts, w_m = solve(sum A + kappa A_m + ridge, sum b + kappa b_m + ridge w0):
the merged scorecard drawn towards what the member itself has seen, as far as it has seen enough.
A member without statistics has the merged weights, and is left out.
"""

import logging

import numpy as np

from amalgamator.policy import FoldConfig
from amalgamator.state import Pairs, by_bucket
from amalgamator.sums import Sums, bucket_decay, solution, weighted_sums
from amalgamator.target import Target
from models.release import PersonalWeights

log = logging.getLogger(__name__)


def personal_weights(
    used: Pairs, total: Sums, target: Target, config: FoldConfig
) -> PersonalWeights | None:
    """Return the weights of each member that has statistics; None where they are not used.

    Parameters
    ----------
    used
        The statistics that ``total`` is made of, sorted by key.
    total
        Their decayed sum.
    target
        The basis.
    config
        ``kappa``, decay, ridge, prior, and the members' weights, which count for their own too.
    """
    if config.kappa is None:
        return None
    newest = max((key.bucket for key, _ in used), default=0)
    found = {}
    for member in sorted({key.member for key, _ in used}):
        own = [pair for pair in used if pair[0].member == member]
        sums = Sums(total.curvature.copy(), total.gradient.copy())
        for bucket, pairs in by_bucket(own).items():
            factor = config.kappa * bucket_decay(bucket, newest, config)
            sums.add(factor, weighted_sums(pairs, target, config))
        try:
            found[member] = solution(sums, target.basis, config)
        except np.linalg.LinAlgError:
            log.warning("member=%s has no personal solution", member)
    rows = [found[member] for member in sorted(found)]
    if not rows:
        return None
    stacked = np.stack(rows)
    stacked.flags.writeable = False
    return PersonalWeights(members=tuple(sorted(found)), weights=stacked)
