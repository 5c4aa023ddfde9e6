"""Runs by plan: a bank that joins late, one that is away, families of models, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from deploy.bank_rows import read_bank_rows
from deploy.runs import BankPlan, ConsortiumRun, RunPlan
from models.errors import InvalidInputError
from stream.experts import LearningPolicy
from stream.proposals import ProposalPolicy
from tests.unit.deploy.small_backtest import BANKS, DAY_MS, DELAY_D, MAPPING, write_small

NORTH, SOUTH = BANKS
LEARNING = LearningPolicy(first_n=800, first_frauds=10)
PLAN = RunPlan(label_delay_s=DELAY_D * 86_400.0, cadence_s=86_400.0, learning=LEARNING)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return the rows that the tests share."""
    file = write_small(tmp_path_factory.mktemp("runs") / "small.parquet")
    return read_bank_rows(file, MAPPING)


@pytest.fixture(scope="module")
def usual(data):
    """Return the run without anything special."""
    return ConsortiumRun(PLAN, data).run()


def first_day(data):
    """Return midnight of the first day."""
    return int(data.batch.event_time_ms[0]) // DAY_MS * DAY_MS


def test_a_bank_that_joins_late_has_no_past_and_a_score_at_once(data, usual):
    """Rows before are not scored; from its first payment on the merged scorecard speaks."""
    joins_ms = first_day(data) + 6 * DAY_MS
    plan = replace(PLAN, banks={SOUTH: BankPlan(joins_ms=joins_ms)})
    found = ConsortiumRun(plan, data).run()
    of_south = data.bank == BANKS.index(SOUTH)
    early = data.batch.event_time_ms < joins_ms
    assert not found.is_scored[of_south & early].any()
    assert found.is_scored[of_south & ~early].all()
    assert np.isfinite(found.merged[of_south & ~early]).all()
    assert usual.is_scored.all()


def test_while_a_bank_is_away_the_others_go_on_and_it_keeps_its_last_release(data, usual):
    """Scores differ only from its absence on; nobody waits, and it comes back."""
    away = (first_day(data) + 5 * DAY_MS, first_day(data) + 8 * DAY_MS)
    run = ConsortiumRun(replace(PLAN, banks={SOUTH: BankPlan(away_ms=away)}), data)
    found = run.run()
    before = data.batch.event_time_ms < away[0]
    np.testing.assert_array_equal(found.merged[before], usual.merged[before])
    assert not np.array_equal(found.merged[~before], usual.merged[~before], equal_nan=True)
    assert found.n_releases == usual.n_releases
    assert run.pipelines[SOUTH].release_age == run.pipelines[NORTH].release_age


@pytest.mark.slow
def test_families_are_experts_and_their_trees_enter_the_basis(data):
    """LightGBM scores beside the scorecards; its proposals become transforms of all."""
    family = "lightgbm {n_trees = 10, min_n = 300, min_frauds = 5, refit_d = 2}"
    plan = replace(
        PLAN,
        usual=BankPlan(families=(family,)),
        proposing=ProposalPolicy(period_d=3, n_trees=4, min_n=300, min_frauds=5),
        structure=replace(PLAN.structure, period_d=3, grace_d=1),
    )
    run = ConsortiumRun(plan, data)
    run.run()
    panel = run.pipelines[NORTH].panel
    assert panel.names == ("own", "merged", "lightgbm")
    rows = run.pipelines[NORTH].log.scores
    assert np.isfinite(rows[-1]).all()
    assert panel.shared.basis is not None
    assert len(panel.shared.basis.trees) > 0


@pytest.mark.slow
def test_personal_weights_are_one_more_expert_and_change_no_other(data, usual):
    """Releases carry a row for each bank; the bank reads its own. Other columns stay to the bit."""
    run = ConsortiumRun(replace(PLAN, kappa=3.0), data)
    found = run.run()
    personal = found.families["personal"]
    np.testing.assert_array_equal(found.own, usual.own)
    np.testing.assert_array_equal(found.merged, usual.merged)
    np.testing.assert_array_equal(np.isnan(personal), np.isnan(found.merged))
    is_there = np.isfinite(personal)
    differs = np.abs(personal - found.merged)[is_there]
    assert np.median(differs) > 0.01
    release = run.amalgamator.previous
    assert release.personal.members == BANKS
    held = [run.pipelines[bank].panel.shared.personal for bank in BANKS]
    np.testing.assert_array_equal(held, release.personal.weights)
    assert run.amalgamator.refold().release_id == found.release_id


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Return rows of two banks, the second so small that the others change the basis without it."""
    file = tmp_path_factory.mktemp("unequal") / "small.parquet"
    return read_bank_rows(write_small(file, n_days=13, shares=(0.85, 0.15)), MAPPING)


def away_through_a_change_of_the_basis(data, n_former):
    """Run with the small bank away from the eighth day on, while the other's trees come."""
    family = "lightgbm {n_trees = 10, min_n = 300, min_frauds = 5, refit_d = 2}"
    plan = replace(
        PLAN,
        learning=replace(LEARNING, growth=50.0),  # edges stay, only trees change
        usual=BankPlan(families=(family,)),
        banks={SOUTH: BankPlan(away_ms=(first_day(data) + 7 * DAY_MS, 2**53))},
        proposing=ProposalPolicy(period_d=4, n_trees=4, min_n=300, min_frauds=5),
        structure=replace(PLAN.structure, period_d=4, grace_d=1),
        trust=None,
        n_former=n_former,
    )
    run = ConsortiumRun(plan, data)
    run.run()
    return run.amalgamator


def weights_without_south(amalgamator):
    """Return the weights of the last release as if the bank had never spoken."""
    left = {name: one for name, one in amalgamator.registry.members.items() if name != SOUTH}
    amalgamator.set_registry(replace(amalgamator.registry, members=left))
    return amalgamator.refold().weights


@pytest.mark.slow
def test_a_bank_that_is_away_while_the_basis_changes_still_counts(unequal):
    """What it published for the basis before is embedded; without that it is as if not there."""
    amalgamator = away_through_a_change_of_the_basis(unequal, n_former=2)
    release = amalgamator.previous
    published = {
        held.contribution.basis
        for key, held in amalgamator.state.newest.items()
        if (key.member, key.part) == (SOUTH, "statistics")
    }
    assert len(published) == 1
    assert published <= {former.basis.number for former in release.former}
    assert release.basis.number > max(published)
    assert len(release.basis.trees) > 0
    assert amalgamator.refold().release_id == release.release_id
    assert np.abs(weights_without_south(amalgamator) - release.weights).max() > 0.01
    off = away_through_a_change_of_the_basis(unequal, n_former=0)
    assert off.previous.basis.number == release.basis.number
    last = off.previous.weights
    np.testing.assert_array_equal(weights_without_south(off), last)


def test_a_plan_for_a_bank_that_is_not_there_is_refused(data):
    """The message names it and those that are."""
    with pytest.raises(InvalidInputError, match="bank-1, bank-2, got nowhere"):
        ConsortiumRun(replace(PLAN, banks={"nowhere": BankPlan()}), data)
