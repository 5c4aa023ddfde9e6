"""``python -m deploy.readme``: fills the README's tables from ``deploy/bench/results/*.json``.

A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; its figures are never typed.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from deploy.bench.chart import CONTESTANTS
from deploy.detection.report_bounds import held_rows
from deploy.results import Results
from models.errors import InvalidInputError

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "bench" / "results"


def demo_table(results: Results) -> str:
    """Return what the demonstration measured."""
    figures = results.figures
    rows = [
        ("average precision, mean of the banks: alone", f"{figures['local_macro_ap']:.3f}"),
        ("amalgamated", f"**{figures['amalgamated_macro_ap']:.3f}**"),
        ("payments streamed", f"{figures['n_transactions']:,.0f}"),
        ("releases", f"{figures['n_releases']:.0f}"),
        ("first release after the services' start", f"{figures['first_release_s']:.0f} s"),
        ("in all", f"{figures['demo_seconds']:.0f} s"),
    ]
    return _table(("", ""), rows) + _origin(results)


def backtest_table(results: Results) -> str:
    """Return average precision and its neighbours, for each bank and as a mean."""
    figures = results.figures
    systems = ("local", "amalgamated", "pooled")
    banks = sorted({name.partition("_")[0] for name in figures if name.startswith("bank-")})
    rows = [(bank, *(f"{figures[f'{bank}_{s}_ap']:.3f}" for s in systems)) for bank in banks]
    rows.append(("**mean**", *(f"**{figures[f'{s}_macro_ap']:.3f}**" for s in systems)))
    said = (
        f"\nOf pooled at the worst bank: {figures['amalgamated_vs_pooled_worst_bank']:.3f}. "
        f"Card Precision@100: {figures['cp_at_100']:.3f} (alone "
        f"{figures['local_cp_at_100']:.3f}). {figures['alert_rate_macro']:.1%} of the payments "
        f"alert and catch {figures['alert_recall_macro']:.0%} of the frauds. "
        f"{figures['n_transactions']:,.0f} payments in {figures['seconds']:.0f} s, "
        f"{figures['peak_memory_mb'] / 1024:.1f} GiB.\n"
    )
    heads = ("average precision", "alone", "amalgamated", "pooled")
    return _table(heads, rows) + said + _origin(results)


def detection_table(results: Results) -> str:
    """Return what detection is held to, with what was measured."""
    rows = [
        (
            f"{row.words} `{row.name}`",
            row.held_to,
            row.value.number or row.value.word,
            row.worst.number or "–",
        )
        for row in held_rows(results.figures)
    ]
    heads = ("figure", "held to", "measured", "worst split")
    return _table(heads, rows) + _origin(results)


def speed_table(results: Results) -> str:
    """Return what a record costs, beside peers, and how long an answer takes."""
    figures = results.figures
    known = [name for name in CONTESTANTS if f"{name}_us_per_tx" in figures]
    rows = [
        (
            CONTESTANTS[name],
            f"{figures[f'{name}_us_per_tx']:.1f}",
            f"{figures[f'{name}_tx_per_s']:,.0f}",
            f"{figures[f'job_vs_{name}']:.2f}" if name != "job" else "",
        )
        for name in known
    ]
    heads = ("", "processor µs a record", "records a second", "the job over it")
    paces = sorted(int(name.rpartition("_")[2]) for name in figures if name.startswith("p99_ms_"))
    waits = [
        (f"{pace:,}", *(f"{figures[f'{p}_ms_{pace}']:,.0f}" for p in ("p50", "p99", "p999")))
        for pace in paces
    ]
    of_pace = ("payments a second", "p50, ms", "p99, ms", "p99.9, ms")
    return _table(heads, rows) + _table(of_pace, waits) + _origin(results)


TABLES: Mapping[str, Callable[[Results], str]] = {
    "demo": demo_table,
    "backtest": backtest_table,
    "detection": detection_table,
    "speed": speed_table,
}


def filled(text: str, results: Mapping[str, Results]) -> str:
    """Return a README with each table made anew from its results.

    Raises
    ------
    InvalidInputError
        If a table's marks are missing.
    """
    for name, make in TABLES.items():
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(opening)
        _, closed, after = rest.partition(closing)
        if not found or not closed:
            raise InvalidInputError(f"README: expected <!-- {name} --> and <!-- /{name} -->")
        text = before + opening + make(results[name]) + closing + after
    return text


def read_results(directory: Path = RESULTS) -> dict[str, Results]:
    """Return the results that the tables need."""
    return {
        name: msgspec.json.decode((directory / f"{name}.json").read_bytes(), type=Results)
        for name in TABLES
    }


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _origin(results: Results) -> str:
    return f"\n`{results.command}`, {results.date[:10]}, {results.machine}\n\n"


def main() -> int:
    """Write the README."""
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8"), read_results()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
