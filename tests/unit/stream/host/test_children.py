"""Processes of workers: what they are told, and that none outlives its host."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stream.host import children as module
from stream.host.children import Children
from stream.settings import Settings

ROOT = Path(__file__).parents[4]


class Popen:
    """A process that only remembers how it was started."""

    made: list["Popen"]

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command, self.options = command, options
        self.pid, self.code, self.stdin = 7, None, None
        self.made.append(self)

    def poll(self) -> int | None:
        return self.code


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Popen]:
    """Return the processes that are started."""
    Popen.made = []
    monkeypatch.setattr(module.subprocess, "Popen", Popen)
    return Popen.made


def settings_of(**values: Any) -> Settings:
    required = dict.fromkeys(("member", "bank_bootstrap", "consortium_bootstrap"), "north")
    files = dict.fromkeys(("mapping_file", "consortium_file", "key_file", "secret_file"), Path())
    chosen = {"state_dir": Path("state"), "health_port": 0, "workers": 4, **values}
    return Settings(**required, **files, **chosen)


def test_a_worker_gets_its_name_folder_and_port_by_the_environment(made: list[Popen]) -> None:
    """Beside what the host has; the base port is the host's own."""
    base = settings_of(health_port=9463)
    one = Children(base, Path("bank.toml"), {"PATH": "/bin", "AMALGAM_STREAM_WORKER": "0"})
    assert one.start("2") == 7
    (process,) = made
    assert process.command[1:] == ["-m", "stream", "--until-eof", "--settings", "bank.toml"]
    assert process.options["env"] == {
        "PATH": "/bin",
        "AMALGAM_STREAM_WORKER": "2",
        "AMALGAM_STREAM_STATE_DIR": "state/2",
        "AMALGAM_STREAM_HEALTH_PORT": "9466",
    }
    assert process.options["stdin"] == subprocess.PIPE


def test_a_worker_alone_has_any_name_and_the_next_port(made: list[Popen]) -> None:
    """And where the host takes a free port, so does the worker, another one each."""
    Children(settings_of(health_port=9463, workers=1, worker="east"), None, {}).start("east")
    free = Children(settings_of(), None, {})
    free.start("0")
    ports = [one.options["env"]["AMALGAM_STREAM_HEALTH_PORT"] for one in made]
    assert ports[0] == "9464"
    assert int(ports[1]) > 0


def test_ends_are_told_once(made: list[Popen]) -> None:
    """With their codes."""
    one = Children(settings_of(), None, {})
    one.start("0")
    one.start("1")
    assert one.ended() == []
    made[1].code = 4
    assert one.ended() == [("1", 4)]
    assert one.ended() == []


def test_a_worker_that_does_not_answer_is_not_ready(made: list[Popen]) -> None:
    """Nor one that was never started."""
    one = Children(settings_of(), None, {})
    one.start("0")
    assert one.unready("0") == one.unready("1") == "it does not answer yet"


@pytest.mark.slow
def test_a_worker_ends_with_its_host_even_by_kill_9(tmp_path: Path) -> None:
    """Its input ends with the only process that holds the other end; siblings do not."""
    program = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-c', "
        "'import threading, time; from stream.__main__ import _stop_at_eof; "
        'threading.Thread(target=_stop_at_eof, daemon=True).start(); print("up", flush=True); '
        "time.sleep(60)']\n"
        "ones = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(2)]\n"
        "print(*[one.pid for one in ones], flush=True)\n"
        "time.sleep(60)\n"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    pids: list[int] = []
    try:
        said = [host.stdout.readline() for _ in range(3)]
        pids = [int(pid) for line in said if line.strip() != "up" for pid in line.split()]
        assert all(_is_alive(pid) for pid in pids)
        host.kill()
        host.wait()
        until_s = time.monotonic() + 20.0
        while any(_is_alive(pid) for pid in pids):
            assert time.monotonic() < until_s, "a worker outlives its host"
            time.sleep(0.05)
    finally:
        host.kill()
        host.communicate()
        for pid in filter(_is_alive, pids):
            os.kill(pid, 9)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
