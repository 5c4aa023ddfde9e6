"""A thread with an event loop of its own, for work that decisions are not to wait for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop

from stream.ending import BESIDE, end

_END_S = 5.0
ResultT = TypeVar("ResultT")


class Aside:
    """Runs coroutines beside the worker's own loop; entered it runs, left it has ended.

    What is connected in there is used in there: clients belong to the loop that started them.

    Parameters
    ----------
    name
        Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what still runs and then the thread; one that hangs is left to the process's end."""
        asyncio.run_coroutine_threadsafe(self._end_all(), self._loop)
        self._thread.join(_END_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end_all(self) -> None:
        await end(asyncio.all_tasks() - {asyncio.current_task()})
        self._loop.stop()

    async def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Return what some work gives, done in there; cancelled here, it is cancelled there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


async def beside(work: Callable[[], None]) -> None:
    """Do some work in a thread for which nobody waits at the process's end, see `ending.leave`.

    What it raises is raised here. Where this is cancelled the work goes on, and is left.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(error)

    def run() -> None:
        error = None
        try:
            work()
        except BaseException as raised:  # noqa: BLE001  # whoever waits gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name=BESIDE, daemon=True).start()
    if (error := await done) is not None:
        raise error
