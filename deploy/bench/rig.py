"""The bank's worker alone, started and killed at will, and what it answers."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.bench.bank import USUAL_SHARE, BenchBank, DecisionLog
from deploy.kafka_server import free_port
from deploy.services import Service, Services
from models.errors import UnavailableError

DURABLE = {"AMALGAM_STREAM_CHANGELOG": "true", **USUAL_SHARE}
SAMPLE_S = 0.02
BEGUN = "amalgam_stream_snapshot_duration_seconds_count"
WRITTEN = "amalgam_stream_checkpoint_duration_seconds_count"
_PROBE_TIMEOUT_S = 300.0
_LOOK_S = 0.5
_STORED_S = 90.0  # longer than a worker leaves anything unstored


class Rig:
    """The bank's worker alone, started and killed at will.

    Parameters
    ----------
    bank
        Warm, with the stream of many accounts.
    """

    def __init__(self, bank: BenchBank) -> None:
        self.bank = bank
        self.state_dir = bank.settings.parent / "state"

    @contextmanager
    def worker(self, added: Mapping[str, str], state_dir: Path | None = None) -> Iterator[Service]:
        """Start a worker, ready or not; it is killed at the end of the block."""
        services = Services(self.bank.directory / "logs")
        port = str(free_port())
        environment = {
            "AMALGAM_STREAM_HEALTH_PORT": port,
            "HEALTH_PORT": port,
            "AMALGAM_STREAM_STATE_DIR": str(state_dir or self.state_dir),
            **added,
        }
        arguments = ["--settings", str(self.bank.settings)]
        service = services.start("recovery", "stream", arguments, environment)
        try:
            yield service
        finally:
            service.process.kill()
            service.process.wait()

    def stored(self, service: Service) -> None:
        """Wait until all that a worker knows by now is stored.

        It may be already; then no other checkpoint comes, and none is waited for longer.
        """
        until_s = time.monotonic() + _STORED_S
        begun = service.metrics().get(BEGUN, 0.0)
        while service.metrics().get(WRITTEN, 0.0) <= begun and time.monotonic() < until_s:
            time.sleep(_LOOK_S)

    def ready(self, service: Service) -> None:
        """Wait until a worker is ready."""
        until_s = time.monotonic() + _PROBE_TIMEOUT_S
        while not service.is_ready():
            check(service, until_s, "ready")
            time.sleep(SAMPLE_S)

    def recovered_s(self, row: int, state_dir: Path | None = None) -> float:
        """Start a worker and return the seconds until it is ready and has answered a payment.

        The payment is sent when the process has been started. What it had answered before it was
        killed comes again first.
        """
        probe = slice(row, row + 1)
        wanted = self.bank.stream.batch.transaction_id[row]
        with DecisionLog(self.bank.bootstrap) as answers:
            answers.follow()
            began_s = time.perf_counter()
            until_s = time.monotonic() + _PROBE_TIMEOUT_S
            with self.worker(DURABLE, state_dir) as service:
                self.bank.send(probe)
                is_ready = False
                while not (is_ready and answers.has_answered(wanted)):
                    check(service, until_s, "an answer")
                    is_ready = is_ready or service.is_ready()
                    time.sleep(SAMPLE_S)
                return time.perf_counter() - began_s


def check(service: Service, until_s: float, what: str) -> None:
    """Refuse to wait longer for a worker that has ended, or for ever.

    Raises
    ------
    UnavailableError
        If so.
    """
    if service.process.poll() is not None:
        raise UnavailableError(f"the worker ended, see {service.log}")
    if time.monotonic() > until_s:
        raise UnavailableError(f"expected {what} in time")
