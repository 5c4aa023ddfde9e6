"""What attacks cost the honest banks, with the defence off and on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from amalgamator.policy import TrustPolicy
from deploy.attacks import ATTACKS, Attack
from deploy.bank_rows import BankRows, read_bank_rows, without_attributes
from deploy.run_results import RunResult
from deploy.runs import BankPlan, ConsortiumRun, RunPlan
from deploy.scenarios import FraudRates
from deploy.simulated_files import write_days
from deploy.simulator import SimulationConfig, simulate
from models.errors import InvalidInputError
from models.evaluation import average_precision
from models.release import Release
from stream.experts import LearningPolicy

_DAY_MS = 86_400_000
SIMULATED = Path(__file__).parent / "mappings" / "simulated.toml"
OnProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteConfig:
    """What is run.

    Parameters
    ----------
    file, mapping, split, bank_column, label_delay_d, cadence_s
        As in `deploy.backtest.BacktestConfig`.
    entity_kinds
        Those of the mapping that are used; None: all.
    scored_from, scored_to
        Days since 1970 that are evaluated, both included; None: from the middle, to the end.
    attacks
        Names of `deploy.attacks.ATTACKS`.
    trust
        The defence.

    Raises
    ------
    InvalidInputError
        If an attack is unknown.
    """

    file: Path
    mapping: Path
    split: str | None = None
    bank_column: str | None = None
    entity_kinds: tuple[str, ...] | None = None
    label_delay_d: float = 7.0
    scored_from: int | None = None
    scored_to: int | None = None
    cadence_s: float = 86_400.0
    attacks: tuple[str, ...] = tuple(ATTACKS)
    trust: TrustPolicy = field(default_factory=TrustPolicy)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.attacks) - set(ATTACKS))
        if unknown:
            raise InvalidInputError(
                f"attack: expected some of {', '.join(ATTACKS)}, got {unknown[0]}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of one run.

    Parameters
    ----------
    average_precision, alone
        Bank -> over its evaluated rows, of the blend and of its own scorecard.
    liars
        The banks that lied.
    weights
        Member -> (evidence, statistics) in the last release.
    why
        Member -> reasons, of all days.
    doubted_days
        Member -> days on which a part of it did not count in full.
    n_days
        Days with a release.
    """

    average_precision: Mapping[str, float]
    alone: Mapping[str, float]
    liars: tuple[str, ...]
    weights: Mapping[str, tuple[float, float]]
    why: Mapping[str, tuple[str, ...]]
    doubted_days: Mapping[str, int]
    n_days: int

    def macro(self, banks: Sequence[str]) -> float:
        """Return the mean average precision of some banks."""
        return float(np.mean([self.average_precision[bank] for bank in banks]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An attack, undefended and defended, and the same banks without it."""

    name: str
    clean: Run
    undefended: Run
    defended: Run

    @property
    def honest(self) -> tuple[str, ...]:
        """The banks that did not lie."""
        return tuple(bank for bank in self.clean.alone if bank not in self.defended.liars)

    @property
    def alone(self) -> float:
        """Mean average precision of the honest banks' own scorecards."""
        return float(np.mean([self.clean.alone[bank] for bank in self.honest]))

    @property
    def worst_against_alone(self) -> float:
        """The least of the honest banks' defended average precision over that alone."""
        ours = self.defended.average_precision
        return min(ours[bank] / self.clean.alone[bank] for bank in self.honest)

    @property
    def false_days(self) -> int:
        """Days on which an honest bank did not count in full, summed over the banks."""
        return sum(self.defended.doubted_days[bank] for bank in self.honest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """All honest, undefended and defended; and what came of each attack."""

    clean: Run
    defended: Run
    outcomes: tuple[Outcome, ...]


def simulated_suite(
    attacks: tuple[str, ...], path: Path, *, seed: int, n_days: int = 30
) -> SuiteConfig:
    """Return the suite on five simulated banks that share terminals, written to ``path``."""
    simulation = SimulationConfig(
        n_days=n_days,
        n_customers=900,
        n_terminals=300,
        n_merchants=60,
        growth=0.0,
        rates=FraudRates(terminals=0.6),
    )
    names = [f"bank-{i + 1}" for i in range(len(simulation.bank_shares))]
    write_days(simulate(simulation, np.random.default_rng(seed)), names, path)
    return SuiteConfig(
        file=path,
        mapping=SIMULATED,
        entity_kinds=("terminal",),
        label_delay_d=3.0,
        attacks=attacks,
    )


def run_suite(config: SuiteConfig, on_progress: OnProgress) -> Suite:
    """Run everybody honest, undefended and defended, then each attack likewise.

    Parameters
    ----------
    config
        What is run.
    on_progress
        Called with what comes next.
    """
    data = _read(config)
    nobody = Attack(text="all are honest", n_liars=0)
    on_progress("all honest, undefended")
    clean = run_once(config, data, nobody, None)
    on_progress("all honest, defended")
    defended = run_once(config, data, nobody, config.trust)
    outcomes = []
    for name in config.attacks:
        on_progress(f"{name}, undefended")
        undefended = run_once(config, data, ATTACKS[name], None)
        on_progress(f"{name}, defended")
        outcome = Outcome(
            name=name,
            clean=clean,
            undefended=undefended,
            defended=run_once(config, data, ATTACKS[name], config.trust),
        )
        outcomes.append(outcome)
    return Suite(clean=clean, defended=defended, outcomes=tuple(outcomes))


def _read(config: SuiteConfig) -> BankRows:
    data = without_attributes(
        read_bank_rows(
            config.file, config.mapping, split=config.split, bank_column=config.bank_column
        )
    )
    if config.entity_kinds is None:
        return data
    missing = sorted(set(config.entity_kinds) - set(data.batch.entities))
    if missing:
        raise InvalidInputError(f"entity kinds: expected some of the mapping's, got {missing[0]}")
    entities = {kind: data.batch.entities[kind] for kind in config.entity_kinds}
    return replace(data, batch=replace(data.batch, entities=entities))


def run_once(config: SuiteConfig, data: BankRows, attack: Attack, trust: TrustPolicy | None) -> Run:
    """Run all banks once."""
    return _Consortium(config, data, attack, trust).run()


def liars_of(data: BankRows, n: int) -> tuple[str, ...]:
    """Return who lies: the second largest bank first, then the next smaller ones."""
    sizes = np.bincount(data.bank, minlength=len(data.names))
    order = np.argsort(-sizes, kind="stable")
    return tuple(data.names[i] for i in order[1 : 1 + n].tolist())


class _Consortium:
    """Banks and their amalgamator, and what is written down."""

    def __init__(
        self, config: SuiteConfig, data: BankRows, attack: Attack, trust: TrustPolicy | None
    ) -> None:
        self._config, self._data = config, data
        self._liars = liars_of(data, attack.n_liars)
        tampers = {} if attack.tamper is None else dict.fromkeys(self._liars, attack.tamper)
        plan = RunPlan(
            label_delay_s=config.label_delay_d * 86_400.0,
            cadence_s=config.cadence_s,
            banks=dict.fromkeys(self._liars, BankPlan(relabel=attack.relabel)),
            tampers=tampers,
            trust=trust,
        )
        self._consortium = ConsortiumRun(plan, data, on_release=self._note)
        self._doubted = dict.fromkeys(data.names, 0)
        self._why: dict[str, set[str]] = {name: set() for name in data.names}
        self._days: set[int] = set()
        self._release: Release | None = None

    def run(self) -> Run:
        """Run all rows."""
        return self._finished(self._consortium.run())

    def _note(self, release: Release) -> None:
        self._release = release
        day = round((release.epoch + 1) * self._config.cadence_s / 86_400)
        for one in self._consortium.amalgamator.trust.doubted():
            self._doubted[one.member] += day not in self._days
            self._why[one.member].update(one.why)
        self._days.add(day)

    def _finished(self, result: RunResult) -> Run:
        evaluated = self._evaluated()
        sources = () if self._release is None else self._release.sources
        return Run(
            average_precision=self._precisions(result.blend, evaluated),
            alone=self._precisions(result.own, evaluated),
            liars=self._liars,
            weights={s.member: (s.weight, s.statistics_weight) for s in sources},
            why={name: tuple(sorted(why)) for name, why in self._why.items()},
            doubted_days=self._doubted,
            n_days=len(self._days),
        )

    def _evaluated(self) -> NDArray[np.bool_]:
        day = self._data.batch.event_time_ms // _DAY_MS
        config = self._config
        first = (
            (day.min() + day.max() + 1) // 2 if config.scored_from is None else config.scored_from
        )
        last = day.max() if config.scored_to is None else config.scored_to
        return np.asarray((day >= first) & (day <= last), np.bool_)

    def _precisions(
        self, scores: NDArray[np.float64], evaluated: NDArray[np.bool_]
    ) -> dict[str, float]:
        known = np.where(np.isnan(scores), LearningPolicy().prior_logit, scores)
        found = {}
        for i, name in enumerate(self._data.names):
            rows = np.flatnonzero((self._data.bank == i) & evaluated)
            value = average_precision(self._data.is_fraud[rows], known[rows])
            if value is None:
                raise InvalidInputError(f"{name}: expected frauds between the dates, got none")
            found[name] = value
        return found


def suite_table(suite: Suite) -> Table:
    """Return the console table: average precision, mean of the honest banks."""
    table = Table(
        title="average precision, mean of the honest banks",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("attack")
    for name in ("alone", "clean", "undefended", "defended", "of clean", "worst/alone"):
        table.add_column(name, justify="right")
    table.add_column("liars' weights")
    table.add_column("why")
    table.add_column("false days", justify="right")
    for one in suite.outcomes:
        banks, liars = one.honest, one.defended.liars
        table.add_row(
            one.name,
            f"{one.alone:.3f}",
            f"{one.clean.macro(banks):.3f}",
            f"{one.undefended.macro(banks):.3f}",
            f"{one.defended.macro(banks):.3f}",
            f"{one.defended.macro(banks) / one.clean.macro(banks):.3f}",
            f"{one.worst_against_alone:.3f}",
            " ".join("{:.2g}/{:.2g}".format(*one.defended.weights[liar]) for liar in liars),
            " ".join(sorted({why for liar in liars for why in one.defended.why[liar]})),
            f"{one.false_days}/{len(banks) * one.defended.n_days}",
        )
    return table


def suite_figures(suite: Suite) -> dict[str, float]:
    """Return the figures by name."""
    clean, defended = suite.clean, suite.defended
    banks = list(clean.alone)
    figures = {
        "clean_average_precision": clean.macro(banks),
        "clean_defended_average_precision": defended.macro(banks),
        "defence_cost": 1.0 - defended.macro(banks) / clean.macro(banks),
        "clean_doubted_days": float(sum(defended.doubted_days.values())),
    }
    for one in suite.outcomes:
        honest = one.honest
        figures |= {
            f"{one.name}_alone": one.alone,
            f"{one.name}_undefended": one.undefended.macro(honest),
            f"{one.name}_defended": one.defended.macro(honest),
            f"{one.name}_of_clean": one.defended.macro(honest) / one.clean.macro(honest),
            f"{one.name}_worst_vs_local": one.worst_against_alone,
            f"{one.name}_false_days": float(one.false_days),
        }
    return figures
