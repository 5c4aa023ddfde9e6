"""A real broker is started, keeps its topics over a restart, and leaves nothing running."""

import os
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from deploy.kafka_server import KafkaFiles, local_kafka, resolve, running, start, stop
from deploy.topics import TopicPlan, bank_plan, consortium_plan, create_topics
from models.errors import UnavailableError
from tests.integration.conftest import LIBS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def files() -> KafkaFiles:
    try:
        return resolve(LIBS, os.environ)
    except UnavailableError as error:
        pytest.skip(f"NO BROKER, NOTHING WAS TESTED: {error}")


def test_a_broker_is_stopped_with_its_block(tmp_path: Path, files: KafkaFiles) -> None:
    """Also where the block raises."""
    assert files.java
    pids = []

    def fail_with_a_broker() -> None:
        with local_kafka(tmp_path, LIBS, os.environ):
            found = running(tmp_path)
            pids.append(found.pid if found else 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_with_a_broker()
    assert pids[0] > 0
    assert not Path(f"/proc/{pids[0]}").exists()
    assert running(tmp_path) is None


def test_topics_outlive_a_restart_on_another_port(tmp_path: Path, files: KafkaFiles) -> None:
    """`amalgam kafka down` and `up` again lose nothing."""
    plans = bank_plan("a", partitions=2)
    try:
        first = start(tmp_path, files)
        assert create_topics(first.bootstrap, plans) == [plan.name for plan in plans]
        assert stop(tmp_path)
        second = start(tmp_path, files)
        assert create_topics(second.bootstrap, plans) == []
    finally:
        stop(tmp_path)


def test_topics_are_as_planned_and_what_exists_is_kept(broker: str) -> None:
    """Created once with their partitions; a wish for more changes nothing."""
    name = "plan-test"
    assert len(create_topics(broker, bank_plan(name, partitions=3))) == 7
    assert create_topics(broker, bank_plan(name, partitions=4)) == []
    created = create_topics(broker, consortium_plan(name, ["a"]))
    assert created == [f"{name}.summaries.a", f"{name}.releases", f"{name}.quarantine"]
    admin = KafkaAdminClient(bootstrap_servers=broker)
    try:
        topics = admin.describe_topics([f"{name}.transactions", f"{name}.labels", created[0]])
    finally:
        admin.close()
    assert sorted(len(topic["partitions"]) for topic in topics) == [1, 3, 3]


def test_a_cluster_that_refuses_a_topic_is_quoted(broker: str) -> None:
    """Zero partitions are none."""
    with pytest.raises(UnavailableError, match=r"refused-test\.transactions"):
        create_topics(broker, [TopicPlan("refused-test.transactions", 0)])
