"""The delegated OCSP responders of online authorities: made, renewed at half life, opened; responds to no request.

Their keys lie in a keystore of their own, so that a process that responds needs no key or passphrase of an authority.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING

from vagus.authority import leases
from vagus.authority.issuance import Issuance, IssuanceOrder
from vagus.errors import IntegrityFailure, Misconfigured, Unavailable, VagusError
from vagus.keystore.signing import Purpose, SigningKey
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import publications as rows
from vagus.records.authorities import AuthorityRow, slug_of
from vagus.records.certificates import HELD, REVOKED, find_by_request, find_certificate, load_bytes
from vagus.records.publications import ResponderRow
from vagus.x509.keys import decode_public_key, key_identifier
from vagus.x509.library_certificates import decode_certificate
from vagus.x509.names.distinguished import SubjectFields
from vagus.x509.ocsp.building import issuer_hashes
from vagus.x509.tbs import decode_tbs

if TYPE_CHECKING:
    from vagus.authority.issuers import Issuer
    from vagus.clock import Clock
    from vagus.keystore.software import SoftwareKeystore
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Writer

OCSP_KEYSTORE = "ocsp"
"""The keystore with every responder's key; no hospital may have this name."""

_PROFILE = "ocsp"
_HASH_NAMES = ("sha1", "sha256", "sha384", "sha512")
_REFUSED = frozenset({REVOKED, HELD})


_LOG = logging.getLogger(__name__)
_LEASE_SECONDS = 60


def _warn(reference: str, error: VagusError) -> None:
    _LOG.warning("no OCSP responses for %s from this process: %s", reference, error.message)


@dataclass(frozen=True, slots=True)
class Responder:
    """The responder of one authority. Clients name its issuer by one of `asked_as`: (hash, name hash, key hash)."""

    authority_id: int
    reference: str
    issuer_subject_der: bytes
    issuer_spki_der: bytes
    certificate_der: bytes
    not_before: int
    not_after: int
    key: SigningKey = field(repr=False)
    key_hash: bytes
    asked_as: tuple[tuple[str, bytes, bytes], ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ResponderRenewal:
    """Keeps every online authority of this process with a responder whose certificate is in its first half.

    With a `holder`, only under the authority's lease, so that one of several servers makes the key.
    """

    database: Database
    writer: Writer
    clock: Clock
    issuance: Issuance
    keystore: SoftwareKeystore
    _: KW_ONLY
    holder: str | None = None

    def renew_due(self, issuer: Issuer) -> bool:
        """Make or renew the responder of `issuer`; whether it did.

        It is due if there is no certificate or key, if the certificate is revoked or held, and after half its life. It
        is also due if a clock that ran ahead made it, since clients do not accept it before its notBefore. A responder
        that ends with its issuer is left, and an issuer that has ended needs none. After a crash the key that was left
        is used. Raises what issuing and keystores raise.
        """
        # 1. Is the responder's renewal due? RFC 6960 names no time. At half of its life, a week is left in which a
        # renewal may fail.
        end = issuer.facts.not_after
        if (end is not None and end <= self.clock.now()) or self._find_present(issuer)[1]:
            return False
        # 2. Take the lease, so that one server at a time renews. A server that waited for the lease finds the responder
        # renewed.
        name = f"ocsp:{issuer.authority_id}"
        if not leases.take(self.writer, name, self.holder, _LEASE_SECONDS):
            return False
        try:
            return self._renew(issuer)
        finally:
            leases.give_back(self.writer, name, self.holder)

    def _renew(self, issuer: Issuer) -> bool:
        present, is_good = self._find_present(issuer)
        if is_good:
            return False
        # 3. Make a new key for each responder certificate, on the disk before its row.
        key_id = self._next_key_id(issuer, present)
        owner = f"ocsp:{issuer.reference}"
        algorithm = self.issuance.pack.service_keys.ocsp_responder
        key = self.keystore.load_or_generate(key_id, algorithm, [Purpose.OCSP], owner)
        # 4. The authority itself certifies the responder (RFC 6960 4.2.2.2); the profile adds id-pkix-ocsp-nocheck.
        order = IssuanceOrder(
            request_id=f"ocsp:{key_id}",
            profile=_PROFILE,
            owner=owner,
            public_key=decode_public_key(key.spki_der),
            subject=SubjectFields("OCSP", None, f"{slug_of(issuer.name)} {key_id.rpartition('.')[2]}"),
        )
        issued = self.issuance.issue_now(order, issuer)
        # 5. Store the responder's row. The previous key stays for one more term: a node whose copy of the keystore is
        # not up to date still signs with it. The key of a revoked responder certificate is destroyed at once.
        row = ResponderRow(
            authority_id=issuer.authority_id,
            key_id=key_id,
            keystore=OCSP_KEYSTORE,
            certificate_der=issued.der,
            not_after=int(decode_certificate(issued.der).not_valid_after_utc.timestamp()),
        )
        self.writer.submit(lambda batch: rows.put_responder(batch.connection, row)).result()
        if present is not None:
            self.keystore.destroy(_key_id_before(present.key_id))
            if self._is_revoked(present):
                self.keystore.destroy(present.key_id)
        return True

    def _find_present(self, issuer: Issuer) -> tuple[ResponderRow | None, bool]:
        """The responder in the database, and whether it needs no renewal."""
        with self.database.reading() as connection:
            present = rows.find_responder(connection, issuer.authority_id)
            if present is None or not self._is_sound(connection, present):
                return present, False
        certificate, now = decode_certificate(present.certificate_der), self.clock.now()
        begin, end, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc, issuer.facts.not_after
        is_last = last is not None and present.not_after >= int(last.timestamp())
        return present, begin <= now and (is_last or now < begin + (end - begin) / 2)

    def _is_revoked(self, present: ResponderRow) -> bool:
        with self.database.reading() as connection:
            row = find_by_request(connection, f"ocsp:{present.key_id}")
        return row is None or row.state == REVOKED

    def _is_sound(self, connection: Connection, present: ResponderRow) -> bool:
        """Whether the key is here and the certificate neither revoked nor held.

        Clients do not check the status of a responder with nocheck (RFC 6960 4.2.2.2.1), so it must be replaced.
        """
        serial = decode_certificate(present.certificate_der).serial_number
        certificate = find_certificate(connection, present.authority_id, serial)
        return self.keystore.has(present.key_id) and certificate is not None and certificate.state not in _REFUSED

    @staticmethod
    def _next_key_id(issuer: Issuer, present: ResponderRow | None) -> str:
        number = 1 if present is None else int(present.key_id.rpartition(".")[2]) + 1
        return f"{slug_of(issuer.name)}.{issuer.generation}.{number}"


def open_responders(
    connection: Connection, keystore: SoftwareKeystore, unopened: Callable[[str, VagusError], None] = _warn
) -> tuple[Responder, ...]:
    """Every responder in the database whose key is here.

    `unopened` gets the others, by their authority's reference: one missing key must not stop the rest. If the key of a
    renewed responder has not reached this node yet, its predecessor responds as long as its certificate is valid.
    """
    found: list[Responder] = []
    for authority in authority_rows.list_authorities(connection):
        row = rows.find_responder(connection, authority.id)
        if row is None or authority.certificate_der is None:
            continue
        try:
            found.append(_make(authority, row, keystore.load(row.key_id)))
        except (Unavailable, IntegrityFailure, Misconfigured) as error:
            unopened(authority.reference, error)
            before = _open_before(connection, authority, row, keystore)
            if before is not None:
                found.append(before)
    return tuple(found)


def _open_before(
    connection: Connection, authority: AuthorityRow, row: ResponderRow, keystore: SoftwareKeystore
) -> Responder | None:
    """The predecessor of the responder in `row`, if its key is here and its certificate neither revoked nor held."""
    key_id = _key_id_before(row.key_id)
    good = find_by_request(connection, f"ocsp:{key_id}")
    if good is None or good.state in _REFUSED:
        return None
    certificate_der = load_bytes(connection, good.leaf_index)[1]
    if certificate_der is None:
        return None
    before = replace(row, key_id=key_id, certificate_der=certificate_der, not_after=good.not_after)
    try:
        return _make(authority, before, keystore.load(key_id))
    except (Unavailable, IntegrityFailure, Misconfigured):
        return None


def _key_id_before(key_id: str) -> str:
    """The key id with the number before; number 0 has no key."""
    head, _, number = key_id.rpartition(".")
    return f"{head}.{int(number) - 1}"


def _make(authority: AuthorityRow, row: ResponderRow, key: SigningKey) -> Responder:
    issuer = decode_tbs(decode_certificate(authority.certificate_der or b"").tbs_certificate_bytes)
    certificate = decode_certificate(row.certificate_der)
    own = decode_tbs(certificate.tbs_certificate_bytes)
    if own.spki_der != key.spki_der:
        msg = f"the OCSP responder key of {authority.reference} does not fit its certificate; restore the keystore"
        raise IntegrityFailure(Reason.KEY_MISMATCH, msg, authority=authority.reference)
    asked_as = tuple((name, *issuer_hashes(issuer.subject_der, issuer.spki_der, name)) for name in _HASH_NAMES)
    return Responder(
        authority_id=authority.id,
        reference=authority.reference,
        issuer_subject_der=issuer.subject_der,
        issuer_spki_der=issuer.spki_der,
        certificate_der=row.certificate_der,
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=row.not_after,
        key=key,
        key_hash=key_identifier(key.spki_der),
        asked_as=asked_as,
    )
