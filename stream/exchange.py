"""The worker's side of the consortium: summaries out, releases in, on its own connection."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from models.errors import DecodeError, QuarantinedError
from models.fragments import FragmentRecord, Reassembler, Splitter
from models.release import Release
from models.release_codec import ReleaseAssembler
from models.topics import ConsortiumTopics
from stream.anew import Published
from stream.outbox import Letter, Outbox
from stream.settings import Membership
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

_REQUEST_BYTES = 4 * 1024 * 1024
_FETCH_BYTES = 16 * 1024 * 1024
_RETRY_S = 2.0


class _Client(Protocol):
    """What aiokafka's clients have in common."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


ClientT = TypeVar("ClientT", bound=_Client)


class Exchange:
    """Delivers an outbox; collects releases. A consortium that is away is tried for ever.

    Parameters
    ----------
    member, worker
        Whose topic is written, and by which of its workers.
    bootstrap
        Of the consortium's cluster.
    membership
        Keys and meaning.
    outbox
        What is to be sent; its numbering is taken up where the topic ends.
    telemetry
        Counts what goes over the border.

    Attributes
    ----------
    newest
        The newest whole release that came, None before one did.
    published
        What the own topic held at the connection; read only where the state begins anew.
    """

    def __init__(
        self,
        member: str,
        worker: str,
        bootstrap: str,
        membership: Membership,
        outbox: Outbox,
        telemetry: Telemetry,
    ) -> None:
        topics = ConsortiumTopics(membership.consortium)
        self._bootstrap = bootstrap
        self._outbox = outbox
        self._telemetry = telemetry
        self._topic = topics.summaries(member)
        self._own_keys = f"{member}|{worker}|".encode()
        self._releases = TopicPartition(topics.releases, 0)
        self._splitter = Splitter()
        self._reassembler = Reassembler()
        self._assembler = ReleaseAssembler(
            membership.consortium, membership.schema, membership.amalgamator
        )
        self._arrived = asyncio.Condition()
        self._connected = asyncio.Event()
        self._producer: AIOKafkaProducer | None = None
        self.newest: Release | None = None
        self.published = Published()

    async def run(self) -> None:
        """Connect, then read releases, until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            while not self._connected.is_set():
                try:
                    self._producer = await self._started(stack, self._new_producer())
                    await self._take_up()
                    consumer = await self._started(stack, self._new_consumer())
                    consumer.assign([self._releases])
                    self._connected.set()
                except (KafkaError, OSError) as error:
                    log.warning("the consortium's cluster is not reached: %s", error)
                    await asyncio.sleep(_RETRY_S)
            await self._read(consumer)

    @staticmethod
    async def _started(stack: contextlib.AsyncExitStack, client: ClientT) -> ClientT:
        try:
            await client.start()
        except BaseException:
            await client.stop()
            raise
        stack.push_async_callback(client.stop)
        return client

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", max_request_size=_REQUEST_BYTES
        )

    def _new_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
        )

    async def _take_up(self) -> None:
        """Read the own topic: which slots its keys use, and the highest number that was given.

        The bank's other workers number their own. Where the state begins anew, also what it holds.
        """
        async with contextlib.AsyncExitStack() as stack:
            consumer = await self._started(stack, self._new_consumer())
            own = TopicPartition(self._topic, 0)
            consumer.assign([own])
            end = (await consumer.end_offsets([own]))[own]
            while await consumer.position(own) < end:
                for record in (await consumer.getmany(timeout_ms=200)).get(own, []):
                    self._splitter.observe(record.key)
                    if self._outbox.is_anew:
                        self.published.add(FragmentRecord(record.key, record.value, record.headers))
                    if not record.key.startswith(self._own_keys):
                        continue
                    numbers = [int(value) for name, value in record.headers if name == "seq"]
                    self._outbox.take_up(max(numbers, default=0))

    async def connected(self) -> None:
        """Return once the own topic has been read, so that new numbers follow the old ones."""
        await self._connected.wait()

    async def deliver(self) -> None:
        """Return once everything in the outbox has arrived, however long that takes."""
        await self.connected()
        self._telemetry.summaries_waiting.set(len(self._outbox.letters))
        while self._outbox.letters:
            try:
                for letter in self._outbox.letters:
                    await self._send(letter)
            except KafkaError as error:
                log.warning("summaries wait for the consortium's cluster: %s", error)
                await asyncio.sleep(_RETRY_S)
            self._telemetry.summaries_waiting.set(len(self._outbox.letters))

    async def _send(self, letter: Letter) -> None:
        producer = self._producer
        if producer is None:  # deliver waits for the connection
            raise RuntimeError("not connected")
        sent = [
            await producer.send(
                self._topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=0,
            )
            for record in self._splitter.split(letter.raw, letter.key, letter.seq)
        ]
        await asyncio.gather(*sent)
        self._outbox.confirm(letter)
        self._telemetry.summaries.inc()
        self._telemetry.summary_bytes.inc(len(letter.raw))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            release = await asyncio.to_thread(self._assembled, record)
            if release is not None:
                async with self._arrived:
                    self.newest = release
                    self._arrived.notify_all()

    def _assembled(self, record: ConsumerRecord) -> Release | None:
        try:
            piece = FragmentRecord(record.key, record.value, record.headers)
            raw = self._reassembler.add(piece)
            return None if raw is None else self._assembler.add(raw)
        except (DecodeError, QuarantinedError) as error:
            self._telemetry.releases_refused.inc()
            log.warning("release record at offset %d refused: %s", record.offset, error)
            return None

    async def wait_for(self, wanted: Callable[[Release], bool]) -> Release:
        """Return the newest release once it is one that is wanted."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.newest is not None and wanted(self.newest))
        if self.newest is None:  # the wait above has just seen one
            raise RuntimeError("no release")
        return self.newest
