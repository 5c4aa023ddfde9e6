"""Trust as a whole: a function of what is held, honest members in full, liars as if never there."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amalgamator.evidence import merge_cells
from amalgamator.fold import FoldConfig, Folder, FoldState, fold
from amalgamator.member_sums import MemberSummer
from amalgamator.policy import TrustPolicy
from amalgamator.state import FoldState as State
from amalgamator.trust import Trust, TrustReport
from models.entity_risk import EvidenceCells
from models.errors import InvalidInputError
from models.release import Release
from models.summary import Contribution, ContributionKey
from tests.consortium import SCHEMA, evidence, histograms, statistics

CONFIG = FoldConfig(schema=SCHEMA, bucket_days=28, half_life_d=56.0)
BANKS = ("a", "b", "c", "d", "e")
DAY = 20_000
N_DAYS = 16
N_ENTITIES = 400


def bank_days(bank: int, seed: int, *, liar: str = "") -> list[Contribution]:
    """Return a bank's evidence: compromised terminals for eight days each, and some noise.

    A liar of kind ``flip`` exchanges frauds and the rest, one of kind ``hide`` has no frauds.
    """
    world, own = np.random.default_rng(seed), np.random.default_rng([seed, bank])
    start = world.integers(-8, N_DAYS, N_ENTITIES)
    is_ever = world.random(N_ENTITIES) < 0.1
    days = []
    for day in range(N_DAYS):
        is_bad = is_ever & (start <= day) & (day < start + 8)
        n = own.poisson(2.0, N_ENTITIES)
        f = own.binomial(n, np.where(is_bad, 0.7, 0.004))
        f = {"flip": n - f, "hide": 0 * f}.get(liar, f)
        seen = np.flatnonzero(n)
        name = np.zeros((len(seen), 16), np.uint8)
        name[:, 14], name[:, 15] = seen // 256, seen % 256
        at_ms = np.full(len(seen), (DAY + day) * 86_400_000)
        n, f = n[seen].astype(np.float32), f[seen].astype(np.float32)
        cells = EvidenceCells(
            name=name,
            kind=np.zeros(len(seen), np.uint8),
            hour=np.zeros(len(seen), np.uint8),
            n=n,
            f=f,
            first_fraud_ms=np.where(f > 0, at_ms, -1),
            last_fraud_ms=np.where(f > 0, at_ms, -1),
            last_legit_ms=np.where(f < n, at_ms, -1),
        )
        key = ContributionKey(BANKS[bank], "0", "evidence", DAY + day)
        days.append(
            Contribution(key=key, epoch=day, basis=0, n=int(n.sum()), arrays=cells.arrays())
        )
    return days


def state_of(contributions: Sequence[Contribution], start: int = 1) -> State:
    state = FoldState()
    for seq, contribution in enumerate(contributions, start):
        state = state.add(contribution, seq)
    return state


def a_world(seed: int, liars: dict[int, str]) -> list[Contribution]:
    """Return what five banks publish."""
    return [c for i in range(5) for c in bank_days(i, seed, liar=liars.get(i, ""))]


def judged(contributions: Sequence[Contribution]) -> dict[str, float]:
    report = Trust(CONFIG).judge(state_of(contributions).pairs())
    return {one.member: one.evidence for one in report.members}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100_000))
def test_honest_members_drawn_at_random_count_in_full(seed: int) -> None:
    """Whatever the world."""
    assert judged(a_world(seed, {})) == dict.fromkeys(BANKS, 1.0)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 100_000),
    st.sampled_from(["flip", "hide"]),
    st.sets(st.integers(0, 4), min_size=1, max_size=2),
)
def test_liars_are_found_out_and_nobody_else(seed: int, lie: str, liars: set[int]) -> None:
    """One or two of five, whoever they are."""
    weights = judged(a_world(seed, dict.fromkeys(liars, lie)))
    assert {m for m, w in weights.items() if w == 0.0} == {BANKS[i] for i in liars}
    assert {w for m, w in weights.items() if BANKS.index(m) not in liars} == {1.0}


@settings(max_examples=10, deadline=None)
@given(st.permutations(a_world(7, {2: "flip"})))
def test_the_order_of_arrival_changes_no_bit(contributions: list[Contribution]) -> None:
    """With the numbers that they were sent under."""
    sent = a_world(7, {2: "flip"})
    place = {c.key: i for i, c in enumerate(sent, start=1)}
    state = FoldState()
    for contribution in contributions:
        state = state.add(contribution, place[contribution.key])
    assert fold(state, CONFIG, 1, None).release_id == RELEASE.release_id


RELEASE: Release = fold(state_of(a_world(7, {2: "flip"})), CONFIG, 1, None)


def test_an_expelled_member_is_as_one_that_never_was() -> None:
    """Evidence equal to the bit; the release names it with weight 0."""
    sent = a_world(7, {2: "flip"})
    without = fold(state_of(sent).without(frozenset("c")), CONFIG, 1, None)
    assert {s.member: s.weight for s in RELEASE.sources} == {**dict.fromkeys("abde", 1.0), "c": 0.0}
    assert RELEASE.evidence.keys() == without.evidence.keys()
    for day, cells in RELEASE.evidence.items():
        for name, array in cells.arrays().items():
            assert array.tobytes() == without.evidence[day].arrays()[name].tobytes()


def test_without_a_policy_everybody_counts_as_it_comes() -> None:
    """The defence is off: the plain sum."""
    sent = a_world(7, {2: "flip"})
    plain = fold(state_of(sent), replace(CONFIG, trust=None), 1, None)
    assert {(s.weight, s.statistics_weight, s.max_frauds) for s in plain.sources} == {(1.0, 1.0, 0)}
    day = [c for c in sent if c.key.bucket == DAY + 3]
    expected = merge_cells([(c.arrays, 1.0) for c in sorted(day, key=lambda c: c.key)])
    assert plain.evidence[DAY + 3].f.tolist() == expected.f.tolist()


def test_a_day_far_ahead_does_not_blind_the_judge() -> None:
    """The judged days end where half of the members are."""
    ahead = evidence("c", DAY + 400, seed=1)
    assert judged([*a_world(7, {2: "flip"}), ahead])["c"] == 0.0


def test_the_newest_day_is_not_judged_yet() -> None:
    """More outcomes of it are still to come; so verdicts change once a day."""
    sent = a_world(7, {})
    trust = Trust(CONFIG)
    first = trust.judge(state_of(sent).pairs())
    flipped = [c for c in bank_days(2, 7, liar="flip") if c.key.bucket == DAY + N_DAYS - 1]
    assert trust.judge(state_of([*sent, *flipped]).pairs()) == first


def test_remembered_verdicts_are_those_of_a_fresh_judge() -> None:
    """What is held changes, and comes back."""
    honest, lying = (a_world(7, liars) for liars in ({}, {2: "flip"}))
    folder = Folder(CONFIG)
    for state in (state_of(honest), state_of(lying, start=1_000), state_of(honest)):
        folder.fold(state, 1, None)
        assert folder.report == Trust(CONFIG).judge(state.pairs())


def test_a_member_of_registry_weight_zero_is_not_heard() -> None:
    """Nor judged: the others' verdicts are as without it."""
    config = replace(CONFIG, weights={"c": 0.0})
    report = Trust(config).judge(state_of(a_world(7, {2: "flip"})).pairs())
    assert report.evidence_weights(config) == {**dict.fromkeys("abde", 1.0), "c": 0.0}


def test_more_outcomes_than_transactions_are_a_flood() -> None:
    """A quarter and 1,000 more are allowed, the two newest days left out."""
    seen = sum(c.n for c in bank_days(1, 7) if c.key.bucket <= DAY + N_DAYS - 3)
    for n, why in (
        (round((seen - 1_000) / 1.25) + 1, ()),
        (round((seen - 1_000) / 1.25) - 1, ("volume",)),
    ):
        sent = [*a_world(7, {}), histograms("b", n=n, n_frauds=1, seed=1)]
        report = Trust(CONFIG).judge(state_of(sent).pairs())
        assert {one.member: one.why for one in report.members if one.why} == (
            {"b": why} if why else {}
        )


def test_statistics_are_decayed_as_in_the_fold_and_workers_added() -> None:
    """Two buckets of 28 days at a half-life of 56: the older one counts 2 ** -.5."""
    parts = [statistics("a", bucket, basis=1, n_weights=4, seed=bucket) for bucket in (9, 10)]
    other = statistics("a", 10, basis=1, n_weights=4, seed=3)
    other = replace(other, key=ContributionKey("a", "1", "statistics", 10))
    sums = MemberSummer().sums(state_of([*parts, other]).pairs(), {"a": 50}, CONFIG)["a"]
    older, newer = (p.arrays["gradient"].astype(np.float64) for p in parts)
    expected = 0.5**0.5 * older + newer + other.arrays["gradient"].astype(np.float64)
    assert sums.gradient == pytest.approx(expected, rel=1e-12)
    assert (sums.n_published, sums.n_matured) == (90, 50)


def test_curvatures_are_handed_out_as_float32_where_that_is_enough() -> None:
    """Rounded once, from a sum in float64; a member that is too large for it keeps that sum."""
    parts = [statistics("a", bucket, basis=1, n_weights=4, seed=bucket) for bucket in (9, 10)]
    one = statistics("b", 10, basis=1, n_weights=4, seed=5)
    huge = replace(
        one, arrays={**one.arrays, "curvature": np.float32(1e9) * one.arrays["curvature"]}
    )
    sums = MemberSummer().sums(state_of([*parts, huge]).pairs(), {}, CONFIG)
    older, newer = (p.arrays["curvature"].astype(np.float64) for p in parts)
    assert sums["a"].curvature.dtype == np.float32
    assert sums["a"].curvature.tolist() == (0.5**0.5 * older + newer).astype(np.float32).tolist()
    assert sums["b"].curvature.dtype == np.float64
    assert sums["b"].curvature.tolist() == huge.arrays["curvature"].tolist()


def test_sums_that_were_remembered_are_those_of_adding_up_from_nothing() -> None:
    """A new bucket, a late change of an old one, a member that comes, one that goes: same bits."""
    held = [statistics("a", b, basis=1, n_weights=4, seed=b) for b in (8, 9)]
    later = statistics("a", 10, basis=1, n_weights=4, seed=3)
    changed = statistics("a", 8, basis=1, n_weights=4, seed=77)
    other = statistics("b", 10, basis=1, n_weights=4, seed=5)
    summer = MemberSummer()
    for sent in (held, [*held, later], [*held, later, changed, other], [other], [*held, later]):
        pairs = state_of(sent).pairs()
        found = summer.sums(pairs, {}, CONFIG)
        anew = MemberSummer().sums(pairs, {}, CONFIG)
        assert found.keys() == anew.keys()
        for member, one in anew.items():
            assert found[member].curvature.tobytes() == one.curvature.tobytes()
            assert found[member].gradient.tobytes() == one.gradient.tobytes()
            assert (found[member].n, found[member].n_published) == (one.n, one.n_published)


def test_only_the_basis_of_most_members_is_judged() -> None:
    """One that publishes for another basis is neither judged nor heard."""
    sent = [statistics(m, 10, basis=2, n_weights=4, seed=i) for i, m in enumerate("abc")]
    sent.append(statistics("d", 10, basis=3, n_weights=9, seed=9))
    report = Trust(CONFIG).judge(state_of(sent).pairs())
    assert [one.member for one in report.members] == list("abcd")
    assert {one.statistics for one in report.members if one.member == "d"} == {1.0}


def test_an_empty_state_gives_an_empty_report() -> None:
    """Before anybody spoke."""
    assert Trust(CONFIG).judge([]) == TrustReport()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_frauds": -1},
        {"window_d": 0},
        {"flag_d": 0},
        {"prior_frauds": 0.0},
        {"prior_frauds": float("nan")},
        {"full_ratio": 1.1},
        {"max_harm": 0.0},
        {"prior_gain": 0.0},
        {"max_norm_ratio": 0.9},
        {"max_jurors": 2},
    ],
)
def test_a_policy_outside_its_range_is_refused(wrong: dict[str, float]) -> None:
    """With what was expected."""
    with pytest.raises(InvalidInputError, match="trust: expected"):
        TrustPolicy(**wrong)  # type: ignore[arg-type]  # fields by name
