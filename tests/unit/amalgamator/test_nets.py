"""The members' nets in the fold: the mean, who counts, for which basis, and what a liar can do."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amalgamator.core import Amalgamator
from amalgamator.fold import BasisPolicy, FoldConfig, Folder, FoldState, fold
from amalgamator.gate import Accepted, Refused
from amalgamator.nets import NetFold, clipped
from amalgamator.policy import TrustPolicy
from amalgamator.release_log import ReleaseLog
from models.families.mlp_parameters import n_parameters
from models.release import MergedNet, Release
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
    registry_of,
    statistics,
)

SIZE = n_parameters(SCHEMA.n_features)
CONFIG = FoldConfig(
    schema=SCHEMA, basis=BasisPolicy(min_n=300, min_frauds=5), trust=None, merges_nets=True
)
ROWS = {"alpha": 100, "beta": 150, "gamma": 250}
FLOAT32_EPS = float(np.finfo(np.float32).eps)


def net_of(member: str, basis: int, seed: int, *, n: int = 10**6, size: int = SIZE) -> Contribution:
    """Return a drawn net; it claims more rows than anybody has."""
    flat = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    return Contribution(
        key=ContributionKey(member, "0", "net", 0),
        epoch=3,
        basis=basis,
        n=n,
        arrays={"flat": flat},
    )


def added(state: FoldState, *log: Contribution) -> FoldState:
    seq = max((held.seq for held in state.newest.values()), default=0)
    for i, contribution in enumerate(log, 1):
        state = state.add(contribution, seq + i)
    return state


def in_force() -> tuple[FoldState, Release]:
    """Return a state with a basis in force, and the release that says so."""
    log = [histograms(m, n=n, n_frauds=9, seed=i) for i, (m, n) in enumerate(ROWS.items())]
    state = added(FoldState(), *log, *(evidence(m, 20_000, seed=1) for m in MEMBERS))
    first = fold(state, CONFIG, 1, None)
    basis = first.next_basis
    assert basis is not None
    sums = [
        statistics(m, 700, basis=basis.number, n_weights=basis.n_weights, seed=i)
        for i, m in enumerate(MEMBERS)
    ]
    state = added(state, *sums)
    second = fold(state, CONFIG, 2, first)
    assert second.basis is basis
    assert second.net is None
    return state, second


STATE, RELEASE = in_force()
NUMBER = 1 if RELEASE.basis is None else RELEASE.basis.number
NETS = [net_of(m, NUMBER, seed) for seed, m in enumerate(MEMBERS)]


def merged(*log: Contribution, config: FoldConfig = CONFIG) -> np.ndarray:
    net = fold(added(STATE, *log), config, 3, RELEASE).net
    assert net is not None
    return net.summary.flat


def mean(members: dict[str, float], nets: list[Contribution] = NETS) -> np.ndarray:
    """Return the mean by NumPy in float64 of who counts for so many rows."""
    chosen = [net for net in nets if members.get(net.key.member)]
    flats = [net.arrays["flat"].astype(np.float64) for net in chosen]
    return np.average(flats, axis=0, weights=[members[net.key.member] for net in chosen])


def near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * FLOAT32_EPS * 5)


def test_the_merged_net_is_the_mean_weighed_by_matured_rows() -> None:
    """Which the histograms vouch for, whatever a net claims; it brings the basis in force."""
    release = fold(added(STATE, *NETS), CONFIG, 3, RELEASE)
    assert release.net is not None
    near(release.net.summary.flat, mean({m: float(n) for m, n in ROWS.items()}))
    assert release.net.summary.n == sum(ROWS.values())
    assert release.net.basis is release.basis
    few = [net_of("alpha", NUMBER, 0, n=50), *NETS[1:]]
    near(merged(*few), mean({**ROWS, "alpha": 50.0}))


def test_nothing_is_merged_unless_the_consortium_says_so() -> None:
    """Nets that come all the same change no more than the sources."""
    off = replace(CONFIG, merges_nets=False)
    assert fold(added(STATE, *NETS), off, 3, RELEASE).net is None
    without, with_off = (fold(STATE, config, 3, RELEASE) for config in (CONFIG, off))
    assert without.release_id == with_off.release_id


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_in_which_nets_came_does_not_reach_the_release(order: tuple[int, ...]) -> None:
    """Commutative to the bit; seq decides alone which one of a key is the newest."""
    state = STATE
    for place in order:
        state = state.add(NETS[place], 100 + place)
    expected = STATE
    for place in range(3):
        expected = expected.add(NETS[place], 100 + place)
    one, other = (fold(s, CONFIG, 3, RELEASE) for s in (state, expected))
    assert one.release_id == other.release_id


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_trust_and_the_registry_s_weight_weigh_nets(factors: list[float]) -> None:
    """Rows times the factor, whole; who has less than half a row is not there."""
    weights = dict(zip(MEMBERS, factors, strict=True))
    pairs = added(STATE, *NETS).pairs()
    found = NetFold(CONFIG).fold(pairs, RELEASE, RELEASE.basis, weights=weights)
    rows = {m: float(round(f * ROWS[m])) for m, f in weights.items()}
    if not any(rows.values()):
        assert found is None
    else:
        assert found is not None
        near(found.summary.flat, mean(rows))
        assert found.summary.n == int(sum(rows.values()))


def test_a_member_that_is_removed_leaves_nothing() -> None:
    """As if it had never spoken, to the bit; also by a weight of nothing."""
    without = merged(*NETS[1:])
    silenced = merged(*NETS, config=replace(CONFIG, weights={"alpha": 0.0}))
    expelled = fold(added(STATE, *NETS).without(frozenset({"alpha"})), CONFIG, 3, RELEASE).net
    assert expelled is not None
    assert without.tobytes() == silenced.tobytes() == expelled.summary.flat.tobytes()
    near(without, mean({"beta": 150.0, "gamma": 250.0}))


def test_a_member_alone_is_its_own_mean() -> None:
    """And nobody is none."""
    assert merged(NETS[0]).tobytes() == NETS[0].arrays["flat"].tobytes()
    nobody = replace(CONFIG, weights=dict.fromkeys(MEMBERS, 0.0))
    assert fold(added(STATE, *NETS), nobody, 3, RELEASE).net is None


def test_nets_of_other_bases_and_lengths_are_not_heard() -> None:
    """Parameters of other bins have no mean; a member without histograms has no rows."""
    others = [
        net_of("alpha", NUMBER + 1, 0),
        net_of("beta", NUMBER, 1, size=SIZE - 1),
        replace(NETS[2], key=ContributionKey("delta", "0", "net", 0)),
    ]
    assert fold(added(STATE, *others), CONFIG, 3, RELEASE).net is None
    near(merged(*others, NETS[2]), mean({"gamma": 250.0}))


def test_the_net_of_the_last_basis_stays_until_there_is_one_of_the_next() -> None:
    """It brings its basis; the first net of the next takes over."""
    state = added(STATE, *NETS)
    release = fold(state, CONFIG, 3, RELEASE)
    assert release.basis is not None
    assert release.net is not None
    later = replace(release, basis=replace(release.basis, number=NUMBER + 1))
    weights = dict.fromkeys(MEMBERS, 1.0)
    between = NetFold(CONFIG).fold(state.pairs(), later, later.basis, weights=weights)
    assert between is not None
    assert between.basis is release.basis
    assert between.is_same(release.net)
    one = added(state, net_of("beta", NUMBER + 1, 7))
    over = NetFold(CONFIG).fold(one.pairs(), later, later.basis, weights=weights)
    assert over is not None
    assert over.basis is later.basis
    assert over.summary.flat.tobytes() == net_of("beta", 2, 7).arrays["flat"].tobytes()


def test_folding_again_gives_the_same_object_and_the_same_release() -> None:
    """Nothing is merged twice, and a restart gives the same bits."""
    state, folder = added(STATE, *NETS), Folder(CONFIG)
    first = folder.fold(state, 3, RELEASE)
    second = folder.fold(added(state, evidence("alpha", 20_001, seed=4)), 4, first)
    assert second.net is first.net
    assert fold(state, CONFIG, 3, RELEASE).release_id == first.release_id
    third = folder.fold(added(state, net_of("alpha", NUMBER, 9)), 5, second)
    assert not MergedNet.is_same(third.net, first.net)  # type: ignore[arg-type]  # there is one


def test_a_net_far_from_most_is_drawn_to_the_middle() -> None:
    """To three times the median distance, on the straight line; the others stay to the bit."""
    rng = np.random.default_rng(0)
    honest = [rng.normal(size=500).astype(np.float32) for _ in range(4)]
    liar = np.full(500, 1e4, np.float32)
    flats = [*honest, liar]
    found = clipped(flats, 3.0)
    for before, after in zip(honest, found, strict=False):
        assert after is before
    middle = np.median(np.array(flats, np.float64), axis=0)
    distances = [np.linalg.norm(flat - middle) for flat in flats]
    limit = 3.0 * np.median(distances)
    assert np.linalg.norm(found[4] - middle) == pytest.approx(limit, rel=1e-6)
    towards = (found[4] - middle) / limit
    np.testing.assert_allclose(towards, (liar - middle) / distances[4], atol=1e-6)
    assert clipped(flats[3:], 3.0)[1] is liar  # of two nobody is the majority
    same = clipped([honest[0]] * 3 + [liar], 3.0)
    assert same[3].tobytes() == honest[0].tobytes()


def test_trust_bounds_what_a_liar_s_net_does() -> None:
    """With it the mean stays near the honest; without it the liar decides."""
    flat = np.full(SIZE, 9e3, np.float32)
    liar = replace(NETS[2], arrays={"flat": flat})
    weights = dict.fromkeys(MEMBERS, 1.0)
    pairs = added(STATE, *NETS[:2], liar).pairs()
    sizes = []
    for trust in (TrustPolicy(), None):
        config = replace(CONFIG, trust=trust)
        net = NetFold(config).fold(pairs, RELEASE, RELEASE.basis, weights=weights)
        assert net is not None
        sizes.append(float(np.abs(net.summary.flat).max()))
    assert sizes[0] < 100.0
    assert sizes[1] > 4_000.0


def test_the_gate_takes_nets_of_the_schema_and_refuses_others() -> None:
    """Of another length or out of bounds: quarantined with the reason."""
    core = Amalgamator(registry_of(), CONFIG, previous=RELEASE)
    huge = replace(NETS[2], arrays={"flat": np.full(SIZE, 2e4, np.float32)})
    right, short, wild = envelopes([NETS[0], net_of("beta", NUMBER, 1, size=SIZE - 1), huge])
    assert isinstance(core.receive(right, NOW_MS), Accepted)
    for raw, reason in ((short, "shape"), (wild, "range")):
        refused = core.receive(raw, NOW_MS)
        assert isinstance(refused, Refused)
        assert refused.reason == reason


def test_the_releases_topic_keeps_the_net_and_its_basis() -> None:
    """Both come back after a restart and fold on to the same release; without it they go."""
    state = added(STATE, *NETS)
    release = fold(state, CONFIG, 3, RELEASE)
    assert release.net is not None
    old = release.net._replace(
        basis=replace(release.net.basis, number=77),
        summary=replace(release.net.summary, basis=77),
    )
    carried = seal_release(replace(release, net=old))
    log = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR)
    records = log.encode(carried)
    again = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR).restore(records)
    assert again is not None
    assert again.net is not None
    assert again.net.is_same(old)
    assert fold(state, CONFIG, 4, again).release_id == fold(state, CONFIG, 4, carried).release_id
    without = seal_release(replace(carried, number=carried.number + 1, net=None))
    deleted = {r.key.rsplit(b"|", 2)[0] for r in log.encode(without) if r.value is None}
    assert deleted == {b"net|77", b"basis|77"}
