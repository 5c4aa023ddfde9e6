"""The net that a bank trains for its consortium: one start for all, then on from what was merged.

It learns what the bank's own net of the family `mlp` learns and is no expert of the blend: what is
scored by is the mean that comes back. So the own net stays the bank's own.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.families.base import Retained, read_options
from models.families.mlp import MlpFamily, MlpOptions
from models.families.mlp_parameters import NOTHING, MlpSummary
from models.families.ordinals import Binning
from models.matured import Matured
from models.named_arrays import under

SEED = 0
"""Of every member: a mean of nets makes sense only between nets of one start."""


def make(options: Mapping[str, object]) -> "SharedMlp":
    """Return the untrained net; see `models.families.registry.make_shared_net`."""
    return SharedMlp(MlpFamily(read_options(MlpOptions, options, family="mlp"), seed=SEED))


class SharedMlp:
    """See `models.families.base.SharedNet`.

    It goes on from each mean that comes, with what it has learnt since it last published added: so
    no mean takes that away, whenever it comes. On a new basis it passes over the held rows again,
    but from the parameters that it has: bins are finer then, and their levels mean nearly the same.

    Parameters
    ----------
    net
        Untrained; nobody else's.
    """

    def __init__(self, net: MlpFamily) -> None:
        self._net = net
        self._asked: Binning | None = None
        self._merged: MlpSummary = NOTHING
        self._base: NDArray[np.float32] | None = None  # parameters when last published or merged

    def learn(self, matured: Matured) -> None:
        """Take outcomes in."""
        self._net.learn(matured)

    def install(self, basis: Basis, merged: MlpSummary | None) -> None:
        """Note the basis in force; go on from a mean of it that is new."""
        if self._asked is None or self._asked.number != basis.number:
            self._asked = Binning.of(basis)
        if merged is None or np.array_equal(merged.flat, self._merged.flat):
            return
        self._merged = merged
        self._forget_if_lost()
        if self._base is not None and merged.basis == self._net.fitted:
            self._go_on_from(merged, self._base)

    def _go_on_from(self, merged: MlpSummary, base: NDArray[np.float32]) -> None:
        learnt_since = self._net.contribution().flat - base
        self._net.adopt(
            MlpSummary(
                n=merged.n,
                basis=merged.basis,
                n_features=merged.n_features,
                flat=merged.flat + learnt_since,
            )
        )
        self._base = merged.flat

    def is_due(self) -> bool:
        """Return whether another basis was asked for than the net's."""
        return self._asked is not None and self._asked.number != self._net.fitted

    def end_day(self, retained: Retained) -> None:
        """Pass over the held rows where another basis was asked for and enough has matured."""
        self._forget_if_lost()
        if self._asked is None or not self.is_due():
            return
        matured = retained()
        if self._net.is_enough(matured):
            self._net.begin(self._asked, matured, self._first(self._asked))

    def _first(self, asked: Binning) -> NDArray[np.float32] | None:
        """Return where to start on a basis: its mean, else the own net, else any mean."""
        has_mean = self._merged.n > 0
        if self._net.fitted and not (has_mean and self._merged.basis == asked.number):
            return self._net.contribution().flat
        if not has_mean:
            return None
        if self._base is not None:
            self._base = self._merged.flat
        return self._merged.flat

    def contribution(self) -> MlpSummary | None:
        """Return parameters and rows learnt; what is learnt from now on is not published yet."""
        self._forget_if_lost()
        summary = self._net.contribution()
        if summary.n == 0:
            return None
        self._base = summary.flat
        return summary

    def _forget_if_lost(self) -> None:
        """Begin anew where training has left all bounds, as from a mean that a liar spoilt."""
        if not self._net.is_sound:
            self._net.forget()
            self._base = None

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        out = {f"net/{name}": array for name, array in self._net.arrays().items()}
        out |= {f"merged/{name}": array for name, array in self._merged.arrays().items()}
        if self._asked is not None:
            out |= self._asked.arrays("asked")
        if self._base is not None:
            out["base"] = self._base
        return out

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        self._net.load(under("net/", arrays))
        self._merged = MlpSummary.load(under("merged/", arrays))
        self._asked = Binning.load("asked", arrays)
        self._base = np.array(arrays["base"], np.float32) if "base" in arrays else None
