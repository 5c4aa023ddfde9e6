"""A small HTTP server for `/metrics`, `/healthz` and `/readyz`, the same for every service."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from models.errors import UnavailableError

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TEXT_TYPE = "text/plain; charset=utf-8"
_REQUEST_TIMEOUT_S = 10.0

Check = Callable[[], str | None]
Answer = tuple[int, str, bytes]


class HealthServer:
    """Answers on a thread of its own, each request on another.

    Parameters
    ----------
    port
        TCP port; 0 takes a free one, see ``port``.
    render_metrics
        Gives the metrics in Prometheus' text format.
    live, ready
        None if all is well, else the reason, which is answered with status 503. They are asked
        from other threads than the service's own.
    host
        Address to listen on.

    Raises
    ------
    UnavailableError
        If the port cannot be had.
    """

    def __init__(
        self,
        port: int,
        *,
        render_metrics: Callable[[], bytes],
        live: Check,
        ready: Check,
        host: str = "127.0.0.1",
    ) -> None:
        routes: dict[str, Callable[[], Answer]] = {
            "/metrics": lambda: (200, _METRICS_TYPE, render_metrics()),
            "/healthz": lambda: _verdict(live()),
            "/readyz": lambda: _verdict(ready()),
        }
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(routes))
        except OSError as error:
            raise UnavailableError(
                f"health server: cannot listen on {host}:{port}: {error.strerror}; "
                "choose another health_port"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health-server", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port; a second time does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _handler(routes: dict[str, Callable[[], Answer]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_S  # a client that says nothing holds no thread for ever

        def do_GET(self) -> None:
            route = routes.get(self.path.partition("?")[0])
            status, kind, body = route() if route else (404, _TEXT_TYPE, b"not found\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
            """Say nothing: probes come every few seconds."""

    return Handler


def _verdict(reason: str | None) -> Answer:
    if reason is None:
        return 200, _TEXT_TYPE, b"ok\n"
    return 503, _TEXT_TYPE, f"{reason}\n".encode()
