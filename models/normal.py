"""The standard normal distribution in plain arithmetic, so that samples are the same anywhere.

A processor's or a library's own ``erf`` and ``exp`` differ in the last bit between machines, and a
synthetic transaction that lies on the border of a cell with them.
"""

from statistics import NormalDist

import numba as nb
import numpy as np
from numpy.typing import NDArray

_STANDARD = NormalDist()
_FAR = 8.0  # beyond it the tail is below 1e-15
_LOG_SQRT_2_PI = 0.9189385332046727


@nb.njit(cache=True)
def _exp_minus(t):  # type: ignore[no-untyped-def]  # compiled
    """Return e^-t for t >= 0: a series at t / 1024, squared ten times."""
    x = -t / 1024.0
    term = total = 1.0
    for k in range(1, 14):
        term *= x / k
        total += term
    for _ in range(10):
        total *= total
    return total


@nb.njit(cache=True)
def _cdf(x, out):  # type: ignore[no-untyped-def]  # compiled
    for i in range(x.shape[0]):
        z = x[i]
        if z <= -_FAR:
            out[i] = 0.0
        elif z >= _FAR:
            out[i] = 1.0
        else:
            total = term = z
            k = 1.0
            while total + term != total:
                k += 2.0
                term *= z * z / k
                total += term
            p = 0.5 + total * _exp_minus(0.5 * z * z + _LOG_SQRT_2_PI)
            out[i] = min(max(p, 0.0), 1.0)


def cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of a standard normal variable below each value; error <= 1e-12.

    Parameters
    ----------
    x
        float64 of any shape, finite.

    References
    ----------
    .. [1] Marsaglia (2004), Journal of Statistical Software 11(4), the series.

    Examples
    --------
    >>> cdf(np.array([0.0, 1.96])).round(4).tolist()
    [0.5, 0.975]
    """
    flat = np.ascontiguousarray(x).reshape(-1)
    out = np.empty_like(flat)
    _cdf(flat, out)
    return out.reshape(x.shape)


def quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the value below which the share p lies; +-8 at 0 and 1. For tables: slow.

    Parameters
    ----------
    p
        float64 of shape (n,), in [0, 1].
    """
    return np.array(
        [
            -_FAR if one <= 0.0 else _FAR if one >= 1.0 else _STANDARD.inv_cdf(one)
            for one in p.tolist()
        ]
    )


def density(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard normal density."""
    return np.exp(-0.5 * x * x - _LOG_SQRT_2_PI)
