"""A loop that stands still ends the process; one that turns, or is not there yet, does not."""

import subprocess
import sys
from pathlib import Path

from amalgamator.watchdog import EXIT, Watchdog

ROOT = Path(__file__).parents[3]
STUCK = """
import threading, time
from amalgamator import watchdog
watchdog._LOOK_S = 0.05
watchdog.Watchdog(0.1, time.monotonic).start()
threading.Event().wait()
"""


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def test_a_start_that_takes_too_long_ends_the_process():
    """Also before there is a loop: connecting may wait for ever."""
    ended, clock = [], Clock()
    watchdog = Watchdog(30.0, clock, ended.append)
    clock.now_s += 30.0
    watchdog.look()
    assert ended == []
    clock.now_s += 0.5
    watchdog.look()
    assert ended == [EXIT]


def test_once_there_is_a_loop_it_alone_is_asked(caplog):
    """The log says why, before the process is gone."""
    ended, clock, said = [], Clock(), [None]
    watchdog = Watchdog(30.0, clock, ended.append)
    watchdog.watch(lambda: said[0])
    clock.now_s += 1_000.0
    watchdog.look()
    assert ended == []
    said[0] = "no turn of the loop for 130 s"
    watchdog.look()
    assert ended == [EXIT]
    assert [record.getMessage() for record in caplog.records] == [
        "ended by the watchdog: no turn of the loop for 130 s"
    ]


def test_a_wait_without_end_in_the_main_thread_is_ended():
    """In a real process, from beside it, with a code of its own."""
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, timeout=30, check=False)
    assert done.returncode == EXIT == 4
