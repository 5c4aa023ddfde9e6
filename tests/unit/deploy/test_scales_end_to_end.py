"""A bank that writes its attributes in scales of its own, in a consortium of one process."""

from dataclasses import replace

import numpy as np
import pytest

from deploy.bank_rows import BankRows
from deploy.other_scales import in_other_scales
from deploy.runs import BankPlan, ConsortiumRun, RunPlan
from models.evaluation import average_precision
from models.records import TransactionBatch

N, N_DAYS, DAY_MS = 30_000, 12, 86_400_000
PLAN = RunPlan(label_delay_s=2 * 86_400.0, cadence_s=86_400.0)
OTHER = BankPlan(has_own_scales=True)
UNKNOWN = replace(OTHER, are_scales_known=False)


def payments() -> BankRows:
    """Return those of a large and of a small bank; frauds follow three of six attributes.

    The attributes of the two are drawn alike, and nothing else says anything.
    """
    rng = np.random.default_rng(7)
    seen = rng.normal(size=(6, N))
    z = 2.0 * seen[0] + 2.0 * np.abs(seen[1]) + 2.0 * seen[2]
    seen[2] = np.exp(seen[2])
    names = np.array([f"p{i}" for i in range(N)])
    amount = np.round(rng.lognormal(3.0, 1.0, N), 2)
    batch = TransactionBatch(
        transaction_id=names,
        account_id=np.array([f"a{i}" for i in rng.integers(0, 3_000, N)]),
        event_time_ms=np.sort(rng.integers(0, N_DAYS * DAY_MS, N)) + 20_000 * DAY_MS,
        amount_minor=np.rint(amount * 100).astype(np.int64),
        amount=amount,
        currency=np.full(N, "EUR"),
        attributes={f"x{j}": column for j, column in enumerate(seen)},
    )
    return BankRows(
        batch=batch,
        is_fraud=z + rng.logistic(size=N) > 8.0,
        bank=(rng.random(N) < 0.3).astype(np.int64),
        names=("large", "small"),
        refused=(),
    )


DATA = payments()


def run_of(small: BankPlan) -> ConsortiumRun:
    run = ConsortiumRun(replace(PLAN, banks={"small": small}), DATA)
    run.run()
    return run


@pytest.fixture(scope="module")
def runs() -> dict[str, ConsortiumRun]:
    """Return the consortium where the small bank's scales are the others', are not, are found."""
    return {"same": run_of(BankPlan()), "unaligned": run_of(OTHER), "found": run_of(UNKNOWN)}


def ap_of(run: ConsortiumRun, scores: np.ndarray, bank: int) -> float:
    """Return the average precision of a bank's last four days."""
    late = DATA.batch.event_time_ms >= DATA.batch.event_time_ms.max() - 4 * DAY_MS
    rows = (DATA.bank == bank) & late & run.result.is_scored
    return average_precision(DATA.is_fraud[rows], scores[rows]) or 0.0


def test_what_another_scale_costs_the_merged_scorecard_is_mostly_given_back(
    runs: dict[str, ConsortiumRun],
) -> None:
    """At the small bank, whose values the large bank's bins do not fit."""
    same, lost, found = (
        ap_of(run, run.result.merged, 1) for run in (runs["same"], runs["unaligned"], runs["found"])
    )
    assert same - lost > 0.1
    assert found - lost > 0.8 * (same - lost)
    assert runs["found"].pipelines["small"].scales.ways() == {"pending": 0, "ranked": 6, "own": 0}


def test_the_own_scorecard_sees_values_as_they_are_written(
    runs: dict[str, ConsortiumRun],
) -> None:
    """To the bit what it gives where nothing is aligned: its bins are its own."""
    own = DATA.bank == 1
    found, unaligned = runs["found"].result, runs["unaligned"].result
    assert np.isfinite(found.own[own]).any()
    assert np.array_equal(found.own[own], unaligned.own[own], equal_nan=True)


def test_the_large_bank_is_not_misled(runs: dict[str, ConsortiumRun]) -> None:
    """It is served as well by what a bank publishes by rank as by what it would in one scale."""
    same, found = (ap_of(runs[name], runs[name].result.merged, 0) for name in ("same", "found"))
    assert found > 0.98 * same


def test_every_other_scale_rises_and_what_is_absent_stays_so() -> None:
    """Numbers alone are written otherwise."""
    batch = DATA.batch.take(np.arange(500))
    columns = dict(batch.attributes) | {"gone": np.full(500, np.nan)}
    written = in_other_scales(replace(batch, attributes=columns)).attributes
    assert np.isnan(written["gone"]).all()
    for name, column in batch.attributes.items():
        order = np.argsort(column)
        assert (np.diff(np.asarray(written[name])[order]) > 0).all()
        assert not np.allclose(np.asarray(written[name]), column)
