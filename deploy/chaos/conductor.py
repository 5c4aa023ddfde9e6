"""Carries a plan of faults out against running processes, and waits for the stream's end."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.chaos.fault_log import FaultLog
from deploy.chaos.fault_plan import AMALGAMATOR, BROKER, Fault, Kind
from deploy.chaos.fleet import Broker, Fleet
from deploy.chaos.small_world import HOUR_MS
from models.errors import UnavailableError
from stream.host.core import SETTINGS_EXIT, STATE_EXIT, SUPERSEDED_EXIT

_POLL_S = 0.25
_WATERMARK = "amalgam_stream_watermark_timestamp_seconds"


def twin_of(name: str) -> str:
    """Return the name of a second process of the same duty."""
    return f"{name}-2"


def stranger_of(bank: str) -> str:
    """Return the name of a process that joins a bank's group."""
    return f"{bank}-stranger"


TWIN = twin_of(AMALGAMATOR)


class StalledError(UnavailableError):
    """Nothing was learnt for too long, or a process cannot go on: what no orchestrator mends."""


@dataclass(slots=True)
class Progress:
    """How far each bank has learnt, by what it says itself; it never goes back.

    Parameters
    ----------
    span_ms
        First tick, and end of the last.
    reached_ms
        Bank -> event time.
    """

    span_ms: tuple[int, int]
    reached_ms: dict[str, int]

    def note(self, bank: str, watermark_s: float | None) -> bool:
        """Take a bank's metric in; return whether it has moved."""
        new_ms = -1 if watermark_s is None else round(watermark_s * 1_000)
        if new_ms <= self.reached_ms[bank]:
            return False
        self.reached_ms[bank] = new_ms
        return True

    @property
    def share(self) -> float:
        """Mean share of the stream that the banks have learnt."""
        first, end = self.span_ms
        done = [max(reached - first, 0) / (end - first) for reached in self.reached_ms.values()]
        return sum(done) / len(done)


@dataclass(slots=True)
class Conductor:
    """One disturbed run.

    Parameters
    ----------
    fleet, broker
        What is disturbed; running.
    progress
        How far the banks are.
    log
        Where everything is told.
    check
        Called at every turn; raises where something beside the processes has failed.
    is_finished
        Asked once the banks say that they are at the end: whether everything is stored.
    clock, sleep
        Monotonic seconds, and how to wait.
    stall_s
        How long nothing may move.

    Attributes
    ----------
    done, revived
        Faults that were carried out; processes that ended by themselves.
    """

    fleet: Fleet
    broker: Broker
    progress: Progress
    log: FaultLog
    check: Callable[[], None]
    is_finished: Callable[[], bool]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    stall_s: float = 300.0
    done: int = 0
    revived: int = 0
    _endings: dict[str, tuple[float, Callable[[], None]]] = field(default_factory=dict)
    _moved_s: float = 0.0

    def run(self, faults: Sequence[Fault]) -> None:
        """Carry all faults out, each in its moment, and return when the banks are done.

        Raises
        ------
        StalledError
            If nothing moves any more, or a process refuses its settings or its state.
        UnavailableError
            If the broker does not come back.
        """
        self._moved_s = self.clock()
        for fault in faults:
            at = min(fault.at, self._last_share())
            self._until(lambda at=at: self.progress.share >= at)  # type: ignore[misc]  # bound default
            self._rest(fault.wait_s)
            self._end(fault.target)
            self._befall(fault)
            self.done += 1
        while self._endings:
            self._turn()
        self.broker.wait()
        self._until(lambda: self.progress.share >= self._last_share() and self.is_finished())

    def settle(self) -> None:
        """End all that befalls anything, so that what a halted run holds can be looked at.

        Raises
        ------
        UnavailableError
            If the broker does not come back.
        """
        for target in list(self._endings):
            self._end(target)
        self.broker.wait()

    def _last_share(self) -> float:
        """Return the share at which no tick is left: the last one's begin is the last watermark."""
        first, end = self.progress.span_ms
        return (end - HOUR_MS - first) / (end - first)

    def _until(self, is_true: Callable[[], bool]) -> None:
        while not is_true():
            self._turn()

    def _rest(self, wait_s: float) -> None:
        until_s = self.clock() + wait_s
        while self.clock() < until_s:
            self._turn()

    def _turn(self) -> None:
        """End what is over, start again what ended by itself, look how far the banks are."""
        self.check()
        now_s = self.clock()
        for target, (due_s, _) in list(self._endings.items()):
            if due_s <= now_s:
                self._end(target)
        for name, code in self.fleet.revive():
            self.revived += code != SUPERSEDED_EXIT
            self.log.write("ended by itself", name, code=code)
            if code in (SETTINGS_EXIT, STATE_EXIT):
                raise StalledError(f"{name} ended with {code}, see its log")
        for bank in self.progress.reached_ms:
            if self.progress.note(bank, self.fleet.metric(bank, _WATERMARK)):
                self._moved_s = self.clock()
        if self.clock() - self._moved_s > self.stall_s:
            raise StalledError(f"no bank has moved for {self.stall_s:.0f} s")
        self.sleep(_POLL_S)

    def _end(self, target: str) -> None:
        """End what befalls a target, if anything does."""
        _, ending = self._endings.pop(target, (0.0, _nothing))
        ending()

    def _later(self, target: str, length_s: float, ending: Callable[[], None]) -> None:
        self._endings[target] = (self.clock() + length_s, ending)

    def _befall(self, fault: Fault) -> None:
        self.log.write(
            fault.kind,
            fault.target,
            number=fault.number,
            share=self.progress.share,
            length_s=fault.length_s,
        )
        if fault.target == BROKER:
            self._befall_broker(fault)
        else:
            deeds: Mapping[Kind, Callable[[Fault], None]] = {
                "kill": self._kill,
                "kill_at_start": self._kill_at_start,
                "terminate": self._terminate,
                "pause": self._pause,
                "double": self._double,
                "hand_over": self._hand_over,
                "rebalance": self._rebalance,
            }
            deeds[fault.kind](fault)

    def _befall_broker(self, fault: Fault) -> None:
        self.broker.wait()
        if fault.kind == "pause":
            self.broker.signal(signal.SIGSTOP)
            self._later(BROKER, fault.length_s, lambda: self.broker.signal(signal.SIGCONT))
        else:
            self.broker.kill()
            self._later(BROKER, fault.length_s, self.broker.start_beside)

    def _kill(self, fault: Fault) -> None:
        self.fleet.kill(fault.target)
        self._later(fault.target, fault.length_s, lambda: self.fleet.start(fault.target))

    def _kill_at_start(self, fault: Fault) -> None:
        self.fleet.kill(fault.target)
        self.fleet.start(fault.target)

        def again() -> None:
            self.fleet.kill(fault.target)
            self.fleet.start(fault.target)

        self._later(fault.target, fault.length_s, again)

    def _terminate(self, fault: Fault) -> None:
        code = self.fleet.terminate(fault.target)
        self.log.write("terminated", fault.target, number=fault.number, code=code)
        self.fleet.start(fault.target)

    def _pause(self, fault: Fault) -> None:
        self.fleet.pause(fault.target)
        self._later(fault.target, fault.length_s, lambda: self.fleet.resume(fault.target))

    def _double(self, fault: Fault) -> None:
        self.fleet.start(TWIN)
        self._later(AMALGAMATOR, fault.length_s, lambda: self.fleet.kill(TWIN))

    def _hand_over(self, fault: Fault) -> None:
        twin = twin_of(fault.target)

        def ending() -> None:
            self.fleet.kill(fault.target)
            self.fleet.rename(twin, fault.target)

        self.fleet.start(twin)
        self._later(fault.target, fault.length_s, ending)

    def _rebalance(self, fault: Fault) -> None:
        stranger = stranger_of(fault.target)
        self.fleet.start(stranger)
        self._later(fault.target, fault.length_s, lambda: self.fleet.kill(stranger))


def _nothing() -> None:
    """Do nothing."""
