"""What a serving process does to an installation, without the network: certificates, CRLs, the published log."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tests.simulator.orders import key_pem, new_key, order_for, public_key_of
from vagus.authority.crls.publisher import CrlPublisher
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal
from vagus.fleet.lifecycle import DeviceState
from vagus.ledger.publish import LogPublisher
from vagus.operations.devices import find_named
from vagus.wiring import Installation
from vagus.x509.pem import encode_certificates

SOURCE = "env:TEST_PASSPHRASE"


def device_name(number: int) -> str:
    """A device of the plan, as operators name it."""
    return f"Aorta IP3:AIP3-{number:06}"


def issue(folder: Path, number: int, request_id: str = "test") -> bytes:
    """A certificate for a device of the plan."""
    return _issue(folder, number, new_key(), request_id).der


def write_credential(folder: Path, number: int, place: Path) -> Path:
    """Key and chain of a commissioned device, in one PEM file as TLS clients read it."""
    key = new_key()
    issued = _issue(folder, number, key, place.name)
    with Installation.open(folder) as installation:
        device = find_named(installation.database, device_name(number))
        if device.state == DeviceState.RECEIVED:
            installation.inventory.change_state(device.id, DeviceState.COMMISSIONED, by="operator:test").result()
    place.write_bytes(key_pem(key) + encode_certificates((issued.der, issued.issuer.certificate_der)))
    return place


def _issue(folder: Path, number: int, private_key: ec.EllipticCurvePrivateKey, request_id: str) -> IssuedCertificate:
    with Installation.open(folder, passphrase_sources=[SOURCE]) as installation:
        device = find_named(installation.database, device_name(number))
        order = order_for(
            device.id, f"{request_id}-{number}", profile=device.profile, public_key=public_key_of(private_key)
        )
        return installation.issuance.issue_now(order, installation.open_issuers(["h1/icu"])["h1/icu"])


def make_responder(folder: Path) -> None:
    """A delegated OCSP responder for h1/icu."""
    with Installation.open(folder, passphrase_sources=[SOURCE]) as installation:
        keystore = installation.keystore_or_new(OCSP_KEYSTORE)
        renewal = ResponderRenewal(
            installation.database, installation.writer, installation.clock, installation.issuance, keystore
        )
        for issuer in installation.open_issuers(["h1/icu"]).every():
            renewal.renew_due(issuer)


@dataclass(frozen=True, slots=True)
class Kept:
    """What survived elsewhere when an installation was lost."""

    log: Path
    crls: Path

    @property
    def checkpoint(self) -> Path:
        return self.log / "checkpoint"


def publish(folder: Path, place: str = "kept", issuer_name: str = "h1/icu") -> Kept:
    """Sign the CRLs of an authority, and the checkpoint; gives a copy that is kept elsewhere."""
    with Installation.open(folder, passphrase_sources=[SOURCE]) as installation:
        publisher = CrlPublisher(
            installation.pack,
            installation.database,
            installation.writer,
            installation.clock,
            folder=installation.settings.published,
        )
        for issuer in installation.open_issuers([issuer_name]).every():
            while publisher.find_due(issuer, installation.clock.now()):
                publisher.publish_due(issuer)
                time.sleep(0.1)  # at most one CRL a second
        LogPublisher(installation.database, installation.settings.log, installation.checkpoint_key()).publish()
    kept = folder.parent / place
    shutil.copytree(folder / "log", kept / "log")
    shutil.copytree(folder / "published", kept / "published")
    return Kept(kept / "log", kept / "published")
