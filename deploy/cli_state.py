"""Commands of ``amalgam state``: look at a worker's local store, check it, put it aside."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy import state_command
from deploy.cli_common import console, errors
from models.errors import InvalidInputError

BankFile = Annotated[Path, typer.Argument(help="The bank's settings file (TOML).")]
Worker = Annotated[str | None, typer.Option(help="The worker, where a host runs it.")]
state_app = typer.Typer(help="A bank worker's local store.", no_args_is_help=True)


@state_app.command("show")
def state_show(
    settings: BankFile,
    worker: Worker = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines, every array.")] = False,
) -> None:
    """Show what a worker's store holds: times, counts, experts, offsets; no ids, no amounts."""
    with errors():
        told = state_command.show_state(state_command.settings_of(settings, worker))
        if as_json:
            typer.echo(json.dumps(told, indent=2))
        else:
            console.print(state_command.state_table(told))


@state_app.command("verify")
def state_verify(settings: BankFile, worker: Worker = None) -> None:
    """Check every page, array and count of a worker's store; 0: sound, 1: a line for each fault."""
    with errors():
        faults = state_command.verify_state(state_command.settings_of(settings, worker))
    for fault in faults:
        console.print(fault, soft_wrap=True)
    if faults:
        raise typer.Exit(1)
    console.print("the state is sound")


@state_app.command("rebuild")
def state_rebuild(
    settings: BankFile,
    worker: Worker = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else only say what it means.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the broker what it still has.")
    ] = False,
    from_changelog: Annotated[
        bool, typer.Option("--from-changelog", help="Restore it from the worker's changelog.")
    ] = False,
) -> None:
    """Put a stopped worker's store aside; its next start reads the topics, or its changelog."""
    with errors():
        planned = state_command.plan_restore if from_changelog else state_command.plan_rebuild
        plan = planned(state_command.settings_of(settings, worker), is_offline=offline)
        for line in plan.said:
            console.print(line, soft_wrap=True)
        if not yes:
            raise InvalidInputError("nothing was done: say --yes to put the store aside")
        kept = state_command.rebuild_state(plan, datetime.now(UTC))
        source = "the changelog" if from_changelog else "the topics anew"
        console.print(f"kept as {kept}; the next start reads {source}", soft_wrap=True)
