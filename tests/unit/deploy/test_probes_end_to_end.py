"""Banks that run no scorecard and only answer probes: what the student is worth to them."""

import numpy as np
import pytest

from amalgamator.policy import ProbePolicy
from deploy.bank_rows import read_bank_rows
from deploy.runs import BankPlan, ConsortiumRun, RunPlan
from deploy.simulated_files import write_days
from deploy.simulator import SimulationConfig, simulate
from models.evaluation import average_precision
from tests.unit.deploy.small_backtest import DAY_MS, MAPPING

N_BANKS = 20
N_DAYS = 30
JUDGED_FROM = 20
FAMILY = "lightgbm {refit_d = 7, min_n = 600, min_frauds = 15}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return twenty small banks, each of which sees two or three frauds a day."""
    simulation = SimulationConfig(
        bank_shares=(1 / N_BANKS,) * N_BANKS,
        n_days=N_DAYS,
        n_customers=700,
        n_terminals=300,
        n_merchants=100,
        growth=0.0,
    )
    file = tmp_path_factory.mktemp("probes") / "small.parquet"
    names = [f"bank-{i}" for i in range(N_BANKS)]
    write_days(simulate(simulation, np.random.default_rng(3)), names, file)
    return read_bank_rows(file, MAPPING)


def mean_precision(data, logit, is_judged):
    """Return the banks' mean average precision, the prior where there is no score."""
    filled = np.nan_to_num(logit, nan=-4.5)
    of_banks = [is_judged & (data.bank == bank) for bank in range(len(data.names))]
    return np.mean([average_precision(data.is_fraud[of], filled[of]) for of in of_banks])


@pytest.mark.slow
def test_banks_that_only_answer_probes_learn_of_each_other(data):
    """In their third and fourth week the blend finds far more than their own LightGBM alone.

    Evidence is shared either way; the student brings what the others' models made of it.
    """
    plan = RunPlan(
        label_delay_s=3 * 86_400.0,
        cadence_s=86_400.0,
        usual=BankPlan(families=(FAMILY,), runs_scorecard=False, answers_probes=True),
        probes=ProbePolicy(n=6_000, renew_d=7, epochs=30),
    )
    run = ConsortiumRun(plan, data)
    found = run.run()
    assert np.isnan(found.own).all()
    assert np.isnan(found.merged).all()
    day = (data.batch.event_time_ms - data.batch.event_time_ms.min()) // DAY_MS
    is_judged = (day >= JUDGED_FROM) & found.is_scored
    alone = mean_precision(data, found.families["lightgbm"], is_judged)
    with_student = mean_precision(data, found.blend, is_judged)
    assert with_student > alone + 0.1
    parts = {key.part for key in run.amalgamator.state.newest}
    assert parts >= {"histograms", "moments", "evidence", "answers"}
    assert "statistics" not in parts
