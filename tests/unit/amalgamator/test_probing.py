"""Probes and student in the fold: when they are drawn, when taught, by whom, and that they stay."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amalgamator.core import Amalgamator
from amalgamator.fold import BasisPolicy, FoldConfig, FoldState, fold
from amalgamator.gate import Accepted, Refused
from amalgamator.policy import ProbePolicy
from amalgamator.release_log import ReleaseLog
from models.errors import InvalidInputError
from models.families.distilled import Distilled
from models.release import ProbeSet, Release
from models.release_hashes import seal_release
from models.summary import Contribution, ContributionKey
from tests.consortium import (
    AMALGAMATOR,
    CONSORTIUM,
    MEMBERS,
    NOW_MS,
    SCHEMA,
    envelopes,
    evidence,
    histograms,
    moments,
    registry_of,
    statistics,
)

N = 60
POLICY = ProbePolicy(n=N, renew_d=7, grace_d=2, epochs=20, min_frauds=5)
CONFIG = FoldConfig(
    schema=SCHEMA, basis=BasisPolicy(min_n=300, min_frauds=5), probes=POLICY, trust=None
)
DAY = 20_000


def answers(member: str, number: int, value: float, *, n: int = 150, size: int = N) -> Contribution:
    """Return one and the same log-odds for every probe of a set."""
    return Contribution(
        key=ContributionKey(member, "0", "answers", 0),
        epoch=3,
        basis=number,
        n=n,
        arrays={"logit": np.full(size, value, np.float32)},
    )


def added(state: FoldState, *log: Contribution) -> FoldState:
    seq = max((held.seq for held in state.newest.values()), default=0)
    for i, contribution in enumerate(log, 1):
        state = state.add(contribution, seq + i)
    return state


def on_day(state: FoldState, day: int) -> FoldState:
    return added(state, *(evidence(m, day, seed=day + i) for i, m in enumerate(MEMBERS)))


def beginning() -> FoldState:
    """Return histograms of three members, 150 rows each."""
    log = [histograms(m, n=150, n_frauds=5, seed=i) for i, m in enumerate(MEMBERS)]
    return on_day(added(FoldState(), *log), DAY)


def first_set(config: FoldConfig = CONFIG) -> tuple[FoldState, Release]:
    """Return the state and the release that brings the first probes: a fold after the basis."""
    state = beginning()
    return state, fold(state, config, 1, None)


def probes_of(release: Release) -> ProbeSet:
    assert release.probes is not None
    return release.probes


def said(release: Release) -> float:
    """Return the student's mean log-odds of the probes; members give each the same."""
    assert release.student is not None
    basis, network = release.student
    return float(Distilled(basis, network.parameters).score(probes_of(release).rows).mean())


def test_probes_come_with_the_first_basis_and_are_numbered_by_their_day() -> None:
    """Drawn from the twin, of the schema's features, the same on every fold."""
    state, release = first_set()
    probes = probes_of(release)
    assert (probes.number, probes.rows.shape) == (DAY, (N, SCHEMA.n_features))
    assert release.student is None
    assert release.next_basis is not None
    assert fold(state, CONFIG, 1, None).release_id == release.release_id
    assert np.isfinite(probes.rows).any()


def test_without_a_policy_nothing_is_asked_and_the_release_is_as_before() -> None:
    """Answers that come all the same change no more than the sources."""
    _, release = first_set(replace(CONFIG, probes=None))
    assert (release.probes, release.student) == (None, None)
    _, asking = first_set()
    bare = seal_release(replace(asking, probes=None, student=None))
    assert bare.release_id == release.release_id


def test_probes_wait_for_frauds() -> None:
    """A twin that knows none would ask about none."""
    state = beginning()
    few = replace(CONFIG, probes=replace(POLICY, min_frauds=16))
    enough = replace(CONFIG, probes=replace(POLICY, min_frauds=15))
    assert fold(state, few, 1, None).probes is None
    assert fold(state, enough, 1, None).probes is not None


def test_a_set_stays_until_another_is_due() -> None:
    """Seven days of event time by most members; one that is far ahead moves nothing."""
    state, release = first_set()
    for day, number in ((DAY + 6, DAY), (DAY + 7, DAY + 7), (DAY + 13, DAY + 7)):
        state = on_day(state, day)
        ahead = added(state, evidence("alpha", DAY + 500, seed=1))
        release = fold(ahead, CONFIG, 2, release)
        assert probes_of(release).number == number
    assert not np.array_equal(
        probes_of(release).rows, probes_of(first_set()[1]).rows, equal_nan=True
    )


def test_moments_shape_the_probes() -> None:
    """Of the basis that members encode for; without them features are independent."""
    state, release = first_set()
    basis = release.next_basis
    assert basis is not None
    linked = [moments(m, basis=basis, n=1_500, seed=1, linked=(0, 1)) for m in MEMBERS]
    asked = fold(on_day(added(state, *linked), DAY + 7), CONFIG, 2, release)
    plain = fold(on_day(state, DAY + 7), CONFIG, 2, release)
    assert probes_of(asked).number == probes_of(plain).number
    rows = [probes_of(one).rows for one in (asked, plain)]
    assert not np.array_equal(*rows, equal_nan=True)


def test_a_student_is_taught_after_the_days_of_grace() -> None:
    """Two days after the draw, by the mean of who has answered, weighed by matured rows."""
    state, release = first_set()
    state = added(state, answers("alpha", DAY, -2.0), answers("beta", DAY, 1.0))
    early = fold(on_day(state, DAY + 1), CONFIG, 2, release)
    assert early.student is None
    state = on_day(state, DAY + 2)
    taught = fold(state, CONFIG, 2, release)
    assert said(taught) == pytest.approx(-0.5, abs=0.1)
    assert taught.student is not None
    assert taught.student.basis is release.next_basis
    assert taught.student.network.number == DAY


def test_a_claim_of_rows_that_have_not_matured_does_not_help() -> None:
    """Weights are bounded by the histograms' count, which is 150 for each."""
    state, release = first_set()
    log = (answers("alpha", DAY, -2.0, n=10**6), answers("beta", DAY, 1.0, n=75))
    taught = fold(on_day(added(state, *log), DAY + 2), CONFIG, 2, release)
    assert said(taught) == pytest.approx(-1.0, abs=0.1)


def test_members_without_weight_and_answers_to_other_sets_are_not_heard() -> None:
    """Nor answers of another length."""
    state, release = first_set()
    log = [answers("alpha", DAY, 1.0), answers("beta", DAY, 5.0), answers("gamma", DAY - 1, 9.0)]
    state = on_day(added(state, *log), DAY + 2)
    silent = replace(CONFIG, weights={"beta": 0.0})
    assert said(fold(state, silent, 2, release)) == pytest.approx(1.0, abs=0.1)
    short = added(state, answers("beta", DAY, 5.0, size=N - 1))
    assert said(fold(short, CONFIG, 2, release)) == pytest.approx(1.0, abs=0.1)
    nobody = replace(CONFIG, weights={"alpha": 0.0, "beta": 0.0})
    assert fold(state, nobody, 2, release).student is None


def test_a_student_stays_until_other_answers_come() -> None:
    """Not taught again for more data, nor for a new set before anybody has answered it."""
    state, release = first_set()
    state = on_day(added(state, answers("alpha", DAY, -2.0)), DAY + 2)
    first = fold(state, CONFIG, 2, release)
    more = added(on_day(state, DAY + 3), histograms("beta", n=200, n_frauds=8, seed=9))
    second = fold(more, CONFIG, 3, first)
    assert second.student is first.student
    late = added(more, answers("beta", DAY, 1.0))
    third = fold(late, CONFIG, 4, second)
    assert said(third) == pytest.approx(-0.5, abs=0.1)
    renewed = fold(on_day(late, DAY + 9), CONFIG, 5, third)
    assert probes_of(renewed).number == DAY + 9
    asked_again = fold(on_day(late, DAY + 11), CONFIG, 6, renewed)
    assert asked_again.student is third.student
    assert fold(on_day(late, DAY + 11), CONFIG, 6, asked_again).release_id == (
        asked_again.release_id
    )


def test_a_member_that_stops_counting_is_unlearnt() -> None:
    """The student is taught again without its answers."""
    state, release = first_set()
    state = on_day(added(state, answers("alpha", DAY, -2.0), answers("beta", DAY, 4.0)), DAY + 2)
    first = fold(state, CONFIG, 2, release)
    expelled = fold(state, replace(CONFIG, weights={"beta": 0.0}), 3, first)
    assert said(first) == pytest.approx(1.0, abs=0.1)
    assert said(expelled) == pytest.approx(-2.0, abs=0.1)


@given(order=st.permutations(range(3)))
@settings(deadline=None, max_examples=6)
def test_the_order_of_arrival_changes_no_bit(order: list[int]) -> None:
    """Probes and student are the same whoever answers first."""
    state, release = first_set()
    log = [answers(m, DAY, float(i)) for i, m in enumerate(MEMBERS)]
    expected = fold(on_day(added(state, *log), DAY + 2), CONFIG, 2, release)
    seq = 10_000
    shuffled = state
    for i in order:
        shuffled = shuffled.add(log[i], seq + i)
    found = fold(on_day(shuffled, DAY + 2), CONFIG, 2, release)
    assert expected.student is not None
    assert found.student is not None
    assert np.array_equal(expected.student.network.parameters, found.student.network.parameters)


def test_a_bank_without_scorecard_holds_up_no_basis() -> None:
    """Its moments show the basis that it encodes for; with statistics, those do."""
    state, release = first_set(replace(CONFIG, probes=None))
    basis = release.next_basis
    assert basis is not None
    one = statistics("alpha", 700, basis=basis.number, n_weights=basis.n_weights, seed=1)
    config = replace(CONFIG, probes=None)
    assert fold(added(state, one), config, 2, release).basis is None
    others = [moments(m, basis=basis, n=150, seed=3) for m in MEMBERS[1:]]
    assert fold(added(state, one, *others), config, 2, release).basis is basis
    stale = statistics("beta", 700, basis=9, n_weights=basis.n_weights, seed=1)
    assert fold(added(state, one, *others, stale), config, 2, release).basis is None


def test_the_gate_knows_how_many_probes_a_set_has() -> None:
    """Answers of another length are quarantined, those to a set not yet known are let in."""
    core = Amalgamator(registry_of(), CONFIG, previous=first_set()[1])
    wrong, right, other = envelopes(
        [
            answers("alpha", DAY, 0.0, size=N - 1),
            answers("beta", DAY, 0.0),
            answers("gamma", 7, 0.0, size=3),
        ]
    )
    refused = core.receive(wrong, NOW_MS)
    assert isinstance(refused, Refused)
    assert refused.reason == "shape"
    assert isinstance(core.receive(right, NOW_MS), Accepted)
    assert isinstance(core.receive(other, NOW_MS), Accepted)


def test_the_releases_topic_keeps_what_is_needed_and_deletes_the_rest() -> None:
    """Probes and student of the last release come back after a restart; older ones are gone."""
    state, release = first_set()
    state = on_day(added(state, answers("alpha", DAY, -2.0)), DAY + 2)
    taught = fold(state, CONFIG, 2, release)
    renewed = fold(on_day(state, DAY + 8), CONFIG, 3, taught)
    log = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR)
    records = [record for one in (release, taught, renewed) for record in log.encode(one)]
    deleted = {record.key for record in records if record.value is None}
    assert any(key.startswith(b"probes|%d" % DAY) for key in deleted)
    assert not any(key.startswith((b"student|", b"basis|")) for key in deleted)
    held = {record.key: record for record in records}
    kept = [record for record in held.values() if record.value is not None]
    again = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR).restore(kept)
    assert again is not None
    assert again.release_id == renewed.release_id
    assert fold(on_day(state, DAY + 8), CONFIG, 3, again).release_id == renewed.release_id


def test_the_basis_of_a_student_is_kept_when_it_is_in_force_no_more() -> None:
    """It is needed as long as the student is."""
    state, release = first_set()
    state = on_day(added(state, answers("alpha", DAY, -2.0)), DAY + 2)
    taught = fold(state, CONFIG, 2, release)
    assert taught.student is not None
    old = taught.student._replace(basis=replace(taught.student.basis, number=77))
    log = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR)
    records = []
    for number in (2, 3):
        one = replace(taught, number=number, epoch=number, student=old)
        records += log.encode(seal_release(one))
    assert b"basis|77" in {record.key.rsplit(b"|", 2)[0] for record in records}
    assert not [record for record in records if record.value is None]


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0},
        {"n": 70_000},
        {"renew_d": 2},
        {"grace_d": 0},
        {"epochs": 0},
        {"min_frauds": 0},
        {"seed": -1},
    ],
)
def test_a_policy_out_of_range_is_refused(change: dict[str, int]) -> None:
    """Each field has its bounds."""
    with pytest.raises(InvalidInputError, match="probes: expected"):
        replace(POLICY, **change)  # type: ignore[arg-type]  # fields by name
