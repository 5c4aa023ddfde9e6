"""A bank and probes: it answers each set once, with its own opinion; the student is an expert."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.basis import encode
from models.errors import InvalidInputError, StateError
from models.families.distilled import Distilled
from models.families.network import n_parameters
from models.families.scorecard import logits
from models.release import ProbeSet, Release, Student, StudentNetwork
from models.schema import AttributeSpec, Schema
from models.summary import Contribution
from stream.pipeline import Pipeline
from stream.pipeline_state import dump, restore
from stream.probing import Answerer, StudentExpert
from tests.unit.stream.small_bank import (
    SCHEMA,
    Exchange,
    Trace,
    a_config,
    a_log,
    bits,
    consortium_releases,
    copied,
    feed,
    payments,
    same_contributions,
    stopped_once,
)

BATCH, LABELS = payments(0)
LOG = a_log(BATCH, LABELS)
FAMILY = "lightgbm {n_trees = 10, min_n = 200, min_frauds = 5, refit_d = 1}"
SET = 20_300


def a_student(release: Release, seed: int = 0) -> Student:
    assert release.basis is not None
    rng = np.random.default_rng(seed)
    size = n_parameters(2 * SCHEMA.n_features)
    network = StudentNetwork(
        number=SET,
        answers=np.full(32, seed, np.uint8),
        parameters=rng.normal(0, 0.3, size).astype(np.float32),
    )
    return Student(release.basis, network)


@cache
def asking_releases() -> dict[int, Release]:
    """Return releases that ask from the third on, and bring a student where there is a basis."""
    asked = {}
    rows = np.random.default_rng(1).normal(0, 2, (50, SCHEMA.n_features)).astype(np.float32)
    rows[:, 2] = np.nan
    for epoch, release in consortium_releases().items():
        student = None if release.basis is None else a_student(release)
        probes = ProbeSet(number=SET, rows=rows) if release.number >= 3 else None
        asked[epoch] = replace(release, probes=probes, student=student)
    return asked


def run(**changes: object) -> tuple[Pipeline, Trace]:
    pipeline = Pipeline(a_config(**changes))
    return pipeline, feed(pipeline, BATCH, LOG, asking_releases())


def of_part(trace: Trace, part: str) -> list[Contribution]:
    return [one for one in trace.contributions if one.key.part == part]


ANSWERING = {"answers_probes": True, "uses_probes": True, "families": (FAMILY,)}


def test_a_bank_answers_each_set_once_with_its_own_experts_alone() -> None:
    """As soon as it has an opinion; the merged scorecard and the student are not asked."""
    pipeline, trace = run(**ANSWERING)
    (given,) = of_part(trace, "answers")
    assert (given.key.bucket, given.basis) == (0, SET)
    logit = given.arrays["logit"]
    assert (logit.dtype, logit.shape) == (np.float32, (50,))
    assert np.isfinite(logit).all()
    assert given.n == max(c.n for c in of_part(trace, "histograms") if c.epoch <= given.epoch)
    rows = asking_releases()[max(asking_releases())].probes
    assert rows is not None
    scores = pipeline.panel.score(rows.rows, rows.rows)
    assert np.isfinite(scores).all()


def test_the_answer_is_the_own_scorecard_where_nothing_else_is_own() -> None:
    """Without families: its log-odds as the blend of one expert, whatever the others say."""
    pipeline, _ = run(answers_probes=True, uses_probes=True)
    release = asking_releases()[max(asking_releases())]
    assert release.probes is not None
    again = ProbeSet(number=SET + 1, rows=release.probes.rows)
    pipeline.install(replace(release, number=release.number + 1, probes=again))
    seen = []

    def twice_the_own(scores: np.ndarray) -> np.ndarray:
        seen.append(scores)
        return np.asarray(scores[:, 0] * 2.0)

    (piece,) = pipeline.panel.answers(twice_the_own, lambda rows: rows)
    assert np.isnan(seen[-1][:, 1:]).all()  # of merged and student it hears nothing
    own = pipeline.panel.own
    assert own.basis is not None
    assert own.weights is not None
    expected = 2.0 * logits(encode(own.basis, again.rows), own.weights)
    assert piece.arrays()["logit"] == pytest.approx(np.clip(expected, -30, 30), abs=1e-5)
    assert (piece.part, piece.bucket, piece.basis) == ("answers", 0, SET + 1)


def test_a_bank_that_does_not_answer_publishes_what_it_always_did() -> None:
    """The student changes its blend and nothing that it says."""
    _, trace = run(uses_probes=True)
    _, plain = run()
    assert not of_part(trace, "answers")
    assert same_contributions(trace.contributions, plain.contributions)


def test_the_student_is_the_last_expert_and_one_of_the_consortium_s() -> None:
    """Its column holds the network's scores of rows with all evidence."""
    pipeline, _ = run(uses_probes=True)
    assert pipeline.panel.names == ("own", "merged", "student")
    assert pipeline.panel.cold.tolist() == [False, True, True]
    basis, network = a_student(asking_releases()[max(asking_releases())])
    rows = pipeline.log.features[-20:]
    expected = Distilled(basis, network.parameters).score(rows).astype(np.float32)
    assert pipeline.log.scores[-20:, 2].tolist() == expected.tolist()


def test_without_probes_there_is_no_column() -> None:
    """Releases that carry them all the same leave every score as it was."""
    pipeline, trace = run()
    assert pipeline.panel.names == ("own", "merged")
    plain = Trace()
    feed(Pipeline(a_config()), BATCH, LOG, consortium_releases(), trace=plain)
    assert bits(trace.scores) == bits(plain.scores)
    assert bits(trace.logits) == bits(plain.logits)


def test_another_student_is_rescored_at_once() -> None:
    """The budget's memory of scores follows it; the same student changes nothing."""
    pipeline, _ = run(uses_probes=True)
    release = asking_releases()[max(asking_releases())]
    assert not pipeline.panel.install_frozen(release)
    other = replace(release, student=a_student(release, seed=5))
    assert pipeline.panel.install_frozen(other)
    assert not pipeline.panel.install_frozen(replace(release, student=None))


WITHOUT = {"runs_scorecard": False, "families": (FAMILY,)}


def test_a_bank_without_scorecard_publishes_all_but_statistics() -> None:
    """Histograms, moments of the basis asked for, evidence; and it scores by its families."""
    pipeline, trace = run(**WITHOUT)
    parts = {one.key.part for one in trace.contributions}
    assert parts >= {"histograms", "moments", "evidence", "epoch"}
    assert "statistics" not in parts
    sent = of_part(trace, "moments")
    for one in sent:
        release = asking_releases()[one.epoch - 1]
        asked = release.asked_basis
        assert asked is not None
        assert (one.basis, one.key.bucket) == (asked.number, 0)
    assert len(sent) >= 3
    scores = np.array(trace.scores).reshape(-1, 3)
    assert np.isnan(scores[:, :2]).all()
    assert np.isfinite(scores[-100:, 2]).all()
    assert not pipeline.panel.scorers()
    assert pipeline.panel.own.basis is None


def test_histograms_and_evidence_of_such_a_bank_are_those_of_any_other() -> None:
    """What it leaves out changes nothing else."""
    _, without = run(**WITHOUT)
    _, usual = run(families=(FAMILY,))
    for part in ("histograms", "evidence"):
        assert same_contributions(of_part(without, part), of_part(usual, part))


def test_too_many_features_need_a_scorecard() -> None:
    """There the moments would be missing, by which its basis is known."""
    wide = Schema(
        entity_kinds=("terminal",),
        attributes=tuple(AttributeSpec(f"a{i:03}", "number") for i in range(230)),
    )
    with pytest.raises(InvalidInputError, match="runs_scorecard: expected true"):
        a_config(schema=wide, runs_scorecard=False)


@pytest.mark.parametrize("changes", [ANSWERING, {**ANSWERING, "runs_scorecard": False}])
@pytest.mark.parametrize("share", [0.25, 0.45, 0.7])
def test_going_on_from_a_dump_is_as_never_having_stopped(
    changes: dict[str, object], share: float
) -> None:
    """Before the set came, while it waits for an opinion, after the answer."""
    _, whole = run(**changes)
    trace = stopped_once(a_config(**changes), BATCH, LOG, asking_releases(), share=share)
    assert bits(trace.scores) == bits(whole.scores)
    assert bits(trace.logits) == bits(whole.logits)
    assert same_contributions(trace.contributions, whole.contributions)
    assert len(of_part(trace, "answers")) == 1


def test_a_set_that_waits_for_an_opinion_is_in_the_state() -> None:
    """Else a restart would lose it: releases are not read twice."""
    answerer, other = Answerer(is_on=True), Answerer(is_on=True)
    rows = np.ones((4, 3), np.float32)
    answerer.install(ProbeSet(number=7, rows=rows))
    assert answerer.answer(lambda x: np.full(len(x), np.nan)) is None
    other.load({name: array.copy() for name, array in answerer.arrays().items()})
    given = other.answer(lambda x: np.full(len(x), 40.0))
    assert given is not None
    assert given[0] == 7
    assert given[1].tolist() == [30.0] * 4
    other.install(ProbeSet(number=7, rows=rows))
    other.install(ProbeSet(number=6, rows=rows))
    assert other.answer(lambda x: np.zeros(len(x))) is None
    off = Answerer(is_on=False)
    off.install(ProbeSet(number=7, rows=rows))
    assert off.answer(lambda x: np.zeros(len(x))) is None


def test_a_stored_student_scores_as_before() -> None:
    """Network and basis are in the state; without one there is no score."""
    expert, other = StudentExpert(), StudentExpert()
    assert np.isnan(expert.score(np.zeros((2, SCHEMA.n_features), np.float32))).all()
    other.load(expert.arrays())
    assert expert.install(a_student(asking_releases()[max(asking_releases())], seed=3))
    other.load({name: array.copy() for name, array in expert.arrays().items()})
    rows = np.random.default_rng(2).normal(size=(30, SCHEMA.n_features)).astype(np.float32)
    assert other.score(rows).tolist() == expert.score(rows).tolist()


def test_a_state_without_the_student_s_column_is_refused() -> None:
    """Its log has one column of scores less."""
    pipeline = Pipeline(a_config())
    with pytest.raises(StateError, match="expected the experts own, merged, student"):
        restore(a_config(uses_probes=True), copied(dump(pipeline)))


def test_a_bank_in_an_unknown_unit_does_not_answer() -> None:
    """Its own models read amounts that mean something else."""
    changes = {**ANSWERING, "is_unit_known": False}
    pipeline = Pipeline(a_config(**changes))
    trace = feed(pipeline, BATCH, LOG, asking_releases())
    is_aligned = pipeline.units.is_aligned
    assert bool(of_part(trace, "answers")) == is_aligned
    aligned = next(i for i, event in enumerate(LOG) if isinstance(event, Exchange))
    early = feed(Pipeline(a_config(**changes)), BATCH, LOG[: aligned + 1], asking_releases())
    assert not of_part(early, "answers")


def test_a_bank_without_a_scorecard_thins_by_the_student() -> None:
    """Where the merged scorecard gave no score, the student is the consortium's scorer."""
    pipeline, _ = run(**{**ANSWERING, "runs_scorecard": False})
    rows = pipeline.log.at(pipeline.known.index(pipeline.tick_ms))
    student = rows.scores[:, list(pipeline.panel.names).index("student")]
    assert np.isnan(rows.matured().base_logits).all()
    assert np.isfinite(student).any()
    found = pipeline.known.as_shared(rows).base_logits
    assert np.array_equal(found, student.astype(np.float64), equal_nan=True)
    usual, _ = run(**ANSWERING)
    rows = usual.log.at(usual.known.index(usual.tick_ms))
    merged, found = rows.matured().base_logits, usual.known.as_shared(rows).base_logits
    there = ~np.isnan(merged)
    assert there.any()
    assert np.array_equal(found[there], merged[there])
