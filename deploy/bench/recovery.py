"""How fast a worker of a million accounts is back, and what its durability costs.

A bank that is warm gets payments of a million accounts and its worker is killed with -9 under load,
with a minute's payments at 3,000 a second answered and not stored: then it starts again on its own
disk, and once more on an empty one, from its changelog, and repeats them both times. The time
counts from the start of the process until it says that it is ready and has answered a payment that
was made after that. Disk, cluster and process are on one machine, so nothing travels far, and what
was written last is in the machine's memory.

What durability costs (`durability`) is measured twice: at the bank of the other benchmarks, and at
that of a million accounts, where hardly two payments between checkpoints are of accounts that lie
on one page.
"""

import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from deploy.bench.bank import BenchBank, BenchConfig, BenchStream, DecisionLog, wait_until
from deploy.bench.durability import measure_durability
from deploy.bench.rig import DURABLE, Rig
from models.errors import UnavailableError
from stream.store import STORE, StateStore

ACCOUNTS = 1_000_000
_TIMES = 10  # payments that are made of one simulated payment
_LOAD = 1_100_000
_DISTURBED = 200_000
_REPEATED = 180_000  # what comes in a minute, the longest time between checkpoints, at 3,000/s
_BACKLOG = 1_000_000
_PLAIN = 1_000_000
_WARM = 240_000
_PROBES = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of the stream after the warm-up.

    Parameters
    ----------
    plain
        Backlog of the comparison at the bank as it is.
    load
        Payments after which the state holds all accounts.
    disturbed
        Of which the worker has answered most, and stored none, when it is killed.
    probes
        One for each start.
    backlog
        Of the comparison with all accounts.
    """

    plain: slice
    load: slice
    disturbed: slice
    probes: slice
    backlog: slice


def config_of() -> BenchConfig:
    """Return how much is simulated; the rest is made of it."""
    rest = _LOAD + _DISTURBED + _PROBES + _BACKLOG
    backlog = _PLAIN + -(-rest // _TIMES)
    return BenchConfig(payments_per_day=0.4, warm=_WARM, backlog=backlog, rounds=1)


def many_accounts(stream: BenchStream, warm: int) -> tuple[BenchStream, Plan]:
    """Return a stream whose payments after warm-up and first backlog are of a million accounts.

    Each simulated payment is made ten times, by ten accounts in turn.
    """
    n, kept = len(stream.batch), warm + _PLAIN
    rows = np.concatenate([np.arange(kept), np.repeat(np.arange(kept, n), _TIMES)])
    batch = stream.batch.take(rows)
    late = range(len(rows) - kept)
    renamed = replace(
        batch,
        transaction_id=[*batch.transaction_id[:kept], *(f"R{i:08d}" for i in late)],
        account_id=[*batch.account_id[:kept], *(f"M{i % ACCOUNTS:07d}" for i in late)],
    )
    edges = np.cumsum([warm, _PLAIN, _LOAD, _DISTURBED, _PROBES, _BACKLOG]).tolist()
    plan = Plan(*(slice(first, end) for first, end in pairwise(edges)))
    return BenchStream(renamed, stream.is_fraud[rows]), plan


def measure_recovery(bank: BenchBank, plan: Plan) -> dict[str, float]:
    """Return the figures; the bank is warm.

    ``restart_1m_accounts_s`` and ``takeover_s`` are from the start of the process to its first new
    answer; ``durability_us_per_tx``, and ``durability_1m_us_per_tx`` with all accounts, processor
    time of checkpoints and changelog.
    """
    rig = Rig(bank)
    durability = measure_durability(rig, rig.state_dir, plan.plain, "durability")
    accounts = _load(rig, plan)
    figures = {"recovery_accounts": accounts, "recovery_state_mb": _state_mb(rig.state_dir)}
    figures["restart_1m_accounts_s"] = _told("restart", rig.recovered_s(plan.probes.start))
    elsewhere = bank.directory / "elsewhere"
    figures["takeover_s"] = _told("takeover", rig.recovered_s(plan.probes.start + 1, elsewhere))
    large = measure_durability(rig, elsewhere, plan.backlog, "durability_1m")
    return figures | durability | large


def _told(name: str, value: float) -> float:
    sys.stdout.write(f"{name}: {value:.2f}\n")
    sys.stdout.flush()
    return value


def _load(rig: Rig, plan: Plan) -> float:
    """Have a worker learn all accounts, kill it under load, and return how many it knew."""
    bank = rig.bank
    with DecisionLog(bank.bootstrap) as log, rig.worker(DURABLE) as service:
        before = log.end() + _PLAIN  # which it has not read yet
        rig.ready(service)
        for start in range(plan.load.start, plan.load.stop, _LOAD // 10):
            bank.send(slice(start, start + _LOAD // 10))
            done = before + start + _LOAD // 10 - plan.load.start
            wait_until(lambda done=done: log.end() >= done, "decisions")  # type: ignore[misc]  # bound default
        rig.stored(service)
        accounts = service.metrics()["amalgam_stream_accounts"]
        bank.send(plan.disturbed)
        wait_until(lambda: log.end() > before + _LOAD + _REPEATED, "most of the rest")
        return accounts


def _state_mb(state_dir: Path) -> float:
    """Return the size of a stored state's arrays."""
    store = StateStore(state_dir / STORE, is_read_only=True)
    try:
        checkpoint, _ = store.read()
    finally:
        store.close()
    if checkpoint is None:
        raise UnavailableError("expected a stored state, found none")
    return sum(array.nbytes for array in checkpoint.arrays.values()) / 1e6
