"""The only way to a signature under a certificate; decodes no request and decides no one's rights.

    prepare   policy, names, lifetime; builds and lints the TBS. Pure: nothing is written
    record    inside a writer act: request id, key, intent and ledger entry in one transaction
    issue     spends a token that only `record` gives, once: signs, and returns the certificate
    settle    at start: signs what was intended and not signed, or revokes it

The certificate exists from the commit of the intent on: its ledger entry holds the hash of every byte that will be
signed. So a crash between any two steps loses no certificate and signs none twice (docs/issuance-cycle.md).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vagus.authority import revocation
from vagus.authority.issuers import Issuer, OpenIssuers
from vagus.authority.signature_rows import SignatureRows
from vagus.errors import Conflict, IntegrityFailure, PolicyRefusal
from vagus.identifiers import draw_serial
from vagus.keystore.signing import Purpose, SigningKey
from vagus.ledger.append import append
from vagus.ledger.entries import IntentSettled, IssuanceRecorded
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import certificates as rows
from vagus.records import keys as key_rows
from vagus.records.certificates import CertificateRow
from vagus.x509 import der
from vagus.x509.crls.building import RevocationReason
from vagus.x509.keys import PublicKey, check_key_strength
from vagus.x509.lints import check_tbs
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.names.hardware_module import HardwareModule
from vagus.x509.profiles import Kind, Profile
from vagus.x509.searchable import names_beside_device, read_search_facts
from vagus.x509.templates import Contents, NameConstraintSpec, assemble, build_tbs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vagus.clock import Clock, Entropy
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.writer import Batch, Writer

_LONGEST_REQUEST_ID = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuanceOrder:
    """What is to be certified. All of it comes from profile and inventory, and only the key from a CSR.

    `request_id` makes it repeatable: the same id gives the same certificate. `owner` owns the key for ever
    (`device:<id>`, `authority:h1/icu#1`). `lifetime` None takes the profile's own. `subject_der` is used in place of
    `subject` where a name must stay the same byte for byte.
    """

    request_id: str
    profile: str
    owner: str
    public_key: PublicKey
    subject: SubjectFields | None
    device_id: str | None = None
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    hardware_module: HardwareModule | None = None
    lifetime: timedelta | None = None
    subject_der: bytes | None = None
    name_constraints: NameConstraintSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A checked and linted TBS, not yet recorded as an intent."""

    order: IssuanceOrder
    issuer: Issuer
    serial: int
    shard: int
    not_before: int
    not_after: int
    tbs_der: bytes
    tbs_sha256: bytes
    names: tuple[str, ...]  # those that find the certificate, without those that begin with its device's id


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate that may leave the installation."""

    der: bytes
    leaf_index: int
    serial: int
    issuer: Issuer


class IssuanceToken:
    """The right to sign one committed intent, once. Made by `Issuance.record`; a token made elsewhere is refused."""

    __slots__ = ("_promise",)

    def __init__(self) -> None:
        self._promise: list[_Promise] = []

    def __repr__(self) -> str:
        return f"IssuanceToken({'unspent' if self._promise else 'spent'})"


@dataclass(frozen=True, slots=True)
class _Promise:
    """The intent that a token allows to sign. `maker` is the Issuance that recorded it; no other may spend it."""

    maker: object = field(repr=False)
    issuer: Issuer
    leaf_index: int
    serial: int
    tbs_der: bytes


@dataclass(frozen=True, slots=True)
class SettleReport:
    """The leaf indices of the intents that a crash left open. `left` belong to issuers that are not open here."""

    signed: tuple[int, ...]
    revoked: tuple[int, ...]
    left: tuple[int, ...]


class Issuance:
    """Issues under one policy pack through one writer. Safe to use from several threads.

    `kill_points` is called with "intent-committed" (before the key is used) and "signed" (before the response):
    durability tests end the process there. `pack` never changes.
    """

    def __init__(
        self,
        pack: PolicyPack,
        writer: Writer,
        clock: Clock,
        entropy: Entropy,
        *,
        kill_points: Callable[[str], None] | None = None,
    ) -> None:
        self.pack = pack
        self._writer = writer
        self._signature_rows = SignatureRows(writer)
        self._clock = clock
        self._entropy = entropy
        self._kill_points = kill_points or (lambda _: None)

    def prepare(self, order: IssuanceOrder, issuer: Issuer) -> Prepared:
        """Check the order against the policy, build the TBS and lint it. Touches neither key nor database.

        Raises PolicyRefusal (POLICY_VIOLATION, WEAK_KEY, UNSUPPORTED_ALGORITHM, LIFETIME_TOO_LONG, OUTLIVES_ISSUER,
        LINT) and Malformed(NON_CANONICAL) for names that cannot be encoded.
        """
        # 1. The policy pack has the profile, and this kind of authority issues certificates of that profile.
        profile = self.pack.profile(order.profile)
        _check_role(profile, issuer, is_self_signed=issuer.certificate is None)
        if not 1 <= len(order.request_id) <= _LONGEST_REQUEST_ID:
            msg = f"a request id has 1-{_LONGEST_REQUEST_ID} characters, this one {len(order.request_id)}; shorten it"
            raise PolicyRefusal(Reason.BAD_ARGUMENT, msg)
        # 2. The public key is of a kind that the profile allows, and passes the checks for weak keys.
        check_key_strength(order.public_key, profile.key_algorithms)
        # 3. The lifetime lies within the profile's limit and ends before the issuer's certificate does.
        now = self._clock.now().replace(microsecond=0)
        not_before, not_after = _validity(self.pack, profile, order.lifetime, issuer, now)
        # 4. Build the TBSCertificate: a serial number of 20 bytes with 158 random bits (RFC 5280 4.1.2.2).
        serial, shard = draw_serial(self._entropy), issuer.shards.current
        is_self_signed = issuer.certificate is None
        tbs_der = build_tbs(
            Contents(
                profile=profile,
                public_key=order.public_key,
                subject_der=_subject(order),
                serial=serial,
                not_before=not_before,
                not_after=not_after,
                dns_names=order.dns_names,
                ip_addresses=order.ip_addresses,
                hardware_module=order.hardware_module,
                crl_url=issuer.crl_url(shard) if profile.has_crl_pointer else None,
                ocsp_url=issuer.ocsp_url if profile.has_ocsp_pointer else None,
                ca_issuers_url=None if is_self_signed else issuer.certificate_url,
                name_constraints=order.name_constraints,
            ),
            issuer.facts,
        )
        # 5. Run the lints on the TBSCertificate before any private key is used: a wrong certificate cannot be recalled
        # once signed.
        check_tbs(tbs_der, profile, issuer.facts)
        return Prepared(
            order=order,
            issuer=issuer,
            serial=serial,
            shard=shard,
            not_before=int(not_before.timestamp()),
            not_after=rows.NO_EXPIRY if not_after is None else int(not_after.timestamp()),
            tbs_der=tbs_der,
            tbs_sha256=hashlib.sha256(tbs_der).digest(),
            names=_names(order, tbs_der),
        )

    def record(self, prepared: Prepared, batch: Batch) -> IssuanceToken | IssuedCertificate:
        """Record the intent, inside an act of the writer; the result is valid once the act's future resolves.

        A request id that was recorded before gives its own certificate, or a token for its own TBS. Raises
        Conflict(AUTHORITY_UNKNOWN, AUTHORITY_IN_USE: not active, KEY_BLOCKED, KEY_REUSE, ALREADY_EXISTS: the request
        id was for another key or owner) and Unavailable(UNSETTLED).
        """
        order, issuer, connection = prepared.order, prepared.issuer, batch.connection
        spki_sha256 = order.public_key.spki_sha256
        # 1. Read the authority, the key's owner and the request id in one query, under the batch's lock: no other
        # process can issue in between.
        before = rows.read_before_intent(connection, issuer.authority_id, spki_sha256, order.request_id)
        if before.leaf_index is not None:
            return self._repeat(prepared, batch, before.leaf_index)
        _check_authority(before.authority_state, issuer, self.pack.profile(order.profile))
        _check_key(before, order.owner)
        if before.key_owner is None:
            key_rows.insert_key(connection, spki_sha256, order.owner, at=batch.at)
        # 2. Append the ledger entry. Its leaf index is the certificate's place in the one order of the installation.
        leaf_index = append(
            batch,
            IssuanceRecorded(
                authority=issuer.reference,
                serial=prepared.serial,
                tbs_sha256=prepared.tbs_sha256,
                spki_sha256=spki_sha256,
                profile=order.profile,
                owner=order.owner,
                request_id_hash=hashlib.sha256(order.request_id.encode()).digest(),
                shard=prepared.shard,
            ),
        )
        # 3. Insert the certificate's row in state intended, without a signature.
        row = CertificateRow(
            leaf_index=leaf_index,
            authority_id=issuer.authority_id,
            serial=prepared.serial,
            owner=order.owner,
            device_id=order.device_id,
            profile=order.profile,
            spki_sha256=spki_sha256,
            request_id=order.request_id,
            not_before=prepared.not_before,
            not_after=prepared.not_after,
            shard=prepared.shard,
            key_algorithm=order.public_key.algorithm.value,
        )
        rows.insert_intent(connection, row, prepared.tbs_der, prepared.names)
        issuer.shards.take_place(connection, prepared.shard)
        # 4. Make the one-use token. The caller gets it from the writer's future, which resolves only after the commit.
        return self._token(issuer, leaf_index, prepared.serial, prepared.tbs_der)

    def commit(self, prepared: Prepared) -> Future[IssuanceToken | IssuedCertificate]:
        """`record` as an act of its own."""
        return self._writer.submit(lambda batch: self.record(prepared, batch))

    def issue(self, token: IssuanceToken) -> IssuedCertificate:
        """Sign the intent of `token`. The certificate may leave as soon as this returns.

        If the key's signatures are reproducible, the row is written in a later batch: after a crash `settle` makes the
        same bytes. Otherwise the row is awaited, and the first stored signature of a TBS is the one that counts.
        Raises Conflict(TOKEN_SPENT) for a token that was used, made by hand, or recorded by another Issuance.
        """
        # 1. Spend the issuance token first, whatever happens next. `list.pop` is atomic, so of two threads only one
        # gets the intent.
        # the token and this class are one mechanism
        promise = token._promise.pop() if token._promise else None  # noqa: SLF001
        if promise is None or promise.maker is not self:
            msg = "the issuance token was spent, or recorded by another process; record the certificate order again"
            raise Conflict(Reason.TOKEN_SPENT, msg)
        self._kill_points("intent-committed")
        # 2. Sign the TBSCertificate with the issuer's key.
        signed = _sign(promise)
        self._kill_points("signed")
        # 3. Record the signed bytes. The row follows in a later commit: the signature can be made again from the
        # committed TBSCertificate.
        if promise.issuer.key.is_reproducible:
            self._signature_rows.add(promise.leaf_index, signed)
        else:
            signed = self._writer.submit(lambda batch: _store_first(batch, promise.leaf_index, signed)).result()
        return IssuedCertificate(signed, promise.leaf_index, promise.serial, promise.issuer)

    def issue_now(self, order: IssuanceOrder, issuer: Issuer) -> IssuedCertificate:
        """All steps in a row, waiting for the commit: for ceremonies, OCSP responders and the command line."""
        recorded = self.commit(self.prepare(order, issuer)).result()
        return recorded if isinstance(recorded, IssuedCertificate) else self.issue(recorded)

    def settle(self, issuers: OpenIssuers) -> SettleReport:
        """Close every open intent: sign the same TBS, or revoke it where its authority may not sign any more.

        An intent that was held meanwhile is signed and stays held: once released, its device has a good certificate.
        Called at start before any listener opens; until then OCSP responds tryLater for them. Intents of issuers that
        are not open here are left to the process that opens them.
        """
        return self.settle_rows(self._unsigned(), issuers)

    def settle_rows(self, intents: Iterable[CertificateRow], issuers: OpenIssuers) -> SettleReport:
        """`settle` for these intents. Safe while they are being issued: the first stored signature counts."""
        signed: list[int] = []
        revoked: list[int] = []
        left: list[int] = []
        for row in intents:
            issuer = issuers.find_by_id(row.authority_id)
            if issuer is None:
                left.append(row.leaf_index)
            elif self._settle_one(row, issuer):
                signed.append(row.leaf_index)
            else:
                revoked.append(row.leaf_index)
        return SettleReport(tuple(signed), tuple(revoked), tuple(left))

    @property
    def unwritten(self) -> int:
        """How many signatures of this process wait for their rows."""
        return len(self._signature_rows)

    def write_rows(self) -> None:
        """Try again to write the rows of signatures, after a batch that failed. Waits for nothing, never fails."""
        self._signature_rows.retry()

    def _unsigned(self) -> Iterator[CertificateRow]:
        for state in (rows.INTENDED, rows.HELD):
            page = self._intended(state, -1)
            while page:
                yield from page
                page = self._intended(state, page[-1].leaf_index)

    def _intended(self, state: str, after: int) -> tuple[CertificateRow, ...]:
        # read outside the writer: a plan may hold a million certificates
        with self._writer.database.reading() as connection:
            return rows.list_intended(connection, state=state, after=after)

    def _settle_one(self, row: CertificateRow, issuer: Issuer) -> bool:
        def act(batch: Batch) -> bool:
            found = rows.find_by_leaf(batch.connection, row.leaf_index)
            if found is None or found.fingerprint is not None or found.state == rows.REVOKED:
                return True  # the process that recorded the intent has signed it meanwhile
            authority = authority_rows.find_by_id(batch.connection, issuer.authority_id)
            tbs_der, _ = rows.load_bytes(batch.connection, row.leaf_index)
            may_sign = authority is not None and authority.state != authority_rows.REVOKED
            if may_sign:
                signed = _sign(_Promise(self, issuer, row.leaf_index, row.serial, tbs_der))
                rows.note_signature(batch.connection, row.leaf_index, signed, hashlib.sha256(signed).digest())
            else:
                by = "rule:settle"
                revocation.revoke_row(batch, found, RevocationReason.CESSATION_OF_OPERATION, by=by)
            outcome = "signed" if may_sign else "revoked"
            append(batch, IntentSettled(issuer.reference, row.serial, outcome))
            return may_sign

        return self._writer.submit(act).result()

    def _repeat(self, prepared: Prepared, batch: Batch, leaf_index: int) -> IssuanceToken | IssuedCertificate:
        """The certificate of a request id that was recorded before, or a token for its TBS."""
        order, issuer = prepared.order, prepared.issuer
        row = rows.find_by_leaf(batch.connection, leaf_index)
        if row is None or (row.spki_sha256, row.owner, row.profile) != (
            order.public_key.spki_sha256,
            order.owner,
            order.profile,
        ):
            msg = f"request id {order.request_id} was used for another key, owner or profile; use a new request id"
            raise Conflict(Reason.ALREADY_EXISTS, msg, request_id=order.request_id)
        tbs_der, certificate_der = rows.load_bytes(batch.connection, leaf_index)
        if row.authority_id != issuer.authority_id:
            msg = f"request id {order.request_id} belongs to another generation of {issuer.name}; use a new request id"
            raise Conflict(Reason.ALREADY_EXISTS, msg, request_id=order.request_id)
        if certificate_der is not None:
            return IssuedCertificate(certificate_der, leaf_index, row.serial, issuer)
        if row.state != rows.INTENDED:
            msg = f"the certificate of request id {order.request_id} was revoked before it was signed; use a new id"
            raise Conflict(Reason.REVOKED, msg, request_id=order.request_id)
        return self._token(issuer, leaf_index, row.serial, tbs_der)

    def _token(self, issuer: Issuer, leaf_index: int, serial: int, tbs_der: bytes) -> IssuanceToken:
        token = IssuanceToken()
        # the token and this class are one mechanism, as in `issue`
        token._promise.append(_Promise(self, issuer, leaf_index, serial, tbs_der))  # noqa: SLF001
        return token


def sign_request(key: SigningKey, subject_der: bytes) -> bytes:
    """A DER CertificationRequest (RFC 2986) for an authority's own key: subject and key, nothing else.

    Here because only this module may ask a key for `certificate`. A CertificationRequestInfo begins with version 0
    and cannot be read as a TBSCertificate of ours, which begins with [0].
    """
    info = der.sequence(der.integer(0), subject_der, key.spki_der, der.encode_tlv(0xA0, b""))
    signature = key.sign(Purpose.CERTIFICATE, info)
    return der.sequence(info, key.algorithm.identifier_der, der.bit_string(signature))


def _sign(promise: _Promise) -> bytes:
    key = promise.issuer.key
    signature = key.sign(Purpose.CERTIFICATE, promise.tbs_der)
    return assemble(promise.tbs_der, promise.issuer.facts.signature_algorithm, signature)


def _store_first(batch: Batch, leaf_index: int, signed: bytes) -> bytes:
    """Store `signed` unless another signature of the same TBS was stored first; gives the stored one."""
    if rows.note_signature(batch.connection, leaf_index, signed, hashlib.sha256(signed).digest()):
        return signed
    _, stored = rows.load_bytes(batch.connection, leaf_index)
    if stored is None:
        msg = f"the certificate of log leaf {leaf_index} is marked as signed but has no bytes; run: vagus audit verify"
        raise IntegrityFailure(Reason.LOG_TAMPERED, msg, leaf_index=leaf_index)
    return stored


def _subject(order: IssuanceOrder) -> bytes:
    if order.subject_der is not None:
        return order.subject_der
    return encode_subject(order.subject) if order.subject is not None else der.sequence()


def _names(order: IssuanceOrder, tbs_der: bytes) -> tuple[str, ...]:
    """The names that a search needs beside the device; for the usual device certificate none, and nothing is read."""
    if order.device_id is not None and order.subject is not None and not order.ip_addresses:
        common_name = order.subject.common_name
        return names_beside_device((*order.dns_names, common_name or order.device_id), order.device_id)
    return names_beside_device(read_search_facts(tbs_der).names, order.device_id)


def _check_role(profile: Profile, issuer: Issuer, *, is_self_signed: bool) -> None:
    """Offline authorities certify authorities, online ones the rest; each certifies its own OCSP responder."""
    if profile.kind is Kind.OCSP_RESPONDER or is_self_signed:
        return
    if (profile.kind is Kind.AUTHORITY) is not issuer.is_offline:
        what = "an authority" if profile.kind is Kind.AUTHORITY else "a device or server"
        msg = f"authority {issuer.name} ({issuer.kind}) may not certify {what}; ask the authority that may"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, authority=issuer.reference, profile=profile.name)


def _check_authority(state: str | None, issuer: Issuer, profile: Profile) -> None:
    if state is None:
        msg = f"authority {issuer.reference} is not in this database; check that --dir names the right installation"
        raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=issuer.reference)
    # A root that signs its own certificate is in state requested until that certificate exists.
    allowed = {authority_rows.ACTIVE} if issuer.certificate is not None else {authority_rows.REQUESTED}
    # OCSP responses, like CRLs, go on until the last certificate of the authority has expired, so a retired authority
    # may still certify a responder.
    if profile.kind is Kind.OCSP_RESPONDER:
        allowed.add(authority_rows.RETIRED)
    if state not in allowed:
        msg = f"authority {issuer.reference} is {state} and issues no new certificates; use its newest generation"
        raise Conflict(Reason.AUTHORITY_IN_USE, msg, authority=issuer.reference, state=state)


def _check_key(before: rows.BeforeIntent, owner: str) -> None:
    """A key belongs to one owner for ever: two devices with one key cannot be told apart, nor revoked one by one."""
    if before.is_key_blocked:
        msg = "the public key of the request is blocked (compromised, published or an authority's); make a new key pair"
        raise Conflict(Reason.KEY_BLOCKED, msg)
    if before.key_owner is not None and before.key_owner != owner:
        msg = "the public key of the request belongs to another owner already; make a new key pair on each device"
        raise Conflict(Reason.KEY_REUSE, msg)


def _validity(
    pack: PolicyPack, profile: Profile, lifetime: timedelta | None, issuer: Issuer, now: datetime
) -> tuple[datetime, datetime | None]:
    """The notBefore and notAfter; None is 99991231235959Z (RFC 5280 4.1.2.5). Backdated, but never before the issuer.

    An OCSP responder without a lifetime of its own ends with its issuer at the latest. Raises
    PolicyRefusal(POLICY_VIOLATION, LIFETIME_TOO_LONG, OUTLIVES_ISSUER).
    """
    given = pack.check_lifetime(profile, lifetime)
    if given is not None and given <= timedelta():
        msg = f"a certificate lifetime of {given} is not positive; ask for more, or leave it to profile {profile.name}"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, profile=profile.name)
    not_before = now - pack.enrolment.backdate
    if issuer.not_before is not None and issuer.not_before > not_before:
        not_before = issuer.not_before
    not_after = None if given is None else now + given
    end = issuer.facts.not_after
    if end is not None and end > now and lifetime is None and profile.kind is Kind.OCSP_RESPONDER:
        not_after = end if not_after is None else min(not_after, end)
    if end is not None and (not_after is None or not_after > end):
        wish = "without end" if not_after is None else f"until {not_after.astimezone(UTC):%Y-%m-%d}"
        remedy = "re-key the issuer or ask for less"
        msg = f"a certificate {wish} would outlive issuer {issuer.reference}, which ends on {end:%Y-%m-%d}; {remedy}"
        raise PolicyRefusal(Reason.OUTLIVES_ISSUER, msg, authority=issuer.reference, not_after=f"{end:%Y-%m-%d}")
    return not_before, not_after
