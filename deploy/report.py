"""The back-test's report: one HTML file with its plots inside."""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from deploy.backtest import BacktestResult
from deploy.charts import blend_weights, reasons_chart, recall_curves, weekly_precision
from deploy.figures import REVIEW_COST, SYSTEMS, BankFigures

_TILES = {
    "amalgamated_macro_ap": "average precision, amalgamated",
    "local_macro_ap": "average precision, alone",
    "pooled_macro_ap": "average precision, pooled",
    "amalgamated_vs_pooled_worst_bank": "of pooled at the worst bank",
    "cp_at_100": "card precision at 100",
}


def write_report(
    path: Path, result: BacktestResult, banks: list[BankFigures], figures: dict[str, float]
) -> None:
    """Write the report to ``path``."""
    environment = Environment(
        loader=PackageLoader("deploy"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["three"] = _three
    environment.filters["date"] = _date
    html = environment.get_template("report.html.j2").render(
        file=result.config.file.name,
        n=len(result.bank),
        n_evaluated=int(result.evaluated.sum()),
        delay_d=f"{result.config.label_delay_d:g}",
        rate=result.config.alert_rate,
        review_cost=f"{REVIEW_COST:g}",
        tiles=[(label, _three(figures.get(name))) for name, label in _TILES.items()],
        systems=SYSTEMS,
        banks=banks,
        figures=figures,
        curves=Markup(recall_curves(result)),  # noqa: S704  # our own SVG
        weekly=Markup(weekly_precision(result)),  # noqa: S704
        blend=Markup(blend_weights(result)),  # noqa: S704
        reasons=Markup(reasons_chart(result)),  # noqa: S704
        releases=result.releases,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%d")
