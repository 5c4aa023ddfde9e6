"""Ends of tasks and of a process that come for certain, whatever some client does meanwhile."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Coroutine, Iterable
from typing import Any, NoReturn

log = logging.getLogger(__name__)

BESIDE = "beside"
"""Name of threads for which nobody waits."""
_AGAIN_S = 1.0


async def end(tasks: Iterable[asyncio.Task[Any]], *, again_s: float = _AGAIN_S) -> None:
    """Cancel tasks until each has ended; what they raise is left in them.

    One cancel is not enough: a client that is closing itself (aiokafka's consumer awaits its own
    cancelled tasks) takes the one that comes meanwhile for its own, and the task goes on. Who
    waits here may be cancelled too, and hears of it once the tasks have ended.
    """
    left, cancelled = set(tasks), None
    while left:
        for task in left:
            task.cancel()
        try:
            _, left = await asyncio.wait(left, timeout=again_s)
        except asyncio.CancelledError as error:
            left, cancelled = {task for task in left if not task.done()}, error
    if cancelled is not None:
        raise cancelled


async def run_all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run until all have ended or one has failed, which ends the others and is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end(tasks)
    for task in done:
        task.result()


def leave(code: int) -> NoReturn:
    """End this process, at once where a thread is in the middle of what nobody waits for."""
    if any(thread.name == BESIDE for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def end_within(seconds: float) -> None:
    """End this process with code 1 if it still runs after some time; it is not held up by this."""
    threading.Thread(target=_end, args=(seconds,), name="end-within", daemon=True).start()


def _end(seconds: float) -> None:
    time.sleep(seconds)
    log.error("the process did not come to an end within %g s and is ended now", seconds)
    logging.shutdown()
    os._exit(1)
