"""A worker's moments: how features vary together at its bank, on the basis collected for."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis, feature_weights
from models.copula import Moments, bin_scores, is_sampled
from models.matured import Matured

MAX_FEATURES = 256
"""A schema of more features has no moments: their number grows with the square."""
_MOST_ASIDE = 4_096  # rows that wait for the kernel


class MomentLearner:
    """Sums of one basis; begins anew with each.

    Rows that count are set aside first, because a call of the kernel costs more than a few of them;
    the sums are whole numbers, so when it is called changes nothing.

    Parameters
    ----------
    is_on
        Whether anything is learnt.
    """

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._basis: Basis | None = None
        self._moments: Moments | None = None
        self._scores: NDArray[np.int32] = np.empty(0, np.int32)
        self._aside: list[tuple[NDArray[np.int32], NDArray[np.bool_]]] = []
        self._n_aside = 0

    def begin(self, basis: Basis | None) -> None:
        """Start at nothing, for a basis; None: for none yet."""
        self._basis, self._moments, self._aside, self._n_aside = basis, None, [], 0
        if self._is_on and basis is not None and basis.n_features <= MAX_FEATURES:
            self._moments = Moments.empty(basis.n_features)
            self._scores = bin_scores(basis)

    def add(self, rows: Matured, active: NDArray[np.int32]) -> None:
        """Add outcomes, given the rows as `models.basis.encode` gave them."""
        if self._moments is not None:
            kept = np.flatnonzero(rows.is_fraud | is_sampled(rows.hashes))
            self._aside.append((active[kept], rows.is_fraud[kept]))
            self._n_aside += len(kept)
            if self._n_aside >= _MOST_ASIDE:
                self.settled()

    def settled(self) -> Moments | None:
        """Return the sums of all that was added, None where nothing is learnt."""
        if self._n_aside and self._moments is not None and self._basis is not None:
            active = np.concatenate([one for one, _ in self._aside])
            self._moments.add(
                feature_weights(self._basis, active),
                self._scores,
                np.concatenate([one for _, one in self._aside]),
                sampled=np.ones(len(active), np.bool_),
            )
        self._aside, self._n_aside = [], 0
        return self._moments

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        moments = self.settled()
        return {} if moments is None else moments.arrays()

    def load(self, basis: Basis | None, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from what `arrays` gave; from nothing where they are from before this was on."""
        self.begin(basis)
        if self._moments is not None and arrays:
            self._moments = Moments.load(arrays)
