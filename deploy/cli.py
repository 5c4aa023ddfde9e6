"""The ``amalgam`` command."""

import os
import time
from datetime import UTC, datetime
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated

import typer

from deploy import cli_evaluation, cli_state, commands, membership
from deploy.cli_common import Bootstrap, Results, StateDir, command_line, console, errors
from deploy.demo import Demo, DemoConfig, stop_demo
from deploy.foreign import ForeignConfig, write_foreign
from deploy.results import write_results
from deploy.topics import bank_plan, consortium_plan, create_topics
from models.errors import InvalidInputError
from stream.share import worker_names

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
    ("state", cli_state.state_app),
):
    app.add_typer(group, name=name)
cli_evaluation.register(app)


@app.command()
def demo(
    seconds: Annotated[
        float, typer.Option(help="How long 45 simulated days are streamed.")
    ] = 160.0,
    seed: Annotated[int, typer.Option(help="Of the simulated payments.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
    bootstrap: Annotated[str | None, typer.Option(help="Use this broker; start none.")] = None,
    state: StateDir = STATE,
    results: Results = None,
) -> None:
    """Show it: a real Kafka, five banks with five formats, the amalgamator, a live table."""
    with errors():
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
            write_results(results, command_line(), result.figures(), now=datetime.now(UTC))


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
    with errors():
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
    worker: Annotated[
        str | None, typer.Option(help="The bank's only worker, where it is not called 0.")
    ] = None,
    workers: Annotated[int, typer.Option(help="How many the bank has, called 0 and so on.")] = 1,
) -> None:
    """Create what is missing; what exists is left alone."""
    with errors():
        if worker is not None and workers != 1:
            raise InvalidInputError("--worker: expected none beside --workers, they are numbered")
        names = worker_names(workers, worker or "0")
        plans = [
            plan
            for one in bank or []
            for plan in bank_plan(one, partitions=partitions, workers=names)
        ]
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
    with errors():
        for line in membership.bank_init(name, directory / name):
            console.print(line, soft_wrap=True)


@bank_app.command("run")
def bank_run(
    settings: Annotated[Path, typer.Argument(help="The bank's settings file (TOML).")],
) -> None:
    """Run a bank's worker in the foreground until it is stopped."""
    commands.become("stream", ["--settings", str(settings)])


@bank_app.command("host")
def bank_host(
    settings: Annotated[Path, typer.Argument(help="The bank's settings file (TOML).")],
) -> None:
    """Run those of a bank's workers that fall to this machine, until it is stopped."""
    commands.become("stream.host", ["--settings", str(settings)])


@amalgamator_app.command("init")
def amalgamator_init(
    consortium: Annotated[str, typer.Argument(help="Name of the consortium.")],
    entity_kind: Annotated[list[str], typer.Option(help="Shared entity kind; repeatable.")],
    attribute: Annotated[
        list[str] | None, typer.Option(help="NAME=number or NAME=text; repeatable.")
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="Or a TOML file with a table [attributes].")
    ] = None,
    directory: Annotated[Path, typer.Option("--into", help="Folder of the new files.")] = Path(),
) -> None:
    """Make a consortium: the amalgamator's key, a registry, and the file that members get."""
    with errors():
        specs = membership.read_attributes(attribute or [], attributes)
        into = directory / consortium
        for line in membership.consortium_init(consortium, entity_kind, into, specs):
            console.print(line, soft_wrap=True)


@amalgamator_app.command("admit")
def amalgamator_admit(
    registry: Annotated[Path, typer.Argument(help="The consortium's registry.toml.")],
    name: Annotated[str, typer.Argument(help="The new member.")],
    public_key: Annotated[str, typer.Argument(help="As `amalgam bank init` printed it.")],
    workers: Annotated[int, typer.Option(help="How many the bank has, called 0 and so on.")] = 1,
) -> None:
    """Add a member to the registry; the amalgamator reads it at its next start."""
    with errors():
        membership.admit(registry, name, public_key, workers=workers)
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
    with errors():
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
    with errors():
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
    with errors():
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
def foreign(
    output: Annotated[Path, typer.Argument(help="A .parquet file; its mapping goes beside it.")],
    rows: Annotated[int, typer.Option(help="Payments of all banks.")] = 300_000,
    attributes: Annotated[int, typer.Option(help="Anonymous attributes.")] = 200,
    banks: Annotated[int, typer.Option(help="How many.")] = 8,
    days: Annotated[int, typer.Option(help="Of event time.")] = 150,
    seed: Annotated[int, typer.Option(help="The same seed gives the same payments.")] = 1,
) -> None:
    """Make up payments of another world: hundreds of attributes, most of them useless."""
    with errors():
        config = ForeignConfig(
            n_rows=rows, n_attributes=attributes, n_banks=banks, n_days=days, seed=seed
        )
        mapping = write_foreign(config, output)
        console.print(f"{rows:,} payments in {output}; its mapping: {mapping}", soft_wrap=True)


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
    with errors():
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
def version() -> None:
    """Print the version."""
    console.print(distribution_version("amalgam-fraud"))
