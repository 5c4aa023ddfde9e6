"""A worker's changelog on the bank's cluster: claimed by one process, written, read back.

Who starts claims the epoch after the highest that the topic holds, by a head with what it found.
Then whatever a process of an earlier epoch still writes counts no more, and that process learns so
with its own next head: its records no longer follow each other.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from models.errors import SettingsError, SupersededError, UnavailableError
from stream.changelog import (
    Head,
    Owner,
    Pair,
    check_owner,
    head_pair,
    heads,
    newer,
    page_pairs,
)
from stream.manifest import Snapshot, unseal

log = logging.getLogger(__name__)

_BATCH_BYTES = 900_000
_FETCH_BYTES = 16 * 1024 * 1024
_TIMEOUT_MS = 60_000
_STALL_S = 60.0  # without a record that is known to be there
_POLL_MS = 500
_TAIL = 512  # records that are looked at first for a head, then eight times as many

_Pair = tuple[bytes, bytes | memoryview | None]


class ChangelogTopic:
    """One worker's changelog; entered it is connected, left it is not.

    Parameters
    ----------
    bootstrap
        Of the bank's cluster.
    topic
        Its name.
    owner
        Whose state it holds.
    process
        A name that no other process has.

    Attributes
    ----------
    owner
        As given.
    epoch
        Of this process, 0 before `claim`.
    leftover
        Keys to be deleted with the next checkpoint unless it names them.
    """

    def __init__(self, bootstrap: str, topic: str, owner: Owner, process: str) -> None:
        self.owner = owner
        self._process = process
        self._place = TopicPartition(topic, 0)
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer
        self._consumer: AIOKafkaConsumer
        self._stack = contextlib.AsyncExitStack()
        self._head_offset = self._next_offset = 0
        self.epoch = 0
        self.leftover: set[bytes] = set()

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self.close()

    async def connect(self) -> None:
        """Connect, in the event loop in which it will be used.

        Raises
        ------
        UnavailableError
            If the cluster does not answer.
        SettingsError
            If it has no such topic.
        """
        topic = self._place.topic
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,  # a record that is sent twice would pass for somebody else's
            max_batch_size=_BATCH_BYTES,
            request_timeout_ms=_TIMEOUT_MS,
        )
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
            request_timeout_ms=_TIMEOUT_MS,
        )
        try:
            async with contextlib.AsyncExitStack() as stack:
                for client in (self._consumer, self._producer):
                    stack.push_async_callback(client.stop)
                    await client.start()
                if topic not in await self._consumer.topics():
                    raise SettingsError(
                        f"changelog: expected a topic {topic}, found none: `amalgam topics create`"
                    )
                self._consumer.assign([self._place])
                self._stack = stack.pop_all()
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"the changelog is not reached: {error}") from error

    async def close(self) -> None:
        """Disconnect; nothing where it is not connected."""
        await self._stack.aclose()

    async def end(self) -> int:
        """Return the offset of the next record."""
        found = await self._consumer.end_offsets([self._place])
        return int(found[self._place])

    async def records(self, start: int, end: int) -> AsyncIterator[list[Pair]]:
        """Yield keys and values from an offset up to another, as many at once as are there.

        Raises
        ------
        UnavailableError
            If none comes for a minute.
        """
        self._consumer.seek(self._place, start)
        clock = asyncio.get_running_loop().time
        seen_s = clock()
        while await self._consumer.position(self._place) < end:
            got = await self._consumer.getmany(self._place, timeout_ms=_POLL_MS)
            records = got.get(self._place, [])
            if records:
                seen_s = clock()
                yield [(one.key or b"", one.value) for one in records if one.offset < end]
            elif clock() - seen_s > _STALL_S:
                raise UnavailableError(f"the changelog gave no record for {_STALL_S:.0f} s")

    async def beginning(self) -> int:
        """Return the offset of the first record."""
        found = await self._consumer.beginning_offsets([self._place])
        return int(found[self._place])

    async def newest(self, end: int) -> Head | None:
        """Return the head that counts among the records before ``end``, None for none.

        It is looked for at the end; the last head says how far back another may be.
        """
        begin, width, found, last = await self.beginning(), _TAIL, None, None
        start = end
        while last is None and start > begin:
            start = max(begin, end - width)
            async for pairs in self.records(start, end):
                for last in heads(pairs):
                    found = newer(found, last)
            width *= 8
        if last is not None and last.previous < start:
            async for pairs in self.records(max(last.previous, begin), start):
                for head in heads(pairs):
                    found = head if found is None or head.epoch > found.epoch else found
        return found

    async def claim(self, epoch: int, *, is_anew: bool) -> Head | None:
        """Take an epoch above ``epoch`` and the topic's; return what the topic holds.

        From then on nobody else's state counts. A checkpoint that came meanwhile is found too.

        Parameters
        ----------
        epoch
            Of the state at hand.
        is_anew
            Whether what is there is to be replaced, whatever schema it is of.

        Raises
        ------
        SupersededError
            If another process was faster.
        StateError
            If it is another worker's, or of another version.
        """
        end = await self.end()
        found = await self.newest(end)
        self.epoch = max(epoch, 0 if found is None else found.epoch) + 1
        offset = await self._claim(found, end, is_anew=is_anew)
        meanwhile = await self._newest_of_others(end, offset)
        if meanwhile is not None:
            found = meanwhile
            again = await self._claim(found, offset, is_anew=is_anew)
            await self._newest_of_others(offset, again)
            offset = again
        self._head_offset, self._next_offset = offset, offset + 1
        state = None if found is None else found.state()
        self.leftover = set() if state is None else {key for key, _ in state.pages()}
        log.info("changelog %s: epoch %d", self._place.topic, self.epoch)
        return found

    async def _claim(self, found: Head | None, seen: int, *, is_anew: bool) -> int:
        if found is not None and not is_anew:
            check_owner(found, self.owner)
        return await self._put_head(b"" if found is None else found.manifest, seen)

    async def _newest_of_others(self, start: int, end: int) -> Head | None:
        """Return the newest head of another process; one of this epoch or above it ends this one.

        Raises
        ------
        SupersededError
            If there is one.
        """
        found: Head | None = None
        if start < end:
            async for pairs in self.records(start, end):
                for head in heads(pairs):
                    if head.process != self._process:
                        found = newer(found, head)
        if found is not None and found.epoch >= self.epoch:
            raise self._superseded(found)
        return found

    def _superseded(self, found: Head) -> SupersededError:
        return SupersededError(
            f"another process has taken over worker {self.owner.worker!r} of "
            f"{self.owner.member}: its changelog is in epoch {found.epoch}, this one was in "
            f"{self.epoch}"
        )

    async def send(self, snapshot: Snapshot) -> int:
        """Send a checkpoint: pages, its head, deletions; return the bytes once all is confirmed.

        Raises
        ------
        SupersededError
            If another process has taken over; then this checkpoint counts nowhere.
        UnavailableError
            If it does not arrive.
        """
        n_bytes = 0

        def counted() -> Iterator[_Pair]:
            nonlocal n_bytes
            for key, page in page_pairs(snapshot):
                n_bytes += len(page)
                yield key, page

        await self._put(counted())
        offset = await self._put_head(snapshot.manifest, self._head_offset)
        if offset - self._next_offset != snapshot.n_pages:
            await self._look_for_rivals(self._next_offset, offset)
        gone = set(snapshot.gone)
        if self.leftover:
            gone |= self.leftover.difference(key for key, _ in unseal(snapshot.manifest).pages())
            self.leftover = set()
        last = await self._put((key, None) for key in sorted(gone))
        self._head_offset, self._next_offset = offset, max(offset, last) + 1
        return n_bytes + len(snapshot.manifest)

    async def _look_for_rivals(self, start: int, end: int) -> None:
        """Refuse to go on where a process of a higher epoch has written."""
        async for pairs in self.records(start, end):
            for head in heads(pairs):
                if head.epoch > self.epoch:
                    raise self._superseded(head)

    async def check(self) -> None:
        """Look whether another process has taken over.

        Raises
        ------
        SupersededError
            If so.
        UnavailableError
            If the cluster does not answer.
        """
        try:
            end = await self.end()
        except KafkaError as error:
            raise UnavailableError(f"the changelog is not reached: {error}") from error
        if self._next_offset < end:
            await self._look_for_rivals(self._next_offset, end)

    async def _put_head(self, manifest: bytes, previous: int) -> int:
        head = Head(*self.owner, self.epoch, self._process, previous, manifest)
        return await self._put([head_pair(head)])

    async def _put(self, pairs: Iterable[_Pair]) -> int:
        """Send records and wait until all have arrived; return the last one's offset, or -1."""
        sent: list[tuple[asyncio.Future[object], int]] = []
        batch, last = self._producer.create_batch(), -1
        try:
            for key, value in pairs:
                if batch.append(key=key, value=value, timestamp=None) is None:
                    sent.append((await self._send(batch), batch.record_count()))
                    batch = self._producer.create_batch()
                    batch.append(key=key, value=value, timestamp=None)
            if batch.record_count():
                sent.append((await self._send(batch), batch.record_count()))
            for future, n in sent:
                last = (await future).offset + n - 1  # type: ignore[attr-defined]  # of RecordMetadata
        except KafkaError as error:
            raise UnavailableError(f"the changelog cannot be written: {error}") from error
        return last

    async def _send(self, batch: object) -> "asyncio.Future[object]":
        place = self._place
        sent: asyncio.Future[object] = await self._producer.send_batch(
            batch, place.topic, partition=place.partition
        )
        return sent
