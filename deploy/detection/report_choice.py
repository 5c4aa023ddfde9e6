"""Which outcome a part of the report is about, and its systems under the names of the report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from deploy.chart_style import COLOURS
from deploy.detection.outcome import BankOutcome, Outcome
from models.errors import InvalidInputError

SYSTEMS: Mapping[str, tuple[str, str]] = {
    "local": ("alone", "the bank's scorecard on its own data"),
    "local_lightgbm": ("LightGBM alone", "gradient boosting on the bank's own data"),
    "lightgbm": (
        "own LightGBM",
        "gradient boosting as one of a bank's experts; its features know of other banks' frauds",
    ),
    "merged": ("merged", "the consortium's scorecard, as it comes in a release"),
    "amalgamated": ("amalgamated", "what the bank alerts by: its own and merged models, weighed"),
    "pooled": ("pooled", "one scorecard on all data in one place, which no consortium may do"),
    "pooled_lightgbm": ("LightGBM pooled", "gradient boosting on all data in one place"),
}
"""System -> its name in the report, and what it is; in the order of the tables."""
_ALIASES = {
    "own": "local",
    "alone": "local",
    "blend": "amalgamated",
    "pooled_scorecard": "pooled",
}
_COMPARED = ("pooled", "pooled_lightgbm", "local_lightgbm")
MAIN_RUNS = ("amalgamated", "all_scorecard")
_FOREIGN = "foreign"
_EXPERTS = {"local": "own scorecard", "merged": "merged scorecard"}
_SIDE_WORDS = ("poison", "undefended", "cold", "clean")
_T = TypeVar("_T")


def system_of(name: str) -> str:
    """Return the report's name of a system, or the name itself."""
    return _ALIASES.get(name, name)


def system_words(name: str) -> str:
    """Return how a system is called in tables."""
    return SYSTEMS[name][0] if name in SYSTEMS else name.replace("_", " ")


def expert_words(name: str) -> str:
    """Return how an expert of a blend is called."""
    return _EXPERTS.get(name) or system_words(name)


def in_order(names: Iterable[str]) -> list[str]:
    """Return systems in the order of the tables, those that are unknown last."""
    found = set(names)
    return [name for name in SYSTEMS if name in found] + sorted(found - set(SYSTEMS))


def prepared(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes with the report's names of systems.

    Raises
    ------
    InvalidInputError
        If two are of one run and data, or a system has not a figure for each week.
    """
    seen: set[tuple[str, str]] = set()
    for outcome in outcomes:
        key = (outcome.run, outcome.data)
        if key in seen:
            raise InvalidInputError(f"outcomes: expected one of {key[0]} on {key[1]}, got two")
        seen.add(key)
        _check_weeks(outcome)
    named = [
        msgspec.structs.replace(outcome, banks=[_renamed(bank) for bank in outcome.banks])
        for outcome in outcomes
    ]
    return [_with_compared(outcome, named) for outcome in named]


def _check_weeks(outcome: Outcome) -> None:
    for bank in outcome.banks:
        for name, found in bank.ap_by_week.items():
            if len(found) != len(outcome.weeks):
                raise InvalidInputError(
                    f"{outcome.run} on {outcome.data}, {name}: expected average precision of "
                    f"{len(outcome.weeks)} weeks, got {len(found)}"
                )


def _renamed(bank: BankOutcome) -> BankOutcome:
    return msgspec.structs.replace(
        bank,
        ap=_keyed(bank.ap),
        ap_by_week=_keyed(bank.ap_by_week),
        curve=_keyed({name: curve for name, curve in bank.curve.items() if curve}),
    )


def _keyed(found: Mapping[str, _T]) -> dict[str, _T]:
    return {system_of(name): value for name, value in found.items()}


def _with_compared(outcome: Outcome, outcomes: Sequence[Outcome]) -> Outcome:
    """Return an outcome with the systems that ran by themselves on the same data.

    Such a run bears the system's name, and has an entry under it or one entry only.
    """
    banks = {bank.name: bank for bank in outcome.banks}
    for other in outcomes:
        if other is outcome or other.data != outcome.data or stem(other) not in _COMPARED:
            continue
        for theirs in other.banks:
            if theirs.name in banks:
                banks[theirs.name] = _joined(banks[theirs.name], theirs, stem(other))
    return msgspec.structs.replace(outcome, banks=list(banks.values()))


def _joined(bank: BankOutcome, theirs: BankOutcome, system: str) -> BankOutcome:
    return msgspec.structs.replace(
        bank,
        ap=_entry(theirs.ap, system) | bank.ap,
        ap_by_week=_entry(theirs.ap_by_week, system) | bank.ap_by_week,
        curve=_entry(theirs.curve, system) | bank.curve,
    )


def _entry(found: Mapping[str, _T], system: str) -> dict[str, _T]:
    if system in found:
        return {system: found[system]}
    return {system: next(iter(found.values()))} if len(found) == 1 else {}


def is_foreign(outcome: Outcome) -> bool:
    """Return whether it is of the foreign data set."""
    return _FOREIGN in outcome.run or _FOREIGN in outcome.data


def stem(outcome: Outcome) -> str:
    """Return the name of the run without that of the data set."""
    return system_of(outcome.run.removeprefix(f"{_FOREIGN}_"))


def main_runs(outcomes: Sequence[Outcome], *, foreign: bool = False) -> list[Outcome]:
    """Return the splits of the run that the report is about, or none."""
    of_data = [
        outcome
        for outcome in outcomes
        if is_foreign(outcome) is foreign
        and stem(outcome) not in _COMPARED
        and not any(word in outcome.run for word in _SIDE_WORDS)
    ]
    there = [stem(outcome) for outcome in of_data]
    runs = [run for run in MAIN_RUNS if run in there] or there
    return [outcome for outcome in of_data if stem(outcome) == runs[0]]


def having(
    wanted: Sequence[Outcome], outcomes: Sequence[Outcome], has: Callable[[Outcome], bool]
) -> list[Outcome]:
    """Return those of ``wanted`` that have something to show, each once, or the first of all."""
    found = {(one.run, one.data): one for one in wanted if has(one)}
    return list(found.values()) or [one for one in outcomes if has(one)][:1]


def first_splits(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the first outcome of each run."""
    first: dict[str, Outcome] = {}
    for outcome in outcomes:
        first.setdefault(outcome.run, outcome)
    return list(first.values())


def looks(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return the name of the CSS variable of each system, expert and part, one for the whole page.

    What is no known system takes the spare ones by name, from the first again when they run out.
    """
    names: set[str] = set()
    for outcome in outcomes:
        for bank in outcome.banks:
            names.update(bank.ap, bank.ap_by_week, bank.curve)
        for note in (*outcome.blends, *outcome.trust):
            names.update(system_of(name) for name in note.weights)
    spare = [name for name in COLOURS if name.startswith("other-")]
    unknown = sorted(names - set(SYSTEMS))
    return {name: name.replace("_", "-") for name in SYSTEMS} | {
        name: spare[i % len(spare)] for i, name in enumerate(unknown)
    }
