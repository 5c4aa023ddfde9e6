"""What drift is seen in: coarse counts of feature values, sums of outcomes against scores.

Both are sums in the order of rows, so the same rows give the same bits however they were cut into
batches. The cell of a float32 is its sign, exponent and the upper two bits of its mantissa: four
cells an octave for magnitudes from 2**-8 to 2**20, one for zero, one for absent.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError

_MANTISSA_BITS = 2
_SHIFT = 23 - _MANTISSA_BITS
_LOWEST = (127 - 8) << _MANTISSA_BITS
_HIGHEST = (127 + 20) << _MANTISSA_BITS
_SIDE = _HIGHEST - _LOWEST
N_COARSE = 2 * _SIDE + 2
"""Cells of a feature; the last holds what is absent."""
N, FRAUDS, EXPECTED, VARIANCE, EXCESS, ENTROPY, EXCESS_VARIANCE = range(7)
N_SUMS = 7
"""Columns of an expert's sums, see `add_outcomes`."""
_MAX_LOGIT = 12.0
_MIN_SHARE = 0.05


@nb.njit(cache=True)
def _count(bits, columns, counts):  # type: ignore[no-untyped-def]  # compiled
    for i in range(bits.shape[0]):
        for j in range(columns.shape[0]):
            of_value = bits[i, columns[j]]
            magnitude = of_value & 0x7FFFFFFF
            if magnitude > 0x7F800000:
                counts[j, N_COARSE - 1] += 1
                continue
            side = min(max((magnitude >> _SHIFT) - _LOWEST + 1, 0), _SIDE)
            counts[j, _SIDE - side if of_value >> 31 else _SIDE + side] += 1


def count_coarse(
    counts: NDArray[np.uint32], rows: NDArray[np.float32], columns: NDArray[np.int64]
) -> None:
    """Count some columns of rows in place.

    Parameters
    ----------
    counts
        uint32 of shape (n_columns, N_COARSE).
    rows
        float32 of shape (n, n_features); NaN is absent.
    columns
        int64 of shape (n_columns,): which features are counted.
    """
    if counts.shape != (len(columns), N_COARSE):
        raise InvalidInputError(
            f"counts: expected shape {(len(columns), N_COARSE)}, got {counts.shape}"
        )
    if rows.ndim != 2 or not bool(np.all((columns >= 0) & (columns < rows.shape[1]))):
        raise InvalidInputError(f"rows: expected the columns asked for, got shape {rows.shape}")
    _count(np.ascontiguousarray(rows).view(np.uint32), columns, counts)


@nb.njit(cache=True)
def _add(scores, is_fraud, sums):  # type: ignore[no-untyped-def]  # compiled
    for i in range(scores.shape[0]):
        y = 1.0 if is_fraud[i] else 0.0
        for j in range(scores.shape[1]):
            z = min(max(scores[i, j], -_MAX_LOGIT), _MAX_LOGIT)
            if np.isnan(z):
                continue
            p = 1.0 / (1.0 + np.exp(-z))
            spread = p * (1.0 - p)
            of_expert = sums[j]
            of_expert[N] += 1.0
            of_expert[FRAUDS] += y
            of_expert[EXPECTED] += p
            of_expert[VARIANCE] += spread
            of_expert[EXCESS] += (p - y) * z
            of_expert[ENTROPY] += np.log1p(np.exp(-abs(z))) + max(z, 0.0) - p * z
            of_expert[EXCESS_VARIANCE] += spread * z * z


def add_outcomes(
    sums: NDArray[np.float64], scores: NDArray[np.float64], is_fraud: NDArray[np.bool_]
) -> None:
    """Add outcomes to the experts' sums in place.

    With p = 1/(1+e^-z) of a score z, clipped to +-12, and outcome y: rows, sum y, sum p,
    sum p (1 - p), sum (p - y) z, the log-loss expected of the scores, and sum p (1 - p) z z.
    sum (p - y) z is the log-loss above the expected one. Under calibrated scores sum (y - p) and
    sum (p - y) z have mean 0 and the variances given, by night and day alike.

    Parameters
    ----------
    sums
        float64 of shape (n_experts, N_SUMS).
    scores
        float64 of shape (n, n_experts): log-odds, NaN where an expert had none.
    is_fraud
        bool of shape (n,).
    """
    if scores.ndim != 2 or sums.shape != (scores.shape[1], N_SUMS):
        raise InvalidInputError(
            f"expected sums of shape (n_experts, {N_SUMS}) and scores of as many experts, "
            f"got {sums.shape} and {scores.shape}"
        )
    _add(np.ascontiguousarray(scores, np.float64), np.asarray(is_fraud, np.bool_), sums)


def stability_index(reference: NDArray[np.integer], current: NDArray[np.integer]) -> float:
    """Return the population stability index of one feature, what sampling makes of it taken off.

    Parameters
    ----------
    reference, current
        Integers of shape (N_COARSE,): two histograms, neither empty.

    Notes
    -----
    The index is the sum over groups of (a - b) log(a / b), a and b being shares [1]_. Neighbouring
    cells are grouped until each group holds 5 % of the mean of both histograms; absent is a group
    of its own. Equal distributions give about (groups - 1) (1/n + 1/m) by chance; that is taken
    off, and what is left is at least 0.

    References
    ----------
    .. [1] Yurdakul (2018), Statistical Properties of the Population Stability Index.
    """
    n, m = int(reference.sum()), int(current.sum())
    if not (n > 0 and m > 0):
        raise InvalidInputError(f"stability index: expected rows on both sides, got {n} and {m}")
    group = _groups(reference / n + current / m)
    n_groups = int(group[-1]) + 1
    a = (np.bincount(group, weights=reference) + 0.5) / (n + 0.5 * n_groups)
    b = (np.bincount(group, weights=current) + 0.5) / (m + 0.5 * n_groups)
    index = float(np.sum((a - b) * np.log(a / b)))
    return max(index - (n_groups - 1) * (1.0 / n + 1.0 / m), 0.0)


def _groups(mass: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the group of each cell; ``mass`` sums to 2."""
    group = np.zeros(N_COARSE, np.int64)
    gathered, current = 0.0, 0
    for cell in np.flatnonzero(mass[:-1]).tolist():
        if gathered >= 2.0 * _MIN_SHARE:
            gathered, current = 0.0, current + 1
        group[cell] = current
        gathered += float(mass[cell])
    if gathered < 2.0 * _MIN_SHARE and current > 0:
        group[group == current] = current - 1
        current -= 1
    group[-1] = current + 1 if mass[-1] > 0.0 else current
    return group
