"""The worker's side of the consortium, on fake clients: nothing lost, bad releases passed over."""

import asyncio
from dataclasses import dataclass, replace

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

from models.fragments import FragmentRecord, Reassembler, split
from models.keys import Signer, Verifier
from models.release import Release
from models.release_codec import encode_release
from models.release_hashes import seal_release
from models.topics import ConsortiumTopics
from stream import exchange as module
from stream.exchange import Exchange
from stream.outbox import Outbox
from stream.settings import Membership
from stream.telemetry import Telemetry
from tests.consortium import AMALGAMATOR, CONSORTIUM, NOW_MS, SCHEMA, closing, evidence, signer_of

MEMBER = "alpha"
TOPIC = ConsortiumTopics(CONSORTIUM).summaries(MEMBER)


class Producer:
    """Keeps what is sent; fails as often as it is told to."""

    def __init__(self, n_failures: int = 0) -> None:
        self.n_failures = n_failures
        self.sent: list[FragmentRecord] = []

    async def send(
        self,
        topic: str,
        *,
        value: bytes,
        key: bytes,
        headers: list[tuple[str, bytes]],
        partition: int,
    ) -> "asyncio.Future[object]":
        assert (topic, partition) == (TOPIC, 0)
        if self.n_failures:
            self.n_failures -= 1
            raise KafkaConnectionError
        self.sent.append(FragmentRecord(key, value, headers))
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


@dataclass(frozen=True)
class Read:
    """A record of a topic."""

    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    offset: int = 0


class Consumer:
    """Reads records that are there already."""

    def __init__(self, records: list[Read]) -> None:
        self.records = records
        self.next = 0
        self.is_stopped = False

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        self.is_stopped = True

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.partition = partitions[0]

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, len(self.records))

    async def position(self, partition: TopicPartition) -> int:
        assert partition == self.partition
        return self.next

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Read]]:
        assert timeout_ms > 0
        self.next += 1
        return {self.partition: self.records[self.next - 1 : self.next]}

    def __aiter__(self) -> "Consumer":
        return self

    async def __anext__(self) -> Read:
        if self.next == len(self.records):
            raise StopAsyncIteration
        self.next += 1
        return self.records[self.next - 1]


class Side:
    """An exchange that is connected to fakes."""

    def __init__(self, n_failures: int = 0) -> None:
        self.registry = CollectorRegistry()
        self.outbox = Outbox(CONSORTIUM, SCHEMA, signer_of(MEMBER), lambda: NOW_MS)
        self.producer = Producer(n_failures)
        membership = Membership(
            consortium=CONSORTIUM,
            schema=SCHEMA,
            amalgamator=(Verifier(AMALGAMATOR.public_key),),
            signer=signer_of(MEMBER),
            secret=b"s" * 32,
        )
        self.exchange = Exchange(
            MEMBER, "0", "localhost:1", membership, self.outbox, Telemetry(self.registry)
        )
        self.exchange._producer = self.producer
        self.exchange._connected.set()

    def count(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"amalgam_stream_{name}")

    def received(self) -> list[int]:
        """Return the numbers of the envelopes that went out whole."""
        reassembler = Reassembler()
        raws = [reassembler.add(record) for record in self.producer.sent]
        return [
            int(dict(r.headers)["seq"])
            for r, raw in zip(self.producer.sent, raws, strict=True)
            if raw
        ]


def a_release(number: int) -> Release:
    return seal_release(
        Release(
            number=number,
            epoch=number + 10,
            created_ms=NOW_MS,
            release_id="",
            sources=(),
            basis=None,
            weights=None,
            next_basis=None,
            evidence={},
        )
    )


def on_topic(release: Release, signer: Signer = AMALGAMATOR) -> list[Read]:
    """Return a release as records of its topic."""
    pieces = encode_release(release, frozenset(), signer, consortium=CONSORTIUM)
    return [
        Read(*record) for key, raw in pieces for record in split(raw, key.encode(), release.number)
    ]


PIECES = [evidence(MEMBER, 20_000, seed=1), evidence(MEMBER, 20_001, seed=2), closing(MEMBER, 1, 2)]


async def test_everything_in_the_outbox_is_sent_by_number_and_forgotten() -> None:
    """With its bytes as they were signed, and counted."""
    side = Side()
    side.outbox.put(PIECES)
    n_bytes = sum(len(letter.raw) for letter in side.outbox.letters)
    await side.exchange.deliver()
    assert side.received() == [1, 2, 3]
    assert side.outbox.letters == ()
    assert side.count("summaries_published_total") == 3
    assert side.count("summary_bytes_total") == n_bytes
    assert side.count("summaries_waiting") == 0


async def test_a_cluster_that_is_away_is_tried_again_with_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is lost, nothing gets another number."""
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    side = Side(n_failures=3)
    side.outbox.put(PIECES)
    before = [letter.raw for letter in side.outbox.letters]
    await side.exchange.deliver()
    assert side.received() == [1, 2, 3]
    assert [record.value for record in side.producer.sent] == before
    assert side.count("summaries_published_total") == 3


async def test_versions_of_a_key_alternate_their_slots() -> None:
    """So that half of a new one never replaces the last whole one on a compacted topic."""
    side = Side()
    for _ in range(3):
        side.outbox.put(PIECES[:1])
        await side.exchange.deliver()
    slots = [record.key.rsplit(b"|", 2)[1] for record in side.producer.sent]
    assert slots == [b"0", b"1", b"0"]


async def test_numbers_and_slots_go_on_where_the_own_topic_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a new disk: from the highest number found, each key in its other slot."""
    old = Side()
    for _ in range(2):
        old.outbox.put(PIECES)
        await old.exchange.deliver()
    consumer = Consumer([Read(r.key, r.value, tuple(r.headers)) for r in old.producer.sent[:5]])
    side = Side()
    monkeypatch.setattr(side.exchange, "_new_consumer", lambda: consumer)
    await side.exchange._take_up()
    assert consumer.is_stopped
    assert consumer.partition == TopicPartition(TOPIC, 0)
    side.outbox.put(PIECES)
    await side.exchange.deliver()
    assert side.received() == [6, 7, 8]
    slots = [record.key.rsplit(b"|", 2)[1] for record in side.producer.sent]
    assert slots == [b"0", b"0", b"1"]


async def test_numbers_of_the_banks_other_workers_are_not_gone_on_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They write to the same topic, each counting for itself."""
    old = Side()
    old.outbox.put(PIECES)
    await old.exchange.deliver()
    mine = [Read(r.key, r.value, tuple(r.headers)) for r in old.producer.sent[:1]]
    theirs = [
        Read(r.key.replace(b"alpha|0|", b"alpha|1|"), r.value, tuple(r.headers))
        for r in old.producer.sent
    ]
    side = Side()
    monkeypatch.setattr(side.exchange, "_new_consumer", lambda: Consumer([*mine, *theirs]))
    await side.exchange._take_up()
    side.outbox.put(PIECES)
    await side.exchange.deliver()
    assert side.received() == [2, 3, 4]


async def test_the_newest_whole_release_is_what_waiting_gives() -> None:
    """Whether it was there before or comes while waiting."""
    side = Side()
    waiting = asyncio.create_task(side.exchange.wait_for(lambda release: release.epoch >= 12))
    await asyncio.sleep(0)
    await side.exchange._read(Consumer(on_topic(a_release(1))))
    await asyncio.sleep(0)
    assert not waiting.done()
    await side.exchange._read(Consumer(on_topic(a_release(2))))
    assert (await waiting).number == 2
    assert (await side.exchange.wait_for(lambda _: True)).number == 2


async def test_releases_that_cannot_be_believed_are_counted_and_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another signer's, a damaged one, foreign records; the next good one is taken."""
    side = Side()
    good = on_topic(a_release(3))
    damaged = [replace(record, value=(record.value or b"")[:-1] + b"\x00") for record in good]
    foreign = [Read(b"key", b"value", ()), Read(b"key|0|0", b"value", ())]
    stranger = on_topic(a_release(4), Signer(bytes([7]) * 32))
    bad = [*damaged, *foreign, *stranger]
    await side.exchange._read(Consumer(bad))
    assert side.exchange.newest is None
    assert side.count("releases_refused_total") == len(bad) == len(caplog.records)
    await side.exchange._read(Consumer(good))
    assert side.exchange.newest is not None
    assert side.exchange.newest.release_id == a_release(3).release_id


async def test_a_deleted_record_is_no_refusal() -> None:
    """Compaction leaves tombstones."""
    side = Side()
    await side.exchange._read(Consumer([Read(b"manifest|0|0", None, ())]))
    assert side.count("releases_refused_total") == 0


async def test_delivery_waits_for_the_own_topic_to_be_read() -> None:
    """A number that was given before is never given again."""
    side = Side()
    side.exchange._connected.clear()
    side.outbox.put(PIECES)
    task = asyncio.create_task(side.exchange.deliver())
    for _ in range(10):
        await asyncio.sleep(0)
    assert side.producer.sent == []
    side.exchange._connected.set()
    await task
    assert len(side.received()) == 3


async def test_a_large_summary_goes_out_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which are put together again to the bytes that were signed."""
    side = Side()
    side.outbox.put(PIECES[:1])
    (letter,) = side.outbox.letters
    monkeypatch.setattr(
        side.exchange._splitter,
        "split",
        lambda raw, key, seq: split(raw, key, seq, fragment_bytes=100),
    )
    await side.exchange.deliver()
    n = -(-len(letter.raw) // 100)
    assert len(side.producer.sent) == n > 1
    assert side.received() == [1]
    assert b"".join(record.value or b"" for record in side.producer.sent) == letter.raw
    assert np.unique([len(record.value or b"") for record in side.producer.sent[:-1]]).tolist() == [
        100
    ]
