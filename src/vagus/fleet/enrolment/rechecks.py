"""The checks that an enrolment repeats inside its one transaction, after every earlier act; writes nothing."""

from __future__ import annotations

from vagus.authority.issuance import IssuedCertificate
from vagus.errors import Conflict, NotAuthorised, NotTrusted
from vagus.fleet.enrolment.evidence import Applicant
from vagus.reasons import Reason
from vagus.records import applicants
from vagus.records.applicants import ApplicantNow
from vagus.records.certificates import HELD, REVOKED, find_by_leaf, find_by_request
from vagus.records.devices import DeviceRow
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch
from vagus.records.tokens import TokenRow


def read_again(batch: Batch, applicant: Applicant) -> ApplicantNow:
    """What is on record now about the device, its token and the certificate that its connection was made with."""
    shown = None if applicant.current is None else applicant.current.leaf_sha256
    return applicants.recheck_applicant(
        batch.connection, applicant.device.id, token_sha256=applicant.token_sha256, shown_sha256=shown, at=batch.at
    )


def check_not_suspended(now: ApplicantNow, device: DeviceRow) -> None:
    """Raises NotTrusted(ON_HOLD|REVOKED): a new certificate would be the way around a hold or a revocation.

    The verdict on the connection may be older than either. The writer runs one act after the other, so this check is
    final.
    """
    if device.held_at is not None:
        msg = f"the device {device.id} is on hold, so it gets no certificate; `vagus device release` ends the hold"
        raise NotTrusted(Reason.ON_HOLD, msg, device=str(device.id))
    if now.is_held:
        msg = "a certificate of this device is on hold, so it gets no new one; release or revoke that certificate"
        raise NotTrusted(Reason.ON_HOLD, msg, device=str(device.id))
    if now.shown_state in {REVOKED, HELD}:
        is_revoked = now.shown_state == REVOKED
        remedy = "hand the device to biomedical engineering" if is_revoked else "ask the operators to release it"
        msg = f"the client certificate of the request is {now.shown_state}; {remedy}"
        raise NotTrusted(Reason.REVOKED if is_revoked else Reason.ON_HOLD, msg, device=str(device.id))


def check_same_wish(connection: Connection, token: TokenRow, request_id: str) -> None:
    """Raises NotAuthorised(TOKEN_SPENT) when a spent token asks for another certificate than the one it got.

    The hour of repetition is for a response that got lost. With another label, or after a transfer, one token would
    otherwise buy two certificates.
    """
    if token.bound_spki_sha256 is None:
        return
    found = find_by_request(connection, request_id)
    if found is None or found.leaf_index != token.certificate_leaf_index:
        msg = "the token was used for another certificate of this device; have a new token made"
        raise NotAuthorised(Reason.TOKEN_SPENT, msg, device=str(token.device_id))


def check_still_good(connection: Connection, repeated: IssuedCertificate) -> None:
    """Raises Conflict(REVOKED) when the certificate that is about to be given again was revoked meanwhile."""
    row = find_by_leaf(connection, repeated.leaf_index)
    if row is not None and row.state == REVOKED:
        msg = "the certificate that this very request obtained is revoked; make a new key and a new request"
        raise Conflict(Reason.REVOKED, msg)
