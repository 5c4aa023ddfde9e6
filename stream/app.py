"""The Faust application of one bank: agents, checkpoints, summaries and releases around the worker.

Every chunk goes, under one lock, through: 1 decode, score and learn (pure), 2 publish what came out
and wait for it, 3 store state with offsets when a checkpoint is due, 4 acknowledge what is stored.
A crash between 2 and 3 repeats outputs under the same ids; nothing is lost or learnt twice.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from faust.types import TP

from models.errors import AmalgamError, SupersededError
from models.release import Release
from stream.agents import build_faust
from stream.anew import Anew, clear_marker
from stream.exchange import Exchange
from stream.gauges import show, tell_drift
from stream.outputs import OutputProducer, Outputs
from stream.page_table import Copied
from stream.pipeline_state import dump, stored
from stream.sequencer import Sequencer, Step
from stream.settings import Settings
from stream.take_over import Places
from stream.take_up import Taken, shell_arrays
from stream.telemetry import Telemetry
from stream.worker import BankWorker

log = logging.getLogger(__name__)

_LOOK_S = 5.0  # for a look into the changelog between two assignments
_CATCH_UP_S = 1.0  # between looks whether everything has been read again
_IDLE_S = 30.0  # without a chunk, what is there has been read
_CHECKPOINT_SHARE = 0.1  # of the time at most goes into copying and writing what changed
_MAX_CHECKPOINT_S = 30.0  # and still the next one comes so soon: a restart repeats no more
Partition = tuple[str, int]


class BankApp:
    """One worker process: owns the lock, the clock and every connection.

    Parameters
    ----------
    settings
        Of this worker.
    worker
        The pure part, its pipeline new or restored.
    places
        Where state and offsets go.
    taken
        What was found there.
    exchange, outputs
        Clients of the two clusters, not yet started.
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
        places: Places,
        taken: Taken,
        exchange: Exchange,
        outputs: OutputProducer,
        telemetry: Telemetry,
        now_s: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.outbox = taken.outbox
        self.exchange = exchange
        self._awaited = taken.awaited
        self.outputs = outputs
        self.telemetry = telemetry
        self._store, self._changelog = places
        self._offsets = dict(taken.offsets)
        self._anew = taken.anew
        self._now_s = now_s
        self._lock = asyncio.Lock()
        self._unacked: list[Any] = []
        self._stored_s = self._checkpoint_s = self._chunk_s = 0.0
        self._writing: asyncio.Future[None] = _done()
        self._sequencer: Sequencer | None = None
        self._superseded: SupersededError | None = None
        self.partitions: frozenset[Partition] = frozenset()
        self.faust = build_faust(settings, worker.topics, self.on_chunk, self.positions)

    def unready(self) -> str | None:
        """Return why not: partitions are not assigned yet, or the bank's cluster is away."""
        if not self.partitions:
            return "no partitions assigned yet"
        consumer = self.faust.consumer
        return None if consumer.is_in_touch() else "the bank's cluster is not reached"  # type: ignore[attr-defined]  # of BatchConsumer

    def failure(self) -> str | None:
        """Return why the process cannot go on, None while it can; asked once it has started."""
        if self._superseded is not None:
            return str(self._superseded)
        if self.faust.crashed:
            return "an agent crashed"
        if self._writing.done() and not self._writing.cancelled() and self._writing.exception():
            return f"the state is not stored: {self._writing.exception()}"
        ended = self.faust.consumer.ended_task()  # type: ignore[attr-defined]  # of BatchConsumer
        return None if ended is None else f"the client's {ended} has ended"

    async def positions(self) -> dict[Partition, int]:
        """Return the stored offsets; called after each assignment, before the flow resumes."""
        self.partitions = frozenset(
            (tp.topic, tp.partition) for tp in self.faust.consumer.assignment()
        )
        async with self._lock:
            await self._look_for_rival()
            self._unacked.clear()
            self._sequencer = None
            if self._anew is not None:
                self._begin(self._anew)
        log.info("assigned %d partitions", len(self.partitions))
        return {place: self._offsets[place] for place in self.partitions & self._offsets.keys()}

    async def _look_for_rival(self) -> None:
        """Find out whether this is a new assignment because another process took the place."""
        if self._changelog is None:
            return
        try:
            await self._writing
            await asyncio.wait_for(self._changelog.check(), _LOOK_S)
        except SupersededError as error:
            self._superseded = error
        except (AmalgamError, TimeoutError) as error:  # the next checkpoint finds out
            log.warning("the changelog was not looked into: %s", error)

    def _begin(self, anew: Anew) -> None:
        """Choose where to read from after a rebuild; partitions of other workers are not ours."""
        if anew.places is None and not self._offsets:
            self._offsets = dict.fromkeys(self.partitions, 0)
        self._offsets = {
            place: offset
            for place, offset in self._offsets.items()
            if offset > 0 or place in self.partitions
        }

    async def on_chunk(self, event: Any) -> None:
        """Do the four steps of the module's text for one event of the transport."""
        async with self._lock:
            if self._superseded is not None:
                return
            records = event.value
            place = (records[0].topic, records[0].partition)
            records = [r for r in records if r.offset >= self._offsets.get(place, 0)]
            started_s = time.perf_counter()
            if records and self.settings.mode == "replay":
                await self._replay(records)
            elif records:
                await self.outputs.send(self._live(records))
                self._offsets[place] = records[-1].offset + 1
            self._unacked.append(event)
            self._chunk_s = self._now_s()
            self.telemetry.chunk_s.observe(time.perf_counter() - started_s)
            tell_drift(self.telemetry, self.worker.pipeline)
            if self._is_checkpoint_due():
                await self._checkpoint()

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
            self._sequencer = Sequencer(self.partitions, tick_ms, next_ms, is_begun)
        await self.outputs.send(self.worker.hold(self._sequencer, records))
        while (step := self._sequencer.step()) is not None:
            await self._take_step(self._sequencer, step)
        self._offsets |= self._sequencer.positions()

    async def _take_step(self, sequencer: Sequencer, step: Step) -> None:
        """Learn; where an epoch ends publish and wait for its release; score.

        The state is stored between the two, so that a crash repeats what was sent to the bit.
        """
        cadence_ms = round(self.settings.cadence_s * 1_000)
        if not sequencer.is_begun:
            await self.exchange.connected()
            await self.outputs.send(self.worker.begin(step))
            sequencer.begun()
            if step.tick_ms % cadence_ms == 0:
                self._awaited = step.tick_ms // cadence_ms - 1
                self._offsets |= sequencer.positions()
                await self._publish(self._awaited)
        if self._awaited is not None:
            await self._writing
            await self.exchange.deliver()
            epoch = self._awaited
            self.install(await self.exchange.wait_for(lambda release: release.epoch >= epoch))
            self._awaited = None
        await self.outputs.send(self.worker.finish(step))
        sequencer.finished()

    async def _publish(self, epoch: int) -> None:
        """Put what was learnt since the last time into the outbox, and store the state with it.

        What is in the outbox may be sent once the writing has ended.
        """
        started_s = time.perf_counter()
        pipeline = self.worker.pipeline
        pieces = pipeline.contributions(epoch)
        is_anew = self.outbox.is_anew
        if is_anew:  # first, so that nothing counts twice in between
            worker, keys = self.settings.worker, [piece.key for piece in pieces]
            self.outbox.put(self.exchange.published.retractions(worker, keys, epoch))
        seqs = self.outbox.put(pieces)
        pipeline.published(seqs)
        if is_anew:
            self.outbox.settle(seqs[-1] - 1)  # a release names no number that closes an epoch
        await self._checkpoint()
        self.telemetry.summary_s.observe(time.perf_counter() - started_s)

    def install(self, release: Release) -> None:
        """Swap a release in; the caller holds the lock."""
        if release.number <= self.worker.pipeline.release_number:
            return
        started_s = time.perf_counter()
        self.worker.pipeline.install(release)
        self.telemetry.install_s.observe(time.perf_counter() - started_s)
        self.telemetry.release.set(release.number)
        self.telemetry.scorer.info({"release": release.release_id})
        log.info("release %d (%s) installed", release.number, release.release_id)

    async def publish_live(self) -> None:
        """Publish at every cadence of the wall clock, until cancelled.

        Where the state begins anew, only once what is there has been read again: until then the
        consortium keeps what it has.
        """
        if self.outbox.is_anew:
            await self._caught_up()
        while True:
            await self._writing
            await self.exchange.deliver()
            cadence_s = self.settings.cadence_s
            await asyncio.sleep(cadence_s - self._now_s() % cadence_s)
            async with self._unwritten():
                await self._publish(int(self._now_s() // cadence_s))

    async def install_live(self) -> None:
        """Install every release as it comes, until cancelled."""
        while True:
            held = self.worker.pipeline.release_number
            release = await self.exchange.wait_for(
                lambda r, held=held: r.number > held and self._knows_own(r)  # type: ignore[misc]  # bound default
            )
            async with self._lock:
                self.install(release)

    def _knows_own(self, release: Release) -> bool:
        """Return whether what a release holds of this worker can be taken out of it again.

        After a rebuild the state knows nothing of what was published before.
        """
        mine = (self.settings.member, self.settings.worker)
        own = [s.seq for s in release.sources if (s.member, s.worker) == mine]
        return not own or (not self.outbox.is_anew and own[0] >= self.outbox.first_seq)

    async def _caught_up(self) -> None:
        """Return once all has been read that was on the broker when this began."""
        ends: dict[Partition, int] = {}
        self._chunk_s = self._now_s()
        while True:
            await asyncio.sleep(_CATCH_UP_S)
            if not self.partitions:
                self._chunk_s = self._now_s()
            for place in self.partitions - ends.keys():
                end = self.faust.consumer.highwater(TP(*place))
                if end is not None:
                    ends[place] = end
            is_read = all(self._offsets.get(place, 0) >= end for place, end in ends.items())
            is_known = bool(ends) and ends.keys() >= self.partitions
            if (is_known and is_read) or self._now_s() - self._chunk_s > _IDLE_S:
                return

    async def checkpoint_regularly(self) -> None:
        """Show the lag; store what is unstored even when no more chunks come; until cancelled.

        Whoever holds the lock stores by itself; the lag grows all the same while it is held.
        """
        while True:
            await asyncio.sleep(self.settings.checkpoint_s)
            self.telemetry.lag.set(self._lag())
            if not self._lock.locked() and self._unacked and self._is_checkpoint_due():
                async with self._lock:
                    await self._checkpoint()

    @contextlib.asynccontextmanager
    async def _unwritten(self) -> AsyncIterator[None]:
        """Hold the lock while nothing is being written, so that decisions need not wait for it."""
        while True:
            await self._writing
            async with self._lock:
                if self._writing.done():
                    yield
                    return

    async def fill_changelog(self) -> None:
        """Send the changelog what it lacks of the state; before the first chunk."""
        if self._store.n_unsent:
            log.info("the changelog lacks %d pages", self._store.n_unsent)
            async with self._lock:
                await self._checkpoint()
            await self._writing

    async def close(self) -> None:
        """Store what is unstored."""
        async with self._lock:
            if self._unacked:
                await self._checkpoint()
            await self._writing
            self._store.close()

    def _is_checkpoint_due(self) -> bool:
        """Return whether it is time, and the last one is written and has cost its share."""
        share_s = min(self._checkpoint_s / _CHECKPOINT_SHARE, _MAX_CHECKPOINT_S)
        pause_s = max(self.settings.checkpoint_s, share_s)
        return self._writing.done() and self._now_s() - self._stored_s >= pause_s

    async def _checkpoint(self) -> None:
        """Copy what has changed and begin to write it in another thread; the caller holds the lock.

        Raises
        ------
        StateError
            If the last one could not be written.
        """
        await self._writing
        started_s = time.perf_counter()
        pipeline = self.worker.pipeline
        state = dump(pipeline)
        arrays = {**state.arrays, **shell_arrays(self.outbox, self._awaited)}
        pages = self._store.pages
        copied = pages.copy(arrays, state.meta, self._offsets, state.touched)
        stored(pipeline)
        events, self._unacked = self._unacked, []
        self._writing = asyncio.ensure_future(self._write(copied, events))
        self._stored_s = self._now_s()
        show(self.telemetry, pipeline)
        self._checkpoint_s = time.perf_counter() - started_s
        self.telemetry.snapshot_s.observe(self._checkpoint_s)

    async def _write(self, copied: Copied, events: list[Any]) -> None:
        started_s = time.perf_counter()
        snapshot = await asyncio.to_thread(self._store.pages.finish, copied)
        await asyncio.to_thread(self._store.write, snapshot)
        self._checkpoint_s += time.perf_counter() - started_s
        if self._changelog is not None:
            sent_s = time.perf_counter()
            self.telemetry.changelog_bytes.inc(await self._changelog.send(snapshot))
            self.telemetry.changelog_s.observe(time.perf_counter() - sent_s)
        if self._anew is not None:
            clear_marker(self.settings.state_dir)
            self._anew = None
        for event in events:
            event.ack()
        self.telemetry.checkpoint_bytes.inc(snapshot.size_bytes)
        self.telemetry.checkpoint_s.observe(time.perf_counter() - started_s)

    def _lag(self) -> int:
        """Return how many records on the broker are not in the state yet."""
        consumer = self.faust.consumer
        assigned = self.partitions & {(tp.topic, tp.partition) for tp in consumer.assignment()}
        ends = {place: consumer.highwater(TP(*place)) for place in assigned}
        return sum(max((end or 0) - self._offsets.get(p, 0), 0) for p, end in ends.items())


def _done() -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future
