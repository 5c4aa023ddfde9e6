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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amalgamator.core import Amalgamator
from amalgamator.policy import BasisPolicy, FoldConfig, TrustPolicy
from amalgamator.registry import Member, Registry
from deploy.bank_rows import BankRows, bank_stream, kept_apart, read_bank_rows
from deploy.local import LocalConsortium
from models.budget import BudgetPolicy
from models.errors import AmalgamError, InvalidInputError
from models.keys import Signer, Verifier
from models.records import TransactionBatch
from models.release import Release
from models.schema import Schema
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
        Share of transactions that may alert, in (0, 1).

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNote:
    """A release that brought a basis, from ``since_ms`` on (event time)."""

    since_ms: int
    number: int
    basis: int
    n_weights: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendNote:
    """How a bank weighed its experts on a day; its own is the first, the merged one the second."""

    day_ms: int
    bank: int
    weights: tuple[float, ...]


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


def run_backtest(config: BacktestConfig, on_progress: OnProgress) -> BacktestResult:
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
        data = _read(config)
        result = _empty_result(config, data)
        pooled_path = Path(folder) / "pooled.npy"
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=pooled_scores, args=(config, pooled_path))
        process.start()
        try:
            _Consortium(config, data, result, on_progress).run()
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
    data = _read(config)
    batch = data.batch
    if config.split is None:
        batch = kept_apart(batch, data.bank)
    scores = np.full(len(batch), np.nan)

    def take(_: str, rows: slice, scored: Scored) -> None:
        places = np.arange(rows.start, rows.stop)[scored.accepted]
        scores[places] = _or_prior(scored.scores[:, 0])

    stream = bank_stream(batch, data.is_fraud, _delay_ms(config))
    pipeline = Pipeline(_pipeline_config(config, _POOLED, _schema(batch)))
    consortium = LocalConsortium({_POOLED: pipeline}, None, cadence_ms=_ms(config.cadence_s))
    consortium.run({_POOLED: stream}, on_scored=take)
    np.save(path, scores)


class _Consortium:
    """Runs the banks and their amalgamator, and writes down what comes of it."""

    def __init__(
        self,
        config: BacktestConfig,
        data: BankRows,
        result: BacktestResult,
        on_progress: OnProgress,
    ) -> None:
        schema = _schema(data.batch)
        self._config = config
        self._data = data
        self._result = result
        self._on_progress = on_progress
        self._rows = {name: np.flatnonzero(data.bank == i) for i, name in enumerate(data.names)}
        self._pipelines = {
            name: Pipeline(_pipeline_config(config, name, schema)) for name in data.names
        }
        self._amalgamator = local_amalgamator(data.names, schema, LearningPolicy())
        self._n_done = 0

    def run(self) -> None:
        """Run all rows; the result is filled in place."""
        batch, is_fraud, delay_ms = (
            self._data.batch,
            self._data.is_fraud,
            _delay_ms(self._config),
        )
        streams = {
            name: bank_stream(batch.take(rows), is_fraud[rows], delay_ms)
            for name, rows in self._rows.items()
        }
        cadence_ms = _ms(self._config.cadence_s)
        LocalConsortium(self._pipelines, self._amalgamator, cadence_ms=cadence_ms).run(
            streams, on_scored=self._take, on_release=self._note_release, on_tick=self._note_blends
        )

    def _take(self, name: str, rows: slice, scored: Scored) -> None:
        result, of_bank = self._result, self._rows[name][rows]
        accepted = of_bank[scored.accepted]
        result.local[accepted] = _or_prior(scored.scores[:, 0])
        result.merged[accepted] = _or_prior(scored.scores[:, 1])
        result.amalgamated[accepted] = scored.logit
        result.alert[accepted] = scored.alert
        for row, reason, _ in scored.rejected:
            result.evaluated[of_bank[row]] = False
            result.refused[reason] += 1
        for alert in scored.alerts:
            result.reasons.update(one.feature for one in alert.reasons if one.contribution > 0)
        self._n_done += len(of_bank)
        self._on_progress(self._n_done / len(result.bank))

    def _note_release(self, release: Release) -> None:
        result, basis = self._result, release.basis
        result.n_releases += 1
        result.release_id = release.release_id
        known = result.releases[-1].basis if result.releases else 0
        if basis is not None and basis.number != known:
            result.releases.append(
                ReleaseNote(
                    since_ms=(release.epoch + 1) * _ms(self._config.cadence_s),
                    number=release.number,
                    basis=basis.number,
                    n_weights=basis.n_weights,
                )
            )

    def _note_blends(self, tick_ms: int) -> None:
        if tick_ms % _DAY_MS:
            return
        for i, name in enumerate(self._data.names):
            weights = self._pipelines[name].judge.blend.weights.tolist()
            self._result.blends.append(BlendNote(day_ms=tick_ms, bank=i, weights=tuple(weights)))


def local_amalgamator(
    names: tuple[str, ...],
    schema: Schema,
    learning: LearningPolicy,
    *,
    trust: TrustPolicy | None = TrustPolicy(),
) -> Amalgamator:
    """Return an amalgamator in lockstep for banks of this process, which need no keys."""
    unused = Verifier(Signer(bytes(32)).public_key)  # nothing is signed within one process
    members = {
        name: Member(name=name, verifiers={unused.key_id: unused}, workers=("0",)) for name in names
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
        trust=trust,
    )
    registry = Registry(consortium="local", entity_kinds=schema.entity_kinds, members=members)
    return Amalgamator(registry, fold, lockstep=True)


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


def _schema(batch: TransactionBatch) -> Schema:
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
