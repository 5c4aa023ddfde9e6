"""Every metric of a host, on a registry that is handed in."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from stream.host.core import REASONS, HostState, Phase

EXITS = ("stopped", "failed", "settings", "state", "superseded", "killed")
_EXIT_OF = {0: "stopped", 2: "settings", 3: "state", 4: "superseded"}


class HostTelemetry:
    """Gauges by worker and counters; every closed label is touched at the start.

    Parameters
    ----------
    registry
        Where they are registered.
    workers
        Names of all workers of the bank.

    Attributes
    ----------
    workers
        The same.
    """

    def __init__(self, registry: CollectorRegistry, workers: Sequence[str]) -> None:
        self._registry = registry
        self.workers = workers
        prefix = "amalgam_stream_host_"

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(prefix + name, text, ("worker",), registry=registry)

        self.assigned = gauge("worker_assigned", "1: Kafka has assigned the worker to this host.")
        self.running = gauge("worker_running", "1: the worker's process runs here.")
        self.ready = gauge("worker_ready", "1: it is ready.")
        self.down = gauge("worker_down", "1: its settings or state are refused, it stays down.")
        self.standby_lag = gauge("standby_lag_records", "Records that a worker's copy is behind.")
        self.restarts = Counter(
            prefix + "worker_restarts_total",
            "New starts of a process that ended by itself.",
            ("worker", "reason"),
            registry=registry,
        )
        self.exits = Counter(
            prefix + "worker_exits_total",
            "Ends of a worker's process.",
            ("worker", "kind"),
            registry=registry,
        )
        for worker in workers:
            for each in (self.assigned, self.running, self.ready, self.down, self.standby_lag):
                each.labels(worker)
            for reason in REASONS:
                self.restarts.labels(worker, reason)
            for kind in EXITS:
                self.exits.labels(worker, kind)

    def ended(self, worker: str, code: int) -> None:
        """Count the end of a process."""
        kind = "killed" if code < 0 else _EXIT_OF.get(code, "failed")
        self.exits.labels(worker, kind).inc()

    def show(self, state: HostState, unready: Sequence[str]) -> None:
        """Set every gauge."""
        running = state.of(Phase.RUNNING, Phase.STOPPING)
        down = state.of(Phase.DOWN)
        for worker in self.workers:
            is_ready = worker in running and worker not in unready
            self.assigned.labels(worker).set(worker in (state.assigned or ()))
            self.running.labels(worker).set(worker in running)
            self.ready.labels(worker).set(is_ready)
            self.down.labels(worker).set(worker in down)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
