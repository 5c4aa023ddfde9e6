"""Personal weights at a bank: an expert on the consortium's basis, encoded once with the merged."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.basis import encode
from models.errors import StateError
from models.release import PersonalWeights, Release
from stream import experts
from stream.pipeline import Pipeline
from stream.pipeline_state import dump, restore
from tests.unit.stream.small_bank import (
    BANKS,
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
NORTH, SOUTH = BANKS
FAMILY = "lightgbm {n_trees = 10, min_n = 200, min_frauds = 5, refit_d = 1}"


@cache
def personal_releases() -> dict[int, Release]:
    """Return releases with made-up personal weights, from the second that has weights on."""
    out: dict[int, Release] = {}
    n_scorers = 0
    for epoch, release in consortium_releases().items():
        n_scorers += release.weights is not None
        personal = None
        if release.weights is not None and n_scorers > 1:
            rng = np.random.default_rng(epoch)
            weights = np.stack([release.weights] * 2) + rng.normal(0, 0.2, (2, 1))
            personal = PersonalWeights(members=BANKS, weights=weights)
        out[epoch] = replace(release, personal=personal)
    return out


def run(**changes: object) -> tuple[Pipeline, Trace]:
    pipeline = Pipeline(a_config(**changes))
    return pipeline, feed(pipeline, BATCH, LOG, personal_releases())


def last_release() -> Release:
    return personal_releases()[max(personal_releases())]


def test_the_column_is_the_sum_of_the_bank_s_own_weights() -> None:
    """Of rows with all evidence, on the consortium's basis; the other bank's are not read."""
    pipeline, _ = run(uses_personal=True)
    assert pipeline.panel.names == ("own", "merged", "personal")
    release = last_release()
    assert release.basis is not None
    assert release.personal is not None
    rows = pipeline.log.features[-20:]
    weights = release.personal.of(NORTH)
    assert weights is not None
    expected = [sum(weights[k] for k in active if k >= 0) for active in encode(release.basis, rows)]
    np.testing.assert_allclose(pipeline.panel.score(rows, rows)[:, 2], expected, atol=1e-9)
    assert pipeline.panel.shared.personal is not None


def test_rows_are_encoded_once_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding is what scoring costs."""
    pipeline, _ = run(uses_personal=True)
    calls = []
    monkeypatch.setattr(experts, "encode", lambda *a: calls.append(a) or encode(*a))
    rows = pipeline.log.features[-5:]
    merged, personal = pipeline.panel.shared.score_both(rows)
    assert len(calls) == 1
    assert (merged != personal).all()
    assert merged.tolist() == pipeline.panel.shared.score(rows).tolist()


def test_it_stands_behind_the_families_and_before_the_student() -> None:
    """And is one of the consortium's, which a cold bank relies on and answers leave out."""
    pipeline = Pipeline(a_config(uses_personal=True, uses_probes=True, families=(FAMILY,)))
    assert pipeline.panel.names == ("own", "merged", "lightgbm", "personal", "student")
    assert pipeline.panel.cold.tolist() == [False, True, False, True, True]


def test_where_a_release_brings_none_the_merged_weights_speak() -> None:
    """That is the solution of a bank without statistics; so the column has no gaps."""
    pipeline, trace = run(uses_personal=True)
    scores = np.array(trace.scores).reshape(-1, 3)
    np.testing.assert_array_equal(np.isnan(scores[:, 2]), np.isnan(scores[:, 1]))
    is_there = np.isfinite(scores[:, 1])
    same = scores[is_there, 1] == scores[is_there, 2]
    assert same[:50].all()
    assert not same[-50:].any()
    only_south = PersonalWeights(members=(SOUTH,), weights=last_release().personal.weights[1:])  # type: ignore[union-attr]  # the last has them
    pipeline.install(replace(last_release(), number=99, personal=only_south))
    rows = pipeline.log.features[-5:]
    found = pipeline.panel.score(rows, rows)
    assert found[:, 1].tolist() == found[:, 2].tolist()


def test_a_bank_that_does_not_use_them_scores_and_publishes_as_ever() -> None:
    """Also where releases carry them."""
    _, trace = run()
    plain = feed(Pipeline(a_config()), BATCH, LOG, consortium_releases())
    assert bits(trace.scores) == bits(plain.scores)
    assert bits(trace.logits) == bits(plain.logits)
    _, using = run(uses_personal=True)
    assert same_contributions(using.contributions, plain.contributions)


def test_a_bank_without_a_scorecard_has_no_such_column() -> None:
    """It encodes nothing for the basis, and has no statistics of its own."""
    config = a_config(uses_personal=True, runs_scorecard=False, families=(FAMILY,))
    assert Pipeline(config).panel.names == ("own", "merged", "lightgbm")


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_going_on_from_a_dump_is_as_never_having_stopped(share: float) -> None:
    """Before and after personal weights came."""
    _, whole = run(uses_personal=True)
    config = a_config(uses_personal=True)
    trace = stopped_once(config, BATCH, LOG, personal_releases(), share=share)
    assert bits(trace.scores) == bits(whole.scores)
    assert bits(trace.logits) == bits(whole.logits)


def test_a_state_without_the_column_is_refused() -> None:
    """Its log has one column of scores less."""
    pipeline = Pipeline(a_config())
    with pytest.raises(StateError, match="expected the experts own, merged, personal"):
        restore(a_config(uses_personal=True), copied(dump(pipeline)))
