"""One run from the file to its outcome, in this process."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from deploy.backtest import score_pooled
from deploy.bank_rows import BankRows, read_bank_rows
from deploy.detection.kept_rows import KeptRows, RowCollector, keep_rows, kept_rows
from deploy.detection.measure import Systems, Window, bank_outcomes, cold_join, window_of
from deploy.detection.outcome import DriftNote, Outcome, WeightNote
from deploy.detection.plans import DetectionRun, Kind, RowSource
from deploy.detection.yardsticks import YardstickRows, score_prequentially
from deploy.progress import OnShare, share_counter
from deploy.run_results import RunResult
from deploy.runs import ConsortiumRun, ms, schema_of
from models.schema import Schema

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run on some rows, and the folder in which outcomes and rows of the source lie."""

    source: RowSource
    run: DetectionRun
    folder: Path

    @property
    def path(self) -> Path:
        """Where its outcome goes."""
        return self.folder / f"{self.run.name}.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Context:
    """What a run works on."""

    job: Job
    data: BankRows
    window: Window
    on_share: OnShare

    @property
    def delay_ms(self) -> int:
        return ms(self.job.run.plan.label_delay_s)

    def kept(self) -> KeptRows:
        return kept_rows(self.job.folder, self.job.run.needs)

    def counter(self, total: int) -> Callable[[int], None]:
        return share_counter(total, self.on_share)

    def outcome(
        self,
        systems: Systems,
        is_scored: NDArray[np.bool_],
        result: RunResult | None = None,
        **notes: Any,  # fields of the outcome
    ) -> Outcome:
        reasons = None if result is None else result.bank_reasons
        banks = bank_outcomes(self.data, self.window, systems, is_scored=is_scored, reasons=reasons)
        return Outcome(
            run=self.job.run.name,
            data=self.job.source.name,
            banks=banks,
            seconds=0.0,
            weeks=self.window.weeks,
            subjects=list(self.job.run.subjects),
            **notes,
        )


def execute(job: Job, on_share: OnShare) -> Outcome:
    """Read the file, run, and return what came of it; rows are kept where the run says so.

    Parameters
    ----------
    job
        What is run.
    on_share
        Called now and then with the share of the work done, in [0, 1].

    Raises
    ------
    InvalidInputError
        If the file has no labels, does not say how it splits, or has no row between the dates.
    """
    started_s = time.monotonic()
    source = job.source
    data = read_bank_rows(
        source.file, source.mapping, split=source.split, bank_column=source.bank_column
    )
    window = window_of(source, data.batch.event_time_ms)
    context = _Context(job=job, data=data, window=window, on_share=on_share)
    outcome = _KINDS[job.run.kind](context)
    return msgspec.structs.replace(outcome, seconds=time.monotonic() - started_s)


def _consortium(context: _Context) -> Outcome:
    run, data = context.job.run, context.data
    collector = RowCollector(len(data.batch))
    consortium = ConsortiumRun(
        run.plan,
        data,
        context.counter(len(data.batch)),
        *((collector.take,) if run.keeps_rows else ()),
    )
    result = consortium.run()
    if run.keeps_rows:
        keep_rows(context.job.folder, run.name, collector.rows(result.blend))
    systems = {"own": result.own, "merged": result.merged, "blend": result.blend}
    return context.outcome(
        systems | result.families,
        result.is_scored,
        result,
        release_id=result.release_id,
        blends=_blend_notes(result, data.names),
        trust=[
            WeightNote(
                day=note.day_ms // DAY_MS,
                bank=note.member,
                weights={"evidence": note.evidence, "statistics": note.statistics},
            )
            for note in result.trust
        ],
        drift=_drift_notes(consortium, schema_of(data.batch)),
        bases=[
            (note.since_ms // DAY_MS, note.basis, note.n_weights, note.n_trees)
            for note in result.releases
        ],
        **_cold_notes(context, result),
    )


def _blend_notes(result: RunResult, names: Sequence[str]) -> list[WeightNote]:
    return [
        WeightNote(
            day=note.day_ms // DAY_MS,
            bank=names[note.bank],
            weights=dict(zip(note.experts, note.weights, strict=True)),
        )
        for note in result.blends
    ]


def _drift_notes(consortium: ConsortiumRun, schema: Schema) -> list[DriftNote]:
    """Return alarms with names in place of positions."""
    features = schema.feature_names
    return [
        DriftNote(
            day=alarm.day,
            bank=name,
            kind=alarm.kind,
            subject=(pipeline.panel.names if alarm.kind == "calibration" else features)[
                alarm.subject
            ],
            detector=alarm.detector,
        )
        for name, pipeline in consortium.pipelines.items()
        for alarm in pipeline.drift_alarms
    ]


def _cold_notes(context: _Context, result: RunResult) -> dict[str, Any]:
    """Return what the first subject gained since it joined, beside the run that it needs."""
    run, data = context.job.run, context.data
    if not (run.needs and run.subjects):
        return {}
    bank = run.subjects[0]
    joined_ms = run.plan.of(bank).joins_ms
    if joined_ms is None:
        return {}
    warm = context.kept().blend
    event_ms = data.batch.event_time_ms
    of_bank = (data.bank == data.names.index(bank)) & (event_ms >= joined_ms)
    rows = np.flatnonzero(of_bank & result.is_scored & ~np.isnan(warm))
    age_d = (event_ms[rows] - joined_ms) // DAY_MS
    found = cold_join(data.is_fraud[rows], age_d, result.blend[rows], warm[rows])
    figures = {}
    if found.settled is not None:
        figures = {"cold_settled": found.settled[0], "warm_settled": found.settled[1]}
    return {"cold": found.by_week, "figures": figures}


def _pooled_scorecard(context: _Context) -> Outcome:
    scores = score_pooled(
        context.job.run.plan,
        context.data,
        is_split=context.job.source.split is not None,
        on_rows=context.counter(len(context.data.batch)),
    )
    return context.outcome({"pooled": scores}, ~np.isnan(scores))


def _pooled_lightgbm(context: _Context) -> Outcome:
    everybody = [np.flatnonzero(~np.isnan(context.kept().blend))]
    return _lightgbm(context, everybody, KeptRows.shared_rows)


def _local_lightgbm(context: _Context) -> Outcome:
    is_scored = ~np.isnan(context.kept().blend)
    n = len(context.data.names)
    each = [np.flatnonzero(is_scored & (context.data.bank == i)) for i in range(n)]
    return _lightgbm(context, each, KeptRows.own_rows)


def _lightgbm(
    context: _Context,
    parts: Sequence[NDArray[np.int64]],
    features: Callable[[KeptRows, NDArray[np.int64]], NDArray[np.float32]],
) -> Outcome:
    """Score each part of the rows by a model of its own."""
    data, kept, days = context.data, context.kept(), context.window.days
    count = context.counter(len(parts) * len(days))
    scores = np.full(len(data.batch), np.nan)
    for rows in parts:
        scores[rows] = score_prequentially(
            YardstickRows(
                features=features(kept, rows),
                is_fraud=data.is_fraud[rows],
                event_ms=data.batch.event_time_ms[rows],
            ),
            schema_of(data.batch),
            days=days,
            delay_ms=context.delay_ms,
            on_day=lambda: count(1),
        )
    return context.outcome({"lightgbm": scores}, ~np.isnan(kept.blend))


_KINDS: Mapping[Kind, Callable[[_Context], Outcome]] = {
    "consortium": _consortium,
    "pooled_scorecard": _pooled_scorecard,
    "pooled_lightgbm": _pooled_lightgbm,
    "local_lightgbm": _local_lightgbm,
}
