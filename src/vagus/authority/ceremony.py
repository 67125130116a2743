"""The only place where offline keys are opened: certifies authorities, signs their CRLs, seals emergency CRLs.

Every step is a ledger entry before the next one begins. An interrupted ceremony is simply held again: certified
authorities stay so, and equal request ids give the same certificates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from vagus.authority.crls import emergency
from vagus.authority.issuance import Issuance, IssuanceOrder, IssuedCertificate
from vagus.authority.issuers import Issuer, is_live, make_issuer
from vagus.authority.shards import ShardPlan
from vagus.errors import Conflict, IntegrityFailure, NotTrusted
from vagus.ledger.append import append
from vagus.ledger.entries import AuthorityCertified, CeremonyStep
from vagus.policy.plans import AuthorityKind
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records import certificates as certificate_rows
from vagus.records.installation import load_installation
from vagus.x509 import templates
from vagus.x509.names import distinguished
from vagus.x509.requests import CertificateRequest, decode_request

if TYPE_CHECKING:
    from pathlib import Path

    from vagus.authority.crls.publisher import CrlPublisher
    from vagus.clock import Entropy
    from vagus.keystore.envelopes import EnvelopeSealer
    from vagus.keystore.signing import SigningKey
    from vagus.keystore.software import SoftwareKeystore
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Batch, Writer


@dataclass(frozen=True, slots=True)
class CeremonyReport:
    """What a ceremony did: the authorities certified and CRLs signed, by reference, and the envelopes sealed."""

    ceremony: str
    certified: tuple[str, ...]
    crls: tuple[str, ...]
    sealed: tuple[Path, ...]


@dataclass(slots=True)
class _Journal:
    """The steps of one ceremony, numbered."""

    writer: Writer
    ceremony: str
    by: str
    step: int = 0

    def note(self, act: str, authority: str | None = None, detail: bytes | None = None) -> None:
        """Record a step and wait until it is on the disk."""
        self.step += 1
        digest = None if detail is None else hashlib.sha256(detail).digest()
        entry = CeremonyStep(self.ceremony, self.step, act, self.by, authority, digest)
        self.writer.submit(lambda batch: append(batch, entry)).result()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ceremony:
    """A ceremony over one installation.

    `keystore_of` opens the keystore of an authority by its name. `sealer` seals emergency CRLs (None: none are
    made). `advance` is called after each finished step. `is_maker` as for Hierarchy.
    """

    pack: PolicyPack
    database: Database
    writer: Writer
    entropy: Entropy
    _: KW_ONLY
    issuance: Issuance
    publisher: CrlPublisher
    keystore_of: Callable[[str], SoftwareKeystore]
    status_url: str
    by: str
    sealer: EnvelopeSealer | None = None
    is_maker: bool = False
    advance: Callable[[str], None] = lambda _: None

    def find_pending(self) -> tuple[rows.AuthorityRow, ...]:
        """The requests that this ceremony would certify, parents first: those whose parent is an authority here."""
        with self.database.reading() as connection:
            return find_pending(connection)

    def hold(self) -> CeremonyReport:
        """Certify every pending request, then sign the CRLs of each offline authority and seal emergency CRLs.

        Raises NotTrusted(POP_FAILED), IntegrityFailure(KEY_MISMATCH) for a request that is not what its row says,
        and what issuing, keystores and publishing raise. Authorities certified before an error stay certified.
        """
        journal = _Journal(self.writer, f"ceremony-{self.entropy(8).hex()}", self.by)
        journal.note("begin")
        certified: list[str] = []
        crls: list[str] = []
        sealed: list[Path] = []
        # 1. Certify the authorities that wait, parents before children: a child is signed with its parent's key.
        for row in self.find_pending():
            self._certify(row, journal)
            certified.append(row.reference)
            self.advance(row.reference)
        # 2. Sign the CRLs of every live offline authority, also where nothing was revoked: each CRL has a nextUpdate
        # that only a ceremony can renew.
        for issuer in self._offline_issuers():
            for publication in self.publisher.publish_all(issuer):
                journal.note("sign-list", issuer.reference, publication.crl_der)
                crls.append(f"{issuer.reference}/{publication.shard}")
            # 3. While the offline keys are open, also sign and seal one emergency CRL for each subordinate, which
            # revokes that subordinate.
            if self.sealer is not None:
                sealed.extend(self._seal(issuer, self.sealer, journal))
            self.advance(f"{issuer.reference} CRLs")
        journal.note("end")
        return CeremonyReport(journal.ceremony, tuple(certified), tuple(crls), tuple(sealed))

    def _certify(self, row: rows.AuthorityRow, journal: _Journal) -> None:
        # 1. The certificate request belongs to the authority's row: its signature verifies, and it carries the key that
        # the row names.
        if row.request_der is None:
            msg = f"authority {row.reference} was imported and has no certificate request; finish its import"
            raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=row.reference)
        request = decode_request(row.request_der)
        if request.public_key.spki_sha256 != row.spki_sha256:
            msg = f"the request of authority {row.reference} carries another key than its row; run: vagus audit verify"
            raise IntegrityFailure(Reason.KEY_MISMATCH, msg, authority=row.reference)
        journal.note("open-request", row.reference, row.request_der)
        # 2. Choose the key that signs the authority's certificate: its own for a root, else that of the newest
        # generation of its parent.
        with self.database.reading() as connection:
            issuer = self._issuer_for(connection, row, request)
            constraints = self._constraints(connection, row, request, issuer)
        journal.note("open-key", issuer.reference)
        # 3. Issue the authority's certificate. The request id is derived from the row, so that a repeated ceremony
        # gives the same certificate.
        order = IssuanceOrder(
            request_id=f"authority:{row.reference}",
            profile=self.pack.authorities.of_kind(row.kind, is_maker=self.is_maker).profile,
            owner=f"authority:{row.reference}",
            public_key=request.public_key,
            subject=None,
            subject_der=request.subject_der,
            name_constraints=constraints,
        )
        issued = self.issuance.issue_now(order, issuer)
        # 4. Mark the authority's row as active, so that it may issue from now on.
        self.writer.submit(lambda batch: self._activate(batch, row, issuer, issued)).result()
        journal.note("certify", row.reference, issued.der)

    def _activate(self, batch: Batch, row: rows.AuthorityRow, issuer: Issuer, issued: IssuedCertificate) -> None:
        found = certificate_rows.find_by_leaf(batch.connection, issued.leaf_index)
        if found is None:
            msg = f"the certificate of authority {row.reference} has no row in the database; run: vagus audit verify"
            raise IntegrityFailure(Reason.LOG_TAMPERED, msg, authority=row.reference)
        parent_id = None if issuer.authority_id == row.id else issuer.authority_id
        rows.certify_authority(
            batch.connection,
            row.id,
            issued.der,
            not_before=found.not_before,
            not_after=found.not_after,
            parent_id=parent_id,
        )
        above = None if parent_id is None else issuer.reference
        append(batch, AuthorityCertified(row.reference, issued.serial, hashlib.sha256(issued.der).digest(), above))

    def _issuer_for(self, connection: Connection, row: rows.AuthorityRow, request: CertificateRequest) -> Issuer:
        if row.kind == AuthorityKind.ROOT:
            key = self._key(row)
            return Issuer(
                authority_id=row.id,
                name=row.name,
                generation=row.generation,
                kind=AuthorityKind.ROOT,
                certificate=None,
                certificate_der=b"",
                chain_der=(),
                facts=templates.self_issuer(
                    request.subject_der, request.public_key, None, signature_algorithm=key.algorithm
                ),
                key=key,
                status_url=self.status_url,
                shards=ShardPlan(row.id),
            )
        parent = None if row.parent_id is None else rows.find_by_id(connection, row.parent_id)
        newest = None if parent is None else rows.find_newest(connection, parent.name)
        if newest is None:
            msg = f"the parent of authority {row.reference} has no certificate yet; certify the parent first"
            raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=row.reference)
        return make_issuer(connection, newest, self._key(newest), status_url=self.status_url)

    def _key(self, row: rows.AuthorityRow) -> SigningKey:
        return self.keystore_of(row.name).load(row.key_id)

    def _constraints(
        self, connection: Connection, row: rows.AuthorityRow, request: CertificateRequest, issuer: Issuer
    ) -> templates.NameConstraintSpec | None:
        """The names that an authority may certify: they follow from its own name, not from its request.

        docs/isolation.md shows what these constraints (RFC 5280 4.2.1.10) hold apart.
        """
        kind = AuthorityKind(row.kind)
        if kind in {AuthorityKind.ROOT, AuthorityKind.INFRASTRUCTURE_CA, AuthorityKind.LINE_CA}:
            return None
        group_domain = load_installation(connection).group_domain
        if group_domain is None:
            msg = f"the group has no domain to constrain authority {row.reference} to; apply a plan with group.domain"
            raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=row.reference)
        hospital, _, unit = row.name.partition("/")
        if kind is AuthorityKind.SDC_CA:
            return templates.sdc_constraints((f"{hospital}.{group_domain}",))
        domain = f"{unit}.{hospital}.{group_domain}" if unit else f"{hospital}.{group_domain}"
        fields = _directory_fields(request.subject_der, with_unit=bool(unit)) if row.constrain_dn else None
        return templates.device_subtree_constraints(
            domain, inherits_addresses=issuer.facts.excludes_addresses, constrain_dn=fields
        )

    def _offline_issuers(self) -> tuple[Issuer, ...]:
        at = int(self.publisher.now().timestamp())
        with self.database.reading() as connection:
            live = [row for row in rows.list_authorities(connection) if row.is_offline and is_live(row, at)]
        found: list[Issuer] = []
        for row in live:
            key = self._key(row)
            with self.database.reading() as connection:
                found.append(make_issuer(connection, row, key, status_url=self.status_url))
        return tuple(found)

    def _seal(self, issuer: Issuer, sealer: EnvelopeSealer, journal: _Journal) -> tuple[Path, ...]:
        folder = self.keystore_of(issuer.name).folder / "emergency"
        made = emergency.seal_emergency_crls(self.database, self.publisher, issuer, sealer, folder)
        for place, content in made.items():
            journal.note("seal-emergency-list", issuer.reference, content)
            self.advance(place.name)
        return tuple(made)


def find_pending(connection: Connection) -> tuple[rows.AuthorityRow, ...]:
    """Requests that a ceremony can certify, parents first.

    Requests for a CA elsewhere are not among them, nor those below an authority without a certificate.
    """
    every = rows.list_authorities(connection)
    order: Mapping[str, int] = {AuthorityKind.ROOT: 0, AuthorityKind.DEVICE_CA: 1}
    waiting = [row for row in every if row.state == rows.REQUESTED and row.request_der is not None]
    can_sign = {row.id for row in every if row.certificate_der is not None}
    found: list[rows.AuthorityRow] = []
    for row in sorted(waiting, key=lambda row: (order.get(row.kind, 2), row.id)):
        if row.kind == AuthorityKind.ROOT or row.parent_id in can_sign:
            found.append(row)
            can_sign.add(row.id)
    return tuple(found)


def _directory_fields(subject_der: bytes, *, with_unit: bool) -> distinguished.SubjectFields:
    """Organisation (and unit) of an authority's own subject, for its directoryName constraint."""
    texts = {
        oid: distinguished.read_text(tag, content)
        for attributes in distinguished.decode_name(subject_der).attributes
        for oid, tag, content in attributes
    }
    if distinguished.ORGANISATION not in texts:
        msg = "the request of this authority names no organisation to constrain its certificate to; make it anew"
        raise NotTrusted(Reason.NAME_CONSTRAINT, msg)
    unit = texts.get(distinguished.UNIT) if with_unit else None
    return distinguished.SubjectFields(
        texts[distinguished.ORGANISATION], unit, country=texts.get(distinguished.COUNTRY)
    )
