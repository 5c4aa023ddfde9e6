"""Sections of the detection report: which outcomes they show, as tables and plots."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from deploy.detection.outcome import Outcome, WeightNote
from deploy.detection.report_charts import (
    MARKERS,
    Looks,
    Panel,
    basis_panels,
    cold_panels,
    drift_plot,
    key_of,
    recall_panel,
    week_panels,
    weight_panels,
)
from deploy.detection.report_choice import (
    expert_words,
    first_splits,
    having,
    in_order,
    main_runs,
    stem,
    system_of,
    system_words,
)
from deploy.detection.report_tables import (
    Table,
    attack_of,
    attack_table,
    bank_reason_table,
    bank_table,
    drift_table,
    reason_table,
)
from deploy.detection.report_texts import TEXTS, SectionText


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: a line's sample as SVG, or a sign in a colour; and its words."""

    words: str
    svg: str = ""
    sign: str = ""
    look: str = ""


@dataclass(frozen=True, slots=True)
class Plots:
    """Panels of one run with their legend."""

    of: str
    keys: list[Key]
    panels: list[Panel]
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    text
        Its words.
    tables, plots
        What it shows.
    """

    text: SectionText
    tables: list[Table] = field(default_factory=list)
    plots: list[Plots] = field(default_factory=list)


def sections(outcomes: Sequence[Outcome], looks: Looks) -> list[Section]:
    """Return all sections, those without anything to show too.

    Parameters
    ----------
    outcomes
        As `deploy.detection.report_choice.prepared` gives them.
    looks
        System or expert -> name of its colour.
    """
    shown = [*main_runs(outcomes)[:1], *main_runs(outcomes, foreign=True)[:1]]
    return [
        _banks(outcomes),
        _recall(shown, outcomes, looks),
        _weeks(shown, outcomes, looks),
        _blends(shown, outcomes, looks),
        _trust(shown, outcomes, looks),
        _bases(shown, outcomes),
        _cold(outcomes, looks),
        _attacks(outcomes),
        _drift(shown, outcomes),
        _reasons(shown, outcomes),
    ]


def _of(outcome: Outcome) -> str:
    return f"run {outcome.run} on {outcome.data}"


def _keys(names: Iterable[str], looks: Looks, words: Callable[[str], str]) -> list[Key]:
    return [Key(words(name), svg=key_of(looks[name])) for name in in_order(names)]


def _banks(outcomes: Sequence[Outcome]) -> Section:
    groups = [main_runs(outcomes), main_runs(outcomes, foreign=True)]
    return Section(
        TEXTS["banks"],
        tables=[bank_table(group) for group in groups if any(one.banks for one in group)],
    )


def _recall(shown: Sequence[Outcome], outcomes: Sequence[Outcome], looks: Looks) -> Section:
    plots = []
    for i, outcome in enumerate(
        having(shown, outcomes, lambda one: any(bank.curve for bank in one.banks))
    ):
        names = {name for bank in outcome.banks for name in bank.curve}
        panels = [
            recall_panel(bank, looks, f"recall-{i}-{k}")
            for k, bank in enumerate(outcome.banks)
            if bank.curve
        ]
        plots.append(Plots(_of(outcome), _keys(names, looks, system_words), panels))
    return Section(
        TEXTS["curves"],
        plots=plots,
    )


def _weeks(shown: Sequence[Outcome], outcomes: Sequence[Outcome], looks: Looks) -> Section:
    plots = []
    for i, outcome in enumerate(
        having(shown, outcomes, lambda one: any(bank.ap_by_week for bank in one.banks))
    ):
        names = {name for bank in outcome.banks for name in bank.ap_by_week}
        panels = week_panels(outcome, looks, f"weeks-{i}")
        plots.append(Plots(_of(outcome), _keys(names, looks, system_words), panels))
    return Section(
        TEXTS["weeks"],
        plots=plots,
    )


def _blends(shown: Sequence[Outcome], outcomes: Sequence[Outcome], looks: Looks) -> Section:
    mixed = [one for one in first_splits(outcomes) if stem(one) == "mixed"]
    plots = []
    for i, outcome in enumerate(having([*shown, *mixed], outcomes, lambda one: bool(one.blends))):
        names = {system_of(name) for note in outcome.blends for name in note.weights}
        panels = _weights(outcome, outcome.blends, looks, f"blends-{i}", "Weights of experts")
        plots.append(Plots(_of(outcome), _keys(names, looks, expert_words), panels))
    return Section(
        TEXTS["experts"],
        plots=plots,
    )


def _weights(
    outcome: Outcome, notes: Sequence[WeightNote], looks: Looks, name: str, what: str
) -> list[Panel]:
    return weight_panels(notes, [bank.name for bank in outcome.banks], looks, name, what)


def _trust(shown: Sequence[Outcome], outcomes: Sequence[Outcome], looks: Looks) -> Section:
    attacked = [
        one
        for one in first_splits(outcomes)
        if "poison" in one.run and attack_of(one)[1] == "defended"
    ]
    plots = []
    for i, outcome in enumerate(having(attacked, [*shown, *outcomes], lambda one: bool(one.trust))):
        names = {system_of(name) for note in outcome.trust for name in note.weights}
        panels = _weights(outcome, outcome.trust, looks, f"trust-{i}", "Weights in the merge")
        liars = f"; who lies: {', '.join(sorted(outcome.subjects))}" if outcome.subjects else ""
        plots.append(Plots(_of(outcome) + liars, _keys(names, looks, system_words), panels))
    return Section(
        TEXTS["trust"],
        plots=plots,
    )


def _bases(shown: Sequence[Outcome], outcomes: Sequence[Outcome]) -> Section:
    found = having(shown, outcomes, lambda one: bool(one.bases))
    return Section(
        TEXTS["bases"],
        plots=[
            Plots(_of(outcome), [], basis_panels(outcome, f"bases-{i}"))
            for i, outcome in enumerate(found)
        ],
    )


def _cold(outcomes: Sequence[Outcome], looks: Looks) -> Section:
    keys = [
        Key("joined cold", svg=key_of(looks["cold"])),
        Key("the same bank warm", svg=key_of(looks["warm"])),
    ]
    return Section(
        TEXTS["cold"],
        plots=[
            Plots(_of(outcome), keys, cold_panels(outcome, looks, f"cold-{i}"))
            for i, outcome in enumerate(first_splits(one for one in outcomes if one.cold))
        ],
    )


def _attacks(outcomes: Sequence[Outcome]) -> Section:
    table = attack_table(outcomes)
    return Section(
        TEXTS["attacks"],
        tables=[table] if table else [],
    )


def _drift(shown: Sequence[Outcome], outcomes: Sequence[Outcome]) -> Section:
    injected = [one for one in first_splits(outcomes) if "drift" in one.run]
    tables, plots = [], []
    for i, outcome in enumerate(having([*shown, *injected], outcomes, lambda one: bool(one.drift))):
        named = [bank.name for bank in outcome.banks]
        banks = [*named, *sorted({note.bank for note in outcome.drift} - set(named))]
        kinds = sorted({note.kind for note in outcome.drift})
        keys = []
        for k, kind in enumerate(kinds):
            _, sign, look = MARKERS[k % len(MARKERS)]
            keys.append(Key(kind, sign=sign, look=look))
        panel = drift_plot(outcome.drift, banks, f"drift-{i}")
        plots.append(Plots(_of(outcome), keys, [panel], is_wide=True))
        tables.append(drift_table(outcome.drift, banks, _of(outcome)))
    return Section(
        TEXTS["drift"],
        tables=tables,
        plots=plots,
    )


def _reasons(shown: Sequence[Outcome], outcomes: Sequence[Outcome]) -> Section:
    found = having(shown, outcomes, lambda one: any(bank.reasons for bank in one.banks))
    return Section(
        TEXTS["reasons"],
        tables=[
            table
            for one in found
            for table in (reason_table(one, _of(one)), bank_reason_table(one, _of(one)))
        ],
    )
