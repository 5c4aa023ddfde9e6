"""What a host does about its workers, given what is assigned, what ends and what time it is; pure.

A worker whose process ends is started again, ever later while it keeps failing. One that was
superseded (code 4) runs elsewhere for a reason: here it is started again only once Kafka confirms
that it is still this host's, else two hosts would take it from each other in turns. One whose
settings or state are refused (codes 2 and 3) stays down until it is assigned anew.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal, NamedTuple

SETTINGS_EXIT, STATE_EXIT, SUPERSEDED_EXIT = 2, 3, 4
REASONS = ("crash", "superseded")
"""Why a worker is started again."""


class Phase(Enum):
    """What a worker here is doing."""

    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"
    ASKING = "asking"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPolicy:
    """How patient a host is.

    Parameters
    ----------
    revoked_s
        Seconds that a worker which is another host's from now on has to stop.
    stop_s
        The same where the host itself stops.
    first_s, longest_s
        Wait before a first new start, and the longest; each failure doubles it.
    healthy_s
        A process that ran so long had no failures.
    ask_again_s
        Until Kafka is asked again whether a worker is still this host's.
    """

    revoked_s: float = 10.0
    stop_s: float = 8.0
    first_s: float = 0.5
    longest_s: float = 30.0
    healthy_s: float = 60.0
    ask_again_s: float = 10.0


_PHASE_OF = {
    SETTINGS_EXIT: Phase.DOWN,
    STATE_EXIT: Phase.DOWN,
    SUPERSEDED_EXIT: Phase.ASKING,
}


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker here.

    Parameters
    ----------
    phase
        What it is doing.
    since_s
        When its process was started.
    due_s
        When it is to be killed, started or asked for, by its phase.
    failures
        Processes in a row that ended soon.
    """

    phase: Phase
    since_s: float
    due_s: float = math.inf
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """All workers here.

    Parameters
    ----------
    assigned
        This host's by Kafka; None before it has said so.
    slots
        Worker -> what it is doing; none where there is neither a process nor a plan for one.
    is_stopping
        Whether the host is to end.
    """

    assigned: frozenset[str] | None = None
    slots: Mapping[str, Slot] = field(default_factory=dict)
    is_stopping: bool = False

    def of(self, *phases: Phase) -> tuple[str, ...]:
        """Return the workers that are in one of some phases, sorted."""
        return tuple(sorted(name for name, slot in self.slots.items() if slot.phase in phases))

    @property
    def is_over(self) -> bool:
        """Whether the host has stopped all that it ran."""
        return self.is_stopping and not self.of(Phase.RUNNING, Phase.STOPPING)


@dataclass(frozen=True, slots=True)
class Assigned:
    """Kafka has said which workers are this host's."""

    workers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker's process has ended, with an exit code, or less than 0 by a signal."""

    worker: str
    code: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Whether Kafka confirms that a worker is this host's."""

    worker: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The host is to end."""


Event = Assigned | Ended | Answered | Ticked | Stopped
Verb = Literal["start", "terminate", "kill", "ask"]


class Effect(NamedTuple):
    """What is to be done with a worker; of a start that is a new one, why."""

    verb: Verb
    worker: str
    reason: str = ""


def step(
    state: HostState, event: Event, now_s: float, policy: HostPolicy
) -> tuple[HostState, list[Effect]]:
    """Return what becomes of a host by an event, and what is to be done."""
    match event:
        case Assigned(workers):
            return _assigned(replace(state, assigned=workers), now_s, policy)
        case Ended(worker, code):
            return _ended(state, worker, code, now_s, policy)
        case Answered():
            return _answered(state, event, now_s, policy)
        case Ticked():
            return _ticked(state, now_s, policy)
        case Stopped():
            slots, effects = _terminated(state, state.slots.keys(), now_s + policy.stop_s)
            return replace(state, slots=slots, is_stopping=True), effects


def _assigned(state: HostState, now_s: float, policy: HostPolicy) -> tuple[HostState, list[Effect]]:
    wanted = state.assigned or frozenset()
    gone = state.slots.keys() - wanted
    slots, effects = _terminated(state, gone, now_s + policy.revoked_s)
    if not state.is_stopping:
        for worker in sorted(wanted - slots.keys()):
            slots[worker] = Slot(Phase.RUNNING, now_s)
            effects.append(Effect("start", worker))
    return replace(state, slots=slots), effects


def _terminated(
    state: HostState, workers: Set[str], due_s: float
) -> tuple[dict[str, Slot], list[Effect]]:
    """Ask the processes of workers to stop, and forget those without one."""
    slots, effects = dict(state.slots), []
    for worker in sorted(workers):
        slot = slots[worker]
        if slot.phase is Phase.RUNNING:
            slots[worker] = replace(slot, phase=Phase.STOPPING, due_s=due_s)
            effects.append(Effect("terminate", worker))
        elif slot.phase is Phase.STOPPING:
            slots[worker] = replace(slot, due_s=min(slot.due_s, due_s))
        else:
            del slots[worker]
    return slots, effects


def _ended(
    state: HostState, worker: str, code: int, now_s: float, policy: HostPolicy
) -> tuple[HostState, list[Effect]]:
    slots = dict(state.slots)
    slot = slots.pop(worker)
    is_ours = worker in (state.assigned or ()) and not state.is_stopping
    effects: list[Effect] = []
    if is_ours and slot.phase is Phase.STOPPING:  # it was taken away and given back meanwhile
        slots[worker] = Slot(Phase.RUNNING, now_s)
        effects.append(Effect("start", worker))
    elif is_ours:
        failures = 1 if now_s - slot.since_s >= policy.healthy_s else slot.failures + 1
        phase = _PHASE_OF.get(code, Phase.WAITING)
        wait_s = min(policy.first_s * 2.0 ** (failures - 1), policy.longest_s)
        due_s = math.inf if phase is Phase.DOWN else now_s + wait_s
        slots[worker] = Slot(phase, slot.since_s, due_s, failures)
    return replace(state, slots=slots), effects


def _answered(
    state: HostState, answer: Answered, now_s: float, policy: HostPolicy
) -> tuple[HostState, list[Effect]]:
    slot = state.slots.get(answer.worker)
    if slot is None or slot.phase is not Phase.ASKING:
        return state, []
    if answer.is_ours:
        return _started(state, answer.worker, now_s, "superseded")
    wait_s = min(policy.first_s * 2.0 ** (slot.failures - 1), policy.longest_s)
    return _with(state, answer.worker, replace(slot, due_s=now_s + wait_s)), []


def _ticked(state: HostState, now_s: float, policy: HostPolicy) -> tuple[HostState, list[Effect]]:
    effects: list[Effect] = []
    for worker, slot in sorted(state.slots.items()):
        if slot.due_s > now_s:
            continue
        if slot.phase is Phase.WAITING:
            state, done = _started(state, worker, now_s, "crash")
            effects += done
        elif slot.phase is Phase.ASKING:
            state = _with(state, worker, replace(slot, due_s=now_s + policy.ask_again_s))
            effects.append(Effect("ask", worker))
        elif slot.phase is Phase.STOPPING:
            state = _with(state, worker, replace(slot, due_s=math.inf))
            effects.append(Effect("kill", worker))
    return state, effects


def _started(
    state: HostState, worker: str, now_s: float, reason: str
) -> tuple[HostState, list[Effect]]:
    failures = state.slots[worker].failures
    slot = Slot(Phase.RUNNING, now_s, failures=failures)
    return _with(state, worker, slot), [Effect("start", worker, reason)]


def _with(state: HostState, worker: str, slot: Slot) -> HostState:
    return replace(state, slots={**state.slots, worker: slot})
