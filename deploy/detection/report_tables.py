"""Tables of the detection report: banks, attacks, alarms, reasons, runs; cells are texts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from deploy.detection.outcome import BankOutcome, DriftNote, Outcome
from deploy.detection.report_choice import (
    MAIN_RUNS,
    expert_words,
    in_order,
    is_foreign,
    main_runs,
    stem,
    system_of,
    system_words,
)
from deploy.feature_words import feature_words

_NONE = "–"
_OURS = "amalgamated"
_CALM = "clean"
_BASES = ("all_scorecard", "amalgamated")
_HASH = 12


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Parameters
    ----------
    caption
        What it is of.
    head
        Heading of each column; the first column names the row.
    groups
        (heading of the group or empty, rows) in order; a row has a cell for each column.
    texts
        Columns that hold words and not numbers.
    ours
        Columns that are set off.
    bars
        Column of numbers in [0, 1] that are drawn as bars, -1: none.
    """

    caption: str
    head: list[str]
    groups: list[tuple[str, list[list[str]]]]
    texts: frozenset[int] = frozenset({0})
    ours: frozenset[int] = frozenset()
    bars: int = -1


def bank_table(outcomes: Sequence[Outcome]) -> Table:
    """Return average precision of each bank and system, a group for each split with its mean."""
    systems = in_order({name for one in outcomes for bank in one.banks for name in bank.ap})
    head = ["bank", "rows", "frauds", *(f"AP {system_words(name)}" for name in systems)]
    has_share = {_OURS, "pooled"} <= set(systems)
    if has_share:
        head.append("amalgamated / pooled")
    groups = []
    for outcome in outcomes:
        rows = [_bank_row(bank, systems, has_share=has_share) for bank in outcome.banks]
        rows.append(_mean_row(outcome.banks, systems, has_share=has_share))
        groups.append((outcome.data, rows))
    ours = frozenset({3 + systems.index(_OURS)} if _OURS in systems else ())
    caption = f"Average precision by bank, run {outcomes[0].run}"
    return Table(caption, head, groups, ours=ours)


def _bank_row(bank: BankOutcome, systems: Sequence[str], *, has_share: bool) -> list[str]:
    cells = [bank.name, f"{bank.n:,}", f"{bank.n_frauds:,}"]
    cells += [_three(bank.ap.get(name)) for name in systems]
    if has_share:
        cells.append(_three(_ratio(bank.ap.get(_OURS), bank.ap.get("pooled"))))
    return cells


def _mean_row(
    banks: Sequence[BankOutcome], systems: Sequence[str], *, has_share: bool
) -> list[str]:
    means = {name: _mean([bank.ap.get(name) for bank in banks]) for name in systems}
    cells = ["mean", f"{sum(bank.n for bank in banks):,}", f"{sum(b.n_frauds for b in banks):,}"]
    cells += [_three(means[name]) for name in systems]
    if has_share:
        cells.append(_three(_ratio(means[_OURS], means["pooled"])))
    return cells


@dataclass(slots=True)
class _Attack:
    """Runs of one attack on one split, and of the same banks without it."""

    data: str
    name: str
    runs: dict[str, Outcome] = field(default_factory=dict)


def attack_table(outcomes: Sequence[Outcome]) -> Table | None:
    """Return what attacks cost the honest banks, undefended and defended, or None without one."""
    found: dict[tuple[str, str], _Attack] = {}
    names = {attack_of(outcome)[0] for outcome in outcomes}
    for outcome in outcomes:
        name, side = attack_of(outcome)
        if name or outcome.run in names:
            name = name or outcome.run
            attack = found.setdefault((outcome.data, name), _Attack(outcome.data, name))
            attack.runs[side] = outcome
    if not any(name != _CALM for _, name in found):
        return None
    head = [
        "who lies", "clean", "undefended", "defended", "defended / clean", "alone",
        "defended / alone, worst bank",
    ]  # fmt: skip
    groups: dict[str, list[list[str]]] = {}
    for attack in found.values():
        groups.setdefault(attack.data, []).append(_attack_row(attack, outcomes))
    caption = "Mean average precision of the honest banks under attack"
    return Table(caption, head, list(groups.items()), ours=frozenset({3, 4}))


def attack_of(outcome: Outcome) -> tuple[str, str]:
    """Return the attack of a run, empty if there is none, and whether it is defended.

    ``one_poisoner`` is defended, ``one_poisoner_undefended`` is not; ``clean`` is the attack of
    nobody, and so is the main run undefended.
    """
    parts = outcome.run.split("_")
    side = "undefended" if "undefended" in parts else "defended"
    name = "_".join(part for part in parts if part not in {"undefended", "defended"})
    if name == _CALM or (name != outcome.run and name in MAIN_RUNS):
        return _CALM, side
    return (name if "poison" in name or name != outcome.run else ""), side


def _attack_row(attack: _Attack, outcomes: Sequence[Outcome]) -> list[str]:
    calm = _calm(attack.data, outcomes)
    clean = calm.get("undefended") or calm.get("defended")
    if attack.name == _CALM:
        attack.runs = calm
    liars = {name for one in attack.runs.values() for name in one.subjects}
    banks = [bank for one in (clean, *attack.runs.values()) if one for bank in one.banks]
    honest = sorted({bank.name for bank in banks} - liars)
    ours = {side: _by_bank(one, _OURS) for side, one in attack.runs.items()}
    defended, of_clean = ours.get("defended", {}), _by_bank(clean, _OURS)
    own = _by_bank(attack.runs.get("defended"), "local") or _by_bank(clean, "local")
    ratios = [_ratio(defended.get(name), own.get(name)) for name in honest]
    known = [ratio for ratio in ratios if ratio is not None]
    means = [
        _mean([of.get(name) for name in honest])
        for of in (of_clean, ours.get("undefended", {}), defended, own)
    ]
    who = attack.name.replace("_", " ") if attack.name != _CALM else "nobody"
    return [
        f"{who} ({', '.join(sorted(liars))})" if liars else who,
        *(_three(mean) for mean in means[:3]),
        _three(_ratio(means[2], means[0])),
        _three(means[3]),
        _three(min(known, default=None)),
    ]


def _calm(data: str, outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """Return the runs of the same data in which nobody lies, by whether they are defended.

    The defended one is the run of scorecards, for the product defends by itself.
    """
    same = [one for one in outcomes if one.data == data]
    found = {side: one for one in same for name, side in (attack_of(one),) if name == _CALM}
    for run in (*_BASES, *(one.run for one in (*main_runs(same), *main_runs(same, foreign=True)))):
        for one in same:
            if run in {one.run, stem(one)}:
                found.setdefault("defended", one)
    return found


def _by_bank(outcome: Outcome | None, system: str) -> dict[str, float]:
    banks = outcome.banks if outcome else []
    return {bank.name: bank.ap[system] for bank in banks if system in bank.ap}


def drift_table(notes: Sequence[DriftNote], banks: Sequence[str], of: str) -> Table:
    """Return alarms of each bank by kind, and what they were most often about; ``of`` a run."""
    kinds = sorted({note.kind for note in notes})
    rows = []
    for bank in banks:
        of_bank = [note for note in notes if note.bank == bank]
        subjects = Counter(_subject(note) for note in of_bank)
        told = [f"{words} ({count})" for words, count in _most_common(subjects, 3)]
        counts = [str(sum(note.kind == kind for note in of_bank)) for kind in kinds]
        rows.append([bank, *counts, "; ".join(told) or _NONE])
    head = ["bank", *(f"{kind} alarms" for kind in kinds), "most often about"]
    texts = frozenset({0, len(head) - 1})
    return Table(f"Alarms by bank, {of}", head, [("", rows)], texts=texts)


def _subject(note: DriftNote) -> str:
    if note.kind == "feature":
        return feature_words(note.subject)
    return expert_words(system_of(note.subject))


def reason_table(outcome: Outcome, of: str, n: int = 12) -> Table:
    """Return what was most often a reason of an alert, over all banks."""
    counts: Counter[str] = Counter()
    for bank in outcome.banks:
        for code, count in bank.reasons:
            counts[code] += count
    total, top = max(sum(counts.values()), 1), _most_common(counts, n)
    most = max((count for _, count in top), default=1)
    rows = [
        [feature_words(code), f"{count:,}", f"{count / total:.1%}", f"{count / most:.3f}"]
        for code, count in top
    ]
    head = ["reason", "times", "share of all reasons", "beside the first"]
    return Table(f"Most frequent reasons, all banks, {of}", head, [("", rows)], bars=3)


def bank_reason_table(outcome: Outcome, of: str, n: int = 3) -> Table:
    """Return the first reasons of each bank."""
    rows = [
        [bank.name, "; ".join(f"{feature_words(code)} ({k:,})" for code, k in bank.reasons[:n])]
        for bank in outcome.banks
        if bank.reasons
    ]
    head = ["bank", "most frequent reasons (times)"]
    return Table(
        f"Most frequent reasons by bank, {of}", head, [("", rows)], texts=frozenset({0, 1})
    )


def run_table(outcomes: Sequence[Outcome]) -> Table:
    """Return what the report was made from."""
    head = [
        "run", "data", "rows", "mean AP alone", "mean AP amalgamated", "share of pooled",
        "share at the worst bank", "minutes", "last release",
    ]  # fmt: skip
    rows = [_run_row(outcome) for outcome in outcomes]
    return Table("Runs", head, [("", rows)], texts=frozenset({0, 1, 8}))


def _run_row(outcome: Outcome) -> list[str]:
    means = {
        system: _mean([bank.ap.get(system) for bank in outcome.banks])
        for system in ("local", _OURS, "pooled")
    }
    shares = [_ratio(bank.ap.get(_OURS), bank.ap.get("pooled")) for bank in outcome.banks]
    return [
        outcome.run,
        outcome.data,
        f"{sum(bank.n for bank in outcome.banks):,}",
        _three(means["local"]),
        _three(means[_OURS]),
        _three(_ratio(means[_OURS], means["pooled"])),
        _three(min((share for share in shares if share is not None), default=None)),
        f"{outcome.seconds / 60:,.1f}",
        outcome.release_id[:_HASH] or _NONE,
    ]


def data_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line on each data set and split."""
    lines: dict[str, str] = {}
    for outcome in outcomes:
        if outcome.data in lines or not outcome.banks:
            continue
        n, frauds = sum(b.n for b in outcome.banks), sum(b.n_frauds for b in outcome.banks)
        share = f", {frauds / n:.2%}" if n else ""
        world = " (another world)" if is_foreign(outcome) else ""
        lines[outcome.data] = (
            f"{outcome.data}{world}: {n:,} rows evaluated, {frauds:,} frauds{share}; banks "
            f"{', '.join(bank.name for bank in outcome.banks)}"
        )
    return list(lines.values())


def _most_common(counts: Counter[str], n: int) -> list[tuple[str, int]]:
    """Return the most frequent, ties by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean; None if one is missing, for a mean of others would not compare."""
    found = list(values)
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _three(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"
