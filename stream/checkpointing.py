"""Checkpoints of a running worker: begun under its lock, copied and written beside its work."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from stream.manifest import Arrays, Snapshot
from stream.page_table import Copied
from stream.pipeline import Pipeline
from stream.pipeline_state import dump
from stream.sources import Offsets
from stream.take_over import Places
from stream.telemetry import Telemetry

_SLICE_S = 0.001  # so long is copied at once
_SLICE_BYTES = 128 * 1024  # between two looks at the clock
_READY = 0.4  # of all that is stored: so much a worker at full load changes until it is copied
_MAX_PAUSE_S = 60.0  # and still the next one comes so soon: a restart repeats no more


class Checkpoints:
    """Writes copies of the state to the disk and the changelog.

    Pauses are measured by the event loop's clock, which no correction of the time of day moves.

    Parameters
    ----------
    places
        Where they go.
    telemetry
        What they cost.
    every_s
        Seconds from one to the next, at least.
    share
        Of a core that copying, writing and sending what changed may take.
    """

    def __init__(
        self, places: Places, telemetry: Telemetry, *, every_s: float, share: float
    ) -> None:
        self.store, self.changelog, self._aside = places
        self._telemetry = telemetry
        self._every_s, self._share = every_s, share
        self._loop = asyncio.get_running_loop()
        self._began_s = -math.inf
        self._cost_s = 0.0
        self._writing: asyncio.Future[None] = asyncio.ensure_future(self._make_ready())

    @property
    def is_writing(self) -> bool:
        """Whether the last one is not whole yet, or the first one cannot be made yet."""
        return not self._writing.done()

    async def written(self) -> None:
        """Return once the last one is written, here and in the changelog.

        Whoever waits may be cancelled, as at a stop; the writing goes on.

        Raises
        ------
        StateError
            If the disk did not take it.
        SupersededError
            If another process has taken the worker over.
        """
        await asyncio.shield(self._writing)

    @contextlib.asynccontextmanager
    async def unwritten(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        """Hold a lock while nothing is being written, so that decisions need not wait for it."""
        while True:
            await self.written()
            async with lock:
                if not self.is_writing:
                    yield
                    return

    def failure(self) -> str | None:
        """Return why the last one was not written, None if it was, or is not yet."""
        if self.is_writing or self._writing.cancelled() or not self._writing.exception():
            return None
        return f"the state is not stored: {self._writing.exception()}"

    def is_due(self) -> bool:
        """Return whether it is time, and the last one is written and has cost its share."""
        return self.is_affordable() and self._loop.time() - self._began_s >= self._every_s

    def is_affordable(self) -> bool:
        """Return whether the last one is written and has cost its share, so long ago it was."""
        pause_s = min(self._cost_s / self._share, _MAX_PAUSE_S)
        return not self.is_writing and self._loop.time() - self._began_s >= pause_s

    async def check(self) -> None:
        """Look whether another process has taken the worker over; nothing without a changelog.

        Raises
        ------
        SupersededError
            If so.
        UnavailableError
            If the cluster does not answer.
        """
        if self.changelog is not None:
            await self._aside.run(self.changelog.check())

    def begin(
        self,
        pipeline: Pipeline,
        shell: tuple[Arrays, Mapping[str, int]],
        offsets: Offsets,
        on_written: Callable[[], Awaitable[None]],
    ) -> None:
        """Begin a copy of what has changed of a pipeline, to be written in another thread.

        The last one must be written. ``shell`` holds the arrays beside the pipeline's own, and
        the versions of those that seldom change.
        """
        started_s, cpu_s = time.perf_counter(), time.thread_time()
        state = dump(pipeline)
        arrays, versions = {**state.arrays, **shell[0]}, {**state.versions, **shell[1]}
        copied = self.store.pages.copy(arrays, state.meta, offsets, state.touched, versions)
        self._cost_s = 0.0
        self._spent(time.thread_time() - cpu_s)
        self._writing = asyncio.ensure_future(self._write(copied, on_written))
        self._began_s = self._loop.time()
        self._telemetry.snapshot_s.observe(time.perf_counter() - started_s)

    async def _make_ready(self) -> None:
        """Have memory for the first copy, which would else be had while it is made."""
        await asyncio.to_thread(self.store.pages.make_ready, _READY)

    def _spent(self, cpu_s: float) -> None:
        self._cost_s += cpu_s
        self._telemetry.checkpoint_cpu_s.inc(cpu_s)

    async def _write(self, copied: Copied, on_written: Callable[[], Awaitable[None]]) -> None:
        started_s = time.perf_counter()
        while not self._has_paid(copied):  # noqa: ASYNC110  # others' turn between two slices
            await asyncio.sleep(0)
        snapshot = await self._aside.run(self._keep(copied))
        await on_written()
        self._telemetry.checkpoint_bytes.inc(snapshot.size_bytes)
        self._telemetry.checkpoint_s.observe(time.perf_counter() - started_s)

    def _has_paid(self, copied: Copied) -> bool:
        cpu_s, until_s = time.thread_time(), time.perf_counter() + _SLICE_S
        is_paid = copied.pay(_SLICE_BYTES, lambda: time.perf_counter() >= until_s)
        self._spent(time.thread_time() - cpu_s)
        return is_paid

    async def _keep(self, copied: Copied) -> Snapshot:
        """Write a copy, here and to the changelog; in the thread aside, which waits for both."""
        cpu_s = time.thread_time()
        snapshot = self.store.pages.finish(copied)
        self.store.write(snapshot)
        if self.changelog is not None:
            sent_s = time.perf_counter()
            self._telemetry.changelog_bytes.inc(await self.changelog.send(snapshot))
            self._telemetry.changelog_s.observe(time.perf_counter() - sent_s)
        self._spent(time.thread_time() - cpu_s)
        self.store.pages.make_ready()  # seldom anything: not of this one's cost
        return snapshot
