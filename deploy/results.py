"""Measured figures as files: what was run, when, on which commit and machine, and what came out."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

_AND = " && "


class Results(msgspec.Struct, frozen=True):
    """One file of figures."""

    command: str
    date: str
    commit: str
    machine: str
    figures: dict[str, float]


def write_results(
    path: Path, command: str, figures: Mapping[str, float], *, now: datetime
) -> Results:
    """Write figures to a JSON file and return them."""
    results = Results(
        command=command,
        date=now.isoformat(timespec="seconds"),
        commit=_commit(),
        machine=_machine(),
        figures={name: _rounded(value) for name, value in figures.items()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    return results


def merge_results(
    path: Path, command: str, figures: Mapping[str, float], *, now: datetime
) -> Results:
    """Write figures to a JSON file, beside those of other commands that it holds already.

    Date, commit and machine are of the last command; the commands are told one after the other.
    """
    held: Mapping[str, float] = {}
    commands: list[str] = []
    if path.exists():
        before = msgspec.json.decode(path.read_bytes(), type=Results)
        held, commands = before.figures, before.command.split(_AND)
    commands = [*(one for one in commands if one != command), command]
    return write_results(path, _AND.join(commands), {**held, **figures}, now=now)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}") if abs(value) < 1e5 else float(round(value))


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _machine() -> str:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {_processor()}, {memory_gb:.0f} GiB, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
