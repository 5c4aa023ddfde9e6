"""The solver: against LAPACK, against the same arithmetic unblocked, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import numba as nb
import numpy as np
import pytest
from numpy.typing import NDArray

from models.families.cholesky import (
    factor_positive,
    inverse_positive,
    solve_positive,
    substitute,
)
from models.fused import fma

SIZES = (1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 130, 389, 600)


def system(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a positive definite matrix with eigenvalues of at least 1, and a target."""
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(n, n)) / np.sqrt(n)
    return half @ half.T + np.eye(n), rng.normal(size=n)


@nb.njit
def unblocked(u, x):
    """Solve by the textbook's right-looking factorisation, element by element, in place."""
    n = len(x)
    for k in range(n):
        root = np.sqrt(u[k, k])
        for j in range(k, n):
            u[k, j] /= root
        for i in range(k + 1, n):
            for j in range(i, n):
                u[i, j] = fma(-u[k, i], u[k, j], u[i, j])
        x[k] /= u[k, k]
        for j in range(k + 1, n):
            x[j] = fma(-x[k], u[k, j], x[j])
    for i in range(n - 1, -1, -1):
        sums = np.zeros(8)
        for j in range(i + 1, n):
            whole = (n - i - 1) // 8 * 8
            lane = (j - i - 1) % 8 if j - i - 1 < whole else 0
            sums[lane] = fma(u[i, j], x[j], sums[lane])
        for width in (1, 2, 4):
            for lane in range(0, 8, 2 * width):
                sums[lane] += sums[lane + width]
        x[i] = (x[i] - sums[0]) / u[i, i]


@pytest.mark.parametrize("n", SIZES)
def test_the_solution_is_that_of_lapack(n: int) -> None:
    """Sizes on both sides of a panel and of a tile; the eigenvalues lie in [1, 5]."""
    matrix, target = system(n)
    got = solve_positive(matrix.copy(), target)
    error = np.linalg.norm(got - np.linalg.solve(matrix, target))
    assert error <= 5 * n * np.finfo(float).eps * np.linalg.norm(got)


@pytest.mark.parametrize("n", SIZES)
def test_panels_and_tiles_do_not_change_a_bit(n: int) -> None:
    """Every element is the same chain of fused operations as without blocks."""
    matrix, target = system(n, seed=1)
    upper, expected = matrix.copy(), target.copy()
    unblocked(upper, expected)
    factored = factor_positive(matrix)
    assert np.triu(factored).tobytes() == np.triu(upper).tobytes()
    assert substitute(factored, target).tobytes() == expected.tobytes()


_PRINTED = """
from tests.unit.models.test_cholesky import system
from models.families.cholesky import solve_positive
print(solve_positive(*system(300)).tobytes().hex())
"""


@pytest.mark.slow
def test_a_processor_without_the_instruction_gives_the_same_bits(tmp_path: Path) -> None:
    """There libm's function takes its place."""
    generic = {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    printed = subprocess.run(
        [sys.executable, "-c", _PRINTED],
        env={**os.environ, **generic},
        capture_output=True,
        check=True,
        text=True,
    )
    assert printed.stdout.strip() == solve_positive(*system(300)).tobytes().hex()


@pytest.mark.parametrize("n", [2, 65, 600])
def test_only_the_upper_triangle_is_read(n: int) -> None:
    """What stands below the diagonal, even NaN, leaves the solution as it is."""
    matrix, target = system(n)
    expected = solve_positive(matrix.copy(), target)
    matrix[np.tril_indices(n, -1)] = np.nan
    assert solve_positive(matrix, target).tobytes() == expected.tobytes()


def test_the_target_is_left_alone() -> None:
    """Only the matrix is overwritten."""
    matrix, target = system(65)
    before = target.copy()
    solve_positive(matrix, target)
    assert target.tobytes() == before.tobytes()


def test_an_empty_system_has_an_empty_solution() -> None:
    """No unknown is nothing to solve, not an error."""
    assert solve_positive(np.empty((0, 0)), np.empty(0)).shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 64, 65, 600])
@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_a_bad_last_pivot_is_refused(n: int, bad: float) -> None:
    """Zero, negative and NaN, in the first, a full and a later panel."""
    matrix = np.eye(n)
    matrix[-1, -1] = bad
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        solve_positive(matrix, np.ones(n))


@pytest.mark.parametrize(("row", "column"), [(0, 1), (0, 64), (3, 129), (64, 129), (70, 71)])
def test_a_nan_off_the_diagonal_is_refused(row: int, column: int) -> None:
    """Within a panel and across panels it reaches the pivot of its column."""
    matrix, target = system(130)
    matrix[row, column] = np.nan
    with pytest.raises(np.linalg.LinAlgError):
        solve_positive(matrix, target)


@pytest.mark.parametrize("n", [2, 65, 130, 600])
def test_an_indefinite_matrix_with_a_good_diagonal_is_refused(n: int) -> None:
    """Rows 0 and n - 1 are correlated by more than 1, which shows in the last pivot only."""
    matrix = np.eye(n)
    matrix[0, -1] = matrix[-1, 0] = 1.5
    with pytest.raises(np.linalg.LinAlgError):
        solve_positive(matrix, np.ones(n))


@pytest.mark.parametrize("n", [1, 5, 64, 130])
def test_the_inverse_is_that_of_lapack_and_symmetric(n: int) -> None:
    """The eigenvalues lie in [1, 5]."""
    matrix, _ = system(n)
    got = inverse_positive(matrix.copy())
    assert np.abs(got - np.linalg.inv(matrix)).max() < 1e-12
    assert np.array_equal(got, got.T)


def test_no_inverse_without_a_positive_definite_matrix() -> None:
    """As for a solution."""
    with pytest.raises(np.linalg.LinAlgError):
        inverse_positive(np.array([[1.0, 2.0], [2.0, 1.0]]))
