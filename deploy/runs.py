"""A whole consortium in this process over the rows of a file: what each bank does, and when.

A plan says what differs from the usual: which models a bank runs, how often it publishes, when it
joins, when it is away, what it makes of its contributions. The back-test runs the usual plan, the
evaluation of detection many others, on the same rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from amalgamator.core import Amalgamator
from amalgamator.policy import BasisPolicy, FoldConfig, ProbePolicy, StructurePolicy, TrustPolicy
from amalgamator.registry import Member, Registry
from deploy.bank_rows import BankRows, bank_stream
from deploy.local import Absence, BankStream, LocalConsortium, OnRelease, Tamper
from deploy.other_scales import in_other_scales
from deploy.run_results import BlendNote, ReleaseNote, RunResult, TrustNote
from models.budget import BudgetPolicy
from models.errors import InvalidInputError
from models.families.registry import FamilySpec
from models.keys import Signer, Verifier
from models.records import TransactionBatch
from models.release import Release
from models.schema import Schema, attribute_specs
from models.words import Words
from stream.drift_policy import DriftPolicy
from stream.experts import LearningPolicy
from stream.judge import JudgePolicy
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.proposals import ProposalPolicy
from stream.scored import Scored

DAY_MS = 86_400_000
SECRET = b"back-test: no secret, nothing leaves this process"

Relabel = Callable[[TransactionBatch, NDArray[np.bool_]], NDArray[np.bool_]]
"""The outcomes that a bank learns from, given its payments and the true ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPlan:
    """What one bank does.

    Parameters
    ----------
    families
        Its own models beside the scorecard.
    statistics_s
        Event seconds between its publications of statistics and histograms.
    joins_ms
        Rows before are not its own yet; None: it is there from the start.
    away_ms
        From and to when it neither publishes nor takes releases.
    amount_factor
        Its amounts come times this, as those of another currency would.
    is_unit_known
        Whether its amounts are taken to be in the reference currency; else the unit is found.
    has_own_scales
        Whether its numeric attributes come in scales of its own, see `deploy.other_scales`.
    are_scales_known
        Whether they are taken to be in the consortium's scales; else these are found.
    relabel
        The outcomes that it learns from, where it lies or errs; None: the true ones.
    runs_scorecard, answers_probes
        See `stream.pipeline_config.PipelineConfig`.
    """

    families: tuple[FamilySpec, ...] = ()
    statistics_s: float = 86_400.0
    joins_ms: int | None = None
    away_ms: Absence | None = None
    amount_factor: float = 1.0
    is_unit_known: bool = True
    has_own_scales: bool = False
    are_scales_known: bool = True
    relabel: Relabel | None = None
    runs_scorecard: bool = True
    answers_probes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a consortium does.

    Parameters
    ----------
    label_delay_s
        Event seconds until a fraud is reported and the rest counts as legitimate.
    cadence_s, tick_s
        Event seconds between summaries, and of a tick.
    alert_rate
        Share of transactions that may alert.
    usual
        Of every bank that ``banks`` does not name.
    banks
        Name -> plan.
    tampers
        Name -> what a bank that lies publishes in place of a contribution.
    proposing, structure, trust, learning, drift, probes
        See there; without trust all count as they come, without drift it is not watched, without
        probes nobody is asked.
    kappa, n_former
        See `amalgamator.policy.FoldConfig`; without kappa nobody has personal weights.
    merges_nets
        Whether nets of banks whose families have ``mlp`` are merged, and every bank has the merged
        one as an expert.
    """

    label_delay_s: float = 7 * 86_400.0
    cadence_s: float = 3_600.0
    tick_s: float = 3_600.0
    alert_rate: float = 0.01
    usual: BankPlan = BankPlan()
    banks: Mapping[str, BankPlan] = field(default_factory=dict)
    tampers: Mapping[str, Tamper] = field(default_factory=dict)
    proposing: ProposalPolicy = ProposalPolicy()
    structure: StructurePolicy = StructurePolicy()
    trust: TrustPolicy | None = TrustPolicy()
    learning: LearningPolicy = LearningPolicy()
    drift: DriftPolicy | None = None
    probes: ProbePolicy | None = None
    kappa: float | None = None
    n_former: int = 2
    merges_nets: bool = False

    def of(self, bank: str) -> BankPlan:
        """Return what a bank does."""
        return self.banks.get(bank, self.usual)


def schema_of(batch: TransactionBatch) -> Schema:
    """Return the schema that a file's columns ask for."""
    types = {
        name: "text" if isinstance(column, Words) else "number"
        for name, column in batch.attributes.items()
    }
    return Schema(entity_kinds=tuple(sorted(batch.entities)), attributes=attribute_specs(types))


def pipeline_config(plan: RunPlan, member: str, schema: Schema) -> PipelineConfig:
    """Return what a bank's pipeline needs to know."""
    bank = plan.of(member)
    return PipelineConfig(
        member=member,
        schema=schema,
        secret=SECRET,
        tick_ms=ms(plan.tick_s),
        label_horizon_ms=ms(plan.label_delay_s),
        statistics_cadence_ms=ms(bank.statistics_s),
        families=bank.families,
        learning=plan.learning,
        proposing=plan.proposing,
        judging=JudgePolicy(budget=BudgetPolicy(rate=plan.alert_rate)),
        drift=plan.drift,
        is_unit_known=bank.is_unit_known,
        unknown_scales=frozenset() if bank.are_scales_known else _numbers(schema),
        runs_scorecard=bank.runs_scorecard,
        answers_probes=bank.answers_probes,
        uses_probes=plan.probes is not None,
        uses_personal=plan.kappa is not None,
        uses_nets=plan.merges_nets,
    )


def _numbers(schema: Schema) -> frozenset[str]:
    return frozenset(spec.name for spec in schema.attributes if spec.type == "number")


def ms(seconds: float) -> int:
    """Return whole milliseconds."""
    return round(seconds * 1_000)


def local_amalgamator(names: tuple[str, ...], schema: Schema, plan: RunPlan) -> Amalgamator:
    """Return an amalgamator in lockstep for banks of this process, which need no keys."""
    learning = plan.learning
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
        structure=plan.structure,
        trust=plan.trust,
        probes=plan.probes,
        kappa=plan.kappa,
        n_former=plan.n_former,
        merges_nets=plan.merges_nets,
    )
    registry = Registry(
        consortium="local",
        entity_kinds=schema.entity_kinds,
        attributes=schema.attributes,
        members=members,
    )
    return Amalgamator(registry, fold, lockstep=True)


OnRow = Callable[[int], None]
OnTaken = Callable[[Pipeline, NDArray[np.int64]], None]


class ConsortiumRun:
    """Runs banks and amalgamator by a plan, and writes down what comes of it.

    Parameters
    ----------
    plan
        What is done.
    data
        The rows.
    on_rows
        Called with how many rows were handed to banks, for a progress bar.
    on_taken
        Called with a bank's pipeline and the rows of the file that it has just scored, which are
        the last ones in its log.
    on_release
        Called with each release, once the banks have it.
    """

    def __init__(
        self,
        plan: RunPlan,
        data: BankRows,
        on_rows: OnRow = lambda _: None,
        on_taken: OnTaken = lambda _, __: None,
        on_release: OnRelease = lambda _: None,
    ) -> None:
        unknown = set(plan.banks) - set(data.names)
        if unknown:
            raise InvalidInputError(
                f"plan: expected banks out of {', '.join(data.names)}, got {min(unknown)}"
            )
        schema = schema_of(data.batch)
        n = len(data.batch)
        self._plan, self._data = plan, data
        self._on_rows, self._on_taken, self._on_release = on_rows, on_taken, on_release
        self._rows = {name: self._rows_of(i, name) for i, name in enumerate(data.names)}
        self.pipelines = {
            name: Pipeline(pipeline_config(plan, name, schema)) for name in data.names
        }
        self.amalgamator = local_amalgamator(data.names, schema, plan)
        self.result = RunResult(
            own=np.full(n, np.nan),
            merged=np.full(n, np.nan),
            blend=np.full(n, np.nan),
            alert=np.zeros(n, np.bool_),
            is_scored=np.zeros(n, np.bool_),
            bank_reasons={name: Counter() for name in data.names},
        )

    def _rows_of(self, bank: int, name: str) -> NDArray[np.int64]:
        is_own = self._data.bank == bank
        joins_ms = self._plan.of(name).joins_ms
        if joins_ms is not None:
            is_own &= self._data.batch.event_time_ms >= joins_ms
        return np.flatnonzero(is_own)

    def run(self) -> RunResult:
        """Run all rows."""
        plans = {name: self._plan.of(name) for name in self._rows}
        streams = {name: self._stream(rows, plans[name]) for name, rows in self._rows.items()}
        LocalConsortium(
            self.pipelines,
            self.amalgamator,
            cadence_ms=ms(self._plan.cadence_s),
            away={name: one.away_ms for name, one in plans.items() if one.away_ms is not None},
            tampers=self._plan.tampers,
        ).run(
            streams,
            on_scored=self._take,
            on_release=self._note_release,
            on_tick=self._note_day,
        )
        return self.result

    def _stream(self, rows: NDArray[np.int64], plan: BankPlan) -> BankStream:
        batch, said = self._data.batch.take(rows), self._data.is_fraud[rows]
        if plan.amount_factor != 1.0:
            batch = replace(batch, amount=batch.amount * plan.amount_factor)
        if plan.has_own_scales:
            batch = in_other_scales(batch)
        if plan.relabel is not None:
            said = plan.relabel(batch, said)
        return bank_stream(batch, said, ms(self._plan.label_delay_s))

    def _take(self, name: str, rows: slice, scored: Scored) -> None:
        result, of_bank = self.result, self._rows[name][rows]
        accepted = of_bank[scored.accepted]
        result.own[accepted] = scored.scores[:, 0]
        result.merged[accepted] = scored.scores[:, 1]
        result.blend[accepted] = scored.logit
        for k, family in enumerate(scored.experts[2:], start=2):
            column = result.families.setdefault(family, np.full(len(result.own), np.nan))
            column[accepted] = scored.scores[:, k]
        result.alert[accepted] = scored.alert
        result.is_scored[accepted] = True
        result.refused.update(reason for _, reason, _ in scored.rejected)
        for alert in scored.alerts:
            towards = [one.feature for one in alert.reasons if one.contribution > 0]
            result.reasons.update(towards)
            result.bank_reasons[name].update(towards)
        self._on_taken(self.pipelines[name], accepted)
        self._on_rows(len(of_bank))

    def _note_release(self, release: Release) -> None:
        self._on_release(release)
        result, basis = self.result, release.basis
        result.n_releases += 1
        result.release_id = release.release_id
        known = result.releases[-1].basis if result.releases else 0
        if basis is not None and basis.number != known:
            result.releases.append(
                ReleaseNote(
                    since_ms=(release.epoch + 1) * ms(self._plan.cadence_s),
                    number=release.number,
                    basis=basis.number,
                    n_weights=basis.n_weights,
                    n_trees=len(basis.trees),
                )
            )

    def _note_day(self, tick_ms: int) -> None:
        if tick_ms % DAY_MS:
            return
        for i, name in enumerate(self._data.names):
            pipeline = self.pipelines[name]
            note = BlendNote(
                day_ms=tick_ms,
                bank=i,
                experts=pipeline.panel.names,
                weights=tuple(pipeline.judge.blend.weights.tolist()),
            )
            self.result.blends.append(note)
        self.result.trust += [
            TrustNote(
                day_ms=tick_ms,
                member=one.member,
                evidence=one.evidence,
                statistics=one.statistics,
            )
            for one in self.amalgamator.trust.members
        ]
