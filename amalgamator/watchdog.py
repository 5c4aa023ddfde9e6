"""Ends a process whose loop stands still: kafka-python has waits that no timeout ends."""

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

EXIT = 4
_LOOK_S = 1.0


class Watchdog:
    """Looks from a thread of its own whether the loop turns, and ends the process where not.

    The process cannot be stopped in an orderly way, since the thread that would do it is the one
    that stands still. Nothing is lost: the topics are all the state there is.

    Parameters
    ----------
    deadline_s
        How long the start may take until there is something to `watch`.
    monotonic_s
        Seconds since some instant.
    end
        Ends the process with an exit code, at once.
    """

    def __init__(
        self,
        deadline_s: float,
        monotonic_s: Callable[[], float],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        started_s = monotonic_s()

        def starting() -> str | None:
            silent_s = monotonic_s() - started_s
            return None if silent_s <= deadline_s else f"no connection for {silent_s:.0f} s"

        self._live: Callable[[], str | None] = starting
        self._end = end

    def watch(self, live: Callable[[], str | None]) -> None:
        """From now on ask ``live``: why the loop stands still, None while it turns."""
        self._live = live

    def look(self) -> None:
        """End the process if the loop stands still."""
        reason = self._live()
        if reason is not None:
            log.critical("ended by the watchdog: %s", reason)
            self._end(EXIT)

    def start(self) -> None:
        """Look every second, for as long as the process lives."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_S):
            self.look()
