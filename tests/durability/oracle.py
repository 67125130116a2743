"""What the outside was told, held against database, ledger, CRL and OCSP; reads tables by its own SQL."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp
from sqlalchemy import text

from tests.durability.journal import Journal
from tests.simulator.processes import Served
from vagus.records.engine.database import open_database

_PUBLISHED_WITHIN = 60.0  # seconds: what policy promises; it aims for 5


_OPEN_INTENTS = text("SELECT count(*) FROM certificates WHERE state = 'intended'")
_ONE = text(
    "SELECT c.state, c.device_id, b.certificate_der, l.entry FROM certificates c"
    " JOIN certificate_bytes b ON b.leaf_index = c.leaf_index"
    " JOIN log_leaves l ON l.leaf_index = c.leaf_index WHERE c.serial = :serial"
)
_TWICE = text("SELECT device_id FROM certificates WHERE device_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1")


class Oracle:
    """Asks every place where a certificate or a revocation must have left its mark."""

    def __init__(self, database_url: str, journal: Journal) -> None:
        self._url = database_url
        self._journal = journal

    def open_intents(self) -> int:
        """Intents whose signature is not recorded: what a kill between commit and answer leaves."""
        with closing(open_database(self._url)) as database, database.reading() as connection:
            found: int = connection.execute(_OPEN_INTENTS).scalar_one()
            return found

    def check_tables(self) -> int:
        """Every certificate received is in table and ledger, byte for byte; gives how many there are."""
        received = self._received()
        revoked = {one["device"] for one in self._journal.lines("revoked")}
        with closing(open_database(self._url)) as database, database.reading() as connection:
            for _device, certificate in received:
                serial = certificate.serial_number.to_bytes(20, "big")
                row = connection.execute(_ONE, {"serial": serial}).one()
                tbs = hashlib.sha256(certificate.tbs_certificate_bytes).hexdigest()
                assert tbs in bytes(row.entry).decode("ascii"), "the ledger's leaf commits to another TBS"
                if row.state != "intended":  # its row may still be on its way when we look at a running server
                    assert bytes(row.certificate_der) == certificate.public_bytes(serialization.Encoding.DER)
                assert (row.state == "revoked") or (row.device_id not in revoked), "a revocation was forgotten"
            assert not connection.execute(_TWICE).all(), "a repeated request made a second certificate"
        return len(received)

    def _received(self) -> list[tuple[str, x509.Certificate]]:
        """Each certificate that a client received, with its device."""
        lines = self._journal.lines("certificate")
        return [(one["device"], x509.load_der_x509_certificate(bytes.fromhex(one["der"]))) for one in lines]

    def check_published(self, server: Served, issuer: x509.Certificate, sample: Sequence[int]) -> None:
        """OCSP and CRL, asked over HTTP, agree with what was received; `sample` picks whom to ask about."""
        told = {one["device"] for one in self._journal.lines("revoked")}
        begun = {one["device"] for one in self._journal.lines("revoking")}
        of_device = dict(self._received())
        self._check_crl(server, [of_device[device] for device in told], issuer)
        for at in sample:
            device, certificate = list(of_device.items())[at % len(of_device)]
            answer = server.ask_ocsp(certificate, issuer).certificate_status
            if device in told:
                assert answer is ocsp.OCSPCertStatus.REVOKED
            elif device not in begun:  # begun and unanswered: either is right
                assert answer is ocsp.OCSPCertStatus.GOOD

    @staticmethod
    def _check_crl(server: Served, revoked: Sequence[x509.Certificate], issuer: x509.Certificate) -> None:
        """Each revoked certificate is in the list that it names itself."""
        missing = {(_list_path(certificate), certificate.serial_number) for certificate in revoked}
        deadline = time.monotonic() + _PUBLISHED_WITHIN
        while missing:
            for path in {path for path, _serial in missing}:
                crl = x509.load_der_x509_crl(server.get(path))
                assert crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
                missing -= {(path, entry.serial_number) for entry in crl}
            assert not missing or time.monotonic() < deadline, f"{len(missing)} revocations are in no CRL"
            time.sleep(0.5)


def _list_path(certificate: x509.Certificate) -> str:
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    names = points[0].full_name
    assert names is not None
    return str(urlsplit(names[0].value).path)
