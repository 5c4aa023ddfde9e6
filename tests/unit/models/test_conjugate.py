"""Products with packed matrices and conjugate gradients, against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.families.conjugate import multiply, quadratics, solve_near, solve_packed
from models.packed import diagonal


def symmetric(seed: int, n: int) -> np.ndarray:
    """Return sums of outer products: positive semi-definite."""
    rows = np.random.default_rng(seed).normal(size=(n + 2, n))
    return rows.T @ rows


def packed_of(square: np.ndarray) -> np.ndarray:
    """Return the upper triangle row by row."""
    return square[np.triu_indices(len(square))]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 23))
def test_a_product_is_that_of_the_whole_matrix(seed: int, n: int) -> None:
    """Whatever the number of rows leaves over for the eight sums."""
    square = symmetric(seed, n)
    x = np.random.default_rng(seed + 1).normal(size=n)
    found = multiply(packed_of(square), x)
    assert found == pytest.approx(square @ x, rel=1e-12, abs=1e-12 * np.abs(square).sum())
    assert diagonal(packed_of(square), n).tolist() == np.diag(square).tolist()


def product_in_order(packed: np.ndarray, x: np.ndarray) -> list[float]:
    """Return A x by plain additions, each row's in eight sums of every eighth element."""
    elements, n, start = packed.astype(np.float64).tolist(), len(x), 0
    out, numbers = [0.0] * n, x.tolist()
    for i in range(n):
        row, start = elements[start : start + n - i], start + n - i
        lanes = [0.0] * 8
        for j, element in enumerate(row):
            lanes[j % 8 if j < len(row) // 8 * 8 else 0] += element * numbers[i + j]
            out[i + j] += element * numbers[i] if j else 0.0
        while len(lanes) > 1:
            lanes = [a + b for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        out[i] += lanes[0]
    return out


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 61])
def test_a_product_has_the_same_bits_on_any_machine(n: int, kind: type) -> None:
    """Those of sums in one order, whatever the vectors, and nothing fused."""
    packed = packed_of(symmetric(5, n)).astype(kind)
    x = np.random.default_rng(n).normal(size=n)
    assert multiply(packed, x).tolist() == product_in_order(packed, x)


def quadratic_in_order(packed: np.ndarray, linear: np.ndarray, x: np.ndarray) -> float:
    """Return x'A x / 2 - b'x by plain additions, row by row."""
    elements, total, start = packed.astype(np.float64).tolist(), 0.0, 0
    for i, own in enumerate(x.tolist()):
        above = 0.5 * elements[start] * own - float(linear[i])
        for j in range(i + 1, len(x)):
            above += elements[start + j - i] * float(x[j])
        total += own * above
        start += len(x) - i
    return total


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "n_points"), [(1, 1), (7, 3), (16, 8), (33, 61)])
def test_quadratics_have_the_same_bits_on_any_machine(n: int, n_points: int, kind: type) -> None:
    """Those of sums in one order, however many points there are and however they lie in memory."""
    packed = packed_of(symmetric(5, n)).astype(kind)
    rng = np.random.default_rng(n)
    linear, points = rng.normal(size=n), rng.normal(size=(n_points, n)).T
    found = quadratics(packed, linear, points)
    assert found.tolist() == [quadratic_in_order(packed, linear, x) for x in points.T]
    square = symmetric(5, n).astype(kind)
    expected = [x @ square @ x / 2 - linear @ x for x in points.T]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_float32_matrices_are_multiplied_in_float64() -> None:
    """As they come from the wire."""
    square = symmetric(3, 9).astype(np.float32)
    x = np.linspace(-1.0, 1.0, 9)
    assert multiply(packed_of(square), x) == pytest.approx(square.astype(np.float64) @ x, rel=1e-12)


@pytest.mark.parametrize("start", [None, np.full(20, 3.0)])
def test_the_solution_is_that_of_a_factorisation(start: np.ndarray | None) -> None:
    """From any first guess, and without steps from the solution itself."""
    square, target = symmetric(4, 20), np.arange(20.0)
    expected = np.linalg.solve(square + 2.0 * np.eye(20), target)
    found = solve_packed(packed_of(square), target, ridge=2.0, start=start, tolerance=1e-10)
    assert found.is_positive
    assert found.x == pytest.approx(expected, rel=1e-6, abs=1e-9)
    again = solve_packed(packed_of(square), target, ridge=2.0, start=found.x, tolerance=1e-8)
    assert again.n_steps == 0


def test_a_matrix_with_a_negative_direction_is_found_out() -> None:
    """Also where the diagonal shows nothing."""
    square = np.array([[1.0, 3.0], [3.0, 1.0]])
    assert not solve_packed(packed_of(square), np.array([1.0, -1.0]), ridge=0.5).is_positive


def test_a_zero_target_needs_no_step() -> None:
    """The solution is zero."""
    found = solve_packed(packed_of(symmetric(1, 5)), np.zeros(5), ridge=1.0)
    assert (found.n_steps, found.x.tolist()) == (0, [0.0] * 5)


def parts(seed: int, n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix and a part of it, as a member's curvature is of the sum; both positive."""
    part = symmetric(seed, n)
    return part + symmetric(seed + 1, n) + 2.0 * np.eye(n), part


@pytest.mark.parametrize("factor", [1.0, 3.0, 10.0])
def test_near_a_factored_matrix_the_solution_is_that_of_a_factorisation(factor: float) -> None:
    """To the tolerance: each step takes (sqrt(1 + factor) - 1) / (sqrt(1 + factor) + 1) of it."""
    matrix, part = parts(7)
    target = np.arange(24.0) - 10.0
    inverse = np.linalg.inv(matrix)
    found = solve_near(lambda r: inverse @ r, packed_of(part), target, factor=factor)
    expected = np.linalg.solve(matrix + factor * part, target)
    np.testing.assert_allclose(found.x, expected, atol=1e-8 * np.abs(expected).max())
    root = np.sqrt(1.0 + factor)
    bound = np.log(2.0 / 1e-9) / np.log((root + 1.0) / (root - 1.0))
    assert found.is_positive
    assert 2 <= found.n_steps <= np.ceil(bound)


def test_near_a_factored_matrix_a_negative_direction_is_found_out() -> None:
    """The part counts so much that the sum has no solution."""
    part = np.array([[1.0, 3.0], [3.0, 1.0]])  # 1 - 2 * 2 < 0 along (1, -1), beside the identity
    found = solve_near(lambda r: r, packed_of(part), np.array([1.0, -1.0]), factor=2.0)
    assert not found.is_positive


def test_a_part_that_asks_for_nothing_moves_nothing() -> None:
    """A zero target, whose solution is zero."""
    found = solve_near(lambda r: r, packed_of(np.eye(3)), np.zeros(3), factor=3.0)
    assert (found.n_steps, found.x.tolist()) == (0, [0.0] * 3)
