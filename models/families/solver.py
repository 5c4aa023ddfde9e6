"""The weights of normal equations: solve(A + ridge I, b + ridge w0), A square or packed."""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.families.cholesky import factor_positive, substitute


def n_packed(n_weights: int) -> int:
    """Return the elements of an upper triangle."""
    return n_weights * (n_weights + 1) // 2


@nb.njit(cache=True)
def _pack(square, packed):  # type: ignore[no-untyped-def]  # compiled
    k = 0
    for i in range(square.shape[0]):
        for j in range(i, square.shape[0]):
            packed[k] = square[i, j]
            k += 1


@nb.njit(cache=True)
def _unpack(packed, square):  # type: ignore[no-untyped-def]  # compiled
    k = 0
    for i in range(square.shape[0]):
        for j in range(i, square.shape[0]):
            square[i, j] = packed[k]
            k += 1


def pack(square: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper triangle row by row, shape (w * (w + 1) / 2,)."""
    packed = np.empty(n_packed(len(square)))
    _pack(square, packed)
    return packed


def unpack(packed: NDArray[np.floating], n_weights: int) -> NDArray[np.float64]:
    """Return the square matrix, zero below the diagonal, of a packed upper triangle."""
    square = np.zeros((n_weights, n_weights))
    _unpack(packed, square)
    return square


def solve(
    packed: NDArray[np.floating],
    gradient: NDArray[np.float64],
    *,
    ridge: float | NDArray[np.float64],
    prior_logit: float,
) -> NDArray[np.float64]:
    """Return w = (A + ridge I)^-1 (b + ridge w0), w0 being ``prior_logit`` on the bias.

    Parameters
    ----------
    packed
        Upper triangle of A, shape (w * (w + 1) / 2,).
    gradient
        b, shape (w,).
    ridge
        lambda > 0, in units of curvature; one for all weights or one each.
    prior_logit
        Log-odds of fraud before any data.

    Raises
    ------
    numpy.linalg.LinAlgError
        If A + ridge I is not positive definite.
    """
    return solve_square(
        unpack(packed, len(gradient)), gradient, ridge=ridge, prior_logit=prior_logit
    )


def solve_square(
    curvature: NDArray[np.float64],
    gradient: NDArray[np.float64],
    *,
    ridge: float | NDArray[np.float64],
    prior_logit: float,
) -> NDArray[np.float64]:
    """Do what `solve` does for a square A of which the upper triangle is used.

    Weights without any curvature keep their prior and are left out of the factorisation.
    """
    return Solver(curvature, ridge=ridge, prior_logit=prior_logit).solve(gradient)


@nb.njit(cache=True)
def _part(square, index):  # type: ignore[no-untyped-def]  # compiled
    """Return the upper triangle of rows and columns of a square; zero below the diagonal."""
    out = np.zeros((len(index), len(index)))
    for i in range(len(index)):
        for j in range(i, len(index)):
            out[i, j] = square[index[i], index[j]]
    return out


class Solver:
    """A + ridge I, factored once for several right sides.

    Parameters
    ----------
    curvature
        Square A, of which the upper triangle is used.
    ridge, prior_logit
        As in `solve`.

    Raises
    ------
    numpy.linalg.LinAlgError
        If A + ridge I is not positive definite.
    """

    def __init__(
        self,
        curvature: NDArray[np.float64],
        *,
        ridge: float | NDArray[np.float64],
        prior_logit: float,
    ) -> None:
        self._seen = np.flatnonzero(np.diag(curvature) > 0)
        self._prior = np.zeros(len(curvature))
        self._prior[0] = prior_logit
        self._pull = np.broadcast_to(ridge, len(curvature))[self._seen]
        system = _part(curvature, self._seen)
        system[np.diag_indices(len(self._seen))] += self._pull
        self._upper = factor_positive(system)

    def solve(self, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return w = (A + ridge I)^-1 (b + ridge w0)."""
        weights, seen = self._prior.copy(), self._seen
        weights[seen] = substitute(self._upper, gradient[seen] + self._pull * weights[seen])
        return weights

    def step(self, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (A + ridge I)^-1 residual, 0 where there is no curvature."""
        out = np.zeros(len(residual))
        out[self._seen] = substitute(self._upper, residual[self._seen])
        return out
