"""Commands of ``amalgam`` that evaluate: back-test, drift, attacks, digital twin."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.progress import Progress

from deploy import commands
from deploy.attack_suite import SuiteConfig, run_suite, simulated_suite, suite_figures, suite_table
from deploy.attacks import ATTACKS
from deploy.backtest import BacktestConfig, run_backtest
from deploy.cli_common import Results, command_line, console, errors
from deploy.drift_bench import DRIFTS, drift_table, measure_drift
from deploy.figures import bank_figures, figures_table, summary_figures
from deploy.report import write_report
from deploy.results import write_results
from deploy.twin_command import TwinConfig, run_twin
from deploy.twin_fidelity import fidelity_table
from models.errors import InvalidInputError

LabelledFile = Annotated[Path, typer.Argument(help="CSV or Parquet with a label column.")]
Split = Annotated[
    str | None, typer.Option(help="Accounts to banks: SEED:SHARE,SHARE,... or 'handbook'.")
]
BankColumn = Annotated[str | None, typer.Option(help="Or the column that says so.")]
LabelDelay = Annotated[float, typer.Option(help="Days until a fraud is reported.")]
ScoredFrom = Annotated[str | None, typer.Option(help="First day evaluated, ISO 8601.")]
ScoredTo = Annotated[str | None, typer.Option(help="Last day evaluated.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (backtest, drift, attack, twin):
        app.command()(command)


def backtest(
    file: LabelledFile,
    mapping: Annotated[Path, typer.Option(help="Where its columns lie (TOML).")],
    split: Split = None,
    bank_column: BankColumn = None,
    label_delay_d: LabelDelay = 7.0,
    scored_from: ScoredFrom = None,
    scored_to: ScoredTo = None,
    cadence_s: Annotated[float, typer.Option(help="Event seconds between summaries.")] = 3_600.0,
    alert_rate: Annotated[float, typer.Option(help="Share that may alert.")] = 0.01,
    families: Annotated[
        list[str] | None,
        typer.Option(
            "--family", help="A model of every bank beside the scorecard: lightgbm; repeatable."
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.")] = None,
    results: Results = None,
) -> None:
    """Run a file through the whole consortium in one process: alone, amalgamated, pooled."""
    with errors():
        config = BacktestConfig(
            file=file,
            mapping=mapping,
            split=split,
            bank_column=bank_column,
            label_delay_d=label_delay_d,
            scored_from=commands.day_of(scored_from),
            scored_to=commands.day_of(scored_to),
            cadence_s=cadence_s,
            alert_rate=alert_rate,
            families=commands.families_of(families),
        )
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("transactions", total=1.0)
            result = run_backtest(config, lambda part: progress.update(task, completed=part))
        banks = bank_figures(result)
        figures = summary_figures(result, banks)
        console.print(figures_table(banks))
        for figure, value in figures.items():
            if "bank-" not in figure:
                console.print(f"{figure:<34} {value:.4g}")
        if results is not None:
            write_results(results, command_line(), figures, now=datetime.now(UTC))
        if report is not None:
            write_report(report, result, banks, figures)
            console.print(f"report: {report}", soft_wrap=True)


def drift(
    seeds: Annotated[int, typer.Option(help="Simulated banks, of seeds 1, 2, ...")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="One kind of drift; repeatable.")] = None,
    results: Results = None,
) -> None:
    """Inject drift into simulated streams: how soon it is seen, how often it is cried."""
    with errors(), Progress(console=console, transient=True) as progress:
        task = progress.add_task("seeds", total=float(seeds))
        figures = measure_drift(seeds, only or list(DRIFTS), lambda: progress.advance(task))
        console.print(drift_table(figures))
        if results is not None:
            write_results(results, command_line(), figures, now=datetime.now(UTC))


def attack(
    file: Annotated[
        Path | None, typer.Argument(help="CSV or Parquet with a label column; none: simulated.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="Where its columns lie (TOML).")] = None,
    split: Split = None,
    bank_column: BankColumn = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="Name of one; again for more; none: all.")
    ] = None,
    label_delay_d: LabelDelay = 7.0,
    scored_from: ScoredFrom = None,
    scored_to: ScoredTo = None,
    seed: Annotated[int, typer.Option(help="Of the simulated payments.")] = 1,
    results: Results = None,
) -> None:
    """Let some banks lie: what it costs the others, with the defence off and on."""
    with errors(), TemporaryDirectory() as folder:
        names = tuple(attacks or ATTACKS)
        if file is None:
            config = simulated_suite(names, Path(folder) / "payments.parquet", seed=seed)
        elif mapping is None:
            raise InvalidInputError(f"{file}: expected --mapping")
        else:
            config = SuiteConfig(
                file=file,
                mapping=mapping,
                split=split,
                bank_column=bank_column,
                label_delay_d=label_delay_d,
                scored_from=commands.day_of(scored_from),
                scored_to=commands.day_of(scored_to),
                attacks=names,
            )
        with console.status("reading") as status:
            suite = run_suite(config, status.update)
        console.print(suite_table(suite))
        figures = suite_figures(suite)
        console.print(f"defence_cost {figures['defence_cost']:.4f}")
        if results is not None:
            write_results(results, command_line(), figures, now=datetime.now(UTC))


def twin(
    file: LabelledFile,
    output: Annotated[Path, typer.Argument(help="Parquet file of synthetic transactions.")],
    mapping: Annotated[Path, typer.Option(help="Where the file's columns lie (TOML).")],
    split: Split = None,
    bank_column: BankColumn = None,
    n: Annotated[int | None, typer.Option(help="Transactions; default: as in the file.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same transactions.")] = 1,
    rate: Annotated[float | None, typer.Option(help="Transactions a day; as in the file.")] = None,
    fraud_share: Annotated[float | None, typer.Option(help="In [0, 1]; as in the file.")] = None,
    cut: Annotated[str | None, typer.Option(help="Day from which rows judge the twin.")] = None,
    label_delay_d: LabelDelay = 7.0,
    results: Results = None,
) -> None:
    """Draw synthetic transactions from the banks' summaries of a file; say how close they are."""
    with errors():
        config = TwinConfig(
            file=file,
            mapping=mapping,
            output=output,
            split=split,
            bank_column=bank_column,
            n=n,
            seed=seed,
            rate=rate,
            fraud_share=fraud_share,
            cut=commands.day_of(cut),
            label_delay_d=label_delay_d,
        )
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("transactions", total=1.0)
            made = run_twin(config, lambda part: progress.update(task, completed=part))
        figures = made.fidelity.figures()
        console.print(fidelity_table(made.names, made.fidelity))
        for figure, value in figures.items():
            console.print(f"{figure:<34} {value:.4g}")
        console.print(
            f"{made.n:,} transactions, {made.n_frauds:,} frauds in {output}", soft_wrap=True
        )
        if results is not None:
            write_results(results, command_line(), figures, now=datetime.now(UTC))
