"""Documents name commands, options, files and pages that there are."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from vagus.cli.application import application

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_COMMAND = re.compile(r"(?:^|[;&(] *)(?:vagus|D)((?: +--dir +\S+)?(?: +\S+)*)")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_SOURCE = re.compile(
    r"`((?:vagus_agent|authority|endpoints|fleet|keystore|ledger|policy|records|server|tls|tlog|trust|wire|x509)/[\w/.*]+)`"
)


def spoken_commands(page: Path) -> list[list[str]]:
    """The words behind `vagus` in indented blocks, continued lines joined, without remarks."""
    block = "\n".join(line[4:] for line in page.read_text("utf-8").splitlines() if line.startswith("    "))
    found: list[list[str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        for said in _COMMAND.finditer(line.split(" #")[0].split(" | ")[0]):
            words = said[1].split()
            found.append(words[2:] if words[:1] == ["--dir"] else words)
    return found


def check_spoken(words: list[str]) -> None:
    """Walk down the groups, then hold each option to those that the command has."""
    command: Any = get_command(application)  # typer brings its own copy of click, whose types have no public name
    words = list(words)
    while (commands := getattr(command, "commands", None)) and words and not words[0].startswith("-"):
        command = commands[words.pop(0)]
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "--version"}
    for word in words:
        if word.startswith("--"):
            assert word in options, f"vagus {command.name} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_speaks_of_commands_that_there_are(page: Path) -> None:
    for words in spoken_commands(page):
        check_spoken(words)


def test_the_long_walk_is_read_at_all() -> None:
    commands = {words[0] for words in spoken_commands(ROOT / "docs" / "hospital.md") if words}
    assert {"init", "plan", "ceremony", "token", "serve", "device", "validate", "audit", "backup"} <= commands


@pytest.mark.process
def test_the_echo_server_of_the_long_walk_says_nothing_when_a_peer_breaks_off() -> None:
    (script,) = re.findall(r"python -c '([^']+)'", (ROOT / "docs" / "hospital.md").read_text("utf-8"))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    script = script.replace("\n    ", "\n").replace("9444", str(port))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            for _ in range(2):
                with closing(_reach(port)) as peer:
                    peer.sendall(b"a line\nhalf a")
                    assert peer.recv(100) == b"a line\n"
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no FIN
            with closing(_reach(port)) as peer:
                peer.sendall(b"the next\n")
                assert peer.recv(100) == b"the next\n"
        finally:
            server.terminate()
        assert server.stdout is not None
        assert server.stdout.read() == b""


def _reach(port: int) -> socket.socket:
    until = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} leads to {target}"


def test_the_standards_page_names_files_that_there_are() -> None:
    for named in _SOURCE.findall((ROOT / "docs" / "implemented-standards.md").read_text("utf-8")):
        base = ROOT / "src" if named.startswith("vagus_agent/") else ROOT / "src" / "vagus"
        assert list(base.glob(named)), named
