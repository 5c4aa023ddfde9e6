"""A file of transactions through the whole consortium in one process, and what it is worth.

Every transaction is scored before its outcome is known; frauds are reported after a delay. Three
systems are compared on the same rows: each bank's scorecard alone, the consortium's blend, and one
scorecard on all banks' data pooled (in a second process).
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from amalgamator.core import Amalgamator
from amalgamator.policy import BasisPolicy, FoldConfig
from amalgamator.registry import Member, Registry
from deploy.local import BankStream, LocalConsortium
from deploy.splits import parse_split
from models.budget import BudgetPolicy
from models.errors import InvalidInputError
from models.keys import Signer, Verifier
from models.mapping import load_mapping
from models.records import Label, TransactionBatch
from models.release import Release
from models.schema import Schema
from models.tables import Table, read_table
from stream.experts import LearningPolicy
from stream.judge import JudgePolicy
from stream.pipeline import Pipeline, PipelineConfig, Scored

_DAY_MS = 86_400_000
_POOLED = "pooled"
_SECRET = b"back-test: no secret, nothing leaves this process"
OnProgress = Callable[[float], None]


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
        Share of transactions that may alert.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNote:
    """One release as the report shows it."""

    day_ms: int
    number: int
    basis: int
    n_weights: int


@dataclass(slots=True, kw_only=True, eq=False)
class BacktestResult:
    """Scores of all rows, in the order of the file's batch.

    Attributes
    ----------
    local, merged, amalgamated, pooled
        float64 of shape (n,): log-odds.
    alert
        bool of shape (n,).
    bank
        int64 of shape (n,): index into ``banks``.
    evaluated
        bool of shape (n,): rows between the dates.
    reasons
        How often a feature was a reason towards fraud in an alert.
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
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_mb: float = 0.0


def run_backtest(config: BacktestConfig, on_progress: OnProgress) -> BacktestResult:
    """Run consortium and pooled data side by side.

    Raises
    ------
    InvalidInputError
        If the file has no label column or does not say how it splits into banks.
    """
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, threadpoolctl.threadpool_limits(limits=1):
        pooled_path = Path(folder) / "pooled.npy"
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=pooled_scores, args=(config, pooled_path))
        process.start()
        try:
            result = _run_consortium(config, on_progress)
            process.join()
        finally:
            process.kill()
        if not pooled_path.exists():
            raise InvalidInputError("the run on pooled data failed, see above")
        result.pooled = np.load(pooled_path, allow_pickle=False)
    result.seconds = time.monotonic() - started_s
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    result.peak_memory_mb = sum(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1_024
    return result


def pooled_scores(config: BacktestConfig, path: Path) -> None:
    """Score every row by one scorecard on all banks' data; write log-odds to ``path``."""
    with threadpoolctl.threadpool_limits(limits=1):
        table, _, _ = _read(config)
        scores = np.full(len(table.batch), LearningPolicy().prior_logit)

        def take(_: str, rows: slice, scored: Scored) -> None:
            scores[np.arange(rows.start, rows.stop)[scored.accepted]] = _or_prior(
                scored.scores[:, 0]
            )

        everything = np.arange(len(table.batch))
        stream = bank_stream(table, everything, _delay_ms(config))
        pipeline = Pipeline(_pipeline_config(config, _POOLED, _schema(table)))
        consortium = LocalConsortium({_POOLED: pipeline}, None, cadence_ms=_ms(config.cadence_s))
        consortium.run({_POOLED: stream}, on_scored=take)
        np.save(path, scores)


def _run_consortium(config: BacktestConfig, on_progress: OnProgress) -> BacktestResult:
    table, bank, names = _read(config)
    n = len(table.batch)
    result = _empty_result(config, table, bank, names)
    rows_of = {name: np.flatnonzero(bank == i) for i, name in enumerate(names)}
    streams = {
        name: bank_stream(table, rows, _delay_ms(config)) for name, rows in rows_of.items()
    }
    schema = _schema(table)
    pipelines = {name: Pipeline(_pipeline_config(config, name, schema)) for name in names}
    done = 0

    def take(name: str, rows: slice, scored: Scored) -> None:
        nonlocal done
        index = rows_of[name][rows][scored.accepted]
        result.local[index] = _or_prior(scored.scores[:, 0])
        result.merged[index] = _or_prior(scored.scores[:, 1])
        result.amalgamated[index] = scored.logit
        result.alert[index] = scored.alert
        for alert in scored.alerts:
            for reason in alert.reasons:
                if reason.contribution > 0:
                    result.reasons[reason.feature] = result.reasons.get(reason.feature, 0) + 1
        done += rows.stop - rows.start
        on_progress(done / n)

    def note(release: Release) -> None:
        number = release.basis.number if release.basis else 0
        if not result.releases or result.releases[-1].basis != number:
            day_ms = (release.epoch + 1) * _ms(config.cadence_s)
            n_weights = release.basis.n_weights if release.basis else 0
            result.releases.append(
                ReleaseNote(day_ms=day_ms, number=release.number, basis=number, n_weights=n_weights)
            )

    amalgamator = local_amalgamator(names, schema, LearningPolicy())
    LocalConsortium(pipelines, amalgamator, cadence_ms=_ms(config.cadence_s)).run(
        streams, on_scored=take, on_release=note
    )
    return result


def local_amalgamator(
    names: tuple[str, ...], schema: Schema, learning: LearningPolicy
) -> Amalgamator:
    """Return an amalgamator in lockstep for banks of this process, which need no keys."""
    unused = Verifier(Signer(bytes(32)).public_key)  # nothing is signed within one process
    members = {
        name: Member(name=name, verifiers={unused.key_id: unused}, workers=("0",))
        for name in names
    }
    fold = FoldConfig(
        schema=schema,
        ridge=learning.ridge,
        half_life_d=learning.half_life_d,
        prior_logit=learning.prior_logit,
        bucket_days=learning.bucket_d,
        basis=BasisPolicy(
            min_n=learning.first_n, min_frauds=learning.first_frauds, growth=learning.growth
        ),
    )
    registry = Registry(consortium="local", entity_kinds=schema.entity_kinds, members=members)
    return Amalgamator(registry, fold, lockstep=True)


def bank_stream(table: Table, rows: NDArray[np.int64], delay_ms: int) -> BankStream:
    """Return one bank's rows, with a label for each fraud ``delay_ms`` after it was paid."""
    batch = table.batch.take(rows)
    if table.is_fraud is None:
        raise InvalidInputError("the mapping names no [table] label column")
    labels = [
        Label(
            transaction_id=batch.transaction_id[i],
            is_fraud=True,
            source="chargeback",
            labelled_at_ms=int(batch.event_time_ms[i]) + delay_ms,
        )
        for i in np.flatnonzero(table.is_fraud[rows]).tolist()
    ]
    return BankStream(transactions=batch, labels=labels)


def _read(config: BacktestConfig) -> tuple[Table, NDArray[np.int64], tuple[str, ...]]:
    table = read_table(config.file, load_mapping(config.mapping), bank_column=config.bank_column)
    if config.split is not None:
        split = parse_split(config.split)
        return table, split.banks(table.batch.account_id), split.names
    if table.bank is None:
        raise InvalidInputError("expected --split or --bank-column, to split the file into banks")
    names = tuple(sorted(set(table.bank)))
    place = {name: i for i, name in enumerate(names)}
    return table, np.array([place[name] for name in table.bank], np.int64), names


def _empty_result(
    config: BacktestConfig, table: Table, bank: NDArray[np.int64], names: tuple[str, ...]
) -> BacktestResult:
    if table.is_fraud is None:
        raise InvalidInputError(f"{config.mapping}: expected [table] label, got none")
    n, prior = len(table.batch), LearningPolicy().prior_logit
    day = table.batch.event_time_ms // _DAY_MS
    first = day.min() if config.scored_from is None else config.scored_from
    last = day.max() if config.scored_to is None else config.scored_to
    distinct = {text: i for i, text in enumerate(dict.fromkeys(table.batch.account_id))}
    return BacktestResult(
        config=config,
        banks=names,
        bank=bank,
        event_ms=table.batch.event_time_ms,
        amount=table.batch.amount,
        account=np.array([distinct[text] for text in table.batch.account_id], np.int64),
        is_fraud=table.is_fraud,
        evaluated=(day >= first) & (day <= last),
        local=np.full(n, prior),
        merged=np.full(n, prior),
        amalgamated=np.full(n, prior),
        pooled=np.full(n, prior),
        alert=np.zeros(n, np.bool_),
    )


def _schema(table: Table) -> Schema:
    batch: TransactionBatch = table.batch
    return Schema(entity_kinds=tuple(sorted(batch.entities)))


def _pipeline_config(config: BacktestConfig, member: str, schema: Schema) -> PipelineConfig:
    return PipelineConfig(
        member=member,
        schema=schema,
        secret=_SECRET,
        tick_ms=_ms(config.tick_s),
        label_horizon_ms=_delay_ms(config),
        judging=JudgePolicy(budget=BudgetPolicy(rate=config.alert_rate)),
    )


def _or_prior(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(scores), LearningPolicy().prior_logit, scores)


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)


def _delay_ms(config: BacktestConfig) -> int:
    return round(config.label_delay_d * _DAY_MS)
