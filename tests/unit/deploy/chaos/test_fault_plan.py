"""A seed gives a plan again; every kind of fault befalls every sort of process."""

import numpy as np
import pytest

from deploy.chaos.fault_plan import AMALGAMATOR, BROKER, plan_faults
from models.errors import InvalidInputError

BANKS = ("a", "b")
KINDS = {"kill", "kill_at_start", "terminate", "pause"}


def drawn(seed, n=40):
    return plan_faults(n, BANKS, np.random.default_rng(seed))


def test_a_seed_gives_the_same_plan_and_another_seed_another():
    """So a failure can be repeated."""
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_each_fault_has_its_own_piece_of_the_stream():
    """In order, the i-th of n between i / n and (i + 1) / n."""
    faults = drawn(1)
    assert [fault.number for fault in faults] == list(range(1, 41))
    assert [int(fault.at * 40) for fault in faults] == list(range(40))


def test_fourteen_faults_are_one_of_each():
    """A short run leaves nothing out."""
    faults = drawn(5, n=14)
    found = {(fault.kind, "bank" if fault.target in BANKS else fault.target) for fault in faults}
    assert found == {
        *((kind, "bank") for kind in KINDS | {"hand_over", "rebalance"}),
        *((kind, AMALGAMATOR) for kind in KINDS | {"double", "hand_over"}),
        ("kill", BROKER),
        ("pause", BROKER),
    }


def test_pauses_last_from_one_to_fifteen_seconds():
    """Around the session timeout of a group's member."""
    lengths = [
        fault.length_s for seed in range(20) for fault in drawn(seed) if fault.kind == "pause"
    ]
    assert min(lengths) >= 1.0
    assert max(lengths) <= 15.0
    assert max(lengths) > 13.0


def test_no_fault_is_a_plan_too_and_no_bank_is_none():
    """An undisturbed run through Kafka is how the suite itself is checked."""
    assert drawn(1, n=0) == []
    with pytest.raises(InvalidInputError, match="faults"):
        plan_faults(3, (), np.random.default_rng(1))


def test_a_plan_may_be_of_some_sorts_of_faults_alone():
    """To find out which of them it was."""
    faults = plan_faults(9, BANKS, np.random.default_rng(1), only=("kill-bank", "pause-broker"))
    assert {(fault.kind, fault.target) for fault in faults} == {
        ("kill", "a"),
        ("kill", "b"),
        ("pause", BROKER),
    }
    with pytest.raises(InvalidInputError, match="kill-bank"):
        plan_faults(9, BANKS, np.random.default_rng(1), only=("burn-bank",))
