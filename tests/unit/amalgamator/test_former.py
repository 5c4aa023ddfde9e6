"""Statistics of bases before the one in force: they count, embedded, until they are replaced."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from amalgamator.core import Amalgamator
from amalgamator.fold import Folder, FoldState, fold
from amalgamator.gate import Accepted, Refused
from amalgamator.policy import FoldConfig, TrustPolicy
from amalgamator.release_log import ReleaseLog
from amalgamator.target import targets
from models.basis import MISSING, Basis
from models.basis_overlap import places_in
from models.errors import InvalidInputError
from models.release import Former, FormerWeights, Release
from models.release_hashes import part_hashes, seal_release
from models.summary import Contribution
from tests.consortium import (
    AMALGAMATOR,
    CONSORTIUM,
    MEMBERS,
    NOW_MS,
    SCHEMA,
    envelopes,
    histograms,
    registry_of,
)
from tests.two_bases import (
    CONFIG,
    basis_with,
    dense,
    logits_of,
    new_basis,
    old_basis,
    release_on,
    renumbered,
    rows,
    statistics_of,
    stump,
    three_leaves,
)

OLD, NEW = old_basis(), new_basis()
IN_FORCE = np.random.default_rng(8).normal(size=OLD.n_weights)
N_ROWS = 80
Log = Sequence[tuple[Contribution, int]]


def in_force(next_basis: Basis | None = NEW) -> Release:
    """Return a release whose scorer is on the old basis."""
    return release_on(OLD, IN_FORCE, next_basis)


def a_log() -> Log:
    """Return statistics under both bases; gamma, a tenth of the transactions, has not moved yet."""
    log = [
        histograms(m, n=n, n_frauds=5, seed=n) for m, n in zip(MEMBERS, (200, 250, 50), strict=True)
    ]
    log += [
        statistics_of("alpha", 3, NEW, seed=1),
        statistics_of("alpha", 4, NEW, seed=2),
        statistics_of("beta", 2, OLD, seed=3),  # before what it retains
        statistics_of("beta", 4, NEW, seed=4),
        statistics_of("gamma", 3, OLD, seed=5),
        statistics_of("gamma", 4, OLD, seed=6),
    ]
    return [(contribution, i) for i, contribution in enumerate(log, 1)]


def state_of(log: Log) -> FoldState:
    state = FoldState()
    for contribution, seq in log:
        state = state.add(contribution, seq)
    return state


def by_hand(log: Log, former: Sequence[Former], config: FoldConfig) -> NDArray[np.float64]:
    """Return the weights on the new basis, from all rows at once, in plain NumPy."""
    newest = max(c.key.bucket for c, _ in log if c.key.part == "statistics")
    a, b = np.zeros((NEW.n_weights, NEW.n_weights)), np.zeros(NEW.n_weights)
    of_former = {one.basis.number: one for one in former}
    for seed, (contribution, _) in enumerate(log[3:], 1):
        features, y = rows(N_ROWS, seed)
        z = logits_of(N_ROWS, seed)
        p = 1.0 / (1.0 + np.exp(-z))
        h = np.maximum(p * (1.0 - p), np.abs(y - p) / 10.0)
        x, response = dense(NEW, features), z
        if contribution.basis != NEW.number:
            if contribution.basis not in of_former:
                continue
            basis, last = of_former[contribution.basis]
            places = places_in(basis, NEW)
            gone = places == MISSING
            response = z - dense(basis, features)[:, gone] @ last.weights[gone]
            x *= np.isin(np.arange(NEW.n_weights), places)
        decay = 0.5 ** ((newest - contribution.key.bucket) * 28 / config.half_life_d)
        a += decay * x.T @ (h[:, None] * x)
        b += decay * x.T @ ((y - p) + h * response)
    ridge = np.full(NEW.n_weights, config.ridge)
    ridge[NEW.offsets[-1 - len(NEW.trees)] :] = config.leaf_ridge
    prior = np.zeros(NEW.n_weights)
    prior[0] = config.prior_logit
    return np.linalg.solve(a + np.diag(ridge), b + ridge * prior)


LAST = Former(OLD, FormerWeights(number=OLD.number, weights=IN_FORCE))


def switched(config: FoldConfig = CONFIG) -> Release:
    """Return the release that brings the new basis into force."""
    release = fold(state_of(a_log()), config, 4, in_force())
    assert release.basis is NEW
    assert release.next_basis is None
    return release


def test_statistics_of_the_basis_before_count_as_plain_numpy_on_all_rows_says():
    """Restricted to the common transforms; the release says what it embedded by."""
    release = switched()
    expected = by_hand(a_log(), [LAST], CONFIG)
    np.testing.assert_allclose(release.weights, expected, atol=1e-5)
    without = by_hand(a_log(), [], CONFIG)
    assert np.abs(without - expected).max() > 0.05
    (former,) = release.former
    assert former.basis is OLD
    np.testing.assert_array_equal(former.last.weights, IN_FORCE)


def test_with_bases_that_differ_in_nothing_they_count_to_the_bit():
    """Another number alone: as if everybody had published for the new one."""
    same = renumbered(OLD, 2)
    published = [statistics_of(m, 3, same, seed=i) for i, m in enumerate(MEMBERS)]
    published[2] = replace(published[2], basis=1)
    log = [*a_log()[:3], *((one, 9 + i) for i, one in enumerate(published))]
    moved = [(replace(c, basis=2) if c.key.part == "statistics" else c, seq) for c, seq in log]
    found, expected = (fold(state_of(one), CONFIG, 4, in_force(same)) for one in (log, moved))
    assert found.basis is same
    np.testing.assert_array_equal(found.weights, expected.weights)


def test_switched_off_only_what_is_of_the_basis_counts():
    """And the release is as it was before there was such a thing."""
    config = replace(CONFIG, n_former=0)
    release = switched(config)
    assert release.former == ()
    np.testing.assert_allclose(release.weights, by_hand(a_log(), [], config), atol=1e-5)


def test_what_is_published_anew_replaces_what_was_embedded():
    """One transaction counts once: the key is the same."""
    log = [*a_log(), (statistics_of("gamma", 3, NEW, seed=5), 20)]
    release = fold(state_of(log), CONFIG, 4, switched())
    in_place = [*log[:7], (log[9][0], 20), log[8]]  # of gamma's bucket 3, whose rows are drawn by 5
    np.testing.assert_allclose(release.weights, by_hand(in_place, [LAST], CONFIG), atol=1e-5)
    assert not np.array_equal(release.weights, switched().weights)


def test_embedding_does_not_make_a_member_count_as_one_that_has_moved():
    """The next basis waits for those who publish for it."""
    log = [pair for pair in a_log() if pair[0].key.member != "beta" or pair[1] <= 3]
    release = fold(
        state_of([*log, (statistics_of("beta", 4, OLD, seed=4), 20)]), CONFIG, 4, in_force()
    )
    assert release.basis is OLD
    assert release.next_basis is NEW
    assert release.former == ()


def test_only_the_newest_former_scorers_are_kept():
    """Two by default; what is older does not count any more."""
    older = basis_with(1, [stump(0, 0.0)])
    middle, latest = renumbered(OLD, 2), renumbered(NEW, 4)
    weights = np.zeros(middle.n_weights)
    before = replace(
        in_force(latest),
        basis=renumbered(OLD, 3),
        former=(
            Former(older, FormerWeights(number=1, weights=np.zeros(older.n_weights))),
            Former(middle, FormerWeights(number=2, weights=weights)),
        ),
    )
    log = [(replace(c, basis=4) if c.basis == NEW.number else c, s) for c, s in a_log()]
    log = [(replace(c, basis=2) if c.basis == OLD.number else c, s) for c, s in log]
    known = targets(before, CONFIG)[4]
    assert [one.basis.number for one in known.former] == [2, 3]
    release = fold(state_of(log), CONFIG, 4, before)
    assert [one.basis.number for one in release.former] == [2, 3]
    again = fold(state_of(log), CONFIG, 4, replace(before, former=before.former[1:]))
    np.testing.assert_array_equal(release.weights, again.weights)
    fewer = fold(state_of(log), replace(CONFIG, n_former=1), 4, before)
    assert [one.basis.number for one in fewer.former] == [3]
    assert not np.array_equal(release.weights, fewer.weights)


def test_statistics_that_no_known_basis_has_weights_for_are_left_out():
    """Of an unknown number, or of another size."""
    odd = statistics_of("gamma", 3, basis_with(1, [stump(0, 0.0)]), seed=5)
    log = [pair for pair in a_log() if pair[0].key.member != "gamma" or pair[1] <= 3]
    expected = fold(state_of(log), CONFIG, 4, in_force()).weights
    for extra in (odd, replace(odd, basis=7)):
        found = fold(state_of([*log, (extra, 20)]), CONFIG, 4, in_force()).weights
        np.testing.assert_array_equal(found, expected)


SWITCHED = switched()


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(9)), st.lists(st.integers(0, 8), max_size=6))
def test_order_and_repetition_change_nothing(order: list[int], again: list[int]) -> None:
    """The same release, to the hash, and the same on a fold after it."""
    log = a_log()
    state = state_of([log[i] for i in [*order, *again]])
    release = fold(state, CONFIG, 4, in_force())
    assert release.release_id == SWITCHED.release_id
    assert fold(state, CONFIG, 4, release).release_id == SWITCHED.release_id


def test_a_folder_that_remembers_gives_the_bits_of_one_that_does_not():
    """Through the switch, a changed weight in force and a bucket that is published anew."""
    folder, previous = Folder(CONFIG), in_force()
    log = list(a_log())
    stayed = [pair for pair in log if pair[0].basis == OLD.number]
    first = [*log[:3], *stayed, (statistics_of("alpha", 4, OLD, seed=9), 1)]
    for held in (first, log, [*log, (statistics_of("gamma", 4, NEW, seed=6), 30)]):
        found = folder.fold(state_of(held), 4, previous)
        assert found.release_id == fold(state_of(held), CONFIG, 4, previous).release_id
        previous = found
    assert previous.basis is NEW


def restarted(release: Release) -> Release:
    """Return the release as an amalgamator finds it in the topic after a restart."""
    records = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR).encode(release)
    found = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR).restore(records)
    assert found is not None
    return found


def test_a_restart_from_the_compacted_log_folds_to_the_same_hash():
    """From the newest envelope of each key and the last release alone."""
    raw = list(envelopes([contribution for contribution, _ in a_log()]))
    amalgamator = Amalgamator(registry_of(), CONFIG, previous=in_force())
    outcomes = [amalgamator.receive(one, NOW_MS) for one in raw]
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    release = amalgamator.close_epoch(4)
    assert release is not None
    assert len(release.former) == 1
    again = Amalgamator(registry_of(), CONFIG, previous=restarted(release))
    for one in reversed(raw):
        again.receive(one, NOW_MS)
    refolded = again.refold()
    assert refolded is not None
    assert refolded.release_id == release.release_id
    assert again.close_epoch(4) is None


def test_the_gate_knows_the_size_of_former_bases():
    """What comes late for one is checked as what comes for the one in force."""
    amalgamator = Amalgamator(registry_of(), CONFIG, previous=SWITCHED)
    good = statistics_of("gamma", 5, OLD, seed=1)
    bad = statistics_of("gamma", 6, basis_with(1, [three_leaves()]), seed=1)
    first, second = envelopes([good, bad])
    assert isinstance(amalgamator.receive(first, NOW_MS), Accepted)
    refused = amalgamator.receive(second, NOW_MS)
    assert isinstance(refused, Refused)
    assert refused.reason == "shape"


def test_a_liar_that_stays_on_the_old_basis_is_judged_as_it_counts():
    """It would else count in full, unheard of by the others."""
    lie = statistics_of("gamma", 4, OLD, seed=6)
    gradient = 1e4 * np.ones(OLD.n_weights)
    log = [*a_log()[:-1], (replace(lie, arrays=lie.arrays | {"gradient": gradient}), 9)]
    folder = Folder(replace(CONFIG, trust=TrustPolicy()))
    release = folder.fold(state_of(log), 4, in_force())
    assert release.basis is NEW
    verdicts = {one.member: one for one in folder.report.members}
    assert verdicts["gamma"].statistics == 0.0
    assert "gradient" in verdicts["gamma"].why
    honest = [pair for pair in log if pair[0].key != lie.key and pair[1] not in (8, 9)]
    np.testing.assert_array_equal(
        release.weights, fold(state_of(honest), CONFIG, 4, in_force()).weights
    )


def test_former_scorers_come_back_from_the_wire_and_are_sent_once():
    """Their basis was sent when it was in force; afterwards nothing but the manifest."""
    log = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR)
    log.encode(in_force())
    keys = [record.key.rsplit(b"|", 2)[0] for record in log.encode(replace(SWITCHED, number=5))]
    assert keys == [b"former|1", b"weights|0", b"manifest"]
    again = log.encode(replace(SWITCHED, number=6))
    assert [record.key.rsplit(b"|", 2)[0] for record in again] == [b"manifest"]
    back = restarted(SWITCHED)
    assert part_hashes(back) == part_hashes(SWITCHED)
    assert back.former[0].basis.number == 1
    np.testing.assert_array_equal(back.former[0].last.weights, IN_FORCE)


def test_a_former_scorer_that_is_let_go_leaves_tombstones():
    """Basis and weights of it are needed by nobody."""
    log = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR)
    log.encode(SWITCHED)
    bare = seal_release(replace(SWITCHED, number=9, former=()))
    gone = {r.key.rsplit(b"|", 2)[0] for r in log.encode(bare) if not r.value}
    assert gone == {b"basis|1", b"former|1"}


@pytest.mark.parametrize("n", [-1, 9])
def test_a_number_of_former_scorers_out_of_range_is_refused(n):
    """By the message."""
    with pytest.raises(InvalidInputError, match=r"n_former in 0\.\.8"):
        replace(CONFIG, n_former=n)
