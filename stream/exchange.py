"""The worker's side of the consortium: contributions out, releases in, on its own connection."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from models.codec import Context, encode_contribution
from models.envelope import open_envelope
from models.errors import DecodeError, QuarantinedError
from models.fragments import FragmentRecord, Reassembler, Splitter
from models.release import Release
from models.release_codec import ReleaseAssembler
from models.summary import Contribution
from models.topics import ConsortiumTopics
from stream.settings import Membership
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

_REQUEST_BYTES = 4 * 1024 * 1024
_FETCH_BYTES = 16 * 1024 * 1024
_NO_HASH = b""


class Exchange:
    """Signs and publishes contributions; collects releases.

    Parameters
    ----------
    member
        Whose topic is written.
    bootstrap
        Of the consortium's cluster.
    membership
        Keys and meaning.
    now_ms
        Wall clock, for headers.
    telemetry
        Counts what goes over the border.

    Attributes
    ----------
    newest
        The newest whole release that came, None before one did.
    """

    def __init__(
        self,
        member: str,
        bootstrap: str,
        membership: Membership,
        *,
        now_ms: Callable[[], int],
        telemetry: Telemetry,
    ) -> None:
        topics = ConsortiumTopics(membership.consortium)
        self._membership = membership
        self._bootstrap = bootstrap
        self._now_ms = now_ms
        self._telemetry = telemetry
        self._topic = topics.summaries(member)
        self._releases = TopicPartition(topics.releases, 0)
        self._splitter = Splitter()
        self._reassembler = Reassembler()
        self._assembler = ReleaseAssembler(
            membership.consortium, membership.schema, membership.amalgamator
        )
        self._seq = 0
        self._prev_hash = _NO_HASH
        self._arrived = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None
        self.newest: Release | None = None
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", max_request_size=_REQUEST_BYTES
        )
        self._consumer = self._new_consumer()

    def _new_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
        )

    async def start(self) -> None:
        """Connect, take up the own numbering where the topic ends, begin to read releases."""
        await self._producer.start()
        await self._take_up()
        await self._consumer.start()
        self._consumer.assign([self._releases])
        self._reading = asyncio.create_task(self._read(), name="releases")

    async def stop(self) -> None:
        """Disconnect."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        await self._consumer.stop()
        await self._producer.stop()

    async def _take_up(self) -> None:
        """Read the own topic: which slots its keys use, and the highest number that was given."""
        consumer = self._new_consumer()
        await consumer.start()
        try:
            own = TopicPartition(self._topic, 0)
            consumer.assign([own])
            end = (await consumer.end_offsets([own]))[own]
            while await consumer.position(own) < end:
                for record in (await consumer.getmany(timeout_ms=200)).get(own, []):
                    self._splitter.observe(record.key)
                    numbers = [int(value) for name, value in record.headers if name == "seq"]
                    self._seq = max([self._seq, *numbers])
        finally:
            await consumer.stop()

    async def publish(self, contributions: Sequence[Contribution]) -> list[int]:
        """Sign and send contributions in order; return their sequence numbers once all arrived."""
        seqs, sent = [], []
        for contribution in contributions:
            self._seq += 1
            raw = self._encoded(contribution)
            key = "|".join(str(part) for part in contribution.key).encode()
            sent += [
                await self._producer.send(
                    self._topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=0,
                )
                for record in self._splitter.split(raw, key, self._seq)
            ]
            seqs.append(self._seq)
            self._telemetry.summaries.inc()
            self._telemetry.summary_bytes.inc(len(raw))
        await asyncio.gather(*sent)
        return seqs

    def _encoded(self, contribution: Contribution) -> bytes:
        context = Context(
            consortium=self._membership.consortium,
            seq=self._seq,
            prev_hash=self._prev_hash,
            schema_hash=self._membership.schema.hash,
            created_ms=self._now_ms(),
        )
        raw = encode_contribution(contribution, context, self._membership.signer)
        self._prev_hash = open_envelope(raw).hash
        return raw

    async def _read(self) -> None:
        async for record in self._consumer:
            release = self._assembled(record)
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
