"""What a day's end brings, worked out in a thread while decisions are made.

A chore is a generator: it prepares, yields what is slow and may run in another thread, and settles
what came of that. Between, the pipeline goes on; what prepares and settles is quick and has the
pipeline to itself. What was worked out for a pipeline that has become another meanwhile is left,
and comes again with the next day.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from models.blend import Blend
from models.families.base import Family
from models.trees import TreeList
from stream.day_over import DayOver
from stream.fixed_rows import FixedRows
from stream.pipeline import Pipeline
from stream.row_log import LoggedRows

Chore = Iterator[Callable[[], None]]


def chores_of(pipeline: Pipeline, over: DayOver) -> Iterator[Chore]:
    """Yield what is to be done after a day's end, one after the other."""
    yield _own_basis(pipeline)
    yield _own_weights(pipeline, over)
    for i in range(len(pipeline.panel.families)):
        yield _family(pipeline, over, i)
    yield _net(pipeline)
    yield _trees(pipeline, over)
    yield _blend(pipeline, over)


def _own_basis(pipeline: Pipeline) -> Chore:
    """Make the bank's own bins anew, once its outcomes have grown enough."""
    own = pipeline.panel.own
    if not (pipeline.panel.runs_scorecard and own.wants_basis):
        return
    index = pipeline.known.index(pipeline.tick_ms)
    rows = FixedRows(pipeline.log, index, LoggedRows.matured_as_own)
    rebased = own.begun_anew()
    yield partial(rebased.rebase, rows)
    newer = rows.newer(pipeline.known.index(pipeline.tick_ms))
    if newer is not None and own is pipeline.panel.own:
        own.take_over(rebased, newer)
        pipeline.rejudge({0})


def _own_weights(pipeline: Pipeline, over: DayOver) -> Chore:
    """Solve for the bank's own weights, and forget a day's worth of what they are solved from."""
    own = pipeline.panel.own
    solve = own.solving(over.forgetting) if pipeline.panel.runs_scorecard else None
    own.decay(over.forgetting)
    if solve is None:
        return
    basis, found = own.basis, [np.empty(0)]
    yield lambda: found.append(solve())
    if own is pipeline.panel.own:
        own.take_weights(basis, found[-1])
        pipeline.rejudge({0})


def _family(pipeline: Pipeline, over: DayOver, i: int) -> Chore:
    """Refit one of the bank's families: a new one takes its place once it has learnt."""
    panel, basis = pipeline.panel, pipeline.panel.shared.basis
    before: Family = panel.families[i]
    if basis is None or not before.is_due(over.day):
        return
    fitted = pipeline.untrained_families()[i]
    fitted.install(basis)
    index = pipeline.known.index(pipeline.tick_ms)
    rows = FixedRows(pipeline.log, index, pipeline.known.as_shared)
    yield lambda: fitted.end_day(over.day, rows.whole)
    newer = rows.newer(pipeline.known.index(pipeline.tick_ms))
    if newer is None or fitted.began_day != over.day or panel.families[i] is not before:
        return
    if panel.shared.basis is not None and not panel.shared.basis.is_same(basis):
        fitted.install(panel.shared.basis)
    fitted.learn(newer)
    panel.replace_family(i, fitted, pipeline.watermark_ms)
    pipeline.rejudge(set())


def _net(pipeline: Pipeline) -> Chore:
    """Have the net that the bank trains for its consortium start, or go on by another basis."""
    panel, net = pipeline.panel, pipeline.panel.net
    trained = pipeline.untrained_net()
    if net is None or trained is None or not net.is_due():
        return
    trained.load({name: array.copy() for name, array in net.arrays().items()})
    index = pipeline.known.index_for_all(pipeline.tick_ms)
    rows = FixedRows(pipeline.log, index, pipeline.known.as_shared)
    yield lambda: trained.end_day(rows.whole)
    newer = rows.newer(pipeline.known.index_for_all(pipeline.tick_ms))
    if newer is None or trained.is_due() or panel.net is not net:
        return
    trained.learn(newer)
    if panel.shared.basis is not None:
        trained.install(panel.shared.basis, panel.merged_net.summary)
    panel.net = trained


def _trees(pipeline: Pipeline, over: DayOver) -> Chore:
    """Grow trees for the consortium's basis."""
    proposer, basis = pipeline.panel.proposer, pipeline.panel.shared.basis
    growers = proposer.due(over.day, basis)
    if not growers:
        return
    index = pipeline.known.index(pipeline.tick_ms)
    rows = FixedRows(pipeline.log, index, pipeline.known.as_shared)
    found: list[TreeList] = []
    yield lambda: found.extend(proposer.grown(growers, rows.whole()))
    proposer.take_up(found, over.day, basis)


def _blend(pipeline: Pipeline, over: DayOver) -> Chore:
    """Weigh the experts afresh."""
    judge, log, now_ms = pipeline.judge, pipeline.log, pipeline.tick_ms
    rows, found = log.hold(judge.window(log, now_ms, over.window)), list[Blend]()
    yield lambda: found.append(judge.refitted(rows, now_ms))
    judge.blend = found[0]
    pipeline.rejudge(set())
