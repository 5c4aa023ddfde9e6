"""The processes of a consortium on one machine, each stopped by its own process id."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

import msgspec

from models.errors import UnavailableError

ROOT = Path(__file__).resolve().parents[1]
_STOP_TIMEOUT_S = 12.0
_PROBE_TIMEOUT_S = 2.0


def read_metrics(port: int, *, timeout_s: float) -> dict[str, float]:
    """Return what a process of this machine shows, by name and labels; none where it is away."""
    try:
        with urlopen(
            f"http://127.0.0.1:{port}/metrics", timeout=timeout_s
        ) as answer:  # own address
            lines: list[str] = answer.read().decode().splitlines()
    except OSError:
        return {}
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


@dataclass(frozen=True, slots=True)
class Service:
    """One running process.

    Parameters
    ----------
    name
        For messages and the log file.
    process
        Its handle.
    port
        Where it answers /metrics, /healthz and /readyz.
    log
        Its log file.
    """

    name: str
    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Address of its metrics."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Ask /readyz."""
        try:
            with urlopen(f"{self.url}/readyz", timeout=_PROBE_TIMEOUT_S) as answer:  # noqa: S310  # own address
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def metrics(self) -> dict[str, float]:
        """Return its metrics, by name and labels as they are written; none where it is away."""
        return read_metrics(self.port, timeout_s=_PROBE_TIMEOUT_S)


class _Record(msgspec.Struct, frozen=True):
    name: str
    pid: int
    started_ticks: int


def start_ticks(pid: int) -> int:
    """Return when a process started, 0 if it is gone, to tell a reused process id apart."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def stop_remembered(path: Path) -> list[str]:
    """Stop what `Services.remember` wrote down, if it is still the same, and return the names."""
    try:
        records = msgspec.json.decode(path.read_bytes(), type=list[_Record])
    except (FileNotFoundError, msgspec.MsgspecError):
        return []
    path.unlink()
    alive = [one for one in records if 0 < start_ticks(one.pid) == one.started_ticks]
    for one in alive:
        os.kill(one.pid, signal.SIGTERM)
    until_s = time.monotonic() + _STOP_TIMEOUT_S
    for one in alive:
        while start_ticks(one.pid) == one.started_ticks and time.monotonic() < until_s:
            time.sleep(0.05)
        if start_ticks(one.pid) == one.started_ticks:
            os.kill(one.pid, signal.SIGKILL)
    return [one.name for one in alive]


class Services:
    """Starts processes, and stops them all when its block is left, unless they are kept.

    Parameters
    ----------
    log_directory
        Where each process's output goes.
    """

    def __init__(self, log_directory: Path) -> None:
        self._logs = log_directory
        self._logs.mkdir(parents=True, exist_ok=True)
        self.running: list[Service] = []
        self.is_kept = False

    def start(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> Service:
        """Start ``python -m module``; ``environment`` is added to this process's own."""
        log = self._logs / f"{name}.log"
        port = int(environment["HEALTH_PORT"])
        added = {key: value for key, value in environment.items() if key != "HEALTH_PORT"}
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, **added},
                cwd=ROOT,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # Ctrl-C is for the caller, who then stops them in order
            )
        service = Service(name, process, port, log)
        self.running.append(service)
        return service

    def check(self) -> None:
        """Raise if a process has ended.

        Raises
        ------
        UnavailableError
            Naming it, its log and the last error in there.
        """
        for service in self.running:
            code = service.process.poll()
            if code is not None:
                last = _last_error(service.log)
                raise UnavailableError(f"{service.name} ended with {code}, see {service.log}{last}")

    def wait_ready(self, deadline_s: float) -> None:
        """Wait until every process says it is ready.

        Raises
        ------
        UnavailableError
            If one ends, or is not ready ``deadline_s`` seconds from now.
        """
        until_s = time.monotonic() + deadline_s
        waiting = list(self.running)
        while waiting:
            self.check()
            waiting = [service for service in waiting if not service.is_ready()]
            if waiting and time.monotonic() > until_s:
                one = waiting[0]
                raise UnavailableError(
                    f"{one.name} is not ready after {deadline_s:.0f} s, see {one.log}"
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """Ask all to stop, wait, and kill what does not."""
        for service in self.running:
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        until_s = time.monotonic() + _STOP_TIMEOUT_S
        for service in self.running:
            try:
                service.process.wait(max(until_s - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
        self.running.clear()

    def remember(self, path: Path) -> None:
        """Write down what runs, so that another process can stop it."""
        records = [
            _Record(service.name, service.process.pid, start_ticks(service.process.pid))
            for service in self.running
        ]
        path.write_bytes(msgspec.json.encode(records))

    def __enter__(self) -> "Services":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None or not self.is_kept:
            self.stop()


class _LogLine(msgspec.Struct):
    """One of `models.json_log`."""

    level: str
    message: str
    exception: str = ""


def _last_error(log: Path) -> str:
    """Return the last error that a service logged, a colon before it; nothing if there is none."""
    for line in reversed(log.read_bytes().splitlines()):
        try:
            logged = msgspec.json.decode(line, type=_LogLine)
        except msgspec.MsgspecError:  # what the interpreter or a library had to say at last
            return f": {line.decode(errors='replace')}"
        if logged.level == "ERROR":
            return ": " + ", ".join([logged.message, *logged.exception.splitlines()[-1:]])
    return ""
