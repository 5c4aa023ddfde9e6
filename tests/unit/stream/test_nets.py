"""A bank and merged nets: it publishes the one that it trains, and scores by the one that comes."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.basis import encode
from models.errors import StateError
from models.families.mlp_parameters import MlpScorer, MlpSummary, n_parameters
from models.families.network import n_parameters as n_student
from models.families.ordinals import Binning
from models.features.accounts import DAY_MS
from models.release import (
    MergedNet,
    PersonalWeights,
    ProbeSet,
    Release,
    Student,
    StudentNetwork,
)
from models.summary import Contribution
from stream.nets import MergedNetExpert
from stream.pipeline import Pipeline
from stream.pipeline_state import dump, restore
from tests.unit.stream.small_bank import (
    SCHEMA,
    Exchange,
    Trace,
    a_config,
    a_log,
    bits,
    consortium_releases,
    copied,
    do_day,
    feed,
    payments,
    same_contributions,
    stopped_once,
)

BATCH, LABELS = payments(0)
LOG = a_log(BATCH, LABELS)
MLP = "mlp {min_n = 200, min_frauds = 5, batch_n = 64}"
SIZE = n_parameters(SCHEMA.n_features)


def a_net(release: Release, seed: int = 0) -> MergedNet:
    assert release.basis is not None
    flat = np.random.default_rng(seed).normal(0, 0.2, SIZE).astype(np.float32)
    summary = MlpSummary(n=50, basis=release.basis.number, n_features=SCHEMA.n_features, flat=flat)
    return MergedNet(release.basis, summary)


@cache
def releases() -> dict[int, Release]:
    """Return releases that bring another net each, once there is a basis."""
    return {
        epoch: release if release.basis is None else replace(release, net=a_net(release, epoch))
        for epoch, release in consortium_releases().items()
    }


LAST = releases()[max(releases())]
TRAINING = {"uses_nets": True, "families": (MLP,)}


def run(**changes: object) -> tuple[Pipeline, Trace]:
    pipeline = Pipeline(a_config(**changes))
    return pipeline, feed(pipeline, BATCH, LOG, releases())


def nets_of(trace: Trace) -> list[Contribution]:
    return [one for one in trace.contributions if one.key.part == "net"]


def test_a_bank_publishes_its_net_with_the_basis_in_force_and_its_rows() -> None:
    """On the cadence of statistics; within what the gate lets through."""
    pipeline, trace = run(**TRAINING)
    assert pipeline.panel.names == ("own", "merged", "mlp", "mlp_merged")
    sent = nets_of(trace)
    assert len(sent) >= 3
    for one in sent:
        basis = releases()[one.epoch - 1].basis
        assert basis is not None
        assert (one.key.bucket, one.basis <= basis.number, one.basis >= 1) == (0, True, True)
        assert (one.arrays["flat"].dtype, one.arrays["flat"].shape) == (np.float32, (SIZE,))
    counted = {one.epoch: one.n for one in trace.contributions if one.key.part == "histograms"}
    assert all(one.n <= counted[one.epoch] for one in sent)
    rare = {**TRAINING, "statistics_cadence_ms": 4 * 86_400_000}
    assert len(nets_of(run(**rare)[1])) < len(sent)


def test_the_own_net_stays_the_bank_s_own() -> None:
    """Its scores are those of a bank in a consortium without nets, to the bit.

    Without others' evidence, which is told apart from the own by the numbers of summaries.
    """
    bare = {e: replace(one, evidence={}, sources=()) for e, one in releases().items()}
    trace = feed(Pipeline(a_config(**TRAINING)), BATCH, LOG, bare)
    alone = feed(Pipeline(a_config(families=(MLP,))), BATCH, LOG, bare)
    scores = np.array(trace.scores).reshape(-1, 4)
    without = np.array(alone.scores).reshape(-1, 3)
    assert np.isfinite(scores[-100:, 2]).all()
    assert bits(scores[:, :3].ravel()) == bits(without.ravel())
    assert not nets_of(alone)


def test_a_bank_without_the_family_scores_by_the_merged_net_and_publishes_none() -> None:
    """By the last release's: log-odds of the frozen scorer."""
    pipeline, trace = run(uses_nets=True)
    assert pipeline.panel.names == ("own", "merged", "mlp_merged")
    assert not nets_of(trace)
    scores = np.array(trace.scores).reshape(-1, 3)
    assert np.isnan(scores[0, 2])
    assert np.isfinite(scores[-100:, 2]).all()
    rows = np.random.default_rng(2).normal(0, 2, (40, SCHEMA.n_features)).astype(np.float32)
    assert LAST.net is not None
    expected = MlpScorer(LAST.net.summary, Binning.of(LAST.net.basis)).score(rows)
    assert pipeline.panel.score(rows, rows)[:, 2].tolist() == expected.tolist()
    _, plain = run()
    assert bits(scores[:, :2].ravel()) == bits(plain.scores)


def test_student_and_net_stand_side_by_side() -> None:
    """Each under its name, the net last; a cold bank does not rely on a net."""
    pipeline = Pipeline(a_config(uses_nets=True, uses_probes=True, families=(MLP,)))
    assert pipeline.panel.names == ("own", "merged", "mlp", "student", "mlp_merged")
    assert pipeline.panel.of_consortium.tolist() == [False, True, False, True, True]
    assert pipeline.panel.cold.tolist() == [False, True, False, True, False]
    assert pipeline.judge.blend.weights.tolist() == [0.0, 0.5, 0.0, 0.5, 0.0]


def test_personal_weights_stand_before_student_and_net() -> None:
    """Told again, every expert but the families is scored into its own column."""
    everything = {**TRAINING, "uses_probes": True, "uses_personal": True}
    names = ("own", "merged", "mlp", "personal", "student", "mlp_merged")
    rng = np.random.default_rng(5)
    release, number = replace(LAST, net=a_net(LAST, 99)), LAST.number + 1
    assert release.basis is not None
    assert release.weights is not None
    moved = release.weights[None] + rng.normal(0, 0.2, (1, len(release.weights)))
    personal = PersonalWeights(members=("north",), weights=moved)
    network = StudentNetwork(
        number=7,
        answers=np.zeros(32, np.uint8),
        parameters=rng.normal(0, 0.2, n_student(2 * SCHEMA.n_features)).astype(np.float32),
    )
    student = Student(release.basis, network)
    pipeline, _ = run(**everything)
    panel = pipeline.panel
    assert panel.names == names
    assert panel.of_consortium.tolist() == [False, True, False, True, True, True]
    assert panel.cold.tolist() == [False, True, False, True, True, False]
    pipeline.install(replace(release, number=number, personal=personal, student=student))
    rows = pipeline.log.features[-40:]
    scores = panel.score(rows, rows)
    assert len({column.tobytes() for column in scores.T}) == len(names)
    assert release.net is not None
    of_net = MlpScorer(release.net.summary, Binning.of(release.net.basis)).score(rows)
    of_member = [sum(moved[0, k] for k in on if k >= 0) for on in encode(release.basis, rows)]
    assert scores[:, 5].tolist() == of_net.tolist()
    assert scores[:, 4].tolist() == panel.student.score(rows).tolist()
    np.testing.assert_allclose(scores[:, 3], of_member, atol=1e-9)
    logged = np.full((40, len(names)), 7.0, np.float32)
    again = panel.rescore(rows, rows, logged, np.full(40, pipeline.tick_ms))
    assert (again[:, 2] == 7.0).all()  # the net in force had scored them itself
    others = [0, 1, 3, 4, 5]
    assert again[:, others].tolist() == scores[:, others].tolist()
    early = panel.rescore(rows, rows, logged, np.zeros(40, np.int64))
    assert early.tolist() == scores.tolist()


def test_the_merged_net_has_no_say_in_answers_to_probes() -> None:
    """Nor has any other expert of the consortium: it would hear its echo."""
    changes = {"uses_nets": True, "uses_probes": True, "answers_probes": True}
    pipeline, _ = run(**changes)
    rows = np.zeros((5, SCHEMA.n_features), np.float32)
    asked = replace(LAST, number=LAST.number + 1, probes=ProbeSet(number=9, rows=rows))
    pipeline.install(asked)
    seen = []

    def blend(scores: np.ndarray) -> np.ndarray:
        seen.append(np.isnan(scores).all(axis=0).tolist())
        return scores[:, 0]

    assert len(pipeline.panel.answers(blend, lambda rows: rows)) == 1
    assert set(map(tuple, seen)) == {(False, True, True, True)}


def test_another_net_is_told_to_the_alert_budget_and_the_same_is_not() -> None:
    """As a new student is."""
    pipeline, _ = run(uses_nets=True)
    assert not pipeline.panel.install_frozen(LAST)
    assert not pipeline.panel.install_frozen(replace(LAST, net=None))
    assert pipeline.panel.install_frozen(replace(LAST, net=a_net(LAST, 99)))
    off, _ = run()
    assert not off.panel.install_frozen(replace(LAST, net=a_net(LAST, 99)))


@pytest.mark.parametrize("changes", [TRAINING, {"uses_nets": True}])
@pytest.mark.parametrize("share", [0.3, 0.62, 0.8])
def test_going_on_from_a_dump_is_as_never_having_stopped(
    changes: dict[str, object], share: float
) -> None:
    """Before a basis, and while nets are trained, adopted and scored by."""
    _, whole = run(**changes)
    trace = stopped_once(a_config(**changes), BATCH, LOG, releases(), share=share)
    assert bits(trace.scores) == bits(whole.scores)
    assert bits(trace.logits) == bits(whole.logits)
    assert same_contributions(trace.contributions, whole.contributions)


def test_a_stored_net_scores_as_before() -> None:
    """Parameters and basis are in the state; without one there is no score."""
    expert, other = MergedNetExpert(), MergedNetExpert()
    rows = np.random.default_rng(2).normal(size=(30, SCHEMA.n_features)).astype(np.float32)
    assert np.isnan(expert.score(rows)).all()
    other.load(expert.arrays())
    assert other.summary is None
    assert expert.install(a_net(LAST, 3))
    other.load({name: array.copy() for name, array in expert.arrays().items()})
    assert other.score(rows).tolist() == expert.score(rows).tolist()


def test_a_state_without_the_net_s_column_is_refused() -> None:
    """Its log has one column of scores less."""
    pipeline = Pipeline(a_config())
    with pytest.raises(StateError, match="expected the experts own, merged, mlp_merged"):
        restore(a_config(uses_nets=True), copied(dump(pipeline)))


def test_a_bank_in_an_unknown_unit_neither_publishes_a_net_nor_scores_by_one() -> None:
    """Its amounts mean something else until the factor is found."""
    pipeline = Pipeline(a_config(**TRAINING, is_unit_known=False))
    trace = feed(pipeline, BATCH, LOG, releases())
    assert bool(nets_of(trace)) == pipeline.units.is_aligned
    if not pipeline.units.is_aligned:
        scores = np.array(trace.scores).reshape(-1, 4)
        assert np.isnan(scores[:, 3]).all()


def test_a_new_unit_begins_the_shared_net_anew() -> None:
    """From the mean that is in force, through the basis in force."""
    pipeline, _ = run(**TRAINING)
    fresh = pipeline.untrained_net()  # as an alignment makes it
    assert fresh is not None
    retained = pipeline.known.own(pipeline.tick_ms)
    pipeline.panel.realign(retained, pipeline.untrained_families(), fresh)
    assert pipeline.panel.net is fresh
    assert fresh.contribution() is None
    fresh.end_day(pipeline.known.for_all(pipeline.tick_ms).whole)
    given = fresh.contribution()
    assert given is not None
    assert LAST.basis is not None
    assert given.basis == LAST.basis.number


@pytest.mark.parametrize("place", [-3, -2])
def test_a_net_that_goes_on_in_a_thread_is_that_of_a_replay(place: int) -> None:
    """To the bit where it is done at once; outcomes and means that come meanwhile are in it."""
    places = [i for i, event in enumerate(LOG) if isinstance(event, Exchange)]
    until, last = places[place], places[place - 1] + 1
    left, ended = (Pipeline(a_config(**TRAINING)) for _ in range(2))
    for pipeline in (left, ended):
        feed(pipeline, BATCH, LOG[:last], releases())
        pipeline.leaves_days = pipeline is left
        feed(pipeline, BATCH, LOG[last:until], releases(), trace=Trace(seq=10_000))
        pipeline.advance((LOG[until].epoch + 1) * DAY_MS)  # type: ignore[union-attr]  # an exchange
    net = left.panel.net
    assert net is not None
    assert net.is_due()
    do_day(left)
    assert left.panel.net is not net
    for pipeline in (left, ended):
        feed(pipeline, BATCH, LOG[until : until + 40], releases(), trace=Trace(seq=20_000))
    one, other = left.panel.net, ended.panel.net
    assert one is not None
    assert other is not None
    assert {n: a.tobytes() for n, a in one.arrays().items()} == {
        n: a.tobytes() for n, a in other.arrays().items()
    }


def test_what_comes_while_a_net_goes_on_is_in_it() -> None:
    """Rows are learnt once, and the newest mean is taken up."""
    place = [i for i, event in enumerate(LOG) if isinstance(event, Exchange)][-3]
    pipeline = Pipeline(a_config(**TRAINING))
    pipeline.leaves_days = True
    feed(pipeline, BATCH, LOG[:place], releases())
    pipeline.advance((LOG[place].epoch + 1) * DAY_MS)  # type: ignore[union-attr]  # an exchange
    rest = [event for event in LOG[place:] if not isinstance(event, Exchange)][:120]
    todo = [rest]

    def meanwhile() -> None:
        if todo:
            feed(pipeline, BATCH, todo.pop(), trace=Trace(seq=20_000))
            pipeline.install(replace(LAST, net=a_net(LAST, 77)))

    do_day(pipeline, meanwhile)
    net = pipeline.panel.net
    assert net is not None
    arrays = net.arrays()
    assert LAST.basis is not None
    assert arrays["merged/flat"].tolist() == a_net(LAST, 77).summary.flat.tolist()
    assert arrays["asked/number"].tolist() == [LAST.basis.number]
    assert int(arrays["net/n"][0]) == len(pipeline.known.index_for_all(pipeline.tick_ms))
