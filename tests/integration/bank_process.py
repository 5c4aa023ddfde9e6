"""One bank's worker as a process on a real broker, with what a test asks of it."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer

from deploy.chaos import collect
from deploy.consortium_files import ConsortiumFiles, ConsortiumPlan, write_consortium
from deploy.kafka_server import free_port
from deploy.topics import bank_plan, consortium_plan, create_topics
from models.topics import BankTopics

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds and return what it gave."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"expected within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.1)
    return found


def a_bank(
    directory: Path,
    broker: str,
    name: str,
    mapping: Path,
    *,
    partitions: int = 2,
    consortium: str | None = None,
    **settings: float,
) -> ConsortiumFiles:
    """Make topics and files of a bank in a consortium of its own.

    ``consortium`` is the address of the consortium's cluster where that is another one, which
    need not answer yet.
    """
    create_topics(broker, bank_plan(name, partitions=partitions))
    if consortium is None:
        create_topics(broker, consortium_plan(f"of-{name}", [name]))
    plan = ConsortiumPlan(
        name=f"of-{name}",
        entity_kinds=("terminal", "merchant", "device"),
        mappings={name: mapping},
        bank_bootstrap=broker,
        consortium_bootstrap=consortium or broker,
        is_replay=False,
        bank_settings={"checkpoint_s": 0.5, **settings},
    )
    return write_consortium(directory, plan)


def answer_of(port: int, path: str) -> str:
    """Return what a process's health server answers, be it a refusal; empty while it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as refusal:
        return refusal.read().decode()
    except OSError:
        return ""


class BankProcess:
    """A worker under test.

    Parameters
    ----------
    settings
        Its settings file; its log goes beside it.
    """

    def __init__(self, settings: Path) -> None:
        self.port = free_port()
        self.log_path = settings.parent / "worker.log"
        environment = os.environ | {
            "AMALGAM_STREAM_HEALTH_PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream", "--settings", str(settings)],
                env=environment,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str) -> str:
        """Return what the health server answers, be it a refusal; empty while it does not."""
        return answer_of(self.port, path)

    def metric(self, name: str) -> float:
        """Return one sample, 0 while there is none."""
        for line in self.get("/metrics").splitlines():
            if line.startswith(f"amalgam_stream_{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def is_ready(self) -> bool:
        """Return whether partitions are assigned; fail if the process has ended."""
        assert self.process.poll() is None, self.log_path.read_text()[-2_000:]
        return self.get("/readyz") == "ok\n"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def send(broker: str, bank: str, records: Iterable[tuple[str, bytes]]) -> None:
    """Send payments, given with their accounts, to a bank's topic."""
    producer = KafkaProducer(bootstrap_servers=broker)
    for account, raw in records:
        producer.send(BankTopics(bank).transactions, raw, key=account.encode())
    producer.flush()
    producer.close()


def read_topic(broker: str, topic: str, kind: Any) -> list[Any]:
    """Return every record of a topic, decoded as ``kind``."""
    return [msgspec.json.decode(value, type=kind) for value in collect.read_topic(broker, topic)]
