"""Symmetric matrices as their upper triangle, row by row: where the diagonal lies."""

import numba as nb
import numpy as np
from numpy.typing import NDArray


def diagonal_places(n: int) -> NDArray[np.int64]:
    """Return where the diagonal of n rows lies, which is where each row begins; shape (n,)."""
    rows = np.arange(n, dtype=np.int64)
    return rows * n - rows * (rows - 1) // 2


def diagonal(packed: NDArray[np.floating], n: int) -> NDArray[np.float64]:
    """Return the diagonal of n rows as float64."""
    return packed[diagonal_places(n)].astype(np.float64)


@nb.njit(cache=True)
def _add_scaled(total, factor, packed):  # type: ignore[no-untyped-def]  # compiled
    for i in range(len(total)):
        total[i] += factor * packed[i]


def add_scaled(total: NDArray[np.float64], factor: float, packed: NDArray[np.floating]) -> None:
    """Add a multiple in place, product by product in float64, without a copy on the way."""
    _add_scaled(total, factor, packed)
