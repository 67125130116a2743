"""Which role may do which act, as one table; every operation asks it first."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from enum import Enum, unique
from typing import TYPE_CHECKING, Final

from vagus.errors import NotAuthorised
from vagus.operations.actor import Actor, Role
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.identifiers import UnitName

_ADMINISTRATOR, _PKI, _CLINIC, _SECURITY, _AUDITOR, _LINE = Role
_PEOPLE: Final = frozenset({_ADMINISTRATOR, _PKI, _CLINIC, _SECURITY, _AUDITOR})
_UNIT: Final = True


@unique
class Act(Enum):
    """What an operator may want to do: its name in messages, the roles that may, and whether it is on one unit.

    Several operations that need the same right share an act. An actor with a narrower scope than the installation may
    do acts on one unit's devices within it, and no others. The rule of the rows: a clinical engineer moves devices
    through their life, a security officer ends certificates, a PKI operator may do both. An auditor reads everything
    and changes nothing. An administrator looks after the installation itself.
    """

    def __init__(self, text: str, roles: AbstractSet[Role], is_on_one_unit: bool = False) -> None:
        self.text = text
        self.roles = frozenset(roles)
        self.is_on_one_unit = is_on_one_unit

    READ_DEVICES = "read devices", _PEOPLE, _UNIT
    ADD_DEVICE = "add a device", {_PKI, _CLINIC}, _UNIT
    CHANGE_DEVICE_STATE = "change the state of a device", {_PKI, _CLINIC, _SECURITY}, _UNIT
    CHANGE_LOT_STATE = "change the state of many devices", {_PKI, _SECURITY}, _UNIT
    TRANSFER_DEVICE = "transfer a device", {_PKI, _CLINIC}, _UNIT
    REVOKE_DEVICE = "revoke a device", {_PKI, _SECURITY}, _UNIT
    HOLD_DEVICE = "hold a device", {_PKI, _CLINIC, _SECURITY}, _UNIT
    RELEASE_DEVICE = "release a device", {_PKI, _SECURITY}, _UNIT
    IMPORT_MANIFEST = "import a maker's manifest", {_PKI}
    READ_CERTIFICATES = "read certificates", _PEOPLE, _UNIT
    MAKE_TOKEN = "make an enrolment token", {_PKI, _CLINIC}, _UNIT
    CERTIFY_DEVICE = "certify a device's request", {_PKI}, _UNIT
    READ_AUTHORITIES = "read authorities", {*_PEOPLE, _LINE}
    ACCEPT_AUTHORITY = "accept the certificate of an authority", {_PKI}
    IMPORT_AUTHORITY = "import an authority", {_PKI}
    ROLL_AUTHORITY = "begin the next generation of an authority", {_PKI}
    RETIRE_AUTHORITY = "retire an authority", {_PKI}
    REVOKE_AUTHORITY = "revoke an authority by a sealed CRL", {_PKI, _SECURITY}
    REVOKE_EARLIER = "revoke what an imported authority issued before", {_PKI, _SECURITY}
    FORGET_DATES = "forget the dates of CRLs from the future", {_ADMINISTRATOR, _PKI}
    HOLD_CEREMONY = "hold a ceremony", {_PKI}
    READ_PLAN = "compare a plan", _PEOPLE
    APPLY_PLAN = "apply a plan", {_ADMINISTRATOR, _PKI}
    READ_REVOCATION = "read revocation plans", _PEOPLE
    PROPOSE_REVOCATION = "propose a revocation plan", {_PKI, _SECURITY}
    APPROVE_REVOCATION = "approve a revocation plan", {_PKI, _SECURITY}
    RUN_REVOCATION = "run a revocation plan", {_PKI, _SECURITY}
    PAUSE_REVOCATION = "pause a revocation plan", {_PKI, _SECURITY}
    STOP_REVOCATION = "stop a revocation plan", {_PKI, _SECURITY}
    READ_LEDGER = "read the ledger", _PEOPLE
    READ_GATEWAY_LOG = "read the log of the gateways", _PEOPLE, _UNIT
    MAKE_SNAPSHOT = "make an offline snapshot", {_PKI, _SECURITY}
    READ_IDEVIDS = "read birth certificates", {*_PEOPLE, _LINE}
    ISSUE_IDEVIDS = "issue birth certificates", {_PKI, _LINE}
    TAKE_BACKUP = "take a backup", {_ADMINISTRATOR}
    RESTORE = "restore a backup", {_ADMINISTRATOR}
    CLOSE_GAP = "close the gap after a restore", {_ADMINISTRATOR}
    MOVE_DATABASE = "move the database", {_ADMINISTRATOR}
    CHECK_KEYSTORES = "check keystores", {_ADMINISTRATOR, _PKI}
    CHANGE_PASSPHRASE = "change the passphrase of a keystore", {_ADMINISTRATOR, _PKI}
    DIAGNOSE = "diagnose the installation", _PEOPLE
    BEGIN_INSTALLATION = "begin an installation", {_ADMINISTRATOR}
    ADOPT_POLICY = "adopt a policy pack", {_ADMINISTRATOR, _PKI}
    EXPORT_INSTALLATION = "export the installation", _PEOPLE
    UPGRADE_INSTALLATION = "upgrade the database", {_ADMINISTRATOR}


def check_may(actor: Actor, act: Act) -> None:
    """The first step of every operation. Raises NotAuthorised(ACT_FORBIDDEN) without a role for it.

    An act that is not on one unit needs the whole installation as scope; the others also call `check_scope`.
    """
    if not actor.roles & act.roles:
        msg = f"actor {actor.id} may not {act.text}, which needs the role {' or '.join(sorted(act.roles))}"
        raise NotAuthorised(Reason.ACT_FORBIDDEN, msg, actor=actor.id, act=act.text)
    if not act.is_on_one_unit and actor.scope is not None:
        msg = f"actor {actor.id} may not {act.text}: that needs the whole installation as scope, not {_spell(actor)}"
        raise NotAuthorised(Reason.ACT_FORBIDDEN, msg, actor=actor.id, act=act.text)


def is_in_scope(actor: Actor, unit: UnitName | None) -> bool:
    """Whether the actor may know of what is in `unit`; None is the installation."""
    return actor.scope is None or unit in actor.scope


def check_scope(actor: Actor, unit: UnitName | None) -> None:
    """Raises NotAuthorised(ACT_FORBIDDEN) where `unit` is outside the actor's scope; None is the installation."""
    if not is_in_scope(actor, unit):
        where = "the whole installation" if unit is None else f"unit {unit}"
        msg = f"actor {actor.id} may act on {_spell(actor)} and not on {where}; name one of these units"
        raise NotAuthorised(Reason.ACT_FORBIDDEN, msg, actor=actor.id, unit=None if unit is None else str(unit))


def _spell(actor: Actor) -> str:
    return ", ".join(sorted(str(unit) for unit in actor.scope or ())) or "no unit"
