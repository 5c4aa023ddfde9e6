"""Faults under load change nothing, and a bug that they can show is found."""

import os
from pathlib import Path

import pytest

from deploy.chaos.run import ChaosConfig, run_chaos
from models.errors import UnavailableError
from tests.integration.conftest import LIBS

pytestmark = pytest.mark.integration
SEED = 51  # its pauses are short, and its kills spread over both banks with a bug


def chaos(directory: Path, **more):
    """Run a few days of a small consortium; skip, loudly, where no Kafka can be had."""
    config = ChaosConfig(
        directory=directory, kafka_libs=LIBS, seed=SEED, days=5, customers=240, **more
    )
    try:
        return run_chaos(config, os.environ)
    except UnavailableError as error:
        if (directory / "faults.jsonl").exists():
            raise  # it began
        pytest.skip(f"NO BROKER, NOTHING WAS TESTED: {error}")


def test_one_fault_of_every_sort_leaves_everything_as_undisturbed(tmp_path: Path) -> None:
    """Kills, pauses, restarts, other hosts, a stranger in a group, two amalgamators, repeats."""
    verdict = chaos(tmp_path, faults=14)
    assert verdict.differences == ()
    figures = verdict.figures
    assert figures["faults"] == 14
    assert figures["transactions_lost"] == figures["learned_twice"] == figures["alerts_lost"] == 0
    assert figures["state_equal"] == figures["fold_equal"] == figures["release_equal"] == 1
    assert min(figures["alerts"], figures["records_repeated"], figures["records_late"]) > 0


@pytest.mark.long
def test_planted_double_learning_is_found(tmp_path: Path) -> None:
    """A bank that learns once more after a restart."""
    verdict = chaos(tmp_path, faults=10, only=("kill-bank",), plants={"costabanco": "doubled"})
    found = {(one.figure, one.where) for one in verdict.differences}
    assert {("learned_twice", "costabanco"), ("state_equal", "costabanco")} <= found


@pytest.mark.long
def test_planted_loss_is_found(tmp_path: Path) -> None:
    """A bank that stores offsets before the state; it stands still where it has skipped a mark."""
    plants = {"alpenkasse": "offsets-first"}
    verdict = chaos(tmp_path, faults=10, only=("kill-bank",), plants=plants, stall_s=90.0)
    found = {(one.figure, one.where) for one in verdict.differences}
    assert {("transactions_lost", "alpenkasse"), ("state_equal", "alpenkasse")} <= found
