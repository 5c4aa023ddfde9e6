"""Plots of the detection report: small panels that a page sets side by side or one above another.

Lines have no legend inside; `key_of` draws a line's sample for the page's own legend.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, MaxNLocator, StrMethodFormatter

from deploy.chart_style import COLOURS, INK, LINES, STYLE, svg
from deploy.detection.outcome import BankOutcome, DriftNote, Outcome, WeightNote
from deploy.detection.report_choice import in_order, system_of

_PANEL = (3.5, 2.3)
_WIDE_IN = 5.0
_WEEK_D = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_NAME = 18
_SETTLED_D, _SETTLED = 21, 0.95
MARKERS = (
    ("o", "●", "other-3"),
    ("^", "▲", "other-2"),
    ("s", "■", "other-4"),
    ("D", "◆", "other-1"),
)
"""Matplotlib's marker, the same as text, and its colour."""
Looks = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot with a caption."""

    title: str
    svg: str


def key_of(look: str) -> str:
    """Return a short sample of a line as SVG, for a legend beside it."""
    line = LINES[look]
    width = line["linewidth"]
    dashes = (
        ""
        if line["linestyle"] == "-"
        else " ".join(f"{part * width:g}" for part in line["linestyle"][1])
    )
    return (
        '<svg class="key" viewBox="0 0 34 8" aria-hidden="true"><path d="M1 4H33" '
        f'style="stroke: var(--{look}); stroke-width: {width:g}; stroke-dasharray: '
        f'{dashes or "none"}; opacity: {line.get("alpha", 1)}"/></svg>'
    )


def recall_panel(bank: BankOutcome, looks: Looks, name: str) -> Panel:
    """Return precision against recall of a bank's systems."""
    with rc_context(STYLE):
        figure, ax = _new(_PANEL)
        for system in in_order(bank.curve):
            recall, precision = np.array(bank.curve[system]).reshape(-1, 2).T
            _line(ax, looks[system], recall, precision)
        ax.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        told = _told_ap(bank.ap, bank.curve)
        return Panel(bank.name, svg(figure, name, f"Precision against recall, {bank.name}: {told}"))


def week_panels(outcome: Outcome, looks: Looks, name: str) -> list[Panel]:
    """Return average precision by week: the mean of the banks, then each bank."""
    panels = [
        _week_panel("mean of the banks", _mean_weeks(outcome), outcome, looks, f"{name}-mean")
    ]
    for i, bank in enumerate(outcome.banks):
        weeks = {
            system: np.array([np.nan if ap is None else ap for ap in found])
            for system, found in bank.ap_by_week.items()
        }
        panels.append(_week_panel(bank.name, weeks, outcome, looks, f"{name}-{i}"))
    return panels


def _mean_weeks(outcome: Outcome) -> dict[str, np.ndarray]:
    """Return each system's mean over the banks that had a fraud in the week, NaN where none had."""
    found: dict[str, np.ndarray] = {}
    for system in {system for bank in outcome.banks for system in bank.ap_by_week}:
        each = np.array(
            [
                [np.nan if ap is None else ap for ap in bank.ap_by_week[system]]
                for bank in outcome.banks
                if system in bank.ap_by_week
            ]
        )
        n_known = np.count_nonzero(~np.isnan(each), axis=0)
        sums = np.nansum(each, axis=0)
        found[system] = np.where(n_known > 0, sums / np.maximum(n_known, 1), np.nan)
    return found


def _week_panel(
    title: str, weeks: Mapping[str, np.ndarray], outcome: Outcome, looks: Looks, name: str
) -> Panel:
    middle = np.array(outcome.weeks) + _WEEK_D / 2
    with rc_context(STYLE):
        figure, ax = _new(_PANEL)
        for system in in_order(weeks):
            _line(ax, looks[system], middle, weeks[system])
            single = _alone(weeks[system])
            ax.plot(
                middle[single], weeks[system][single], ".", color=COLOURS[looks[system]], zorder=3
            )
        ax.set(ylim=(0, 1.02), ylabel="average precision")
        _dates(ax)
        label = f"Average precision of each of {len(middle)} weeks, {title}"
        return Panel(title, svg(figure, name, label))


def _alone(values: np.ndarray) -> np.ndarray:
    """Return which values have a gap on both sides, so that no line shows them."""
    known = np.concatenate([[False], ~np.isnan(values), [False]])
    alone: np.ndarray = known[1:-1] & ~known[:-2] & ~known[2:]
    return alone


def weight_panels(
    notes: Sequence[WeightNote], banks: Sequence[str], looks: Looks, name: str, what: str
) -> list[Panel]:
    """Return weights over time, a panel for each bank with notes; steps to the last day of all."""
    last = max(note.day for note in notes)
    weights = [0.0, 1.0, *(weight for note in notes for weight in note.weights.values())]
    return [
        _weight_panel(
            [note for note in notes if note.bank == bank],
            looks,
            f"{name}-{i}",
            what,
            limits=(min(note.day for note in notes), last, min(weights), max(weights)),
        )
        for i, bank in enumerate(with_notes(notes, banks))
    ]


def with_notes(notes: Sequence[WeightNote | DriftNote], banks: Sequence[str]) -> list[str]:
    """Return the banks that have notes, in the order given, those not given last."""
    noted = {note.bank for note in notes}
    return [bank for bank in banks if bank in noted] + sorted(noted - set(banks))


def _weight_panel(
    notes: Sequence[WeightNote],
    looks: Looks,
    name: str,
    what: str,
    *,
    limits: tuple[int, int, float, float],
) -> Panel:
    first, last, low, top = limits
    notes = sorted(notes, key=lambda note: note.day)
    days = np.array([*(note.day for note in notes), last], float)
    ends: list[str] = []
    with rc_context(STYLE):
        figure, ax = _new(_PANEL)
        for expert in in_order({system_of(key) for note in notes for key in note.weights}):
            weights = [_weight(note, expert) for note in notes]
            _line(ax, looks[expert], days, [*weights, weights[-1]], drawstyle="steps-post")
            ends.append(f"{expert} {weights[-1]:.2f}")
        margin = 0.05 * (top - low)
        ax.set(
            ylabel="weight", ylim=(low - margin, top + margin), xlim=(first, max(last, first + 1))
        )
        _dates(ax)
        title = f"{what}, {notes[0].bank}; at the end: {', '.join(ends)}"
        return Panel(notes[0].bank, svg(figure, name, title))


def _weight(note: WeightNote, expert: str) -> float:
    """Return a weight, NaN where the note has none."""
    return next((w for key, w in note.weights.items() if system_of(key) == expert), np.nan)


def basis_panels(outcome: Outcome, name: str) -> list[Panel]:
    """Return the number of weights and of trees of the bases in force."""
    bases = sorted(outcome.bases)
    days = [day for day, _, _, _ in bases]
    panels = []
    for title, values in (
        ("weights of the basis", [weights for _, _, weights, _ in bases]),
        ("trees in the basis", [trees for _, _, _, trees in bases]),
    ):
        with rc_context(STYLE):
            figure, ax = _new(_PANEL)
            ax.plot(
                days, values, "o-", color=COLOURS["amalgamated"], drawstyle="steps-post",
                markersize=4, clip_on=False,
            )  # fmt: skip
            ax.set(ylim=(0, max(*values, 1) * 1.1), ylabel="number")
            ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            _dates(ax)
            label = f"{title}: {values[0]:,} with the first, {values[-1]:,} with the last"
            panels.append(Panel(title, svg(figure, f"{name}-{title.split()[0]}", label)))
    return panels


def cold_panels(outcome: Outcome, looks: Looks, name: str) -> list[Panel]:
    """Return average precision of a bank that joined, beside the same bank warm, and the share."""
    days = np.array([day for day, _, _ in outcome.cold])
    cold = np.array([np.nan if ap is None else ap for _, ap, _ in outcome.cold])
    warm = np.array([np.nan if ap is None else ap for _, _, ap in outcome.cold])
    share = np.divide(cold, warm, out=np.full(len(warm), np.nan), where=warm > 0)
    panels: list[Panel] = []
    with rc_context(STYLE):
        for title, top, lines in (
            ("average precision", 1.02, (("warm", warm), ("cold", cold))),
            ("cold as a share of warm", max(1.1, float(np.nanmax([*share, 0.0])) + 0.05),
             (("cold", share),)),
        ):  # fmt: skip
            figure, ax = _new(_PANEL)
            ax.axvline(_SETTLED_D, color=INK, linewidth=0.8)
            if lines[0][1] is share:
                ax.axhline(_SETTLED, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
            for which, values in lines:
                _line(ax, looks[which], days, values, marker="o", markersize=3.5, clip_on=False)
            ax.set(xlabel="days since joining", ylabel=title, ylim=(0, top), xlim=(0, None))
            label = f"A bank that joined cold by days since joining: {title}"
            panels.append(Panel(title, svg(figure, f"{name}-{len(panels)}", label)))
    return panels


def drift_plot(notes: Sequence[DriftNote], banks: Sequence[str], name: str) -> Panel:
    """Return alarms in time: a row for each bank, a marker for each kind."""
    kinds = sorted({note.kind for note in notes})
    with rc_context(STYLE | {"font.size": 10}):
        figure, ax = _new((_WIDE_IN, 0.34 * len(banks) + 0.9))
        for k, kind in enumerate(kinds):
            marker, _, colour = MARKERS[k % len(MARKERS)]
            found = [note for note in notes if note.kind == kind]
            shift = 0.3 * ((k + 0.5) / len(kinds) - 0.5)
            rows = [banks.index(note.bank) + shift for note in found]
            ax.plot(
                [note.day for note in found], rows, marker, color=COLOURS[colour],
                markersize=5, alpha=0.75, markeredgewidth=0,
            )  # fmt: skip
        ax.set_yticks(range(len(banks)), [_short(bank) for bank in banks], parse_math=False)
        ax.set_ylim(len(banks) - 0.4, -0.6)
        ax.grid(visible=False, axis="x")
        ax.tick_params(axis="y", length=0)
        _dates(ax)
        counted = ", ".join(f"{sum(note.kind == kind for note in notes)} {kind}" for kind in kinds)
        return Panel("alarms", svg(figure, name, f"Alarms of drift by bank and day: {counted}"))


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def _told_ap(ap: Mapping[str, float], shown: Mapping[str, object]) -> str:
    told = [f"{system} {ap[system]:.3f}" for system in in_order(shown) if system in ap]
    return f"average precision {', '.join(told)}" if told else "no average precision"


def _new(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _line(ax: Axes, look: str, x: object, y: object, **settings: object) -> None:
    ax.plot(x, y, color=COLOURS[look], **(LINES[look] | settings))  # type: ignore[arg-type]


def _dates(ax: Axes) -> None:
    """Mark the days since 1970 of an axis as dates."""
    ax.xaxis.set_major_locator(AutoDateLocator(minticks=2, maxticks=4))  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_formatter(_DayFormatter())


class _DayFormatter(Formatter):
    """Day and month, with the year below where it is first met."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return one label."""
        del pos
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Return the labels of an axis."""
        days = [_EPOCH + timedelta(days=float(value)) for value in values]
        return [
            f"{day.day} {day:%b}" + ("" if before and before.year == day.year else f"\n{day.year}")
            for before, day in zip([None, *days], days, strict=False)
        ]
