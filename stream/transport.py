"""A Faust transport that hands an agent one event per chunk of records.

Stock Faust wraps every record in tasks, at some 75 microseconds each; here an event's value is the
list of a partition's records, at some 3 microseconds a record. The offset that may be committed is
the longest acknowledged prefix of what was delivered, kept in a queue per partition.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any, cast

import faust
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from stream.manifest import Partition
from stream.share import Share

MAX_BATCH = 1_000
FETCH_MAX_WAIT_MS = 10
FETCH_MIN_BYTES = 65_536

_ANSWER_S = 5.0
_LOOK_S = 0.01


def ended_task(client: AIOKafkaConsumer | None) -> str | None:
    """Return which task of its own a client has lost, None while it has what it started.

    aiokafka ends a task at a surprise (a broker that is just starting may name no brokers), logs it
    and stays as it is: no partition, or no record, would ever come again.
    """
    if client is None or client._coordinator is None:  # noqa: SLF001  # no public way
        return None
    tasks = {
        "coordination": client._coordinator._coordination_task,  # noqa: SLF001  # no public way
        "fetching": client._fetcher._fetch_task,  # noqa: SLF001  # no public way
    }
    return next((name for name, task in tasks.items() if task.done()), None)


def is_in_touch(client: AIOKafkaConsumer | None) -> bool:
    """Return whether a client knows its coordinator, which it forgets when heartbeats fail."""
    if client is None or client._coordinator is None:  # noqa: SLF001  # no public way
        return False
    return client._coordinator.coordinator_id is not None  # noqa: SLF001  # no public way


class BatchSchema(faust.Schema):  # type: ignore[type-arg]  # of keys and values: any
    """Hands the list of records on untouched."""

    def compile(self, app: Any, **_: Any) -> Any:
        """Return the decoder that Faust calls for each message."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            value, message.value = message.value, None  # the ack queue must not hold the records
            return app.create_event(None, value, None, message)

        return decode


class _SharedCluster:
    """A cluster's topics, without the partitions of other workers."""

    def __init__(self, cluster: Any, share: Share) -> None:
        self._cluster = cluster
        self._share = share

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        found = self._cluster.partitions_for_topic(topic)
        return None if found is None else {p for p in found if self._share.holds(p)}


def assignor_of(share: Share) -> type[RangePartitionAssignor]:
    """Return an assignor that deals out the partitions of one worker and no others.

    Its name stays aiokafka's: two processes of one worker, before and after a change of ``workers``
    say, may be in its group at a time, and Kafka refuses one whose assignor the other lacks.
    """

    class ShareAssignor(RangePartitionAssignor):  # type: ignore[misc]  # untyped
        @classmethod
        def assign(cls, cluster: Any, members: Any) -> Any:
            return super().assign(_SharedCluster(cluster, share), members)

    return ShareAssignor


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer with a short, filled fetch and topics of equal size on the same worker.

    Faust fixes a fetch wait of 1.5 s and, without tables, spreads two topics differently; both are
    set on the consumer before it starts.
    """

    logger = logging.getLogger("faust")  # else it takes this module's, and tells of every start

    async def rejoin(self) -> None:
        """Have the group deal its partitions out anew."""
        await self.call_thread(self._rejoin)

    async def _rejoin(self) -> None:
        if self._consumer is not None and self._consumer._coordinator is not None:  # noqa: SLF001  # no public way
            self._consumer._coordinator.request_rejoin()  # noqa: SLF001  # no public way

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # noqa: SLF001  # no public way
        consumer._fetch_min_bytes = FETCH_MIN_BYTES  # noqa: SLF001  # no public way
        share = self.app.share  # type: ignore[attr-defined]  # of BatchApp
        consumer._partition_assignment_strategy = [assignor_of(share)]  # noqa: SLF001  # no public way
        return consumer


class BatchConsumer(driver.Consumer):
    """Delivers chunks of at most ``MAX_BATCH`` records of one partition.

    ``app.positions`` gives the offsets that the state on disk belongs to; after each assignment
    reading goes on from there, not from what was committed to Kafka.
    """

    logger = logging.getLogger("faust")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._in_flight: defaultdict[TP, deque[Any]] = defaultdict(deque)
        self._dropped: set[TP] = set()
        self._next: dict[TP, int] = {}
        self._room = asyncio.Event()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def ended_task(self) -> str | None:
        """Return which task of its own the client has lost, None while it has all."""
        return ended_task(self._thread._consumer)  # noqa: SLF001  # no public way

    def is_in_touch(self) -> bool:
        """Return whether the client is in touch with its group."""
        return is_in_touch(self._thread._consumer)  # noqa: SLF001  # no public way

    async def rejoin(self) -> None:
        """Have the group deal its partitions out anew."""
        await cast(ConsumerThread, self._thread).rejoin()

    async def ends(self, places: Iterable[Partition]) -> dict[Partition, int]:
        """Return the end of each of some partitions; none where the cluster does not say."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                ends = await self.highwaters(*(TP(*place) for place in places))
        except (KafkaError, TimeoutError) as error:
            self.log.warning("the ends of the partitions are not known: %s", error)
            return {}
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}

    async def begin(self, place: Partition) -> int:
        """Return the first offset that a partition still has."""
        tp = TP(*place)
        return int((await self.earliest_offsets(tp))[tp])

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        for tp in {*self._acked, *self._in_flight}:
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        queue, new = self._in_flight[tp], None
        while queue and queue[0].acked:
            new = queue.popleft().offset + 1
        return new

    async def perform_seek(self) -> None:
        """Seek to the positions of the stored state; runs just before the flow resumes."""
        await super().perform_seek()
        self._in_flight.clear()
        self._dropped.clear()
        self._next.clear()
        stored = await self.app.positions()  # type: ignore[attr-defined]  # of BatchApp
        positions = {
            tp: stored[tp.topic, tp.partition]
            for tp in self.assignment()
            if (tp.topic, tp.partition) in stored
        }
        if positions:
            await self.seek_wait(positions)
            self._committed_offset.update(positions)
            self._read_offset.update(positions)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was in flight of partitions that are gone."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._in_flight.pop(tp, None)
            self._next.pop(tp, None)
            self._dropped.discard(tp)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's check takes an idle partition for a stuck one."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Wake the reader: there is room again."""
        super().on_buffer_drop(tp)
        self._room.set()

    async def _wait_next_records(
        self,
        timeout: float,  # noqa: ASYNC109  # Faust calls it so
    ) -> tuple[Any, Any]:
        if not (self.flow_active and self._buffered_partitions):
            return await super()._wait_next_records(timeout)
        if self._get_active_partitions():  # who waits for these does not see when there is room
            return await super()._wait_next_records(min(timeout, _LOOK_S))
        self._room.clear()  # Faust would sleep a whole second here
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._room.wait()
        return {}, self._get_active_partitions()

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):  # noqa: SLF001  # no public way
                records, active = await self._wait_next_records(1.0)
                await asyncio.sleep(0)
                generation = self.app.consumer_generation_id
                if records and not self.should_stop:
                    for tp, chunk in records.items():
                        await self._deliver(tp, chunk, active, generation)
        except (*self.consumer_stopped_errors, asyncio.CancelledError):  # type: ignore[misc]  # a tuple
            if not self.app.should_stop:
                raise

    async def _deliver(
        self, tp: TP, records: list[ConsumerRecord], active: Any, generation: int
    ) -> None:
        wanted = active is None or tp in active or tp in self._buffered_partitions
        if not (self._is_current(generation) and wanted):
            self._dropped.add(tp)
            return
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        floor = self._next.get(tp)
        if tp in self._dropped:
            self._dropped.discard(tp)
            if floor is not None and records[0].offset > floor:
                await self.seek_wait({tp: floor})
                return
        if floor is None:
            floor = self._read_offset[tp]
        if floor is not None and records[0].offset < floor:
            records = [record for record in records if record.offset >= floor]
        for start in range(0, len(records), MAX_BATCH):
            if not self._is_current(generation):
                self._dropped.add(tp)
                return
            await self._hand_on(tp, records[start : start + MAX_BATCH], generation)

    def _is_current(self, generation: int) -> bool:
        return bool(self.flow_active and self.app.consumer_generation_id == generation)

    async def _hand_on(self, tp: TP, chunk: list[ConsumerRecord], generation: int) -> None:
        last = chunk[-1]
        message = ConsumerMessage(
            last.topic,
            last.partition,
            last.offset,
            last.timestamp / 1000.0,
            last.timestamp_type,
            None,
            None,
            chunk,  # type: ignore[arg-type]  # the value is the list of records
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )
        self._in_flight[tp].append(message)
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        self._read_offset[tp] = last.offset
        self._next[tp] = last.offset + 1


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with `BatchConsumer`."""

    Consumer = BatchConsumer
