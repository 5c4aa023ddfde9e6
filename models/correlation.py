"""The nearest correlation matrix, by plain compiled arithmetic: the same bits on any machine."""

import numba as nb
import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-4
_MAX_SWEEPS = 30
_ROUNDS = 12
_ENOUGH = 1e-6


@nb.njit(cache=True)
def _rotate(a, vectors, p, q):  # type: ignore[no-untyped-def]  # compiled
    """Turn the plane (p, q) so that a[p, q] becomes 0; ``vectors`` holds one vector a row."""
    theta = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
    t = 1.0 / (abs(theta) + np.sqrt(theta * theta + 1.0))
    if theta < 0.0:
        t = -t
    c = 1.0 / np.sqrt(t * t + 1.0)
    s = t * c
    for k in range(a.shape[0]):
        u, w = a[p, k], a[q, k]
        a[p, k] = c * u - s * w
        a[q, k] = s * u + c * w
    for k in range(a.shape[0]):
        u, w = a[k, p], a[k, q]
        a[k, p] = c * u - s * w
        a[k, q] = s * u + c * w
        u, w = vectors[p, k], vectors[q, k]
        vectors[p, k] = c * u - s * w
        vectors[q, k] = s * u + c * w


@nb.njit(cache=True)
def _jacobi(a, vectors):  # type: ignore[no-untyped-def]  # compiled
    n = a.shape[0]
    for _ in range(_MAX_SWEEPS):
        largest = 0.0
        for p in range(n):
            for q in range(p + 1, n):
                largest = max(largest, abs(a[p, q]))
        if largest < 1e-11:
            break
        for p in range(n):
            for q in range(p + 1, n):
                if abs(a[p, q]) > 1e-13:
                    _rotate(a, vectors, p, q)


def eigen(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the eigenvalues of a symmetric matrix, unsorted, and one eigenvector a row.

    Cyclic Jacobi rotations; O(n ** 3) for each of about eight sweeps.

    Parameters
    ----------
    matrix
        float64 of shape (n, n).
    """
    a, vectors = matrix.copy(), np.eye(len(matrix))
    _jacobi(a, vectors)
    return np.diag(a).copy(), vectors


@nb.njit(cache=True)
def _rebuild(values, vectors, out):  # type: ignore[no-untyped-def]  # compiled
    n = len(values)
    out[:] = 0.0
    for k in range(n):
        for i in range(n):
            f = values[k] * vectors[k, i]
            for j in range(n):
                out[i, j] += f * vectors[k, j]


def _clipped(matrix: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    values, vectors = eigen(matrix)
    out = np.empty_like(matrix)
    _rebuild(np.maximum(values, floor), vectors, out)
    return (out + out.T) / 2.0


def nearest_correlation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a positive definite matrix with unit diagonal near a symmetric one.

    Alternating projections with Dykstra's correction, then eigenvalues of at least ``FLOOR``
    before the diagonal is scaled back to 1. A matrix that is one already comes back as it is.

    Parameters
    ----------
    matrix
        float64 of shape (n, n), symmetric, unit diagonal.

    References
    ----------
    .. [1] Higham (2002), IMA Journal of Numerical Analysis 22(3), 329-343.
    """
    if len(matrix) == 0 or float(eigen(matrix)[0].min()) >= FLOOR:
        return matrix.copy()
    current, correction = matrix.copy(), np.zeros_like(matrix)
    for _ in range(_ROUNDS):
        shifted = current - correction
        projected = _clipped(shifted, 0.0)
        correction = projected - shifted
        moved = float(np.max(np.abs(np.diag(projected) - 1.0)))
        current = projected
        np.fill_diagonal(current, 1.0)
        if moved < _ENOUGH:
            break
    current = _clipped(current, FLOOR)
    scale = np.sqrt(np.diag(current))
    current = current / scale[:, None] / scale[None, :]
    np.fill_diagonal(current, 1.0)
    return current


@nb.njit(cache=True)
def _cholesky(a):  # type: ignore[no-untyped-def]  # compiled
    """Turn the lower triangle into L with L L^T = a; return False where there is none."""
    n = a.shape[0]
    for i in range(n):
        for j in range(i + 1):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            if i != j:
                a[i, j] = total / a[j, j]
            elif total > 0.0:
                a[i, i] = np.sqrt(total)
            else:
                return False
        for j in range(i + 1, n):
            a[i, j] = 0.0
    return True


def factor(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lower triangular L with L L^T = matrix.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite.
    """
    lower = matrix.copy()
    if not _cholesky(lower):
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return lower


@nb.njit(cache=True)
def _mix(normal, lower, out):  # type: ignore[no-untyped-def]  # compiled
    for i in range(normal.shape[0]):
        for j in range(lower.shape[0]):
            total = 0.0
            for k in range(j + 1):
                total += lower[j, k] * normal[i, k]
            out[i, j] = total


def correlated(normal: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return independent standard normal rows mixed to the correlation L L^T.

    Parameters
    ----------
    normal
        float64 of shape (n, k).
    lower
        Result of `factor`, shape (k, k).
    """
    out = np.empty_like(normal)
    _mix(normal, lower, out)
    return out
