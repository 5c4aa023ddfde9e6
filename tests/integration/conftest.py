"""A real Kafka for the tests that need one, started once and stopped by its own process id."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka_server import local_kafka
from models.errors import UnavailableError

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
