"""The evaluation of detection as one HTML file with its plots inside."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from deploy.detection.outcome import Outcome
from deploy.detection.report_bounds import Judged, held_rows, other_figures
from deploy.detection.report_choice import SYSTEMS, in_order, looks, prepared, stem
from deploy.detection.report_sections import sections
from deploy.detection.report_tables import data_lines, run_table
from deploy.detection.report_texts import RUNS

_COLD_LOOKS = {"cold": "amalgamated", "warm": "other-1"}


def write_report(outcomes: Sequence[Outcome], figures: Mapping[str, float], path: Path) -> None:
    """Write the report; the same bytes for the same outcomes and figures.

    Parameters
    ----------
    outcomes
        Of all runs and splits, in the order of the splits: plots are of the first that a run has.
    figures
        Name, see `deploy.detection.report_bounds.BOUNDS`, -> value; what was not measured is left
        out.
    path
        HTML file; folders on the way are made.

    Raises
    ------
    InvalidInputError
        If two outcomes are of the same run and data, weeks do not fit, or a figure is not finite.
    """
    named = prepared(outcomes)
    parts = sections(named, looks(named) | _COLD_LOOKS)
    rows = held_rows(figures)
    systems = in_order({name for one in named for bank in one.banks for name in bank.ap})
    html = (
        _environment()
        .get_template("detection.html.j2")
        .render(
            rows=rows,
            counts=_counted(row.value for row in rows),
            worst_counts=_counted(row.worst for row in rows),
            others=other_figures(figures),
            data=data_lines(named),
            systems=[SYSTEMS[name] for name in systems if name in SYSTEMS],
            sections=[part for part in parts if part.tables or part.plots],
            missing=[part for part in parts if not (part.tables or part.plots)],
            runs=run_table(named) if named else None,
            run_words=_run_words(named),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _run_words(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    names = dict.fromkeys(stem(outcome) for outcome in outcomes)
    return [(name, RUNS[name]) for name in names if name in RUNS]


def _counted(values: Iterable[Judged]) -> str:
    words = [value.word for value in values]
    return ", ".join(f"{words.count(word)} {word}" for word in ("met", "not met", "not measured"))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("deploy"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["own_svg"] = _own_svg
    return environment


def _own_svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704  # our own SVG, whose texts are escaped
