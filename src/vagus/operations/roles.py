"""Which role may do which act, as one table; every operation asks it first."""

from __future__ import annotations

from enum import StrEnum, unique
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from vagus.errors import NotAuthorised
from vagus.operations.actor import Role
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vagus.identifiers import UnitName
    from vagus.operations.actor import Actor


@unique
class Act(StrEnum):
    """What an operator may want to do; one act for each operation or for several that need the same right."""

    READ_DEVICES = "read devices"
    ADD_DEVICE = "add a device"
    CHANGE_DEVICE_STATE = "change the state of a device"
    TRANSFER_DEVICE = "transfer a device"
    REVOKE_DEVICE = "revoke a device"
    HOLD_DEVICE = "hold a device"
    RELEASE_DEVICE = "release a device"
    IMPORT_MANIFEST = "import a maker's manifest"
    READ_CERTIFICATES = "read certificates"
    MAKE_TOKEN = "make an enrolment token"  # noqa: S105  an act, not a secret
    READ_AUTHORITIES = "read authorities"
    ACCEPT_AUTHORITY = "accept the certificate of an authority"
    IMPORT_AUTHORITY = "import an authority"
    ROLL_AUTHORITY = "begin the next generation of an authority"
    RETIRE_AUTHORITY = "retire an authority"
    REVOKE_AUTHORITY = "revoke an authority by a sealed CRL"
    REVOKE_EARLIER = "revoke what an imported authority issued before"
    FORGET_DATES = "forget the dates of CRLs from the future"
    HOLD_CEREMONY = "hold a ceremony"
    READ_PLAN = "compare a plan"
    APPLY_PLAN = "apply a plan"
    READ_REVOCATION = "read revocation plans"
    PROPOSE_REVOCATION = "propose a revocation plan"
    APPROVE_REVOCATION = "approve a revocation plan"
    RUN_REVOCATION = "run a revocation plan"
    PAUSE_REVOCATION = "pause a revocation plan"
    STOP_REVOCATION = "stop a revocation plan"
    READ_LEDGER = "read the ledger"
    MAKE_SNAPSHOT = "make an offline snapshot"
    ISSUE_IDEVIDS = "issue birth certificates"
    TAKE_BACKUP = "take a backup"
    RESTORE = "restore a backup"
    CLOSE_GAP = "close the gap after a restore"
    DIAGNOSE = "diagnose the installation"
    BEGIN_INSTALLATION = "begin an installation"
    ADOPT_POLICY = "adopt a policy pack"
    EXPORT_INSTALLATION = "export the installation"
    UPGRADE_INSTALLATION = "upgrade the database"


_ADMINISTRATOR, _PKI, _CLINIC, _SECURITY, _AUDITOR, _LINE = Role
_PEOPLE = frozenset({_ADMINISTRATOR, _PKI, _CLINIC, _SECURITY, _AUDITOR})

# The rule of the rows: a clinical engineer moves devices through their life, a security officer ends certificates, a
# PKI operator may do both. An auditor reads everything and changes nothing. An administrator looks after the
# installation itself.
MAY: Final[Mapping[Act, frozenset[Role]]] = MappingProxyType(
    {
        Act.READ_DEVICES: _PEOPLE,
        Act.ADD_DEVICE: frozenset({_PKI, _CLINIC}),
        Act.CHANGE_DEVICE_STATE: frozenset({_PKI, _CLINIC, _SECURITY}),
        Act.TRANSFER_DEVICE: frozenset({_PKI, _CLINIC}),
        Act.REVOKE_DEVICE: frozenset({_PKI, _SECURITY}),
        Act.HOLD_DEVICE: frozenset({_PKI, _CLINIC, _SECURITY}),
        Act.RELEASE_DEVICE: frozenset({_PKI, _SECURITY}),
        Act.IMPORT_MANIFEST: frozenset({_PKI}),
        Act.READ_CERTIFICATES: _PEOPLE,
        Act.MAKE_TOKEN: frozenset({_PKI, _CLINIC}),
        Act.READ_AUTHORITIES: _PEOPLE | {_LINE},
        Act.ACCEPT_AUTHORITY: frozenset({_PKI}),
        Act.IMPORT_AUTHORITY: frozenset({_PKI}),
        Act.ROLL_AUTHORITY: frozenset({_PKI}),
        Act.RETIRE_AUTHORITY: frozenset({_PKI}),
        Act.REVOKE_AUTHORITY: frozenset({_PKI, _SECURITY}),
        Act.REVOKE_EARLIER: frozenset({_PKI, _SECURITY}),
        Act.FORGET_DATES: frozenset({_ADMINISTRATOR, _PKI}),
        Act.HOLD_CEREMONY: frozenset({_PKI}),
        Act.READ_PLAN: _PEOPLE,
        Act.APPLY_PLAN: frozenset({_ADMINISTRATOR, _PKI}),
        Act.READ_REVOCATION: _PEOPLE,
        Act.PROPOSE_REVOCATION: frozenset({_PKI, _SECURITY}),
        Act.APPROVE_REVOCATION: frozenset({_PKI, _SECURITY}),
        Act.RUN_REVOCATION: frozenset({_PKI, _SECURITY}),
        Act.PAUSE_REVOCATION: frozenset({_PKI, _SECURITY}),
        Act.STOP_REVOCATION: frozenset({_PKI, _SECURITY}),
        Act.READ_LEDGER: _PEOPLE,
        Act.MAKE_SNAPSHOT: frozenset({_PKI, _SECURITY}),
        Act.ISSUE_IDEVIDS: frozenset({_PKI, _LINE}),
        Act.TAKE_BACKUP: frozenset({_ADMINISTRATOR}),
        Act.RESTORE: frozenset({_ADMINISTRATOR}),
        Act.CLOSE_GAP: frozenset({_ADMINISTRATOR}),
        Act.DIAGNOSE: _PEOPLE,
        Act.BEGIN_INSTALLATION: frozenset({_ADMINISTRATOR}),
        Act.ADOPT_POLICY: frozenset({_ADMINISTRATOR, _PKI}),
        Act.EXPORT_INSTALLATION: _PEOPLE,
        Act.UPGRADE_INSTALLATION: frozenset({_ADMINISTRATOR}),
    }
)

OF_ONE_UNIT: Final = frozenset(
    {
        Act.READ_DEVICES,
        Act.ADD_DEVICE,
        Act.CHANGE_DEVICE_STATE,
        Act.TRANSFER_DEVICE,
        Act.REVOKE_DEVICE,
        Act.HOLD_DEVICE,
        Act.RELEASE_DEVICE,
        Act.READ_CERTIFICATES,
        Act.MAKE_TOKEN,
    }
)
"""Acts on one unit's devices: an actor with a narrower scope than the installation may do them within it."""


def check_may(actor: Actor, act: Act) -> None:
    """The first step of every operation. Raises NotAuthorised(ACT_FORBIDDEN) without a role for it.

    An act that is not `OF_ONE_UNIT` needs the whole installation as scope; the others also call `check_scope`.
    """
    if not actor.roles & MAY[act]:
        msg = f"{actor.id} may not {act}; that needs the role {' or '.join(sorted(MAY[act]))}"
        raise NotAuthorised(Reason.ACT_FORBIDDEN, msg, actor=actor.id, act=act)
    if act not in OF_ONE_UNIT and actor.scope is not None:
        msg = f"{actor.id} may not {act}; that needs the whole installation as scope, and {_spell(actor)} is given"
        raise NotAuthorised(Reason.ACT_FORBIDDEN, msg, actor=actor.id, act=act)


def check_scope(actor: Actor, unit: UnitName | None) -> None:
    """Raises NotAuthorised(ACT_FORBIDDEN) where `unit` is outside the actor's scope; None is the installation."""
    if actor.scope is not None and unit not in actor.scope:
        where = "the whole installation" if unit is None else f"unit {unit}"
        msg = f"{actor.id} may act on {_spell(actor)} and not on {where}; name one of these units"
        raise NotAuthorised(Reason.ACT_FORBIDDEN, msg, actor=actor.id, unit=None if unit is None else str(unit))


def _spell(actor: Actor) -> str:
    return ", ".join(sorted(str(unit) for unit in actor.scope or ())) or "no unit"
