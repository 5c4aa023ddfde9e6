"""Packed curvatures as float32 where the rounding cannot matter; pure.

Rounding moves each element by at most 2^-24 of itself, and so x'Ax by at most 2^-24 R x'x, R being
the largest sum of a row (all elements are >= 0). Where that is at most half of what the ridge adds,
a matrix that is positive with the ridge stays so, and lies between those that half the ridge and
one and a half times the ridge would give. With a hundred active weights in a row and a ridge of 2
that is up to a bias' curvature of 170,000; beyond, float64 stays.
"""

import numpy as np
from numpy.typing import NDArray

from models.families.conjugate import multiply

_HALF_STEP = 2.0**-24
_SHARE = 0.5


def is_narrow(curvature: NDArray[np.floating], n: int, *, ridge: float) -> bool:
    """Return whether float32 is enough for a packed matrix of n rows and elements >= 0.

    Parameters
    ----------
    curvature
        Packed upper triangle.
    n
        Rows.
    ridge
        What is added to the diagonal before it is solved, > 0.
    """
    largest = float(multiply(curvature, np.ones(n)).max(initial=0.0))
    return _HALF_STEP * largest <= _SHARE * ridge


def narrowed(curvature: NDArray[np.float64], n: int, *, ridge: float) -> NDArray[np.floating]:
    """Return the matrix as float32 where `is_narrow`, else as it is."""
    return curvature.astype(np.float32) if is_narrow(curvature, n, ridge=ridge) else curvature
