"""Vectors that are written out, against the loops that they stand for."""

import numba as nb
import numpy as np
import pytest
from numba.core.errors import TypingError

from models.vectors import LANES, multiply_row


@nb.njit
def _multiply_row(packed, at, x, out, i, n):
    return multiply_row(packed, at, x, out, i, n)


@pytest.mark.parametrize("n", [0, 8, 40])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_row_is_multiplied_as_row_and_as_column(n: int, kind: type) -> None:
    """Element by element, each product and sum rounded in float64; what lies beside it stays."""
    rng = np.random.default_rng(n)
    packed = rng.normal(size=60).astype(kind)
    x, out = rng.normal(size=50), rng.normal(size=50)
    expected, sums = out.copy(), [0.0] * LANES
    for j in range(n):
        element = float(packed[3 + j])
        sums[j % LANES] += element * float(x[5 + j])
        expected[5 + j] += element * float(x[5])
    assert list(_multiply_row(packed, 3, x, out, 5, n)) == sums
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("packed", "x"),
    [
        (np.zeros(60, np.int32), np.zeros(50)),
        (np.zeros(60), np.zeros(50, np.float32)),
        (np.zeros(120)[::2], np.zeros(50)),
    ],
)
def test_arrays_of_another_order_or_type_are_refused(packed: np.ndarray, x: np.ndarray) -> None:
    """Their numbers lie elsewhere."""
    with pytest.raises(TypingError):
        _multiply_row(packed, 0, x, np.zeros(50), 0, 8)
