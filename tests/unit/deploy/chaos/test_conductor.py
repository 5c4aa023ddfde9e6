"""Every fault comes in its moment and is made good again; what nothing mends ends a run."""

import json
import signal
from datetime import UTC, datetime

import pytest

from deploy.chaos.conductor import TWIN, Conductor, Progress, StalledError
from deploy.chaos.fault_log import FaultLog
from deploy.chaos.fault_plan import AMALGAMATOR, BROKER, Fault
from deploy.chaos.small_world import HOUR_MS

N_TICKS = 10
SPAN = (0, N_TICKS * HOUR_MS)


class Machine:
    """A fleet, a broker and a clock in one: whatever is done to them is told with its second."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.told: list[tuple[float, str, str]] = []
        self.ended: list[tuple[str, int]] = []
        self.pace = HOUR_MS  # of event time a second

    def clock(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s

    def metric(self, _name: str, _metric: str) -> float:
        last_ms = SPAN[1] - HOUR_MS
        return min(self.now_s * self.pace, last_ms) / 1_000

    def revive(self) -> list[tuple[str, int]]:
        ended, self.ended = self.ended, []
        return ended

    def rename(self, name: str, new: str) -> None:
        self.tell("rename", f"{name} to {new}")

    def terminate(self, name: str) -> int:
        self.tell("terminate", name)
        return 0

    def wait(self) -> None:
        """Is always there."""

    def signal(self, number: int) -> None:
        self.tell(signal.Signals(number).name, BROKER)

    def start_beside(self) -> None:
        self.tell("start", BROKER)

    def tell(self, what: str, whom: str) -> None:
        self.told.append((self.now_s, what, whom))

    def __getattr__(self, name: str):
        if name not in ("start", "kill", "pause", "resume"):
            raise AttributeError(name)
        return lambda whom=BROKER: self.tell(name, whom)


@pytest.fixture
def machine():
    return Machine()


def conductor_of(machine, tmp_path, **more):
    """Return one that is about to begin."""
    return Conductor(
        machine,
        machine,
        Progress(SPAN, {"a": -1, "b": -1}),
        FaultLog(tmp_path / "faults.jsonl", lambda: datetime.now(UTC)),
        check=lambda: None,
        is_finished=lambda: True,
        clock=machine.clock,
        sleep=machine.sleep,
        **more,
    )


def conducted(machine, tmp_path, *faults, **more):
    """Run faults to the end and return the lines of the log."""
    conductor = conductor_of(machine, tmp_path, **more)
    try:
        conductor.run(faults)
    finally:
        conductor.log.close()
    assert conductor.done == len(faults)
    return [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]


def fault(kind, target, at=0.2, length_s=1.0, number=1):
    return Fault(number=number, kind=kind, target=target, at=at, wait_s=0.0, length_s=length_s)


@pytest.mark.parametrize(
    ("kind", "target", "deeds"),
    [
        ("kill", "a", [("kill", "a"), ("start", "a")]),
        ("kill_at_start", "a", [("kill", "a"), ("start", "a"), ("kill", "a"), ("start", "a")]),
        ("terminate", "a", [("terminate", "a"), ("start", "a")]),
        ("pause", "a", [("pause", "a"), ("resume", "a")]),
        ("double", AMALGAMATOR, [("start", TWIN), ("kill", TWIN)]),
        (
            "hand_over",
            AMALGAMATOR,
            [("start", TWIN), ("kill", AMALGAMATOR), ("rename", f"{TWIN} to {AMALGAMATOR}")],
        ),
        ("hand_over", "a", [("start", "a-2"), ("kill", "a"), ("rename", "a-2 to a")]),
        ("rebalance", "a", [("start", "a-stranger"), ("kill", "a-stranger")]),
        ("kill", BROKER, [("kill", BROKER), ("start", BROKER)]),
        ("pause", BROKER, [("SIGSTOP", BROKER), ("SIGCONT", BROKER)]),
    ],
)
def test_each_fault_is_done_and_made_good(machine, tmp_path, kind, target, deeds) -> None:
    """Not before a fifth of the stream is learnt; what lasts, for as long as is planned."""
    lines = conducted(machine, tmp_path, fault(kind, target))
    assert [(what, whom) for _, what, whom in machine.told] == deeds
    first_s, last_s = machine.told[0][0], machine.told[-1][0]
    assert first_s >= 0.2 * N_TICKS
    if kind != "terminate":
        assert 1.0 <= last_s - first_s <= 1.5
    assert (lines[0]["kind"], lines[0]["target"]) == (kind, target)


def test_what_lasts_ends_before_the_next_thing_befalls_the_same_process(machine, tmp_path) -> None:
    """A bank that is down is started before it is paused."""
    faults = (fault("kill", "a", length_s=9.0), fault("pause", "a", at=0.3, number=2))
    conducted(machine, tmp_path, *faults)
    assert [what for _, what, _ in machine.told] == ["kill", "start", "pause", "resume"]


def test_another_process_may_fail_meanwhile(machine, tmp_path) -> None:
    """A bank is killed while the broker is away."""
    faults = (fault("kill", BROKER, length_s=3.0), fault("kill", "a", at=0.3, number=2))
    conducted(machine, tmp_path, *faults)
    assert [(what, whom) for _, what, whom in machine.told][:2] == [("kill", BROKER), ("kill", "a")]


def test_a_fault_after_the_last_tick_has_begun_comes_then(machine, tmp_path) -> None:
    """Banks say no more how far they are."""
    conducted(machine, tmp_path, fault("kill", "a", at=0.999))
    assert [what for _, what, _ in machine.told] == ["kill", "start"]


def test_a_process_that_was_superseded_is_told_and_not_counted(machine, tmp_path) -> None:
    """Nobody starts it again."""
    machine.ended = [("a", 4)]
    (line,) = conducted(machine, tmp_path)
    assert line["code"] == 4


def test_what_ended_by_itself_is_told(machine, tmp_path) -> None:
    """With its code; the orchestrator has started it again."""
    machine.ended = [("a", 1)]
    (line,) = conducted(machine, tmp_path)
    assert (line["kind"], line["target"], line["code"]) == ("ended by itself", "a", 1)


@pytest.mark.parametrize("code", [2, 3])
def test_a_state_or_settings_that_are_refused_end_the_run(machine, tmp_path, code) -> None:
    """No new start mends them."""
    machine.ended = [("a", code)]
    with pytest.raises(StalledError, match=f"a ended with {code}"):
        conducted(machine, tmp_path)


def test_a_stream_that_stands_still_ends_the_run(machine, tmp_path) -> None:
    """After as long as is allowed."""
    machine.pace = 0
    with pytest.raises(StalledError, match="no bank has moved for 20 s"):
        conducted(machine, tmp_path, stall_s=20.0)
    assert 20.0 <= machine.now_s <= 21.0


def test_what_befalls_the_processes_of_a_halted_run_is_ended(machine, tmp_path) -> None:
    """The broker goes on and the bank is there again, so that what they hold can be compared."""
    conductor = conductor_of(machine, tmp_path, stall_s=20.0)
    machine.pace = 0
    faults = (fault("pause", BROKER, 0.0, 99.0), fault("kill", "a", 0.0, 99.0, number=2))
    with pytest.raises(StalledError):
        conductor.run(faults)
    conductor.settle()
    conductor.log.close()
    deeds = [(what, whom) for _, what, whom in machine.told]
    assert deeds == [("SIGSTOP", BROKER), ("kill", "a"), ("SIGCONT", BROKER), ("start", "a")]
