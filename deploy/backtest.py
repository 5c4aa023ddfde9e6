"""A file of transactions through the whole consortium in one process, and what it is worth.

Every transaction is scored before its outcome is known; frauds are reported after a delay. Three
systems are compared on the same rows: each bank's scorecard alone, the consortium's blend, and one
scorecard on all banks' data pooled (in a second process).
"""

import math
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.bank_rows import BankRows, bank_stream, kept_apart, read_bank_rows
from deploy.local import LocalConsortium
from deploy.progress import OnShare, share_counter
from deploy.run_results import BlendNote, ReleaseNote, RunResult
from deploy.runs import (
    BankPlan,
    ConsortiumRun,
    OnRow,
    RunPlan,
    ms,
    pipeline_config,
    schema_of,
)
from models.errors import AmalgamError, InvalidInputError
from models.families.registry import FamilySpec
from stream.experts import LearningPolicy
from stream.pipeline import Pipeline
from stream.scored import Scored

_DAY_MS = 86_400_000
_POOLED = "pooled"


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestConfig:
    """What is run.

    Parameters
    ----------
    file, mapping
        The transactions, and where their columns lie.
    split
        See `deploy.splits.parse_split`; None: by ``bank_column`` or the mapping's.
    bank_column
        Column that names each row's bank.
    label_delay_d
        Days until a fraud is reported and the rest counts as legitimate.
    scored_from, scored_to
        Days since 1970 between which rows are evaluated, both included; None: all.
    cadence_s, tick_s
        Event seconds between summaries, and of a tick.
    alert_rate
        Share of transactions that may alert, in (0, 1).
    families
        Every bank's own models beside the scorecard.

    Raises
    ------
    InvalidInputError
        If a number is outside its range.
    """

    file: Path
    mapping: Path
    split: str | None = None
    bank_column: str | None = None
    label_delay_d: float = 7.0
    scored_from: int | None = None
    scored_to: int | None = None
    cadence_s: float = 3_600.0
    tick_s: float = 3_600.0
    alert_rate: float = 0.01
    families: tuple[FamilySpec, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.label_delay_d < math.inf:
            raise InvalidInputError(f"label delay: expected days > 0, got {self.label_delay_d}")
        if not 0.0 < self.alert_rate < 1.0:
            raise InvalidInputError(
                f"alert rate: expected a share in (0, 1), got {self.alert_rate}"
            )
        if not (0.001 <= self.tick_s <= self.cadence_s < math.inf):
            raise InvalidInputError(
                f"cadence: expected seconds >= the tick of {self.tick_s:g}, got {self.cadence_s:g}"
            )


@dataclass(slots=True, kw_only=True, eq=False)
class BacktestResult:
    """Scores of all rows, in the order of the file's batch; the prior where there was no scorer.

    Attributes
    ----------
    local, merged, amalgamated, pooled
        float64 of shape (n,): log-odds.
    alert
        bool of shape (n,).
    bank
        int64 of shape (n,): index into ``banks``.
    evaluated
        bool of shape (n,): rows between the dates that all systems scored.
    releases
        The first release of each basis, in order.
    n_releases, release_id
        How many came, and the hash of the last.
    blends
        Once a day and bank.
    reasons
        How often a transform was a reason towards fraud in an alert.
    refused
        Reason -> rows of the file that were not scored.
    """

    config: BacktestConfig
    banks: tuple[str, ...]
    bank: NDArray[np.int64]
    event_ms: NDArray[np.int64]
    amount: NDArray[np.float64]
    account: NDArray[np.int64]
    is_fraud: NDArray[np.bool_]
    evaluated: NDArray[np.bool_]
    local: NDArray[np.float64]
    merged: NDArray[np.float64]
    amalgamated: NDArray[np.float64]
    pooled: NDArray[np.float64]
    alert: NDArray[np.bool_]
    releases: list[ReleaseNote] = field(default_factory=list)
    n_releases: int = 0
    release_id: str = ""
    blends: list[BlendNote] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    peak_memory_mb: float = 0.0


def run_backtest(config: BacktestConfig, on_progress: OnShare) -> BacktestResult:
    """Run consortium and pooled data side by side.

    Parameters
    ----------
    config
        What is run.
    on_progress
        Called now and then with the share of the work done, in [0, 1].

    Raises
    ------
    InvalidInputError
        If the file has no label column, does not say how it splits into banks, or has no row
        between the dates.
    AmalgamError
        If the second process died.
    """
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data, plan = _read(config), plan_of(config)
        result = _empty_result(config, data)
        pooled_path = Path(folder) / "pooled.npy"
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=pooled_scores, args=(config, pooled_path))
        process.start()
        try:
            _fill(
                result, ConsortiumRun(plan, data, share_counter(len(data.batch), on_progress)).run()
            )
            process.join()
        finally:
            process.kill()
            process.join()
        if process.exitcode != 0:
            raise AmalgamError(
                f"the run on pooled data ended with code {process.exitcode}, expected 0; "
                "-9 is most often a lack of memory"
            )
        pooled = np.load(pooled_path, allow_pickle=False)
    result.pooled = _or_prior(pooled)
    result.evaluated &= ~np.isnan(pooled)
    result.seconds = time.monotonic() - started_s
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    result.peak_memory_mb = sum(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1_024
    return result


def pooled_scores(config: BacktestConfig, path: Path) -> None:
    """Score every row by one scorecard on all banks' data; write log-odds, NaN where refused."""
    plan = plan_of(replace(config, families=()))
    np.save(path, score_pooled(plan, _read(config), is_split=config.split is not None))


def score_pooled(
    plan: RunPlan, data: BankRows, *, is_split: bool, on_rows: OnRow = lambda _: None
) -> NDArray[np.float64]:
    """Return log-odds of shape (n,) by one scorecard on all rows, NaN where refused.

    Parameters
    ----------
    plan
        Its delays and cadences count.
    data
        The rows.
    is_split
        Whether the banks were drawn from one file, whose accounts are told apart already.
    on_rows
        Called with how many rows were scored.
    """
    batch = data.batch if is_split else kept_apart(data.batch, data.bank)
    scores = np.full(len(batch), np.nan)

    def take(_: str, rows: slice, scored: Scored) -> None:
        places = np.arange(rows.start, rows.stop)[scored.accepted]
        scores[places] = _or_prior(scored.scores[:, 0])
        on_rows(rows.stop - rows.start)

    stream = bank_stream(batch, data.is_fraud, ms(plan.label_delay_s))
    pipeline = Pipeline(pipeline_config(plan, _POOLED, schema_of(batch)))
    consortium = LocalConsortium({_POOLED: pipeline}, None, cadence_ms=ms(plan.cadence_s))
    consortium.run({_POOLED: stream}, on_scored=take)
    return scores


def plan_of(config: BacktestConfig) -> RunPlan:
    """Return the usual plan: every bank alike."""
    return RunPlan(
        label_delay_s=config.label_delay_d * 86_400.0,
        cadence_s=config.cadence_s,
        tick_s=config.tick_s,
        alert_rate=config.alert_rate,
        usual=BankPlan(families=config.families),
    )


def _fill(result: BacktestResult, run: RunResult) -> None:
    result.local, result.merged = _or_prior(run.own), _or_prior(run.merged)
    result.amalgamated, result.alert = _or_prior(run.blend), run.alert
    result.evaluated &= run.is_scored
    result.releases, result.n_releases = run.releases, run.n_releases
    result.release_id, result.blends, result.reasons = run.release_id, run.blends, run.reasons
    result.refused.update(run.refused)


def _read(config: BacktestConfig) -> BankRows:
    return read_bank_rows(
        config.file, config.mapping, split=config.split, bank_column=config.bank_column
    )


def _empty_result(config: BacktestConfig, data: BankRows) -> BacktestResult:
    batch = data.batch
    n, prior = len(batch), LearningPolicy().prior_logit
    day = batch.event_time_ms // _DAY_MS
    first = day.min() if config.scored_from is None else config.scored_from
    last = day.max() if config.scored_to is None else config.scored_to
    evaluated = (day >= first) & (day <= last)
    if not evaluated.any():
        dates = [np.datetime64(int(one), "D") for one in (first, last, day.min(), day.max())]
        raise InvalidInputError(
            f"expected rows to evaluate from {dates[0]} to {dates[1]}; "
            f"the file goes from {dates[2]} to {dates[3]}"
        )
    distinct = {text: i for i, text in enumerate(dict.fromkeys(batch.account_id))}
    return BacktestResult(
        config=config,
        banks=data.names,
        bank=data.bank,
        event_ms=batch.event_time_ms,
        amount=batch.amount,
        account=np.array([distinct[text] for text in batch.account_id], np.int64),
        is_fraud=data.is_fraud,
        evaluated=evaluated,
        local=np.full(n, prior),
        merged=np.full(n, prior),
        amalgamated=np.full(n, prior),
        pooled=np.full(n, prior),
        alert=np.zeros(n, np.bool_),
        refused=Counter(data.refused),
    )


def _or_prior(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(scores), LearningPolicy().prior_logit, scores)
