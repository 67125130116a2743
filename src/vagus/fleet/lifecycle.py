"""The states of a device's life and the one table of legal moves; writes nothing down and revokes nothing."""

from __future__ import annotations

from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final

from vagus.errors import Conflict, Malformed
from vagus.reasons import Reason


@unique
class DeviceState(StrEnum):
    """Where a device is in its life."""

    MANUFACTURED = "manufactured"
    SHIPPED = "shipped"
    RECEIVED = "received"
    COMMISSIONED = "commissioned"
    IN_SERVICE = "in_service"
    QUARANTINED = "quarantined"
    ON_LOAN = "on_loan"
    IN_REPAIR = "in_repair"
    RECALLED = "recalled"
    DECOMMISSIONED = "decommissioned"
    SANITISED = "sanitised"
    DISPOSED = "disposed"


_S = DeviceState

# Forwards along the chain, between service and its three interruptions, and out of every living state by recall or
# decommissioning. Quarantine can strike from any state that may connect. A recalled device that was corrected is
# received anew, so nothing reaches service without being commissioned. Nothing returns from decommissioned: keys and
# patient data are about to be destroyed (SP 800-88).
MOVES: Final = MappingProxyType(
    {
        _S.MANUFACTURED: frozenset({_S.SHIPPED, _S.RECALLED, _S.DECOMMISSIONED}),
        _S.SHIPPED: frozenset({_S.RECEIVED, _S.RECALLED, _S.DECOMMISSIONED}),
        _S.RECEIVED: frozenset({_S.COMMISSIONED, _S.RECALLED, _S.DECOMMISSIONED}),
        _S.COMMISSIONED: frozenset({_S.IN_SERVICE, _S.QUARANTINED, _S.RECALLED, _S.DECOMMISSIONED}),
        _S.IN_SERVICE: frozenset({_S.QUARANTINED, _S.ON_LOAN, _S.IN_REPAIR, _S.RECALLED, _S.DECOMMISSIONED}),
        _S.QUARANTINED: frozenset({_S.IN_SERVICE, _S.IN_REPAIR, _S.RECALLED, _S.DECOMMISSIONED}),
        _S.ON_LOAN: frozenset({_S.IN_SERVICE, _S.QUARANTINED, _S.RECALLED, _S.DECOMMISSIONED}),
        _S.IN_REPAIR: frozenset({_S.IN_SERVICE, _S.QUARANTINED, _S.RECALLED, _S.DECOMMISSIONED}),
        _S.RECALLED: frozenset({_S.RECEIVED, _S.DECOMMISSIONED}),
        _S.DECOMMISSIONED: frozenset({_S.SANITISED}),
        _S.SANITISED: frozenset({_S.DISPOSED}),
        _S.DISPOSED: frozenset(),
    }
)

MAY_ENROL: Final = frozenset({_S.RECEIVED, _S.COMMISSIONED, _S.IN_SERVICE, _S.ON_LOAN, _S.IN_REPAIR})
"""A repaired device may come back with a new board and therefore a new key."""

MAY_RENEW: Final = frozenset({_S.COMMISSIONED, _S.IN_SERVICE, _S.ON_LOAN, _S.IN_REPAIR})
"""Quarantine ends renewal at once: what is suspected gets no new certificate."""

MAY_CONNECT: Final = frozenset({_S.COMMISSIONED, _S.IN_SERVICE, _S.ON_LOAN})
"""States in which a gateway admits a device; enrolment listeners use MAY_ENROL instead."""

HAS_ENDED: Final = frozenset({_S.DECOMMISSIONED, _S.SANITISED, _S.DISPOSED})
"""States in which no certificate of the device stays valid."""

IS_LOCKED: Final = frozenset({_S.QUARANTINED, _S.RECALLED})
"""States in which a device is locked out, until an operator moves it on."""

MAY_BE_LOCKED: Final = frozenset(MOVES) - IS_LOCKED - HAS_ENDED
"""States in which a device may enrol, or may come to: a device that is on its way here is received one day."""


def locked_state(state: DeviceState) -> DeviceState | None:
    """What a device becomes that is locked out; None where it is so already, or its life has ended.

    A device that was never commissioned is recalled. Quarantine is for devices that may connect, and leads back into
    service.
    """
    if state not in MAY_BE_LOCKED:
        return None
    return _S.QUARANTINED if _S.QUARANTINED in MOVES[state] else _S.RECALLED


def decode_state(text: str) -> DeviceState:
    """The state that `text` names, with - or _ between words. Raises Malformed(BAD_ARGUMENT) naming them all."""
    try:
        return DeviceState(text.replace("-", "_"))
    except ValueError:
        msg = f"{text!r} is not a device state; choose one of {', '.join(DeviceState)}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text) from None


def check_move(before: DeviceState, after: DeviceState) -> None:
    """Raises Conflict(DEVICE_STATE) unless a device may go straight from `before` to `after`."""
    if after not in MOVES[before]:
        legal = ", ".join(sorted(MOVES[before])) or "nothing"
        msg = f"a device that is {before} cannot become {after}; from {before} it may become {legal}"
        raise Conflict(Reason.DEVICE_STATE, msg, state=before, wanted=after)


def check_may(state: DeviceState, allowed: frozenset[DeviceState], act: str) -> None:
    """Raises Conflict(DEVICE_STATE) unless a device in `state` may do `act` ("enrol", "renew", "connect")."""
    if state not in allowed:
        msg = f"the device is {state}, and only a device that is {', '.join(sorted(allowed))} may {act}"
        raise Conflict(Reason.DEVICE_STATE, f"{msg}; have its state in the inventory corrected first", state=state)
