"""When trees are grown: of enough rows, with outcomes of both kinds."""

from dataclasses import replace

import numpy as np
import pytest

from models.families.registry import make_families
from stream.proposals import ProposalPolicy, Proposer
from tests.contract.test_families import BASIS, FIRST

POLICY = ProposalPolicy(period_d=7, n_trees=3, min_n=100, min_frauds=10)


def a_proposer(policy: ProposalPolicy = POLICY) -> Proposer:
    return Proposer(make_families(["lightgbm"], seed=1), policy)


def test_trees_are_proposed_once_a_period() -> None:
    """And told once, of the basis that they were grown on."""
    proposer = a_proposer()
    for day in (7, 8, 13):
        proposer.end_day(day, BASIS, lambda: FIRST)
        assert (proposer.period, proposer.basis) == (1, BASIS.number)
        assert (proposer.take() is not None) is (day == 7)
    proposer.end_day(14, BASIS, lambda: FIRST)
    assert proposer.take() is not None


@pytest.mark.parametrize("changes", [{"n_trees": 0}, {"min_n": 10**6}, {"min_frauds": 10**6}])
def test_without_trees_to_grow_or_enough_rows_nothing_is_proposed(changes: dict[str, int]) -> None:
    """Nor without a basis."""
    proposer = a_proposer(replace(POLICY, **changes))
    proposer.end_day(7, BASIS, lambda: FIRST)
    assert proposer.take() is None
    proposer = a_proposer()
    proposer.end_day(7, None, lambda: FIRST)
    assert proposer.take() is None


def test_while_frauds_alone_have_matured_nothing_is_proposed() -> None:
    """As at a bank that hears of them before its horizon has passed for the first time."""
    proposer = a_proposer()
    frauds = FIRST.take(np.flatnonzero(FIRST.is_fraud))
    many = frauds.take(np.arange(500) % len(frauds))
    proposer.end_day(7, BASIS, lambda: many)
    assert proposer.take() is None
    proposer.end_day(8, BASIS, lambda: FIRST)
    assert proposer.take() is not None
