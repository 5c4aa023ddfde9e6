"""One look for the plots of all reports: colours, lines, and a plot as inline SVG.

Plots take the page's colours: what is drawn in a stand-in colour of `_CSS` comes out as a CSS
variable of `templates/look.css.j2`, so that one plot serves light, dark and paper. A system has the
same colour and the same line everywhere, and no two differ in colour alone.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FRAME, SHADE = "#010101", "#020202", "#030303"
COLOURS: Mapping[str, str] = {
    "local": "#0a0101",
    "amalgamated": "#0a0202",
    "pooled": "#0a0303",
    "merged": "#0a0404",
    "lightgbm": "#0a0505",
    "pooled-lightgbm": "#0a0606",
    "local-lightgbm": "#0a0d0d",
    "other-1": "#0a0707",
    "other-2": "#0a0808",
    "other-3": "#0a0909",
    "other-4": "#0a0a0a",
    "other-5": "#0a0b0b",
    "other-6": "#0a0c0c",
}
"""Name of a CSS variable -> its stand-in; ``other-N`` are for what no system has."""
_CSS = {
    INK: "var(--ink)",
    FRAME: "var(--frame)",
    SHADE: "var(--shade)",
    **{colour: f"var(--{name})" for name, colour in COLOURS.items()},
}
LINES: Mapping[str, dict[str, Any]] = {
    "local": {"linestyle": (0, (4, 2)), "linewidth": 1.4},
    "amalgamated": {"linestyle": "-", "linewidth": 2.2},
    "pooled": {"linestyle": "-", "linewidth": 6.0, "alpha": 0.35, "zorder": 1.5},
    "merged": {"linestyle": (0, (1, 1)), "linewidth": 1.8},
    "lightgbm": {"linestyle": (0, (6, 2, 1, 2)), "linewidth": 1.4},
    "pooled-lightgbm": {"linestyle": (0, (8, 3)), "linewidth": 1.2},
    "local-lightgbm": {"linestyle": (0, (3, 1.5)), "linewidth": 1.8},
    "other-1": {"linestyle": "-", "linewidth": 1.3},
    "other-2": {"linestyle": (0, (5, 2)), "linewidth": 1.6},
    "other-3": {"linestyle": (0, (2, 1.5)), "linewidth": 1.6},
    "other-4": {"linestyle": (0, (5, 1, 1, 1, 1, 1)), "linewidth": 1.6},
    "other-5": {"linestyle": (0, (9, 2)), "linewidth": 1.6},
    "other-6": {"linestyle": (0, (1, 2)), "linewidth": 2.2},
}
"""Matplotlib's settings of each line."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "amalgam",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.edgecolor": FRAME,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": FRAME,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "xtick.color": FRAME,
    "ytick.color": FRAME,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
"""Matplotlib's settings under which all plots are drawn."""


def svg(figure: Figure, name: str, title: str) -> str:
    """Return the plot as an SVG element without addresses, the same bytes for the same plot.

    Parameters
    ----------
    figure
        Drawn under `STYLE`.
    name
        Stands before all ids, so that they are distinct on a page whose plots have distinct names.
    title
        What the plot shows, for who hears the page.
    """
    FigureCanvasSVG(figure)
    sink = io.StringIO()
    figure.savefig(
        sink, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', "<svg", text)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)  # ids are the whole page's
    for colour, variable in _CSS.items():
        text = text.replace(colour, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
