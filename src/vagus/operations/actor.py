"""Who acts: the person or program that asks for an operation, with roles and scope; authenticates nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vagus.identifiers import UnitName


@unique
class Role(StrEnum):
    """What a person or program is here to do; `operations.roles` holds what each may do."""

    ADMINISTRATOR = "administrator"
    PKI_OPERATOR = "pki_operator"
    CLINICAL_ENGINEER = "clinical_engineer"
    SECURITY_OFFICER = "security_officer"
    AUDITOR = "auditor"
    MAKER_LINE = "maker_line"


@unique
class ActorKind(StrEnum):
    """How an actor was identified."""

    LOCAL_ACCOUNT = "local account"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for an operation.

    `id` is what ledger entries carry, as in `operator:anna`. `scope` names the units to whose devices the actor is
    bound; None is the whole installation.
    """

    id: str
    kind: ActorKind
    roles: frozenset[Role]
    scope: frozenset[UnitName] | None = None
