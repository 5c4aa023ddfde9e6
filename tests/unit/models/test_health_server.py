"""The health server over real HTTP on a free port."""

import http.client
import threading
from collections.abc import Iterator

import pytest

from models.errors import UnavailableError
from models.health_server import HealthServer


class Service:
    """A service whose health can be set."""

    def __init__(self) -> None:
        self.not_live: str | None = None
        self.not_ready: str | None = None

    def metrics(self) -> bytes:
        return b"amalgam_up 1.0\n"


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def server(service: Service) -> Iterator[HealthServer]:
    found = HealthServer(
        0,
        render_metrics=service.metrics,
        live=lambda: service.not_live,
        ready=lambda: service.not_ready,
    )
    found.start()
    yield found
    found.stop()


def _get(port: int, path: str) -> tuple[int, str | None, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        link.request("GET", path)
        answer = link.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read()
    finally:
        link.close()


def test_metrics_have_the_type_that_prometheus_reads(server: HealthServer) -> None:
    """The text format's version is in the content type."""
    status, kind, body = _get(server.port, "/metrics")
    assert (status, body) == (200, b"amalgam_up 1.0\n")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz?verbose=1"])
def test_a_healthy_service_says_ok(server: HealthServer, path: str) -> None:
    """A query is ignored."""
    assert _get(server.port, path)[::2] == (200, b"ok\n")


def test_a_reason_is_answered_with_503(server: HealthServer, service: Service) -> None:
    """Live and ready are asked apart: who is not ready must not be restarted."""
    service.not_ready = "no release yet"
    assert _get(server.port, "/readyz")[::2] == (503, b"no release yet\n")
    assert _get(server.port, "/healthz")[0] == 200
    service.not_live = "loop stalled"
    assert _get(server.port, "/healthz")[::2] == (503, b"loop stalled\n")


def test_another_path_is_not_found(server: HealthServer) -> None:
    """Nothing else is served."""
    assert _get(server.port, "/")[0] == 404


def test_a_probe_is_not_logged(server: HealthServer, capfd: pytest.CaptureFixture[str]) -> None:
    """Probes come every few seconds."""
    _get(server.port, "/healthz")
    assert capfd.readouterr() == ("", "")


def test_a_slow_request_does_not_hold_up_another(service: Service) -> None:
    """Each request has a thread of its own."""
    entered, leave = threading.Event(), threading.Event()

    def slow() -> bytes:
        entered.set()
        leave.wait(5.0)
        return b""

    server = HealthServer(0, render_metrics=slow, live=lambda: None, ready=lambda: None)
    server.start()
    waiting = threading.Thread(target=_get, args=(server.port, "/metrics"))
    waiting.start()
    try:
        assert entered.wait(5.0)
        assert _get(server.port, "/healthz")[0] == 200
    finally:
        leave.set()
        waiting.join()
        server.stop()


def test_a_taken_port_is_named(server: HealthServer) -> None:
    """The operator reads which address it was and what to change."""
    with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{server.port}.*health_port"):
        HealthServer(server.port, render_metrics=bytes, live=lambda: None, ready=lambda: None)


def test_stop_frees_the_port_and_may_come_twice_or_before_start() -> None:
    """A service that fails while it starts stops what it has."""
    first = HealthServer(0, render_metrics=bytes, live=lambda: None, ready=lambda: None)
    first.stop()
    first.stop()
    again = HealthServer(first.port, render_metrics=bytes, live=lambda: None, ready=lambda: None)
    again.stop()
