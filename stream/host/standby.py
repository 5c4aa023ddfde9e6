"""Warm copies of the workers that other hosts run, each followed over its changelog."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from models.errors import StateError
from models.topics import BankTopics
from stream.ending import end
from stream.followed import Copy, note_of, read_followed, write_followed
from stream.settings import Settings, of_worker
from stream.store import STORE, StateStore

log = logging.getLogger(__name__)

_FETCH_BYTES = 16 * 1024 * 1024
_POLL_MS = 200
_RETRY_S = 5.0
_HAND_OVER_S = 10.0
_CLOSE_S = 2.0
ResultT = TypeVar("ResultT")


class Standby:
    """Follows workers; a copy is handed over before its worker starts here.

    Parameters
    ----------
    settings
        Of the host.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._following: dict[str, _Follower] = {}

    def follow(self, worker: str) -> None:
        """Begin to follow a worker that does not run here; again does nothing."""
        if worker not in self._following:
            self._following[worker] = _Follower(of_worker(self._settings, worker))

    def lag(self, worker: str) -> int:
        """Return how many records a copy is behind; 0 where none is followed."""
        follower = self._following.get(worker)
        return 0 if follower is None else follower.lag

    async def hand_over(self, worker: str) -> None:
        """Bring a copy to the end of the changelog and let go of its store, whatever came of it."""
        follower = self._following.pop(worker, None)
        if follower is not None:
            await follower.finish(_HAND_OVER_S)

    async def close(self) -> None:
        """Let go of all, at once; those that are caught up can be gone on from."""
        followers, self._following = self._following, {}
        await asyncio.gather(*(one.finish(_CLOSE_S) for one in followers.values()))


class _Follower:
    """One worker's copy."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        topic = BankTopics(settings.member).changelog(settings.worker)
        self._place = TopicPartition(topic, 0)
        self._finishing = asyncio.Event()
        self._disk = ThreadPoolExecutor(1)  # one after the other, also where one is given up
        self._task = asyncio.create_task(self._run())
        self.lag = 0

    async def finish(self, within_s: float) -> None:
        self._finishing.set()
        await asyncio.wait([self._task], timeout=within_s)
        await end([self._task])
        self._disk.shutdown(wait=False)

    async def _done(self, work: Callable[[], ResultT]) -> ResultT:
        """Return what some work on the store gives, done beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    async def _run(self) -> None:
        """Follow until the end, again after whatever stands in the way; then there is no state."""
        while not self._finishing.is_set():
            try:
                await self._follow()
            except (KafkaError, OSError, StateError) as error:
                log.warning("%s is not followed: %s", self._place.topic, error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._finishing.wait()

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.bank_bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
        )
        store = await self._done(lambda: StateStore(self._settings.state_dir / STORE))
        try:
            await consumer.start()
            consumer.assign([self._place])
            copy, start = self._begun(store)
            if start is None:
                await consumer.seek_to_beginning(self._place)
            else:
                consumer.seek(self._place, start)
            await self._done(store.forget)
            offset = await self._read(consumer, store, copy)
            await self._done(lambda: self._complete(store, copy, offset))
        finally:
            await self._done(store.close)
            await consumer.stop()

    def _begun(self, store: StateStore) -> tuple[Copy, int | None]:
        """Return what the store holds already, and from where to read on; None: all is read."""
        followed, manifest = read_followed(self._settings.state_dir), store.sealed()
        if followed is None or manifest is None or store.stamp() != followed.stamp:
            return Copy(), None
        return Copy(manifest), followed.offset

    async def _read(self, consumer: AIOKafkaConsumer, store: StateStore, copy: Copy) -> int:
        """Store pages until the end that the topic has when the copy is to be handed over."""
        last: int | None = None
        while True:
            if last is None and self._finishing.is_set():
                last = (await consumer.end_offsets([self._place]))[self._place]
            offset: int = await consumer.position(self._place)
            if last is not None and offset >= last:
                return offset
            got = await consumer.getmany(self._place, timeout_ms=_POLL_MS)
            records = got.get(self._place, [])
            pages = copy.take((one.key or b"", one.value) for one in records)
            if pages:
                await self._done(partial(store.put, pages))
            self.lag = max((consumer.highwater(self._place) or 0) - offset - len(records), 0)

    def _complete(self, store: StateStore, copy: Copy, offset: int) -> None:
        manifest = copy.whole()
        if manifest is None:
            return
        store.take(manifest)
        write_followed(self._settings.state_dir, note_of(manifest, offset))
        log.info("the copy of worker %s is whole, at offset %d", self._settings.worker, offset)
