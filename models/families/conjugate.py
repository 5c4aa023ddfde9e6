"""Solving with packed symmetric matrices by conjugate gradients, to the same bits on any machine.

For judgements that need a solution to a few digits, not the last bit, and for systems near one that
is factored already: a dozen products with the matrix instead of a factorisation. Products are
compiled without re-association or fused operations, and sums run in one fixed order.
"""

from collections.abc import Callable
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.packed import diagonal
from models.vectors import LANES, multiply_row


class Solution(NamedTuple):
    """What `solve_packed` found.

    ``is_positive`` is False where a direction with negative curvature was met: the matrix is not
    positive definite and ``x`` is no solution.
    """

    x: NDArray[np.float64]
    n_steps: int
    is_positive: bool


@nb.njit(cache=True)
def _multiply(packed, x, out):  # type: ignore[no-untyped-def]  # compiled
    n = len(x)
    out[:] = 0.0
    start = 0
    for i in range(n):
        m = n - i
        whole = m // LANES * LANES
        above = out[i]
        # Eight sums side by side: a single chain would wait for every addition.
        s0, s1, s2, s3, s4, s5, s6, s7 = multiply_row(packed, start, x, out, i, whole)
        for j in range(whole, m):
            s0 += packed[start + j] * x[i + j]
            out[i + j] += packed[start + j] * x[i]
        # What the diagonal has added to its own column is in the sums.
        out[i] = above + (((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)))
        start += m


def multiply(packed: NDArray[np.floating], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return A x for the packed upper triangle of a symmetric A.

    Parameters
    ----------
    packed
        Row by row, shape (w * (w + 1) / 2,), float32 or float64.
    x
        Shape (w,).
    """
    out = np.empty(len(x))
    _multiply(packed, x, out)
    return out


@nb.njit(cache=True)
def _quadratics(packed, linear, points, out):  # type: ignore[no-untyped-def]  # compiled
    n, n_points = points.shape
    above = np.empty(n_points)
    out[:] = 0.0
    start = 0
    for i in range(n):
        half = 0.5 * packed[start]
        for c in range(n_points):
            above[c] = half * points[i, c] - linear[i]
        for j in range(i + 1, n):
            element = np.float64(packed[start + j - i])
            for c in range(n_points):
                above[c] += element * points[j, c]
        for c in range(n_points):
            out[c] += points[i, c] * above[c]
        start += n - i


def quadratics(
    packed: NDArray[np.floating], linear: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return x'A x / 2 - b'x at each of some points, for one reading of A.

    Parameters
    ----------
    packed
        Upper triangle of A, as in `multiply`.
    linear
        b, shape (w,).
    points
        x, one a column: shape (w, n).
    """
    out = np.empty(points.shape[1])
    _quadratics(packed, linear, np.ascontiguousarray(points), out)
    return out


def solve_packed(
    packed: NDArray[np.floating],
    target: NDArray[np.float64],
    *,
    ridge: float,
    start: NDArray[np.float64] | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 200,
) -> Solution:
    """Solve (A + ridge I) x = target, preconditioned by the diagonal.

    Parameters
    ----------
    packed
        Upper triangle of A.
    target
        Shape (w,).
    ridge
        > 0.
    start
        First guess; zeros if None.
    tolerance
        The residual's norm, in the preconditioner's metric and relative to the target's, at which
        to stop.
    max_steps
        At most so many products.
    """
    scale = 1.0 / np.maximum(diagonal(packed, len(target)) + ridge, ridge)
    x = np.zeros(len(target)) if start is None else start.copy()
    residual = target - multiply(packed, x) - ridge * x
    z = scale * residual
    direction = z.copy()
    size = float(np.sum(residual * z))
    goal = tolerance**2 * float(np.sum(target * scale * target))
    for step in range(max_steps):
        if not size > goal:
            return Solution(x, step, is_positive=True)
        image = multiply(packed, direction) + ridge * direction
        curvature = float(np.sum(direction * image))
        if not curvature > 0.0:
            return Solution(x, step, is_positive=False)
        length = size / curvature
        x += length * direction
        residual -= length * image
        z = scale * residual
        new_size = float(np.sum(residual * z))
        direction = z + (new_size / size) * direction
        size = new_size
    return Solution(x, max_steps, is_positive=True)


@nb.njit(cache=True)
def _dot(a, b):  # type: ignore[no-untyped-def]  # compiled
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


def solve_near(
    near: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    packed: NDArray[np.floating],
    target: NDArray[np.float64],
    *,
    factor: float,
    tolerance: float = 1e-9,
    max_steps: int = 200,
) -> Solution:
    """Solve (M + factor A) x = target, preconditioned by M, of which only M^-1 is needed.

    Where A is a part of M, eigenvalues of the preconditioned matrix lie in [1, 1 + factor]: with a
    factor of 3 each step takes two thirds off the error. M p is not multiplied out: p is a sum of
    vectors M^-1 r, whose images are known.

    Parameters
    ----------
    near
        r -> M^-1 r.
    packed
        Upper triangle of A.
    target
        Shape (w,).
    factor
        Of A, > 0.
    tolerance, max_steps
        As in `solve_packed`.
    """
    x, residual = np.zeros(len(target)), target.copy()
    z = near(residual)
    direction, near_image = z.copy(), residual.copy()
    size = float(_dot(residual, z))
    goal = tolerance**2 * size
    for step in range(max_steps):
        if not size > goal:
            return Solution(x, step, is_positive=True)
        image = near_image + factor * multiply(packed, direction)
        curvature = float(_dot(direction, image))
        if not curvature > 0.0:
            return Solution(x, step, is_positive=False)
        length = size / curvature
        x += length * direction
        residual -= length * image
        z = near(residual)
        new_size = float(_dot(residual, z))
        direction = z + (new_size / size) * direction
        near_image = residual + (new_size / size) * near_image
        size = new_size
    return Solution(x, max_steps, is_positive=True)
