"""Workers move between hosts with their states: by kill -9, by a join, by a leave, by a pause."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy.chaos.compare import compare
from deploy.consortium_files import ConsortiumFiles
from tests.integration.split_bank import (
    ROOT,
    HostProcess,
    SplitWorld,
    collect_split,
    eventually,
    feeder_of,
    is_alive,
    is_at_end,
    make_split_world,
    run_undisturbed,
    write_split_bank,
)

pytestmark = pytest.mark.integration
_LONG_S = 240.0


class Scene:
    """A bank on hosts, its amalgamator and its feed.

    Parameters
    ----------
    directory, broker, name
        Where, on which cluster, and the bank's name.
    world
        Its payments.
    """

    def __init__(self, directory: Path, broker: str, name: str, world: SplitWorld) -> None:
        self.directory, self.broker, self.name, self.world = directory, broker, name, world
        self.files: ConsortiumFiles = write_split_bank(directory / "files", broker, name)
        self.hosts: list[HostProcess] = []
        with (directory / "amalgamator.log").open("ab") as log:
            self._amalgamator = subprocess.Popen(
                [sys.executable, "-m", "amalgamator"],
                env=os.environ | dict(self.files.amalgamator),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def host(self, *, standby: bool = False, disk: Path | None = None) -> HostProcess:
        """Start one more host, on an empty disk or on that of one before."""
        directory = disk or self.directory / f"host-{len(self.hosts)}"
        file = self.files.settings[self.name]
        self.hosts.append(HostProcess(file, directory, standby=standby))
        return self.hosts[-1]

    def feed(self, seconds: float) -> None:
        """Begin to send the stream, spread over some seconds."""
        self._feeder = feeder_of(self.broker, self.name, self.world, seconds)
        self._feeder.start()

    def finish(self) -> None:
        """Wait until everything is answered and stored, and stop the hosts that run, in time."""
        state_dirs = [host.state_dir for host in self.hosts]
        eventually(lambda: self._feeder.is_done, "the whole feed sent")
        eventually(lambda: is_at_end(self.world, state_dirs), "the end of the stream")
        for host in self.hosts:
            if host.process.poll() is None:
                began_s = time.monotonic()
                assert host.stop() == 0
                assert time.monotonic() - began_s < 15.0  # ten, on a machine with nothing else
        assert not [pid for host in self.hosts for pid in host.pids() if is_alive(pid)]

    def assert_undisturbed(self) -> None:
        """Every decision, alert, state, contribution and the release are those of one process."""
        dirs = [host.state_dir for host in self.hosts]
        found = collect_split(self.broker, self.world, self.files, self.name, dirs)
        calm = run_undisturbed(self.world, self.files, self.name)
        verdict = compare(found, calm, self.world.streams, self.world.span_ms[1])
        assert verdict.differences == ()
        assert verdict.figures["alerts"] > 0
        assert {key.worker for key in found.held} == {"0", "1"}

    def stop(self) -> None:
        """Kill whatever runs."""
        if hasattr(self, "_feeder"):
            self._feeder.stop()
        for host in self.hosts:
            pids = [pid for pid in host.pids() if is_alive(pid)]
            host.stop(signal.SIGKILL)
            for pid in filter(is_alive, pids):
                os.kill(pid, signal.SIGKILL)
        self._amalgamator.kill()
        self._amalgamator.wait()


@pytest.fixture(scope="module")
def world() -> SplitWorld:
    """Return the payments of all tests."""
    return make_split_world()


@pytest.fixture
def scene(
    broker: str, tmp_path: Path, world: SplitWorld, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    """Return a bank that is stopped at the end; its name is the test's."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))
    name = f"{name[:12]}-{name[-6:]}".replace("--", "-").strip("-")
    one = Scene(tmp_path, broker, name, world)
    yield one
    one.stop()


def test_killed_host_leaves_its_worker_to_the_other_with_its_state(scene: Scene) -> None:
    """Kill -9 under load; its worker's process ends with it, and nothing is lost or added."""
    first, second = scene.host(), scene.host()
    hosts = (first, second)
    eventually(lambda: all(len(host.workers()) == 1 for host in hosts), "a worker on each host")
    assert all(host.get("/readyz") == "ok\n" for host in hosts)
    scene.feed(30.0)
    time.sleep(12.0)
    pids = [pid for pid in first.pids() if is_alive(pid)]
    assert pids
    first.stop(signal.SIGKILL)
    eventually(lambda: len(second.workers()) == 2, "both workers on the other host")
    assert not [pid for pid in pids if is_alive(pid)]
    scene.finish()
    assert "restored" in " ".join(second.lines())
    scene.assert_undisturbed()


def test_warm_copy_is_taken_over_without_reading_the_changelog_again(scene: Scene) -> None:
    """It was followed while its worker ran elsewhere, and gives the same state."""
    first = scene.host()
    eventually(lambda: len(first.workers()) == 2, "both workers on the first host")
    second = scene.host(standby=True)
    eventually(lambda: len(second.workers()) == 1, "a worker on the second host")
    (kept,) = first.workers()
    scene.feed(30.0)
    time.sleep(12.0)
    first.stop(signal.SIGKILL)
    eventually(lambda: len(second.workers()) == 2, "both workers on the second host")
    scene.finish()
    assert [line for line in second.lines() if f"the copy of worker {kept} is whole" in line]
    restored = [line for line in second.lines() if line.startswith("restored")]
    assert all(float(line.split()[1]) < 1.0 for line in restored[1:])  # the first came by the join
    scene.assert_undisturbed()


def test_joining_host_gets_a_worker_and_a_leaving_one_gives_it_back(scene: Scene) -> None:
    """Both with its state; the worker that stays is not even restarted."""
    first = scene.host()
    eventually(lambda: len(first.workers()) == 2, "both workers on the only host")
    scene.feed(40.0)
    time.sleep(8.0)
    second = scene.host()
    eventually(lambda: len(second.workers()) == 1, "a worker on the host that joined")
    assert "restored" in " ".join(second.lines())
    assert len([pid for pid in first.pids() if is_alive(pid)]) == 1
    time.sleep(4.0)
    assert second.stop() == 0
    eventually(lambda: len(first.workers()) == 2, "both workers back on the first host")
    assert len(first.pids()) == 3
    scene.finish()
    scene.assert_undisturbed()


@pytest.mark.parametrize("with_its_worker", [False, True])
def test_paused_host_does_no_harm_when_it_goes_on(scene: Scene, *, with_its_worker: bool) -> None:
    """Its worker runs elsewhere; its own process ends, and is not started again unasked.

    Also where the whole machine was paused, and the process asks for its old place in the group.
    The process ends by what its changelog tells it (code 4), or by its host, which may hear first
    that the worker is another's.
    """
    first, second = scene.host(), scene.host()
    hosts = (first, second)
    eventually(lambda: all(len(host.workers()) == 1 for host in hosts), "a worker on each host")
    scene.feed(45.0)
    time.sleep(5.0)
    (worker,) = first.workers()
    paused = [first.process.pid]
    paused += [pid for pid in first.pids() if is_alive(pid)] if with_its_worker else []
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: len(second.workers()) == 2, "both workers on the other host")
    time.sleep(5.0)
    for pid in paused:
        os.kill(pid, signal.SIGCONT)
    told = f"worker {worker} ended with code "
    eventually(lambda: told in "\n".join(first.lines()), "the end of the paused host's worker")
    eventually(
        lambda: sorted(first.workers() + second.workers()) == ["0", "1"], "each worker once again"
    )
    scene.finish()
    scene.assert_undisturbed()
    both = [line for host in hosts for line in host.lines() if "ended with code 4" in line]
    assert len(both) <= 2  # of a worker that was taken away, never in turns


class Rebalances:
    """Hosts of a bank that come and go at random.

    Parameters
    ----------
    scene
        Of the bank, two hosts running.
    rng
        What decides.
    """

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self._scene, self.rng = scene, rng
        self._running = list(scene.hosts)
        self.done: Counter[str] = Counter()

    def befall(self) -> None:
        """Kill, stop or pause a host, or have one more join; two or three run afterwards."""
        deed = str(self.rng.choice(["kill", "stop", "pause", "pause all", "join"]))
        if deed == "join" and len(self._running) == 3:
            deed = "leave"
        self.done[deed] += 1
        if deed == "join":
            self._running.append(self._scene.host())
            return
        host = self._running.pop(int(self.rng.integers(len(self._running))))
        if deed.startswith("pause"):
            self._pause(host, with_workers=deed == "pause all")
        elif deed == "kill":
            host.stop(signal.SIGKILL)
        else:
            assert host.stop() == 0
        if deed in ("kill", "stop"):
            time.sleep(self.rng.uniform(0.0, 4.0))
            disk = host.log_path.parent if self.rng.random() < 0.5 else None
            self._running.append(self._scene.host(disk=disk))

    def _pause(self, host: HostProcess, *, with_workers: bool) -> None:
        """Pause for a while, shorter or longer than the group's session, and let it go on."""
        pids = [host.process.pid]
        pids += [pid for pid in host.pids() if is_alive(pid)] if with_workers else []
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(self.rng.uniform(1.0, 16.0))
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGCONT)
        self._running.append(host)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_hosts_that_come_and_go_at_random_lose_nothing(scene: Scene, seed: int) -> None:
    """Killed, stopped, paused and joined by others under load, on old disks and on empty ones."""
    hosts = (scene.host(), scene.host())
    eventually(lambda: all(len(host.workers()) == 1 for host in hosts), "a worker on each host")
    rebalances = Rebalances(scene, np.random.default_rng(seed))
    scene.feed(_LONG_S)
    until_s = time.monotonic() + _LONG_S
    while time.monotonic() < until_s:
        time.sleep(rebalances.rng.uniform(1.0, 8.0))
        rebalances.befall()
    assert rebalances.done.total() >= 15
    scene.finish()
    scene.assert_undisturbed()


def test_more_workers_than_there_is_room_for_end_host_and_worker_with_two(
    broker: str, tmp_path: Path
) -> None:
    """The host by the topic of the workers, the worker by the partitions that it is to read."""
    files = write_split_bank(tmp_path / "files", broker, "narrow")
    for module, workers, told in (
        ("stream.host", "3", "workers: expected 2, the partitions of narrow.workers, got 3"),
        ("stream", "5", "workers: expected at most 4, the partitions of narrow.transactions"),
    ):
        added = {
            "AMALGAM_STREAM_WORKERS": workers,
            "AMALGAM_STREAM_CHANGELOG": str(module == "stream.host").lower(),
            "AMALGAM_STREAM_HEALTH_PORT": "0",
        }
        done = subprocess.run(
            [sys.executable, "-m", module, "--settings", str(files.settings["narrow"])],
            env=os.environ | added,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120.0,
            check=False,
        )
        assert done.returncode == 2, done.stdout
        assert told in done.stdout
