"""A bank and the nets of its consortium: the merged one as an expert."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.families.mlp_parameters import MlpScorer, MlpSummary
from models.families.ordinals import Binning
from models.named_arrays import under
from models.release import MergedNet
from stream.expert_arrays import load_scorer, scorer_arrays

Arrays = Mapping[str, NDArray[np.generic]]


class MergedNetExpert:
    """The mean of the members' nets: frozen, as the last release brought it; needs no torch."""

    def __init__(self) -> None:
        self._net: MergedNet | None = None
        self._scorer: MlpScorer | None = None

    @property
    def summary(self) -> MlpSummary | None:
        """What it scores by, None before there is a net."""
        return None if self._net is None else self._net.summary

    def install(self, net: MergedNet | None) -> bool:
        """Swap a net in; return whether it is another. None leaves the old one in force."""
        if net is None or net.is_same(self._net):
            return False
        self._net = net
        self._scorer = MlpScorer(net.summary, Binning.of(net.basis))
        return True

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds, NaN before there is a net."""
        return np.full(len(rows), np.nan) if self._scorer is None else self._scorer.score(rows)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        if self._net is None:
            return {}
        basis, summary = self._net
        held = {f"summary/{name}": array for name, array in summary.arrays().items()}
        return held | scorer_arrays("basis", basis, None)

    def load(self, arrays: Arrays) -> None:
        """Replace the state by what `arrays` gave."""
        self._net = self._scorer = None
        basis, _ = load_scorer("basis", arrays)
        if basis is not None:
            self.install(MergedNet(basis, MlpSummary.load(under("summary/", arrays))))
