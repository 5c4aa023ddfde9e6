"""``python -m deploy.detection``: how well the consortium detects, under many plans.

``--handbook FILE`` runs every plan on the Handbook's transactions, split three times; ``--foreign``
runs four on made-up payments of another world; FILE with ``--mapping`` runs the four on any file.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from deploy.detection.execute import Job
from deploy.detection.figures import Figures, detection_figures
from deploy.detection.outcome import Outcome, read_outcome
from deploy.detection.plans import (
    DAY_MS,
    DetectionRun,
    RowSource,
    scale_runs,
    split_runs,
    usual_runs,
)
from deploy.detection.report_page import write_report
from deploy.detection.runner import Failure, run_jobs
from deploy.foreign import ForeignConfig, write_foreign
from deploy.results import write_results
from deploy.splits import parse_split
from models.errors import AmalgamError, InvalidInputError

SHARES = "0.40,0.25,0.15,0.12,0.08"
SEEDS = (7, 99, 123)
HANDBOOK_BANKS = parse_split(f"0:{SHARES}").names
"""The largest first."""
FIRST_DAY, LAST_DAY = (int(np.datetime64(day).astype(int)) for day in ("2018-07-15", "2018-09-30"))
HANDBOOK_MAPPING = Path(__file__).parents[1] / "mappings" / "handbook.toml"
FOREIGN = "foreign"
FOREIGN_BANK = "bank-3"
"""That of which runs about one bank are."""
console = Console()


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; return 1 if a run has no outcome."""
    asked = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes to come: they share the cores
    try:
        failures, outcomes, figures = _run(asked)
        console.print(_table(figures))
        if asked.report is not None:
            write_report(outcomes, figures.values, asked.report)
        if asked.results is not None:
            command = shlex.join(["python", "-m", "deploy.detection", *arguments])
            write_results(asked.results, command, figures.values, now=datetime.now(UTC))
    except AmalgamError as error:
        _complain(f"error: {error}")
        return 1
    for failure in failures:
        _complain(f"{failure.job.source.name} {failure.job.run.name} failed: {failure.why}")
    return 1 if failures else 0


def _complain(text: str) -> None:
    console.print(text, style="red", soft_wrap=True, markup=False)


def _run(asked: argparse.Namespace) -> tuple[list[Failure], list[Outcome], Figures]:
    """Run, and return all outcomes that are there, older ones too, and their figures."""
    if not asked.processes >= 1:
        raise InvalidInputError(f"--processes: expected 1 or more, got {asked.processes}")
    splits, others = _splits(asked), _others(asked)
    jobs = [  # the longest first, so that no core waits for them at the end
        *(job for each in others for job in _jobs(asked, [each], _runs_of(each))),
        *_jobs(asked, splits, split_runs(HANDBOOK_BANKS, FIRST_DAY * DAY_MS)),
    ]
    if not jobs:
        raise InvalidInputError("expected FILE with --mapping, --handbook FILE or --foreign")
    with Progress(console=console, transient=True) as progress:
        failures = run_jobs(
            chosen(jobs, asked.only or ()),
            progress,
            lambda line: progress.console.print(line, soft_wrap=True, markup=False),
            n_processes=asked.processes,
            again=asked.again,
        )
    outcomes = [read_outcome(job.path) for job in jobs if job.path.exists()]
    figures = detection_figures(
        outcomes,
        splits=[source.name for source in splits],
        sources=[source.name for source in others],
    )
    return failures, outcomes, figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.detection", description=__doc__)
    add = parser.add_argument
    add("file", nargs="?", type=Path, help="CSV or Parquet with a label column")
    add("--mapping", type=Path, help="where its columns lie (TOML)")
    add("--split", help="its accounts to banks: SEED:SHARE,SHARE,...")
    add("--bank-column", help="or the column that says so")
    add("--handbook", type=Path, metavar="FILE", help="the Handbook's transactions")
    add("--seeds", type=int, nargs="+", default=SEEDS, help="of its splits")
    add("--foreign", action="store_true", help="made-up payments of another world")
    add("--foreign-rows", type=int, default=300_000, help="how many")
    add("--only", nargs="+", metavar="RUN", help="these runs, and those that they need")
    add("--work", type=Path, default=Path(".amalgam/detection"), help="folder of the outcomes")
    add("--again", action="store_true", help="run again what has an outcome already")
    add("--processes", type=int, default=2, help="runs at a time")
    add("--results", type=Path, help="write the figures as JSON")
    add("--report", type=Path, help="write a page of figures, tables and plots (HTML)")
    return parser


def _runs_of(source: RowSource) -> tuple[DetectionRun, ...]:
    prefix = f"{source.name}_"
    others = scale_runs(FOREIGN_BANK, prefix) if source.name == FOREIGN else ()
    return (*usual_runs(prefix), *others)


def _jobs(
    asked: argparse.Namespace, sources: Sequence[RowSource], runs: Sequence[DetectionRun]
) -> list[Job]:
    return [
        Job(source=source, run=run, folder=asked.work / source.name)
        for i, source in enumerate(sources)
        for run in runs
        if i == 0 or not run.is_once
    ]


def _splits(asked: argparse.Namespace) -> list[RowSource]:
    """Return the rows of each split of the Handbook's transactions."""
    if asked.handbook is None:
        return []
    return [
        RowSource(
            name=f"handbook-{seed}",
            file=asked.handbook,
            mapping=HANDBOOK_MAPPING,
            split=f"{seed}:{SHARES}",
            first_day=FIRST_DAY,
            last_day=LAST_DAY,
        )
        for seed in asked.seeds
    ]


def _others(asked: argparse.Namespace) -> list[RowSource]:
    others = []
    if asked.foreign:
        file = asked.work / f"{FOREIGN}-{asked.foreign_rows}.parquet"
        if asked.again or not file.with_suffix(".toml").exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_foreign(ForeignConfig(n_rows=asked.foreign_rows), file)
        others.append(RowSource(name=FOREIGN, file=file, mapping=file.with_suffix(".toml")))
    if asked.file is not None:
        if asked.mapping is None:
            raise InvalidInputError(f"{asked.file}: expected --mapping")
        others.append(
            RowSource(
                name=asked.file.stem,
                file=asked.file,
                mapping=asked.mapping,
                split=asked.split,
                bank_column=asked.bank_column,
            )
        )
    return others


def chosen(jobs: Sequence[Job], only: Sequence[str]) -> list[Job]:
    """Return the jobs of some runs and of those that they need; the usual where none is named.

    Raises
    ------
    InvalidInputError
        If no job is of such a run.
    """
    known = {job.run.name for job in jobs}
    unknown = sorted(set(only) - known)
    if unknown:
        raise InvalidInputError(
            f"--only: expected some of {', '.join(sorted(known))}, got {unknown[0]}"
        )
    wanted = {*only, *(job.run.needs for job in jobs if job.run.name in only)}
    return [job for job in jobs if (job.run.name in wanted if only else not job.run.is_named)]


def _table(figures: Figures) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("figure")
    table.add_column("", justify="right")
    table.add_column("left out because")
    for name, value in figures.values.items():
        table.add_row(name, f"{value:.4f}", "")
    for name, why in figures.left_out.items():
        table.add_row(name, "", why)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
