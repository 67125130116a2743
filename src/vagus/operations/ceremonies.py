"""Ceremonies: what waits for one, and holding one; `authority.ceremony` describes what happens in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.authority.ceremony import Ceremony, CeremonyReport, find_pending
from vagus.authority.crls.emergency import is_ready
from vagus.authority.crls.publisher import CrlPublisher
from vagus.authority.issuers import is_live
from vagus.components import EMERGENCY, Components
from vagus.keystore.envelopes import EnvelopeSealer
from vagus.monitoring.status_watch import watch_crls
from vagus.operations.acts import Acts
from vagus.operations.roles import Act, check_may
from vagus.records.authorities import ACTIVE, REQUESTED, AuthorityRow, list_authorities, list_children
from vagus.records.plan_rows import link_parent
from vagus.records.publications import list_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vagus.monitoring.unpublished_revocations import UnpublishedRevocations
    from vagus.operations.actor import Actor
    from vagus.policy.plans import PlannedAuthority
    from vagus.records.engine.writer import Batch


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


class Ceremonies(Acts):
    """What an operator may do with ceremonies."""

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
        self.components.set_backs.check_settled()
        planned = self.components.planning.load_adopted().authorities()
        # 1. Make keys of offline authorities: this is done in a ceremony and nowhere else.
        waiting = set(self._waiting())
        for one in planned:
            if one.kind.is_offline and one.name in waiting:
                self.components.hierarchy.request_planned(one, by=actor.id)
                advance(one.name)
        # 2. Link requests that were made before their parent authority existed to that parent.
        self._link(planned)
        # 3. Certify authorities, sign CRLs, seal emergency CRLs.
        return self._prepare(actor.id, advance).hold()

    def hold_if_due(self, actor: Actor, *, advance: Callable[[str], None]) -> CeremonyReport | None:
        """Hold a ceremony where it would do something for the first time; None where it is not due. Raises as `hold`.

        Keys, certificates, CRLs, sealed CRLs and revocations that no CRL names make it due. Requests for a CA
        elsewhere do not: no ceremony here can help them.
        """
        check_may(actor, Act.HOLD_CEREMONY)
        planned = self.components.planning.load_adopted().authorities()
        self._link(planned)
        with self.components.database.reading() as connection:
            existing = list_authorities(connection)
            offline = [row for row in existing if row.is_offline and row.state == ACTIVE]
            is_due = (
                bool(_names_without_key(planned, existing))
                or bool(find_pending(connection))
                or any(not list_facts(connection, row.id) for row in offline)
            )
        seals = self.components.settings.kind == "hospital" and self.components.sources.find(EMERGENCY) is not None
        if is_due or self._unpublished() or (seals and find_sealed(self.components).missing):
            return self.hold(actor, advance=advance)
        return None

    def _prepare(self, by: str, advance: Callable[[str], None]) -> Ceremony:
        components, settings = self.components, self.components.settings
        passphrase = components.sources.find(EMERGENCY) if settings.kind == "hospital" else None
        publisher = CrlPublisher(
            components.pack,
            components.database,
            components.writer,
            components.clock,
            folder=settings.published,
            bound=components.make_clock_bound(),
        )
        sealer = None
        if passphrase is not None:
            sealer = EnvelopeSealer(
                passphrase, entropy=components.entropy, kdf=settings.kdf, unsafe_fast=settings.unsafe_fast_kdf
            )
        return Ceremony(
            components.pack,
            components.database,
            components.writer,
            components.entropy,
            issuance=components.issuance,
            publisher=publisher,
            keystore_of=components.keystore,
            status_url=components.status_url,
            by=by,
            sealer=sealer,
            is_maker=settings.kind == "maker",
            advance=advance,
        )

    def _waiting(self) -> tuple[str, ...]:
        components = self.components
        planned = components.planning.load_adopted().authorities() if components.settings.plan.exists() else ()
        with components.database.reading() as connection:
            existing = list_authorities(connection)
        missing = _names_without_key(planned, existing)
        return (*missing, *(row.reference for row in existing if row.state == REQUESTED))

    def _unpublished(self) -> tuple[UnpublishedRevocations, ...]:
        components = self.components
        with components.database.reading() as connection:
            watched = watch_crls(connection, components.pack, components.clock.now(), components.settings.keystores)
        return tuple(one for one in watched.unpublished if one.is_offline)

    def _link(self, planned: tuple[PlannedAuthority, ...]) -> None:
        """Requests of online authorities may be made before the ceremony that makes the offline key above them."""

        def act(batch: Batch) -> None:
            for one in planned:
                if one.parent is not None:
                    link_parent(batch.connection, one.name, one.parent)

        self.components.writer.submit(act).result()


def _names_without_key(planned: Iterable[PlannedAuthority], existing: Iterable[AuthorityRow]) -> list[str]:
    """The planned offline authorities whose key no ceremony has made yet."""
    alive = {row.name for row in existing if row.state in {REQUESTED, ACTIVE}}
    return [one.name for one in planned if one.kind.is_offline and one.name not in alive]


def find_sealed(components: Components) -> SealedCrls:
    """Which sealed emergency CRLs lie beside the offline keys; they stay closed, their labels say enough."""
    ready: list[str] = []
    missing: list[str] = []
    outdated: list[str] = []
    now = components.clock.now()
    at = int(now.timestamp())
    with components.database.reading() as connection:
        for above in list_authorities(connection):
            if not above.is_offline or not is_live(above, at):
                continue
            newest = list_facts(connection, above.id)
            folder = components.settings.keystores / above.slug / "emergency"
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
