"""What the gate decided, one frozen value each, and what it must know of whom it admits; stores nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from hashlib import sha256
from typing import Protocol

from vagus.errors import VagusError
from vagus.reasons import Reason
from vagus.tls import Peer


class PathLink(Protocol):
    """One certificate of a validated path."""

    @property
    def der(self) -> bytes:
        """The certificate."""
        ...

    @property
    def serial(self) -> int:
        """Its serial number."""
        ...


class GuestIdentity(Protocol):
    """Whom the validator found: `trust.validation.AcceptedIdentity` is one."""

    @property
    def device_name(self) -> object | None:
        """The device's name, which `str` writes out."""
        ...

    @property
    def path(self) -> Sequence[PathLink]:
        """The validated path, leaf first."""
        ...

    @property
    def anchor_serial(self) -> int | None:
        """The serial number of the anchor's own certificate, if it has one."""
        ...


class Guest(Protocol):
    """Whoever was admitted: `fleet.admission.Admitted` is one."""

    @property
    def identity(self) -> GuestIdentity | None:
        """None for a peer that showed no certificate and needs none here."""
        ...

    @property
    def session_on_revocation(self) -> str:
        """`close` or `degrade`: what becomes of an open connection once this verdict no longer holds."""
        ...

    @property
    def on_grace(self) -> VagusError | None:
        """Why it would be refused, were it not for a grace that the policy gives; None: it passed without."""
        ...


@unique
class Outcome(StrEnum):
    """Stable codes: rules and reports match on them."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    CLOSED = "closed"
    """An open connection was cut because its verdict no longer holds."""
    DEGRADED = "degraded"
    """An open connection goes on, marked, because the policy of its function says so."""
    FAILED = "failed"
    """Neither side's right was in question: time-outs, broken handshakes, an upstream that is away."""


@dataclass(frozen=True, slots=True)
class ConnectionDecision:
    """One decision of the gate. The recorder stamps it with the time; nothing here is a peer's free text."""

    listener: str
    source: str
    """The address that the connection came from, without its port."""
    outcome: Outcome
    reason: Reason | None
    """Why; of somebody who was let in, what the grace of the policy passed over."""
    detail: str
    """Our own sentence; it may quote names from a certificate, so it stays in logs that need authorisation."""
    device: str | None = None
    leaf_sha256: bytes | None = None
    serial: int | None = None
    resumed: bool = False
    tls_version: int | None = None
    group: str | None = None
    count: int = 1
    """More than one where a flood is told in one sentence."""


_LET_IN = frozenset({Outcome.ADMITTED, Outcome.DEGRADED})
Record = Callable[[ConnectionDecision], None]


def decide(
    listener: str,
    source: str,
    outcome: Outcome,
    *,
    peer: Peer | None = None,
    guest: Guest | None = None,
    error: VagusError | None = None,
    detail: str = "",
    count: int = 1,
) -> ConnectionDecision:
    """A decision with all that is known of the connection."""
    why = error
    if why is None and outcome in _LET_IN and guest is not None and guest.on_grace is not None:
        why = guest.on_grace
        detail = f"by the grace of its function's policy: {why.message}"
    identity = guest.identity if guest is not None else None
    return ConnectionDecision(
        listener=listener,
        source=source,
        outcome=outcome,
        reason=why.reason if why is not None else None,
        detail=error.message if error is not None else detail,
        device=str(identity.device_name) if identity is not None and identity.device_name is not None else None,
        leaf_sha256=sha256(peer.leaf_der).digest() if peer is not None and peer.leaf_der is not None else None,
        serial=identity.path[0].serial if identity is not None and identity.path else None,
        resumed=peer.resumed if peer is not None else False,
        tls_version=peer.version if peer is not None else None,
        group=peer.group if peer is not None else None,
        count=count,
    )


def device_of(guest: Guest) -> str | None:
    """The id of the device that was let in: the first label of its name (design section 4)."""
    identity = guest.identity
    return None if identity is None or identity.device_name is None else str(identity.device_name).partition(".")[0]


def path_serials(guest: Guest) -> frozenset[int]:
    """The serials of path and anchor, under which an open connection is found when one of them is revoked."""
    identity = guest.identity
    if identity is None:
        return frozenset()
    anchor = () if identity.anchor_serial is None else (identity.anchor_serial,)
    return frozenset((*(link.serial for link in identity.path), *anchor))
