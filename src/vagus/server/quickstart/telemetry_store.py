"""`python -m vagus.server.quickstart.telemetry_store PORT`: a store behind a trial's gateway; counts lines, keeps none.

It stands for the hospital's own telemetry store. The gateway judges who may send; the store sees plain HTTP.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST = 1_000_000
"""Bytes of one request."""


class TelemetryStore(ThreadingHTTPServer):
    """Takes lines by POST on a port of this host; GET returns how many came."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        """Raises OSError for a port that is taken."""
        super().__init__(("127.0.0.1", port), _Requests)
        self.lines = 0
        self.turn = threading.Lock()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve in a thread while the block runs."""
        thread = threading.Thread(target=self.serve_forever, name="vagus-telemetry-store", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: TelemetryStore

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdigit() and len(size) < 8 and int(size) <= _LARGEST):
            self.close_connection = True
            self._respond(413)
            return
        lines = self.rfile.read(int(size)).count(b"\n")
        with self.server.turn:
            self.server.lines += lines
        self._respond(204)

    def do_GET(self) -> None:
        self._respond(200, f"{self.server.lines} lines\n".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the command's own lines are to be read."""

    def _respond(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        if status != 204:  # RFC 9110 8.6
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    TelemetryStore(int(sys.argv[1])).serve_forever()
