"""Sums of h x x^T held to dense matrices, whatever is usual and however rows come."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.families import curvature
from models.families.curvature import CurvatureSum

OFFSETS = np.array([0, 1, 4, 8, 9, 12])
N_WEIGHTS = 12


def random_rows(n: int, seed: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return rows of five transforms, each of its own spread, and what they add.

    The first is always there; another mostly not, another in one bin mostly, the others evenly.
    """
    rng = np.random.default_rng(seed)
    shares = ([0, 1], [0.7, 0.1, 0.1, 0.1], [0.02, 0.9, 0.04, 0.02, 0.02], [0.5, 0.5])
    states = [rng.choice(len(each), n, p=each) - 1 for each in (*shares, [0.25] * 4)]
    active = np.column_stack(states) + np.where(np.column_stack(states) >= 0, OFFSETS[:-1], 0)
    return active.astype(np.int32), rng.uniform(0.001, 0.3, n)


def dense(active: NDArray[np.int32], h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper triangle of the sum, by its definition."""
    x = np.zeros((len(active), N_WEIGHTS + 1))
    np.put_along_axis(x, active.astype(int), 1.0, axis=1)  # -1 is the last column, cut off
    return np.triu((x[:, :-1] * h[:, None]).T @ x[:, :-1])


def sum_of(
    active: NDArray[np.int32], h: NDArray[np.float64], max_held: int = 16_384
) -> CurvatureSum:
    made = CurvatureSum(N_WEIGHTS, max_held=max_held)
    made.add(active, h)
    return made


@pytest.mark.parametrize("n", [0, 1, curvature.FIRST_N - 1, curvature.FIRST_N, 5_000])
def test_the_sum_is_that_of_all_pairs(n: int) -> None:
    """With few rows, from which no references are found yet, and with many."""
    rows = random_rows(n, seed=n)
    found = sum_of(*rows).square()
    assert found == pytest.approx(dense(*rows), rel=1e-11, abs=0.0)
    assert not np.tril(found, -1).any()


@given(seed=st.integers(0, 10_000), n=st.integers(0, 80), first_n=st.integers(1, 40))
@settings(deadline=None)
def test_rows_like_none_before_are_added_as_well(seed: int, n: int, first_n: int) -> None:
    """Bins, and transforms without one, that the rows lacked from which references were found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curvature, "FIRST_N", first_n)
        first, later = random_rows(first_n, seed), random_rows(n, seed + 1)
        drawn = np.random.default_rng(seed).permutation(later[0].shape[0])
        later[0][:, 3][drawn[: n // 2]] = -1
        made = sum_of(*first)
        made.add(*later)
        whole = tuple(np.concatenate(pair) for pair in zip(first, later, strict=True))
        expected = dense(*whole)
        assert made.square() == pytest.approx(expected, rel=1e-11, abs=1e-15)
        assert ((made.square() == 0.0) == (expected == 0.0)).all()


def test_the_usual_is_not_added_up() -> None:
    """Rows that are all alike leave nothing but how much there is of them."""
    active = np.repeat(np.array([[0, 2, -1, 8, 9]], np.int32), 2_000, axis=0)
    made = sum_of(active, np.full(2_000, 0.5))
    found = made.square()
    assert not made.arrays()["pairs"].any()
    assert found[np.ix_([0, 2, 8, 9], [0, 2, 8, 9])].tolist() == (
        np.triu(np.full((4, 4), 1_000.0)).tolist()
    )
    assert np.count_nonzero(found) == 10


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=6),
    reads=st.sets(st.integers(0, 6)),
    stops=st.sets(st.integers(0, 6)),
    decay_at=st.integers(0, 60),
    max_held=st.integers(1, 30),
)
def test_no_bit_tells_how_rows_came_and_who_looked(
    cuts: list[int], reads: set[int], stops: set[int], decay_at: int, max_held: int
) -> None:
    """Cut anyhow, and wherever the sum is read, or stored and loaded; it decays at one row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curvature, "FIRST_N", 12)
        active, h = random_rows(60, seed=2)
        expected = CurvatureSum(N_WEIGHTS)
        expected.add(active[:decay_at], h[:decay_at])
        expected.decay(0.7)
        expected.add(active[decay_at:], h[decay_at:])
        made, factors = CurvatureSum(N_WEIGHTS, max_held=max_held), [0.7]
        for step, (start, stop) in enumerate(pairwise([0, *sorted([*cuts, decay_at]), 60])):
            rows = active[start:stop].copy(), h[start:stop].copy()
            made.add(*rows)
            rows[0][:] = 0  # what is held back is a copy
            if stop == decay_at and factors:
                made.decay(factors.pop())
            if step in stops:
                stored = {name: array.copy() for name, array in made.arrays().items()}
                made = CurvatureSum(0, max_held=max_held)
                made.load(stored)
            if step in reads:
                made.square()
        assert made._n_held < 2 * max(max_held, 12)
        assert made.square().tobytes() == expected.square().tobytes()
        assert made.square() == pytest.approx(
            dense(active, np.where(np.arange(60) < decay_at, 0.7 * h, h)), rel=1e-11, abs=0.0
        )


def test_what_is_stored_of_the_pairs_waits_for_many_rows() -> None:
    """So that a checkpoint need not write them again; rows that wait are stored beside them."""
    made = sum_of(*random_rows(1_000, seed=1))
    made.square()
    before = made.arrays()["pairs"].tobytes()
    made.add(*random_rows(20, seed=3))
    assert made.arrays()["pairs"].tobytes() == before
    assert len(made.arrays()["held_h"]) == len(made.arrays()["held_active"]) == 20
    made.decay(0.5)
    assert made.arrays()["pairs"].tobytes() == before
    made.square()
    assert len(made.arrays()["held_h"]) == 0


def test_whoever_looks_on_is_told_before_pairs_change() -> None:
    """And not while rows are held back."""
    told: list[int] = []
    made = CurvatureSum(N_WEIGHTS, max_held=600, on_change=lambda: told.append(1))
    made.add(*random_rows(599, seed=1))
    assert not told
    made.add(*random_rows(1, seed=2))
    assert len(told) == 1
    made.decay(0.5)
    assert len(told) == 1
    made.square()
    assert len(told) == 2


def test_a_copy_stays_as_it_is() -> None:
    """While rows are added to the other, brought in, and fade."""
    rows, later = random_rows(1_000, seed=1), random_rows(700, seed=2)
    made, expected = sum_of(*rows, max_held=900), sum_of(*rows).square()
    other = CurvatureSum(0)
    other.load(made.arrays())
    made.add(*later)
    made.decay(0.5)
    made.square()
    assert other.square().tobytes() == expected.tobytes()
    other.add(*later)
    other.decay(0.5)
    assert other.square().tobytes() == made.square().tobytes()
