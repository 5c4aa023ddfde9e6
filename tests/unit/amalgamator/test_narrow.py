"""Curvatures as float32: only where the rounding cannot make one indefinite."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amalgamator.narrow import is_narrow, narrowed

N_FEATURES, N_BINS = 6, 5
N_WEIGHTS = 1 + N_FEATURES * N_BINS


def curvature_of(seed: int, scale: float) -> np.ndarray:
    """Return what rows give that always have a bin of each feature: the bins sum to the bias.

    So as many directions as there are features have no curvature at all. Weights of rows differ by
    four decades.
    """
    rng = np.random.default_rng(seed)
    rows = np.zeros((300, N_WEIGHTS))
    rows[:, 0] = 1.0
    for feature in range(N_FEATURES):
        bins = np.minimum(rng.geometric(0.5, 300) - 1, N_BINS - 1)
        rows[np.arange(300), 1 + feature * N_BINS + bins] = 1.0
    h = scale * 10.0 ** rng.uniform(-4.0, 0.0, 300)
    square: np.ndarray = rows.T @ (h[:, None] * rows)
    return square


def packed_of(square: np.ndarray) -> np.ndarray:
    return square[np.triu_indices(len(square))]


def full(packed: np.ndarray) -> np.ndarray:
    square = np.zeros((N_WEIGHTS, N_WEIGHTS))
    square[np.triu_indices(N_WEIGHTS)] = packed
    return square + np.triu(square, 1).T


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-2.0, 12.0), st.sampled_from([0.02, 0.4, 2.0]))
def test_what_is_narrowed_stays_as_positive_as_half_the_ridge(
    seed: int, decades: float, ridge: float
) -> None:
    """From hardly any curvature to far more than float32 can hold beside the ridge."""
    square = curvature_of(seed, 10.0**decades)
    packed = packed_of(square)
    found = narrowed(packed, N_WEIGHTS, ridge=ridge)
    if found.dtype == np.float64:
        assert 2.0**-24 * square.sum(axis=0).max() > 0.49 * ridge
        assert found.tobytes() == packed.tobytes()
    else:
        assert found.tolist() == packed.astype(np.float32).tolist()
        lowest = np.linalg.eigvalsh(full(found))[0]
        assert lowest + ridge >= 0.5 * ridge - 1e-13 * square.sum()


def test_the_bound_is_half_the_ridge() -> None:
    """A single weight is its own row."""
    for ridge in (0.5, 2.0):
        limit = 0.5 * ridge * 2.0**24
        assert is_narrow(np.array([limit]), 1, ridge=ridge)
        assert not is_narrow(np.array([np.nextafter(limit, np.inf)]), 1, ridge=ridge)


def test_beyond_the_bound_float32_would_be_indefinite() -> None:
    """So the bound is not for nothing: the ridge is lost beside such numbers."""
    square = curvature_of(1, 1e9)
    assert not is_narrow(packed_of(square), N_WEIGHTS, ridge=2.0)
    rounded = full(packed_of(square).astype(np.float32)) + 2.0 * np.eye(N_WEIGHTS)
    assert np.linalg.eigvalsh(rounded)[0] < 0.0
    assert np.linalg.eigvalsh(square + 2.0 * np.eye(N_WEIGHTS))[0] > 0.0


@pytest.mark.parametrize("scale", [1e30, 1e300])
def test_more_than_float32_can_hold_stays(scale: float) -> None:
    """And overflows nowhere."""
    assert narrowed(np.array([scale]), 1, ridge=2.0).tolist() == [scale]


def test_nothing_is_narrow() -> None:
    """No weights, no rows."""
    assert narrowed(np.empty(0), 0, ridge=2.0).dtype == np.float32
