"""The stream of the benchmark of recovery: a warm bank, then as many accounts as are wanted."""

import numpy as np
import pytest

from deploy.bench import recovery
from deploy.bench.bank import BenchStream
from models.records import TransactionBatch

SIZES = {"_PLAIN": 4, "_LOAD": 20, "_DISTURBED": 6, "_PROBES": 4, "_BACKLOG": 10, "_TIMES": 10}
WARM = 3


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[BenchStream, BenchStream, recovery.Plan]:
    """Return a simulated stream, what is made of it, and the plan, all of them tiny."""
    for name, value in {**SIZES, "ACCOUNTS": 15}.items():
        monkeypatch.setattr(recovery, name, value)
    n = WARM + recovery.config_of().backlog
    batch = TransactionBatch(
        transaction_id=[f"T{i}" for i in range(n)],
        account_id=[f"A{i % 2}" for i in range(n)],
        event_time_ms=np.arange(n, dtype=np.int64) * 1_000,
        amount_minor=np.arange(n, dtype=np.int64),
        amount=np.arange(n, dtype=np.float64),
        currency=["EUR"] * n,
    )
    given = BenchStream(batch, np.arange(n) % 3 == 0)
    stream, plan = recovery.many_accounts(given, WARM)
    return given, stream, plan


def test_the_bank_is_as_simulated_up_to_its_first_backlog(made) -> None:
    """Then each payment is made ten times, in the order of time, by accounts in turn."""
    given, stream, plan = made
    kept = WARM + SIZES["_PLAIN"]
    assert stream.batch.rows(slice(0, kept)).transaction_id == given.batch.transaction_id[:kept]
    assert stream.batch.account_id[:kept] == given.batch.account_id[:kept]
    late = stream.batch.rows(slice(kept, len(stream.batch)))
    assert len(late) == 10 * (len(given.batch) - kept)
    assert np.all(np.diff(stream.batch.event_time_ms) >= 0)
    assert late.account_id[:15] == [f"M{i:07d}" for i in range(15)]
    assert set(late.account_id[plan.load.start - kept : plan.load.stop - kept]) == {
        f"M{i:07d}" for i in range(15)
    }
    assert len(set(stream.batch.transaction_id)) == len(stream.batch)
    assert stream.is_fraud[kept:].tolist() == np.repeat(given.is_fraud[kept:], 10).tolist()


def test_every_row_after_the_warm_up_has_its_part_in_the_plan(made) -> None:
    """One part after the other, as long as it is to be."""
    _, stream, plan = made
    parts = (plan.plain, plan.load, plan.disturbed, plan.probes, plan.backlog)
    wanted = [SIZES[n] for n in ("_PLAIN", "_LOAD", "_DISTURBED", "_PROBES", "_BACKLOG")]
    assert [part.stop - part.start for part in parts] == wanted
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert parts[0].start == WARM
    assert parts[-1].stop <= len(stream.batch)
