"""Merged moments: how features vary together, summed over members as whole numbers; pure."""

from amalgamator.policy import FoldConfig
from amalgamator.state import Pairs, of_part
from models.basis import Basis
from models.copula import Moments


def merged_moments(pairs: Pairs, basis: Basis, config: FoldConfig) -> Moments | None:
    """Return the sum of the moments of a basis, None where nobody has published any.

    Whole numbers add without rounding, so the result does not depend on any order. A member counts
    in full or, at weight 0, not at all.

    Parameters
    ----------
    pairs
        What is folded.
    basis
        Whose moments are asked for; others are passed over.
    config
        Gives the members' weights.
    """
    merged: Moments | None = None
    for key, held in of_part(pairs, "moments"):
        one = held.contribution
        if one.basis != basis.number or not config.weight_of(key.member) > 0.0:
            continue
        moments = Moments.load(one.arrays)
        if moments.n_features == basis.n_features:
            merged = moments if merged is None else merged.merged(moments)
    return merged
