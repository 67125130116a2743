"""Requests, imports, re-keys and retires authorities; signs no certificate.

A request is a key in a keystore and a row with a CSR. A ceremony, or a CA elsewhere, certifies it.
"""

from __future__ import annotations

import hashlib
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from vagus.authority import earlier_revocations, imports
from vagus.authority.crls.foreign import check_signer, read_foreign_crl
from vagus.authority.issuance import sign_request
from vagus.authority.issuers import Issuer, OpenIssuers, make_issuer, open_issuers
from vagus.durable_files import replace_durably
from vagus.errors import Conflict, NotTrusted
from vagus.keystore.signing import Purpose
from vagus.ledger.append import append
from vagus.ledger.entries import AuthorityCertified, AuthorityCreated, OperatorAct
from vagus.policy.plans import AuthorityKind, PlannedAuthority
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records import keys as key_rows
from vagus.records.authorities import AuthorityRow, slug_of
from vagus.x509.crls.decoding import Crl, decode_crl
from vagus.x509.keys import decode_public_key
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.pem import encode_block

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vagus.keystore.passphrases import Passphrase
    from vagus.keystore.private_keys import SoftwareSigningKey
    from vagus.keystore.software import SoftwareKeystore
    from vagus.policy.values import AuthorityRule, PolicyPack
    from vagus.records.engine.writer import Batch, Writer
    from vagus.x509.algorithms import KeyAlgorithm

__all__ = ["Hierarchy", "Issuer", "OpenIssuers", "make_issuer", "open_issuers"]

_CA_PURPOSES = (Purpose.CERTIFICATE, Purpose.CRL)


@dataclass(frozen=True, slots=True)
class RequestedAuthority:
    """An authority that waits for its certificate."""

    authority_id: int
    reference: str
    request_der: bytes


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Hierarchy:
    """The acts that add, change and retire authorities. `is_maker`: a maker's root has rules of its own.

    `keystore_or_new` opens the keystore of an authority by its name, and makes it if there is none. `judge` raises
    where verifiers here would refuse what a CA from elsewhere issues as the authority of that name.
    """

    pack: PolicyPack
    writer: Writer
    _: KW_ONLY
    keystore_or_new: Callable[[str], SoftwareKeystore]
    requests: Path
    judge: Callable[[str, AuthorityKind, imports.ImportedChain], None]
    is_maker: bool = False

    def rule(self, kind: AuthorityKind) -> AuthorityRule:
        """What the policy says of this kind of authority here."""
        return self.pack.authorities.of_kind(kind, is_maker=self.is_maker)

    def request(
        self, planned: PlannedAuthority, *, by: str, is_rekey: bool = False, key_algorithm: KeyAlgorithm | None = None
    ) -> RequestedAuthority:
        """Make the key and the request of a planned authority; its CSR is also written to the folder of requests.

        Repeated, or after a crash at any point, it gives the same request. `is_rekey` makes the next generation of an
        authority that exists already. Raises Conflict(ALREADY_EXISTS) and what keystores raise.
        """
        # 1. Choose the generation of the authority: one that waits for its certificate already, the first, or the next.
        newest = self._find_newest(planned.name)
        if newest is not None and newest.state == rows.REQUESTED and newest.request_der is not None:
            self._write_request(newest.name, newest.generation, newest.request_der)
            return RequestedAuthority(newest.id, newest.reference, newest.request_der)
        if newest is not None and not is_rekey:
            msg = f"authority {newest.reference} exists already; make a new generation with `vagus ca roll`"
            raise Conflict(Reason.ALREADY_EXISTS, msg, authority=newest.reference)
        generation = 1 if newest is None else newest.generation + 1
        # 2. Make the authority's key on the disk before its row: a row never names a key that does not exist.
        key = self._key(planned.name, generation, key_algorithm or self.rule(planned.kind).key_algorithm)
        # 3. Make the certificate request. Each generation has a distinguished name of its own, so that the CRL of one
        # never covers the certificates of another (RFC 5280 5: the scope of a CRL depends on its issuer's name).
        request_der = sign_request(key, _subject_der(planned, generation))
        # 4. Store the authority's row, the owner of its key and the ledger entry in one transaction.
        authority_id = self.writer.submit(
            lambda batch: self._record(batch, planned, generation, key, request_der, by)
        ).result()
        self._write_request(planned.name, generation, request_der)
        return RequestedAuthority(authority_id, f"{planned.name}#{generation}", request_der)

    def request_planned(self, planned: PlannedAuthority, *, by: str) -> None:
        """As `request`; the next generation where the newest one has retired."""
        newest = self._find_newest(planned.name)
        self.request(planned, by=by, is_rekey=newest is not None and newest.state != rows.REQUESTED)

    def accept_certificate(self, name: str, chain_pem: bytes, *, by: str) -> str:
        """Accept the certificate that a CA elsewhere made for our request: it comes first, then those above it.

        Gives the reference of the authority, which is active from now on. Raises Conflict(AUTHORITY_UNKNOWN),
        Conflict(ALREADY_EXISTS), Conflict(KEY_MISMATCH), and as `imports.check_authority` and `judge`.
        """
        row = self._find_newest(name)
        if row is None:
            msg = f"no authority {name!r} waits for a certificate; see: vagus ca list"
            raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=name)
        if row.state != rows.REQUESTED:
            msg = f"authority {row.reference} has its certificate already; make a new generation with `vagus ca roll`"
            raise Conflict(Reason.ALREADY_EXISTS, msg, authority=row.reference)
        found = imports.read_chain(chain_pem)
        if found.public_key.spki_sha256 != row.spki_sha256:
            msg = f"the certificate is not for the key of {row.reference}; have the request of that authority certified"
            raise Conflict(Reason.KEY_MISMATCH, msg, authority=row.reference)
        imports.check_authority(found, self._profile_keys(AuthorityKind(row.kind)))
        self.judge(name, AuthorityKind(row.kind), found)
        self.writer.submit(lambda batch: _certify(batch, row.id, row.reference, found, by=by)).result()
        return row.reference

    def import_authority(
        self,
        planned: PlannedAuthority,
        chain_pem: bytes,
        key_pem: bytes,
        password: Passphrase | None,
        *,
        crls: Sequence[bytes],
        by: str,
    ) -> tuple[str, int]:
        """Take over an existing CA with its key; its name and extensions stay byte for byte.

        Gives its reference, and how many certificates are revoked or on hold by its CRLs.
        `crls` are the newest CRLs of its old operator: what they name stays revoked or on hold, and our numbers go on
        from theirs. Without them everything that was revoked would be good again.

        Raises NotTrusted(CRL_INVALID) for a CRL of another key and for a delta, Conflict(ALREADY_EXISTS),
        Conflict(KEY_MISMATCH), as `imports.check_authority` and `judge`, and what importing a key raises.
        """
        # 1. Check the imported certificates and CRLs before any private key is opened.
        found = imports.read_chain(chain_pem)
        imports.check_authority(found, self._profile_keys(planned.kind))
        self.judge(planned.name, planned.kind, found)
        for crl_der in crls:
            crl = decode_crl(crl_der)
            check_signer(crl, found.certificate_der)
            _check_no_delta(crl)
        newest = self._find_newest(planned.name)
        if newest is not None and newest.state == rows.REQUESTED:
            msg = f"authority {newest.reference} waits for a certificate; finish that, or import under another name"
            raise Conflict(Reason.ALREADY_EXISTS, msg, authority=newest.reference)
        generation = 1 if newest is None else newest.generation + 1
        # 2. Check that the private key belongs to the imported certificate.
        imports.check_key_pair(found, key_pem, password)
        keystore, key_id = self.keystore_or_new(planned.name), _key_id(generation)
        if keystore.has(key_id):  # the key is there already: an earlier import was interrupted
            key = keystore.load(key_id)
        else:
            owner = f"authority:{planned.name}#{generation}"
            key = keystore.import_pkcs8(key_id, key_pem, password, _CA_PURPOSES, owner)
        if key.spki_der != found.public_key.spki_der:
            msg = f"keystore {slug_of(planned.name)} holds another key with id {key_id}; move that key file away first"
            raise Conflict(Reason.KEY_MISMATCH, msg, authority=planned.name)

        # 3. Store the authority's row, its certificate and what was revoked elsewhere in one transaction: without the
        # revocations, revoked certificates would be accepted again.
        def act(batch: Batch) -> int:
            authority_id = self._record(batch, planned, generation, key, None, by)
            _certify(batch, authority_id, f"{planned.name}#{generation}", found, by=by)
            row = rows.find_by_id(batch.connection, authority_id)
            read = [read_foreign_crl(crl_der, [row]) for crl_der in crls] if row is not None else []
            known = (one for one in read if one is not None)
            return earlier_revocations.record_crls(batch, *known, since=earlier_revocations.ELSEWHERE, by=by)

        return f"{planned.name}#{generation}", self.writer.submit(act).result()

    def retire(self, name: str, generation: int, *, by: str) -> None:
        """End new certificates from this generation; CRLs and OCSP go on. Raises Conflict(AUTHORITY_UNKNOWN)."""

        def act(batch: Batch) -> None:
            row = rows.find_generation(batch.connection, name, generation)
            if row is None or row.state != rows.ACTIVE:
                msg = f"authority {name}#{generation} is not active, so it cannot be retired; see: vagus ca list"
                raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=f"{name}#{generation}")
            rows.set_authority_state(batch.connection, row.id, rows.RETIRED)
            append(batch, OperatorAct("authority-retired", by, subject=f"authority:{row.reference}"))

        self.writer.submit(act).result()

    def _profile_keys(self, kind: AuthorityKind) -> frozenset[KeyAlgorithm]:
        return self.pack.profile(self.rule(kind).profile).key_algorithms

    def _find_newest(self, name: str) -> AuthorityRow | None:
        return self.writer.submit(lambda batch: rows.find_newest(batch.connection, name, state=None)).result()

    def _key(self, name: str, generation: int, algorithm: KeyAlgorithm) -> SoftwareSigningKey:
        owner = f"authority:{name}#{generation}"
        return self.keystore_or_new(name).load_or_generate(_key_id(generation), algorithm, _CA_PURPOSES, owner)

    def _record(
        self,
        batch: Batch,
        planned: PlannedAuthority,
        generation: int,
        key: SoftwareSigningKey,
        request_der: bytes | None,
        by: str,
    ) -> int:
        connection, reference = batch.connection, f"{planned.name}#{generation}"
        parent = rows.find_newest(connection, planned.parent, state=None) if planned.parent is not None else None
        public_key = decode_public_key(key.spki_der)
        owner = key_rows.find_key(connection, public_key.spki_sha256)
        if owner is not None and (owner.is_blocked or owner.owner != f"authority:{reference}"):
            msg = f"the public key of authority {reference} is registered to another owner already; make a new key pair"
            raise Conflict(Reason.KEY_REUSE, msg, authority=reference)
        if owner is None:
            key_rows.insert_key(connection, public_key.spki_sha256, f"authority:{reference}", at=batch.at)
        above = None if parent is None else parent.reference
        is_offline = self.rule(planned.kind).is_offline
        row = rows.AuthorityRow(
            name=planned.name,
            generation=generation,
            kind=planned.kind,
            parent_id=None if parent is None else parent.id,
            is_offline=is_offline,
            key_id=key.key_id,
            keystore=slug_of(planned.name),
            spki_sha256=public_key.spki_sha256,
            request_der=request_der,
            constrain_dn=planned.constrain_dn,
        )
        authority_id = rows.insert_authority(connection, row)
        append(batch, AuthorityCreated(reference, planned.kind, public_key.spki_sha256, above, is_offline))
        append(batch, OperatorAct("authority-requested", by, subject=f"authority:{reference}"))
        return authority_id

    def _write_request(self, name: str, generation: int, request_der: bytes) -> None:
        self.requests.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self.requests / f"{slug_of(name)}.{generation}.csr"
        replace_durably(place, encode_block(request_der, "CERTIFICATE REQUEST"), has_rivals=True)


def _check_no_delta(crl: Crl) -> None:
    # A delta CRL lacks the revocations of its base, so the certificates revoked there would be accepted again.
    if crl.is_delta:
        msg = (
            f"CRL {crl.label} is a delta CRL, which holds only the changes since a base CRL (RFC 5280 5.2.4). "
            "Have the former operator of the authority sign a complete CRL and give that one"
        )
        raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)


def _certify(batch: Batch, authority_id: int, reference: str, found: imports.ImportedChain, *, by: str) -> None:
    above = found.chain_der[0] if found.chain_der else None
    parent = None if above is None else imports.find_row_of(batch.connection, above)
    imports.refuse_expired(found, batch.at)
    rows.certify_authority(
        batch.connection,
        authority_id,
        found.certificate_der,
        not_before=found.not_before,
        not_after=found.not_after,
        parent_id=None if parent is None else parent.id,
    )
    # If the parent is an authority of this installation, its row has the chain above it. Only certificates of foreign
    # CAs are stored with the child's row.
    foreign = () if parent is not None else tuple(found.chain_der)
    rows.set_chain(batch.connection, authority_id, foreign)
    imports.block_foreign_keys(batch, found, by=by)
    issuer = None if parent is None else parent.reference
    chain = hashlib.sha256(b"".join(foreign)).digest() if foreign else None
    fingerprint = hashlib.sha256(found.certificate_der).digest()
    append(batch, AuthorityCertified(reference, found.fields.serial, fingerprint, issuer, chain))
    append(batch, OperatorAct("authority-certified", by, subject=f"authority:{reference}"))


def _subject_der(planned: PlannedAuthority, generation: int) -> bytes:
    common_name = planned.common_name if generation == 1 else f"{planned.common_name} G{generation}"
    fields = SubjectFields(planned.organisation, planned.unit, common_name, planned.country)
    return encode_subject(fields)


def _key_id(generation: int) -> str:
    return f"ca-{generation}"
