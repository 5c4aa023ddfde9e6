"""A host at work: hears of assignments and ends, asks the core, and does what it says."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from models.errors import AmalgamError
from stream.host.core import (
    Answered,
    Assigned,
    Effect,
    Ended,
    Event,
    HostPolicy,
    HostState,
    Phase,
    Stopped,
    Ticked,
    step,
)
from stream.host.telemetry import HostTelemetry

log = logging.getLogger(__name__)

_TURN_S = 0.1
_PROBE_EVERY_S = 1.0
_MEANING = {2: "its settings are refused", 3: "its state cannot be gone on with"}


class Processes(Protocol):
    """What a host needs of its workers' processes; `stream.host.children` has the real ones."""

    def start(self, worker: str) -> int: ...  # noqa: D102  # protocol

    def terminate(self, worker: str) -> None: ...  # noqa: D102  # protocol

    def kill(self, worker: str) -> None: ...  # noqa: D102  # protocol

    def ended(self) -> list[tuple[str, int]]: ...  # noqa: D102  # protocol

    def unready(self, worker: str) -> str | None: ...  # noqa: D102  # protocol


class Group(Protocol):
    """What a host needs of its group; `stream.host.group` has the real one."""

    workers: frozenset[str] | None

    async def run(self) -> None: ...  # noqa: D102  # protocol

    async def has(self, worker: str) -> bool: ...  # noqa: D102  # protocol

    def is_in_touch(self) -> bool: ...  # noqa: D102  # protocol


class Host:
    """Runs the workers that the group assigns, until it is told to stop or the group is lost.

    Parameters
    ----------
    group
        Connected.
    processes
        Of the workers.
    telemetry
        Metrics.
    clock
        Monotonic seconds.
    policy
        How patient it is.
    """

    def __init__(
        self,
        group: Group,
        processes: Processes,
        telemetry: HostTelemetry,
        *,
        clock: Callable[[], float],
        policy: HostPolicy | None = None,
    ) -> None:
        self._group = group
        self._processes = processes
        self._telemetry = telemetry
        self._clock = clock
        self._policy = policy or HostPolicy()
        self._state = HostState()
        self._answers: list[Answered] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._unready: dict[str, str] = {}

    def unready(self) -> str | None:
        """Return why not: no word of the group yet, or a worker that should be ready is not."""
        state = self._state
        if state.assigned is None:
            return "the group of hosts has not said yet what runs here"
        if not self._group.is_in_touch():
            return "the bank's cluster is not reached"
        for worker in sorted(state.assigned):
            slot = state.slots.get(worker)
            if slot is None or slot.phase is not Phase.RUNNING:
                return f"worker {worker} does not run: {slot.phase.value if slot else 'stopped'}"
            if worker in self._unready:
                return f"worker {worker}: {self._unready[worker]}"
        return None

    async def run(self, stopped: asyncio.Event) -> None:
        """Run until told to stop, or the group is lost; either way no worker is left.

        Raises
        ------
        AmalgamError
            If the group is lost.
        """
        member = asyncio.create_task(self._group.run())
        probing = asyncio.create_task(self._probe())
        try:
            while not self._state.is_over:
                is_over = stopped.is_set() or member.done()
                for event in self._events(is_over=is_over):
                    self._take(event)
                self._telemetry.show(self._state, tuple(self._unready))
                await asyncio.sleep(_TURN_S)
            if member.done():
                member.result()
        finally:
            for task in (member, probing, *self._asking):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, AmalgamError):
                await asyncio.gather(member, probing, return_exceptions=True)

    def _events(self, *, is_over: bool) -> Iterator[Event]:
        """Yield what has happened since the last turn."""
        for worker, code in self._processes.ended():
            yield Ended(worker, code)
        if is_over and not self._state.is_stopping:
            yield Stopped()
        workers = self._group.workers
        if workers is not None and workers != self._state.assigned:
            yield Assigned(workers)
        answers, self._answers = self._answers, []
        yield from answers
        yield Ticked()

    def _take(self, event: Event) -> None:
        self._state, effects = step(self._state, event, self._clock(), self._policy)
        if isinstance(event, Assigned):
            log.info("workers of this host: %s", ", ".join(sorted(event.workers)) or "none")
        elif isinstance(event, Ended):
            self._tell_end(event)
        for effect in effects:
            self._do(effect)

    def _tell_end(self, event: Ended) -> None:
        self._telemetry.ended(event.worker, event.code)
        slot = self._state.slots.get(event.worker)
        if slot is not None and slot.phase is Phase.DOWN:
            what = _MEANING.get(event.code, "")
            log.error("WORKER %s STAYS DOWN, code %d: %s", event.worker, event.code, what)
        else:
            log.info("worker %s ended with code %d", event.worker, event.code)

    def _do(self, effect: Effect) -> None:
        worker = effect.worker
        match effect.verb:
            case "start":
                self._unready[worker] = "it starts"
                log.info("worker %s starts as process %d", worker, self._processes.start(worker))
                if effect.reason:
                    self._telemetry.restarts.labels(worker, effect.reason).inc()
            case "terminate":
                log.info("worker %s is to stop", worker)
                self._processes.terminate(worker)
            case "kill":
                log.warning("worker %s did not stop and is killed", worker)
                self._processes.kill(worker)
            case "ask":
                task = asyncio.create_task(self._ask(worker))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask(self, worker: str) -> None:
        self._answers.append(Answered(worker, await self._group.has(worker)))

    async def _probe(self) -> None:
        """Ask the workers here whether they are ready, again and again."""
        while True:
            for worker in self._state.of(Phase.RUNNING):
                why = await asyncio.to_thread(self._processes.unready, worker)
                if why is None:
                    self._unready.pop(worker, None)
                else:
                    self._unready[worker] = why
            await asyncio.sleep(_PROBE_EVERY_S)
