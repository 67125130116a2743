"""A gateway's decisions (admitted, refused, closed, cut) as frozen values that `server.gateway_log` records."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from vagus.errors import VagusError
from vagus.fleet.admission import Admitted
from vagus.ledger.gateway_lines import Outcome
from vagus.reasons import Reason
from vagus.tls import Peer
from vagus.x509.certificates import CertificateCache

__all__ = ["ConnectionDecision", "Outcome", "Record", "decide", "device_of", "path_serials"]


@dataclass(frozen=True, slots=True)
class ConnectionDecision:
    """One decision. The recorder adds the time; no field holds free text of a peer."""

    listener: str
    source: str
    """The address that the connection came from, without its port."""
    outcome: Outcome
    reason: Reason | None
    """Why; for an admitted peer, what the grace of the policy passed over."""
    detail: str
    """Our own sentence; it may quote names from a certificate, so it stays in logs that need authorisation."""
    device: str | None = None
    """The name of the device, or its id alone where a maker's certificate proved it."""
    leaf_sha256: bytes | None = None
    serial: int | None = None
    claimed_device: str | None = None
    """The name in a certificate that no anchor of ours vouches for: anyone may write it, so it is no fact."""
    claimed_serial: int | None = None
    resumed: bool = False
    tls_version: int | None = None
    group: str | None = None
    count: int = 1
    """More than one where one decision stands for many connections that were turned away."""


# A name of the form that we issue, and no other text: what a stranger may put into the log has a form and an end.
_DEVICE_NAME: Final = re.compile(r"[a-z2-7]{25}[aeimquy4](?:\.[a-z0-9-]{1,63}){3,40}\Z")
_LONGEST_NAME: Final = 128
_SERIAL_BITS: Final = 160
_LONGEST_LEAF: Final = 10_240  # bytes of the longest leaf that is read for a name; with ML-DSA-87 ours have less
_LEAVES: Final = CertificateCache(256)
"""Leaves that were refused: a peer that is refused comes back with the same one."""

_LET_IN = frozenset({Outcome.ADMITTED, Outcome.DEGRADED})
Record = Callable[[ConnectionDecision], None]


def decide(
    listener: str,
    source: str,
    outcome: Outcome,
    *,
    peer: Peer | None = None,
    admitted: Admitted | None = None,
    error: VagusError | None = None,
    count: int = 1,
) -> ConnectionDecision:
    """A decision with all that is known of the connection."""
    why, detail = error, "" if error is None else error.message
    if why is None and outcome in _LET_IN and admitted is not None and admitted.on_grace is not None:
        why = admitted.on_grace
        detail = f"by the grace of its function's policy: {why.message}"
    device, serial = _find_proved(admitted)
    claimed_device, claimed_serial = (None, None) if serial is not None else _read_claim(peer)
    if why is not None and why.is_peer_proved and serial is None:
        device, serial, claimed_device, claimed_serial = claimed_device, claimed_serial, None, None
    return ConnectionDecision(
        listener=listener,
        source=source,
        outcome=outcome,
        reason=why.reason if why is not None else None,
        detail=detail,
        device=device,
        leaf_sha256=sha256(peer.leaf_der).digest() if peer is not None and peer.leaf_der is not None else None,
        serial=serial,
        claimed_device=claimed_device,
        claimed_serial=claimed_serial,
        resumed=peer.resumed if peer is not None else False,
        tls_version=peer.version if peer is not None else None,
        group=peer.group if peer is not None else None,
        count=count,
    )


def _find_proved(admitted: Admitted | None) -> tuple[str | None, int | None]:
    """Device and serial of a peer that was admitted, now or before."""
    if admitted is None or admitted.identity is None:
        return None, None
    name = admitted.identity.device_name
    if name is None and admitted.device is not None:
        return str(admitted.device.id), admitted.identity.serial
    return None if name is None else str(name), admitted.identity.serial


def _read_claim(peer: Peer | None) -> tuple[str | None, int | None]:
    """What the leaf of a peer says of itself: the name of a device, if it has the form of ours, and a serial."""
    if peer is None or peer.leaf_der is None or len(peer.leaf_der) > _LONGEST_LEAF:
        return None, None
    try:
        leaf = _LEAVES.decode(peer.leaf_der)
    except VagusError:
        return None, None
    name = leaf.names.dns[0] if len(leaf.names.dns) == 1 else ""
    is_ours = len(name) <= _LONGEST_NAME and _DEVICE_NAME.match(name) is not None
    return name if is_ours else None, leaf.serial if 0 <= leaf.serial < 1 << _SERIAL_BITS else None


def device_of(admitted: Admitted) -> str | None:
    """The id of the device that was admitted: the first label of the name in its certificate."""
    identity = admitted.identity
    return None if identity is None or identity.device_name is None else str(identity.device_name).partition(".")[0]


def path_serials(admitted: Admitted) -> frozenset[int]:
    """The serials of path and anchor, under which an open connection is found when one of them is revoked."""
    identity = admitted.identity
    if identity is None:
        return frozenset()
    anchor = () if identity.anchor_serial is None else (identity.anchor_serial,)
    return frozenset((*(certificate.serial for certificate in identity.path), *anchor))
