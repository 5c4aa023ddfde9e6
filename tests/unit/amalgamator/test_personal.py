"""Personal solutions: sums in which a member's own statistics count more, held to plain NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amalgamator.fold import Folder, FoldState, fold
from amalgamator.release_log import ReleaseLog
from models.errors import InvalidInputError, QuarantinedError
from models.keys import Verifier
from models.release import PersonalWeights
from models.release_codec import ReleaseAssembler, encode_release
from models.release_hashes import seal_release
from tests import two_bases
from tests.consortium import AMALGAMATOR, CONSORTIUM, MEMBERS, SCHEMA, histograms
from tests.two_bases import dense, logits_of, new_basis, old_basis, release_on, rows, statistics_of

BASIS = old_basis()
KAPPA = 3.0
CONFIG = replace(two_bases.CONFIG, kappa=KAPPA)
N_ROWS = 80
PUBLISHED = (("alpha", 3), ("alpha", 4), ("beta", 4), ("gamma", 3))


def before(next_basis=None):
    """Return a release with the basis in force and weights of nothing."""
    return release_on(BASIS, np.zeros(BASIS.n_weights), next_basis)


def a_log():
    """Return histograms of three members and their statistics, rows drawn by position."""
    log = [histograms(m, n=200, n_frauds=5, seed=i) for i, m in enumerate(MEMBERS)]
    log += [statistics_of(m, b, BASIS, seed=i, n=N_ROWS) for i, (m, b) in enumerate(PUBLISHED)]
    return [(contribution, i) for i, contribution in enumerate(log, 1)]


def state_of(log):
    state = FoldState()
    for contribution, seq in log:
        state = state.add(contribution, seq)
    return state


def by_hand(member, kappa=KAPPA, weights=None):
    """Return a member's solution from all rows in plain NumPy; each of its own counts more."""
    a, b = np.zeros((BASIS.n_weights,) * 2), np.zeros(BASIS.n_weights)
    for seed, (name, bucket) in enumerate(PUBLISHED):
        features, y = rows(N_ROWS, seed)
        z, x = logits_of(N_ROWS, seed), dense(BASIS, features)
        p = 1.0 / (1.0 + np.exp(-z))
        h = np.maximum(p * (1.0 - p), np.abs(y - p) / 10.0)
        factor = 0.5 ** ((4 - bucket) * 28 / 100.0) * (1.0 + kappa * (name == member))
        factor *= 1.0 if weights is None else weights[name]
        a += factor * x.T @ (h[:, None] * x)
        b += factor * x.T @ ((y - p) + h * z)
    ridge = np.full(BASIS.n_weights, 4.0)
    ridge[BASIS.offsets[-1 - len(BASIS.trees)] :] = 9.0
    prior = np.zeros(BASIS.n_weights)
    prior[0] = -2.0
    return np.linalg.solve(a + np.diag(ridge), b + ridge * prior)


def personal_of(release):
    assert release.personal is not None
    return release.personal


def test_each_member_s_weights_are_a_solution_in_which_its_own_count_more():
    """Kappa times more; the merged ones stay what they are without."""
    release = fold(state_of(a_log()), CONFIG, 4, before())
    personal = personal_of(release)
    assert personal.members == MEMBERS
    for member in MEMBERS:
        np.testing.assert_allclose(personal.of(member), by_hand(member), atol=2e-5)
    assert personal.of("nobody") is None
    np.testing.assert_allclose(release.weights, by_hand("nobody"), atol=2e-5)
    assert np.abs(personal.of("beta") - release.weights).max() > 0.05


def test_factors_count_for_own_statistics_too_and_who_does_not_count_has_no_weights():
    """Half a member is half of it in its own solution."""
    weights = {"alpha": 1.0, "beta": 0.0, "gamma": 0.5}
    release = fold(state_of(a_log()), replace(CONFIG, weights=weights), 4, before())
    personal = personal_of(release)
    assert personal.members == ("alpha", "gamma")
    np.testing.assert_allclose(personal.of("gamma"), by_hand("gamma", weights=weights), atol=2e-5)


def test_without_kappa_a_release_is_as_before():
    """Nothing is carried on from one that had personal weights."""
    plain = fold(state_of(a_log()), replace(CONFIG, kappa=None), 4, before())
    assert plain.personal is None
    found = fold(state_of(a_log()), CONFIG, 4, before())
    assert seal_release(replace(found, personal=None)).release_id == plain.release_id
    off = fold(state_of(a_log()), replace(CONFIG, kappa=None), 4, found)
    assert off.release_id == plain.release_id


def test_they_stay_while_weights_stay_and_go_with_the_basis():
    """Not enough members publish: nothing is solved; then all do for another basis."""
    first = fold(state_of(a_log()), CONFIG, 4, before(new_basis()))
    few = [pair for pair in a_log() if pair[0].key.part == "histograms" or pair[1] in (4, 5)]
    second = fold(state_of(few), CONFIG, 5, first)
    assert second.personal is first.personal
    moved = [statistics_of(m, b, new_basis(), seed=i) for i, (m, b) in enumerate(PUBLISHED)]
    log = [*a_log()[:3], *((one, 20 + i) for i, one in enumerate(moved))]
    third = fold(state_of(log), CONFIG, 6, second)
    assert third.basis is not None
    assert third.basis.number == 2
    assert personal_of(third).weights.shape == (3, new_basis().n_weights)


ID = fold(state_of(a_log()), CONFIG, 4, before()).release_id


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)), st.lists(st.integers(0, 6), max_size=4))
def test_order_and_repetition_change_nothing(order, again):
    """To the hash, with and without what a folder remembers."""
    state = state_of([a_log()[i] for i in [*order, *again]])
    folder = Folder(CONFIG)
    first = folder.fold(state, 4, before())
    assert first.release_id == ID
    assert folder.fold(state, 4, first).release_id == ID
    assert fold(state, CONFIG, 4, first).release_id == ID


def test_a_member_whose_own_sum_has_no_solution_is_left_out():
    """A sum that all together outweigh becomes indefinite when it counts more."""
    bent = a_log()[5][0]
    curvature = bent.arrays["curvature"].copy()
    n = BASIS.n_weights
    one, other = curvature[n], curvature[2 * n - 1]  # two bins of a feature: never together
    curvature[n + 1] = 1.1 * np.sqrt(one * other)
    log = [*a_log()[:5], (replace(bent, arrays=bent.arrays | {"curvature": curvature}), 6)]
    log += [*a_log()[6:], (statistics_of("alpha", 5, BASIS, seed=70, n=4_000), 30)]
    release = fold(state_of(log), replace(CONFIG, kappa=1e4), 4, before())
    assert personal_of(release).members == ("alpha", "gamma")


def a_release():
    return fold(state_of(a_log()), CONFIG, 4, before())


def test_they_come_back_from_the_wire_and_are_sent_when_they_change():
    """One part, in two slots; members are named in the manifest."""
    log = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR)
    records = log.encode(a_release())
    keys = [record.key.rsplit(b"|", 2)[0] for record in records]
    assert keys == [b"basis|1", b"weights|0", b"personal|0", b"manifest"]
    back = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR).restore(records)
    assert back is not None
    assert back.release_id == seal_release(back).release_id == ID
    assert personal_of(back).members == MEMBERS
    np.testing.assert_array_equal(personal_of(back).weights, personal_of(a_release()).weights)
    bare = seal_release(replace(a_release(), number=9, personal=None))
    assert [r.key.rsplit(b"|", 2)[0] for r in log.encode(bare) if not r.value] == [b"personal|0"]


def test_whose_they_are_is_part_of_the_release_id():
    """Names and numbers."""
    personal = personal_of(a_release())
    others = [
        replace(personal, members=("alpha", "beta", "delta")),
        replace(personal, weights=personal.weights[::-1]),
    ]
    ids = {seal_release(replace(a_release(), personal=one)).release_id for one in others}
    assert len(ids | {ID}) == 3


@pytest.mark.parametrize(
    ("members", "shape"),
    [(("b", "a"), (2, 3)), (("a", "a"), (2, 3)), (("a",), (2, 3)), (("a",), (3,))],
)
def test_weights_of_other_members_than_are_named_are_refused(members, shape):
    """Sorted, each once, a row each."""
    with pytest.raises(InvalidInputError, match="personal weights: expected"):
        PersonalWeights(members=members, weights=np.zeros(shape))


def test_weights_that_are_not_finite_are_refused():
    """When they are made, and so when they come."""
    with pytest.raises(InvalidInputError, match="finite"):
        PersonalWeights(members=("a",), weights=np.array([[1.0, np.nan]]))


def test_a_release_whose_personal_weights_are_of_another_basis_is_refused():
    """One per weight of the basis."""
    wrong = PersonalWeights(members=("alpha",), weights=np.zeros((1, BASIS.n_weights + 1)))
    release = seal_release(replace(a_release(), personal=wrong))
    by = ReleaseAssembler(CONSORTIUM, SCHEMA, [Verifier(AMALGAMATOR.public_key)])
    *parts, manifest = encode_release(release, (), AMALGAMATOR, consortium=CONSORTIUM)
    for _, raw in parts:
        by.add(raw)
    with pytest.raises(QuarantinedError) as caught:
        by.add(manifest[1])
    assert caught.value.reason == "shape"


@pytest.mark.parametrize("kappa", [0.0, -1.0, np.inf, np.nan])
def test_a_kappa_that_is_no_factor_is_refused(kappa):
    """Off is None."""
    with pytest.raises(InvalidInputError, match="kappa > 0"):
        replace(CONFIG, kappa=kappa)
