"""A server of the simulated day as a process of its own, which SIGKILL ends where it stands; the clock is its parent's.

`python -m tests.soak.revocation_server FD FOLDER URL NAME SEED` obeys what comes through the inherited pipe FD, one
order after the other, each with the moment at which it happens. It has the parts that `vagus serve` has: writer,
follower, lists, files, OCSP, prober.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.simulator.installation import H1, ICU, ROOT, SECRET, STATUS_URL, new_installation
from tests.simulator.orders import order_for
from tests.simulator.publishing import question_der
from vagus.authority.crls.published import PublishedCrls
from vagus.authority.crls.publisher import CrlPublisher
from vagus.authority.issuance import Issuance, IssuanceOrder, IssuanceToken
from vagus.authority.issuers import open_issuers
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal, open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.authority.revocation import Revocations
from vagus.errors import Unavailable
from vagus.events.revocations import RevocationFollower
from vagus.identifiers import DeviceId
from vagus.jobs.periodic import attempt_each
from vagus.keystore.software import SoftwareKeystore
from vagus.monitoring.prober import Prober
from vagus.policy.packs import load_pack
from vagus.reasons import Reason
from vagus.records.authorities import slug_of
from vagus.records.engine.database import open_database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.publications import COMPLETE
from vagus.records.revocation import revocations as revocation_rows
from vagus.testing import FrozenClock, SeededEntropy
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.names.distinguished import SubjectFields

UNIT = "h1/icu"
PATIENCE = 120.0
_REASONS = (RevocationReason.KEY_COMPROMISE, RevocationReason.SUPERSEDED, RevocationReason.UNSPECIFIED)


class Killed(Exception):
    """The process is dead and has not answered."""


class Server:
    """What the process does. Each public method is an order that its parent may give."""

    def __init__(self, folder: Path, url: str, name: str, seed: int, at: datetime) -> None:
        self._kill_at: str | None = None
        self._clock = FrozenClock(at)
        self._draw = random.Random(seed)
        self._database = open_database(url)
        self._writer = Writer(self._database, self._clock, kill_points=self._pass)
        pack = load_pack()
        entropy = SeededEntropy(seed)
        with self._database.reading() as connection:
            issuers = open_issuers(
                connection,
                lambda of: _keystore(folder, of),
                [UNIT],
                status_url=STATUS_URL,
                at=int(at.timestamp()),
            )
            responders = open_responders(connection, _keystore(folder, OCSP_KEYSTORE))
        self._issuer = issuers[UNIT]
        self._issuer_certificate = decode_certificate(self._issuer.certificate_der)
        self._issuance = Issuance(pack, self._writer, self._clock, entropy)
        self._issuance.settle(issuers)
        self._revocations = Revocations(self._writer)
        self._publisher = CrlPublisher(
            pack,
            self._database,
            self._writer,
            self._clock,
            folder=folder / "published",
            holder=f"{name}-{seed}",
        )
        self._write_files()
        self._follower = RevocationFollower(self._database, self._clock)
        self._follower.follow(self._writer)
        self._desk = OcspResponses(self._database, self._follower, pack.ocsp, responders)
        self._lists = PublishedCrls(self._database, self._clock)
        self._prober = Prober(
            pack,
            self._database,
            self._clock,
            entropy,
            self.fetch,
            status_url=STATUS_URL,
            writer=None,
            through_caches=False,
        )

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
        self._follower.catch_up()
        self._publisher.publish_due(self._issuer)
        self._write_files()
        self._kill_at = None

    def _write_files(self) -> None:
        files = self._publisher.files
        assert files is not None
        attempt_each("files", files.find_outdated(), files.write)

    def issue(self, count: int) -> list[tuple[int, bytes]]:
        """So many new certificates, with their serial numbers."""
        orders = [_order(self._draw) for _ in range(count)]
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
        self._follower.catch_up()

    def state(self, serial: int) -> str:
        """What the database says of a certificate, read where what a dead process still had under way is over."""

        def look(batch: Batch) -> str:
            row = revocation_rows.find_revoked_serial(batch.connection, self._issuer.authority_id, serial)
            return "good" if row is None else "held" if row.reason == RevocationReason.CERTIFICATE_HOLD else "revoked"

        return self._writer.submit(look).result(PATIENCE)

    def look(self, known: Mapping[str, bytes], serials: Sequence[int]) -> tuple[dict[str, bytes], list[bytes]]:
        """The lists of these names whose SHA-256 is not the known one, and an OCSP answer for each serial number."""
        lists = {name: self.fetch(f"{STATUS_URL}/crl/{slug_of(UNIT)}/1/{name}.crl") for name in known}
        now = self._clock.now()
        answers = [
            self._desk.respond(question_der(self._issuer_certificate, serial), now).response_der for serial in serials
        ]
        return {name: der for name, der in lists.items() if hashlib.sha256(der).digest() != known[name]}, answers

    def fetch(self, url: str, body: bytes | None = None) -> bytes:
        """What this server hands out."""
        _, _, asked = url.partition("/ocsp/")
        if asked:
            body = base64.b64decode(unquote(asked), validate=True)
        if body is not None:
            return self._desk.respond(body, self._clock.now()).response_der
        if url.startswith(f"{STATUS_URL}/ca/"):
            slug, _, name = url.removeprefix(f"{STATUS_URL}/ca/").partition("/")
            return self._lists.find_certificate(slug.replace(".", "/"), int(name.removesuffix(".cer"))) or b""
        slug, generation, name = url.removeprefix(f"{STATUS_URL}/crl/").split("/")
        stem, is_delta = name.removesuffix(".crl").removesuffix(".delta"), ".delta." in name
        shard = COMPLETE if stem == "complete" else int(stem)
        found = self._lists.find_crl(slug.replace(".", "/"), int(generation), shard, is_delta=is_delta)
        if found is None:
            raise Unavailable(Reason.STATUS_UNAVAILABLE, f"{url}: it answers with HTTP status 404", status=404)
        return found.crl_der

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


def found_house(folder: Path, url: str) -> None:
    """Root, hospital and unit certified, the responder made, the first lists out."""
    with new_installation(folder, url) as built:
        built.build(ROOT, H1, ICU)
        issuer = built.issuers(UNIT)[UNIT]
        keystore = built.keystore(OCSP_KEYSTORE)
        ResponderRenewal(built.database, built.writer, built.clock, built.issuance(), keystore).renew_due(issuer)
        built.publisher.publish_due(issuer)


def _order(draw: random.Random) -> IssuanceOrder:
    """An order for a bedside device."""
    device = DeviceId.draw(draw.randbytes)
    return order_for(
        device,
        f"soak-{draw.getrandbits(64):x}",
        subject=SubjectFields("Hospital 1", "ICU", str(device)),
        dns_names=(f"{device}.icu.h1.group.example",),
    )


def _keystore(folder: Path, name: str) -> SoftwareKeystore:
    return SoftwareKeystore.open(folder / "keystores" / slug_of(name), SECRET)


def _obey(pipe: Connection, server: Server, orders: Iterable[tuple[datetime, str, tuple[Any, ...]]]) -> None:
    for at, order, arguments in orders:
        server.set_clock(at)
        try:
            answer = True, getattr(server, order)(*arguments)
        except Exception as fault:  # noqa: BLE001  its parent judges
            answer = False, f"{order}: {fault!r}"
        pipe.send(answer)


def main() -> None:
    """Obey until killed, or until the parent is gone."""
    handle, folder, url, name, seed = sys.argv[1:]
    pipe = Connection(int(handle))
    with suppress(EOFError):
        server = Server(Path(folder), url, name, int(seed), pipe.recv())
        pipe.send((True, "ready"))
        _obey(pipe, server, iter(pipe.recv, None))
    os._exit(0)


if __name__ == "__main__":
    main()
