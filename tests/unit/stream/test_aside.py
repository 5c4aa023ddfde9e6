"""A thread aside: work is done in it, and ends with it."""

import asyncio
import threading
import time

import pytest

from stream.aside import Aside, beside


async def test_work_is_done_in_the_thread_and_given_back() -> None:
    """What it raises too."""

    async def name(fails: bool = False) -> str:
        if fails:
            raise ValueError("not today")
        return threading.current_thread().name

    with Aside("state") as aside:
        assert await aside.run(name()) == "state"
        with pytest.raises(ValueError, match="not today"):
            await aside.run(name(fails=True))


async def test_the_loop_goes_on_while_work_blocks_aside() -> None:
    """As where the disk is waited for."""

    async def block() -> None:
        time.sleep(0.3)  # noqa: ASYNC251  # that is the point

    with Aside("state") as aside:
        work = asyncio.create_task(aside.run(block()))
        started_s = time.perf_counter()
        await asyncio.sleep(0.01)
        assert not work.done()
        assert time.perf_counter() - started_s < 0.2
        await work


async def test_what_is_cancelled_here_is_cancelled_there() -> None:
    """And what still runs at the end, too."""
    ended: list[str] = []

    async def wait(what: str) -> None:
        try:
            await asyncio.sleep(60.0)
        finally:
            ended.append(what)

    with Aside("state") as aside:
        for what in ("cancelled", "left"):
            task = asyncio.create_task(aside.run(wait(what)))
            await asyncio.sleep(0.05)
            if what == "cancelled":
                task.cancel()
                await asyncio.wait([task])
        await asyncio.sleep(0.05)
        assert ended == ["cancelled"]
    assert ended == ["cancelled", "left"]
    assert "state" not in {thread.name for thread in threading.enumerate()}


async def test_work_beside_is_waited_for_while_the_loop_goes_on() -> None:
    """What it raises is raised here."""
    goes_on, done = threading.Event(), []

    def work() -> None:
        goes_on.wait(5.0)
        done.append(threading.current_thread().daemon)

    task = asyncio.create_task(beside(work))
    await asyncio.sleep(0.01)
    assert not task.done()
    goes_on.set()
    await task
    assert done == [True]
    with pytest.raises(ZeroDivisionError):
        await beside(lambda: 1 // 0)  # type: ignore[arg-type, return-value]  # what it gives is left


async def test_work_beside_that_nobody_waits_for_any_more_is_left() -> None:
    """It goes on, and tells nobody."""
    goes_on, done = threading.Event(), threading.Event()

    def work() -> None:
        goes_on.wait(5.0)
        done.set()

    task = asyncio.create_task(beside(work))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    goes_on.set()
    assert await asyncio.to_thread(done.wait, 5.0)
    await asyncio.sleep(0.01)
