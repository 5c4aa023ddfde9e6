"""The amalgamator's process on a real broker: releases, quarantine, kill, restart, stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from amalgamator.core import Amalgamator
from amalgamator.fold import BasisPolicy, FoldConfig
from amalgamator.kafka_io import KafkaReleaseSink, read_all
from amalgamator.ports import QuarantineEntry
from amalgamator.registry import format_registry
from deploy.kafka_server import free_port
from deploy.topics import consortium_plan, create_topics
from models.fragments import Reassembler, Splitter
from models.keys import Verifier, save_signer
from models.release import Release
from models.release_codec import ReleaseAssembler
from models.summary import Contribution
from models.topics import ConsortiumTopics
from tests.consortium import (
    AMALGAMATOR,
    CONSORTIUM,
    MEMBERS,
    SCHEMA,
    a_log,
    closing,
    envelopes,
    evidence,
    registry_of,
    statistics,
)
from tests.integration.bank_process import answer_of

pytestmark = pytest.mark.integration

TOPICS = ConsortiumTopics(CONSORTIUM)
PATIENCE_S = 60.0


def expected_releases() -> tuple[list[list[Contribution]], list[Release]]:
    """Return three epochs of contributions and the releases that one process makes of them."""
    config = FoldConfig(schema=SCHEMA, basis=BasisPolicy(min_n=300, min_frauds=10, growth=2.0))
    one = Amalgamator(registry_of(), config, lockstep=True)
    seq = dict.fromkeys(MEMBERS, 0)
    epochs, releases = [a_log()], []
    for epoch in (1, 2, 3):
        for contribution in epochs[-1]:
            seq[contribution.key.member] += 1
            one.accept(contribution, seq[contribution.key.member])
        release = one.close_epoch(epoch)
        assert release is not None
        releases.append(release)
        basis = release.asked_basis
        assert basis is not None
        following = [
            statistics(m, 700, basis=basis.number, n_weights=basis.n_weights, seed=i + epoch)
            for i, m in enumerate(MEMBERS)
        ]
        following += [
            evidence(m, 20_001, seed=30 * epoch + i, epoch=epoch + 1) for i, m in enumerate(MEMBERS)
        ]
        epochs.append(following + [closing(m, epoch + 1) for m in MEMBERS])
    return epochs, releases


class Process:
    """The service under test."""

    def __init__(self, bootstrap: str, directory: Path) -> None:
        self.port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "AMALGAM_AMALGAMATOR_BOOTSTRAP": bootstrap,
            "AMALGAM_AMALGAMATOR_REGISTRY_FILE": str(directory / "registry.toml"),
            "AMALGAM_AMALGAMATOR_KEY_FILE": str(directory / "key.pem"),
            "AMALGAM_AMALGAMATOR_MODE": "lockstep",
            "AMALGAM_AMALGAMATOR_HEALTH_PORT": str(self.port),
            "AMALGAM_AMALGAMATOR_BASIS_MIN_N": "300",
            "AMALGAM_AMALGAMATOR_BASIS_MIN_FRAUDS": "10",
            "AMALGAM_AMALGAMATOR_BASIS_GROWTH": "2",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.log_path = directory / "amalgamator.log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "amalgamator"], env=environment, stdout=log, stderr=log
            )

    def get(self, path: str) -> str:
        """Return what the health server answers; empty while it does not."""
        return answer_of(self.port, path)

    def is_ready(self) -> bool:
        """Return whether the topics were read; fail if the process has ended."""
        assert self.process.poll() is None, self.log_path.read_text()[-2_000:]
        return self.get("/readyz") == "ok\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with registry and key."""
    (tmp_path / "registry.toml").write_text(format_registry(registry_of()))
    save_signer(AMALGAMATOR, tmp_path / "key.pem")
    return tmp_path


@pytest.fixture
def started(broker: str, directory: Path) -> Iterator[Callable[[], Process]]:
    """Return how to start the service; whatever was started is stopped."""
    processes: list[Process] = []

    def start() -> Process:
        processes.append(Process(broker, directory))
        return processes[-1]

    yield start
    for one in processes:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"expected within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.1)


class Members:
    """All members on one broker."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._sinks = {m: KafkaReleaseSink(bootstrap, TOPICS.summaries(m)) for m in MEMBERS}
        self._splitter = Splitter()

    def publish(self, contributions: Sequence[Contribution], raws: Sequence[bytes]) -> None:
        """Put envelopes on their topics, in fragments."""
        for contribution, raw in zip(contributions, raws, strict=True):
            key = contribution.key
            records = self._splitter.split(raw, "|".join(map(str, key)).encode(), 1)
            self._sinks[key.member].publish(records)

    def releases(self) -> list[Release]:
        """Return the releases that a new member finds."""
        reassembler = Reassembler()
        assembler = ReleaseAssembler(CONSORTIUM, SCHEMA, [Verifier(AMALGAMATOR.public_key)])
        raws = map(reassembler.add, read_all(self._bootstrap, TOPICS.releases))
        found = (assembler.add(raw) for raw in raws if raw is not None)
        return [release for release in found if release is not None]

    def close(self) -> None:
        """Close connections."""
        for sink in self._sinks.values():
            sink.close()


def test_service_on_kafka_makes_the_releases_of_one_process_through_kill_and_restart(
    broker: str, started: Callable[[], Process]
) -> None:
    """Same ids and numbers; ten megabytes travel in pieces, a bad envelope is put aside."""
    epochs, expected = expected_releases()
    flat = [contribution for epoch in epochs[:3] for contribution in epoch]
    raws = envelopes(flat)
    ends = [len(epochs[0]), len(epochs[0]) + len(epochs[1]), len(flat)]
    create_topics(broker, consortium_plan(CONSORTIUM, MEMBERS))
    members = Members(broker)

    members.publish(flat[: ends[0]], raws[: ends[0]])
    first = started()
    eventually(first.is_ready, "ready")
    damaged = raws[0][:-1] + bytes([raws[0][-1] ^ 1])
    members.publish([flat[0]], [damaged])
    members.publish(flat[ends[0] : ends[1]], raws[ends[0] : ends[1]])
    eventually(lambda: "release_number 2.0" in first.get("/metrics"), "release 2")
    first.process.kill()
    first.process.wait()

    second = started()
    eventually(second.is_ready, "ready again")
    assert "amalgam_amalgamator_release_number 2.0" in second.get("/metrics")
    assert "same_content=True" in second.log_path.read_text()
    members.publish(flat[ends[1] :], raws[ends[1] :])
    eventually(lambda: "release_number 3.0" in second.get("/metrics"), "release 3")

    found = members.releases()
    assert [(one.number, one.release_id) for one in found] == [
        (one.number, one.release_id) for one in expected
    ]
    quarantined = [
        msgspec.json.decode(record.value or b"", type=QuarantineEntry)
        for record in read_all(broker, TOPICS.quarantine)
    ]
    assert {(entry.reason, entry.topic) for entry in quarantined} == {
        ("body_hash", TOPICS.summaries("alpha"))
    }
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(PATIENCE_S) == 0
    members.close()


def test_wrong_settings_end_the_process_with_two_and_a_line(tmp_path: Path) -> None:
    """The line names the variable."""
    done = subprocess.run(
        [sys.executable, "-m", "amalgamator"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "AMALGAM_AMALGAMATOR_KEYFILE": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "did you mean 'AMALGAM_AMALGAMATOR_KEY_FILE'" in done.stderr
