"""Choosing crosses: planted interactions are found, additive effects and chance are not."""

from functools import cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.basis import Basis, encode
from models.copula import UNIT, Moments, bin_scores
from models.cross_choice import (
    MIN_ROWS,
    choose_crosses,
    covariance,
    only_crosses,
    pair_scores,
    with_crosses,
)

D = 20
N = 12_000


def a_basis() -> Basis:
    """Return twenty fine and six coarse bins of each standard normal feature."""
    fine, coarse = np.linspace(-1.9, 1.9, 19), np.linspace(-1.2, 1.2, 5)
    return Basis(
        number=1,
        schema_hash="0" * 16,
        edges=np.tile(fine, D).astype(np.float32),
        n_edges=np.full(D, len(fine), np.int32),
        coarse_edges=np.tile(coarse, D).astype(np.float32),
        n_coarse_edges=np.full(D, len(coarse), np.int32),
        selected=np.arange(D, dtype=np.int32),
        crosses=np.empty((0, 2), np.int32),
        n_categories=np.zeros(D, np.int32),
    )


BASIS = a_basis()


def moments_of(x: NDArray[np.float32], is_fraud: NDArray[np.bool_]) -> Moments:
    moments = Moments.empty(D)
    everything = np.ones(len(x), np.bool_)
    moments.add(encode(BASIS, x), bin_scores(BASIS), is_fraud, sampled=everything)
    return moments


def planted(kind: str, pair: tuple[int, int], seed: int) -> tuple[NDArray[np.float32], ...]:
    """Return rows with gaps, two of them copies of others, and outcomes by a planted effect."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32)
    a, b = x[:, pair[0]], x[:, pair[1]]
    effect = {
        "xor": 2.0 * np.sign(a * b),
        "product": 0.9 * a * b,
        "additive": a + b,
        "even": 3.0 * np.sign((np.abs(a) - 0.67) * (np.abs(b) - 0.67)),
    }[kind]
    alone = x[:, (pair[1] + 1) % D]
    is_fraud = rng.random(N) < 1 / (1 + np.exp(4.5 - effect - 0.7 * alone))
    x[rng.random(x.shape) < 0.05] = np.nan
    return x, is_fraud


def chosen(moments: Moments, basis: Basis = BASIS, most: int = 12) -> list[tuple[int, int]]:
    return choose_crosses(moments, basis, most=most, most_weights=10_000)


@pytest.mark.parametrize("kind", ["xor", "product"])
@given(
    pair=st.tuples(st.integers(0, D - 1), st.integers(0, D - 1)).filter(lambda p: p[0] < p[1]),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=12, deadline=None)
def test_a_planted_interaction_is_found_first(kind: str, pair: tuple[int, int], seed: int) -> None:
    """Between any two of twenty features, a few hundred frauds."""
    assert chosen(moments_of(*planted(kind, pair, seed)))[:1] == [pair]


@pytest.mark.parametrize("kind", ["additive", "even"])
def test_what_is_additive_or_even_leaves_the_covariance_alone(kind: str) -> None:
    """The first needs no cross; the second is what moments cannot see."""
    assert (3, 11) not in chosen(moments_of(*planted(kind, (3, 11), 5)))


@given(seed=st.integers(0, 10_000), n_frauds=st.integers(0, 400))
@settings(max_examples=15, deadline=None)
def test_chance_gives_no_cross(seed: int, n_frauds: int) -> None:
    """Outcomes that have nothing to do with the features, many frauds or hardly any."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4_000, D)).astype(np.float32)
    assert chosen(moments_of(x, np.arange(len(x)) < n_frauds)) == []


@cache
def members() -> tuple[Moments, ...]:
    x, is_fraud = planted("xor", (2, 17), 0)
    cuts = np.array_split(np.arange(N), 3)
    return tuple(moments_of(x[rows], is_fraud[rows]) for rows in cuts)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_scores_are_the_same_bits_in_any_order_of_members(order: tuple[int, ...]) -> None:
    """Merged sums are whole numbers."""
    a, b, c = (members()[i] for i in order)
    expected = pair_scores(members()[0].merged(members()[1]).merged(members()[2]))
    assert pair_scores(a.merged(b).merged(c)).tobytes() == expected.tobytes()
    assert expected.any()


def test_without_data_nothing_is_chosen() -> None:
    """Nor with one fraud too few."""
    assert chosen(Moments.empty(D)) == []
    x, _ = planted("xor", (3, 11), 1)
    a_few = (np.cumsum(x[:, 3] * x[:, 11] > 1.0) < MIN_ROWS) & (x[:, 3] * x[:, 11] > 1.0)
    assert int(a_few.sum()) == MIN_ROWS - 1
    assert chosen(moments_of(x, a_few)) == []


def test_a_covariance_is_that_of_scores_with_the_mean_in_place_of_gaps() -> None:
    """Plain NumPy on rows, within rounding."""
    x, is_fraud = planted("product", (3, 11), 2)
    edges = np.linspace(-1.9, 1.9, 19).astype(np.float32)
    score = bin_scores(BASIS)[1:21].astype(np.float64)
    z = np.where(np.isnan(x), np.nan, score[np.searchsorted(edges, x, side="right") % 20])
    for which in (0, 1):
        of_class = z[is_fraud == bool(which)]
        centred = np.nan_to_num(of_class - np.nanmean(of_class, axis=0))
        expected = centred.T @ centred / len(of_class)
        got = covariance(moments_of(x, is_fraud), which)
        assert np.abs(got - expected).max() < 1e-9 * UNIT**2


def test_pairs_that_are_crossed_or_say_the_same_or_have_no_bins_are_left_out() -> None:
    """Each of these three hides a planted pair."""
    x, is_fraud = planted("xor", (3, 11), 3)
    moments = moments_of(x, is_fraud)
    assert chosen(moments) == [(3, 11)]
    assert chosen(moments, with_crosses(BASIS, [(11, 3)])) == []
    x[:, 4] = x[:, 3]
    same = moments_of(x, is_fraud)
    assert (3, 4) not in chosen(same)
    assert pair_scores(same)[3, 4] == 0.0
    counts = BASIS.n_coarse_edges.copy()
    counts[11] = 0
    bare = Basis(
        number=1,
        schema_hash=BASIS.schema_hash,
        edges=BASIS.edges,
        n_edges=BASIS.n_edges,
        coarse_edges=BASIS.coarse_edges[5:],
        n_coarse_edges=counts,
        selected=BASIS.selected,
        crosses=BASIS.crosses,
        n_categories=BASIS.n_categories,
    )
    assert chosen(moments, bare) == []


def test_as_many_as_are_wanted_and_as_fit() -> None:
    """The strongest first; each takes six times six cells."""
    x, is_fraud = planted("xor", (3, 11), 4)
    x[is_fraud, 8] = np.abs(x[is_fraud, 8]) * np.sign(x[is_fraud, 7])
    moments = moments_of(x, is_fraud)
    both = chosen(moments)
    assert set(both) == {(3, 11), (7, 8)}
    assert chosen(moments, most=1) == both[:1]
    assert choose_crosses(moments, BASIS, most=12, most_weights=71) == both[:1]
    assert choose_crosses(moments, BASIS, most=12, most_weights=-5) == []


def test_crosses_are_replaced_or_appended() -> None:
    """The basis itself stays as it is."""
    one = only_crosses(BASIS, [(1, 2)])
    assert with_crosses(one, [(5, 4)]).crosses.tolist() == [[1, 2], [5, 4]]
    assert only_crosses(one, []).crosses.shape == (0, 2)
    assert one.crosses.tolist() == [[1, 2]]
    assert one.n_weights == BASIS.n_weights + 36
