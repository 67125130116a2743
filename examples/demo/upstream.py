"""The hospital's telemetry store behind the gateway, as a process: takes JSON lines by HTTP or raw, counts, responds.

    python -m examples.demo.upstream HTTP_PORT RAW_PORT

`GET /counts` returns how many lines each device sent, and which client certificate the gateway reported.
It represents any store, so it imports nothing of Vagus.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_LONGEST = 1_000_000


class Counts:
    """Lines by device, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, int] = {}
        self._bytes = 0
        self._certified = 0
        self._paths: set[str] = set()

    def take(self, body: bytes, *, is_certified: bool, path: str) -> int:
        """Count the lines of a body; how many there were."""
        lines = [json.loads(line) for line in body.splitlines()]
        with self._lock:
            self._bytes += len(body)
            self._certified += is_certified
            self._paths.add(path)
            for line in lines:
                self._lines[line["device"]] = self._lines.get(line["device"], 0) + 1
        return len(lines)

    def report(self) -> bytes:
        """What came, as JSON."""
        with self._lock:
            document = {
                "bytes": self._bytes,
                "certified_requests": self._certified,
                "lines": self._lines,
                "paths": sorted(self._paths),
            }
        return json.dumps(document).encode()


COUNTS = Counts()


class Store(BaseHTTPRequestHandler):
    """POST takes lines, GET returns the counts."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take the lines of one request."""
        size = int(self.headers.get("Content-Length", "0"))
        if size > _LONGEST:
            self._answer(413, b"")
            return
        COUNTS.take(self.rfile.read(size), is_certified="Client-Cert" in self.headers, path=self.path)
        self._answer(204, b"")

    def do_GET(self) -> None:
        """Return the counts."""
        self._answer(200, COUNTS.report())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class RawLines(socketserver.StreamRequestHandler):
    """Lines over a raw relay: each is answered by a line."""

    def handle(self) -> None:
        """Until the other side closes."""
        for line in self.rfile:
            COUNTS.take(line, is_certified=False, path="raw")
            self.wfile.write(b"ok\n")
            self.wfile.flush()


class _RawServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Serve until stopped."""
    http_port, raw_port = int(sys.argv[1]), int(sys.argv[2])
    raw = _RawServer(("127.0.0.1", raw_port), RawLines)
    threading.Thread(target=raw.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", http_port), Store).serve_forever()


if __name__ == "__main__":
    main()
