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
_LANGUAGE = ("--locale=C", "--locale-provider=icu", "--icu-locale=en-US")
"""Most databases order text as people do, so that A5 lies between a0 and a9."""


@contextmanager
def postgres_server() -> Iterator[str]:
    """The url of a server on which databases may be made; skips with the reason when there is none."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    named = os.environ.get("VAGUS_TEST_POSTGRES")
    if named:
        yield named
        return
    server, initdb = _binary("postgres"), _binary("initdb")
    if server is None or initdb is None:
        pytest.skip("no PostgreSQL: set VAGUS_TEST_POSTGRES or install its server")
    with tempfile.TemporaryDirectory(prefix="vagus-postgres-") as scratch:
        folder = Path(scratch)
        prefix = _lower_rights(folder)
        data = folder / "data"
        made = subprocess.run(
            [*prefix, initdb, "-D", data, "-U", "vagus", "-A", "trust", "-E", "UTF8", *_LANGUAGE, "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
        if made.returncode:
            pytest.skip(f"initdb failed: {made.stderr.strip().splitlines()[-1]}")
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "max_connections=100"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*prefix, server, "-D", data, *settings], stdout=log, stderr=log, cwd=folder)
        try:
            url = f"postgresql+psycopg://vagus@/postgres?host={folder}"
            _wait(url, process, folder / "log")
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)  # nothing in it is worth an orderly end
            process.wait(timeout=20)


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
