"""The report's plots as inline SVG."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from deploy.backtest import BacktestResult
from deploy.figures import SYSTEMS
from models.evaluation import ap_over_time, precision_recall_curve

COLOURS = {"local": "#9a6b3f", "merged": "#7a8f3c", "amalgamated": "#1f6f8b", "pooled": "#444444"}
STYLES = {"local": ":", "merged": "-.", "amalgamated": "-", "pooled": "--"}
_SHOWN = ("local", "amalgamated", "pooled")
_TEXT = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "amalgam"}


def _svg(figure: Figure) -> str:
    """Return the plot as an SVG element, the same bytes for the same plot."""
    FigureCanvasSVG(figure)
    sink = io.StringIO()
    with rc_context(_TEXT):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]


def _figure(n_columns: int, n_rows: int, height: float) -> Figure:
    with rc_context(_TEXT):
        return Figure(figsize=(2.6 * n_columns + 0.6, height * n_rows), layout="constrained")


def recall_curves(result: BacktestResult) -> str:
    """Return a precision-recall plot for each bank."""
    n = len(result.banks)
    columns = min(n, 3)
    rows = -(-n // columns)
    figure = _figure(columns, rows, 2.6)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for i, ax in enumerate(axes.flat):
        if i >= n:
            ax.set_axis_off()
            continue
        chosen = np.flatnonzero((result.bank == i) & result.evaluated)
        for name in _SHOWN:
            curve = precision_recall_curve(
                result.is_fraud[chosen], getattr(result, name)[chosen], n_points=150
            )
            if curve is not None:
                ax.plot(
                    curve.recall,
                    curve.precision,
                    STYLES[name],
                    color=COLOURS[name],
                    label=SYSTEMS[name],
                )
        ax.set_title(result.banks[i])
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.grid(alpha=0.25)
    axes[0, 0].legend(frameon=False, loc="lower left")
    figure.supxlabel("recall")
    figure.supylabel("precision")
    return _svg(figure)


def weekly_precision(result: BacktestResult) -> str:
    """Return average precision by week, macro mean over banks."""
    figure = _figure(3, 1, 2.8)
    ax = figure.subplots()
    start_ms = int(result.event_ms.min())
    for name in _SHOWN:
        by_bank = []
        for i in range(len(result.banks)):
            rows = np.flatnonzero(result.bank == i)
            weeks = ap_over_time(
                result.is_fraud[rows],
                getattr(result, name)[rows],
                result.event_ms[rows],
                start_ms=start_ms,
            )
            by_bank.append([np.nan if w.average_precision is None else w.average_precision for w in weeks])
        n = min(len(weeks) for weeks in by_bank)
        mean = np.array([weeks[:n] for weeks in by_bank]).mean(axis=0)
        ax.plot(_dates(start_ms, n), mean, STYLES[name], color=COLOURS[name], label=SYSTEMS[name])
    for note in result.releases:
        if note.basis:
            ax.axvline(_date(note.day_ms), color="#bbbbbb", linewidth=0.8, zorder=0)
    ax.set_ylabel("average precision, mean of banks")
    ax.set_ylim(0, 1)
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    return _svg(figure)


def reasons_chart(result: BacktestResult, n: int = 15) -> str:
    """Return the features that were most often a reason of an alert."""
    top: Sequence[tuple[str, int]] = sorted(result.reasons.items(), key=lambda item: -item[1])[:n]
    figure = _figure(3, 1, 0.3 * max(len(top), 2) + 0.6)
    ax = figure.subplots()
    ax.barh([name for name, _ in reversed(top)], [count for _, count in reversed(top)], color="#1f6f8b")
    ax.set_xlabel("alerts in which it was a reason towards fraud")
    return _svg(figure)


def _date(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1_000, UTC)


def _dates(start_ms: int, n: int) -> list[datetime]:
    return [_date(start_ms + week * 7 * 86_400_000) for week in range(n)]
