"""The benchmark's plot: processor time of a record, ours and the others'."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_OURS, _THEIRS = "#1f5fa8", "#9aa4af"
CONTESTANTS = {
    "floor": "aiokafka alone, no-op",
    "transport": "amalgam's transport, no-op",
    "quix_json_noop": "Quix Streams, JSON, no-op",
    "faust_stock_noop": "stock Faust, no-op",
    "job": "amalgam, the whole job",
    "job_renewed": "amalgam, with releases each 5 s",
    "quix_river": "Quix Streams + river, a like job",
}
_OWN = frozenset({"transport", "job", "job_renewed"})
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "amalgam", "font.size": 10}


def draw_speed(figures: Mapping[str, float], path: Path) -> None:
    """Write bars of processor microseconds a record, on a logarithmic scale, as SVG."""
    known = [name for name in CONTESTANTS if f"{name}_us_per_tx" in figures]
    known.sort(key=lambda name: -figures[f"{name}_us_per_tx"])
    values = [figures[f"{name}_us_per_tx"] for name in known]
    with rc_context(_STYLE):  # type: ignore[arg-type]  # names of settings, known to matplotlib
        figure = Figure(figsize=(8.0, 0.46 * len(known) + 1.1), layout="constrained")
        FigureCanvasSVG(figure)
        ax = figure.subplots()
        bars = ax.barh(
            [CONTESTANTS[name] for name in known],
            values,
            color=[_OURS if name in _OWN else _THEIRS for name in known],
            height=0.66,
        )
        ax.bar_label(bars, labels=[f"{value:,.1f}" for value in values], padding=4)
        ax.set_xscale("log")
        ax.set_xlim(0.5, max(values) * 2.2)
        ax.set_xlabel("processor microseconds a record (logarithmic)")
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
