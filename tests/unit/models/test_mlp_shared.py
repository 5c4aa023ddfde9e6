"""The net that a bank trains for its consortium: one start, then on from the mean that comes."""

from collections.abc import Sequence

import numpy as np
import pytest

from models.errors import SettingsError
from models.evaluation import average_precision
from models.families.base import SharedNet
from models.families.mlp import MlpFamily, MlpOptions
from models.families.mlp_parameters import MlpScorer, MlpSummary, merge
from models.families.mlp_shared import SEED, SharedMlp
from models.families.ordinals import Binning
from models.families.registry import make_shared_net
from tests.contract.test_families import BASIS, FIRST, OTHER_BASIS, SECOND, TEST, rows

OPTIONS = MlpOptions(min_n=500, min_frauds=5, batch_n=64, epochs=2, learning_rate=0.003)


def a_net(**options: object) -> SharedMlp:
    return SharedMlp(MlpFamily(MlpOptions(**(_values() | options)), seed=SEED))  # type: ignore[arg-type]  # options by name


def _values() -> dict[str, object]:
    return {name: getattr(OPTIONS, name) for name in OPTIONS.__slots__}


def begun(merged: MlpSummary | None = None) -> SharedMlp:
    """Return a net that has passed over rows of a basis."""
    net = a_net()
    net.install(BASIS, merged)
    net.end_day(lambda: FIRST)
    return net


def said(net: SharedNet) -> MlpSummary:
    summary = net.contribution()
    assert summary is not None
    return summary


def a_mean(seed: int = 5, basis: int = BASIS.number) -> MlpSummary:
    size = len(said(begun()).flat)
    flat = np.random.default_rng(seed).normal(0, 0.2, size).astype(np.float32)
    return MlpSummary(n=9, basis=basis, n_features=BASIS.n_features, flat=flat)


def precision(summary: MlpSummary) -> float:
    return average_precision(
        TEST.is_fraud, MlpScorer(summary, Binning.of(BASIS)).score(TEST.features)
    )


def test_all_members_start_alike_whatever_their_own_seed() -> None:
    """Taught the same rows, two banks publish the same bits; their own nets differ."""
    nets = [
        make_shared_net(("river {model = 'x'}", "mlp {min_n = 500, min_frauds = 5}")) for _ in "ab"
    ]
    for net in nets:
        assert net is not None
        net.install(BASIS, None)
        net.end_day(lambda: FIRST)
    one, other = (said(net) for net in nets if net is not None)
    assert one.flat.tobytes() == other.flat.tobytes()
    assert (one.basis, one.n) == (BASIS.number, len(FIRST))


def test_only_a_bank_with_the_family_trains_one() -> None:
    """With that family's options."""
    assert make_shared_net(()) is None
    assert make_shared_net(("lightgbm", "river {model = 'x'}")) is None
    with pytest.raises(SettingsError, match="min_m"):
        make_shared_net(("mlp {min_m = 1}",))


def test_nothing_is_published_before_there_is_enough() -> None:
    """No basis, too few rows, then enough."""
    net = a_net()
    net.end_day(lambda: FIRST)
    assert net.contribution() is None
    net.install(BASIS, None)
    net.end_day(lambda: FIRST.take(slice(0, 400)))
    assert net.contribution() is None
    net.end_day(lambda: FIRST)
    assert said(net).n == len(FIRST)
    net.learn(SECOND)
    assert said(net).n == len(FIRST) + len(SECOND)


def test_a_mean_takes_the_place_of_what_was_published() -> None:
    """To the rounding of the bias; the same mean again changes nothing."""
    net, mean = begun(), a_mean()
    said(net)
    net.install(BASIS, mean)
    np.testing.assert_allclose(said(net).flat, mean.flat, rtol=0, atol=1e-6)
    net.learn(SECOND)
    learnt = said(net).flat
    net.install(BASIS, mean)
    assert said(net).flat.tobytes() == learnt.tobytes()
    assert not np.array_equal(learnt, mean.flat)


def test_what_is_not_published_yet_survives_a_mean() -> None:
    """It is added to each mean that comes: mean + learnt since the last publication."""
    net, mean, other = begun(), a_mean(5), a_mean(6)
    before = said(net).flat
    net.learn(SECOND)
    twin = begun()
    said(twin)
    twin.learn(SECOND)
    since = said(twin).flat - before
    assert np.abs(since).max() > 1e-3
    net.install(BASIS, mean)
    net.install(BASIS, other)
    np.testing.assert_allclose(said(net).flat, other.flat + since, rtol=0, atol=1e-5)


def test_a_net_that_has_not_spoken_takes_no_mean() -> None:
    """It starts from the first that it knew; what it learns there is told before it is replaced."""
    mean = a_mean()
    net = begun(mean)
    undisturbed = said(begun(mean)).flat
    net.install(BASIS, a_mean(6))
    assert said(net).flat.tobytes() == undisturbed.tobytes()
    assert not np.array_equal(undisturbed, said(begun()).flat)


def test_another_basis_is_begun_from_what_is_known() -> None:
    """With the rows that are held; until then it stays on the old one."""
    net = begun()
    first = said(net)
    net.install(OTHER_BASIS, None)
    assert said(net).basis == BASIS.number
    net.end_day(lambda: FIRST.take(slice(0, 100)))
    assert said(net).basis == BASIS.number
    net.end_day(lambda: FIRST)
    going_on = said(net)
    assert (going_on.basis, going_on.n) == (OTHER_BASIS.number, len(FIRST))
    anew = a_net()
    anew.install(OTHER_BASIS, None)
    anew.end_day(lambda: FIRST)
    distance = [float(np.linalg.norm(going_on.flat - s.flat)) for s in (first, said(anew))]
    assert distance[0] < distance[1]


def test_a_new_basis_begins_at_its_mean_or_else_at_the_own_net() -> None:
    """By where steps of no length end; a joiner begins at whatever mean there is."""
    still = {"learning_rate": 1e-9}
    for known in (a_mean(5, OTHER_BASIS.number), None):
        net = a_net(**still)
        net.install(BASIS, None)
        net.end_day(lambda: FIRST)
        own = said(net).flat
        net.install(OTHER_BASIS, known)
        net.end_day(lambda: FIRST)
        expected = own if known is None else known.flat
        np.testing.assert_allclose(said(net).flat[:-1], expected[:-1], rtol=0, atol=1e-5)
    for known in (a_mean(5, OTHER_BASIS.number), a_mean(5)):
        joiner = a_net(**still)
        joiner.install(OTHER_BASIS, known)
        joiner.end_day(lambda: FIRST)
        np.testing.assert_allclose(said(joiner).flat[:-1], known.flat[:-1], rtol=0, atol=1e-5)


def rounds(n: int) -> tuple[Sequence[float], float]:
    """Return the average precision of the mean after each round, and the best bank's alone."""
    banks = [rows(700, seed) for seed in range(10, 14)]
    nets, alone = [a_net() for _ in banks], [a_net() for _ in banks]
    found = []
    for net, held in zip([*nets, *alone], [*banks, *banks], strict=True):
        net.install(BASIS, None)
        net.end_day(lambda held=held: held)
    for _ in range(n):
        mean = merge([said(net) for net in nets])
        found.append(precision(mean))
        for net, held in zip(nets, banks, strict=True):
            net.install(BASIS, mean)
            net.learn(held)
        for net, held in zip(alone, banks, strict=True):
            net.learn(held)
    return found, max(precision(said(net)) for net in alone)


def test_members_that_go_on_from_the_mean_find_more_than_each_alone() -> None:
    """Four small banks, ten rounds over their own rows; the mean also gets better by rounds."""
    found, best_alone = rounds(10)
    assert found[-1] > found[0]
    assert found[-1] > best_alone


def test_a_stored_net_goes_on_to_the_bit() -> None:
    """In the middle of a minibatch, with progress that is not published."""
    net, other = begun(), a_net()
    said(net)
    net.install(BASIS, a_mean())
    net.learn(SECOND)
    other.load({name: array.copy() for name, array in net.arrays().items()})
    for each in (net, other):
        each.install(BASIS, a_mean(8))
        each.learn(TEST)
        each.install(OTHER_BASIS, None)
        each.end_day(lambda: SECOND)
    assert said(net).flat.tobytes() == said(other).flat.tobytes()
    untrained = a_net()
    untrained.load(a_net().arrays())
    assert untrained.contribution() is None


def test_a_net_that_left_all_bounds_begins_anew() -> None:
    """A spoilt mean stops no worker: what cannot be published is forgotten."""
    net = begun()
    arrays = {name: array.copy() for name, array in net.arrays().items()}
    arrays["net/flat"][:] = np.inf
    net.load(arrays)
    assert net.contribution() is None
    net.install(BASIS, a_mean())
    net.end_day(lambda: FIRST)
    assert np.isfinite(said(net).flat).all()
