"""A real Kafka for the tests that need one, started once and stopped by its own process id."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.kafka_server import local_kafka
from models.errors import UnavailableError
from tests.integration.bank_process import BankProcess, eventually

LIBS = Path(__file__).parents[2] / ".amalgam" / "kafka" / "libs"


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a broker with empty topics; skip, loudly, where none can be had."""
    given = os.environ.get("AMALGAM_TEST_BOOTSTRAP")
    if given:
        yield given
        return
    try:
        with local_kafka(tmp_path_factory.mktemp("kafka"), LIBS, os.environ) as bootstrap:
            yield bootstrap
    except UnavailableError as error:
        pytest.skip(f"NO BROKER, NOTHING WAS TESTED: {error}")


@pytest.fixture
def started() -> Iterator[Callable[[Path], BankProcess]]:
    """Return how to start a worker; whatever was started is stopped."""
    processes: list[BankProcess] = []

    def start(settings: Path) -> BankProcess:
        processes.append(BankProcess(settings))
        eventually(processes[-1].is_ready, "ready")
        return processes[-1]

    yield start
    for one in processes:
        one.stop(signal.SIGKILL)
