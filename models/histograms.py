"""Mergeable histograms of feature values on one fixed grid, so that merging is adding counts.

The grid is log-linear: the cell of a float32 is its sign, its exponent and the upper seven bits of
its mantissa, so a cell is at most 1/128 of its value wide (relative error of a quantile <= 0.8 %)
for magnitudes from 2**-14 to 2**24; smaller values share the middle cell, larger ones the last.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

_MANTISSA_BITS = 7
_SHIFT = 23 - _MANTISSA_BITS
_LOWEST = (127 - 14) << _MANTISSA_BITS
_HIGHEST = (127 + 24) << _MANTISSA_BITS
_SIDE = _HIGHEST - _LOWEST
N_CELLS = 2 * _SIDE + 1
"""Cells per feature and class; cell ``N_CELLS // 2`` holds zero."""


@nb.njit(cache=True)
def cell_of_bits(bits: int) -> int:
    """Return the cell of a float32, given as its bits; compiled."""
    side = ((bits & 0x7FFFFFFF) >> _SHIFT) - _LOWEST
    if side < 0:
        return _SIDE
    if side >= _SIDE:
        side = _SIDE - 1
    return _SIDE - 1 - side if bits >> 31 else _SIDE + 1 + side


@nb.njit(cache=True)
def _count(bits, missing, is_fraud, counts):  # type: ignore[no-untyped-def]  # compiled
    for i in range(bits.shape[0]):
        y = 1 if is_fraud[i] else 0
        for j in range(bits.shape[1]):
            if not missing[i, j]:
                counts[j, y, cell_of_bits(bits[i, j])] += 1


def add_rows(
    counts: NDArray[np.uint32], rows: NDArray[np.float32], is_fraud: NDArray[np.bool_]
) -> None:
    """Count rows in place; a NaN is absent and not counted.

    Parameters
    ----------
    counts
        uint32 of shape (n_features, 2, N_CELLS): feature, class (1 for fraud), cell.
    rows
        float32 of shape (n, n_features).
    is_fraud
        bool of shape (n,).
    """
    rows = np.ascontiguousarray(rows)
    _count(rows.view(np.uint32), np.isnan(rows), is_fraud, counts)


@nb.njit(cache=True)
def _cells(bits, missing, out):  # type: ignore[no-untyped-def]  # compiled
    for i in range(bits.shape[0]):
        out[i] = -1 if missing[i] else cell_of_bits(bits[i])


def cells_of(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the cell of each of shape (n,), -1 for NaN."""
    values = np.ascontiguousarray(values)
    out = np.empty(len(values), np.int64)
    _cells(values.view(np.uint32), np.isnan(values), out)
    return out


def empty_counts(n_features: int) -> NDArray[np.uint32]:
    """Return the identity of merging."""
    return np.zeros((n_features, 2, N_CELLS), np.uint32)


def lower_edges() -> NDArray[np.float32]:
    """Return the smallest float32 of each cell, ascending; the first cell reaches to -inf."""
    magnitude = (np.arange(_LOWEST, _HIGHEST, dtype=np.uint32) << _SHIFT).view(np.float32)
    upper = (np.arange(_LOWEST + 1, _HIGHEST + 1, dtype=np.uint32) << _SHIFT).view(np.float32)
    negative = np.nextafter(-upper[::-1], np.float32(np.inf))
    zero = np.nextafter(-magnitude[:1], np.float32(np.inf))
    return np.concatenate([negative, zero, magnitude])


def quantile_edges(
    counts: NDArray[np.int64], quantiles: NDArray[np.float64], *, edges: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return ascending distinct bin edges at quantiles of one feature; none where all is one cell.

    Parameters
    ----------
    counts
        Integers of shape (N_CELLS,).
    quantiles
        In (0, 1).
    edges
        Result of `lower_edges`.

    Notes
    -----
    The edge at a quantile is the lower end of its cell, so a value that repeats stays in one bin.
    An edge with nothing below it would make an empty bin and is left out.
    """
    below = np.cumsum(counts)
    total = below[-1]
    if total == 0:
        return np.empty(0, np.float32)
    cells: NDArray[np.intp] = np.unique(
        np.searchsorted(below, np.ceil(quantiles * total), side="left")
    )
    return edges[cells[below[cells] > counts[cells]]]


def to_cells(counts: NDArray[np.uint32]) -> dict[str, NDArray[np.generic]]:
    """Return the non-zero counts as the arrays of a ``histograms`` contribution."""
    feature, is_fraud, cell = np.nonzero(counts)
    return {
        "feature": feature.astype(np.int16),
        "is_fraud": is_fraud.astype(np.uint8),
        "cell": cell.astype(np.int16),
        "count": counts[feature, is_fraud, cell],
    }
