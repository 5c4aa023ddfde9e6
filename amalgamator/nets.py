"""The members' nets become one: the mean of their parameters, weighed by rows and trust.

A net counts for as many rows as its sender's histograms vouch for, times the sender's weight. Only
nets of the basis in force are merged, or those of the last merged net's basis while there are none:
parameters of different bins have no mean. Numbers only; nothing of torch is loaded.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amalgamator.policy import FoldConfig
from amalgamator.state import Pairs, matured_of_workers, of_part
from models.basis import Basis
from models.families.mlp_parameters import MlpSummary, merge, n_parameters
from models.release import MergedNet, Release
from models.summary import ContributionKey

Floats = NDArray[np.float32]
MIN_JUDGED = 3
"""Fewer nets have no majority that one could be far from."""


class _Net(NamedTuple):
    """A member's net as it counts: whose, under which seq, for how many rows."""

    key: ContributionKey
    seq: int
    n: int
    flat: Floats


class NetFold:
    """Merges nets; remembers the last mean while what goes in stays the same.

    Parameters
    ----------
    config
        Of the fold; unless it merges nets there is nothing to do.
    """

    def __init__(self, config: FoldConfig) -> None:
        self._config = config
        self._last: tuple[object, MergedNet] | None = None

    def fold(
        self,
        pairs: Pairs,
        previous: Release | None,
        basis: Basis | None,
        *,
        weights: Mapping[str, float],
    ) -> MergedNet | None:
        """Return the merged net of sorted contributions, None if there is none.

        Parameters
        ----------
        pairs, previous
            What is held, and the last release.
        basis
            In force in the release that is being made.
        weights
            Member -> factor on its rows.
        """
        if not self._config.merges_nets:
            return None
        carried = None if previous is None or previous.net is None else previous.net.basis
        for asked in (basis, carried):
            if asked is not None:
                used = _counted(pairs, asked, weights)
                if used:
                    return self._mean(asked, used)
        return None

    def _mean(self, basis: Basis, used: Sequence[_Net]) -> MergedNet:
        identity = (basis.number, [(net.key, net.seq, net.n) for net in used])
        if self._last is not None and self._last[0] == identity:
            return self._last[1]
        trust, flats = self._config.trust, [net.flat for net in used]
        if trust is not None:
            flats = clipped(flats, trust.max_norm_ratio)
        summaries = [
            MlpSummary(n=net.n, basis=basis.number, n_features=basis.n_features, flat=flat)
            for net, flat in zip(used, flats, strict=True)
        ]
        merged = MergedNet(basis, merge(summaries))
        merged.summary.flat.flags.writeable = False
        self._last = (identity, merged)
        return merged


def _counted(pairs: Pairs, basis: Basis, weights: Mapping[str, float]) -> list[_Net]:
    """Return the nets of a basis that count for at least one row, in the order of their keys."""
    matured, size = matured_of_workers(pairs), n_parameters(basis.n_features)
    used = []
    for key, held in of_part(pairs, "net"):
        given = held.contribution
        flat = np.asarray(given.arrays["flat"], np.float32)
        rows = min(given.n, matured.get((key.member, key.worker), 0))
        n = round(weights.get(key.member, 0.0) * rows)
        if given.basis == basis.number and flat.shape == (size,) and n >= 1:
            used.append(_Net(key, held.seq, n, flat))
    return used


def clipped(flats: Sequence[Floats], max_ratio: float) -> list[Floats]:
    """Return nets, each drawn to the middle if it is much farther from it than most are.

    Parameters
    ----------
    flats
        float32 of shape (n_parameters,) each.
    max_ratio
        Times the median distance from the middle, which is the median of each parameter; what is
        farther is drawn to there on a straight line. Fewer than three nets stay as they are.
    """
    if len(flats) < MIN_JUDGED:
        return list(flats)
    middle = np.median(np.stack(flats).astype(np.float64), axis=0)
    away = [flat.astype(np.float64) - middle for flat in flats]
    # exact sums: they must not depend on the processor
    distance = [math.sqrt(math.fsum(np.square(one).tolist())) for one in away]
    limit = max_ratio * float(np.median(distance))
    return [
        flat if far <= limit else (middle + one * (limit / far)).astype(np.float32)
        for flat, one, far in zip(flats, away, distance, strict=True)
    ]
