"""Certificates that an operator approves for devices without an agent: repeats, weak keys and the ledger's entry."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vagus.errors import PolicyRefusal
from vagus.fleet.devices import owner_of
from vagus.fleet.enrolment.evidence import OperatorApproval
from vagus.fleet.renewal import window_between
from vagus.fleet.tokens import SDC_LABEL, SERVER_LABEL
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.reasons import Reason
from vagus.records.certificates import BY_OPERATOR, REVOKED, SERVER_PROFILE, list_of_device
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.profiles import SDC_PROFILES

if TYPE_CHECKING:
    from vagus.fleet.enrolment.evidence import Evidence
    from vagus.policy.values import PolicyPack
    from vagus.records.devices import DeviceRow
    from vagus.records.engine.database import Connection
    from vagus.records.engine.writer import Batch

PROTOCOL: Final = BY_OPERATOR.removesuffix("-")
"""The protocol's word of an approval: request ids begin with it."""

_REQUEST_CERTIFIED, _KEY_MADE_HERE = "device-certified", "device-key-made-here"
"""Acts in the ledger; their detail is the SHA-256 of the key, as in the `issuance` entry before."""


def find_occasion(
    connection: Connection, device: DeviceRow, spki_sha256: bytes, pack: PolicyPack, *, label: str | None, at: datetime
) -> bytes:
    """What distinguishes an approval of this key now from an earlier one.

    A lost output is made again by a repeat, which must not issue a second certificate. So an occasion lasts until the
    renewal window of the certificate opens. From then on a device whose key stays the same gets its next certificate
    for the same request. Other host names of the device are another occasion too.
    """
    due = 0
    for row in list_of_device(connection, str(device.id)):
        if row.spki_sha256 != spki_sha256 or row.state == REVOKED or _label_of(row.profile) != label:
            continue
        begin, end = (datetime.fromtimestamp(moment, UTC) for moment in (row.not_before, row.not_after))
        window = window_between(begin, end, pack)
        due += row.request_id.startswith(BY_OPERATOR) and window is not None and at >= window.opens
    names = "\0".join(device.host_names) if label == SERVER_LABEL else ""
    return hashlib.sha256(f"{due}\0{names}".encode()).digest()


def _label_of(profile: str) -> str | None:
    return SERVER_LABEL if profile == SERVER_PROFILE else SDC_LABEL if profile in SDC_PROFILES else None


def check_weak_key(evidence: Evidence, algorithm: KeyAlgorithm, *, label: str | None) -> None:
    """RSA-2048, where the profile allows it at all, needs an operator who says why; a server may enrol with it as ever.

    It has 112 bits of security (SP 800-57 part 1, 5.6.1), the other keys 128 and more. Raises PolicyRefusal(WEAK_KEY).
    """
    if algorithm is not KeyAlgorithm.RSA2048:
        return
    if isinstance(evidence, OperatorApproval):
        if evidence.weak_key_reason is None:
            msg = "an rsa2048 key needs a reason for the ledger; give --reason-for-weak-key, or make a stronger key"
            raise PolicyRefusal(Reason.WEAK_KEY, msg, algorithm=algorithm)
    elif label != SERVER_LABEL:
        msg = (
            "an rsa2048 key of a device is certified by an operator alone, who gives the reason "
            "(`vagus device certify`); make a P-256 or RSA-3072 key"
        )
        raise PolicyRefusal(Reason.WEAK_KEY, msg, algorithm=algorithm)


def note_approval(batch: Batch, evidence: Evidence, spki_sha256: bytes) -> None:
    """Write who approved a certificate, in the transaction of its intent; nothing for evidence of other kinds."""
    if isinstance(evidence, OperatorApproval):
        act = _KEY_MADE_HERE if evidence.is_key_made_here else _REQUEST_CERTIFIED
        device, reason = owner_of(evidence.device_id), evidence.weak_key_reason
        append(batch, OperatorAct(act, evidence.by, subject=device, detail_sha256=spki_sha256, reason=reason))
