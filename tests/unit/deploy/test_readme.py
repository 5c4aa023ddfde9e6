"""The README's tables say what the files of measured figures say."""

import re
from pathlib import Path

import pytest

from deploy.readme import RESULTS, ROOT, filled, read_results
from models.errors import InvalidInputError

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_results() -> None:
    """Nobody edits a figure; `python -m deploy.readme` makes the tables anew."""
    assert filled(README, read_results()) == README


def test_every_result_names_its_command_and_machine() -> None:
    """A figure without its command is no figure."""
    found = read_results()
    assert {path.stem for path in RESULTS.glob("*.json")} >= found.keys()
    for results in found.values():
        assert all((results.command, results.date, results.commit, results.machine))


def test_a_readme_without_marks_is_refused() -> None:
    """A table must not vanish silently."""
    with pytest.raises(InvalidInputError, match="<!-- demo -->"):
        filled("# amalgam", read_results())


def test_files_that_the_readme_names_exist() -> None:
    """Links and paths in back quotes that point into the repository."""
    names = re.findall(r"\]\(([\w/.]+)\)", README)
    names += re.findall(r"`((?:deploy|tests|models|stream)/[\w/.]+)`", README)
    assert names
    assert [name for name in names if not (ROOT / Path(name)).exists()] == []


def test_make_targets_that_the_readme_names_exist() -> None:
    """Each `make NAME`."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets
