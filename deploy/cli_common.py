"""What every part of the ``amalgam`` command shares: console, options, errors in one line."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from models.errors import AmalgamError

console = Console(markup=False, highlight=False)  # texts hold names that others chose
Bootstrap = Annotated[str, typer.Option(help="host:port of a broker, several with commas.")]
StateDir = Annotated[Path, typer.Option("--state", help="Where local files are kept.")]
Results = Annotated[Path | None, typer.Option(help="Write the measured figures to this JSON file.")]


@contextmanager
def errors() -> Iterator[None]:
    """Turn our own errors into one line and exit code 2."""
    try:
        yield
    except AmalgamError as error:
        said = Text.assemble(("error: ", "red"), str(error))
        Console(stderr=True).print(said, soft_wrap=True)
        raise typer.Exit(2) from error


def command_line() -> str:
    """Return what was typed; of files elsewhere the name alone: folders are nobody's business."""
    return shlex.join(["amalgam", *map(_without_folder, sys.argv[1:])])


def _without_folder(word: str) -> str:
    option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return option + equals + (Path(value).name if value.startswith(("/", "../", "~")) else value)
