"""The ``amalgam`` command."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from deploy import commands, membership
from deploy.backtest import BacktestConfig, run_backtest
from deploy.demo import Demo, DemoConfig, stop_demo
from deploy.figures import bank_figures, figures_table, summary_figures
from deploy.report import write_report
from deploy.results import write_results
from deploy.topics import bank_plan, consortium_plan, create_topics
from deploy.twin_command import TwinConfig, run_twin
from deploy.twin_fidelity import fidelity_table
from models.errors import AmalgamError

STATE = Path(".amalgam")
app = typer.Typer(
    help="Consortium fraud detection on streams: "
    "banks share what they learnt, never a transaction.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
kafka_app = typer.Typer(help="A single-node Apache Kafka on this machine.", no_args_is_help=True)
topics_app = typer.Typer(help="Topics of banks and of the consortium.", no_args_is_help=True)
bank_app = typer.Typer(help="One bank: its files and its worker.", no_args_is_help=True)
amalgamator_app = typer.Typer(help="The consortium's service.", no_args_is_help=True)
alerts_app = typer.Typer(help="What an analyst should see.", no_args_is_help=True)
for name, group in (
    ("kafka", kafka_app),
    ("topics", topics_app),
    ("bank", bank_app),
    ("amalgamator", amalgamator_app),
    ("alerts", alerts_app),
):
    app.add_typer(group, name=name)

console = Console(markup=False, highlight=False)  # texts hold names that others chose
Bootstrap = Annotated[str, typer.Option(help="host:port of a broker, several with commas.")]
StateDir = Annotated[Path, typer.Option("--state", help="Where local files are kept.")]
Results = Annotated[Path | None, typer.Option(help="Write the measured figures to this JSON file.")]


@contextmanager
def _errors() -> Iterator[None]:
    """Turn our own errors into one line and exit code 2."""
    try:
        yield
    except AmalgamError as error:
        said = Text.assemble(("error: ", "red"), str(error))
        Console(stderr=True).print(said, soft_wrap=True)
        raise typer.Exit(2) from error


def _command() -> str:
    """Return what was typed; of files elsewhere the name alone: folders are nobody's business."""
    return " ".join(["amalgam", *map(_without_folder, sys.argv[1:])])


def _without_folder(word: str) -> str:
    option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return option + equals + (Path(value).name if value.startswith(("/", "../", "~")) else value)


@app.command()
def demo(
    seconds: Annotated[
        float, typer.Option(help="How long 45 simulated days are streamed.")
    ] = 170.0,
    seed: Annotated[int, typer.Option(help="Of the simulated payments.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
    bootstrap: Annotated[str | None, typer.Option(help="Use this broker; start none.")] = None,
    state: StateDir = STATE,
    results: Results = None,
) -> None:
    """Show it: a real Kafka, five banks with five formats, the amalgamator, a live table."""
    with _errors():
        config = DemoConfig(
            directory=(state / "demo").resolve(),
            kafka_libs=(state / "kafka" / "libs").resolve(),
            seconds=seconds,
            seed=seed,
            bootstrap=bootstrap,
            is_kept=keep,
        )
        stop_demo(config.directory)
        run = Demo(config, console)
        result = run.run()
        run.show_result(result)
        if results is not None:
            write_results(results, _command(), result.figures(), now=datetime.now(UTC))


@app.command("demo-stop")
def demo_stop(state: StateDir = STATE) -> None:
    """Stop what `amalgam demo --keep` left running."""
    stopped = stop_demo((state / "demo").resolve())
    console.print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@kafka_app.command("up")
def kafka_up(
    port: Annotated[int, typer.Option(help="To listen on.")] = 9092, state: StateDir = STATE
) -> None:
    """Start a broker in the background; its data stay in the state directory."""
    with _errors():
        bootstrap = commands.kafka_up(state.resolve(), port, os.environ)
        console.print(f"Apache Kafka answers at {bootstrap}")


@kafka_app.command("down")
def kafka_down(state: StateDir = STATE) -> None:
    """Stop the broker that `amalgam kafka up` started."""
    stopped = commands.kafka_down(state.resolve())
    console.print("stopped" if stopped else "no broker was running")


@topics_app.command("create")
def topics_create(
    bootstrap: Bootstrap = "127.0.0.1:9092",
    bank: Annotated[list[str] | None, typer.Option(help="A bank's topics; repeatable.")] = None,
    consortium: Annotated[str | None, typer.Option(help="The consortium's topics.")] = None,
    member: Annotated[list[str] | None, typer.Option(help="Its members; repeatable.")] = None,
    partitions: Annotated[int, typer.Option(help="Of a bank's topics.")] = 4,
) -> None:
    """Create what is missing; what exists is left alone."""
    with _errors():
        plans = [plan for one in bank or [] for plan in bank_plan(one, partitions=partitions)]
        if consortium is not None:
            plans += consortium_plan(consortium, member or [])
        created = create_topics(bootstrap, plans)
        console.print("\n".join(f"created {name}" for name in created) or "nothing was missing")


@bank_app.command("init")
def bank_init(
    name: Annotated[str, typer.Argument(help="The bank's name in the consortium.")],
    directory: Annotated[Path, typer.Option("--into", help="Folder of the new files.")] = Path(),
) -> None:
    """Make a bank's private key, a settings file and a mapping to fill in."""
    with _errors():
        for line in membership.bank_init(name, directory / name):
            console.print(line, soft_wrap=True)


@bank_app.command("run")
def bank_run(
    settings: Annotated[Path, typer.Argument(help="The bank's settings file (TOML).")],
) -> None:
    """Run a bank's worker in the foreground until it is stopped."""
    commands.become("stream", ["--settings", str(settings)])


@amalgamator_app.command("init")
def amalgamator_init(
    consortium: Annotated[str, typer.Argument(help="Name of the consortium.")],
    entity_kind: Annotated[list[str], typer.Option(help="Shared entity kind; repeatable.")],
    directory: Annotated[Path, typer.Option("--into", help="Folder of the new files.")] = Path(),
) -> None:
    """Make a consortium: the amalgamator's key, a registry, and the file that members get."""
    with _errors():
        for line in membership.consortium_init(consortium, entity_kind, directory / consortium):
            console.print(line, soft_wrap=True)


@amalgamator_app.command("admit")
def amalgamator_admit(
    registry: Annotated[Path, typer.Argument(help="The consortium's registry.toml.")],
    name: Annotated[str, typer.Argument(help="The new member.")],
    public_key: Annotated[str, typer.Argument(help="As `amalgam bank init` printed it.")],
) -> None:
    """Add a member to the registry; the amalgamator reads it at its next start."""
    with _errors():
        membership.admit(registry, name, public_key)
        console.print(f"{name} is a member")


@amalgamator_app.command("run")
def amalgamator_run(
    settings: Annotated[
        Path | None, typer.Argument(help="Its settings file (TOML); else the environment alone.")
    ] = None,
) -> None:
    """Run the amalgamator in the foreground until it is stopped."""
    arguments = [] if settings is None else ["--settings", str(settings)]
    commands.become("amalgamator", arguments)


@alerts_app.command("tail")
def alerts_tail(
    bank: Annotated[str, typer.Argument(help="Whose alerts.")],
    bootstrap: Annotated[str | None, typer.Option(help="Of the bank's cluster.")] = None,
    seconds: Annotated[float, typer.Option(help="Stop after so long; 0: never.")] = 0.0,
    from_start: Annotated[bool, typer.Option(help="Begin with the oldest.")] = True,
    state: StateDir = STATE,
) -> None:
    """Show a bank's alerts with their reasons as they come."""
    with _errors():
        address = bootstrap or commands.local_bootstrap(state.resolve())
        for line in commands.tail_alerts(
            address, bank, seconds=seconds, from_start=from_start, clock=time.monotonic
        ):
            console.print(line, soft_wrap=True)


@app.command()
def label(
    settings: Annotated[Path, typer.Argument(help="The bank's settings file.")],
    transaction_id: Annotated[str, typer.Argument(help="Which transaction.")],
    account_id: Annotated[str, typer.Argument(help="Its account.")],
    fraud: Annotated[bool, typer.Option("--fraud/--legit", help="The verdict.")] = True,
    at: Annotated[str | None, typer.Option(help="When it was said, ISO 8601; now.")] = None,
) -> None:
    """Say what a transaction was, as an analyst; sent in the bank's own format."""
    with _errors():
        now = commands.instant_of(at) if at else datetime.now(UTC)
        commands.send_label(settings, transaction_id, account_id, is_fraud=fraud, at=now)
        console.print(f"sent: {'fraud' if fraud else 'legitimate'}")


@app.command()
def simulate(
    output: Annotated[
        Path, typer.Argument(help="A .csv or .parquet file to write, or a bank's settings (.toml).")
    ],
    days: Annotated[int, typer.Option(help="How many.")] = 60,
    customers: Annotated[int, typer.Option(help="Of all banks.")] = 2_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same payments.")] = 1,
    bank: Annotated[int, typer.Option(help="To topics: whose of the five banks' payments.")] = 1,
    rate: Annotated[float, typer.Option(help="To topics: transactions a second.")] = 500.0,
    label_delay_d: Annotated[float, typer.Option(help="To topics: days until a report.")] = 7.0,
) -> None:
    """Make up payments of five banks, with frauds that cross them: a file, or a bank's stream."""
    with _errors():
        if output.suffix != ".toml":
            n = commands.simulate_file(output, days=days, customers=customers, seed=seed)
            console.print(
                f"{n:,} payments in {output}; its mapping: {commands.SIMULATED}", soft_wrap=True
            )
            return
        sent = commands.simulate_stream(
            commands.SimulateRequest(
                settings=output,
                bank=bank,
                days=days,
                customers=customers,
                seed=seed,
                rate=rate,
                label_delay_d=label_delay_d,
            )
        )
        console.print(f"{sent.transactions:,} transactions and {sent.labels:,} labels sent")


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with a label column.")],
    settings: Annotated[Path, typer.Option(help="The bank's settings file: topics and format.")],
    mapping: Annotated[Path, typer.Option(help="Where the file's columns lie.")],
    bank: Annotated[str | None, typer.Option(help="Only rows of this value ...")] = None,
    bank_column: Annotated[str | None, typer.Option(help="... in this column.")] = None,
    speed: Annotated[float, typer.Option(help="Event seconds per second; 0: all at once.")] = 0.0,
    label_delay_d: Annotated[float, typer.Option(help="Days until a fraud is reported.")] = 7.0,
) -> None:
    """Send a file through a bank's topics, labels after their delay."""
    with _errors():
        sent = commands.replay_file(
            commands.ReplayRequest(
                file=file,
                settings=settings,
                mapping=mapping,
                bank=bank,
                bank_column=bank_column,
                speed=speed,
                label_delay_d=label_delay_d,
            )
        )
        console.print(f"{sent.transactions:,} transactions and {sent.labels:,} labels sent")


@app.command()
def backtest(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with a label column.")],
    mapping: Annotated[Path, typer.Option(help="Where its columns lie (TOML).")],
    split: Annotated[
        str | None, typer.Option(help="Accounts to banks: SEED:SHARE,SHARE,... or 'handbook'.")
    ] = None,
    bank_column: Annotated[str | None, typer.Option(help="Or the column that says so.")] = None,
    label_delay_d: Annotated[float, typer.Option(help="Days until a fraud is reported.")] = 7.0,
    scored_from: Annotated[str | None, typer.Option(help="First day evaluated, ISO 8601.")] = None,
    scored_to: Annotated[str | None, typer.Option(help="Last day evaluated.")] = None,
    cadence_s: Annotated[float, typer.Option(help="Event seconds between summaries.")] = 3_600.0,
    alert_rate: Annotated[float, typer.Option(help="Share that may alert.")] = 0.01,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.")] = None,
    results: Results = None,
) -> None:
    """Run a file through the whole consortium in one process: alone, amalgamated, pooled."""
    with _errors():
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
            write_results(results, _command(), figures, now=datetime.now(UTC))
        if report is not None:
            write_report(report, result, banks, figures)
            console.print(f"report: {report}", soft_wrap=True)


@app.command()
def twin(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with a label column.")],
    output: Annotated[Path, typer.Argument(help="Parquet file of synthetic transactions.")],
    mapping: Annotated[Path, typer.Option(help="Where the file's columns lie (TOML).")],
    split: Annotated[
        str | None, typer.Option(help="Accounts to banks: SEED:SHARE,SHARE,... or 'handbook'.")
    ] = None,
    bank_column: Annotated[str | None, typer.Option(help="Or the column that says so.")] = None,
    n: Annotated[int | None, typer.Option(help="Transactions; default: as in the file.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same transactions.")] = 1,
    rate: Annotated[float | None, typer.Option(help="Transactions a day; as in the file.")] = None,
    fraud_share: Annotated[float | None, typer.Option(help="In [0, 1]; as in the file.")] = None,
    cut: Annotated[str | None, typer.Option(help="Day from which rows judge the twin.")] = None,
    label_delay_d: Annotated[float, typer.Option(help="Days until a fraud is reported.")] = 7.0,
    results: Results = None,
) -> None:
    """Draw synthetic transactions from the banks' summaries of a file; say how close they are."""
    with _errors():
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
            write_results(results, _command(), figures, now=datetime.now(UTC))


@app.command()
def version() -> None:
    """Print the version."""
    console.print(distribution_version("amalgam-fraud"))
