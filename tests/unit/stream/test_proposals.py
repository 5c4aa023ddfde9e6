"""When trees are grown: of enough rows, with outcomes of both kinds."""

from dataclasses import replace

import numpy as np
import pytest

from models.basis import Basis
from models.families.registry import make_families
from models.matured import Matured
from stream.proposals import ProposalPolicy, Proposer
from tests.contract.test_families import BASIS, FIRST

POLICY = ProposalPolicy(period_d=7, n_trees=3, min_n=100, min_frauds=10)


def a_proposer(policy: ProposalPolicy = POLICY) -> Proposer:
    return Proposer(make_families(["lightgbm"], seed=1), policy)


def end_day(proposer: Proposer, day: int, basis: Basis | None, retained: Matured) -> None:
    """Have trees grown where it is time to."""
    if growers := proposer.due(day, basis):
        proposer.take_up(proposer.grown(growers, retained), day, basis)


def test_trees_are_proposed_once_a_period() -> None:
    """And told once, of the basis that they were grown on."""
    proposer = a_proposer()
    for day in (7, 8, 13):
        end_day(proposer, day, BASIS, FIRST)
        assert (proposer.period, proposer.basis) == (1, BASIS.number)
        assert (proposer.take() is not None) is (day == 7)
    end_day(proposer, 14, BASIS, FIRST)
    assert proposer.take() is not None


@pytest.mark.parametrize("changes", [{"n_trees": 0}, {"min_n": 10**6}, {"min_frauds": 10**6}])
def test_without_trees_to_grow_or_enough_rows_nothing_is_proposed(changes: dict[str, int]) -> None:
    """Nor without a basis."""
    proposer = a_proposer(replace(POLICY, **changes))
    end_day(proposer, 7, BASIS, FIRST)
    assert proposer.take() is None
    proposer = a_proposer()
    end_day(proposer, 7, None, FIRST)
    assert proposer.take() is None


def test_while_frauds_alone_have_matured_nothing_is_proposed() -> None:
    """As at a bank that hears of them before its horizon has passed for the first time."""
    proposer = a_proposer()
    frauds = FIRST.take(np.flatnonzero(FIRST.is_fraud))
    many = frauds.take(np.arange(500) % len(frauds))
    end_day(proposer, 7, BASIS, many)
    assert proposer.take() is None
    end_day(proposer, 8, BASIS, FIRST)
    assert proposer.take() is not None
