"""The one way in which a device obtains a certificate, whatever protocol carried its request; signs nothing itself.

Who asks is proved by one of four kinds of evidence: the maker's certificate, the current certificate, a one-time
token, or a token inside the connection of a registration authority. What is issued follows from the inventory.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final

from vagus.authority.issuance import Issuance, IssuanceOrder, IssuanceToken, IssuedCertificate, Prepared
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict, Malformed, NotAuthorised, Refused, Unavailable, VagusError
from vagus.fleet.admission import Admitted, Evidence
from vagus.fleet.devices import check_known, owner_of
from vagus.fleet.enrolment.rechecks import check_not_suspended, check_same_wish, check_still_good, look_again
from vagus.fleet.enrolment.refusals import RefusalNotes
from vagus.fleet.lifecycle import MAY_ENROL, MAY_RENEW, DeviceState, check_may
from vagus.fleet.tokens import REPEAT, check_token, hash_token, spend_token
from vagus.identifiers import DeviceId, DeviceName
from vagus.ledger.append import append
from vagus.ledger.entries import DeviceStateChanged
from vagus.reasons import Reason
from vagus.records.applicants import ApplicantRow, find_by_device, find_by_token
from vagus.records.devices import DeviceRow, set_device_state
from vagus.records.engine.database import Database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.units import UnitRow
from vagus.x509.certificates import PathCertificate
from vagus.x509.names.distinguished import SubjectFields, decode_general_names
from vagus.x509.names.matching import decode_name
from vagus.x509.requests import CertificateRequest

SERVER_LABEL: Final = "server"
"""The label under which a gateway or station asks for what it shows as a server."""

_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")  # contents of 2.5.29.17
_HOUR: Final = 3600


@unique
class Kind(StrEnum):
    """What is asked for."""

    ENROL = "enrol"  # RFC 7030 4.2.1
    REENROL = "reenrol"  # RFC 7030 4.2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """A request as a protocol decoded it. `peer` is the verdict on its connection, `token` what came with it.

    `user` is what stood before the token; a device id there must be the token's. `label` is the protocol's name for
    another certificate than the device's own.
    """

    csr: CertificateRequest
    kind: Kind
    peer: Admitted | None = None
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class _Applicant:
    """Who asks, proved; `credential` names the evidence so that one request with one credential has one answer."""

    device: DeviceRow
    unit: UnitRow
    credential: bytes
    token_sha256: bytes | None


class PendingEnrolment:
    """An intent on its way to the disk. Await `committed`, then `finish`."""

    def __init__(
        self, committed: Future[IssuanceToken | IssuedCertificate], issue: Callable[[IssuanceToken], IssuedCertificate]
    ) -> None:
        self.committed = committed
        """Resolves after the commit that covers the intent; raises what refused it."""
        self._issue = issue

    def finish(self) -> IssuedCertificate:
        """Sign, once committed; a repeated request gets the certificate that it got before."""
        outcome = self.committed.result()
        return outcome if isinstance(outcome, IssuedCertificate) else self._issue(outcome)


class Enrolment:
    """Evidence in, certificate out. Safe to use from several threads."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        issuance: Issuance,
        issuers: Mapping[str, Issuer],
        *,
        group_domain: str,
        token_repeat: timedelta = REPEAT,
        notes: RefusalNotes | None = None,
        road: str = "est",
    ) -> None:
        self._database = database
        self._writer = writer
        self._issuance = issuance
        self._issuers = issuers
        self._group_domain = group_domain
        self._token_repeat = token_repeat
        self._notes = notes if notes is not None else RefusalNotes(writer)
        self._road = road

    def begin(self, request: EnrolmentRequest, at: datetime, *, is_patient: bool = False) -> PendingEnrolment:
        """Check evidence, state and names, prepare the certificate, and hand its intent to the writer.

        A patient one waits up to 5 ms for others to share its commit, unless the caller says `hurry` before.

        Raises NotAuthorised(CREDENTIAL_MISSING|TOKEN_*|IDENTITY_AMBIGUOUS|NOT_IN_INVENTORY|
        NOT_RENEWABLE|WRONG_COMPARTMENT),
        Conflict(DEVICE_STATE|NAMES_CHANGED), Unavailable(KEY_NOT_OPEN), and what issuance refuses. A
        refusal of somebody known makes a ledger entry; `committed` may raise the same errors.
        """
        known = None if request.peer is None else request.peer.device
        who = None if known is None else known.id
        try:
            # 1. Who asks, and may they now?
            applicant = self._authenticate(request, at)
            device = applicant.device
            who = device.id
            check_may(DeviceState(device.state), *_may(request.kind))
            _check_served(request.peer, device)
            # 2. RFC 7030 4.2.2: a renewal keeps its names. RFC 7030 4.2.1 leaves them to us: the inventory decides.
            if request.kind is Kind.REENROL:
                self._check_renewal(request, device)
            # 3. What is issued, and by whom.
            order, issuer = self._order(request, applicant, at)
            # 4. Policy, TBS, lints; no key is used yet.
            prepared = self._issuance.prepare(order, issuer)
        except Refused as error:
            self._note(who, error)
            raise
        # 5. Token, state and intent: one transaction.
        expected = device.id
        committed = self._writer.submit(
            lambda batch: self._record(batch, applicant, request, prepared), is_patient=is_patient
        )
        committed.add_done_callback(lambda future: self._note_failure(expected, future))
        return PendingEnrolment(committed, self._issuance.issue)

    def enrol(self, request: EnrolmentRequest, at: datetime) -> IssuedCertificate:
        """`begin`, wait, `finish`: for callers without an event loop."""
        pending = self.begin(request, at)
        pending.committed.result()
        return pending.finish()

    def hurry(self) -> None:
        """Nobody else will come to share the commit of what was begun patiently."""
        self._writer.hurry()

    # evidence

    def _authenticate(self, request: EnrolmentRequest, at: datetime) -> _Applicant:
        """The one device that the evidence speaks for. A token outranks the connection that carries it."""
        peer = request.peer
        if request.token is not None:
            device_id, found, credential = self._by_token(request, request.token, at)
            token_sha256: bytes | None = credential
        elif peer is None or peer.device is None or peer.identity is None:
            msg = "no credential: show the maker's or the current certificate, or send a one-time token as Basic"
            raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
        elif peer.is_registration_authority and request.kind is Kind.ENROL:
            msg = (
                "a registration authority sends the device's token with each request; without one, nothing is enrolled"
            )
            raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
        else:
            device_id, credential, token_sha256 = peer.device.id, peer.identity.leaf_sha256, None
            found = find_by_device(self._database, device_id)
        device, unit = check_known(found.device, device_id), found.unit
        if unit is None:
            msg = f"unit {device.unit} of the device does not exist; apply the plan"
            raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg)
        return _Applicant(device, unit, credential, token_sha256)

    def _by_token(self, request: EnrolmentRequest, token: str, at: datetime) -> tuple[DeviceId, ApplicantRow, bytes]:
        if request.kind is Kind.REENROL:
            msg = "a renewal is proved by the certificate that it renews, not by a token; use simpleenroll"
            raise NotAuthorised(Reason.NOT_RENEWABLE, msg)
        spki_sha256 = request.csr.public_key.spki_sha256
        found = find_by_token(self._database, hash_token(token)) or ApplicantRow(None, None)
        row = check_token(found.token, spki_sha256, at=int(at.timestamp()), repeat=self._token_repeat)
        peer = request.peer
        named = _device_id_or_none(request.user)
        others = [named] if named is not None else []
        if peer is not None and peer.device is not None and not peer.is_registration_authority:
            others.append(peer.device.id)
        if any(other != row.device_id for other in others):
            msg = "the token belongs to another device than the certificate or user name beside it; send one of them"
            raise NotAuthorised(Reason.IDENTITY_AMBIGUOUS, msg)
        return row.device_id, found, row.token_sha256

    # names

    def _check_renewal(self, request: EnrolmentRequest, device: DeviceRow) -> None:
        """RFC 7030 4.2.2: proved by the current certificate, subject and subjectAltName as there and as we would issue.

        Raises NotAuthorised(NOT_RENEWABLE), Conflict(NAMES_CHANGED).
        """
        peer = request.peer
        if peer is None or peer.identity is None or peer.evidence is not Evidence.LDEVID:
            msg = "a renewal is proved by the certificate that it renews; a maker's certificate uses simpleenroll"
            raise NotAuthorised(Reason.NOT_RENEWABLE, msg)
        current = peer.identity.path[0]
        if request.label is not None:
            msg = f"label {request.label!r} has no renewal; use simpleenroll"
            raise NotAuthorised(Reason.NOT_RENEWABLE, msg)
        name = str(DeviceName(device.id, device.unit, self._group_domain))
        if peer.identity.device_name is None or str(peer.identity.device_name) != name:
            msg = f"the inventory names this device {name} now; use simpleenroll, which takes the new name"
            raise Conflict(Reason.NAMES_CHANGED, msg)
        _check_same_names(request.csr, current)

    # what is issued

    def _order(self, request: EnrolmentRequest, applicant: _Applicant, at: datetime) -> tuple[IssuanceOrder, Issuer]:
        device, unit = applicant.device, applicant.unit
        dns_names: tuple[str, ...]
        ip_addresses: tuple[str, ...] = ()
        if request.label is None:
            profile, authority = device.profile, str(device.unit)
            dns_names = (str(DeviceName(device.id, device.unit, self._group_domain)),)
        elif request.label == SERVER_LABEL and device.host_names:
            profile, authority = "tls-server", f"{device.unit.hospital}/infra"
            ip_addresses = tuple(name for name in device.host_names if _is_address(name))
            dns_names = tuple(name for name in device.host_names if name not in ip_addresses)
        else:
            msg = f"there is no certificate under label {request.label!r} for this device; leave the label out"
            raise NotAuthorised(Reason.NOT_FOUND, msg)
        issuer = self._issuers.get(authority)
        if issuer is None:
            msg = f"this server does not issue for {authority}; use the server that does (serve --issue-for)"
            raise Unavailable(Reason.KEY_NOT_OPEN, msg, authority=authority)
        order = IssuanceOrder(
            request_id=_request_id(request, applicant, (profile, issuer.reference), at),
            profile=profile,
            owner=owner_of(device.id),
            device_id=str(device.id),
            public_key=request.csr.public_key,
            subject=SubjectFields(organisation=unit.organisation, unit=unit.title, common_name=str(device.id)),
            dns_names=dns_names,
            ip_addresses=ip_addresses,
        )
        return order, issuer

    # the one transaction

    def _record(
        self,
        batch: Batch,
        applicant: _Applicant,
        request: EnrolmentRequest,
        prepared: Prepared,
    ) -> IssuanceToken | IssuedCertificate:
        """Inside the writer act. What `begin` saw may have changed since, so it is asked again here."""
        # 1. The device is still what the certificate will say, and still may.
        now = look_again(batch, applicant.device.id, applicant.token_sha256, request.peer)
        device = check_known(now.device, applicant.device.id)
        state = DeviceState(device.state)
        check_may(state, *_may(request.kind))
        if (device.unit, device.profile) != (applicant.device.unit, applicant.device.profile):
            msg = "the inventory changed the device's unit or profile just now; send the request again"
            raise Unavailable(Reason.OVERLOADED, msg)
        # 2. Nothing of it is on hold, and the certificate that speaks for it was not revoked just now.
        check_not_suspended(now, device)
        # 3. The token is still worth this key and this certificate, and no other.
        key, token = request.csr.public_key.spki_sha256, None
        if applicant.token_sha256 is not None:
            token = check_token(now.token, key, at=batch.at, repeat=self._token_repeat)
            check_same_wish(batch.connection, token, prepared.order.request_id)
        # 4. The intent with its ledger entry, and the token bound to it: both or neither.
        outcome = self._issuance.record(prepared, batch)
        if isinstance(outcome, IssuedCertificate):
            check_still_good(batch.connection, outcome)
            return outcome
        if token is not None:
            spend_token(batch, token, key, request_id=prepared.order.request_id)
        # 5. The first certificate commissions a device.
        if state is DeviceState.RECEIVED:
            after = DeviceState.COMMISSIONED
            set_device_state(batch.connection, device.id, before=state, after=after, at=batch.at)
            append(batch, DeviceStateChanged(owner_of(device.id), state, after, f"rule:{self._road}"))
        return outcome

    # refusals

    def _note(self, who: DeviceId | None, error: VagusError) -> None:
        named = error.facts.get("device")
        if who is None and isinstance(named, str):  # a token that was recognised, and refused
            who = DeviceId(named)
        if who is not None:
            self._notes.note(owner_of(who), self._road, error.reason)

    def _note_failure(self, who: DeviceId, future: Future[IssuanceToken | IssuedCertificate]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Refused):
            self._note(who, error)


def _check_served(peer: Admitted | None, device: DeviceRow) -> None:
    """Raises NotAuthorised(WRONG_COMPARTMENT) where the listener serves other compartments than the device's.

    A token works at the doors of its device's hospital alone, whoever carries it.
    """
    if peer is not None and peer.served_units is not None and str(device.unit) not in peer.served_units:
        msg = f"the device belongs to {device.unit}, which does not enrol here; use the listener of its hospital"
        raise NotAuthorised(Reason.WRONG_COMPARTMENT, msg)


def _may(kind: Kind) -> tuple[frozenset[DeviceState], str]:
    return (MAY_ENROL, "enrol") if kind is Kind.ENROL else (MAY_RENEW, "renew")


def _check_same_names(csr: CertificateRequest, current: PathCertificate) -> None:
    """Raises Conflict(NAMES_CHANGED) unless subject and subjectAltName are the certificate's (RFC 7030 4.2.2)."""
    is_same = decode_name(csr.subject_der).matches(current.subject)
    asked = csr.alternative_names_der
    has = current.value_of(_SUBJECT_ALT_NAME)
    if is_same and asked != has:
        is_same = asked is not None and has is not None and _same_set(asked, has)
    if not is_same:
        msg = (
            "subject or subjectAltName of the request differs from the certificate that it renews (RFC 7030 4.2.2);"
            " copy both from the certificate, or use simpleenroll"
        )
        raise Conflict(Reason.NAMES_CHANGED, msg)


def _same_set(asked_der: bytes, has_der: bytes) -> bool:
    try:
        asked = {(name.form, name.content) for name in decode_general_names(asked_der)}
    except VagusError:
        return False
    return asked == {(name.form, name.content) for name in decode_general_names(has_der)}


def _request_id(request: EnrolmentRequest, applicant: _Applicant, what: tuple[str, str], at: datetime) -> str:
    """One id for one wish: a repeated one gets the same certificate.

    A token and a key are one wish for the token's whole hour. A certificate and the same CSR octets are one wish
    within an hour of the clock: whoever repeats a year-old CSR file must get a new certificate.
    """
    device = applicant.device
    parts = [str(device.id), str(device.unit), *what, request.kind.value]
    digest = hashlib.sha256("\0".join(parts).encode() + applicant.credential)
    if applicant.token_sha256 is not None:
        digest.update(request.csr.public_key.spki_sha256)
    else:
        digest.update(hashlib.sha256(request.csr.der).digest())
        digest.update(int(at.timestamp() // _HOUR).to_bytes(8, "big"))
    return "est-" + base64.b32encode(digest.digest()).decode("ascii").rstrip("=").lower()


def _device_id_or_none(user: str | None) -> DeviceId | None:
    try:
        return None if user is None else DeviceId(user)
    except Malformed:
        return None


def _is_address(host_name: str) -> bool:
    return ":" in host_name or host_name.replace(".", "").isdigit()
