"""The Faust application of one bank: agents, checkpoints, summaries and releases around the worker.

Every chunk goes, under one lock, through: 1 decode, score and learn (pure), 2 publish what came
out, 3 when a checkpoint is due wait for all that was published and store state with offsets, 4
acknowledge what is stored. A crash between 2 and 3 repeats outputs under the same ids; nothing is
lost or learnt twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from faust.types import TP

from models.errors import AmalgamError, StateError, SupersededError
from models.release import Release
from stream.agents import build_faust
from stream.anew import clear_marker, first_places
from stream.catch_up import CatchUp, n_unread
from stream.checkpointing import Checkpoints
from stream.exchange import Exchange
from stream.gauges import show, tell_drift
from stream.manifest import Partition
from stream.outputs import OutputProducer, Outputs
from stream.publishing import Publisher
from stream.renewals import Renewals
from stream.sequencer import Sequencer, Step
from stream.settings import Settings
from stream.sources import LOOK_EVERY_S, Sources
from stream.summaries import Draft
from stream.swap import Swap
from stream.take_up import Taken, shell_arrays, shell_versions
from stream.telemetry import Telemetry
from stream.transport import BatchConsumer
from stream.worker import BankWorker

log = logging.getLogger(__name__)

_LOOK_S = 5.0  # for a look into the changelog between two assignments
_LOOK_AGAIN_S = 1.0
_AFFORD_S = 0.05
_ACKS = 32  # at once, of some 40 microseconds each


class Clients(NamedTuple):
    """The consortium's exchange, and of the bank's cluster what is written and where from."""

    exchange: Exchange
    outputs: OutputProducer
    sources: Sources


class BankApp:
    """One worker process: owns the lock, the clock and every connection.

    Parameters
    ----------
    settings
        Of this worker.
    worker
        The pure part, its pipeline new or restored.
    checkpoints
        Take state and offsets.
    taken
        What was found there.
    clients
        Of the two clusters, not yet started.
    telemetry
        Metrics.
    now_s
        Wall clock, seconds since 1970 UTC.
    """

    def __init__(
        self,
        settings: Settings,
        worker: BankWorker,
        *,
        checkpoints: Checkpoints,
        taken: Taken,
        clients: Clients,
        telemetry: Telemetry,
        now_s: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.outbox = taken.outbox
        self.exchange, self.outputs, self.sources = clients
        self._awaited = taken.awaited
        self.telemetry = telemetry
        self._checkpoints = checkpoints
        self._offsets = dict(taken.offsets)
        self._anew = taken.anew
        self._now_s = now_s
        self._lock = asyncio.Lock()
        self._unacked: list[Any] = []
        self._catch_up = CatchUp(lambda: (self.partitions, self._offsets))
        self._sequencer: Sequencer | None = None
        self._over: AmalgamError | None = None
        self._is_publishing = False  # the next checkpoint is a publication's
        self._publishing: asyncio.Future[None] | None = None
        self._publisher = Publisher(
            worker.pipeline, taken.outbox, self.exchange, worker=settings.worker
        )
        self.renewals = Renewals(
            worker.pipeline,
            self.exchange,
            self._lock,
            install=self.install,
            is_fit=self._knows_own,
            telemetry=telemetry,
        )
        self.partitions: frozenset[Partition] = frozenset()
        self.faust = build_faust(settings, worker.topics, self.on_chunk, self.positions)

    @property
    def _consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self.faust.consumer)

    def unready(self) -> str | None:
        """Return why not: without partitions, topic or cluster, or not caught up."""
        missing = self.sources.missing()
        if missing is not None:
            return f"topic {missing} is not there"
        if not self.partitions:
            return "no partitions assigned yet"
        if not self._consumer.is_in_touch():
            return "the bank's cluster is not reached"
        n_left = 0 if self.settings.mode == "replay" else self._catch_up.n_left()  # holds back
        return f"{n_left} records of before are still to be read" if n_left else None

    def failure(self) -> str | None:
        """Return why the process cannot go on, None while it can; asked once it has started."""
        if self._over is not None:
            return str(self._over)
        if self.faust.crashed:
            return "an agent crashed"
        if self.sources.replaced_by_now:
            return f"topic {self.sources.replaced_by_now[0]} was deleted and made anew"
        unsaid = self.outputs.failure() or self._checkpoints.failure()
        if unsaid is not None:
            return unsaid
        ended = self._consumer.ended_task()
        return None if ended is None else f"the client's {ended} has ended"

    async def positions(self) -> dict[Partition, int]:
        """Return the stored offsets; called after each assignment, before the flow resumes."""
        partitions = frozenset((tp.topic, tp.partition) for tp in self._consumer.assignment())
        self.partitions = frozenset()  # not ready until it is known what is there
        await self.sources.look()
        while self.settings.mode == "replay" and not self.sources.is_known:
            await asyncio.sleep(_LOOK_AGAIN_S)  # all partitions must have spoken: which are there?
            await self.sources.look()
        ends = await self._consumer.ends(partitions)
        async with self._lock:
            await self._look_for_rival()
            self._unacked.clear()
            self._sequencer = None
            if self._anew is not None:
                self._offsets = first_places(self._anew, self._offsets, partitions)
            replaced = self.sources.replaced()
            if replaced and self.settings.mode == "replay":
                self._over = StateError(f"replay: {replaced[0]} was deleted and made anew")
            self._offsets = self.sources.take_up(self._offsets, ends)
            self.partitions = partitions
            self._catch_up.assigned(ends)
        log.info("assigned %d partitions", len(partitions))
        return {place: self._offsets[place] for place in partitions & self._offsets.keys()}

    async def _look_for_rival(self) -> None:
        """Find out whether this is a new assignment because another process took the place."""
        if self._checkpoints.changelog is None:
            return
        try:
            await self._checkpoints.written()
            async with asyncio.timeout(_LOOK_S):
                await self._checkpoints.check()
        except SupersededError as error:
            self._over = error
        except (AmalgamError, TimeoutError) as error:  # the next checkpoint finds out
            log.warning("the changelog was not looked into: %s", error)

    async def on_chunk(self, event: Any) -> None:
        """Do the four steps of the module's text for one event of the transport."""
        async with self._lock:
            is_of_before = event.message.generation_id != self.faust.consumer_generation_id
            if self._over is not None or is_of_before:
                return  # what was delivered before an assignment is read again after it
            records = event.value
            place = (records[0].topic, records[0].partition)
            span = (records[0].offset, records[-1].offset)
            self.sources.follow(place, span, self._consumer.begin)
            if records[0].offset < (floor := self._offsets.get(place, 0)):
                records = [record for record in records if record.offset >= floor]
            started_s = time.perf_counter()
            if records and self.settings.mode == "replay":
                await self._replay(records)
            elif records:
                await self.outputs.hand_over(self._live(records))
                self._offsets[place] = records[-1].offset + 1
            self._unacked.append(event)
            self._catch_up.seen()
            self.telemetry.chunk_s.observe(time.perf_counter() - started_s)
            tell_drift(self.telemetry, self.worker.pipeline)
            if self._is_due():
                await self._checkpoint()

    def _is_due(self) -> bool:
        return self._checkpoints.is_due() and not self._is_publishing

    def _live(self, records: Sequence[Any]) -> list[Outputs]:
        if records[0].topic == self.worker.topics.labels:
            return self.worker.learn(records)
        return self.worker.score(records, clock_ms=int(self._now_s() * 1_000))

    async def _replay(self, records: Sequence[Any]) -> None:
        if self._sequencer is None:
            tick_ms = round(self.settings.tick_s * 1_000)
            is_begun = self._awaited is not None
            resumed = self.worker.pipeline.tick_ms
            next_ms = resumed if resumed < 0 or is_begun else resumed + tick_ms
            self._sequencer = Sequencer(self._share(), tick_ms, next_ms, is_begun)
        await self.outputs.hand_over(self.worker.hold(self._sequencer, records))
        while (step := self._sequencer.step()) is not None:
            await self._take_step(self._sequencer, step)
        self._offsets |= self._sequencer.positions()

    def _share(self) -> frozenset[Partition]:
        """Return all partitions that are this worker's, also while others have some of them."""
        unread = self.sources.unread(self.settings.share, self.partitions)
        return self.partitions.union(unread)

    async def _take_step(self, sequencer: Sequencer, step: Step) -> None:
        """Learn; where an epoch ends publish and wait for its release; score.

        The state is stored between the two, so that a crash repeats what was sent to the bit.
        """
        cadence_ms = round(self.settings.cadence_s * 1_000)
        if not sequencer.is_begun:
            await self.exchange.connected()
            await self.outputs.hand_over(self.worker.begin(step))
            sequencer.begun()
            if step.tick_ms % cadence_ms == 0:
                self._awaited = step.tick_ms // cadence_ms - 1
                self._offsets |= sequencer.positions()
                await self._publish(self._awaited)
        if self._awaited is not None:
            await self._checkpoints.written()
            await self.exchange.deliver()
            epoch = self._awaited
            self.install(await self.exchange.wait_for(lambda release: release.epoch >= epoch))
            self._awaited = None
        await self.outputs.hand_over(self.worker.finish(step))
        sequencer.finished()

    async def _publish(self, epoch: int) -> None:
        """Put what was learnt since the last time into the outbox, and store the state with it.

        What is in the outbox may be sent once the writing has ended. The caller holds the lock.
        """
        started_s = time.perf_counter()
        publisher = self._publisher
        publisher.settle(publisher.seal(publisher.draft(epoch)))
        await self._checkpoint()
        self.telemetry.summary_s.observe(time.perf_counter() - started_s)

    async def _publish_beside(self, draft: Draft, held_s: float) -> None:
        """Do so while decisions are made; the lock was held before, for the draft."""
        sealed = await asyncio.to_thread(self._publisher.seal, draft)
        async with self._lock:
            started_s = time.perf_counter()
            self._publisher.settle(sealed)
            await self._checkpoint()
            self.telemetry.summary_s.observe(held_s + time.perf_counter() - started_s)

    def install(self, release: Release, swap: Swap | None = None) -> None:
        """Swap a release in; the caller holds the lock."""
        if release.age <= self.worker.pipeline.release_age:
            return
        started_s = time.perf_counter()
        self.worker.pipeline.install(release, swap)
        self.telemetry.install_s.observe(time.perf_counter() - started_s)
        self.telemetry.release.set(release.number)
        self.telemetry.scorer.info({"release": release.release_id})
        log.info("release %d (%s) installed", release.number, release.release_id)

    async def publish_live(self) -> None:
        """Publish at every cadence of the wall clock, a little later, until cancelled.

        What is published is stored first, so it waits until a checkpoint may be made again; where
        the state begins anew, until what is there has been read again: the consortium has it still.
        """
        if self.outbox.is_anew:
            await self._catch_up.done()
        while True:
            await self._checkpoints.written()
            await self.exchange.deliver()
            cadence_s = self.settings.cadence_s
            beside_s = min(self.settings.tick_s, cadence_s, 1.0) / 2  # whole ticks bring learning
            await asyncio.sleep(cadence_s - self._now_s() % cadence_s + beside_s)
            self._is_publishing = True
            while not self._checkpoints.is_affordable():  # noqa: ASYNC110  # it is asked of a clock
                await asyncio.sleep(_AFFORD_S)
            async with self._checkpoints.unwritten(self._lock):
                started_s = time.perf_counter()
                draft = self._publisher.draft(int(self._now_s() // cadence_s))
                beside = self._publish_beside(draft, time.perf_counter() - started_s)
                self._publishing = asyncio.ensure_future(beside)  # to be ended, whatever ends this
            await asyncio.shield(self._publishing)
            self._is_publishing = False

    def _knows_own(self, release: Release) -> bool:
        """Return whether what a release holds of this worker can be taken out of it again.

        After a rebuild the state knows nothing of what was published before.
        """
        mine = (self.settings.member, self.settings.worker)
        own = [s.seq for s in release.sources if (s.member, s.worker) == mine]
        return not own or (not self.outbox.is_anew and own[0] >= self.outbox.first_seq)

    async def watch_topics(self) -> None:
        """Look at the input topics, and at what of them is read, now and then, until cancelled.

        Kafka gives a static member that comes back what it had before, without a look at what
        topics have become meanwhile.
        """
        while True:
            await self.sources.watch()
            n_unread = len(self._share() - self.partitions)
            if self.partitions and n_unread:
                log.warning("partitions are not read, the group is joined again: %d", n_unread)
                await self._consumer.rejoin()
            await asyncio.sleep(LOOK_EVERY_S)

    async def checkpoint_regularly(self) -> None:
        """Show the lag; store what is unstored even when no more chunks come; until cancelled.

        Whoever holds the lock stores by itself; the lag grows all the same while it is held.
        """
        while True:
            await asyncio.sleep(self.settings.checkpoint_s)
            self.telemetry.lag.set(self._lag())
            if not self._lock.locked() and self._unacked and self._is_due():
                async with self._lock:
                    await self._checkpoint()

    async def fill_changelog(self) -> None:
        """Send the changelog what it lacks of the state; before the first chunk."""
        if self._checkpoints.store.n_unsent:
            log.info("the changelog lacks %d pages", self._checkpoints.store.n_unsent)
            async with self._lock:
                await self._checkpoint()
            await self._checkpoints.written()

    async def close(self) -> None:
        """Store what is unstored, unless a publication has failed half-way."""
        if self._publishing is not None:
            await self._publishing
        async with self._lock:
            if self._unacked:
                await self._checkpoint()
            await self._checkpoints.written()
            self._checkpoints.store.close()

    async def _checkpoint(self) -> None:
        """Copy what has changed and begin to write it in another thread; the caller holds the lock.

        What came of it so far has been published then.

        Raises
        ------
        StateError
            If the last one could not be written.
        """
        await self._checkpoints.written()
        await self.outputs.confirmed()
        pipeline = self.worker.pipeline
        arrays = shell_arrays(self.outbox, self._awaited, self.sources.known)
        shell = arrays, shell_versions(self.outbox)
        events, self._unacked = self._unacked, []
        self._checkpoints.begin(pipeline, shell, self._offsets, lambda: self._acknowledge(events))
        show(self.telemetry, pipeline)

    async def _acknowledge(self, events: Sequence[Any]) -> None:
        """Let go of what is stored; decisions are made in between."""
        if self._anew is not None:
            clear_marker(self.settings.state_dir)
            self._anew = None
        for i, event in enumerate(events, 1):
            event.ack()
            if i % _ACKS == 0:
                await asyncio.sleep(0)

    def _lag(self) -> int:
        """Return how many records on the broker are not in the state yet."""
        consumer = self._consumer
        assigned = self.partitions & {(tp.topic, tp.partition) for tp in consumer.assignment()}
        return n_unread({p: consumer.highwater(TP(*p)) for p in assigned}, self._offsets)
