"""A host at work: hears of assignments and ends, asks the core, and does what it says."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from stream.ending import end
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


class Copies(Protocol):
    """What a host needs of warm copies; `stream.host.standby` has the real ones."""

    def follow(self, worker: str) -> None: ...  # noqa: D102  # protocol

    def lag(self, worker: str) -> int: ...  # noqa: D102  # protocol

    async def hand_over(self, worker: str) -> None: ...  # noqa: D102  # protocol

    async def close(self) -> None: ...  # noqa: D102  # protocol


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
    copies
        Of the workers that do not run here; None: none are kept.
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
        copies: Copies | None = None,
        clock: Callable[[], float],
        policy: HostPolicy | None = None,
    ) -> None:
        self._group = group
        self._processes = processes
        self._telemetry = telemetry
        self._copies = copies
        self._clock = clock
        self._policy = policy or HostPolicy()
        self._state = HostState()
        self._answers: list[Answered] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._never_started: list[Ended] = []
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
                self._follow_others()
                await asyncio.sleep(_TURN_S)
            if member.done():
                member.result()
        finally:
            await end((member, probing, *self._asking, *self._starting.values()))
            if self._copies is not None:
                await self._copies.close()

    def _follow_others(self) -> None:
        """Keep copies of the workers that neither run nor are to run here."""
        if self._copies is None or self._state.assigned is None or self._state.is_stopping:
            return
        for worker in self._telemetry.workers:
            if worker not in self._state.slots:
                self._copies.follow(worker)
            self._telemetry.standby_lag.labels(worker).set(self._copies.lag(worker))

    def _events(self, *, is_over: bool) -> Iterator[Event]:
        """Yield what has happened since the last turn."""
        given_up, self._never_started = self._never_started, []
        yield from given_up
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
                if effect.reason:
                    self._telemetry.restarts.labels(worker, effect.reason).inc()
                if self._copies is None:
                    self._start(worker)
                else:
                    self._starting[worker] = asyncio.create_task(self._start_from_copy(worker))
            case "terminate" | "kill" if worker in self._starting:
                self._starting.pop(worker).cancel()
                self._never_started.append(Ended(worker, 0))
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

    def _start(self, worker: str) -> None:
        try:
            pid = self._processes.start(worker)
        except OSError as error:  # e.g. no memory for one more
            log.error("worker %s cannot be started: %s", worker, error)  # noqa: TRY400  # one line
            self._never_started.append(Ended(worker, 1))
        else:
            log.info("worker %s starts as process %d", worker, pid)

    async def _start_from_copy(self, worker: str) -> None:
        if self._copies is not None:
            await self._copies.hand_over(worker)
        self._start(worker)
        del self._starting[worker]

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
