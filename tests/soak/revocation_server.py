"""A server of the simulated day as a process of its own, which SIGKILL ends where it stands; the clock is its parent's.

`python -m tests.soak.revocation_server FD FOLDER URL NAME SEED` obeys what comes through the inherited pipe FD, one
order after the other, each with the moment at which it happens. It has the parts that `vagus serve` has: writer,
follower, lists, files, OCSP, prober.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.simulator.installation import STATUS_URL, Installation
from tests.simulator.publishing import open_publishing, question_der
from vagus.authority.issuance import IssuanceToken
from vagus.jobs.periodic import attempt_each
from vagus.records.authorities import slug_of
from vagus.records.engine.database import open_database
from vagus.records.engine.writer import Batch
from vagus.records.revocation import revocations as revocation_rows
from vagus.testing import FrozenClock, SeededEntropy
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason

UNIT = "h1/icu"
PATIENCE = 120.0
_REASONS = (RevocationReason.KEY_COMPROMISE, RevocationReason.SUPERSEDED, RevocationReason.UNSPECIFIED)


class Killed(Exception):
    """The process is dead and has not answered."""


class Server:
    """What the process does. Each public method is an order that its parent may give."""

    def __init__(self, folder: Path, url: str, name: str, seed: int, at: datetime) -> None:
        self._kill_at: str | None = None
        self._draw = random.Random(seed)
        clock, entropy = FrozenClock(at), SeededEntropy(seed)
        built = Installation(folder, open_database(url), clock, entropy, kill_points=self._pass)
        self._built, self._clock, self._writer = built, clock, built.writer
        issuers = built.issuers(UNIT)
        self._issuer = issuers[UNIT]
        self._issuer_certificate = decode_certificate(self._issuer.certificate_der)
        self._issuance = built.issuance()
        self._issuance.settle(issuers)
        self._revocations = built.revocations
        self._publisher = built.publisher_of(f"{name}-{seed}")
        self._write_files()
        self._published = open_publishing(built)
        self._prober = self._published.prober(notes=False)

    def _pass(self, point: str) -> None:
        if point == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def set_clock(self, at: datetime) -> None:
        """What time it is for the order that follows."""
        self._clock.set(at)

    def issuer(self) -> bytes:
        """The authority's certificate."""
        return self._issuer.certificate_der

    def turn(self, kill_at: str | None = None) -> None:
        """What a serving process does by itself in a moment: follow, publish. Dies at `kill_at` if it comes by."""
        self._kill_at = kill_at
        self._published.responses.follower.catch_up()
        self._publisher.publish_due(self._issuer)
        self._write_files()
        self._kill_at = None

    def _write_files(self) -> None:
        files = self._publisher.files
        assert files is not None
        attempt_each("files", files.find_outdated(), files.write)

    def issue(self, count: int) -> list[tuple[int, bytes]]:
        """So many new certificates, with their serial numbers."""
        orders = [self._built.order(request_id=f"soak-{self._draw.getrandbits(64):x}") for _ in range(count)]
        committing = [self._issuance.commit(self._issuance.prepare(one, self._issuer)) for one in orders]
        made = []
        for one in committing:
            token = one.result()
            assert isinstance(token, IssuanceToken)
            issued = self._issuance.issue(token)
            made.append((issued.serial, issued.der))
        self._writer.submit(lambda _: None).result()
        return made

    def act(self, act: str, serial: int, kill_at: str | None) -> None:
        """Revoke, hold or release; says nothing before it is on the disk."""
        self._kill_at = kill_at
        name, by = (self._issuer.authority_id, serial), "operator:soak"
        if act == "revoke":
            future = self._revocations.revoke(*name, self._draw.choice(_REASONS), by=by)
        else:
            future = (self._revocations.hold if act == "hold" else self._revocations.release)(*name, by=by)
        future.result(PATIENCE)

    def follow(self) -> None:
        """Hear of what others did."""
        self._published.responses.follower.catch_up()

    def state(self, serial: int) -> str:
        """What the database says of a certificate, read where what a dead process still had under way is over."""

        def look(batch: Batch) -> str:
            row = revocation_rows.find_revoked_serial(batch.connection, self._issuer.authority_id, serial)
            return "good" if row is None else "held" if row.reason == RevocationReason.CERTIFICATE_HOLD else "revoked"

        return self._writer.submit(look).result(PATIENCE)

    def look(self, known: Mapping[str, bytes], serials: Sequence[int]) -> tuple[dict[str, bytes], list[bytes]]:
        """The lists of these names whose SHA-256 is not the known one, and an OCSP answer for each serial number."""
        lists = {name: self._published.fetch(f"{STATUS_URL}/crl/{slug_of(UNIT)}/1/{name}.crl") for name in known}
        questions = [question_der(self._issuer_certificate, serial) for serial in serials]
        answers = [self._published.responses.respond(one, self._clock.now()).response_der for one in questions]
        return {name: der for name, der in lists.items() if hashlib.sha256(der).digest() != known[name]}, answers

    def probe(self) -> list[str]:
        """What the prober has against all that is published."""
        return [str(defect) for defect in self._prober.probe().defects]


class ServerProcess:
    """Its parent's end of the pipe. Orders are given one at a time; each is answered, or the process is dead."""

    def __init__(self, folder: Path, url: str, name: str, seed: int, at: datetime) -> None:
        self._pipe, theirs = Pipe()
        handle = theirs.fileno()
        arguments = (str(handle), str(folder), url, name, str(seed))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.revocation_server", *arguments], pass_fds=[handle]
        )
        theirs.close()
        self._pipe.send(at)

    def wait_ready(self) -> None:
        """Until it stands. Raises Killed."""
        assert self.answer() == "ready"

    def tell(self, at: datetime, order: str, *arguments: object) -> None:
        """Give an order and wait for nothing."""
        with suppress(OSError):  # dead already: `answer` says so
            self._pipe.send((at, order, arguments))

    def answer(self) -> Any:
        """What comes of the last order. Raises Killed, and AssertionError with what failed in the process."""
        try:
            assert self._pipe.poll(PATIENCE), "the server does not answer"
            is_well, answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise Killed from None
        assert is_well, answer
        return answer

    def ask(self, at: datetime, order: str, *arguments: object) -> Any:
        """Give an order and wait for what comes of it. Raises as `answer`."""
        self.tell(at, order, *arguments)
        return self.answer()

    def kill_within(self, seconds: float) -> None:
        """As a power switch would, at an instant that nobody chose."""
        time.sleep(seconds)
        self._process.kill()
        self._process.wait(PATIENCE)

    def has_answered(self) -> bool:
        """Whether a dead process had answered its last order."""
        try:
            self.answer()
        except Killed:
            return False
        return True

    def close(self) -> None:
        """Nothing is tidied up that a dead process could not tidy up."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._pipe.close()


def main() -> None:
    """Obey until killed, or until the parent is gone."""
    handle, folder, url, name, seed = sys.argv[1:]
    pipe = Connection(int(handle))
    with suppress(EOFError):
        server = Server(Path(folder), url, name, int(seed), pipe.recv())
        pipe.send((True, "ready"))
        while True:
            at, order, arguments = pipe.recv()
            server.set_clock(at)
            try:
                answer = True, getattr(server, order)(*arguments)
            except Exception as fault:  # noqa: BLE001  its parent judges
                answer = False, f"{order}: {fault!r}"
            pipe.send(answer)
    os._exit(0)


if __name__ == "__main__":
    main()
