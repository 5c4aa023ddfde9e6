"""Fused multiply-adds, held to exact fractions."""

from fractions import Fraction

import numba as nb
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba.core.errors import TypingError

from models.fused import ROWS, fma, subtract_products
from models.vectors import LANES

NUMBERS = st.floats(-1e100, 1e100, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-90)


@nb.njit
def _fma(a, b, c):
    return fma(a, b, c)


@nb.njit
def _subtract(out, at, stride, packed, left, right, n):
    subtract_products(out, at, stride, packed, left, right, n)


@given(NUMBERS, NUMBERS, NUMBERS)
@example(1.0 + 2.0**-52, 1.0 - 2.0**-52, -1.0)  # 0 if the product is rounded by itself
@example(0.1, 10.0, -1.0)
def test_a_fused_multiply_add_is_rounded_once(a: float, b: float, c: float) -> None:
    """Python rounds a fraction correctly."""
    assert _fma(a, b, c) == float(Fraction(a) * Fraction(b) + Fraction(c))


def test_fused_is_not_what_two_roundings_give() -> None:
    """So a compiler that takes it apart would be noticed."""
    assert _fma(1.0 + 2.0**-52, 1.0 - 2.0**-52, -1.0) == -(2.0**-104)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_products_are_subtracted_from_a_block_term_after_term(n: int) -> None:
    """Each element is one chain of fused multiply-adds; what lies around the block stays."""
    rng = np.random.default_rng(n)
    out, packed = rng.normal(size=(7, 21)), rng.normal(size=200)
    expected = out.copy()
    for r in range(ROWS):
        for c in range(LANES):
            for k in range(n):
                left, right = packed[3 + LANES * k + r], packed[90 + LANES * k + c]
                exact = Fraction(expected[2 + r, 9 + c]) - Fraction(left) * Fraction(right)
                expected[2 + r, 9 + c] = float(exact)
    _subtract(out, 2 * 21 + 9, 21, packed, 3, 90, n)
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("out", "packed"),
    [
        (np.zeros((16, 16), order="F"), np.zeros(64)),
        (np.zeros((16, 16), np.float32), np.zeros(64)),
        (np.zeros((16, 16)), np.zeros(128)[::2]),
    ],
)
def test_arrays_of_another_order_or_type_are_refused(out: np.ndarray, packed: np.ndarray) -> None:
    """Flat indices mean nothing there."""
    with pytest.raises(TypingError):
        _subtract(out, 0, 16, packed, 0, 32, 1)
