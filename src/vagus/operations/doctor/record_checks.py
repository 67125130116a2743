"""Checks of what the database says: ledger, restore, ceremonies, authorities, makers' CRLs, jobs, sealed CRLs."""

from __future__ import annotations

from collections.abc import Iterator

from vagus.authority.ocsp.responders import OCSP_KEYSTORE
from vagus.authority.open_intents import find_old, load_open
from vagus.components import EMERGENCY, Components
from vagus.fleet.maker_crls import FOLDER, MakerCrls
from vagus.fleet.verifier_memory import ReadOnlyCrlMemory
from vagus.ledger.entries import decode_entry
from vagus.ledger.publish import load_published
from vagus.operations.ceremonies import find_sealed
from vagus.operations.doctor.findings import Finding, State, some_of, spell_time
from vagus.records.authorities import ACTIVE, REQUESTED, list_authorities
from vagus.records.log import iterate_leaves, load_head
from vagus.records.models import list_maker_anchors
from vagus.records.work import list_given_up, list_overdue
from vagus.tlog.checkpoint import NoteKey
from vagus.trust.anchors import ClockFloor

_NO_EXPIRY = 253402300799
_WORK_REPORTED = 7 * 86_400
_WORK_PATIENCE = 3_600
_PUBLISH_PATIENCE = 600


def check_ledger(components: Components) -> Iterator[Finding]:
    """The entries of the ledger are published soon."""
    published = load_published(components.settings.log, NoteKey.decode(components.log_verifier))
    with components.database.reading() as connection:
        head = load_head(connection)
        first = 0 if published is None else published.size
        waiting = [leaf.entry for leaf in iterate_leaves(connection, first, min(first + 1, head.size))]
    since = decode_entry(waiting[0]).at if waiting else None
    if published is None and _is_status_node(components):
        yield Finding("ledger", State.WELL, f"{head.size} entries; a status node publishes none")
    elif published is None:
        remedy = "vagus serve --passphrase-source log=fd:N publishes them"
        yield Finding("ledger", State.WARNING, f"{head.size} entries, none published", remedy)
    elif published.size > head.size:
        finding = f"{head.size} entries, but {published.size} were published"
        yield Finding("ledger", State.FAILING, finding, "entries were lost: vagus audit verify")
    elif since is not None and since < components.clock.now().timestamp() - _PUBLISH_PATIENCE:
        finding = f"{head.size - published.size} entries since {spell_time(since)} are in no checkpoint"
        remedy = "vagus serve --passphrase-source log=fd:N publishes them"
        yield Finding("ledger", State.WARNING, finding, remedy)
    else:
        yield Finding("ledger", State.WELL, f"{head.size} entries, {published.size} published")


def check_restore(components: Components) -> Iterator[Finding]:
    """No gap is open after a restore."""
    restored_at = components.row.restored_at
    if restored_at is not None:
        finding = f"restored at {spell_time(restored_at)}, the gap is open: nothing is issued"
        yield Finding("restore", State.FAILING, finding, "vagus restore-gap")


def check_ceremonies(components: Components) -> Iterator[Finding]:
    """No authority waits for its certificate."""
    with components.database.reading() as connection:
        waiting = [row.reference for row in list_authorities(connection, state=REQUESTED)]
    if waiting:
        finding = f"{len(waiting)} authorities wait for their certificate: {', '.join(waiting[:5])}"
        yield Finding("ceremony", State.WARNING, finding, "vagus ceremony")


def check_authorities(components: Components) -> Iterator[Finding]:
    """Who can still issue for how long; re-keying falls due before expiry."""
    now = int(components.clock.now().timestamp())
    sound = 0
    with components.database.reading() as connection:
        active = list_authorities(connection, state=ACTIVE)
    for row in active:
        if row.not_after is None or row.not_after >= _NO_EXPIRY:
            sound += 1
            continue
        left = row.not_after - now
        rule = components.pack.authorities.of_kind(row.kind, is_maker=components.settings.kind == "maker")
        since = row.not_before
        state, remedy = State.WARNING, f"vagus ca roll {row.name}"
        if left <= 0:
            state, finding = State.FAILING, f"{row.reference} expired at {spell_time(row.not_after)}"
        elif rule.rekey_after is not None and since is not None and now >= since + rule.rekey_after.total_seconds():
            finding = f"{row.reference} is due for a new key"
        elif left < 365 * 86400:
            finding = f"{row.reference} ends at {spell_time(row.not_after)}"
        else:
            sound += 1
            continue
        yield Finding("authorities", state, finding, remedy)
    if sound:
        yield Finding("authorities", State.WELL, f"{sound} active, none near its end")


def check_unsigned(components: Components) -> Iterator[Finding]:
    """No certificate waits for its signature: OCSP responds tryLater for it, as long as that lasts."""
    found = load_open(components.database)
    if old := find_old(components.database, found, components.clock.now().timestamp()):
        finding = f"{found.describe(old)}; OCSP responds tryLater for them"
        yield Finding("signatures", State.WARNING, finding, found.find_remedy(old))


def check_makers(components: Components) -> Iterator[Finding]:
    """The CRLs of makers, read as `vagus serve` reads them; no mark of them is stored."""
    memory = ReadOnlyCrlMemory(components.database)
    crls = MakerCrls(components.settings.folder / FOLDER, memory, ClockFloor(), components.clock.now)
    with components.database.reading() as connection:
        crls.read([row.certificate_der for row in list_maker_anchors(connection)])
    problems = crls.problems()
    if not problems:
        yield Finding("makers' lists", State.WELL, f"{crls.count} CRLs of makers can be read and are fresh")
    for about, what in problems.items():
        remedy = f"bring the maker's newest CRL, or remove {about}"
        yield Finding("makers' lists", State.WARNING, f"{about}: {what}", remedy)


def check_work(components: Components) -> Iterator[Finding]:
    """Durable jobs that failed for good, and those that no process takes."""
    now = int(components.clock.now().timestamp())
    with components.database.reading() as connection:
        given_up = list_given_up(connection, since=now - _WORK_REPORTED)
        waiting = list_overdue(connection, before=now - _WORK_PATIENCE, at=now)
    for one in given_up[:5]:
        finding = f"{one.kind} {one.key} was given up at {spell_time(one.done_at)}: {one.error}"
        yield Finding("work", State.WARNING, finding, "repair the cause, then ask for it again")
    if waiting:
        finding = f"{len(waiting)} jobs have waited for an hour or more: {some_of(waiting)}"
        yield Finding("work", State.WARNING, finding, "vagus serve runs them")


def check_emergency_crls(components: Components) -> Iterator[Finding]:
    """Whether each subordinate of an offline authority could be revoked now, without the key of the one above it."""
    # sealed emergency CRLs lie beside the offline keys, which a status node does not have
    if components.settings.kind != "hospital" or _is_status_node(components):
        return
    found = find_sealed(components)
    remedy = f"vagus ceremony --passphrase-source {EMERGENCY}=fd:N"
    if found.missing:
        finding = f"no sealed emergency CRL could revoke {some_of(found.missing)} without the key above it"
        yield Finding("emergency lists", State.WARNING, finding, remedy)
    if found.outdated:
        finding = (
            f"newer CRLs are out than those sealed for {some_of(found.outdated)}, or these expired or are from the "
            "future: they are refused"
        )
        yield Finding("emergency lists", State.WARNING, finding, remedy)
    if found.ready:
        finding = f"{len(found.ready)} authorities can be revoked without the key above"
        yield Finding("emergency lists", State.WELL, finding)


def _is_status_node(components: Components) -> bool:
    """Whether this is the folder of a status node: it has no keystore but the responders'."""
    folder = components.settings.keystores
    return folder.is_dir() and [one.name for one in folder.iterdir() if one.is_dir()] == [OCSP_KEYSTORE]
