"""The process whose power is cut: it issues, revokes and publishes, and notes in a journal each answer it got.

Run as `python -m tests.soak.power_cut_workload FOLDER ACTS SEED [weak]`; `weak` turns the syncs of commits off, so that
the test can show that it would notice.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

from sqlalchemy import event

from tests.simulator.log import LogFixture, create_authority
from vagus.identifiers import draw_serial
from vagus.testing import SeededEntropy

CLIENTS = 8
JOURNAL = "journal"
DATABASE = "vagus.sqlite3"


def work(folder: Path, acts: int, seed: int, *, is_weak: bool) -> None:
    """Make an installation in `folder` and let clients work on it until `acts` answers came."""
    log = LogFixture.make(folder, f"sqlite:///{folder / DATABASE}", is_created=not is_weak)
    if is_weak:

        @event.listens_for(log.database._writers, "connect")
        def weaken(connection: object, _: object) -> None:
            connection.execute("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]

        log.begin()
    log.writer.submit(create_authority).result(30)
    # the write-ahead log is folded into the database often, so that cuts fall into that too
    log.writer.submit(lambda batch: batch.connection.exec_driver_sql("PRAGMA wal_autocheckpoint = 40")).result(10)
    journal = os.open(folder / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    ended = threading.Event()

    def client(number: int) -> None:
        chance, entropy = random.Random(seed + number), SeededEntropy(seed * 1000 + number)
        mine: list[int] = []
        for _ in range(acts // CLIENTS):
            if mine and chance.random() < 0.2:
                serial = mine.pop()
                sequence = log.change(serial)
                os.write(journal, f"revoked {sequence} {serial:x}\n".encode())
            else:
                serial = draw_serial(entropy)
                index = log.writer.submit(log.issuance(serial)).result(30)
                os.write(journal, f"issued {index} {serial:x}\n".encode())
                mine.append(serial)

    def publish() -> None:
        publisher = log.publisher()
        while not ended.wait(0.03):
            published = publisher.publish()
            os.write(journal, f"published {published.size} {published.root.hex()}\n".encode())

    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    publishing = threading.Thread(target=publish)
    for thread in (*clients, publishing):
        thread.start()
    for thread in clients:
        thread.join()
    ended.set()
    publishing.join()
    log.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), is_weak="weak" in sys.argv[4:])
