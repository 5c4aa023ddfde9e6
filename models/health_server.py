"""A small HTTP server for `/metrics`, `/healthz` and `/readyz`, the same for every service."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TEXT_TYPE = "text/plain; charset=utf-8"

Check = Callable[[], str | None]


class HealthServer:
    """Answers on a thread of its own.

    Parameters
    ----------
    port
        TCP port; 0 takes a free one, see ``port`` after `start`.
    render_metrics
        Gives the metrics in Prometheus' text format.
    live, ready
        None if all is well, else the reason, which is answered with status 503.
    host
        Address to listen on.
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
        routes: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, _METRICS_TYPE, render_metrics()),
            "/healthz": lambda: _verdict(live()),
            "/readyz": lambda: _verdict(ready()),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                route = routes.get(self.path.partition("?")[0])
                status, kind, body = route() if route else (404, _TEXT_TYPE, b"not found\n")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: probes come every few seconds."""

        self._server = ThreadingHTTPServer((host, port), Handler)
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
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _verdict(reason: str | None) -> tuple[int, str, bytes]:
    if reason is None:
        return 200, _TEXT_TYPE, b"ok\n"
    return 503, _TEXT_TYPE, f"{reason}\n".encode()
