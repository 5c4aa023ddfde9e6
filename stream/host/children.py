"""The processes of a host's workers: each ends with its host, however that ends.

A process holds the read end of a pipe whose write end only the host has. The operating system
closes that with the host, kill -9 included, and a worker stops where its pipe ends.
"""

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from stream.settings import PREFIX, Settings, of_worker

_PROBE_S = 2.0


class Children:
    """Starts and stops processes, each known by its own process id.

    Parameters
    ----------
    settings
        Of the host; a worker's store lies in a folder of its name in ``state_dir``, and it
        listens on ``health_port`` + 1 + its number.
    file
        From which they were read, if from any.
    environment
        Of the host.
    """

    def __init__(
        self, settings: Settings, file: Path | None, environment: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._arguments = [] if file is None else ["--settings", str(file)]
        self._environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}

    def start(self, worker: str) -> int:
        """Start a worker's process and return its id."""
        port = self._port(worker)
        added = {
            f"{PREFIX}WORKER": worker,
            f"{PREFIX}STATE_DIR": str(of_worker(self._settings, worker).state_dir),
            f"{PREFIX}HEALTH_PORT": str(port),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "stream", "--until-eof", *self._arguments],
            env={**self._environment, **added},
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the host, which stops them
        )
        self._running[worker], self._ports[worker] = process, port
        return process.pid

    def _port(self, worker: str) -> int:
        base, numbered = self._settings.health_port, self._settings.workers > 1
        if base:
            return base + 1 + (int(worker) if numbered else 0)
        with socket.create_server((self._settings.health_host, 0)) as free:
            return int(free.getsockname()[1])

    def terminate(self, worker: str) -> None:
        """Ask a worker's process to stop."""
        self._running[worker].terminate()

    def kill(self, worker: str) -> None:
        """Stop a worker's process."""
        self._running[worker].kill()

    def ended(self) -> list[tuple[str, int]]:
        """Return worker and exit code of each process that has ended since the last call."""
        found = [(worker, process.poll()) for worker, process in self._running.items()]
        gone = [(worker, code) for worker, code in found if code is not None]
        for worker, _ in gone:
            process = self._running.pop(worker)
            if process.stdin is not None:
                process.stdin.close()
        return gone

    def unready(self, worker: str) -> str | None:
        """Ask a worker whether it is ready; return why not."""
        host = self._settings.health_host
        address = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104  # asked, not bound
        url = f"http://{address}:{self._ports.get(worker, 0)}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=_PROBE_S):  # own worker
                return None
        except urllib.error.HTTPError as error:
            return error.read().decode().strip()
        except OSError:
            return "it does not answer yet"
