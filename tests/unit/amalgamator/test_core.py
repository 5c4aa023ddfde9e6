"""The amalgamator without surroundings: envelopes and handed-over contributions give the same."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amalgamator.core import Amalgamator
from amalgamator.fold import BasisPolicy, FoldConfig
from amalgamator.gate import DUPLICATE, Accepted, Refused
from models.release import Release
from models.summary import Contribution
from tests.consortium import (
    MEMBERS,
    NOW_MS,
    SCHEMA,
    a_log,
    closing,
    envelopes,
    evidence,
    registry_of,
    statistics,
)

CONFIG = FoldConfig(schema=SCHEMA, basis=BasisPolicy(min_n=300, min_frauds=10, growth=2.0))


def amalgamator(*, lockstep: bool = True, previous: Release | None = None) -> Amalgamator:
    """Return a new one for the test's consortium."""
    return Amalgamator(registry_of(), CONFIG, lockstep=lockstep, previous=previous)


def two_epochs() -> tuple[list[Contribution], list[Contribution]]:
    """Return what members publish in epoch 1, and in 2 when they have seen release 1."""
    first = a_log()
    one = amalgamator()
    for seq, contribution in enumerate(first, 1):
        one.accept(contribution, seq)
    release = one.close_epoch(1)
    assert release is not None
    basis = release.next_basis
    assert basis is not None
    second: list[Contribution] = []
    for i, member in enumerate(MEMBERS):
        second += [
            statistics(
                member, bucket, basis=basis.number, n_weights=basis.n_weights, seed=i + bucket
            )
            for bucket in (700, 701)
        ]
        second += [evidence(member, 20_002, seed=50 + i, epoch=2), closing(member, 2)]
    return first, second


FIRST, SECOND = two_epochs()
RAW = envelopes(FIRST + SECOND)
RAW_FIRST, RAW_SECOND = RAW[: len(FIRST)], RAW[len(FIRST) :]


def released(one: Amalgamator, epoch: int) -> Release:
    """Close an epoch that must give a release."""
    release = one.close_epoch(epoch, NOW_MS)
    assert release is not None
    return release


def through_bytes() -> tuple[Release, Release]:
    """Return both releases when everything comes as envelopes."""
    one = amalgamator()
    assert all(isinstance(one.receive(raw, NOW_MS), Accepted) for raw in RAW_FIRST)
    first = released(one, 1)
    assert all(isinstance(one.receive(raw, NOW_MS), Accepted) for raw in RAW_SECOND)
    return first, released(one, 2)


BY_BYTES = through_bytes()


def test_contributions_handed_over_give_the_bits_of_contributions_sent() -> None:
    """The codec is lossless: back-test and service agree to the hash."""
    one = amalgamator()
    last = dict.fromkeys(MEMBERS, 0)
    ids = []
    for epoch, log in ((1, FIRST), (2, SECOND)):
        for contribution in log:
            last[contribution.key.member] += 1
            one.accept(contribution, last[contribution.key.member])
        ids.append(released(one, epoch).release_id)
    assert ids == [release.release_id for release in BY_BYTES]


def test_releases_are_numbered_one_by_one() -> None:
    """From 1; the scorer comes with the second."""
    assert [release.number for release in BY_BYTES] == [1, 2]
    assert [release.weights is not None for release in BY_BYTES] == [False, True]


@settings(max_examples=15, deadline=None)
@given(st.permutations(RAW_FIRST), st.lists(st.sampled_from(RAW_FIRST), max_size=5))
def test_a_permuted_and_duplicated_log_gives_the_same_release(
    raws: list[bytes], again: list[bytes]
) -> None:
    """Through the gate too; nothing is refused for its order across keys."""
    one = amalgamator()
    outcomes = [one.receive(raw, NOW_MS) for raw in raws + again]
    refused = [outcome.reason for outcome in outcomes if isinstance(outcome, Refused)]
    assert refused == [DUPLICATE] * len(again)
    assert released(one, 1).release_id == BY_BYTES[0].release_id


def test_a_restart_from_the_log_goes_on_with_the_same_hash_and_numbers() -> None:
    """State from the summaries, basis and number from the last release."""
    one = amalgamator(previous=BY_BYTES[0])
    for raw in RAW:
        one.receive(raw, NOW_MS)
    assert one.due_epoch() == 2
    release = released(one, 2)
    assert (release.number, release.release_id) == (2, BY_BYTES[1].release_id)


def test_a_live_epoch_does_not_go_back_when_whoever_named_it_leaves() -> None:
    """Releases are told apart by their epochs: one that went back would not be taken."""
    one = amalgamator(previous=replace(BY_BYTES[1], epoch=9), lockstep=False)
    for raw in RAW:
        one.receive(raw, NOW_MS)
    assert one.state.newest_epoch() == 2
    assert one.due_epoch() == 9


def test_a_restart_after_the_last_release_folds_to_the_same_hash() -> None:
    """Only the newest of each key, as after compaction."""
    compacted = {
        outcome.contribution.key: raw
        for raw in RAW
        if isinstance(outcome := amalgamator().receive(raw, NOW_MS), Accepted)
    }
    one = amalgamator(previous=BY_BYTES[1])
    assert all(isinstance(one.receive(raw, NOW_MS), Accepted) for raw in compacted.values())
    again = one.refold()
    assert again is not None
    assert again.release_id == BY_BYTES[1].release_id
    assert one.due_epoch() is None


def test_refused_envelopes_change_nothing() -> None:
    """Neither a damaged one nor a replay of an older version."""
    one = amalgamator()
    for raw in RAW:
        one.receive(raw, NOW_MS)
        one.receive(raw[:-1] + bytes([raw[-1] ^ 1]), NOW_MS)
    older = next(raw for raw, c in zip(RAW_FIRST, FIRST, strict=True) if c.key.bucket == 20_002)
    outcome = one.receive(older, NOW_MS)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "replay"
    clean = amalgamator()
    for raw in RAW:
        clean.receive(raw, NOW_MS)
    assert released(one, 2).release_id == released(clean, 2).release_id


def test_lockstep_waits_for_every_worker_and_releases_an_epoch_once() -> None:
    """Nothing is due until the last member has closed the epoch, nor after its release."""
    one = amalgamator()
    due = []
    for raw in RAW_FIRST:
        due.append(one.due_epoch())
        one.receive(raw, NOW_MS)
    assert due == [None] * len(RAW_FIRST)
    assert one.due_epoch() == 1
    released(one, 1)
    assert one.due_epoch() is None


def test_lockstep_leaves_what_belongs_to_later_epochs_for_later() -> None:
    """A member that is ahead does not change the release of the epoch before."""
    one = amalgamator()
    for raw in RAW_FIRST:
        one.receive(raw, NOW_MS)
    ahead = envelopes([*FIRST, evidence("alpha", 20_007, seed=9, epoch=2)])[-1]
    one.receive(ahead, NOW_MS)
    assert released(one, 1).release_id == BY_BYTES[0].release_id
    assert 20_007 in released(one, 2).evidence


def test_lockstep_releases_every_epoch_even_if_nothing_changed() -> None:
    """Members wait for the release of their epoch."""
    one = amalgamator()
    assert [released(one, epoch).epoch for epoch in (5, 6)] == [5, 6]


def test_live_mode_releases_only_what_changed() -> None:
    """The epoch alone is no change, nor is a worker that only closed one."""
    one = amalgamator(lockstep=False)
    assert one.due_epoch() is None
    assert one.close_epoch(1) is None
    for raw in RAW_FIRST:
        one.receive(raw, NOW_MS)
    assert one.due_epoch() == 1
    first = released(one, 1)
    assert one.close_epoch(2) is None
    one.accept(closing("alpha", 3), 100)
    assert one.due_epoch() == 3
    assert one.close_epoch(3) is None
    one.accept(evidence("alpha", 20_001, seed=3, epoch=3), 101)
    assert released(one, 3).number == first.number + 1


def test_a_live_restart_publishes_nothing_new() -> None:
    """The log folds to the content of the last release."""
    one = amalgamator(lockstep=False)
    for raw in RAW_FIRST:
        one.receive(raw, NOW_MS)
    last = released(one, 1)
    again = amalgamator(lockstep=False, previous=last)
    for raw in RAW_FIRST:
        again.receive(raw, NOW_MS)
    assert again.close_epoch(1) is None


@pytest.mark.parametrize("how", ["removed", "revoked"])
def test_an_expelled_member_is_as_one_that_never_was(how: str) -> None:
    """Taken out of the registry, or its key revoked."""
    one = amalgamator()
    for raw in RAW_FIRST:
        one.receive(raw, NOW_MS)
    members = dict(registry_of().members)
    beta = members.pop("beta")
    if how == "revoked":
        members["beta"] = replace(beta, revoked=frozenset(beta.verifiers))
    one.set_registry(replace(registry_of(), members=members))
    never = Amalgamator(registry_of(["alpha", "gamma"]), CONFIG, lockstep=True)
    for raw, contribution in zip(RAW_FIRST, FIRST, strict=True):
        if contribution.key.member != "beta":
            never.receive(raw, NOW_MS)
    assert one.due_epoch() == 1
    assert released(one, 1).release_id == released(never, 1).release_id


def test_a_members_weight_in_the_registry_weighs_its_evidence() -> None:
    """Half a member counts half."""
    members = dict(registry_of(["alpha"]).members)
    members["alpha"] = replace(members["alpha"], weight=0.5)
    one = Amalgamator(replace(registry_of(), members=members), CONFIG)
    contribution = evidence("alpha", 20_000, seed=1)
    one.accept(contribution, 1)
    release = released(one, 1)
    assert release.sources[0].weight == 0.5
    assert release.evidence[20_000].n.sum() == contribution.arrays["n"].sum() / 2


def test_an_older_contribution_handed_over_late_changes_nothing() -> None:
    """The newest of a key stays, as through the gate."""
    one = amalgamator(lockstep=False)
    one.accept(evidence("alpha", 20_000, seed=2), 7)
    one.accept(evidence("alpha", 20_000, seed=1), 6)
    other = amalgamator(lockstep=False)
    other.accept(evidence("alpha", 20_000, seed=2), 7)
    assert released(one, 1).release_id == released(other, 1).release_id


def test_a_member_that_comes_back_may_send_its_log_again() -> None:
    """Nothing is left of it, so nothing is a duplicate."""
    one = amalgamator()
    for raw in RAW_FIRST:
        one.receive(raw, NOW_MS)
    one.set_registry(registry_of(["alpha", "gamma"]))
    one.set_registry(registry_of())
    of_beta = [
        one.receive(raw, NOW_MS)
        for raw, contribution in zip(RAW_FIRST, FIRST, strict=True)
        if contribution.key.member == "beta"
    ]
    assert all(isinstance(outcome, Accepted) for outcome in of_beta)
    assert released(one, 1).release_id == BY_BYTES[0].release_id
