"""Tasks and processes that are told to end do, also where one cancel gets lost on the way."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from stream.ending import end, run_all

_AGAIN_S = 0.01


async def closing(n_lost: int, ended: list[str]) -> None:
    """Lose some cancels as a client does that takes them for those of its own tasks."""
    try:
        for _ in range(n_lost):
            own = asyncio.create_task(asyncio.Event().wait())
            try:
                await own
            except asyncio.CancelledError:
                continue
        await asyncio.Event().wait()
    finally:
        ended.append("closed")


async def _started(work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("n_lost", [0, 1, 3])
async def test_a_task_that_loses_cancels_ends_all_the_same(n_lost: int) -> None:
    """Its own clean-up runs, and one that has ended before is no hindrance."""
    ended: list[str] = []
    task = await _started(lambda: closing(n_lost, ended))
    over = await _started(lambda: asyncio.sleep(0))
    async with asyncio.timeout(5.0):
        await end([task, over], again_s=_AGAIN_S)
    assert task.cancelled()
    assert ended == ["closed"]


async def test_who_waits_for_an_end_and_is_cancelled_leaves_nothing_running() -> None:
    """The cancel is passed on once the tasks have ended."""
    ended: list[str] = []
    task = await _started(lambda: closing(2, ended))
    waiting = await _started(lambda: end([task], again_s=_AGAIN_S))
    async with asyncio.timeout(5.0):
        await end([waiting], again_s=_AGAIN_S)
    assert task.cancelled()
    assert waiting.cancelled()


async def test_of_some_works_one_that_fails_ends_the_others_and_one_that_ends_does_not() -> None:
    """What it raised is raised."""
    ended: list[str] = []
    failing = asyncio.Event()

    async def fail() -> None:
        await failing.wait()
        raise ValueError("no more")

    running = await _started(lambda: run_all([closing(0, ended), asyncio.sleep(0), fail()]))
    await asyncio.sleep(_AGAIN_S)
    assert not running.done()
    failing.set()
    with pytest.raises(ValueError, match="no more"):
        await running
    assert ended == ["closed"]


def test_a_process_that_hangs_is_ended_with_one_and_a_line() -> None:
    """Though its main thread waits for ever, and holds Python's exit up."""
    hanging = (
        "import logging, threading; from stream.ending import end_within; logging.basicConfig(); "
        "end_within(0.1); threading.Event().wait()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hanging], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "did not come to an end within 0.1 s and is ended now" in done.stderr


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_process_leaves_while_work_goes_on_beside(is_busy: bool) -> None:
    """At once, with its code, and with what it has said; so it does without such work."""
    code = f"""
import asyncio, threading, time
from stream.aside import beside
from stream.ending import leave

async def main():
    asyncio.create_task(beside(lambda: time.sleep(60.0 if {is_busy} else 0.0)))
    await asyncio.sleep(0.1)

asyncio.run(main())
print("said")
leave(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")
