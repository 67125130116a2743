"""A hospital whose signing side and status nodes are processes of their own on one database; nodes have no CA key."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from tests.simulator.orders import order_for
from tests.simulator.processes import Served, serving
from tests.simulator.running import PLAN, done
from tests.simulator.status_listeners import question as question_by
from vagus.authority.issuance import IssuanceOrder, IssuanceToken, IssuedCertificate
from vagus.identifiers import DeviceId
from vagus.wiring import Installation

PATIENCE = 60.0
SOURCE = "env:TEST_PASSPHRASE"
_PASSPHRASE = "correct horse battery"
TRY_LATER = bytes.fromhex("30030a0103")


question = partial(question_by, algorithm=hashes.SHA256())


@dataclass
class Hospital:
    """The installation, opened in the test's own process too, which stands in for an operator's shell."""

    folder: Path
    installation: Installation
    certificates: list[IssuedCertificate] = field(default_factory=list)

    def prepare_order(self, request_id: str) -> IssuanceOrder:
        return order_for(DeviceId.draw(self.installation.entropy), request_id)

    def issue(self, count: int) -> None:
        issuer = self.installation.open_issuers(["h1/icu"])["h1/icu"]
        for number in range(count):
            issued = self.installation.issuance.issue_now(self.prepare_order(f"test-{number}"), issuer)
            self.certificates.append(issued)
        self.installation.writer.submit(lambda _: None).result()

    def intend(self) -> bytes:
        """An intent that stays unsigned; gives the OCSP request for it."""
        issuer = self.installation.open_issuers(["h1/icu"])["h1/icu"]
        prepared = self.installation.issuance.prepare(self.prepare_order("unsigned"), issuer)
        assert isinstance(self.installation.issuance.commit(prepared).result(), IssuanceToken)
        return question(self.certificates[0], serial=prepared.serial)

    @contextmanager
    def signing(self) -> Iterator[Served]:
        """The side with the keys of h1/icu."""
        with serve(self.folder, "--issue-for", "h1/icu", "--passphrase-source", SOURCE) as node:
            yield node

    @contextmanager
    def status_node(self, name: str, settings: str = "") -> Iterator[Served]:
        """A node with a folder of its own, in which there is the responders' keystore and no other."""
        folder = self.folder.parent / name
        folder.mkdir(mode=0o700)
        text = (self.folder / "vagus.toml").read_text()
        if (file := self.installation.settings.database_file) is not None:
            text = text.replace('"sqlite:///vagus.sqlite3"', f'"sqlite:///{file}"')
        (folder / "vagus.toml").write_text(f"{text}{settings}")
        (folder / "keystores").mkdir(mode=0o700)
        (folder / "keystores" / "ocsp").symlink_to(self.folder / "keystores" / "ocsp")
        for name_of_file in ("plan.toml", "log.vkey"):
            shutil.copy(self.folder / name_of_file, folder)
        source = f"ocsp={SOURCE}"
        with serve(folder, "--role", "status", "--passphrase-source", source) as node:
            yield node


def serve(folder: Path, *arguments: str) -> AbstractContextManager[Served]:
    """`vagus serve`, which knows no source of a passphrase but those among its arguments."""
    around = {name: value for name, value in os.environ.items() if name != "VAGUS_PASSPHRASE_SOURCE"}
    return serving(folder, *arguments, around=around | {"TEST_PASSPHRASE": _PASSPHRASE})


@contextmanager
def hospital(folder: Path, database: str | None = None) -> Iterator[Hospital]:
    """Plan applied, ceremony held, three certificates out; nothing serves yet."""
    place = folder / "signing"
    (folder / "plan.toml").write_text(PLAN.partition('[[listeners]]\nname = "enrol"')[0])
    passphrase = ("--passphrase-source", SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_PASSPHRASE", _PASSPHRASE)
        more = ("--database", database) if database else ()
        done(place, "init", "--unsafe-fast-kdf", "--origin", "log.test", *passphrase, *more)
        done(place, "plan", "apply", str(folder / "plan.toml"), "--yes", "--ceremony", *passphrase)
        with Installation.open(place, passphrase_sources=[SOURCE]) as installation:
            made = Hospital(place, installation)
            made.issue(3)
            yield made
