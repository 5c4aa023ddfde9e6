"""What a day's end brings: at once, or in a thread while decisions are made.

A chore is a generator: it prepares, yields what is slow and may run in another thread, and settles
what came of that. Between, the pipeline goes on; what prepares and settles is quick and has the
pipeline to itself. What was worked out for a pipeline that has become another meanwhile is left,
and comes again with the next day. At its end a chore returns the scorecards that are others now,
none of them where something else is, or None where all is as it was.
"""

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blend import Blend
from models.families.base import Family
from models.matured import Matured
from models.trees import TreeList
from stream.fixed_rows import FixedRows
from stream.row_log import LoggedRows

if TYPE_CHECKING:  # the pipeline does this work itself, or leaves it
    from stream.pipeline import Pipeline

Work = Callable[[], None]
Chore = Generator[Work, None, set[int] | None]


class DayOver(NamedTuple):
    """A day that has ended, of which what is slow is still to be done.

    Parameters
    ----------
    day
        The one that begins, days since 1970.
    forgetting
        Days that the own scorecard forgets, >= 1.
    window
        Part of the blend's usual window that is looked at.
    """

    day: int
    forgetting: float = 1.0
    window: float = 1.0


def do_at_once(pipeline: "Pipeline", over: DayOver) -> None:
    """Do all that is to be done after a day's end; the caller has the pipeline rejudge."""
    for chore in _chores(pipeline, over):
        for work in chore:
            work()


def chores_of(pipeline: "Pipeline", over: DayOver) -> Iterator[Iterator[Work]]:
    """Yield what is to be done after a day's end, one after the other: prepare, work, settle."""
    for chore in _chores(pipeline, over):
        yield _rejudged(pipeline, chore)


def _rejudged(pipeline: "Pipeline", chore: Chore) -> Iterator[Work]:
    changed = yield from chore
    if changed is not None:
        pipeline.rejudge(changed)


def _chores(pipeline: "Pipeline", over: DayOver) -> Iterator[Chore]:
    yield _own_basis(pipeline)
    yield _own_weights(pipeline, over)
    for i in range(len(pipeline.panel.families)):
        yield _family(pipeline, over, i)
    yield _net(pipeline)
    yield _trees(pipeline, over)
    yield _blend(pipeline, over)


def _known(pipeline: "Pipeline", view: Callable[[LoggedRows], Matured]) -> FixedRows:
    return FixedRows(pipeline.log, lambda: pipeline.known.index(pipeline.tick_ms), view)


def _own_basis(pipeline: "Pipeline") -> Chore:
    """Make the bank's own bins anew, once its outcomes have grown enough."""
    own = pipeline.panel.own
    if not (pipeline.panel.runs_scorecard and own.wants_basis):
        return None
    rows = _known(pipeline, LoggedRows.matured_as_own)
    rebased = own.begun_anew()
    yield partial(rebased.rebase, rows)
    newer = rows.newer()
    if newer is None or own is not pipeline.panel.own:
        return None
    own.take_over(rebased, newer)
    return {0}


def _own_weights(pipeline: "Pipeline", over: DayOver) -> Chore:
    """Solve for the bank's own weights, and forget a day's worth of what they are solved from."""
    own = pipeline.panel.own
    solve = own.solving(over.forgetting) if pipeline.panel.runs_scorecard else None
    own.decay(over.forgetting)
    if solve is None:
        return None
    basis, found = own.basis, list[NDArray[np.float64]]()
    yield lambda: found.append(solve())
    if own is not pipeline.panel.own:
        return None
    own.take_weights(basis, found[0])
    return {0}


def _family(pipeline: "Pipeline", over: DayOver, i: int) -> Chore:
    """Refit one of the bank's families: a new one takes its place once it has learnt."""
    panel, basis = pipeline.panel, pipeline.panel.shared.basis
    before: Family = panel.families[i]
    if basis is None or not before.is_due(over.day):
        return None
    fitted = pipeline.untrained_families()[i]
    fitted.install(basis)
    rows = _known(pipeline, pipeline.known.as_shared)
    yield lambda: fitted.end_day(over.day, rows.whole)
    newer = rows.newer()
    if newer is None or fitted.began_day != over.day or panel.families[i] is not before:
        return None
    if panel.shared.basis is not None and not panel.shared.basis.is_same(basis):
        fitted.install(panel.shared.basis)
    fitted.learn(newer)
    panel.replace_family(i, fitted, pipeline.watermark_ms)
    return set()


def _net(pipeline: "Pipeline") -> Chore:
    """Have the net that the bank trains for its consortium start, or go on by another basis."""
    panel, net = pipeline.panel, pipeline.panel.net
    trained = pipeline.untrained_net()
    if net is None or trained is None or not net.is_due():
        return None
    trained.load({name: array.copy() for name, array in net.arrays().items()})
    rows = pipeline.known_to_all()
    yield lambda: trained.end_day(rows.whole)
    newer = rows.newer()
    if newer is None or trained.is_due() or panel.net is not net:
        return None
    trained.learn(newer)
    if panel.shared.basis is not None:
        trained.install(panel.shared.basis, panel.merged_net.summary)
    panel.net = trained
    return None


def _trees(pipeline: "Pipeline", over: DayOver) -> Chore:
    """Grow trees for the consortium's basis."""
    proposer, basis = pipeline.panel.proposer, pipeline.panel.shared.basis
    growers = proposer.due(over.day, basis)
    if not growers:
        return None
    rows, found = _known(pipeline, pipeline.known.as_shared), list[TreeList]()
    yield lambda: found.extend(proposer.grown(growers, rows.whole()))
    proposer.take_up(found, over.day, basis)
    return None


def _blend(pipeline: "Pipeline", over: DayOver) -> Chore:
    """Weigh the experts afresh."""
    judge, log, now_ms = pipeline.judge, pipeline.log, pipeline.tick_ms
    rows, found = log.hold(judge.window(log, now_ms, over.window)), list[Blend]()
    yield lambda: found.append(judge.refitted(rows, now_ms))
    judge.blend = found[0]
    return set()
