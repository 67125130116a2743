"""The one way in which a device obtains a certificate, whatever protocol carried its request; signs nothing itself.

Evidence proves an applicant (`evidence`). What the applicant gets follows from the inventory.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from ipaddress import ip_address
from typing import Final

from vagus.authority.issuance import Issuance, IssuanceOrder, IssuanceToken, IssuedCertificate, Prepared
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict, NotAuthorised, Refused, Unavailable, VagusError
from vagus.fleet.devices import check_known, owner_of
from vagus.fleet.enrolment.approvals import check_weak_key, note_approval
from vagus.fleet.enrolment.evidence import Applicant, Evidence, OperatorApproval, find_applicant
from vagus.fleet.enrolment.rechecks import check_not_suspended, check_same_wish, check_still_good, read_again
from vagus.fleet.enrolment.refusals import RefusalNotes
from vagus.fleet.lifecycle import MAY_ENROL, MAY_RENEW, DeviceState, check_may
from vagus.fleet.tokens import REPEAT, SDC_LABEL, SERVER_LABEL, check_token, spend_token
from vagus.identifiers import DeviceId, DeviceName
from vagus.ledger.append import append
from vagus.ledger.entries import DeviceStateChanged
from vagus.reasons import Reason
from vagus.records.devices import set_device_state
from vagus.records.engine.database import Database
from vagus.records.engine.writer import Batch, Writer
from vagus.x509.certificates import PathCertificate
from vagus.x509.names.distinguished import SubjectFields, decode_name
from vagus.x509.names.general import decode_general_names
from vagus.x509.requests import CertificateRequest

_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")  # contents of the object identifier 2.5.29.17 (subjectAltName)
_HOUR: Final = 3600


@unique
class Kind(StrEnum):
    """What is asked for. The values are hashed into request ids that databases hold: they stay."""

    ENROL = "enrol"
    RENEW = "reenrol"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """A request as a protocol decoded it.

    `protocol` is the protocol's word ("est"): request ids begin with it, and ledger entries name it. `label` is the
    protocol's name for another certificate than the device's own.
    """

    csr: CertificateRequest
    kind: Kind
    evidence: Evidence
    protocol: str
    label: str | None = None


_OF_OTHER_LABEL: Final = {
    True: f"a server certificate is renewed under the label {SERVER_LABEL!r}; add the label to the path",
    False: "the device's certificate does not renew one of a label; enrol the label anew with it (simpleenroll)",
}
_RIGHTS: Final = {Kind.ENROL: (MAY_ENROL, "enrol"), Kind.RENEW: (MAY_RENEW, "renew")}


class PendingEnrolment:
    """An intent that waits for its commit. Await `committed`, then `finish`."""

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
    ) -> None:
        self._database = database
        self._writer = writer
        self._issuance = issuance
        self._issuers = issuers
        self._group_domain = group_domain
        self._token_repeat = token_repeat
        self._notes = RefusalNotes(writer)

    def begin(self, request: EnrolmentRequest, at: datetime, *, is_patient: bool = False) -> PendingEnrolment:
        """Check evidence, state and names, prepare the certificate, and submit its intent to the writer.

        A patient request waits up to 5 ms for others to share its commit, unless the caller says `hurry` before.

        Raises NotAuthorised(CREDENTIAL_MISSING|TOKEN_*|IDENTITY_AMBIGUOUS|NOT_IN_INVENTORY|
        NOT_RENEWABLE|WRONG_COMPARTMENT),
        Conflict(DEVICE_STATE|NAMES_CHANGED), Unavailable(KEY_NOT_OPEN), and what issuance refuses. A
        refusal of a known device makes a ledger entry; `committed` may raise the same errors.
        """
        peer, protocol = request.evidence.peer, request.protocol
        who = None if peer is None or peer.device is None else peer.device.id
        try:
            # 1. Identify the applicant, and check that its device may enrol in its present state.
            applicant = find_applicant(
                self._database,
                request.evidence,
                request.csr.public_key.spki_sha256,
                at,
                is_renewal=request.kind is Kind.RENEW,
                label=request.label,
                token_repeat=self._token_repeat,
            )
            who = applicant.device.id
            # Steps 2 to 4 prepare the certificate without using a key.
            prepared = self._prepare(applicant, request, at)
        except Refused as error:
            self._note(who, protocol, error)
            raise
        # 5. Store the token's use, the device's state and the intent in one transaction.
        expected = applicant.device.id
        committed = self._writer.submit(
            lambda batch: self._record(batch, applicant, request, prepared), is_patient=is_patient
        )
        committed.add_done_callback(lambda future: self._note_failure(expected, protocol, future))
        return PendingEnrolment(committed, self._issuance.issue)

    def _prepare(self, applicant: Applicant, request: EnrolmentRequest, at: datetime) -> Prepared:
        device = applicant.device
        check_may(DeviceState(device.state), *_RIGHTS[request.kind])
        _check_served(applicant)
        # 2. Choose the names. A renewal keeps those of its certificate (RFC 7030 4.2.2); else the inventory decides.
        if request.kind is Kind.RENEW:
            self._check_renewal(request, applicant)
        # 3. Choose the profile and the issuing authority.
        order, issuer = self._order(request, applicant, at)
        # 4. Apply the policy, build the TBSCertificate and run the lints.
        prepared = self._issuance.prepare(order, issuer)
        check_weak_key(request.evidence, order.public_key.algorithm, label=request.label)
        return prepared

    def enrol(self, request: EnrolmentRequest, at: datetime) -> IssuedCertificate:
        """`begin`, wait, `finish`: for callers without an event loop."""
        pending = self.begin(request, at)
        pending.committed.result()
        return pending.finish()

    def hurry(self) -> None:
        """Commit now what was begun patiently: no other request will come to share its commit."""
        self._writer.hurry()

    # names of the new certificate

    def _check_renewal(self, request: EnrolmentRequest, applicant: Applicant) -> None:
        """A renewal is proved by the current certificate, and has its subject and subjectAltName (RFC 7030 4.2.2).

        Raises NotAuthorised(NOT_RENEWABLE), Conflict(NAMES_CHANGED).
        """
        device, current = applicant.device, applicant.current
        if current is None:
            msg = "a renewal needs the device certificate that it renews, not the maker's; enrol anew instead"
            raise NotAuthorised(Reason.NOT_RENEWABLE, msg)
        if applicant.is_server is not (request.label == SERVER_LABEL) or request.label == SDC_LABEL:
            raise NotAuthorised(Reason.NOT_RENEWABLE, _OF_OTHER_LABEL[applicant.is_server])
        if applicant.is_server:
            wanted, named = set(device.host_names), _host_names(current.path[0])
        else:
            # of an earlier certificate that was taken in, the device is known and the names are the old operator's
            wanted, named = (
                {str(DeviceName(device.id, device.unit, self._group_domain))},
                set(current.path[0].names.dns),
            )
        if named != wanted:
            names = ", ".join(sorted(wanted)) or "without a host name"
            msg = f"the inventory now names this device {names}; enrol anew to get a certificate of that name"
            raise Conflict(Reason.NAMES_CHANGED, msg)
        _check_same_names(request.csr, current.path[0])

    # profile and authority of the new certificate

    def _order(self, request: EnrolmentRequest, applicant: Applicant, at: datetime) -> tuple[IssuanceOrder, Issuer]:
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
        elif request.label == SDC_LABEL and (sdc := self._issuance.pack.rule(device.profile).sdc_profile) is not None:
            profile, authority = sdc, f"{device.unit.hospital}/sdc"
            dns_names = (str(DeviceName(device.id, device.unit, self._group_domain)),)
        else:
            msg = f"this device has no certificate of label {request.label!r} in its profile; leave the label out"
            raise NotAuthorised(Reason.NOT_FOUND, msg)
        issuer = self._issuers.get(authority)
        if issuer is None:
            msg = f"this server does not issue for authority {authority}; use the server that does (serve --issue-for)"
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

    # the one transaction that records an enrolment

    def _record(
        self,
        batch: Batch,
        applicant: Applicant,
        request: EnrolmentRequest,
        prepared: Prepared,
    ) -> IssuanceToken | IssuedCertificate:
        """Runs inside the writer's transaction. What `begin` saw may have changed since, so it is checked again."""
        # 1. Check again that the device still is what the certificate will say, and still may enrol.
        now = read_again(batch, applicant)
        device = check_known(now.device, applicant.device.id)
        state = DeviceState(device.state)
        check_may(state, *_RIGHTS[request.kind])
        if (device.unit, device.profile) != (applicant.device.unit, applicant.device.profile):
            msg = "the inventory changed the device's unit or profile during this request; send the request again"
            raise Unavailable(Reason.OVERLOADED, msg)
        # 2. Check that no certificate of the device is on hold, and that the certificate used as credential was not
        # revoked meanwhile.
        check_not_suspended(now, device)
        # 3. Check that the token is unused, or was used for this very key and certificate.
        key, token = request.csr.public_key.spki_sha256, None
        if applicant.token_sha256 is not None:
            token = check_token(now.token, key, at=batch.at, repeat=self._token_repeat)
            check_same_wish(batch.connection, token, prepared.order.request_id)
        # 4. Write the intent with its ledger entry, and bind the token to it: both are committed, or neither.
        outcome = self._issuance.record(prepared, batch)
        if isinstance(outcome, IssuedCertificate):
            check_still_good(batch.connection, outcome)
            return outcome
        note_approval(batch, request.evidence, key)
        if token is not None:
            spend_token(batch, token, key, request_id=prepared.order.request_id)
        # 5. The first certificate moves the device to the state commissioned.
        if state is DeviceState.RECEIVED:
            after = DeviceState.COMMISSIONED
            set_device_state(batch.connection, device.id, before=state, after=after, at=batch.at)
            append(batch, DeviceStateChanged(owner_of(device.id), state, after, f"rule:{request.protocol}"))
        return outcome

    # refusals of enrolment

    def _note(self, who: DeviceId | None, protocol: str, error: VagusError) -> None:
        named = error.facts.get("device")
        if who is None and isinstance(named, str):  # the token was recognised and refused, so it names the device
            who = DeviceId(named)
        if who is not None:
            self._notes.note(owner_of(who), protocol, error.reason)

    def _note_failure(self, who: DeviceId, protocol: str, future: Future[IssuanceToken | IssuedCertificate]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Refused):
            self._note(who, protocol, error)


def _check_served(applicant: Applicant) -> None:
    """Raises NotAuthorised(WRONG_COMPARTMENT) where the listener serves other compartments than the device's.

    A token works at the listeners of its device's hospital alone, whatever connection carries it.
    """
    device, served = applicant.device, applicant.served_units
    if served is not None and str(device.unit) not in served:
        msg = f"unit {device.unit} of the device does not enrol at this listener; use one that takes the unit"
        raise NotAuthorised(Reason.WRONG_COMPARTMENT, msg)


def _check_same_names(csr: CertificateRequest, current: PathCertificate) -> None:
    """Raises Conflict(NAMES_CHANGED) unless subject and subjectAltName are the certificate's (RFC 7030 4.2.2)."""
    is_same = decode_name(csr.subject_der).matches(current.subject)
    asked = csr.alternative_names_der
    has = current.value_of(_SUBJECT_ALT_NAME)
    if is_same and asked != has:
        is_same = asked is not None and has is not None and _same_set(asked, has)
    if not is_same:
        msg = "subject or subjectAltName differs from the certificate to renew; copy both from it, or enrol anew"
        raise Conflict(Reason.NAMES_CHANGED, msg)


def _same_set(asked_der: bytes, has_der: bytes) -> bool:
    try:
        asked = set(decode_general_names(asked_der))
    except VagusError:
        return False
    return asked == set(decode_general_names(has_der))


def _request_id(request: EnrolmentRequest, applicant: Applicant, what: tuple[str, str], at: datetime) -> str:
    """The id of what is wanted: a repeated request has the same id, and gets the same certificate.

    With a token, the id holds for the token's whole hour of repetition, for one token and one key. With an operator's
    approval, it holds for one key on one occasion. With a certificate,
    it holds for the same bytes of the CSR within one hour of the clock: a year-old CSR file gets a new certificate.
    """
    device = applicant.device
    parts = [str(device.id), str(device.unit), *what, request.kind.value]
    digest = hashlib.sha256("\0".join(parts).encode() + applicant.credential)
    if applicant.token_sha256 is not None or isinstance(request.evidence, OperatorApproval):
        digest.update(request.csr.public_key.spki_sha256)
    else:
        digest.update(hashlib.sha256(request.csr.der).digest())
        digest.update(int(at.timestamp() // _HOUR).to_bytes(8, "big"))
    return f"{request.protocol}-" + base64.b32encode(digest.digest()).decode("ascii").rstrip("=").lower()


def _host_names(certificate: PathCertificate) -> set[str]:
    """The host names and addresses of a server certificate, as the inventory spells them."""
    names = certificate.names
    return {*names.dns, *(str(ip_address(packed)) for packed in names.addresses)}


def _is_address(host_name: str) -> bool:
    return ":" in host_name or host_name.replace(".", "").isdigit()
