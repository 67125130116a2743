"""What the outside received, one JSON line each, on the disk before anything else happens."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path


class Journal:
    """An append-only file that is synced after each line: the oracle's side of the truth."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def note(self, kind: str, **facts: str | int) -> None:
        """Write and sync one line."""
        with self._lock:
            os.write(self._file, (json.dumps({"kind": kind, **facts}) + "\n").encode())
            os.fdatasync(self._file)

    def lines(self, kind: str) -> list[dict[str, str]]:
        """Every line of one kind, in the order of their arrival."""
        read = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [line for line in read if line["kind"] == kind]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
