"""The kinds of evidence by which a device asks for a certificate, and the one applicant that each kind proves.

A protocol builds one of these values from its message. `find_applicant` is the only reader of them, so a new kind (a
challenge password of SCEP, an order of ACME, a MAC of CMP) is one class and one case here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from vagus.errors import Malformed, NotAuthorised
from vagus.fleet.admission import Admitted, PeerCredential
from vagus.fleet.devices import check_known
from vagus.fleet.tokens import check_token, hash_token
from vagus.identifiers import DeviceId
from vagus.reasons import Reason
from vagus.records.applicants import ApplicantRow, find_by_device, find_by_token
from vagus.records.devices import DeviceRow
from vagus.records.engine.database import Database
from vagus.records.units import UnitRow
from vagus.trust.validation import AcceptedIdentity


@dataclass(frozen=True, slots=True)
class MakerCertificate:
    """The maker's certificate (802.1AR IDevID), proved at the handshake of the connection `peer`."""

    peer: Admitted


@dataclass(frozen=True, slots=True)
class CurrentCertificate:
    """A current certificate of this installation, proved at the handshake of the connection `peer`."""

    peer: Admitted


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A current server certificate of this installation, proved at the handshake; it can renew itself and no more."""

    peer: Admitted


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A one-time token that the device sent itself.

    `user` is the name that came with the token; a device id there must be the token's. `peer` is the verdict on the
    connection, None where the protocol has none; a device there must be the token's too.
    """

    text: str = field(repr=False)
    user: str | None = None
    peer: Admitted | None = None


@dataclass(frozen=True, slots=True)
class RelayedToken:
    """A one-time token that a registration authority sent for a device, over its own connection `peer`."""

    text: str = field(repr=False)
    user: str | None
    peer: Admitted


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorApproval:
    """The approval of the operator `by` (an actor's id), who vouches that the key of the request is the device's own.

    `occasion` distinguishes it from an earlier approval of the same key: a repeat on one occasion gets the same
    certificate. `is_key_made_here` says that the operator's program made the key. `weak_key_reason` is needed for a
    key that is weaker than others.
    """

    device_id: DeviceId
    by: str
    occasion: bytes
    is_key_made_here: bool = False
    weak_key_reason: str | None = None
    peer: None = field(default=None, init=False)


Evidence = MakerCertificate | CurrentCertificate | ServerCertificate | OneTimeToken | RelayedToken | OperatorApproval


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """The device that the evidence proved.

    `credential` names the evidence in request ids: the hash of the token or certificate, or an approval's occasion.
    `token_sha256` is the token to spend, None for other evidence. `current` is the certificate of this installation
    that the connection was made with, whatever the evidence is; `is_server` says that it is a server certificate.
    `served_units` are the compartments of the listener, None for every compartment.
    """

    device: DeviceRow
    unit: UnitRow
    credential: bytes
    token_sha256: bytes | None
    current: AcceptedIdentity | None
    is_server: bool
    served_units: frozenset[str] | None


_OF_CREDENTIAL: Final[Mapping[PeerCredential, Callable[[Admitted], Evidence]]] = MappingProxyType(
    {
        PeerCredential.LDEVID: CurrentCertificate,
        PeerCredential.SERVER: ServerCertificate,
        PeerCredential.IDEVID: MakerCertificate,
    }
)


def read_evidence(peer: Admitted | None, token: str | None = None, user: str | None = None) -> Evidence:
    """The evidence in a TLS connection and in the token, if any, of one request. A token outranks the connection.

    Raises NotAuthorised(CREDENTIAL_MISSING).
    """
    if token is not None:
        if peer is not None and peer.is_registration_authority:
            return RelayedToken(token, user, peer)
        return OneTimeToken(token, user, peer)
    if peer is None or peer.device is None or peer.identity is None:
        msg = "the enrolment request has no credential; show a client certificate, or send a one-time token"
        raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
    return _OF_CREDENTIAL[peer.credential](peer)


def find_applicant(
    database: Database,
    evidence: Evidence,
    spki_sha256: bytes,
    at: datetime,
    *,
    is_renewal: bool,
    token_repeat: timedelta,
    label: str | None = None,
) -> Applicant:
    """The one device that the evidence speaks for. `spki_sha256` is the key that asks; a token is bound to one key.

    A token that was made for both certificates of a server has a use of its own for the `label`.

    Raises NotAuthorised(CREDENTIAL_MISSING|TOKEN_*|NOT_RENEWABLE|IDENTITY_AMBIGUOUS|NOT_IN_INVENTORY).
    """
    peer, token_sha256 = evidence.peer, None
    match evidence:
        case OneTimeToken() | RelayedToken():
            if is_renewal:
                msg = "a renewal needs the certificate that it renews, not a token; enrol anew instead"
                raise NotAuthorised(Reason.NOT_RENEWABLE, msg)
            labelled = None if label is None else find_by_token(database, hash_token(evidence.text, label))
            found = labelled or find_by_token(database, hash_token(evidence.text)) or ApplicantRow(None, None)
            row = check_token(found.token, spki_sha256, at=int(at.timestamp()), repeat=token_repeat)
            _check_bearer(evidence, row.device_id)
            device_id, credential, token_sha256 = row.device_id, row.token_sha256, row.token_sha256
        case MakerCertificate() | CurrentCertificate() | ServerCertificate():
            if isinstance(evidence, ServerCertificate) and not is_renewal:
                msg = "a server certificate only renews itself; enrol with the device's certificate or a one-time token"
                raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
            device_id, credential = _check_certificate(evidence.peer, is_renewal=is_renewal)
            found = find_by_device(database, device_id)
        case OperatorApproval():
            device_id, credential = evidence.device_id, evidence.occasion
            found = find_by_device(database, device_id)
    device, unit = check_known(found.device, device_id), found.unit
    if unit is None:
        msg = f"unit {device.unit} of the device is not in the database; apply the plan that has it"
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg)
    return Applicant(
        device=device,
        unit=unit,
        credential=credential,
        token_sha256=token_sha256,
        current=None if peer is None or peer.credential is PeerCredential.IDEVID else peer.identity,
        is_server=peer is not None and peer.credential is PeerCredential.SERVER,
        served_units=None if peer is None else peer.served_units,
    )


def _check_certificate(peer: Admitted, *, is_renewal: bool) -> tuple[DeviceId, bytes]:
    """The device of the connection and the hash of its certificate. Raises NotAuthorised(CREDENTIAL_MISSING)."""
    if peer.device is None or peer.identity is None:
        raise NotAuthorised(Reason.CREDENTIAL_MISSING, "the client certificate names no device; use a device's own")
    if peer.is_registration_authority and not is_renewal:
        msg = "the registration authority sent no device token; it must send one with each request it relays"
        raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
    return peer.device.id, peer.identity.leaf_sha256


def _check_bearer(evidence: OneTimeToken | RelayedToken, device_id: DeviceId) -> None:
    """Raises NotAuthorised(IDENTITY_AMBIGUOUS) when the connection or the user name says another device.

    A registration authority carries tokens of other devices, so its own certificate says nothing here.
    """
    peer, named = evidence.peer, _read_device_id(evidence.user)
    others = [named] if named is not None else []
    if peer is not None and peer.device is not None and not peer.is_registration_authority:
        others.append(peer.device.id)
    if any(other != device_id for other in others):
        msg = "the token belongs to another device than the client certificate or user name; send one of them"
        raise NotAuthorised(Reason.IDENTITY_AMBIGUOUS, msg)


def _read_device_id(user: str | None) -> DeviceId | None:
    try:
        return None if user is None else DeviceId(user)
    except Malformed:
        return None
