"""What the one writer and its log cost: acts a second, beside bare SQLite and the disk's own sync; no signing."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.rows import Row
from vagus.ledger.append import append
from vagus.ledger.entries import TokenSpent
from vagus.ledger.verify import verify_log
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.tables import verifier_memory
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import InstallationRow, insert_installation
from vagus.testing import FrozenClock

ACTS = 20_000
CLIENTS = 64


def rows() -> list[Row]:
    """Bulk, waiting clients, and verification of what they wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        database = open_database(f"sqlite:///{folder / 'vagus.sqlite3'}")
        database.create()
        with database.writing() as connection:
            insert_installation(connection, InstallationRow("bench.example/log", 0, bytes(32)))
        bare, syncs = _bare_sqlite(folder), _syncs(folder)
        with Writer(database, FrozenClock()) as writer:
            bulk = _measure(lambda: _bulk(writer))
            clients = _measure(lambda: _clients(writer))
        verified = _measure(lambda: _verify(database))
        database.close()
    fsync = f"{syncs:,.0f} fsync/s"
    return [
        Row(path="writer: bulk acts, CPU", figure=bulk[0], unit="acts/s", limit_name="bare SQLite rows/s", limit=bare,
            bar=4_000, note="row + entry, savepoint, durable"),
        Row(path=f"writer: {CLIENTS} waiting clients, CPU", figure=clients[0], unit="acts/s",
            limit_name="bare SQLite rows/s", limit=bare, bar=4_000, note="one act at a time each"),
        Row(path=f"writer: {CLIENTS} waiting clients, wall", figure=clients[1], unit="acts/s",
            limit_name="fsync/s", limit=syncs, note=fsync),
        Row(path="audit verify, CPU", figure=verified[0], unit="leaves/s", limit_name="bare SQLite rows/s", limit=bare),
    ]  # fmt: skip


def _act(number: int) -> Callable[[Batch], int]:
    def act(batch: Batch) -> int:
        values = {"name": str(number), "number": number, "octets": bytes(20), "at": batch.at}
        batch.connection.execute(verifier_memory.insert(), values)
        return append(batch, TokenSpent(number.to_bytes(32, "big"), "device:a", bytes(32)))

    return act


def _bulk(writer: Writer) -> int:
    for future in [writer.submit(_act(number)) for number in range(ACTS)]:
        future.result()
    return ACTS


def _clients(writer: Writer) -> int:
    def client(first: int) -> None:
        for number in range(first, first + ACTS // CLIENTS):
            writer.submit(_act(number)).result()

    threads = [threading.Thread(target=client, args=((turn + 1) * 10**6,)) for turn in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ACTS // CLIENTS * CLIENTS


def _verify(database: Database) -> int:
    return verify_log(database, public_key=bytes(32)).size


def _measure(act: Callable[[], int]) -> tuple[float, float]:
    """A CPU second's worth and a second's worth of what `act` counts."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = act()
    return count / (time.process_time() - cpu), count / (time.perf_counter() - wall)


def _bare_sqlite(folder: Path) -> float:
    """Rows of the same width into two tables by the driver alone, 200 in a transaction: what no writer can beat."""
    connection = sqlite3.connect(folder / "bare", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE one (name TEXT PRIMARY KEY, number INTEGER, content BLOB, at INTEGER)")
    connection.execute("CREATE TABLE two (leaf_index INTEGER PRIMARY KEY, entry BLOB, leaf_hash BLOB)")

    def write() -> int:
        for start in range(0, ACTS, 200):
            connection.execute("BEGIN IMMEDIATE")
            for number in range(start, start + 200):
                connection.execute("INSERT INTO one VALUES (?, ?, ?, ?)", (str(number), number, bytes(20), 0))
                connection.execute("INSERT INTO two VALUES (?, ?, ?)", (number, bytes(300), bytes(32)))
            connection.execute("COMMIT")
        return ACTS

    rate = _measure(write)[0]
    connection.close()
    return rate


def _syncs(folder: Path) -> float:
    descriptor = os.open(folder / "sync", os.O_RDWR | os.O_CREAT)

    def sync() -> int:
        for number in range(100):
            os.pwrite(descriptor, bytes(4096), number * 4096)
            os.fdatasync(descriptor)
        return 100

    rate = _measure(sync)[1]
    os.close(descriptor)
    return rate
