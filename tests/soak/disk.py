"""What a power cut leaves: replays a disk trace up to an instant and lays out the files as a disk may then hold them.

The disk promises only what POSIX does: a write is there once a sync that began after it has ended, a name once its
folder was synced. Everything else may be there, be missing, or be there in part.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

_HEAD = struct.Struct("=cIQI")
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Step:
    """One record of the trace."""

    op: str
    file: int
    offset: int
    data: bytes


class Leftover(Enum):
    """What became of writes and names that no sync had covered."""

    NOTHING = "nothing of it"
    SOME = "some of it, torn at sectors"
    EVERYTHING = "all of it"  # the process died, the machine did not


@dataclass
class _File:
    """The contents of one file, whatever its names."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Step] = field(default_factory=list)

    def settle(self, count: int) -> None:
        for step in self.pending[:count]:
            _apply(self.durable, step)
        del self.pending[:count]


@dataclass
class Disk:
    """The state of the folder after the steps taken so far."""

    root: str
    names: dict[str, _File] = field(default_factory=dict)
    durable_names: dict[str, _File] = field(default_factory=dict)
    pending_names: list[tuple[str, str, _File | None]] = field(default_factory=list)  # folder, path, file or gone
    _open: dict[int, tuple[str, _File | None]] = field(default_factory=dict)
    _began: dict[int, tuple[int, int]] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        """The next step of the trace."""
        if step.op == "O":
            self._take_open(step)
        elif step.op in "WT":
            file = self._open[step.file][1]
            if file is not None:
                file.pending.append(step)
        elif step.op == "B":
            file = self._open[step.file][1]
            self._began[step.file] = (len(file.pending) if file else 0, len(self.pending_names))
        elif step.op == "E":
            self._take_sync(step)
        elif step.op == "R":
            old, new = step.data.decode().split("\0")
            file = self.names.pop(old)
            self.names[new] = file
            self._rename(old, None)
            self._rename(new, file)
        elif step.op == "U":
            self.names.pop(step.data.decode(), None)
            self._rename(step.data.decode(), None)

    def lay_out(self, target: Path, leftover: Leftover, chance: random.Random) -> None:
        """Write the files as they are found after a cut at this instant."""
        names = dict(self.durable_names)
        count = {Leftover.NOTHING: 0, Leftover.SOME: chance.randint(0, len(self.pending_names))}
        for _, path, file in self.pending_names[: count.get(leftover)]:
            if file is None:
                names.pop(path, None)
            else:
                names[path] = file
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        for path, file in names.items():
            contents = bytearray(file.durable)
            for step in _survivors(file.pending, leftover, chance):
                _apply(contents, step)
            place = target / os.path.relpath(path, self.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(contents)
            place.chmod(0o600)

    def _take_open(self, step: Step) -> None:
        path = step.data.decode()
        flags = step.offset
        file = self.names.get(path)
        if file is None and flags & os.O_CREAT:
            file = self.names[path] = _File()
            self._rename(path, file)
        if file is not None and flags & os.O_TRUNC:
            file.pending.append(Step("T", step.file, 0, b""))
        self._open[step.file] = (path, file)

    def _take_sync(self, step: Step) -> None:
        path, file = self._open[step.file]
        writes, renames = self._began.pop(step.file, (0, 0))
        if file is not None:
            file.settle(writes)
            return
        kept = []
        for at, entry in enumerate(self.pending_names):
            if at < renames and entry[0] == path:
                _, name, named = entry
                if named is None:
                    self.durable_names.pop(name, None)
                else:
                    self.durable_names[name] = named
            else:
                kept.append(entry)
        self.pending_names = kept

    def _rename(self, path: str, file: _File | None) -> None:
        self.pending_names.append((os.path.dirname(path), path, file))  # noqa: PTH120


def read_trace(path: Path) -> Iterator[Step]:
    """The steps of a trace; the last one may be cut off, as the process was."""
    contents = path.read_bytes()
    at = 0
    while at + _HEAD.size <= len(contents):
        op, file, offset, length = _HEAD.unpack_from(contents, at)
        at += _HEAD.size
        if at + length > len(contents):
            return
        yield Step(op.decode(), file, offset, contents[at : at + length])
        at += length


def build_tracer(folder: Path) -> Path:
    """The shared object to preload, compiled here; skips where there is no compiler or no Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.uname().sysname != "Linux":
        pytest.skip("no C compiler (cc) on this machine, or it is not Linux: disk writes cannot be traced")
    tracer = folder / "disk_trace.so"
    source = Path(__file__).with_name("disk_trace.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(tracer), str(source), "-ldl", "-lpthread"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"the tracer does not compile here: {made.stderr.strip()[:200]}")
    return tracer


def _survivors(pending: list[Step], leftover: Leftover, chance: random.Random) -> Iterator[Step]:
    if leftover is Leftover.EVERYTHING:
        yield from pending
    if leftover is not Leftover.SOME:
        return
    for step in pending:
        fate = chance.random()
        if fate < 0.4:
            yield step
        elif fate < 0.7 and step.op == "W":
            first = chance.randrange(0, len(step.data) + 1, _SECTOR)
            last = chance.randrange(0, len(step.data) + _SECTOR, _SECTOR)
            yield Step("W", step.file, step.offset + first, step.data[first : max(first, last)])


def _apply(contents: bytearray, step: Step) -> None:
    end = step.offset if step.op == "T" else step.offset + len(step.data)
    if len(contents) < end:
        contents.extend(bytes(end - len(contents)))
    if step.op == "T":
        del contents[step.offset :]
    else:
        contents[step.offset : end] = step.data
