"""A throwaway PostgreSQL for tests: the one that VAGUS_TEST_POSTGRES names, else a cluster of our own; else a skip."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

_USERS = ("postgres", "nobody")  # the server refuses to run as root
KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)]
"""The parameters of tests that run on both."""
_LANGUAGE = ("--locale=C", "--locale-provider=icu", "--icu-locale=en-US")
"""Most databases order text as people do, so that A5 lies between a0 and a9."""


class Cluster:
    """A server of our own in `folder` that may be ended and begun again; skips where there is no PostgreSQL."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
        server, initdb = _binary("postgres"), _binary("initdb")
        if server is None or initdb is None:
            pytest.skip("no PostgreSQL: set VAGUS_TEST_POSTGRES or install its server")
        self._folder, self._prefix, self.data = folder, _lower_rights(folder), folder / "data"
        self.url = f"postgresql+psycopg://vagus@/postgres?host={folder}"
        self.run_command(initdb, "-D", self.data, "-U", "vagus", "-A", "trust", "-E", "UTF8", *_LANGUAGE, "--no-sync")
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "max_connections=100"]
        self._command: list[str | Path] = [*self._prefix, server, "-D", self.data, *settings]
        self._process: subprocess.Popen[bytes] | None = None

    def run_command(self, *command: str | Path) -> None:
        """Run a command as the server's user; skips with its last line when it fails."""
        made = subprocess.run([*self._prefix, *command], capture_output=True, text=True, check=False, cwd=self._folder)
        if made.returncode:
            pytest.skip(f"{command[0]} failed: {made.stderr.strip().splitlines()[-1]}")

    def start(self) -> None:
        """Begin, and wait until it accepts connections."""
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._folder)
        _wait(self.url, self._process, self._folder / "log")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: as by a crash; SIGINT: in order, connections cut."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def run(self, statement: str) -> None:
        """Execute a statement in the database "postgres"."""
        import psycopg

        with psycopg.connect(_plain(self.url), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def own_cluster() -> Iterator[Cluster]:
    """A fresh one that serves."""
    with tempfile.TemporaryDirectory(prefix="vagus-postgres-") as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()  # nothing in it is worth an orderly end


@contextmanager
def postgres_server() -> Iterator[str]:
    """The url of a server on which databases may be made; skips with the reason when there is none."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    named = os.environ.get("VAGUS_TEST_POSTGRES")
    if named:
        yield named
    else:
        with own_cluster() as cluster:
            yield cluster.url


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """The url of an empty database of its own, dropped at the end."""
    psycopg = pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    name = f"vagus_{uuid4().hex[:12]}"
    before, _, query = server.partition("?")
    base = before.rsplit("/", 1)[0]
    with psycopg.connect(_plain(server), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield f"{base}/{name}" + (f"?{query}" if query else "")
    finally:
        with psycopg.connect(_plain(server), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@contextmanager
def database_of_kind(kind: str, folder: Path) -> Iterator[str]:
    """The url of an empty database of a test's own, of the kind "sqlite" (in `folder`) or "postgresql"."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'shared.sqlite3'}"
    else:
        with postgres_server() as server, fresh_database(server) as url:
            yield url


def _binary(name: str) -> str | None:
    found = shutil.which(name)
    if found:
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else None


def _lower_rights(folder: Path) -> list[str]:
    """What to put before a command so that it does not run as root; hands `folder` to that user."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    for name in _USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if setpriv is None:
            break
        os.chown(folder, user.pw_uid, user.pw_gid)
        folder.chmod(0o755)
        return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    pytest.skip("PostgreSQL does not run as root, and there is no setpriv or no other user to run it")


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            psycopg.connect(_plain(url)).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    pytest.skip(f"PostgreSQL did not start: {log.read_text(errors='replace')[-300:]}")
