"""A client that has lost a task of its own is noticed: it would be silent for ever."""

import asyncio
import inspect
from types import SimpleNamespace

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaError

from stream.transport import ended_task, is_in_touch


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
