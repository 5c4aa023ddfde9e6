"""Nets of banks through the whole consortium in one process: what the merged one is worth."""

import numpy as np
import pytest

from deploy.bank_rows import read_bank_rows
from deploy.runs import BankPlan, ConsortiumRun, RunPlan
from deploy.scenarios import FraudRates
from deploy.simulated_files import write_days
from deploy.simulator import SimulationConfig, simulate
from models.evaluation import average_precision
from stream.experts import LearningPolicy
from tests.unit.deploy.small_backtest import DAY_MS, MAPPING

pytestmark = pytest.mark.slow

BANKS = ("first", "second", "third", "fourth")
N_DAYS = 16
JUDGED_FROM = 9
MLP = "mlp {min_n = 300, min_frauds = 8, batch_n = 64, learning_rate = 0.002}"
PLAN = RunPlan(
    label_delay_s=2 * 86_400.0,
    cadence_s=86_400.0,
    tick_s=21_600.0,
    learning=LearningPolicy(first_n=600, first_frauds=15),
    usual=BankPlan(families=(MLP,)),
    banks={"fourth": BankPlan()},
    merges_nets=True,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return four banks that share terminals with frauds."""
    simulation = SimulationConfig(
        bank_shares=(0.25,) * 4,
        n_days=N_DAYS,
        n_customers=500,
        n_terminals=150,
        n_merchants=40,
        growth=0.0,
        rates=FraudRates(terminals=2.0, customers=6.0, card_testing=2.0),
    )
    file = tmp_path_factory.mktemp("nets") / "small.parquet"
    write_days(simulate(simulation, np.random.default_rng(3)), BANKS, file)
    return read_bank_rows(file, MAPPING)


@pytest.fixture(scope="module")
def releases():
    """Return where the run puts its releases."""
    return []


@pytest.fixture(scope="module")
def done(data, releases):
    """Return a run by the plan, and what it gave."""
    run = ConsortiumRun(PLAN, data, on_release=releases.append)
    return run, run.run()


def precision(data, found, logit, banks):
    """Return the mean average precision of banks in the second half, the prior for no score."""
    day = (data.batch.event_time_ms - data.batch.event_time_ms.min()) // DAY_MS
    filled = np.nan_to_num(logit, nan=-4.5)
    judged = [(day >= JUDGED_FROM) & found.is_scored & (data.bank == bank) for bank in banks]
    return np.mean([average_precision(data.is_fraud[of], filled[of]) for of in judged])


def test_members_publish_nets_and_releases_carry_their_mean(done, releases):
    """Of the three banks that run one, for the basis in force once all have passed to it."""
    run, _ = done
    held = {key.member for key in run.amalgamator.state.newest if key.part == "net"}
    assert held == {"first", "second", "third"}
    with_net = [release for release in releases if release.net is not None]
    assert len(with_net) >= N_DAYS // 2 - 2
    last = releases[-1]
    assert last.net.summary.basis == last.net.basis.number
    assert last.basis.number - last.net.basis.number <= 1
    parameters = {release.net.summary.flat.tobytes() for release in with_net}
    assert len(parameters) > len(with_net) / 2


def test_the_merged_net_finds_more_than_each_bank_s_own(data, done):
    """On payments that it has not seen, from the tenth day on."""
    _, found = done
    merged, own = (
        precision(data, found, found.families[name], range(3)) for name in ("mlp_merged", "mlp")
    )
    assert merged > own + 0.03


def test_a_bank_without_a_net_has_the_merged_one(data, done):
    """It publishes none, and is scored by what the others made as they are."""
    run, found = done
    assert run.pipelines["fourth"].panel.names == ("own", "merged", "mlp_merged")
    assert run.pipelines["fourth"].panel.net is None
    scored = found.families["mlp_merged"][(data.bank == 3) & found.is_scored]
    assert np.isnan(scored[0])
    assert np.isfinite(scored[-200:]).all()
    of_fourth, of_others = (
        precision(data, found, found.families["mlp_merged"], banks) for banks in ([3], range(3))
    )
    assert of_fourth > 0.6 * of_others
