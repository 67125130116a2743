"""Ceremonies: what waits for one, and holding one; `authority.ceremony` describes what happens in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vagus.authority.ceremony import CeremonyReport, find_pending
from vagus.authority.crls.emergency import is_ready
from vagus.authority.issuers import is_live
from vagus.monitoring.status_watch import watch_crls
from vagus.operations.roles import Act, check_may
from vagus.records.authorities import ACTIVE, REQUESTED, list_authorities, list_children
from vagus.records.plan_rows import link_parent
from vagus.records.publications import list_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from vagus.authority.ceremony import Ceremony
    from vagus.clock import Clock
    from vagus.fleet.plans.planning import Planning, RequestAuthority
    from vagus.monitoring.unpublished_revocations import UnpublishedRevocations
    from vagus.operations.actor import Actor
    from vagus.policy.plans import PlannedAuthority
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Database
    from vagus.records.engine.writer import Batch, Writer
    from vagus.settings import Settings

EMERGENCY = "emergency"
"""The name under which a passphrase source for sealed emergency CRLs is given."""


class MakeCeremony(Protocol):
    """Prepares one ceremony of `by`, which reports each step to `advance`. Raises as opening its keys does."""

    def __call__(self, by: str, advance: Callable[[str], None]) -> Ceremony:
        """The ceremony, not yet held."""
        ...


@dataclass(frozen=True, slots=True)
class SealedCrls:
    """The authorities beneath offline ones, by whether a sealed CRL could revoke them now; references."""

    ready: tuple[str, ...]
    missing: tuple[str, ...]
    outdated: tuple[str, ...]
    """A newer CRL is out, or it has expired, is from the future or damaged: it would be refused."""


@dataclass(frozen=True, slots=True)
class WaitingForCeremony:
    """What the next ceremony does: certify `authorities` (names or references), sign what is `unpublished`."""

    authorities: tuple[str, ...]
    unpublished: tuple[UnpublishedRevocations, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceremonies:
    """What an operator may do with ceremonies."""

    settings: Settings
    pack: PolicyPack
    database: Database
    writer: Callable[[], Writer]
    clock: Clock
    planning: Planning
    request_authority: RequestAuthority
    can_seal: Callable[[], bool]
    """Whether a passphrase for sealed emergency CRLs is at hand."""
    make_ceremony: MakeCeremony
    check_settled: Callable[[], None]

    def find_waiting(self, actor: Actor) -> WaitingForCeremony:
        """The authorities that wait for a ceremony, and the offline ones whose CRLs lack a revocation.

        An authority waits when it is requested, or planned and offline, so that the ceremony makes its key.
        """
        check_may(actor, Act.READ_AUTHORITIES)
        return WaitingForCeremony(self._waiting(), self._unpublished())

    def hold(self, actor: Actor, *, advance: Callable[[str], None]) -> CeremonyReport:
        """Make the offline keys that the plan still lacks, certify every request, sign the CRLs of offline authorities.

        `advance` is called with the name of each finished step. Raises Unavailable(KEY_NOT_OPEN) without a passphrase
        source for an offline keystore, Conflict(CEREMONY_NEEDED) when no plan was applied,
        Conflict(RESTORE_UNSETTLED), and as `Ceremony.hold`.
        """
        check_may(actor, Act.HOLD_CEREMONY)
        self.check_settled()
        planned = self.planning.load_adopted().authorities()
        # 1. Offline keys are made here and nowhere else.
        waiting = set(self._waiting())
        for one in planned:
            if one.kind.is_offline and one.name in waiting:
                self.request_authority(one, actor.id)
                advance(one.name)
        # 2. Requests that were made before the authority above them are linked to it.
        self._link(planned)
        # 3. Certificates, CRLs, sealed CRLs.
        return self.make_ceremony(actor.id, advance).hold()

    def hold_if_due(self, actor: Actor, *, advance: Callable[[str], None]) -> CeremonyReport | None:
        """Hold a ceremony where it would do something for the first time; None where it is not due. Raises as `hold`.

        Keys, certificates, CRLs, sealed CRLs and revocations that no CRL names make it due. Requests for a CA
        elsewhere do not: no ceremony here can help them.
        """
        check_may(actor, Act.HOLD_CEREMONY)
        planned = self.planning.load_adopted().authorities()
        self._link(planned)
        with self.database.reading() as connection:
            existing = list_authorities(connection)
            alive = {row.name for row in existing if row.state in {REQUESTED, ACTIVE}}
            lacks_key = any(one.kind.is_offline and one.name not in alive for one in planned)
            offline = [row for row in existing if row.is_offline and row.state == ACTIVE]
            is_due = (
                lacks_key
                or bool(find_pending(connection))
                or any(not list_facts(connection, row.id) for row in offline)
            )
        seals = self.settings.kind == "hospital" and self.can_seal()
        if is_due or self._unpublished() or (seals and self.find_sealed().missing):
            return self.hold(actor, advance=advance)
        return None

    def find_sealed(self) -> SealedCrls:
        """Which sealed emergency CRLs lie beside the offline keys; they stay closed, their labels say enough."""
        ready: list[str] = []
        missing: list[str] = []
        outdated: list[str] = []
        now = self.clock.now()
        at = int(now.timestamp())
        with self.database.reading() as connection:
            for above in list_authorities(connection):
                if not above.is_offline or not is_live(above, at):
                    continue
                newest = list_facts(connection, above.id)
                folder = self.settings.keystores / above.slug / "emergency"
                for below in list_children(connection, above.id):
                    envelope = folder / f"{below.slug}.{below.generation}.sealed"
                    if not is_live(below, at):
                        continue
                    if not envelope.exists():
                        missing.append(below.reference)
                    elif is_ready(envelope.read_bytes(), newest, now):
                        ready.append(below.reference)
                    else:
                        outdated.append(below.reference)
        return SealedCrls(tuple(ready), tuple(missing), tuple(outdated))

    def _waiting(self) -> tuple[str, ...]:
        planned = self.planning.load_adopted().authorities() if self.settings.plan.exists() else ()
        with self.database.reading() as connection:
            existing = list_authorities(connection)
        alive = {row.name for row in existing if row.state in {REQUESTED, ACTIVE}}
        missing = [one.name for one in planned if one.kind.is_offline and one.name not in alive]
        return (*missing, *(row.reference for row in existing if row.state == REQUESTED))

    def _unpublished(self) -> tuple[UnpublishedRevocations, ...]:
        with self.database.reading() as connection:
            watched = watch_crls(connection, self.pack, self.clock.now(), self.settings.keystores)
        return tuple(one for one in watched.unpublished if one.is_offline)

    def _link(self, planned: tuple[PlannedAuthority, ...]) -> None:
        """Requests of online authorities may be made before the ceremony that makes the offline key above them."""

        def act(batch: Batch) -> None:
            for one in planned:
                if one.parent is not None:
                    link_parent(batch.connection, one.name, one.parent)

        self.writer().submit(act).result()
