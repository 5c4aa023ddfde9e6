"""Measured figures are kept with what was run, when, on which commit and machine."""

import os
from datetime import UTC, datetime

import msgspec
import pytest

from deploy import results
from deploy.results import Results, merge_results, write_results

NOW = datetime(2026, 1, 31, 12, 30, 15, 678_901, tzinfo=UTC)


def with_program(tmp_path, monkeypatch, script):
    """Leave one program to be found: a stand-in for the version control that prints a commit."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if script is not None:
        program = folder / "git"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_file_has_the_five_fields_and_comes_back(tmp_path, monkeypatch):
    """Exactly command, date, commit, machine, figures; what is returned is what is read."""
    with_program(tmp_path, monkeypatch, "echo 0123456789ab-dirty")
    path = tmp_path / "new" / "folder" / "figures.json"
    written = write_results(path, "amalgam backtest x.csv", {"ap": 0.5, "n": 12}, now=NOW)
    table = msgspec.json.decode(path.read_bytes())
    assert list(table) == ["command", "date", "commit", "machine", "figures"]
    assert table["command"] == "amalgam backtest x.csv"
    assert table["date"] == "2026-01-31T12:30:15+00:00"
    assert table["commit"] == "0123456789ab-dirty"
    assert table["figures"] == {"ap": 0.5, "n": 12}
    assert msgspec.json.decode(path.read_bytes(), type=Results) == written


def test_file_is_text_that_ends_with_a_line(tmp_path, monkeypatch):
    """Indented by two, so that a change of one figure is a change of one line."""
    with_program(tmp_path, monkeypatch, None)
    path = tmp_path / "figures.json"
    write_results(path, "x", {"a": 1.0, "b": 2.0}, now=NOW)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[-1] == ""
    assert len([line for line in lines if line.startswith('    "')]) == 2


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.123456789, 0.12346),
        (-0.000123456789, -0.00012346),
        (99_999.4, 99_999.0),
        (1_754_155.0, 1_754_155.0),
        (123_456.7, 123_457.0),
        (0.0, 0.0),
    ],
)
def test_figures_keep_five_digits_and_whole_numbers_all(tmp_path, monkeypatch, value, kept):
    """A count of rows is never rounded, a share is not given more digits than it deserves."""
    with_program(tmp_path, monkeypatch, None)
    written = write_results(tmp_path / "figures.json", "x", {"one": value}, now=NOW)
    assert written.figures == {"one": kept}


@pytest.mark.parametrize("script", [None, "exit 128", "true"])
def test_commit_is_unknown_where_there_is_no_checkout(tmp_path, monkeypatch, script):
    """No program, one that fails, or one that says nothing."""
    with_program(tmp_path, monkeypatch, script)
    assert write_results(tmp_path / "figures.json", "x", {}, now=NOW).commit == "unknown"


def test_machine_is_told_by_cores_processor_memory_and_python(tmp_path, monkeypatch):
    """Enough to judge a timing by, and no name of a host or a user."""
    with_program(tmp_path, monkeypatch, None)
    machine = write_results(tmp_path / "figures.json", "x", {}, now=NOW).machine
    cores, *_, memory, python = machine.split(", ")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1_024**3
    assert cores == f"{os.cpu_count()} cores"
    assert memory == f"{gib:.0f} GiB"
    assert python.startswith("Python 3.")
    assert os.uname().nodename not in machine
    assert results._processor() in machine


def test_figures_of_another_command_are_kept(tmp_path, monkeypatch):
    """The same command replaces its own; commands are told in the order of their runs."""
    with_program(tmp_path, monkeypatch, None)
    path = tmp_path / "figures.json"
    merge_results(path, "one", {"a": 1.0, "b": 2.0}, now=NOW)
    merge_results(path, "two", {"b": 3.0, "c": 4.0}, now=NOW)
    found = merge_results(path, "one", {"a": 5.0}, now=NOW)
    assert found.figures == {"a": 5.0, "b": 3.0, "c": 4.0}
    assert found.command == "two && one"
    assert msgspec.json.decode(path.read_bytes(), type=Results) == found
