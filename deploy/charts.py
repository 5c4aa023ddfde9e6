"""The back-test report's plots as inline SVG."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from deploy.backtest import BacktestResult
from deploy.chart_style import COLOURS, FRAME, INK, LINES, SHADE, STYLE, svg
from deploy.feature_words import feature_words
from deploy.figures import SYSTEMS
from models.evaluation import ap_over_time, precision_recall_curve

_WEEK_D = 7
_DAY_MS = 86_400_000
_SHOWN = ("local", "amalgamated", "pooled")
_EXPERTS = {"own": ("local", "own scorecard"), "merged": ("amalgamated", "merged scorecard")}
_DASHES = ((0, (1, 1.5)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))  # of families, by name


def recall_curves(result: BacktestResult) -> str:
    """Return a precision-recall plot for each bank."""
    n = len(result.banks)
    n_columns = min(n, 3)
    n_rows = -(-n // n_columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 2.5 * n_rows + 0.4), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
        for i, ax in enumerate(axes.flat):
            if i < n:
                _draw_recall(ax, result, i)
                ax.tick_params(labelbottom=i + n_columns >= n)
            else:
                ax.set_axis_off()
        drawn = [ax for ax in axes.flat if ax.get_legend_handles_labels()[0]]
        if drawn:
            drawn[0].legend(loc="lower left")
        figure.supxlabel("recall", fontsize=9)
        figure.supylabel("precision", fontsize=9)
        return svg(figure, "recall", "Precision against recall of each bank")


def _draw_recall(ax: Axes, result: BacktestResult, bank: int) -> None:
    rows = np.flatnonzero((result.bank == bank) & result.evaluated)
    for name in _SHOWN:
        scores = getattr(result, name)[rows]
        curve = precision_recall_curve(result.is_fraud[rows], scores, n_points=150)
        if curve is not None:
            _draw_line(ax, name, curve.recall, curve.precision)
    ax.set(xlim=(0, 1.01), ylim=(0, 1.02))
    ax.set_title(result.banks[bank], parse_math=False)


def weekly_precision(result: BacktestResult) -> str:
    """Return average precision by week, the mean of the banks that had a fraud in it.

    The evaluated days are shaded, and each new basis is a line.
    """
    days = result.event_ms[result.evaluated]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 2.8), layout="constrained")
        ax = figure.subplots()
        if len(days):
            ax.axvspan(_day(days.min()), _day(days.max()), color=SHADE, linewidth=0)
        for note in result.releases:
            ax.axvline(_day(note.since_ms), color=FRAME, linewidth=1.0)
        for name in _SHOWN:
            start, precision = _weeks(result, name)
            _draw_line(ax, name, start, precision)
        ax.set(ylabel="average precision", ylim=(0, 1))
        ax.xaxis_date()
        ax.legend(loc="lower right")
        return svg(figure, "weekly", "Average precision week by week")


def _weeks(result: BacktestResult, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the middle of each whole week, and the banks' mean, NaN where no bank had a fraud."""
    start_ms = int(result.event_ms.min()) // _DAY_MS * _DAY_MS
    n_days = int(result.event_ms.max() - start_ms) // _DAY_MS + 1
    n = max(n_days // _WEEK_D, 1)
    found = np.full((len(result.banks), n), np.nan)
    for i in range(len(result.banks)):
        rows = np.flatnonzero(result.bank == i)
        weeks = ap_over_time(
            result.is_fraud[rows],
            getattr(result, name)[rows],
            result.event_ms[rows],
            period_d=_WEEK_D,
            start_ms=start_ms,
        )
        for week, score in enumerate(weeks[:n]):
            if score.average_precision is not None:
                found[i, week] = score.average_precision
    n_known = np.count_nonzero(~np.isnan(found), axis=0)
    mean = np.where(n_known > 0, np.nansum(found, axis=0) / np.maximum(n_known, 1), np.nan)
    middle = _day(start_ms) + _WEEK_D * (np.arange(n, dtype=np.float64) + 0.5)
    return middle, np.asarray(mean, dtype=np.float64)


def blend_weights(result: BacktestResult) -> str:
    """Return the weight that each bank gave to each of its experts, by day; one key for a name."""
    found = {name for note in result.blends for name in note.experts}
    styles = _expert_styles(sorted(found - _EXPERTS.keys()))
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 2.2), layout="constrained")
        ax = figure.subplots()
        for expert, (words, style) in styles.items():
            label: str | None = words
            for bank in range(len(result.banks)):
                days, weights = _weights_of(result, bank, expert)
                if len(days):
                    ax.plot(days, weights, label=label, **style)
                    label = None
        ax.set(ylabel="weight")
        ax.xaxis_date()
        if styles and result.blends:
            ax.legend(loc="center right")
        return svg(figure, "blend", "Weights of the experts in each bank's blend")


def _expert_styles(families: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return words and line of each expert: the scorecards in colour, families in dashes of ink."""
    styles = {
        expert: (words, LINES[name] | {"linewidth": 1.0, "color": COLOURS[name]})
        for expert, (name, words) in _EXPERTS.items()
    }
    for i, family in enumerate(families):
        dashes = _DASHES[i % len(_DASHES)]
        styles[family] = (family, {"linestyle": dashes, "linewidth": 1.0, "color": INK})
    return styles


def _weights_of(
    result: BacktestResult, bank: int, expert: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return days, and an expert's weights on them; empty where the bank has no such expert."""
    notes = [note for note in result.blends if note.bank == bank and expert in note.experts]
    days = np.array([_day(note.day_ms) for note in notes])
    return days, np.array([note.weights[note.experts.index(expert)] for note in notes])


def reasons_chart(result: BacktestResult, n: int = 12) -> str:
    """Return what was most often a reason of an alert, as a share of the alerts."""
    n_alerts = max(int(np.count_nonzero(result.alert)), 1)
    top: Sequence[tuple[str, int]] = result.reasons.most_common(n)[::-1]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.27 * max(len(top), 2) + 0.6), layout="constrained")
        ax = figure.subplots()
        words = [feature_words(code) for code, _ in top]
        ax.barh(words, [count / n_alerts for _, count in top], color=COLOURS["amalgamated"])
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
        ax.set_xlabel("share of alerts in which it spoke for fraud")
        return svg(figure, "reasons", "Most frequent reasons of alerts")


def _draw_line(ax: Axes, name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    ax.plot(x, y, color=COLOURS[name], label=SYSTEMS[name], **LINES[name])


def _day(time_ms: float) -> float:
    """Return matplotlib's date: days since 1970."""
    return float(time_ms) / _DAY_MS
