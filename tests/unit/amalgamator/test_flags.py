"""The trust in a sender's evidence, against counts and ratios written out."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amalgamator.flags import (
    Flags,
    count_flags,
    evidence_trust,
    evidence_weight,
    voices,
)
from amalgamator.policy import TrustPolicy
from amalgamator.state import Held, Pairs
from models.entity_risk import cell_keys
from models.summary import Contribution, ContributionKey

POLICY = TrustPolicy()
ONE_DAY = TrustPolicy(flag_d=1)
DAY = 20_000
Outcome = tuple[str, int, int, int, int]
"""Member, entity, day, n, f."""


def pairs_of(outcomes: Sequence[Outcome]) -> Pairs:
    """Return evidence; outcomes of one entity and day come in hours of their own."""
    held = []
    for member, day in sorted({(o[0], o[2]) for o in outcomes}):
        mine = [o for o in outcomes if (o[0], o[2]) == (member, day)]
        name = np.zeros((len(mine), 16), np.uint8)
        name[:, 15] = [o[1] for o in mine]
        arrays: dict[str, np.ndarray] = {
            "name": name,
            "kind": np.zeros(len(mine), np.uint8),
            "hour": np.arange(len(mine), dtype=np.uint8),
            "n": np.array([o[3] for o in mine], np.float32),
            "f": np.array([o[4] for o in mine], np.float32),
        }
        order = np.lexsort(cell_keys(arrays)[::-1])
        key = ContributionKey(member, "0", "evidence", DAY + day)
        contribution = Contribution(
            key=key, epoch=1, basis=0, n=0, arrays={k: v[order] for k, v in arrays.items()}
        )
        held.append((key, Held(contribution, 1)))
    return held


def counted(outcomes: Sequence[Outcome], members: str, policy: TrustPolicy) -> Flags:
    return count_flags(pairs_of(outcomes), list(members), policy)


def by_hand(outcomes: Sequence[Outcome], members: str, flag_d: int) -> Flags:
    """Follow the definition, one outcome at a time."""
    flags = Flags(np.zeros((len(members),) * 2), np.zeros((len(members),) * 2))
    seen_by = {e: {o[0] for o in outcomes if o[1] == e} for _, e, *_ in outcomes}
    for (s, sender), (member, entity, day, n, f) in product(enumerate(members), outcomes):
        is_flagged = any(
            o[0] == sender and o[1] == entity and o[4] > 0 and 1 <= day - o[2] <= flag_d
            for o in outcomes
        )
        if is_flagged and len(seen_by[entity]) >= 2:
            flags.n[s, members.index(member)] += n
            flags.f[s, members.index(member)] += f
    return flags


OUTCOMES = st.lists(
    st.builds(
        lambda m, e, d, n, f: (m, e, d, n, min(n, f)),
        st.sampled_from("abc"),
        st.integers(0, 3),
        st.integers(0, 9),
        st.integers(1, 5),
        st.integers(0, 2),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(OUTCOMES, st.integers(1, 12))
def test_flags_are_counted_as_defined(outcomes: list[Outcome], flag_d: int) -> None:
    """Outcomes on the days after a fraud, at entities that two members saw; hours are added."""
    found = counted(outcomes, "abc", TrustPolicy(flag_d=flag_d))
    expected = by_hand(outcomes, "abc", flag_d)
    assert found.n.tolist() == expected.n.tolist()
    assert found.f.tolist() == expected.f.tolist()


def test_a_fraud_does_not_flag_its_own_day_nor_one_past_the_window() -> None:
    """The day after counts, with a window of one day that alone."""
    outcomes = [("a", 1, 0, 1, 1), *[("b", 1, day, 10, 1) for day in range(3)]]
    assert counted(outcomes, "ab", ONE_DAY).n[0, 1] == 10


def said_by_hand(flags: Flags, s: int, r: int) -> float:
    """Follow the definition for what one member says of another."""
    size = len(flags.n)
    others = [q for q in range(size) if q not in (s, r)]

    def rate(flagging: int, receiving: int) -> float:
        n = flags.n[flagging, receiving]
        return float(flags.f[flagging, receiving] / n) if n else math.nan

    def ratio(place: tuple[int, int], rates: list[float]) -> float:
        known = [one for one in rates if not math.isnan(one)]
        worth = [*([float(np.median(known))] if known else []), rate(r, r)]
        worth = [one for one in worth if not math.isnan(one)]
        if not worth:
            return 1.0
        expected = float(flags.n[place]) * min(worth)
        return (float(flags.f[place]) + POLICY.prior_frauds) / (expected + POLICY.prior_frauds)

    return min(
        ratio((s, r), [rate(q, r) for q in others]), ratio((r, s), [rate(r, q) for q in others])
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_each_says_of_each_what_is_defined(size: int, seed: int) -> None:
    """Also where pairs share nothing, so that fewer, or no, rates of others are known."""
    rng = np.random.default_rng(seed)
    n = rng.integers(0, 4, (size, size)).astype(np.float64)
    flags = Flags(n, np.minimum(rng.integers(0, 4, (size, size)), n))
    said = voices(flags, POLICY)
    for s, r in product(range(size), repeat=2):
        if s == r:
            assert math.isnan(said[s, r])
        else:
            assert said[s, r] == said_by_hand(flags, s, r)


def flags_with(n: float, rate: np.ndarray) -> Flags:
    return Flags(np.full(rate.shape, n), n * rate)


def test_members_whose_flags_agree_say_one_of_each_other() -> None:
    """Found is what was expected."""
    said = voices(flags_with(100.0, np.full((4, 4), 0.4)), POLICY)
    assert np.isnan(np.diag(said)).all()
    assert said[~np.eye(4, dtype=bool)].tolist() == [1.0] * 12


def test_a_sender_that_flags_the_innocent_is_measured_by_what_flags_are_worth() -> None:
    """40 expected, 1 found, 10 given in advance: 11 / 50, by every other member."""
    rate = np.full((4, 4), 0.4)
    rate[0] = 0.01
    rate[0, 0] = 0.99
    said = voices(flags_with(100.0, rate), POLICY)
    assert said[0, 1:] == pytest.approx([(1 + 10) / (40 + 10)] * 3)


def test_a_sender_that_hides_frauds_is_measured_where_the_others_flag() -> None:
    """It reports none where others report 40 of 100."""
    rate = np.full((4, 4), 0.4)
    rate[1:, 0] = 0.0
    said = voices(flags_with(100.0, rate), POLICY)
    assert said[0, 1:] == pytest.approx([10 / 50] * 3)


def test_frauds_that_stay_with_one_account_do_not_raise_what_is_expected() -> None:
    """Own flags foretell own frauds at .8, those of others at .4: the median of others counts."""
    rate = np.full((4, 4), 0.4) + 0.4 * np.eye(4)
    said = voices(flags_with(1_000.0, rate), POLICY)
    assert said[~np.eye(4, dtype=bool)] == pytest.approx(np.ones(12))


def test_nothing_known_is_no_reproach() -> None:
    """No outcome at a flagged entity: 1."""
    nothing = Flags(np.zeros((3, 3)), np.zeros((3, 3)))
    assert evidence_trust(voices(nothing, POLICY)).tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([0.1, 0.1, 0.1, 1.0], 0.1),
        ([0.1, 0.1, 1.0, 1.0], 1.0),
        ([0.1, 0.2, 0.3], 0.2),
        ([0.1, 0.9], 0.9),
    ],
)
def test_more_than_half_of_the_others_must_find_it_low(votes: list[float], expected: float) -> None:
    """Two of five can neither vouch for one another nor get a third out."""
    size = len(votes) + 1
    said = np.where(np.eye(size) > 0.0, np.nan, 1.0)
    said[0, 1:] = votes
    assert evidence_trust(said)[0] == expected


def test_two_members_judge_nobody() -> None:
    """Either could be the liar."""
    assert evidence_trust(np.zeros((2, 2))).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(3.0, 1.0), (0.5, 1.0), (0.4, 12 / 16), (0.25, 0.5), (0.2499, 0.0), (0.0, 0.0)],
)
def test_the_weight_is_the_ratio_over_its_bound_in_steps_and_nothing_below_a_half(
    ratio: float, expected: float
) -> None:
    """clip(ratio / .5, 0, 1), rounded down to sixteenths; zero below .5."""
    assert evidence_weight(ratio, TrustPolicy(full_ratio=0.5)) == expected
