"""A host at work on fakes: what it tells the world, and that it leaves no worker behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from models.errors import UnavailableError
from stream.host import host as module
from stream.host.core import HostPolicy
from stream.host.host import Host
from stream.host.telemetry import HostTelemetry


class Group:
    """A group that says what a test says."""

    def __init__(self) -> None:
        self.workers: frozenset[str] | None = None
        self.is_ours = True
        self.is_there = True
        self.lost = asyncio.Event()

    async def run(self) -> None:
        await self.lost.wait()
        raise UnavailableError("the client's coordination has ended")

    async def has(self, worker: str) -> bool:
        return self.is_ours

    def is_in_touch(self) -> bool:
        return self.is_there


class Processes:
    """Processes that end when they are asked to, or when a test says so."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.log: list[tuple[str, str]] = []
        self.is_stubborn = False
        self.whys: dict[str, str] = {}
        self.ends: list[tuple[str, int]] = []

    def start(self, worker: str) -> int:
        assert worker not in self.running
        self.running.add(worker)
        self.log.append(("start", worker))
        return 1

    def terminate(self, worker: str) -> None:
        self.log.append(("terminate", worker))
        if not self.is_stubborn:
            self.end(worker, 0)

    def kill(self, worker: str) -> None:
        self.log.append(("kill", worker))
        self.end(worker, -9)

    def end(self, worker: str, code: int) -> None:
        self.running.discard(worker)
        self.ends.append((worker, code))

    def ended(self) -> list[tuple[str, int]]:
        found, self.ends = self.ends, []
        return found

    def unready(self, worker: str) -> str | None:
        return self.whys.get(worker)


class Copies:
    """Copies that are handed over when a test lets them."""

    def __init__(self) -> None:
        self.followed: set[str] = set()
        self.may_go = asyncio.Event()
        self.is_closed = False

    def follow(self, worker: str) -> None:
        self.followed.add(worker)

    def lag(self, worker: str) -> int:
        return 7 if worker in self.followed else 0

    async def hand_over(self, worker: str) -> None:
        await self.may_go.wait()
        self.followed.discard(worker)

    async def close(self) -> None:
        self.is_closed = True


class Side:
    """A host between fakes."""

    def __init__(self, copies: Copies | None = None) -> None:
        self.registry = CollectorRegistry()
        self.group, self.processes = Group(), Processes()
        telemetry = HostTelemetry(self.registry, ("0", "1"))
        clock = asyncio.get_running_loop().time
        policy = HostPolicy(first_s=0.01, stop_s=0.05)
        self.host = Host(
            self.group, self.processes, telemetry, copies=copies, clock=clock, policy=policy
        )
        self.stopped = asyncio.Event()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"amalgam_stream_host_{name}", labels)

    async def until(self, what, expected=None) -> None:  # a function
        async with asyncio.timeout(5.0):
            while what() != expected:  # noqa: ASYNC110  # no event for it
                await asyncio.sleep(0.005)


@pytest.fixture
async def side(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Side]:
    """Return a host that runs, fast."""
    monkeypatch.setattr(module, "_TURN_S", 0.002)
    monkeypatch.setattr(module, "_PROBE_EVERY_S", 0.002)
    one = Side()
    running = asyncio.create_task(one.host.run(one.stopped))
    yield one
    one.stopped.set()
    with contextlib.suppress(UnavailableError):
        await asyncio.wait_for(running, 5.0)
    assert one.processes.running == set()


async def test_a_host_is_ready_when_all_that_is_assigned_here_is(side: Side) -> None:
    """It says which worker is not, and why."""
    why = side.host.unready
    assert why() == "the group of hosts has not said yet what runs here"
    side.processes.whys["1"] = "no partitions assigned yet"
    side.group.workers = frozenset({"0", "1"})
    await side.until(why, "worker 1: no partitions assigned yet")
    assert side.value("worker_running", worker="1") == 1.0
    await side.until(lambda: side.value("worker_ready", worker="1"), 0.0)
    del side.processes.whys["1"]
    await side.until(why)
    await side.until(lambda: side.value("worker_ready", worker="1"), 1.0)
    side.group.is_there = False
    assert why() == "the bank's cluster is not reached"


async def test_a_host_without_workers_is_ready(side: Side) -> None:
    """It waits for others to leave."""
    side.group.workers = frozenset()
    await side.until(side.host.unready)
    assert side.processes.log == []


@pytest.mark.parametrize(("code", "kind"), [(2, "settings"), (3, "state")])
async def test_a_worker_that_stays_down_is_told_loudly(
    side: Side, caplog: pytest.LogCaptureFixture, code: int, kind: str
) -> None:
    """By a line, a metric and readiness; the other worker goes on."""
    side.group.workers = frozenset({"0", "1"})
    await side.until(side.host.unready)
    side.processes.end("0", code)
    await side.until(lambda: side.value("worker_down", worker="0"), 1.0)
    assert side.host.unready() == "worker 0 does not run: down"
    assert f"WORKER 0 STAYS DOWN, code {code}" in caplog.text
    assert side.value("worker_exits_total", worker="0", kind=kind) == 1.0
    assert side.value("worker_down", worker="1") == 0.0
    assert side.processes.running == {"1"}


async def test_restarts_are_counted_by_their_reason(side: Side) -> None:
    """After a crash, and after a confirmation; none without it."""
    side.group.workers = frozenset({"0"})
    await side.until(side.host.unready)
    side.processes.end("0", 1)
    restarts = ("worker_restarts_total", {"worker": "0"})
    await side.until(lambda: side.value(restarts[0], reason="crash", **restarts[1]), 1.0)
    side.group.is_ours = False
    side.processes.end("0", 4)
    await asyncio.sleep(0.1)
    assert side.value(restarts[0], reason="superseded", **restarts[1]) == 0.0
    assert side.processes.running == set()
    side.group.is_ours = True
    await side.until(lambda: side.value(restarts[0], reason="superseded", **restarts[1]), 1.0)
    assert side.processes.running == {"0"}


async def test_what_is_revoked_stops_and_nothing_else(side: Side) -> None:
    """In that order."""
    side.group.workers = frozenset({"0", "1"})
    await side.until(side.host.unready)
    side.group.workers = frozenset({"1"})
    await side.until(lambda: side.processes.running, {"1"})
    assert side.processes.log == [("start", "0"), ("start", "1"), ("terminate", "0")]


async def test_a_host_that_lost_its_group_stops_its_workers_and_fails(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka gives them to another; those that do not stop are killed."""
    side.processes.is_stubborn = True
    side.group.workers = frozenset({"0"})
    await side.until(side.host.unready)
    side.group.lost.set()
    await side.until(lambda: side.processes.running, set())
    assert side.processes.log[-2:] == [("terminate", "0"), ("kill", "0")]


async def test_a_lost_group_is_the_hosts_failure() -> None:
    """With its own words."""
    one = Side()
    one.group.lost.set()
    with pytest.raises(UnavailableError, match="coordination has ended"):
        await asyncio.wait_for(one.host.run(one.stopped), 5.0)


async def test_a_worker_starts_once_its_copy_is_handed_over() -> None:
    """Those that run elsewhere are followed; the store is only one's at a time."""
    copies = Copies()
    one = Side(copies)
    running = asyncio.create_task(one.host.run(one.stopped))
    one.group.workers = frozenset({"0"})
    await one.until(lambda: copies.followed, {"1"})
    await one.until(lambda: one.value("standby_lag_records", worker="1"), 7.0)
    assert one.processes.running == set()
    copies.may_go.set()
    await one.until(lambda: one.processes.running, {"0"})
    copies.may_go.clear()
    one.group.workers = frozenset({"0", "1"})
    await asyncio.sleep(0.3)
    assert one.processes.running == {"0"}
    one.group.workers = frozenset({"0"})
    await asyncio.sleep(0.3)
    copies.may_go.set()
    await asyncio.sleep(0.1)
    assert one.processes.log == [("start", "0")]
    one.stopped.set()
    await asyncio.wait_for(running, 5.0)
    assert copies.is_closed
    assert one.processes.running == set()


async def test_a_process_that_cannot_be_made_is_tried_again(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that crashed; the host goes on."""

    def start(worker: str) -> int:
        raise OSError("no memory")

    monkeypatch.setattr(side.processes, "start", start)
    side.group.workers = frozenset({"0"})
    kind = {"worker": "0", "kind": "failed"}
    await side.until(lambda: side.value("worker_exits_total", **kind) == 2.0, True)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_PROBE_EVERY_S", 0.002)
    await side.until(side.host.unready)
    assert side.processes.running == {"0"}
