"""How fast a worker of a million accounts is back, and what its durability costs.

A bank that is warm gets payments of a million accounts and its worker is killed with -9 under load:
then it starts again on its own disk, and once more on an empty one, from its changelog. The time
counts from the start of the process until it says that it is ready and has answered a payment that
was made after that. Disk, cluster and process are on one machine, so nothing travels far, and what
was written last is in the machine's memory.

What durability costs is processor time of the worker alone, not of the cluster: the same backlog
from the same state, with checkpoints to disk and changelog as by default, and with neither. It is
measured twice: at the bank of the other benchmarks, and at that of a million accounts, where hardly
two payments between checkpoints are of accounts that lie on one page.
"""

import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from deploy.bench.bank import (
    BANK,
    PARTITIONS,
    BenchBank,
    BenchConfig,
    BenchStream,
    DecisionLog,
    cpu_s,
    wait_until,
)
from deploy.bench.stopwatch import WARM_SHARE
from deploy.kafka_server import free_port
from deploy.services import Service, Services
from deploy.topics import bank_plan, create_topics
from models.errors import UnavailableError
from stream.store import STORE, StateStore

ACCOUNTS = 1_000_000
_TIMES = 10  # payments that are made of one simulated payment
_LOAD = 1_100_000
_DISTURBED = 40_000
_BACKLOG = 400_000
_PLAIN = 200_000
_WARM = 240_000
_PROBES = 10
_ROUNDS = 3
_TIMEOUT_S = 600.0
_SAMPLE_S = 0.02
_PROBE_TIMEOUT_S = 300.0
_SETTLE_S = 10.0
_NEVER_S = "1000000"
_DURABLE = {"AMALGAM_STREAM_CHANGELOG": "true"}
_CARELESS = {"AMALGAM_STREAM_CHANGELOG": "false", "AMALGAM_STREAM_CHECKPOINT_S": _NEVER_S}


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
        During which the worker is killed.
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


class Rig:
    """The bank's worker alone, started and killed at will.

    Parameters
    ----------
    bank
        Warm, with the stream of many accounts.
    """

    def __init__(self, bank: BenchBank) -> None:
        self.bank = bank
        self.state_dir = bank.settings.parent / "state"

    @contextmanager
    def worker(self, added: Mapping[str, str], state_dir: Path | None = None) -> Iterator[Service]:
        """Start a worker, ready or not; it is killed at the end of the block."""
        services = Services(self.bank.directory / "logs")
        port = str(free_port())
        environment = {
            "AMALGAM_STREAM_HEALTH_PORT": port,
            "HEALTH_PORT": port,
            "AMALGAM_STREAM_STATE_DIR": str(state_dir or self.state_dir),
            **added,
        }
        arguments = ["--settings", str(self.bank.settings)]
        service = services.start("recovery", "stream", arguments, environment)
        try:
            yield service
        finally:
            service.process.kill()
            service.process.wait()

    def ready(self, service: Service) -> None:
        """Wait until a worker is ready."""
        until_s = time.monotonic() + _PROBE_TIMEOUT_S
        while not service.is_ready():
            _check(service, until_s, "ready")
            time.sleep(_SAMPLE_S)

    def recovered_s(self, row: int, state_dir: Path | None = None) -> float:
        """Start a worker and return the seconds until it is ready and has answered a payment.

        The payment is sent when the process has been started. What it had answered before it was
        killed comes again first.
        """
        probe = slice(row, row + 1)
        wanted = self.bank.stream.batch.transaction_id[row]
        answers = Answers(self.bank.bootstrap)
        try:
            began_s = time.perf_counter()
            until_s = time.monotonic() + _PROBE_TIMEOUT_S
            with self.worker(_DURABLE, state_dir) as service:
                self.bank.send(probe)
                is_ready = False
                while not (is_ready and answers.has(wanted)):
                    _check(service, until_s, "an answer")
                    is_ready = is_ready or service.is_ready()
                    time.sleep(_SAMPLE_S)
                took_s = time.perf_counter() - began_s
                time.sleep(_SETTLE_S)  # so that what comes next begins with everything stored
                return took_s
        finally:
            answers.close()


def _check(service: Service, until_s: float, what: str) -> None:
    if service.process.poll() is not None:
        raise UnavailableError(f"the worker ended, see {service.log}")
    if time.monotonic() > until_s:
        raise UnavailableError(f"expected {what} in time")


class _Answer(msgspec.Struct):
    transaction_id: str


class Answers:
    """Ids of the decisions that come from now on.

    Parameters
    ----------
    bootstrap
        Of the broker.
    """

    def __init__(self, bootstrap: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap)
        places = [TopicPartition(f"{BANK}.decisions", p) for p in range(PARTITIONS)]
        self._consumer.assign(places)
        self._consumer.seek_to_end(*places)
        for place in places:
            self._consumer.position(place)
        self._decode = msgspec.json.Decoder(_Answer).decode
        self._found: set[str] = set()

    def has(self, transaction_id: str) -> bool:
        """Return whether a payment has been answered."""
        polled: Mapping[object, Sequence[object]] = self._consumer.poll(timeout_ms=20)
        for records in polled.values():
            for record in records:
                self._found.add(self._decode(getattr(record, "value", b"")).transaction_id)
        return transaction_id in self._found

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close(autocommit=False, timeout_ms=5_000)


def measure_recovery(bank: BenchBank, plan: Plan) -> dict[str, float]:
    """Return the figures; the bank is warm.

    ``restart_1m_accounts_s`` and ``takeover_s`` are from the start of the process to its first new
    answer; ``durability_us_per_tx``, and ``durability_1m_us_per_tx`` with all accounts, are the
    medians of the rounds' differences in processor time of a payment, with and without checkpoints
    and changelog.
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
    with DecisionLog(bank.bootstrap) as log, rig.worker(_DURABLE) as service:
        before = log.end() + _PLAIN  # which it has not read yet
        rig.ready(service)
        for start in range(plan.load.start, plan.load.stop, _LOAD // 10):
            bank.send(slice(start, start + _LOAD // 10))
            done = before + start + _LOAD // 10 - plan.load.start
            wait_until(lambda done=done: log.end() >= done, "decisions")  # type: ignore[misc]  # bound default
        time.sleep(_SETTLE_S)
        accounts = _sample(service, "amalgam_stream_accounts")
        bank.send(plan.disturbed)
        wait_until(lambda: log.end() > before + _LOAD + _DISTURBED // 4, "the first of the rest")
        return accounts


def _sample(service: Service, name: str) -> float:
    with urlopen(f"{service.url}/metrics", timeout=5) as answer:  # noqa: S310  # own address
        lines: list[str] = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


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


def measure_durability(rig: Rig, state_dir: Path, rows: slice, name: str) -> dict[str, float]:
    """Return what checkpoints and changelog cost of each payment of a backlog.

    Every run starts from a copy of one state; the changelog begins anew and is filled before the
    backlog is read, which is not counted.
    """
    rig.bank.send(rows)
    found: dict[str, list[float]] = {"durable": [], "careless": []}
    for i in range(_ROUNDS):
        for way, added in (("durable", _DURABLE), ("careless", _CARELESS)):
            copy = rig.bank.directory / "copy"
            shutil.copytree(state_dir, copy)
            _new_changelog(rig.bank.bootstrap)
            found[way].append(_backlog_us(rig, copy, added, rows))
            shutil.rmtree(copy)
            _told(f"{name}: round {i + 1}, {way}, us a payment", found[way][-1])
    pairs = zip(found["durable"], found["careless"], strict=True)
    return {
        f"{name}_us_per_tx": median(durable - careless for durable, careless in pairs),
        f"{name}_with_us_per_tx": median(found["durable"]),
        f"{name}_without_us_per_tx": median(found["careless"]),
    }


def _new_changelog(bootstrap: str) -> None:
    plan = [one for one in bank_plan(BANK, partitions=PARTITIONS) if "changelog" in one.name]
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.delete_topics([one.name for one in plan])
        wait_until(lambda: plan[0].name not in admin.list_topics(), "the changelog deleted")
    finally:
        admin.close()
    create_topics(bootstrap, plan)


def _backlog_us(rig: Rig, state_dir: Path, added: Mapping[str, str], rows: slice) -> float:
    """Return the worker's processor microseconds a payment, from a fifth of them to the last."""
    wanted = rows.stop - rows.start
    with DecisionLog(rig.bank.bootstrap) as log, rig.worker(added, state_dir) as service:
        before, until_s, marks = log.end(), time.monotonic() + _TIMEOUT_S, []
        for share in (WARM_SHARE, 1.0):
            while (done := log.end() - before) < int(wanted * share):
                _check(service, until_s, "decisions")
                time.sleep(_SAMPLE_S)
            marks.append((done, cpu_s(service.process.pid)))
    (first, first_s), (last, last_s) = marks
    return (last_s - first_s) / (last - first) * 1e6
