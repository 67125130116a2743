"""A gateway's decisions (admitted, refused, closed, cut) as frozen values that `server.gateway_log` records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, unique
from hashlib import sha256

from vagus.errors import VagusError
from vagus.fleet.admission import Admitted
from vagus.reasons import Reason
from vagus.tls import Peer


@unique
class Outcome(StrEnum):
    """Stable codes: rules and reports match on them."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    CLOSED = "closed"
    """An open connection was cut because its verdict no longer holds."""
    DEGRADED = "degraded"
    """An open connection goes on, marked, because the policy of its function wants that."""
    FAILED = "failed"
    """Neither side's right was in question: time-outs, broken handshakes, an upstream that is away."""


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
    leaf_sha256: bytes | None = None
    serial: int | None = None
    resumed: bool = False
    tls_version: int | None = None
    group: str | None = None
    count: int = 1
    """More than one where one decision stands for many connections that were turned away."""


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
    identity = admitted.identity if admitted is not None else None
    return ConnectionDecision(
        listener=listener,
        source=source,
        outcome=outcome,
        reason=why.reason if why is not None else None,
        detail=detail,
        device=str(identity.device_name) if identity is not None and identity.device_name is not None else None,
        leaf_sha256=sha256(peer.leaf_der).digest() if peer is not None and peer.leaf_der is not None else None,
        serial=identity.serial if identity is not None else None,
        resumed=peer.resumed if peer is not None else False,
        tls_version=peer.version if peer is not None else None,
        group=peer.group if peer is not None else None,
        count=count,
    )


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
