"""What renews a live worker's models while it decides: releases, and what a day's end brings."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from models.features.accounts import DAY_MS
from models.release import Release
from stream.aside import beside
from stream.day_work import DayOver, Work, chores_of
from stream.exchange import Exchange
from stream.pipeline import Pipeline
from stream.swap import Swap
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)
_LOOK_S = 0.25


class Renewals:
    """Does what is slow in threads, and has the lock for the rest.

    Parameters
    ----------
    pipeline
        The worker's.
    exchange
        Gives releases.
    lock
        Whoever holds it has the pipeline to itself.
    install
        Swaps a release in.
    is_fit
        Whether a release may be.
    telemetry
        Metrics.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        exchange: Exchange,
        lock: asyncio.Lock,
        *,
        install: Callable[[Release, Swap], None],
        is_fit: Callable[[Release], bool],
        telemetry: Telemetry,
    ) -> None:
        self._pipeline, self._exchange, self._lock = pipeline, exchange, lock
        self._install, self._is_fit = install, is_fit
        self._telemetry = telemetry

    async def releases(self) -> None:
        """Install every release as it comes, until cancelled."""
        while True:
            held = self._pipeline.release_age
            release = await self._exchange.wait_for(
                lambda r, held=held: r.age > held and self._is_fit(r)  # type: ignore[misc]  # bound default
            )
            await self._swap_in(release)

    async def _swap_in(self, release: Release) -> None:
        swap = self._pipeline.swap_of(release)  # the log drops no rows as long as it lives
        await asyncio.to_thread(swap.find_out)
        async with self._lock:
            self._install(release, swap)

    async def days(self) -> None:
        """Do what every day's end brings, until cancelled; of several days, the newest's.

        It begins with the day that it finds, whose work a stop may have cut off.
        """
        pipeline = self._pipeline
        pipeline.leaves_days = True
        if pipeline.tick_ms >= 0:
            pipeline.day_over = DayOver(pipeline.tick_ms // DAY_MS)
        while True:
            over, pipeline.day_over = pipeline.day_over, None
            if over is None:
                await asyncio.sleep(_LOOK_S)
                continue
            started_s = time.perf_counter()
            for chore in chores_of(self._pipeline, over):
                await self._do(chore)
            took_s = time.perf_counter() - started_s
            self._telemetry.day_s.observe(took_s)
            log.info("day %d begun with models renewed in %.1f s", over.day, took_s)

    async def _do(self, chore: Iterator[Work]) -> None:
        while (work := await self._next(chore)) is not None:
            await beside(work)

    async def _next(self, chore: Iterator[Work]) -> Work | None:
        async with self._lock:
            return next(chore, None)
