"""What the figures of detection are held to, and whether they keep it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from models.errors import InvalidInputError

WORST = "_worst"
"""Ends the name of a figure that is of the worst split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a figure is held to.

    Parameters
    ----------
    name
        Of the figure; with `WORST` at its end, of the worst split.
    limit
        The value that it must reach, itself included.
    at_least
        Whether larger is better; else smaller is.
    words
        What the figure means.
    """

    name: str
    limit: float
    at_least: bool = True
    words: str

    def is_met(self, value: float) -> bool:
        """Return whether a value keeps it."""
        return value >= self.limit if self.at_least else value <= self.limit


def _at_least(name: str, limit: float, words: str) -> Bound:
    return Bound(name=name, limit=limit, words=words)


BOUNDS: tuple[Bound, ...] = (
    _at_least(
        "all_scorecard_macro",
        0.99,
        "All banks run the scorecard: mean AP of the banks, as a share of one scorecard's on all "
        "data in one place (pooled).",
    ),
    _at_least("all_scorecard_worst_bank", 0.985, "The same at the bank that gets least of it."),
    _at_least(
        "mixed_worst_bank",
        0.985,
        "Every bank runs a model of another type beside the scorecard: AP as a share of pooled at "
        "the bank that gets least.",
    ),
    _at_least(
        "amalgamated_macro",
        1.003,
        "The whole product, with trees of the members in the common basis: mean AP over that of "
        "the pooled scorecard. Above 1 it finds more than that scorecard could.",
    ),
    _at_least(
        "amalgamated_vs_pooled_lightgbm",
        1.0,
        "The same over LightGBM on all data in one place.",
    ),
    _at_least(
        "paces_macro",
        0.985,
        "Banks publish at paces of their own, the slowest seldom: mean AP as a share of pooled.",
    ),
    _at_least(
        "probe_only_macro",
        0.94,
        "Banks that can run no model that merges and only answer the consortium's probes: mean AP "
        "as a share of pooled.",
    ),
    _at_least(
        "currency_loss_recovered",
        0.9,
        "A bank whose amounts are in an unknown unit: the share of the AP so lost that alignment "
        "by rank brings back.",
    ),
    _at_least(
        "cold_bank_day21",
        0.95,
        "A bank that joins without a history: AP 21 days later, as a share of the same bank's with "
        "one.",
    ),
    _at_least(
        "one_poisoner_honest",
        0.96,
        "One member lies: mean AP of the honest banks, as a share of what they get when nobody "
        "lies.",
    ),
    _at_least(
        "two_poisoners_worst_vs_local",
        1.0,
        "Two members lie together: AP over that of the bank alone, at the honest bank that fares "
        "worst.",
    ),
    Bound(
        name="defence_cost",
        limit=0.01,
        at_least=False,
        words="The share of AP that the defence costs while nobody lies.",
    ),
    _at_least(
        "foreign_worst_bank_vs_best_local",
        1.0,
        "Data of another world, hundreds of anonymous attributes: AP over that of the best model "
        "that the bank has alone, at the bank that fares worst.",
    ),
    _at_least(
        "foreign_gap_closed",
        0.8,
        "The same data: the share of the way from the best model alone to the best on all data "
        "that the consortium goes.",
    ),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A figure as it is shown.

    Parameters
    ----------
    number
        In digits; empty where it was not measured.
    sign, word
        The verdict, so that it needs no colour.
    """

    number: str
    sign: str
    word: str


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A row of the table of figures: over all splits, and of the worst."""

    name: str
    words: str
    held_to: str
    value: Judged
    worst: Judged


def held_rows(figures: Mapping[str, float]) -> list[HeldRow]:
    """Return every bound with what was measured.

    Raises
    ------
    InvalidInputError
        If a figure is not finite.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise InvalidInputError(f"figure {name}: expected a finite number, got {value}")
    return [
        HeldRow(
            bound.name,
            bound.words,
            f"{'≥' if bound.at_least else '≤'} {bound.limit:.3f}",
            judged(bound, figures.get(bound.name)),
            judged(bound, figures.get(bound.name + WORST)),
        )
        for bound in BOUNDS
    ]


def other_figures(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return name and number of the figures that no bound is for, by name."""
    held = {bound.name + end for bound in BOUNDS for end in ("", WORST)}
    return [(name, f"{figures[name]:.4g}") for name in sorted(set(figures) - held)]


def judged(bound: Bound, value: float | None) -> Judged:
    """Return a value with its verdict; its digits never contradict it.

    Examples
    --------
    >>> judged(BOUNDS[0], 0.98996)
    Judged(number='0.98996', sign='✗', word='not met')
    """
    if value is None:
        return Judged("", "–", "not measured")
    met = bound.is_met(value)
    shown = next(
        (text for text in (f"{value:.{k}f}" for k in range(3, 9)) if _says(bound, text) == met),
        repr(value),
    )
    return Judged(shown, "✓" if met else "✗", "met" if met else "not met")


def _says(bound: Bound, text: str) -> bool:
    return bound.is_met(float(text))
