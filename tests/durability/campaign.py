"""Kills a server again and again while devices enrol and are revoked, then asks the oracle."""

from __future__ import annotations

import math
import queue
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from tests.durability.journal import Journal
from tests.durability.oracle import Oracle
from tests.simulator.clients import Clients, pinning
from tests.simulator.commands import (
    infrastructure_anchor,
    make_installation,
    make_tokens,
    server_that_dies,
    vagus,
)
from tests.simulator.processes import Served
from vagus.settings import load_settings

BETWEEN = ("after-commit", "intent-committed", "signed")
"""The windows between an intent's commit and its answer."""
POINTS = (*BETWEEN, "before-commit", "random")
_PER_LIFE = 40  # wishes for each life: more than any point needs, the eighth batch of four clients included


@dataclass
class Campaign:
    """One run: `kills` kills of one server, at points drawn from `seed`."""

    folder: Path
    kills: int
    seed: int
    database: str | None = None
    windows: Counter[str] = field(default_factory=Counter)
    left_open: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float = math.inf) -> None:
        """Kill, restart, repeat; then check everything that the server ever responded with.

        Ends after `seconds` with fewer than `kills`, but not with fewer than ten.
        """
        draw, ends_at = random.Random(self.seed), time.monotonic() + seconds
        kills = int(min(self.kills, max(10, seconds)))  # a life takes more than a second
        devices = make_installation(self.folder, devices=(kills + 1) * _PER_LIFE, database=self.database)
        tokens = make_tokens(self.folder, devices)
        journal = Journal(self.folder / "journal")
        oracle = Oracle(load_settings(self.folder).database_url, journal)
        clients = Clients(tokens, journal, pinning(infrastructure_anchor(self.folder)))
        clients.start()
        for kill in range(kills):
            if kill >= 10 and time.monotonic() > ends_at:
                break
            # at least every second kill falls between commit and answer
            point = draw.choice(BETWEEN) if kill % 2 == 0 else draw.choice(POINTS)
            self._one_life(clients, journal, point, draw)
            clients.address = None
            self.windows[point] += 1
            self.left_open[point] += oracle.open_intents() > 0
        self._last_life(clients, oracle)
        clients.stop()
        journal.close()
        print(f"kills by window {dict(self.windows)}, intents left open by {dict(self.left_open)}")  # noqa: T201
        assert not clients.failures, clients.failures[:3]
        assert oracle.open_intents() == 0, "an intent was left open by a server that served"
        assert oracle.check_tables() == clients.fed
        vagus(self.folder, "audit", "verify", "--against", str(self.folder / "log" / "checkpoint"))

    def _one_life(self, clients: Clients, journal: Journal, point: str, draw: random.Random) -> None:
        with server_that_dies(self.folder, "none" if point == "random" else point, draw.randint(1, 8)) as server:
            clients.feed(_PER_LIFE)
            clients.address = server.addresses["enrol-h1"]
            deadline = time.monotonic() + (draw.uniform(0.02, 0.4) if point == "random" else 20)
            while time.monotonic() < deadline:
                if server.process.poll() is not None:
                    break
                self._revoke_one(clients, journal, server)
            is_killed = server.process.poll() is not None
            server.kill()
        assert is_killed or point == "random", f"{point} was never passed"

    @staticmethod
    def _revoke_one(clients: Clients, journal: Journal, server: Served) -> None:
        """Every fourth certificate that arrives is revoked at once."""
        try:
            der = clients.received.get(timeout=0.02)
        except queue.Empty:
            return
        certificate = x509.load_der_x509_certificate(der)
        if certificate.serial_number % 4:
            return
        common_name = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
        device = common_name if isinstance(common_name, str) else common_name.decode()
        journal.note("revoking", device=device)
        if _is_revoked(server, device):
            journal.note("revoked", device=device)

    def _last_life(self, clients: Clients, oracle: Oracle) -> None:
        with server_that_dies(self.folder) as server:
            clients.address = server.addresses["enrol-h1"]
            deadline = time.monotonic() + 600
            while not clients.is_idle and time.monotonic() < deadline:
                time.sleep(0.1)
            clients.stop()
            issuer = x509.load_pem_x509_certificate(vagus(self.folder, "ca", "export", "h1/icu").encode())
            oracle.check_published(server, issuer, range(0, 400, 4))
            assert server.stop() == 0


def _is_revoked(server: Served, device: str) -> bool:
    """Revoke a device's certificates; False when the server died before it said so."""
    assert server.process.stdin is not None
    assert server.process.stdout is not None
    try:
        server.process.stdin.write(f"revoke {device}\n")
        server.process.stdin.flush()
        return server.process.stdout.readline() == f"revoked {device}\n"
    except OSError:
        return False
