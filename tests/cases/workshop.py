"""What the checks work with: a served hospital and scratch folders, each made when a check first asks for it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.simulator import plans
from tests.simulator.attacked import Credential, Wire, est, request
from tests.simulator.commands import ENVIRONMENT, PASSPHRASE, SOURCE, found_hospital, make_tokens, vagus
from tests.simulator.listeners import Response
from tests.simulator.orders import key_pem, new_key
from tests.simulator.processes import Served, serving
from tests.simulator.running import Outcome, done, run
from tests.simulator.upstreams import Seen, http_upstream
from vagus.identifiers import DeviceId

DEVICES = 400
"""How many devices the hospital has; each EST request takes one."""


@dataclass
class Hospital:
    """A hospital with one listener of each kind, served by a process of its own."""

    folder: Path
    scratch: Path
    served: Served
    upstream: Seen
    tokens: Iterator[tuple[str, str]]
    owners: dict[bytes, str] = field(default_factory=dict)

    def token(self, spki_der: bytes = b"") -> str:
        """The token of a device without a certificate; of the device that has this key, where one has it already."""
        if spki_der in self.owners:
            return str(json.loads(vagus(self.folder, "token", "make", self.owners[spki_der], "--json"))["token"])
        device, token = next(self.tokens)
        if spki_der:
            self.owners[spki_der] = device
        return token

    def connect(self, listener: str, who: Credential | None = None) -> Wire:
        """A connection to a listener, over TLS unless it is the status listener; the server is not verified."""
        raw = Wire(self.served.port(listener))
        if listener == "status":
            return raw
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if who is not None:
            path = self.scratch / "shown.pem"
            path.write_bytes(key_pem(who.key) + b"".join(each.public_bytes(Encoding.PEM) for each in who.chain))
            context.load_cert_chain(path)
        return Wire(context.wrap_socket(raw.socket, server_hostname=f"{listener}.test.example"))

    def post(self, body: bytes, *, token: str | None = None, headers: tuple[str, ...] = ()) -> Response:
        """One request to simpleenroll with a token of its own."""
        with self.connect("enrol") as wire:
            return wire.ask(est(body, token=token or self.token(), headers=headers))

    @cached_property
    def device(self) -> Credential:
        """An enrolled device, which the gateway admits."""
        key = new_key()
        issued = self.post(request(key)).certificate
        above = [vagus(self.folder, "ca", "export", name).encode() for name in ("h1/icu", "h1")]
        return Credential(key, [issued, *map(x509.load_pem_x509_certificate, above)])


@dataclass
class Workshop:
    """Ends everything that it made when its block ends."""

    folder: Path
    _ending: ExitStack = field(default_factory=ExitStack)
    _made: int = 0

    @classmethod
    @contextmanager
    def new(cls) -> Iterator[Workshop]:
        """A workshop in a temporary folder."""
        with TemporaryDirectory(prefix="vagus-cases-") as folder, ExitStack() as ending:
            patch = ending.enter_context(pytest.MonkeyPatch.context())
            for name, value in {
                "VAGUS_TEST_PASSPHRASE": PASSPHRASE,
                "VAGUS_PASSPHRASE_SOURCE": SOURCE,
                "NO_COLOR": "1",
            }.items():
                patch.setenv(name, value)
            yield cls(Path(folder), ending)

    def scratch(self) -> Path:
        """A new empty folder."""
        self._made += 1
        made = self.folder / f"scratch-{self._made}"
        made.mkdir()
        return made

    def vagus(self, *arguments: str, folder: Path | None = None) -> Outcome:
        """A command in this process, in the installation `folder` where it needs one."""
        return run(folder or self.folder / "no-installation", *arguments)

    @cached_property
    def clock_start(self) -> datetime:
        """Around when certificates that checks make are valid."""
        return datetime.now(UTC).replace(microsecond=0)

    @cached_property
    def maker(self) -> Maker:
        """The maker."""
        return Maker.new(self.scratch())

    @cached_property
    def hospital(self) -> Hospital:
        """The served hospital."""
        return self._ending.enter_context(self.serve(self.found(DEVICES)))

    def found(self, devices: int) -> Path:
        """A founded hospital with so many devices that is not served yet."""
        folder = self.scratch() / "installation"
        found_hospital(folder, _plan(9, devices))
        return folder

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Hospital]:
        """The hospital of this folder, served until the block ends."""
        listed = json.loads(vagus(folder, "device", "list", "--limit", str(DEVICES), "--json"))
        tokens = make_tokens(folder, [DeviceId(row["id"]) for row in listed])
        words = ("--issue-for", "h1/icu,h1/infra", "--passphrase-source", SOURCE)
        with http_upstream() as (port, upstream):
            plan = folder.parent / "plan.toml"
            plan.write_text(_plan(port, len(listed)), encoding="utf-8")
            vagus(folder, "plan", "apply", str(plan), "--yes", "--passphrase-source", SOURCE)
            with serving(folder, *words, around=ENVIRONMENT) as served:
                yield Hospital(folder, folder.parent, served, upstream, iter(tokens.items()))


@dataclass
class Maker:
    """A maker's installation with a line that takes requests, by commands in this process."""

    folder: Path
    serials: Iterator[str]

    @classmethod
    def new(cls, folder: Path) -> Maker:
        """Founded, its line certified."""
        batch = {"name": "first", "model": plans.PUMP, "first": 1, "count": DEVICES}
        plan = folder / "plan.toml"
        plan.write_text(plans.maker_plan(batches=[batch]), encoding="utf-8")
        done(folder / "maker", "init", "--kind", "maker", "--unsafe-fast-kdf")
        done(folder / "maker", "plan", "apply", str(plan), "--yes", "--ceremony")
        return cls(folder, (f"AIP3-{number:06}" for number in range(1, DEVICES + 1)))

    def sign(self, request: bytes) -> tuple[Outcome, bytes | None]:
        """`make-idevids` of one device with this request, and the certificate (PEM) where one was made."""
        serial = next(self.serials)
        requests, out = self.folder / f"requests-{serial}", self.folder / f"out-{serial}"
        requests.mkdir()
        (requests / f"{serial}.csr").write_bytes(request)
        words = ("--requests", str(requests), "--out", str(out), "--serial", serial, "--ignore-names")
        outcome = run(self.folder / "maker", "maker", "make-idevids", *words)
        certificate = out / serial / "certificate.pem"
        return outcome, certificate.read_bytes() if certificate.is_file() else None


def _plan(upstream: int, devices: int) -> str:
    control: dict[str, Any] = {"hospital": "h1", "units": ["icu"], "upstream": upstream, "function": "control"}
    return plans.hospital_plan(
        plans.hospital(plans.devices("icu", 1, devices)),
        listeners=[
            plans.STATUS,
            plans.listener("enrol", "enrolment", "enrol.test.example", hospital="h1"),
            plans.listener("control", "relay-http", "control.test.example", **control),
        ],
    )
