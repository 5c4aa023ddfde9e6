"""The small net as numbers: its parameters, their merge, its score; no torch needed.

Inputs are, of each feature, the level of its bin in [-1, 1] (0 where absent) and a flag of absence;
then comes the network of `models.families.network`, whose output is the log-odds. Parameters are
one flat array, in this order: W1 (inputs, 64), b1, W2 (64, 32), b2, w3 (32,), b3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.errors import IncompatibleSummaryError, InvalidInputError, QuarantinedError
from models.families import network
from models.families.network import MAX_WEIGHT, run, split
from models.families.ordinals import ABSENT, Binning, ordinals
from models.families.scorecard import MAX_LOGIT

N_FIRST, N_SECOND = network.HIDDEN


def n_parameters(n_features: int) -> int:
    """Return the length of the flat array."""
    return network.n_parameters(2 * n_features)


def check_net(flat: NDArray[np.float32], n_features: int) -> None:
    """Check parameters from outside, a member's or a release's.

    Raises
    ------
    QuarantinedError
        Reason ``shape``, if they are not those of a net on ``n_features``; ``range``, if a number
        is not finite and within 10,000.
    """
    expected = n_parameters(n_features)
    if flat.shape != (expected,):
        raise QuarantinedError("shape", f"flat: expected {expected} parameters")
    if not bool(np.all(np.abs(flat) <= MAX_WEIGHT)):
        raise QuarantinedError("range", f"flat: expected numbers within +-{MAX_WEIGHT:g}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MlpSummary:
    """Parameters of a net and the rows that they were learnt from; merges by weighted mean.

    Parameters
    ----------
    n
        Rows learnt, >= 0; 0 says nothing and is the identity of the merge.
    basis
        Number of the basis whose bins the net reads.
    n_features
        Columns of a row.
    flat
        float32 of shape (n_parameters(n_features),), finite; empty where ``n`` is 0.

    Raises
    ------
    InvalidInputError
        If a field is outside its range.
    """

    n: int
    basis: int
    n_features: int
    flat: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not self.n >= 0:
            raise InvalidInputError(f"n: expected 0 or more, got {self.n}")
        expected = n_parameters(self.n_features) if self.n else len(self.flat)
        if self.flat.shape != (expected,) or self.flat.dtype != np.float32:
            raise InvalidInputError(
                f"flat: expected float32 of shape ({expected},), "
                f"got {self.flat.dtype} of shape {self.flat.shape}"
            )
        if not bool(np.all(np.isfinite(self.flat))):
            raise InvalidInputError("flat: expected finite numbers")

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the summary as plain arrays for the wire."""
        about = np.array([self.n, self.basis, self.n_features], np.int64)
        return {"about": about, "flat": self.flat}

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return what `arrays` gave."""
        n, basis, n_features = np.asarray(arrays["about"], np.int64).tolist()
        flat = np.array(arrays["flat"], np.float32)
        return cls(n=n, basis=basis, n_features=n_features, flat=flat)


NOTHING = MlpSummary(n=0, basis=0, n_features=0, flat=np.empty(0, np.float32))


def merge(summaries: Sequence[MlpSummary]) -> MlpSummary:
    """Return the mean of parameters, weighted by rows, in an order that members do not choose.

    Merging is commutative to the bit, and associative up to the rounding to float32.

    Parameters
    ----------
    summaries
        Of members; those of 0 rows are left out.

    Raises
    ------
    IncompatibleSummaryError
        If members learnt on different bases or shapes.
    """
    given = [each for each in summaries if each.n > 0]
    if not given:
        return NOTHING
    kinds = sorted({(each.basis, each.n_features) for each in given})
    if len(kinds) > 1:
        raise IncompatibleSummaryError(
            f"expected nets of one basis and number of features, got {kinds}"
        )
    ordered = sorted(given, key=lambda each: (each.n, each.flat.tobytes()))
    total = np.zeros(len(ordered[0].flat))
    for each in ordered:
        total += float(each.n) * each.flat.astype(np.float64)
    n = sum(each.n for each in ordered)
    basis, n_features = kinds[0]
    flat = (total / float(n)).astype(np.float32)
    return MlpSummary(n=n, basis=basis, n_features=n_features, flat=flat)


def level_table(binning: Binning) -> NDArray[np.float32]:
    """Return the level of each ordinal, shape (n_features, 255): -1 to 1, 0 where absent."""
    table = np.zeros((binning.n_features, 255), np.float32)
    for feature, n in enumerate(binning.n_edges.tolist()):
        if n:
            table[feature, 1 : n + 2] = 2.0 * np.arange(n + 1) / n - 1.0
    return table


def inputs(levels: NDArray[np.float32], found: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what the net sees of ordinals: levels, then flags of absence; (n, 2 n_features).

    Parameters
    ----------
    levels
        Result of `level_table`.
    found
        Result of `models.families.ordinals.ordinals`.
    """
    seen = levels[np.arange(len(levels)), found]
    return np.concatenate([seen, (found == ABSENT).astype(np.float32)], axis=1)


def layers(flat: NDArray[np.float32], n_features: int) -> tuple[NDArray[np.float32], ...]:
    """Return W1, b1, W2, b2, w3, b3 as views of the flat array."""
    w1, b1, w2, b2, w3, b3 = split(flat, 2 * n_features)
    return w1, b1, w2, b2, w3.reshape(-1), b3


class MlpScorer:
    """A frozen net that scores alike on every machine; log-odds within +-30.

    Parameters
    ----------
    summary
        Its parameters, of at least one row.
    binning
        Of the basis that the summary names.

    Raises
    ------
    IncompatibleSummaryError
        If the summary was learnt on another basis.
    """

    def __init__(self, summary: MlpSummary, binning: Binning) -> None:
        asked, given = (summary.basis, summary.n_features), (binning.number, binning.n_features)
        if asked != given:
            raise IncompatibleSummaryError(
                f"expected the basis and number of features {asked} of the net, got {given}"
            )
        self._binning = binning
        self._levels = level_table(binning)
        self._layers = split(summary.flat, 2 * summary.n_features)

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds of shape (n,) of rows of shape (n, n_features)."""
        x = inputs(self._levels, ordinals(self._binning, rows))
        return np.clip(run(self._layers, x).astype(np.float64), -MAX_LOGIT, MAX_LOGIT)
