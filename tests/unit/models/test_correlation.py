"""Eigenvalues, nearest correlation matrix and factor against NumPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.correlation import FLOOR, correlated, eigen, factor, nearest_correlation


def drawn(seed: int, n: int):
    """Return a symmetric matrix with unit diagonal, often not positive definite."""
    a = np.random.default_rng(seed).uniform(-1, 1, (n, n))
    a = (a + a.T) / 2
    np.fill_diagonal(a, 1.0)
    return a


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
@settings(max_examples=40)
def test_eigenvalues_are_numpys_and_rebuild_the_matrix(seed: int, n: int) -> None:
    """To 1e-9."""
    a = drawn(seed, n)
    values, vectors = eigen(a)
    assert np.abs(np.sort(values) - np.linalg.eigvalsh(a)).max() < 1e-9
    assert np.abs(vectors.T @ np.diag(values) @ vectors - a).max() < 1e-9


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
@settings(max_examples=40)
def test_the_nearest_matrix_is_a_correlation_matrix(seed: int, n: int) -> None:
    """Unit diagonal, positive definite, and nearer than plain shrinking towards none."""
    a = drawn(seed, n)
    got = nearest_correlation(a)
    lowest = np.linalg.eigvalsh(a)[0]
    assert np.diag(got).tolist() == [1.0] * n
    assert np.linalg.eigvalsh(got)[0] > FLOOR / 10
    if lowest >= FLOOR:
        assert np.array_equal(got, a)
    else:
        t = (FLOOR - lowest) / (1 - lowest)  # (1 - t) a + t I has the lowest eigenvalue FLOOR
        shrunk = (1 - t) * a + t * np.eye(n)
        assert np.linalg.norm(got - a) <= np.linalg.norm(shrunk - a) + 1e-6


def test_the_factor_is_numpys_and_mixes_like_it() -> None:
    """Cholesky's lower triangle."""
    a = nearest_correlation(drawn(3, 8))
    lower = factor(a)
    normal = np.random.default_rng(1).standard_normal((50, 8))
    assert np.abs(lower - np.linalg.cholesky(a)).max() < 1e-10
    assert np.abs(correlated(normal, lower) - normal @ lower.T).max() < 1e-12


def test_what_is_not_positive_definite_has_no_factor() -> None:
    """Nor is it changed."""
    a = np.array([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(np.linalg.LinAlgError):
        factor(a)
    assert a.tolist() == [[1.0, 2.0], [2.0, 1.0]]
