"""What every merge of learnt numbers must do: statistics of the scorecard, parameters of nets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import IncompatibleSummaryError
from models.families.mlp_parameters import NOTHING, MlpSummary, merge, n_parameters
from models.families.scorecard import Statistics, is_kept

N_FEATURES = 2
N_WEIGHTS = 9
FLOAT32_EPS = float(np.finfo(np.float32).eps)
FLOAT64_EPS = float(np.finfo(np.float64).eps)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Mergeable:
    """A kind of summary: how one of n rows is made, merged, seen as numbers and stored."""

    made: Callable[[int, int], object]  # rows, seed
    merged: Callable[[Sequence[object]], object]
    numbers: Callable[[object], Numbers]
    n: Callable[[object], int]
    through_bytes: Callable[[object], object]
    tolerance: float  # of one merge, relative to the largest number


def _statistics(n: int, seed: int) -> Statistics:
    rng = np.random.default_rng(seed)
    active = np.array([1, 5]) + rng.integers(0, 4, (n, 2))
    active = np.concatenate([np.zeros((n, 1)), active], axis=1).astype(np.int32)
    made = Statistics(N_WEIGHTS)
    kept = is_kept(rng.integers(0, 2**63, n).astype(np.uint64))
    made.add(active, rng.random(n) < 0.2, rng.uniform(-8, 4, n), kept=kept)
    return made


class _Sums(NamedTuple):
    """Statistics as they are published and merged."""

    square: NDArray[np.float64]
    gradient: NDArray[np.float64]
    n: int

    def curvature(self) -> NDArray[np.float64]:
        return self.square


def _merged_statistics(several: Sequence[Statistics | _Sums]) -> _Sums:
    return _Sums(
        sum((each.curvature() for each in several), np.zeros((N_WEIGHTS, N_WEIGHTS))),
        sum((each.gradient for each in several), np.zeros(N_WEIGHTS)),
        sum(each.n for each in several),
    )


def _stored_statistics(one: Statistics) -> Statistics:
    out = Statistics(0)
    stored = {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in one.arrays().items()
    }
    out.load(stored)
    return out


def _net(n: int, seed: int) -> MlpSummary:
    if n == 0:
        return MlpSummary(n=0, basis=9, n_features=0, flat=np.empty(0, np.float32))
    flat = np.random.default_rng(seed).normal(size=n_parameters(N_FEATURES)).astype(np.float32)
    return MlpSummary(n=n, basis=3, n_features=N_FEATURES, flat=flat)


def _stored_net(one: MlpSummary) -> MlpSummary:
    stored = {key: (a.tobytes(), a.dtype) for key, a in one.arrays().items()}
    return MlpSummary.load({key: np.frombuffer(b, dtype) for key, (b, dtype) in stored.items()})


MERGEABLES = {
    "scorecard": Mergeable(
        made=_statistics,
        merged=_merged_statistics,
        numbers=lambda s: np.concatenate([s.curvature().ravel(), s.gradient]),
        n=lambda s: s.n,
        through_bytes=_stored_statistics,
        tolerance=8 * FLOAT64_EPS,
    ),
    "mlp": Mergeable(
        made=_net,
        merged=merge,
        numbers=lambda s: s.flat.astype(np.float64),
        n=lambda s: s.n,
        through_bytes=_stored_net,
        tolerance=2 * FLOAT32_EPS,
    ),
}
MEMBERS = st.lists(st.integers(0, 30), min_size=0, max_size=5)
every_kind = pytest.mark.parametrize("kind", MERGEABLES.values(), ids=MERGEABLES)


def same(kind: Mergeable, one: object, other: object, *, merges: int = 0) -> None:
    """Compare to the bit, or within the rounding of so many merges."""
    assert kind.n(one) == kind.n(other)
    a, b = kind.numbers(one), kind.numbers(other)
    atol = merges * kind.tolerance * float(np.abs(a).max(initial=0.0))
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def several(kind: Mergeable, sizes: list[int]) -> list[object]:
    return [kind.made(n, seed) for seed, n in enumerate(sizes)]


@every_kind
@given(sizes=MEMBERS, order=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_merging_is_commutative(kind: Mergeable, sizes: list[int], order: object) -> None:
    """Any order of members, within one rounding each."""
    members = several(kind, sizes)
    shuffled = list(members)
    order.shuffle(shuffled)
    merges = 0 if kind is MERGEABLES["mlp"] else len(sizes)
    same(kind, kind.merged(members), kind.merged(shuffled), merges=merges)


@every_kind
@given(sizes=st.lists(st.integers(0, 30), min_size=3, max_size=3))
@settings(deadline=None)
def test_merging_is_associative(kind: Mergeable, sizes: list[int]) -> None:
    """Merging what was merged counts as merging at once."""
    a, b, c = several(kind, sizes)
    at_once = kind.merged([a, b, c])
    same(kind, kind.merged([kind.merged([a, b]), c]), at_once, merges=2)
    same(kind, kind.merged([a, kind.merged([b, c])]), at_once, merges=2)


@every_kind
@pytest.mark.parametrize("n", [0, 1, 30])
def test_an_empty_member_is_the_identity(kind: Mergeable, n: int) -> None:
    """And nothing merged is empty."""
    one, empty = kind.made(n, 1), kind.made(0, 2)
    same(kind, kind.merged([one, empty]), kind.merged([one]))
    same(kind, kind.merged([empty, one]), one)
    assert kind.n(kind.merged([])) == 0


@every_kind
def test_a_member_with_one_row_is_kept(kind: Mergeable) -> None:
    """It moves the result."""
    one, many = kind.made(1, 1), kind.made(30, 2)
    merged = kind.merged([one, many])
    assert kind.n(merged) == 31
    assert not np.array_equal(kind.numbers(merged), kind.numbers(many))


@every_kind
@given(sizes=MEMBERS)
@settings(deadline=None)
def test_operands_stay_as_they_were_and_go_through_bytes(kind: Mergeable, sizes: list[int]) -> None:
    """To the bit."""
    members = several(kind, sizes)
    before = kind.merged([kind.through_bytes(each) for each in members])
    found = kind.merged(members)
    same(kind, before, found)
    for member, fresh in zip(members, several(kind, sizes), strict=True):
        same(kind, member, fresh)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4))
@settings(deadline=None)
def test_merged_statistics_are_those_of_pooled_rows(sizes: list[int]) -> None:
    """The scorecard's promise: a bank's cut of the rows does not show."""
    total = sum(sizes)
    rng = np.random.default_rng(total)
    active = np.zeros((total, 1), np.int32)
    is_fraud, z, kept = rng.random(total) < 0.2, rng.uniform(-8, 4, total), rng.random(total) < 0.5
    pooled = Statistics(N_WEIGHTS)
    pooled.add(active, is_fraud, z, kept=kept)
    parts = []
    for end, n in zip(np.cumsum(sizes), sizes, strict=True):
        part, cut = Statistics(N_WEIGHTS), slice(end - n, end)
        part.add(active[cut], is_fraud[cut], z[cut], kept=kept[cut])
        parts.append(part)
    same(MERGEABLES["scorecard"], _merged_statistics(parts), pooled, merges=max(total, 1))


def test_a_merged_net_is_the_mean_weighted_by_rows() -> None:
    """By NumPy, in float64."""
    nets = [_net(n, n) for n in (1, 7, 30)]
    expected = np.average([net.flat.astype(np.float64) for net in nets], axis=0, weights=[1, 7, 30])
    np.testing.assert_allclose(merge(nets).flat, expected, rtol=0, atol=4 * FLOAT32_EPS)


def test_the_order_of_members_does_not_reach_the_last_bit() -> None:
    """Large numbers that cancel: left to right the sum would hang on who came first."""
    length = n_parameters(N_FEATURES)
    nets = [
        MlpSummary(n=1, basis=3, n_features=N_FEATURES, flat=np.full(length, value, np.float32))
        for value in (3e30, 1.0, -3e30)
    ]
    orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    assert len({merge([nets[k] for k in order]).flat.tobytes() for order in orders}) == 1


def test_nets_of_different_bases_or_shapes_do_not_merge() -> None:
    """Their numbers do not mean the same."""
    flat = np.zeros(n_parameters(N_FEATURES + 1), np.float32)
    wider = MlpSummary(n=2, basis=3, n_features=N_FEATURES + 1, flat=flat)
    flat = np.zeros(n_parameters(N_FEATURES), np.float32)
    later = MlpSummary(n=2, basis=4, n_features=N_FEATURES, flat=flat)
    for other in (wider, later):
        with pytest.raises(IncompatibleSummaryError, match="one basis"):
            merge([_net(5, 1), other])
    assert merge([NOTHING]).n == 0
