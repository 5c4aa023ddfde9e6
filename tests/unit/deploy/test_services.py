"""Processes of a consortium are started, watched, remembered, and stopped by their own id."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from deploy import services
from deploy.kafka_server import free_port
from deploy.services import Services, start_ticks, stop_remembered
from models.errors import UnavailableError

ANSWERS = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

print("word:", os.environ.get("TINY_WORD"), os.environ.get("HEALTH_PORT"), flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
ENDS = "import sys; print('no luck'); sys.exit(7)"
FAILS = """
import logging
from models.json_log import log_as_json

log_as_json("INFO", {})
log = logging.getLogger("tiny")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("could not count")
log.info("stopped")
raise SystemExit(1)
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Give Services whose modules are small scripts; all are stopped at the end."""
    for name, text in (
        ("answers", ANSWERS),
        ("stubborn", STUBBORN),
        ("ends", ENDS),
        ("fails", FAILS),
    ):
        (tmp_path / f"tiny_{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(services, "_STOP_TIMEOUT_S", 0.3)
    with Services(tmp_path / "logs") as running:
        yield running
        running.is_kept = False


def launch(tiny, module, name=None, **environment):
    """Start one of the small scripts."""
    port = str(free_port())
    return tiny.start(
        name or module, f"tiny_{module}", [port], {"HEALTH_PORT": port, **environment}
    )


def wait_for(condition, seconds=10.0):
    """Poll until something holds."""
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_services_become_ready_and_are_stopped(tiny):
    """Two at a time; both answer, both are gone afterwards and nothing runs any more."""
    both = [launch(tiny, "answers", name) for name in ("one", "two")]
    tiny.wait_ready(20.0)
    assert all(service.is_ready() for service in both)
    tiny.check()
    tiny.stop()
    assert [service.process.poll() for service in both] == [-signal.SIGTERM] * 2
    assert not any(service.is_ready() for service in both)
    assert tiny.running == []


def test_output_goes_to_the_log_and_the_environment_to_the_process(tiny):
    """The port for probes is no variable of the service."""
    service = launch(tiny, "answers", TINY_WORD="hello")
    tiny.wait_ready(20.0)
    assert service.log.read_text(encoding="utf-8").startswith("word: hello None\n")
    assert service.url == f"http://127.0.0.1:{service.port}"


def test_a_process_that_ended_is_named_with_its_last_error(tiny):
    """Whoever reads only the message knows why."""
    launch(tiny, "fails")
    expected = r"fails.log: could not count, ZeroDivisionError: division by zero$"
    with pytest.raises(UnavailableError, match=expected):
        tiny.wait_ready(20.0)


def test_a_process_that_ended_is_named_with_its_code_and_log(tiny):
    """Nobody waits for its deadline."""
    service = launch(tiny, "ends")
    with pytest.raises(UnavailableError, match="ends ended with 7") as caught:
        tiny.wait_ready(20.0)
    assert f"{service.log}: no luck" in str(caught.value)
    assert service.log.read_text(encoding="utf-8") == "no luck\n"


def test_a_process_that_never_answers_is_given_up_at_the_deadline(tiny):
    """It still runs: the message says that it is not ready."""
    launch(tiny, "stubborn")
    with pytest.raises(UnavailableError, match="stubborn is not ready"):
        tiny.wait_ready(0.1)


def test_what_does_not_stop_is_killed(tiny):
    """After the time it has for stopping."""
    service = launch(tiny, "stubborn")
    wait_for(lambda: service.log.read_text(encoding="utf-8") == "deaf\n")
    tiny.stop()
    assert service.process.poll() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("is_kept", "error", "is_running"),
    [(False, None, False), (True, None, True), (True, UnavailableError("x"), False)],
)
def test_leaving_the_block_stops_all_unless_they_are_kept(tiny, is_kept, error, is_running):
    """An error stops them even then."""
    service = launch(tiny, "stubborn")
    tiny.is_kept = is_kept
    tiny.__exit__(type(error) if error else None, error, None)
    assert (service.process.poll() is None) == is_running


def test_services_start_in_a_session_of_their_own(tiny):
    """Ctrl-C goes to the caller alone, who stops them in order."""
    service = launch(tiny, "stubborn")
    assert os.getsid(service.process.pid) == service.process.pid != os.getsid(0)


def test_remembered_services_are_stopped_by_another_process(tiny, tmp_path):
    """Once: the note is gone afterwards."""
    service = launch(tiny, "answers")
    note = tmp_path / "services.json"
    tiny.remember(note)
    assert stop_remembered(note) == ["answers"]
    assert service.process.wait(10.0) == -signal.SIGTERM
    assert not note.exists()
    assert stop_remembered(note) == []


def test_a_remembered_process_that_does_not_stop_is_killed(tiny, tmp_path):
    """After the time it has for stopping."""
    service = launch(tiny, "stubborn")
    wait_for(lambda: service.log.read_text(encoding="utf-8") == "deaf\n")
    tiny.remember(tmp_path / "services.json")
    assert stop_remembered(tmp_path / "services.json") == ["stubborn"]
    assert service.process.wait(10.0) == -signal.SIGKILL


def test_a_process_id_that_another_process_got_is_left_alone(tiny, tmp_path):
    """It is told apart by when it was started."""
    service = launch(tiny, "stubborn")
    note = tmp_path / "services.json"
    tiny.remember(note)
    (record,) = msgspec.json.decode(note.read_bytes())
    assert record["started_ticks"] == start_ticks(service.process.pid)
    note.write_bytes(msgspec.json.encode([record | {"started_ticks": 1}]))
    assert stop_remembered(note) == []
    assert service.process.poll() is None


def test_a_note_that_is_none_stops_nothing(tmp_path):
    """Neither a damaged nor an absent one."""
    damaged = tmp_path / "services.json"
    damaged.write_text('[{"name": 3}]', encoding="utf-8")
    assert stop_remembered(damaged) == stop_remembered(tmp_path / "absent.json") == []


def test_start_ticks_are_those_of_the_kernel_and_zero_once_gone():
    """Also for a name with spaces and brackets, and for a process that nobody has waited for."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
        assert start_ticks(process.pid) == int(stat.rsplit(") ", 1)[1].split()[22 - 3])
        process.stdin.close()
        wait_for(lambda: start_ticks(process.pid) == 0)
    assert start_ticks(process.pid) == 0
