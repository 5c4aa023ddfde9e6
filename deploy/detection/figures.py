"""From outcomes to figures by name.

Ratios of a split are to the pooled scorecard of the same split, over the same rows. A figure is the
mean over the splits; ``<name>_worst`` is that of the worst split. A figure for which a run is
missing, or which has no value on some split, is left out and named.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from deploy.detection.outcome import BankOutcome, Outcome
from models.errors import InvalidInputError

Outcomes = Mapping[str, Outcome]
"""Name of a run -> outcome, of one source of rows."""
Pair = tuple[float, float]


class NoFigureError(InvalidInputError):
    """A figure has no value here; the message says why."""


@dataclass(slots=True)
class Figures:
    """Figures by name, and what was left out: name -> why."""

    values: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Figure:
    """How a figure is made of the outcomes of some runs; the worst split has the least, or most.

    One that is extra is not missed where its runs were not named.
    """

    runs: tuple[str, ...]
    value: Callable[..., float]
    is_cost: bool = False
    is_extra: bool = False


def detection_figures(
    outcomes: Iterable[Outcome], *, splits: Sequence[str], sources: Sequence[str]
) -> Figures:
    """Return all figures that outcomes allow.

    Parameters
    ----------
    outcomes
        Of all runs.
    splits
        Names of the splits of one file; their figures are averaged.
    sources
        Names of other sources, whose figures carry the name.
    """
    by_source: dict[str, dict[str, Outcome]] = {}
    for outcome in outcomes:
        by_source.setdefault(outcome.data, {})[outcome.run] = outcome
    found = Figures()
    if splits:
        _add_split_figures(found, {name: by_source.get(name, {}) for name in splits})
    for name in sources:
        for suffix, figure in _SOURCE_FIGURES.items():
            renamed = _Figure(tuple(f"{name}_{run}" for run in figure.runs), figure.value)
            there = by_source.get(name, {})
            if figure.is_extra and not there.keys() >= set(renamed.runs):
                continue
            try:
                found.values[f"{name}_{suffix}"] = _value(renamed, there)
            except NoFigureError as error:
                found.left_out[f"{name}_{suffix}"] = f"{name}: {error}"
    return found


def _add_split_figures(found: Figures, by_split: Mapping[str, Outcomes]) -> None:
    for name, figure in _SPLIT_FIGURES.items():
        values, missing = [], []
        for split, outcomes in by_split.items():
            try:
                values.append(_value(figure, outcomes))
            except NoFigureError as error:
                missing.append(f"{split}: {error}")
        if missing:
            found.left_out[name] = "; ".join(missing)
        else:
            found.values[name] = float(np.mean(values))
            found.values[f"{name}_worst"] = max(values) if figure.is_cost else min(values)


def _value(figure: _Figure, outcomes: Outcomes) -> float:
    missing = [run for run in figure.runs if run not in outcomes]
    if missing:
        raise NoFigureError(f"no outcome of {', '.join(missing)}")
    return figure.value(*(outcomes[run] for run in figure.runs))


def _pairs(
    first: tuple[Outcome, str], second: tuple[Outcome, str], without: Sequence[str] = ()
) -> list[Pair]:
    """Return both average precisions of each bank that is not left out.

    Raises
    ------
    NoFigureError
        If the two are of other rows, or a system has no average precision at a bank with frauds.
    """
    pairs = [
        (_ap(first[0], mine, first[1]), _ap(second[0], other, second[1]))
        for mine, other in _same_rows(first[0], second[0])
        if mine.name not in without
    ]
    if not pairs:
        raise NoFigureError("expected frauds at some bank that counts, got none")
    return pairs


def _same_rows(first: Outcome, second: Outcome) -> list[tuple[BankOutcome, BankOutcome]]:
    """Return both sides of each bank with frauds; refuse two that are of other rows."""
    others = {bank.name: bank for bank in second.banks}
    found = []
    for bank in first.banks:
        other = others.get(bank.name)
        if other is None or (bank.n, bank.n_frauds) != (other.n, other.n_frauds):
            raise NoFigureError(
                f"{first.run} and {second.run}: expected the same rows at {bank.name}"
            )
        if bank.n_frauds:
            found.append((bank, other))
    return found


def _ap(outcome: Outcome, bank: BankOutcome, system: str) -> float:
    if system not in bank.ap:
        raise NoFigureError(f"{outcome.run}: no average precision of {system!r} at {bank.name}")
    return bank.ap[system]


def _of_macros(pairs: Sequence[Pair]) -> float:
    """Return the ratio of the means over banks."""
    first, second = np.mean(pairs, axis=0).tolist()
    return float(first / second)


def _of_worst(pairs: Sequence[Pair]) -> float:
    """Return the least of the banks' ratios."""
    return min(first / second for first, second in pairs)


def _macro(system: str) -> Callable[[Outcome], float]:
    """Return what gives the mean over banks of a system's average precision."""

    def macro(run: Outcome) -> float:
        return float(np.mean([first for first, _ in _pairs((run, system), (run, system))]))

    return macro


def _macro_to_pooled(run: Outcome, pooled: Outcome) -> float:
    return _of_macros(_pairs((run, "blend"), (pooled, "pooled")))


def _worst_to_pooled(run: Outcome, pooled: Outcome) -> float:
    return _of_worst(_pairs((run, "blend"), (pooled, "pooled")))


def _to_lightgbm(run: Outcome, lightgbm: Outcome) -> float:
    return _of_macros(_pairs((run, "blend"), (lightgbm, "lightgbm")))


def _loss_recovered(known: Outcome, unaligned: Outcome, aligned: Outcome) -> float:
    """Return what alignment gives back of what a wrong unit or scale costs the bank in question."""
    banks = set(unaligned.subjects)
    if not banks or banks != set(aligned.subjects):
        raise NoFigureError("expected one bank in another unit or scale in both runs")
    others = [bank.name for bank in known.banks if bank.name not in banks]
    return _recovered(known, unaligned, aligned, others)


def _loss_recovered_by_all(known: Outcome, unaligned: Outcome, aligned: Outcome) -> float:
    """Return the same of all banks: wrong amounts of one spoil the statistics of all."""
    return _recovered(known, unaligned, aligned, ())


def _recovered(
    known: Outcome, unaligned: Outcome, aligned: Outcome, left_out: Sequence[str]
) -> float:
    without, lost, kept = (
        float(np.mean([ap for ap, _ in _pairs((run, "blend"), (known, "blend"), left_out)]))
        for run in (known, unaligned, aligned)
    )
    if not without > lost:
        raise NoFigureError("the other unit or scale cost nothing")
    return (kept - lost) / (without - lost)


def _cold_settled(cold: Outcome) -> float:
    figures = cold.figures
    if not {"cold_settled", "warm_settled"} <= figures.keys():
        raise NoFigureError(f"{cold.run}: no rows three weeks after it joined")
    return figures["cold_settled"] / figures["warm_settled"]


def _honest_to_clean(attacked: Outcome, clean: Outcome) -> float:
    return _of_macros(_pairs((attacked, "blend"), (clean, "blend"), attacked.subjects))


def _honest_to_own(attacked: Outcome) -> float:
    return _of_worst(_pairs((attacked, "blend"), (attacked, "own"), attacked.subjects))


def _cost(defended: Outcome, clean: Outcome) -> float:
    return 1.0 - _of_macros(_pairs((defended, "blend"), (clean, "blend")))


def _best_alone(local: Outcome, run: Outcome) -> dict[str, float]:
    """Return bank -> average precision of its own LightGBM or scorecard, whichever is better."""
    alone: dict[str, float] = {}
    for mine, other in _same_rows(local, run):
        found = [mine.ap.get("lightgbm"), other.ap.get("own")]
        known = [ap for ap in found if ap is not None]
        if not known:
            raise NoFigureError(f"nothing of its own scores at {mine.name}")
        alone[mine.name] = max(known)
    if not alone:
        raise NoFigureError("expected frauds at some bank, got none")
    return alone


def _blend(run: Outcome, banks: Iterable[str]) -> list[float]:
    by_name = {bank.name: bank for bank in run.banks}
    return [_ap(run, by_name[name], "blend") for name in banks]


def _worst_to_local(run: Outcome, local: Outcome) -> float:
    alone = _best_alone(local, run)
    return _of_worst(list(zip(_blend(run, alone), alone.values(), strict=True)))


def _best_local(local: Outcome, run: Outcome) -> float:
    return float(np.mean([*_best_alone(local, run).values()]))


def _gap_closed(run: Outcome, local: Outcome, pooled: Outcome) -> float:
    """Return how far from the best alone to LightGBM on pooled data the consortium comes."""
    alone = _best_local(local, run)
    together = [second for _, second in _pairs((run, "blend"), (pooled, "lightgbm"))]
    gap = float(np.mean(together)) - alone
    if not gap > 0.0:
        raise NoFigureError("pooled data gain nothing")
    return (_macro("blend")(run) - alone) / gap


_SPLIT_FIGURES: Mapping[str, _Figure] = {
    "all_scorecard_macro": _Figure(("all_scorecard", "pooled"), _macro_to_pooled),
    "all_scorecard_worst_bank": _Figure(("all_scorecard", "pooled"), _worst_to_pooled),
    "mixed_worst_bank": _Figure(("mixed", "pooled"), _worst_to_pooled),
    "amalgamated_macro": _Figure(("amalgamated", "pooled"), _macro_to_pooled),
    "amalgamated_vs_pooled_lightgbm": _Figure(("amalgamated", "pooled_lightgbm"), _to_lightgbm),
    "paces_macro": _Figure(("paces", "pooled"), _macro_to_pooled),
    "probe_only_macro": _Figure(("probe_only", "pooled"), _macro_to_pooled),
    "currency_loss_recovered": _Figure(
        ("all_scorecard", "currency_unaligned", "currency_aligned"), _loss_recovered
    ),
    "currency_loss_recovered_by_all": _Figure(
        ("all_scorecard", "currency_unaligned", "currency_aligned"), _loss_recovered_by_all
    ),
    "cold_bank_day21": _Figure(("cold",), _cold_settled),
    "one_poisoner_honest": _Figure(("one_poisoner", "clean_undefended"), _honest_to_clean),
    "two_poisoners_worst_vs_local": _Figure(("two_poisoners",), _honest_to_own),
    "defence_cost": _Figure(("all_scorecard", "clean_undefended"), _cost, is_cost=True),
    "alone_ap": _Figure(("all_scorecard",), _macro("own")),
    "pooled_ap": _Figure(("pooled",), _macro("pooled")),
    "pooled_lightgbm_ap": _Figure(("pooled_lightgbm",), _macro("lightgbm")),
    "amalgamated_ap": _Figure(("amalgamated",), _macro("blend")),
}
_SOURCE_FIGURES: Mapping[str, _Figure] = {
    "worst_bank_vs_best_local": _Figure(("amalgamated", "local_lightgbm"), _worst_to_local),
    "gap_closed": _Figure(("amalgamated", "local_lightgbm", "pooled_lightgbm"), _gap_closed),
    "best_local_ap": _Figure(("local_lightgbm", "amalgamated"), _best_local),
    "pooled_lightgbm_ap": _Figure(("pooled_lightgbm",), _macro("lightgbm")),
    "amalgamated_ap": _Figure(("amalgamated",), _macro("blend")),
    "scale_loss_recovered": _Figure(
        ("all_scorecard", "scales_unaligned", "scales_aligned"), _loss_recovered, is_extra=True
    ),
}
