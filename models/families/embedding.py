"""Statistics of one basis as statistics of another, for the transforms that both have.

A and b are a quadratic model of the log-loss in all weights w of the old basis. What the new one
does not have is held where it was, at w_r of the old basis' last solution w; the model in the
weights that are common, c, is then A_cc and b_c - A_cr w_r. In terms of rows that is::

    A_cc = sum v h x_c x_c^T        b_c' = sum ((y - p) + v h (z - x_r w_r)) x_c

so common weights keep the part that they played beside the others, instead of taking over all of
z. Where nothing of the old basis is missing in the new, it is the old model to the bit.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.basis import MISSING


@nb.njit(cache=True)
def _embed(packed, weights, places, curvature, gradient):  # type: ignore[no-untyped-def]  # compiled
    n_old, n_new = len(places), len(gradient)
    k = 0
    for i in range(n_old):
        p = places[i]
        for j in range(i, n_old):
            q = places[j]
            if p >= 0 and q >= 0:
                row, column = min(p, q), max(p, q)
                curvature[row * n_new - row * (row - 1) // 2 + column - row] = packed[k]
            elif p >= 0:
                gradient[p] -= packed[k] * weights[j]
            elif q >= 0:
                gradient[q] -= packed[k] * weights[i]
            k += 1


def embed(
    packed: NDArray[np.float32],
    gradient: NDArray[np.float64],
    *,
    weights: NDArray[np.float64],
    places: NDArray[np.int64],
    n_weights: int,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return (packed A, b) on another basis; O(w ** 2), sums in one fixed order.

    Parameters
    ----------
    packed, gradient
        Upper triangle of A, shape (w * (w + 1) / 2,), and b, shape (w,), of the old basis.
    weights
        float64 of shape (w,): of the old basis, where the transforms that are left out stay.
    places
        int64 of shape (w,): the new place of each weight, `models.basis.MISSING` for none.
    n_weights
        Weights of the new basis.
    """
    curvature = np.zeros(n_weights * (n_weights + 1) // 2, packed.dtype)
    embedded = np.zeros(n_weights)
    common = np.flatnonzero(places != MISSING)
    embedded[places[common]] = gradient[common]
    _embed(packed, weights, places, curvature, embedded)
    return curvature, embedded
