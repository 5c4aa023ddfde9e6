"""The processes of a disturbed run, and what can befall them; each is known by its own process id.

As an orchestrator would, `revive` starts again what ended by itself.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy import kafka_server
from deploy.kafka_server import KafkaFiles
from deploy.services import ROOT, read_metrics
from models.errors import UnavailableError
from stream.host.core import SUPERSEDED_EXIT

_TERM_S = 20.0
_PROBE_S = 1.0
_BROKER_STARTS = 5


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started: ``python -m module arguments``, and where it shows its metrics."""

    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    port: int


@dataclass(slots=True)
class Fleet:
    """Banks' workers and amalgamators.

    Parameters
    ----------
    logs
        Where output goes, a file for each name.
    commands
        Name -> how it is started.
    """

    logs: Path
    commands: dict[str, Command]
    _running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _paused: set[str] = field(default_factory=set)

    def start(self, name: str) -> None:
        """Start one that does not run."""
        command = self.commands[name]
        with (self.logs / f"{name}.log").open("ab") as sink:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", command.module, *command.arguments],
                env={**os.environ, **command.environment},
                cwd=ROOT,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # Ctrl-C is for the caller
            )

    def kill(self, name: str) -> None:
        """Kill -9, also one that is paused; nothing where it has been superseded."""
        process = self._running.pop(name, None)
        self._paused.discard(name)
        if process is not None:
            process.kill()
            process.wait()

    def terminate(self, name: str) -> int | None:
        """Send SIGTERM and return the exit code; None where it was killed, or did not run."""
        self.resume(name)
        process = self._running.pop(name, None)
        if process is None:  # it has been superseded
            return None
        process.terminate()
        try:
            return process.wait(_TERM_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def pause(self, name: str) -> None:
        """Send SIGSTOP."""
        self._running[name].send_signal(signal.SIGSTOP)
        self._paused.add(name)

    def resume(self, name: str) -> None:
        """Send SIGCONT to one that is paused."""
        if name in self._paused:
            self._paused.discard(name)
            self._running[name].send_signal(signal.SIGCONT)

    def rename(self, name: str, new: str) -> None:
        """Let one take the name, and the settings, of another that does not run; it runs then."""
        process = self._running.pop(name, None)
        self.commands[name], self.commands[new] = self.commands[new], self.commands[name]
        if process is None:  # it was superseded itself: the other one had come back
            self.start(new)
        else:
            self._running[new] = process

    def revive(self) -> list[tuple[str, int]]:
        """Start again what ended by itself, unless superseded; return names and exit codes."""
        ended = [(name, process.poll()) for name, process in self._running.items()]
        found = [(name, code) for name, code in ended if code is not None]
        for name, code in found:
            self._paused.discard(name)
            if code == SUPERSEDED_EXIT:
                del self._running[name]
            else:
                self.start(name)
        return found

    def metric(self, name: str, metric: str) -> float | None:
        """Return a sample of a process, None where it does not answer."""
        if name in self._paused or name not in self._running:
            return None
        return read_metrics(self.commands[name].port, timeout_s=_PROBE_S).get(metric)

    def stop(self) -> None:
        """Kill all that run."""
        for name in list(self._running):
            self.kill(name)


@dataclass(slots=True)
class Broker:
    """One Kafka on its own directory and port, whatever befalls it.

    Parameters
    ----------
    directory, files
        See `deploy.kafka_server.start`.
    """

    directory: Path
    files: KafkaFiles
    bootstrap: str = ""
    _starting: threading.Thread | None = None
    _error: UnavailableError | None = None

    def start(self) -> None:
        """Start it, on the port that it had."""
        port = int(self.bootstrap.rpartition(":")[2]) if self.bootstrap else None
        for left in reversed(range(_BROKER_STARTS)):
            try:
                self.bootstrap = kafka_server.start(self.directory, self.files, port=port).bootstrap
            except UnavailableError as error:  # e.g. another program has a port just now
                if not left:
                    self._error = error
                    return
                time.sleep(1.0)
            else:
                return

    def start_beside(self) -> None:
        """Start it in a thread of its own."""
        self._starting = threading.Thread(target=self.start, name="broker-start", daemon=True)
        self._starting.start()

    def wait(self) -> None:
        """Return once it is started.

        Raises
        ------
        UnavailableError
            If it cannot be.
        """
        if self._starting is not None:
            self._starting.join()
        if self._error is not None:
            raise self._error

    def signal(self, number: int) -> None:
        """Send a signal to its process."""
        record = kafka_server.running(self.directory)
        if record is not None:
            os.kill(record.pid, number)

    def kill(self) -> None:
        """Kill -9."""
        record = kafka_server.running(self.directory)
        if record is not None:
            os.kill(record.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(record.pid, 0)

    def stop(self) -> None:
        """Stop it for good."""
        if self._starting is not None:
            self._starting.join()
        self.signal(signal.SIGCONT)
        kafka_server.stop(self.directory)
