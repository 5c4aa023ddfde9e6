"""The output producer: each key keeps its partition and its order, and all is waited for."""

import asyncio
import zlib
from collections import defaultdict
from typing import NamedTuple

import pytest
from aiokafka.errors import KafkaConnectionError

from models.errors import UnavailableError
from stream.outputs import OutputProducer, Outputs


class Batch(list[tuple[bytes, bytes]]):
    """A batch that takes three records."""

    def append(self, *, key: bytes, value: bytes, timestamp: int | None) -> object | None:  # type: ignore[override]  # as the client's
        assert timestamp is None
        if len(self) == 3:
            return None
        super().append((key, value))
        return object()


class Sent(NamedTuple):
    topic: str
    partition: int
    records: list[tuple[bytes, bytes]]


class Client:
    """What the producer uses of its client; futures are done when told."""

    def __init__(self, n_partitions: int = 4) -> None:
        self.n_partitions = n_partitions
        self.asked: list[str] = []
        self.sent: list[Sent] = []
        self.futures: list[asyncio.Future[object]] = []
        self.is_acknowledging = True

    async def partitions_for(self, topic: str) -> set[int]:
        self.asked.append(topic)
        return set(range(self.n_partitions))

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(
        self, batch: Batch, topic: str, *, partition: int
    ) -> "asyncio.Future[object]":
        self.sent.append(Sent(topic, partition, list(batch)))
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        if self.is_acknowledging:
            future.set_result(None)
        return future


@pytest.fixture
async def client() -> Client:
    return Client()


@pytest.fixture
async def producer(client: Client) -> OutputProducer:
    """Return a producer on the fake client."""
    producer = OutputProducer("localhost:1")
    producer._producer = client
    return producer


async def others_run() -> None:
    """Let other tasks go on until they wait for something that will not come by itself."""
    for _ in range(50):
        await asyncio.sleep(0)


OUTPUTS = [
    Outputs(
        topic,
        [b"k%d" % (i % 7) for i in range(start, start + 20)],
        [b"%s%d" % (topic.encode(), i) for i in range(start, start + 20)],
    )
    for start in (0, 20)
    for topic in ("alerts", "decisions")
]


async def test_every_record_is_sent_once_in_the_order_of_its_key(
    producer: OutputProducer, client: Client
) -> None:
    """However many batches that takes."""
    await producer.send(OUTPUTS)
    found: dict[tuple[str, bytes], list[bytes]] = defaultdict(list)
    expected: dict[tuple[str, bytes], list[bytes]] = defaultdict(list)
    for sent in client.sent:
        for key, value in sent.records:
            found[sent.topic, key].append(value)
    for topic, keys, values in OUTPUTS:
        for key, value in zip(keys, values, strict=True):
            expected[topic, key].append(value)
    assert found == expected
    assert all(0 < len(sent.records) <= 3 for sent in client.sent)


async def test_a_keys_partition_is_its_crc_32(producer: OutputProducer, client: Client) -> None:
    """The same for every worker and after every restart."""
    await producer.send(OUTPUTS)
    for sent in client.sent:
        assert {zlib.crc32(key) % 4 for key, _ in sent.records} == {sent.partition}
    assert len({sent.partition for sent in client.sent}) > 1


async def test_a_topics_partitions_are_asked_for_once(
    producer: OutputProducer, client: Client
) -> None:
    """Not for each record."""
    await producer.send(OUTPUTS)
    await producer.send(OUTPUTS)
    assert sorted(client.asked) == ["alerts", "decisions"]


async def test_sending_ends_when_the_broker_has_everything(
    producer: OutputProducer, client: Client
) -> None:
    """So offsets are stored after outputs, never before."""
    client.is_acknowledging = False
    task = asyncio.create_task(producer.send(OUTPUTS))
    await others_run()
    for future in client.futures[1:]:
        future.set_result(None)
    await others_run()
    assert not task.done()
    client.futures[0].set_result(None)
    await task


async def test_what_is_handed_over_is_not_waited_for_until_all_is(
    producer: OutputProducer, client: Client
) -> None:
    """The next chunk is scored meanwhile; who gives up waiting takes nothing back."""
    client.is_acknowledging = False
    await producer.hand_over(OUTPUTS[:1])
    await producer.hand_over(OUTPUTS[1:])
    for _ in range(2):
        waiting = asyncio.create_task(producer.confirmed())
        await others_run()
        assert not waiting.done()
        waiting.cancel()
        await others_run()
    assert not any(future.done() for future in client.futures)
    for future in client.futures:
        future.set_result(None)
    await producer.confirmed()
    assert producer.failure() is None


async def test_what_was_handed_over_and_refused_is_told_at_every_later_turn(
    producer: OutputProducer, client: Client
) -> None:
    """A worker must not store what it has not said, and ends."""
    client.is_acknowledging = False
    await producer.hand_over(OUTPUTS)
    assert producer.failure() is None
    client.futures[2].set_exception(KafkaConnectionError("away"))
    assert "away" in (producer.failure() or "")
    for again in (producer.confirmed, lambda: producer.hand_over(OUTPUTS)):
        with pytest.raises(KafkaConnectionError):
            await again()
    for future in client.futures:
        if not future.done():
            future.set_result(None)


async def test_a_batch_that_is_refused_fails_the_sending(
    producer: OutputProducer, client: Client
) -> None:
    """The caller must not go on as if it had been stored."""
    client.is_acknowledging = False
    task = asyncio.create_task(producer.send(OUTPUTS[:1]))
    await others_run()
    client.futures[0].set_exception(ConnectionError("away"))
    with pytest.raises(ConnectionError):
        await task


async def test_nothing_to_send_sends_nothing(producer: OutputProducer, client: Client) -> None:
    """The usual chunk of labels."""
    await producer.send([])
    assert client.sent == []


async def test_a_cluster_that_is_away_at_the_start_is_told_in_one_line() -> None:
    """The service ends by it and is started again."""
    with pytest.raises(UnavailableError, match="the bank's cluster is not reached"):
        await OutputProducer("127.0.0.1:1").start()
