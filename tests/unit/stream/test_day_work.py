"""What a day's end brings, worked out beside decisions: the same, and nothing that came is lost."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.features.accounts import DAY_MS
from models.matured import Matured
from models.release import Release
from stream.day_work import DayOver, chores_of
from stream.fixed_rows import FixedRows
from stream.pipeline import Pipeline
from stream.proposals import ProposalPolicy
from stream.renewals import Renewals
from stream.row_log import FRAUD, LEGIT, LoggedRows
from stream.telemetry import Telemetry
from tests.unit.stream.small_bank import (
    Exchange,
    Trace,
    a_config,
    a_log,
    consortium_releases,
    do_day,
    feed,
    payments,
)

BATCH, LABELS = payments(0)
LOG = a_log(BATCH, LABELS)
RELEASES = consortium_releases()
PLACES = [i for i, event in enumerate(LOG) if isinstance(event, Exchange)]
FAMILY = "lightgbm {n_trees = 10, min_n = 200, min_frauds = 5, refit_d = 1}"
CONFIG = a_config(families=(FAMILY,), proposing=ProposalPolicy(period_d=1, min_n=200, min_frauds=5))


def a_bank(until: int, *, leaves_days: bool = True) -> Pipeline:
    """Return one that has read the log up to a place; days before are ended as in a replay."""
    pipeline = Pipeline(CONFIG)
    place = PLACES[PLACES.index(until) - 1] + 1
    feed(pipeline, BATCH, LOG[:place], RELEASES, trace=Trace())
    pipeline.leaves_days = leaves_days
    feed(pipeline, BATCH, LOG[place:until], RELEASES, trace=Trace(seq=10_000))
    pipeline.advance((LOG[until].epoch + 1) * DAY_MS)  # type: ignore[union-attr]  # an exchange
    return pipeline


def in_force(pipeline: Pipeline) -> dict[str, np.ndarray]:
    """Return the state of all that is renewed."""
    arrays = {f"judge/{n}": a for n, a in pipeline.judge.arrays().items()}
    return arrays | {f"panel/{n}": a for n, a in pipeline.panel.arrays().items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Return whether arrays are the same, to the bit."""
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], array, equal_nan=array.dtype.kind == "f")
        for name, array in other.items()
    )


@pytest.mark.parametrize("until", PLACES[4:7])
def test_done_at_once_it_is_what_a_replay_does(until: int) -> None:
    """Bins, weights, family, trees and blend, to the bit."""
    left, ended = a_bank(until), a_bank(until, leaves_days=False)
    assert ended.day_over is None
    own, family = left.panel.own, left.panel.families[0]
    do_day(left)
    assert left.panel.own is own
    assert left.panel.families[0] is not family
    assert same(in_force(left), in_force(ended))


def test_outcomes_that_come_meanwhile_are_learnt_once() -> None:
    """By the bank's own scorecard on its new bins, as if they had come afterwards."""
    until = PLACES[6]
    meanwhile, after = a_bank(until), a_bank(until)
    rest = [event for event in LOG[until + 1 : PLACES[7]] if not isinstance(event, Exchange)]
    assert meanwhile.panel.own.wants_basis
    todo = [rest]
    do_day(meanwhile, lambda: todo and feed(meanwhile, BATCH, todo.pop(), trace=Trace()))
    do_day(after)
    feed(after, BATCH, rest, trace=Trace())
    one, other = (each.panel.own for each in (meanwhile, after))
    assert one.basis is not None
    assert one.basis.is_same(other.basis)
    assert np.array_equal(one.arrays()["counts"], other.arrays()["counts"])
    found, expected = one._statistics, other._statistics
    assert found is not None
    assert expected is not None
    assert found.n == expected.n
    # the decay of the day that ended comes before those outcomes, not after them
    for mine, theirs in (
        (found.gradient, expected.gradient),
        (found.curvature(), expected.curvature()),
    ):
        assert np.abs(mine - theirs).max() < 0.006 * np.abs(theirs).max()


def test_rows_that_are_looked_at_are_not_dropped_and_go_later() -> None:
    """Though a day ends meanwhile, after which the log would hold fewer."""
    pipeline = a_bank(PLACES[5])
    log = pipeline.log
    rows = FixedRows(log, lambda: pipeline.known.index(pipeline.tick_ms), pipeline.known.as_shared)
    whole, before = rows.whole(), log.size
    for _ in range(2):
        log.drop_before(pipeline.tick_ms - DAY_MS, keep_from=log.size, max_matured=5)
        assert log.size == before
    assert np.array_equal(rows.whole().features, whole.features, equal_nan=True)
    del rows
    log.drop_before(pipeline.tick_ms - DAY_MS, keep_from=log.size, max_matured=5)
    assert log.size < before


def test_all_rows_at_once_are_those_that_the_log_gives() -> None:
    """Copied block by block; none, where none is known."""
    pipeline = a_bank(PLACES[5])
    index = pipeline.known.index(pipeline.tick_ms)
    for some in (index, index[:1], index[:0]):
        found = FixedRows(pipeline.log, some.copy, LoggedRows.matured).whole()
        expected = pipeline.log.at(some).matured()
        for field in fields(Matured):
            one, other = getattr(found, field.name), getattr(expected, field.name)
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def is_for(work: Callable[[], None], chore: str) -> bool:
    """Return whether a chore of that name gave this work."""
    return chore in getattr(work, "__qualname__", "")


def test_an_outcome_that_changes_meanwhile_is_weighed_as_it_was() -> None:
    """A payment whose fraud is told late has another outcome, known later than the day's end."""
    quiet, told = a_bank(PLACES[6]), a_bank(PLACES[6])
    log, now_ms = told.log, told.tick_ms
    legit = np.flatnonzero((log.outcome == LEGIT) & (log.known_ms >= 0) & (log.known_ms <= now_ms))
    late = legit[len(legit) // 2 :]
    assert len(late) > 100
    fraud = np.full(len(late), FRAUD, np.int8)
    for chore in chores_of(told, DayOver(now_ms // DAY_MS)):
        for work in chore:
            if is_for(work, "_blend"):
                log.settle(late, fraud, np.full(len(late), now_ms + DAY_MS))
            work()
    do_day(quiet)
    before, (found, expected) = a_bank(PLACES[6]), (b.judge.blend.arrays() for b in (told, quiet))
    assert not same(before.judge.blend.arrays(), expected)
    assert same(found, expected)
    assert told.log.outcome[late].tolist() == fraud.tolist()


def test_what_was_made_of_other_features_is_left() -> None:
    """As where amounts are aligned meanwhile; it comes again with the next day."""
    pipeline = a_bank(PLACES[6])
    basis, family = pipeline.panel.own.basis, pipeline.panel.families[0]
    assert pipeline.panel.own.wants_basis
    do_day(pipeline, lambda: pipeline.log.change_features(lambda features: None))
    assert pipeline.panel.own.basis is basis
    assert pipeline.panel.own.wants_basis
    assert pipeline.panel.families[0] is family
    assert family.is_due(pipeline.tick_ms // DAY_MS)


def test_a_family_that_has_too_little_to_learn_from_stays_as_it_is() -> None:
    """It is asked again the next day."""
    config = replace(CONFIG, families=(FAMILY.replace("min_n = 200", "min_n = 1_000_000"),))
    pipeline = Pipeline(config)
    pipeline.leaves_days = True
    feed(pipeline, BATCH, LOG[: PLACES[5]], RELEASES, trace=Trace())
    family = pipeline.panel.families[0]
    assert family.is_due(pipeline.tick_ms // DAY_MS)
    do_day(pipeline)
    assert pipeline.panel.families[0] is family


def test_a_basis_that_comes_meanwhile_is_that_of_the_next_refit() -> None:
    """The refit itself was begun by the one before."""
    pipeline = a_bank(PLACES[5])
    newest = RELEASES[max(RELEASES)]
    assert newest.basis is not None
    basis = replace(newest.basis, number=newest.basis.number + 7)
    age = pipeline.release_age
    release = replace(newest, number=age.number + 1, epoch=age.epoch + 1, basis=basis)
    assert pipeline.panel.shared.basis is not None
    before, chosen = pipeline.panel.shared.basis.number, pipeline.panel.families[0]
    for chore in chores_of(pipeline, DayOver(pipeline.tick_ms // DAY_MS)):
        for work in chore:
            work()
            if is_for(work, "_family"):
                pipeline.install(release)
    assert pipeline.panel.families[0] is not chosen
    arrays = pipeline.panel.families[0].arrays()
    assert arrays["fitted/number"].tolist() == [before]
    assert arrays["asked/number"].tolist() == [basis.number]


def test_what_the_old_family_scored_meanwhile_is_scored_anew_for_the_budget() -> None:
    """Its rows came after the day's end and before the new one took its place."""
    pipeline = a_bank(PLACES[6])
    rest = [event for event in LOG[PLACES[6] + 1 : PLACES[7]] if not isinstance(event, Exchange)]
    feed(pipeline, BATCH, rest, trace=Trace())
    n = pipeline.log.size
    do_day(pipeline)
    rows = pipeline.log.at(np.arange(n))
    seen = pipeline.known.as_shared(rows).features
    found = pipeline._rescored(np.arange(n))[:, 2]
    assert np.array_equal(found, pipeline.panel.families[0].score(seen), equal_nan=True)
    assert not np.array_equal(found, rows.scores[:, 2], equal_nan=True)


async def never(wanted: Callable[[Release], bool]) -> Release:
    await asyncio.Event().wait()
    raise AssertionError


async def test_decisions_have_the_lock_while_models_are_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It begins with the day that was cut off by a stop, and goes on with each that ends."""
    pipeline, lock, goes_on = a_bank(PLACES[5]), asyncio.Lock(), threading.Event()
    slow = pipeline.judge.refitted
    monkeypatch.setattr(
        pipeline.judge, "refitted", lambda *a, **k: goes_on.wait(5.0) and slow(*a, **k)
    )
    registry = CollectorRegistry()
    renewals = Renewals(
        pipeline,
        SimpleNamespace(wait_for=never),  # type: ignore[arg-type]  # what is asked of it
        lock,
        install=lambda *_: None,
        is_fit=lambda _: True,
        telemetry=Telemetry(registry),
    )
    pipeline.leaves_days, pipeline.day_over = False, None
    task = asyncio.create_task(renewals.days())
    blend, day = pipeline.judge.blend, pipeline.tick_ms // DAY_MS
    async with asyncio.timeout(20.0):
        while pipeline.panel.families[0].began_day != day:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        async with lock:
            assert pipeline.judge.blend is blend
        goes_on.set()
        name = "amalgam_stream_day_duration_seconds_count"
        while registry.get_sample_value(name) != 1.0:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    assert pipeline.leaves_days
    assert pipeline.judge.blend is not blend
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
