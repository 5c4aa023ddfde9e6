"""A client that has lost a task of its own is noticed: it would be silent for ever."""

import asyncio
import inspect
from types import SimpleNamespace

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from faust.types import TP

from stream.share import Share
from stream.transport import BatchConsumer, assignor_of, ended_task, is_in_touch

PAYMENTS, LABELS = TP("bank.transactions", 0), TP("bank.labels", 0)


class SurprisedClient(AIOKafkaClient):
    """Knows no broker, as one that connected while the only broker was starting."""

    async def coordinator_lookup(self, *_: object) -> int:
        raise AssertionError("Did we not perform bootstrap?")


@pytest.fixture
async def subscription():
    found = SubscriptionState()
    found.subscribe({"bank.transactions"})
    return found


async def test_a_coordination_that_ended_by_a_surprise_is_named(subscription) -> None:
    """With aiokafka's own coordinator, so that its next version is held to it too."""
    client = SurprisedClient()
    fetcher = Fetcher(client, subscription)
    coordinator = GroupCoordinator(client, subscription, group_id="g")
    consumer = SimpleNamespace(_coordinator=coordinator, _fetcher=fetcher)
    assert ended_task(consumer) is None
    with pytest.raises(KafkaError):
        await coordinator._coordination_task
    assert ended_task(consumer) == "coordination"
    await fetcher.close()


async def test_fetching_that_ended_is_named() -> None:
    """The other task that nobody waits for."""
    waits, ended = asyncio.get_running_loop().create_future(), asyncio.Future()
    ended.set_result(None)
    consumer = SimpleNamespace(
        _coordinator=SimpleNamespace(_coordination_task=waits),
        _fetcher=SimpleNamespace(_fetch_task=ended),
    )
    assert ended_task(consumer) == "fetching"


def test_a_client_that_has_not_started_has_lost_nothing() -> None:
    """Nor one that is not there yet."""
    for client in (None, SimpleNamespace(_coordinator=None, _fetcher=None)):
        assert ended_task(client) is None
        assert not is_in_touch(client)


def test_a_client_is_in_touch_while_it_knows_its_coordinator() -> None:
    """It forgets it when heartbeats fail; the attribute is aiokafka's."""
    assert "self.coordinator_id = None" in inspect.getsource(GroupCoordinator.coordinator_dead)
    for known, expected in ((1, True), (0, True), (None, False)):
        coordinator = SimpleNamespace(coordinator_id=known)
        assert is_in_touch(SimpleNamespace(_coordinator=coordinator)) is expected


def test_a_worker_is_assigned_the_partitions_of_its_share_in_both_topics() -> None:
    """And one worker alone all of them, by aiokafka's own assignor."""
    sizes = {"bank.labels": 5, "bank.transactions": 5}
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range(sizes[topic])))
    metadata = RangePartitionAssignor.metadata(sizes)
    for share, expected in (
        (Share(0, 2), [0, 2, 4]),
        (Share(1, 2), [1, 3]),
        (Share(4, 5), [4]),
        (Share(), [0, 1, 2, 3, 4]),
    ):
        found = assignor_of(share).assign(cluster, {"me": metadata})["me"].assignment
        assert found == [("bank.labels", expected), ("bank.transactions", expected)]


def test_a_topic_that_is_not_there_yet_is_assigned_to_nobody() -> None:
    """As by the assignor underneath."""
    cluster = SimpleNamespace(partitions_for_topic=lambda _: None)
    metadata = RangePartitionAssignor.metadata(["bank.labels"])
    assert assignor_of(Share(0, 2)).assign(cluster, {"me": metadata})["me"].assignment == []


def test_the_assignor_keeps_a_name_that_another_process_of_the_worker_has_too() -> None:
    """Kafka refuses a member whose assignors the others lack."""
    assert assignor_of(Share(1, 2)).name == assignor_of(Share()).name == "range"


@pytest.fixture
def consumer() -> BatchConsumer:
    """Return Faust's consumer without a client, which notes how long it would wait for whom."""
    one = object.__new__(BatchConsumer)
    one.app = SimpleNamespace(client_only=False, in_recovery=False)
    one.flow_active = True
    one.not_waiting_next_records = asyncio.Event()
    one._active_partitions = {PAYMENTS, LABELS}
    one._paused_partitions, one._buffered_partitions = set(), set()
    one._room = asyncio.Event()
    one.waits = []

    async def getmany(  # as Faust calls it
        active_partitions: set[TP],
        timeout: float,  # noqa: ASYNC109
    ) -> dict[TP, list[object]]:
        one.waits.append((set(active_partitions), timeout))
        return {}

    one._getmany = getmany
    return one


async def test_a_full_partition_is_looked_at_again_soon(consumer) -> None:
    """Whoever waits a second for labels would not see that payments may be read again."""
    await consumer._wait_next_records(1.0)
    consumer.on_buffer_full(PAYMENTS)
    await consumer._wait_next_records(1.0)
    consumer.on_buffer_drop(PAYMENTS)
    await consumer._wait_next_records(1.0)
    (first, a), (second, b), (third, c) = consumer.waits
    assert first == third == {PAYMENTS, LABELS}
    assert second == {LABELS}
    assert a == c == 1.0
    assert b <= 0.02


async def test_where_all_are_full_it_waits_for_room_and_no_longer(consumer) -> None:
    """Nobody is asked meanwhile; the second is Faust's, the rest a slow machine's."""
    consumer.on_buffer_full(PAYMENTS)
    consumer.on_buffer_full(LABELS)
    waiting = asyncio.create_task(consumer._wait_next_records(30.0))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    consumer.on_buffer_drop(LABELS)
    records, active = await asyncio.wait_for(waiting, 10.0)
    assert records == {}
    assert active == {LABELS}
    assert not consumer.waits
