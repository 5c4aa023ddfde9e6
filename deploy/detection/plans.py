"""Which runs the evaluation needs, as data: what each bank does in each of them.

Banks are handed in by size, the largest first, and every role follows from that order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Literal

from amalgamator.policy import ProbePolicy
from deploy.attacks import flip_labels
from deploy.runs import BankPlan, RunPlan
from models.errors import InvalidInputError
from models.families.registry import FamilySpec
from stream.drift_policy import DriftPolicy

DAY_MS = 86_400_000
Kind = Literal["consortium", "pooled_scorecard", "pooled_lightgbm", "local_lightgbm"]
BASE = "all_scorecard"
"""The run whose rows the LightGBM yardsticks learn from, and beside which a cold bank is held."""
LIGHTGBM: tuple[FamilySpec, ...] = ("lightgbm",)
MIXED: tuple[tuple[FamilySpec, ...], ...] = (
    LIGHTGBM,
    ("mlp",),
    (),
    ('river {model = "river.linear_model.LogisticRegression"}',),
    ('river {model = "river.naive_bayes.GaussianNB"}',),
)
"""Own models of the largest bank, of the next, ...; then from the start again."""
EVERY_S = 7_200.0
USUAL = BankPlan(statistics_s=2 * 86_400.0)
PLAN = RunPlan(tick_s=EVERY_S, cadence_s=EVERY_S, usual=USUAL)
"""Outcomes are learnt and evidence is exchanged every two hours, statistics every two days: half of
the work of hours and days."""
PROBE_ONLY = replace(USUAL, families=LIGHTGBM, runs_scorecard=False, answers_probes=True)
"""A bank that shares evidence and histograms, learns by LightGBM alone, and answers probes."""
PACES_D = (1, 1, 2, 3, 7)
"""Days between publications of statistics, likewise."""
FOREIGN_UNIT = 11.3
"""Units of the other currency that one of the reference currency is worth."""
AWAY_AFTER_D, AWAY_D = 14, 14


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSource:
    """Rows that are evaluated.

    Parameters
    ----------
    name
        Of data and split, e.g. ``handbook-7``; fit for a folder.
    file, mapping, split, bank_column
        See `deploy.bank_rows.read_bank_rows`.
    first_day, last_day
        Days since 1970 that are evaluated, both included; None: the last third of the days.
    """

    name: str
    file: Path
    mapping: Path
    split: str | None = None
    bank_column: str | None = None
    first_day: int | None = None
    last_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionRun:
    """One run of the evaluation.

    Parameters
    ----------
    name
        Of the run, e.g. ``amalgamated``.
    kind
        ``consortium``: the plan; ``pooled_scorecard``: one scorecard on all rows;
        ``pooled_lightgbm`` and ``local_lightgbm``: LightGBM on the rows of all banks with shared
        evidence, and of each bank with its own evidence alone.
    plan
        What the banks do; the other kinds take its delays.
    subjects
        Banks that the run is about: who lies, joins late, is away, pays in another currency.
    needs
        Run whose kept rows are read; empty: none.
    keeps_rows
        Whether feature rows and scores are kept as files for runs that need them.
    is_once
        Whether one of several splits is enough: no figure is made of it, the report shows it.
    is_named
        Whether it is run only where it is named.
    """

    name: str
    kind: Kind = "consortium"
    plan: RunPlan = PLAN
    subjects: tuple[str, ...] = ()
    needs: str = ""
    keeps_rows: bool = False
    is_once: bool = False
    is_named: bool = False


def usual_runs(prefix: str = "") -> tuple[DetectionRun, ...]:
    """Return the runs that any data set gets, their names after a prefix."""
    base = prefix + BASE
    return (
        DetectionRun(name=base, keeps_rows=True),
        DetectionRun(
            name=f"{prefix}amalgamated",
            plan=replace(PLAN, usual=replace(USUAL, families=LIGHTGBM)),
        ),
        DetectionRun(name=f"{prefix}pooled_lightgbm", kind="pooled_lightgbm", needs=base),
        DetectionRun(name=f"{prefix}local_lightgbm", kind="local_lightgbm", needs=base),
    )


def split_runs(banks: Sequence[str], first_ms: int) -> tuple[DetectionRun, ...]:
    """Return the runs of one split of a file into at least three banks.

    Parameters
    ----------
    banks
        Names, the largest first.
    first_ms
        First instant that is evaluated.

    Raises
    ------
    InvalidInputError
        If there are fewer banks.
    """
    if len(banks) < 3:
        raise InvalidInputError(f"expected at least 3 banks, got {len(banks)}")
    own = dict(zip(banks, cycle(MIXED)))
    paces = dict(zip(banks, cycle(PACES_D)))
    usual = [run for run in usual_runs() if run.kind != "local_lightgbm"]
    return (  # the longest first
        DetectionRun(name="probe_only", plan=replace(PLAN, usual=PROBE_ONLY, probes=ProbePolicy())),
        *usual,
        _run("mixed", {bank: replace(USUAL, families=families) for bank, families in own.items()}),
        _run("paces", {bank: BankPlan(statistics_s=86_400.0 * d) for bank, d in paces.items()}),
        _about("cold", banks[-1], replace(USUAL, joins_ms=first_ms), needs=BASE),
        replace(_about("away", banks[1], replace(USUAL, away_ms=_absence(first_ms))), is_once=True),
        DetectionRun(name="drift_watched", plan=replace(PLAN, drift=DriftPolicy()), is_once=True),
        *currency_runs(banks[2]),
        *poison_runs(banks),
        DetectionRun(name="pooled", kind="pooled_scorecard"),
    )


def currency_runs(bank: str) -> tuple[DetectionRun, ...]:
    """Return the runs in which one bank's amounts come in another currency.

    With the currency known they would be those of `BASE`.
    """
    return (
        _about("currency_unaligned", bank, replace(USUAL, amount_factor=FOREIGN_UNIT)),
        _about(
            "currency_aligned",
            bank,
            replace(USUAL, amount_factor=FOREIGN_UNIT, is_unit_known=False),
        ),
    )


def scale_runs(bank: str, prefix: str) -> tuple[DetectionRun, ...]:
    """Return the runs in which one bank writes its numeric attributes in scales of its own."""
    foreign = replace(USUAL, has_own_scales=True)
    runs = (
        _about("scales_unaligned", bank, foreign),
        _about("scales_aligned", bank, replace(foreign, are_scales_known=False)),
    )
    return tuple(replace(run, name=prefix + run.name, is_named=True) for run in runs)


def poison_runs(banks: Sequence[str]) -> tuple[DetectionRun, ...]:
    """Return the runs in which the second largest bank lies, or the next one too, and a clean one.

    A liar learns and publishes the opposite of every outcome, in statistics and counts alike. All
    other runs are defended, as the amalgamator is by itself; so `BASE` is the clean defended one.
    """
    one, two = tuple(banks[1:2]), tuple(banks[1:3])
    return (
        DetectionRun(name="clean_undefended", plan=replace(PLAN, trust=None)),
        _poisoned("one_poisoner", one),
        replace(_poisoned("one_poisoner_undefended", one, is_defended=False), is_once=True),
        _poisoned("two_poisoners", two),
    )


def _poisoned(name: str, liars: tuple[str, ...], *, is_defended: bool = True) -> DetectionRun:
    banks = dict.fromkeys(liars, replace(USUAL, relabel=flip_labels))
    plan = replace(PLAN, banks=banks) if is_defended else replace(PLAN, banks=banks, trust=None)
    return DetectionRun(name=name, plan=plan, subjects=liars)


def _absence(first_ms: int) -> tuple[int, int]:
    since_ms = first_ms + AWAY_AFTER_D * DAY_MS
    return since_ms, since_ms + AWAY_D * DAY_MS


def _run(name: str, banks: dict[str, BankPlan]) -> DetectionRun:
    return DetectionRun(name=name, plan=replace(PLAN, banks=banks))


def _about(name: str, bank: str, plan: BankPlan, *, needs: str = "") -> DetectionRun:
    return DetectionRun(
        name=name, plan=replace(PLAN, banks={bank: plan}), subjects=(bank,), needs=needs
    )
