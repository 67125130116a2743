"""Prepares and holds a ceremony over an installation; what a ceremony does is told in `authority.ceremony`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.authority.ceremony import Ceremony, CeremonyReport, find_pending
from vagus.authority.crls.emergency import is_ready
from vagus.authority.crls.publisher import CrlPublisher
from vagus.authority.issuers import is_live
from vagus.keystore.envelopes import EnvelopeSealer
from vagus.monitoring.status_watch import watch_crls
from vagus.records.authorities import ACTIVE, REQUESTED, list_authorities, list_children
from vagus.records.plan_rows import link_parent
from vagus.records.publications import list_facts
from vagus.wiring import Installation

if TYPE_CHECKING:
    from vagus.monitoring.unpublished_revocations import UnpublishedRevocations
    from vagus.policy.plans import PlannedAuthority
    from vagus.records.engine.writer import Batch

EMERGENCY = "emergency"
"""The name under which a passphrase source for sealed emergency lists is given."""


@dataclass(frozen=True, slots=True)
class SealedCrls:
    """The authorities beneath offline ones, by whether a sealed list could revoke them now; references."""

    ready: tuple[str, ...]
    missing: tuple[str, ...]
    outdated: tuple[str, ...]
    """A newer list is out, or it has expired, is from the future or damaged: it would be refused."""


def find_sealed(installation: Installation) -> SealedCrls:
    """Which emergency lists rest beside the offline keys. Envelopes stay closed: what is in them stands on them."""
    ready: list[str] = []
    missing: list[str] = []
    outdated: list[str] = []
    now = installation.clock.now()
    at = int(now.timestamp())
    with installation.database.reading() as connection:
        for above in list_authorities(connection):
            if not above.is_offline or not is_live(above, at):
                continue
            newest = list_facts(connection, above.id)
            folder = installation.settings.keystores / above.slug / "emergency"
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


def find_waiting(installation: Installation) -> tuple[str, ...]:
    """The authorities that wait for a ceremony: requested, or planned and offline, so that it makes their key."""
    planned = installation.planning.load_adopted().authorities() if installation.settings.plan.exists() else ()
    with installation.database.reading() as connection:
        standing = list_authorities(connection)
    alive = {row.name for row in standing if row.state in {"requested", "active"}}
    missing = [one.name for one in planned if one.kind.is_offline and one.name not in alive]
    return (*missing, *(row.reference for row in standing if row.state == REQUESTED))


def find_unpublished_offline(installation: Installation) -> tuple[UnpublishedRevocations, ...]:
    """The offline authorities whose lists lack a revocation: the next ceremony signs them."""
    with installation.database.reading() as connection:
        watched = watch_crls(connection, installation.pack, installation.clock.now(), installation.settings.keystores)
    return tuple(one for one in watched.unlisted if one.is_offline)


def find_due(installation: Installation) -> tuple[str, ...]:
    """What a ceremony held now would do for the first time: keys, certificates, lists, sealed lists. Empty: nothing.

    Lists that lack a revocation are among it.

    Requests for a CA elsewhere are not among it: no ceremony here can help them.
    """
    planned = installation.planning.load_adopted().authorities()
    installation.writer.submit(lambda batch: _link(batch, planned)).result()
    with installation.database.reading() as connection:
        standing = list_authorities(connection)
        alive = {row.name for row in standing if row.state in {REQUESTED, ACTIVE}}
        keys = [one.name for one in planned if one.kind.is_offline and one.name not in alive]
        requests = [row.reference for row in find_pending(connection)]
        offline = [row for row in standing if row.is_offline and row.state == ACTIVE]
        lists = [f"list of {row.reference}" for row in offline if not list_facts(connection, row.id)]
    lists += [f"list of {one.authority}" for one in find_unpublished_offline(installation)]
    can_seal = installation.settings.kind == "hospital" and installation.sources.find(EMERGENCY) is not None
    sealed = [f"sealed list for {name}" for name in find_sealed(installation).missing] if can_seal else []
    return (*keys, *requests, *lists, *sealed)


def hold_ceremony(installation: Installation, *, by: str, advance: Callable[[str], None]) -> CeremonyReport:
    """Make the offline keys that the plan still lacks, certify every request, sign the offline lists.

    Raises Unavailable(KEY_NOT_OPEN) without a passphrase source for an offline keystore, Conflict(CEREMONY_NEEDED)
    when no plan was applied, Conflict(RESTORE_UNSETTLED), and as `Ceremony.hold`.
    """
    installation.check_settled()
    planned = installation.planning.load_adopted().authorities()
    # 1. Offline keys are made here and nowhere else.
    waiting = set(find_waiting(installation))
    for one in planned:
        if one.kind.is_offline and one.name in waiting:
            installation.request_authority(one, by)
            advance(one.name)
    # 2. Requests that were made before the authority above them learn of it.
    installation.writer.submit(lambda batch: _link(batch, planned)).result()
    # 3. Certificates, lists, sealed lists.
    passphrase = installation.sources.find(EMERGENCY)
    sealer = None
    if passphrase is not None and installation.settings.kind == "hospital":
        sealer = EnvelopeSealer(
            passphrase,
            entropy=installation.entropy,
            kdf=installation.settings.kdf,
            unsafe_fast=installation.settings.unsafe_fast_kdf,
        )
    ceremony = Ceremony(
        installation.pack,
        installation.database,
        installation.writer,
        installation.entropy,
        issuance=installation.issuance,
        publisher=CrlPublisher(
            installation.pack,
            installation.database,
            installation.writer,
            installation.clock,
            folder=installation.settings.published,
            bound=installation.make_clock_bound(),
        ),
        keystore_of=installation.keystore,
        status_url=installation.status_url,
        by=by,
        sealer=sealer,
        is_maker=installation.settings.kind == "maker",
        advance=advance,
    )
    return ceremony.hold()


def _link(batch: Batch, planned: tuple[PlannedAuthority, ...]) -> None:
    for one in planned:
        if one.parent is not None:
            link_parent(batch.connection, one.name, one.parent)
