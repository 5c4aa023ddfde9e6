"""The distilled student, frozen: a small network on the bins of a basis; needs no torch."""

from dataclasses import dataclass, field, replace

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.basis import Basis, encode, feature_weights, first_weights
from models.families.network import Layers, check_parameters, run, split
from models.families.scorecard import MAX_LOGIT
from models.trees import together

_BLOCK = 50_000


def n_inputs(n_features: int) -> int:
    """Return the columns of `inputs`."""
    return 2 * n_features


@nb.njit(cache=True)
def _inputs(active, first, last, out):  # type: ignore[no-untyped-def]  # compiled
    n_features = first.shape[0]
    for i in range(active.shape[0]):
        for j in range(n_features):
            a = active[i, 1 + j]
            if a < 0:
                out[i, j] = 0.0
                out[i, n_features + j] = 1.0
            else:
                width = max(last[j] - first[j], 1)
                out[i, j] = np.float32(2 * (a - first[j]) - width) / np.float32(width)
                out[i, n_features + j] = 0.0


def inputs(basis: Basis, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network sees: each feature's bin on [-1, 1], then which are absent.

    Parameters
    ----------
    basis
        Of the same schema as the rows.
    rows
        float32 of shape (n, n_features), NaN is absent.

    Returns
    -------
    ndarray of shape (n, 2 * n_features), float32
        The bin is 0 where the feature is absent or without weights, -1 where it has one bin only.
    """
    active = feature_weights(basis, encode(basis, rows))
    first = first_weights(basis)
    out = np.empty((len(rows), n_inputs(basis.n_features)), np.float32)
    _inputs(active, first, first + basis.n_edges, out)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Distilled:
    """A frozen scorer.

    Parameters
    ----------
    basis
        Whose bins the network was trained on.
    parameters
        float32 of shape (n_parameters(2 * n_features),), see `models.families.network`.

    Raises
    ------
    InvalidInputError
        If the parameters do not fit the basis.
    """

    basis: Basis
    parameters: NDArray[np.float32]
    bins: Basis = field(init=False, repr=False)
    layers: Layers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n = n_inputs(self.basis.n_features)
        check_parameters(self.parameters, n)
        object.__setattr__(self, "layers", split(self.parameters, n))
        # it looks at no cross and at no tree: they need not be encoded for it
        bare = replace(self.basis, crosses=np.empty((0, 2), np.int32), trees=together([]))
        object.__setattr__(self, "bins", bare)

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds within +-30; about a microsecond a row.

        Parameters
        ----------
        rows
            float32 of shape (n, n_features), NaN is absent.
        """
        out = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            out[block] = run(self.layers, inputs(self.bins, rows[block]))
        return np.clip(out, -MAX_LOGIT, MAX_LOGIT)
