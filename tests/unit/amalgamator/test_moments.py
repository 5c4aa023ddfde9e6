"""Moments of members: exact sums, and the crosses that they give the next basis."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amalgamator.fold import BasisPolicy, FoldConfig, FoldState, fold
from amalgamator.moments import merged_moments
from amalgamator.policy import StructurePolicy
from models.basis import Basis
from models.basis_builder import BasisShape, schema_crosses
from models.release import Release
from models.summary import Contribution
from tests.consortium import MEMBERS, SCHEMA, evidence, histograms, moments, proposal, statistics

CONFIG = FoldConfig(
    shape=BasisShape(plain_weights=5_000),
    schema=SCHEMA,
    basis=BasisPolicy(min_n=300, min_frauds=5, growth=2.0),
    structure=StructurePolicy(period_d=10, max_trees=6, max_new=4, min_importance=0.0),
)
LINKED = (2, 9)
KNOWN = schema_crosses(SCHEMA)


def added(state: FoldState, log: list[Contribution], seq: int) -> FoldState:
    for i, contribution in enumerate(log):
        state = state.add(contribution, seq + i)
    return state


def in_force() -> tuple[FoldState, Release, Basis]:
    """Return a state, the release of its first scorer, and its basis."""
    state = added(FoldState(), [histograms(m, n=150, n_frauds=5, seed=1) for m in MEMBERS], 1)
    first = fold(state, CONFIG, 1, None)
    basis = first.next_basis
    assert basis is not None
    log = [
        statistics(m, 700, basis=1, n_weights=basis.n_weights, seed=i)
        for i, m in enumerate(MEMBERS)
    ]
    state = added(state, log, 100)
    return state, fold(state, CONFIG, 2, first), basis


def linked(basis: Basis, linked: tuple[int, int] | None = LINKED) -> list[Contribution]:
    return [moments(m, basis=basis, n=1_500, seed=i, linked=linked) for i, m in enumerate(MEMBERS)]


def crosses_of(basis: Basis | None) -> list[tuple[int, int]]:
    assert basis is not None
    return [(a, b) for a, b in basis.crosses.tolist()]


@given(order=st.permutations(range(len(MEMBERS))))
def test_merged_moments_are_the_sums_in_any_order(order: list[int]) -> None:
    """Whole numbers, as NumPy adds them; members of weight 0 and other bases are left out."""
    _, _, basis = in_force()
    several = linked(basis)
    state = added(FoldState(), [several[i] for i in order], 1)
    merged = merged_moments(state.pairs(), basis, CONFIG)
    assert merged is not None
    without = merged_moments(state.pairs(), basis, replace(CONFIG, weights={"beta": 0.0}))
    assert without is not None
    for name in ("n", "sums", "products"):
        arrays = [one.arrays[name] for one in several]
        assert np.array_equal(merged.arrays()[name], np.sum(arrays, axis=0))
        assert np.array_equal(without.arrays()[name], arrays[0] + arrays[2])
    assert merged_moments(state.pairs(), replace(basis, number=2), CONFIG) is None
    silent = dict.fromkeys(MEMBERS, 0.0)
    assert merged_moments(state.pairs(), basis, replace(CONFIG, weights=silent)) is None


def test_operands_of_the_merge_stay_as_they_are() -> None:
    """A fold must not change what is held."""
    _, _, basis = in_force()
    several = linked(basis)
    before = [one.arrays["sums"].copy() for one in several]
    merged_moments(added(FoldState(), several, 1).pairs(), basis, CONFIG)
    assert all(
        np.array_equal(a, one.arrays["sums"]) for a, one in zip(before, several, strict=True)
    )


def more_data(state: FoldState) -> FoldState:
    return added(state, [histograms(m, n=400, n_frauds=12, seed=9) for m in MEMBERS], 2_000)


def other_trees(state: FoldState, basis: Basis) -> FoldState:
    proposed = [proposal("alpha", 2_000, basis=basis, n_trees=3, seed=5)]
    return added(state, [*proposed, evidence("alpha", 20_001, seed=3)], 3_000)


@pytest.mark.parametrize("kind", ["edges", "trees"])
def test_the_next_basis_crosses_what_moments_of_the_last_one_show(kind: str) -> None:
    """After the schema's pairs; without moments, or on independent features, those alone."""
    state, release, basis = in_force()
    state = more_data(state) if kind == "edges" else other_trees(state, basis)
    assert crosses_of(fold(state, CONFIG, 3, release).next_basis) == KNOWN
    independent = added(state, linked(basis, None), 4_000)
    assert crosses_of(fold(independent, CONFIG, 3, release).next_basis) == KNOWN
    state = added(state, linked(basis), 4_000)
    proposed = fold(state, CONFIG, 3, release).next_basis
    assert crosses_of(proposed) == [*KNOWN, LINKED]
    assert proposed is not None
    assert len(proposed.trees) == (0 if kind == "edges" else 3)


def test_crosses_are_chosen_anew_for_each_basis() -> None:
    """A pair that moments of the later basis do not show any more is dropped."""
    state, release, basis = in_force()
    state = added(more_data(state), linked(basis), 4_000)
    third = fold(state, CONFIG, 3, release)
    second_basis = third.next_basis
    assert second_basis is not None
    log = [
        statistics(m, 700, basis=second_basis.number, n_weights=second_basis.n_weights, seed=7)
        for m in MEMBERS
    ]
    state = added(state, [*log, *linked(second_basis, (1, 4))], 5_000)
    fourth = fold(state, CONFIG, 4, third)
    assert fourth.basis is second_basis
    fifth = fold(other_trees(state, second_basis), CONFIG, 5, fourth)
    assert crosses_of(fifth.next_basis) == [*KNOWN, (1, 4)]


@pytest.mark.parametrize("shape", [{"proposed_crosses": 0}, {"cross_weights": 3}])
def test_the_shape_bounds_the_crosses(shape: dict[str, int]) -> None:
    """None wanted, or none that fits."""
    state, release, basis = in_force()
    state = added(more_data(state), linked(basis), 4_000)
    config = replace(CONFIG, shape=replace(CONFIG.shape, **shape))
    assert crosses_of(fold(state, config, 3, release).next_basis) == KNOWN
