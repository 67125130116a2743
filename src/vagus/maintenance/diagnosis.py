"""What `vagus doctor` looks at: each check gives a finding and a remedy; repairs nothing."""

from __future__ import annotations

import os
import stat
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial

from vagus.authority.ocsp.responders import OCSP_KEYSTORE
from vagus.errors import VagusError
from vagus.fleet.maker_crls import FOLDER, MakerCrls
from vagus.fleet.verifier_memory import ReadOnlyCrlMemory, set_floor
from vagus.keystore.software import has_strong_derivation
from vagus.ledger.entries import decode_entry
from vagus.ledger.publish import load_published
from vagus.monitoring.http_fetch import HttpFetch
from vagus.monitoring.prober import Prober
from vagus.monitoring.status_watch import watch_crls
from vagus.operations.ceremonies import EMERGENCY
from vagus.operations.local_account import has_login
from vagus.reasons import Reason
from vagus.records.authorities import ACTIVE, REQUESTED, AuthorityRow, list_authorities
from vagus.records.log import iterate_leaves, load_head
from vagus.records.models import list_maker_anchors
from vagus.records.work import list_given_up, list_overdue
from vagus.tlog.checkpoint import NoteKey
from vagus.trust.anchors import ClockFloor
from vagus.wiring import Installation

_FSYNC_ROUNDS = 15
_SLOW_FSYNC_MS = 20.0
_CLOCK_SLACK = timedelta(minutes=5)
_NO_EXPIRY = 253402300799
_WORK_TOLD = 7 * 86_400
_WORK_PATIENCE = 3_600
_PUBLISH_PATIENCE = 600


class State(StrEnum):
    """How a check came out."""

    WELL = "well"
    WARNING = "warning"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table; `remedy` is empty where all is well."""

    check: str
    state: State
    finding: str
    remedy: str = ""


def diagnose(installation: Installation, *, connect_to: tuple[str, int] | None = None) -> Iterator[Finding]:
    """Every finding, in the order of what stands on what. A check that fails to run is itself a finding.

    `connect_to` is whom to ask for what is published in place of the status URL's own host.
    """
    checks: tuple[tuple[str, Callable[[Installation], Iterator[Finding]]], ...] = (
        ("permissions", _permissions),
        ("operators", _operators),
        ("policy pack", _policy),
        ("database", _durability),
        ("fsync", _fsync),
        ("clock", _clock),
        ("ledger", _ledger),
        ("restore", _restore),
        ("ceremony", _ceremonies),
        ("authorities", _authorities),
        ("makers' lists", _makers),
        ("work", _work),
        ("emergency lists", _emergency_lists),
        ("status", _status),
        ("published", partial(_published, connect_to=connect_to)),
    )
    for name, check in checks:
        try:
            yield from check(installation)
        except VagusError as error:
            yield Finding(name, State.FAILING, error.message)
        except OSError as error:
            yield Finding(name, State.FAILING, f"{error.filename or ''}: {error.strerror or error}")


def _permissions(installation: Installation) -> Iterator[Finding]:
    """Secrets are the owner's alone."""
    settings = installation.settings
    wanted = [(settings.folder, 0o700), (settings.keystores, 0o700)]
    wanted.append((settings.folder / "vagus.toml", 0o600))
    if settings.database_file is not None:
        wanted.append((settings.database_file, 0o600))
    if settings.keystores.is_dir():
        wanted += [(path, 0o700 if path.is_dir() else 0o600) for path in sorted(settings.keystores.rglob("*"))]
    open_to_others = [
        (path, mode) for path, mode in wanted if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077 & ~mode
    ]
    if not open_to_others:
        yield Finding("permissions", State.WELL, f"{len(wanted)} files and folders are their owner's alone")
    for path, mode in open_to_others:
        shown = stat.S_IMODE(path.stat().st_mode)
        yield Finding("permissions", State.FAILING, f"{path} has mode {shown:04o}", f"chmod {mode:04o} {path}")


def _operators(installation: Installation) -> Iterator[Finding]:
    """Two approvals are two people only where the system can tell them apart."""
    if has_login():
        yield Finding("operators", State.WELL, f"the login that acts here is {installation.actor.id}")
        return
    finding = (
        f"no login is known to the kernel: all who act this way are {installation.actor.id}, one person, and what "
        f"needs two approvals waits for another"
    )
    remedy = "log in on the host, where PAM has pam_loginuid, and run vagus from there by sudo -u: not in a container"
    yield Finding("operators", State.WARNING, finding, remedy)


def _policy(installation: Installation) -> Iterator[Finding]:
    pack = installation.pack
    adopted = installation.row.policy_sha256
    if adopted is not None and adopted.hex() != pack.sha256:
        finding = f"the pack in use ({pack.name} {pack.version}) is not the one that the ledger knows"
        yield Finding("policy pack", State.WARNING, finding, "vagus serve adopts it")
    else:
        yield Finding("policy pack", State.WELL, f"{pack.name} {pack.version}")
    if not pack.is_production_arc:
        finding = f"OID arc {pack.arc} is for documentation"
        yield Finding("policy pack", State.WARNING, finding, "name a pack with your own arc before production")
    folders = sorted(path.parent for path in installation.settings.keystores.glob("*/keystore.toml"))
    weak = [folder.name for folder in folders if not has_strong_derivation(folder)]
    if weak or installation.settings.unsafe_fast_kdf:
        made = f" ({', '.join(weak)})" if weak else ""
        finding = f"keystores are made with a weak derivation{made}"
        yield Finding("keystores", State.WARNING, finding, "only for tests: begin a new installation for production")


def _durability(installation: Installation) -> Iterator[Finding]:
    installation.database.check_schema()
    installation.database.check_durability()
    settings = ", ".join(f"{name} {value}" for name, value in installation.database.describe_durability())
    yield Finding("database", State.WELL, f"durable: {settings}")


def _fsync(installation: Installation) -> Iterator[Finding]:
    """The floor under every answer: how long this disk takes to keep a promise."""
    place = installation.settings.database_file
    folder = installation.settings.folder if place is None else place.parent
    times: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_FSYNC_ROUNDS):
            file.write(bytes(4096))
            file.flush()
            begun = time.monotonic()
            os.fdatasync(file.fileno())
            times.append((time.monotonic() - begun) * 1000)
    median = statistics.median(times)
    if median > _SLOW_FSYNC_MS:
        remedy = "answers wait for it: put the database on a faster disk"
        yield Finding("fsync", State.WARNING, f"{median:.2f} ms", remedy)
    else:
        yield Finding("fsync", State.WELL, f"{median:.2f} ms (slowest of {_FSYNC_ROUNDS}: {max(times):.2f} ms)")


def _clock(installation: Installation) -> Iterator[Finding]:
    """A clock behind the newest entry of the ledger or the newest list was set back, or it ran ahead before."""
    now = installation.clock.now()
    set_floor(dated := ClockFloor(slack=_CLOCK_SLACK), installation.database)
    with installation.database.reading() as connection:
        size = load_head(connection).size
        newest = [leaf.entry for leaf in iterate_leaves(connection, max(0, size - 1), size)]
    floor = datetime.fromtimestamp(decode_entry(newest[0]).at, UTC) if newest else now
    if now + _CLOCK_SLACK < floor:
        finding = (
            f"the clock shows {now:%Y-%m-%d %H:%M:%S}Z, the ledger's newest entry is of {floor:%Y-%m-%d %H:%M:%S}Z"
        )
        yield Finding("clock", State.FAILING, finding, "set the clock before anything is issued")
    if now < dated.opens_at:
        finding = (
            f"the clock shows {now:%Y-%m-%d %H:%M:%S}Z, a list is dated {dated.moment:%Y-%m-%d %H:%M:%S}Z: doors "
            f"refuse every certificate until {dated.opens_at:%Y-%m-%d %H:%M:%S}Z"
        )
        yield Finding("clock", State.FAILING, finding, "set the clock; where it is right now: vagus ca forget-dates")
    elif now + _CLOCK_SLACK >= floor:
        installation.make_clock_bound().check_only()
        yield Finding("clock", State.WELL, f"{now:%Y-%m-%d %H:%M:%S}Z, behind no entry of the ledger")


def _ledger(installation: Installation) -> Iterator[Finding]:
    published = load_published(installation.settings.log, NoteKey.decode(installation.log_verifier))
    with installation.database.reading() as connection:
        head = load_head(connection)
        first = 0 if published is None else published.size
        waiting = [leaf.entry for leaf in iterate_leaves(connection, first, min(first + 1, head.size))]
    since = decode_entry(waiting[0]).at if waiting else None
    if published is None and _is_node(installation):
        yield Finding("ledger", State.WELL, f"{head.size} entries; a status node publishes none")
    elif published is None:
        remedy = "vagus serve --passphrase-source log=fd:N publishes them"
        yield Finding("ledger", State.WARNING, f"{head.size} entries, none published", remedy)
    elif published.size > head.size:
        finding = f"{head.size} entries, but {published.size} were published"
        yield Finding("ledger", State.FAILING, finding, "entries were lost: vagus audit verify")
    elif since is not None and since < installation.clock.now().timestamp() - _PUBLISH_PATIENCE:
        finding = f"{head.size - published.size} entries since {_spell(since)} are in no checkpoint"
        remedy = "vagus serve --passphrase-source log=fd:N publishes them"
        yield Finding("ledger", State.WARNING, finding, remedy)
    else:
        yield Finding("ledger", State.WELL, f"{head.size} entries, {published.size} published")


def _restore(installation: Installation) -> Iterator[Finding]:
    restored_at = installation.row.restored_at
    if restored_at is not None:
        finding = f"restored at {_spell(restored_at)}, the gap is open: nothing is issued"
        yield Finding("restore", State.FAILING, finding, "vagus restore-gap")


def _ceremonies(installation: Installation) -> Iterator[Finding]:
    with installation.database.reading() as connection:
        waiting = [row.reference for row in list_authorities(connection, state=REQUESTED)]
    if waiting:
        finding = f"{len(waiting)} authorities wait for their certificate: {', '.join(waiting[:5])}"
        yield Finding("ceremony", State.WARNING, finding, "vagus ceremony")


def _authorities(installation: Installation) -> Iterator[Finding]:
    """Who can still issue for how long; re-keying falls due before expiry."""
    now = int(installation.clock.now().timestamp())
    sound = 0
    for row in _active(installation):
        if row.not_after is None or row.not_after >= _NO_EXPIRY:
            sound += 1
            continue
        left = row.not_after - now
        rule = installation.pack.authorities.of_kind(row.kind, is_maker=installation.settings.kind == "maker")
        rekey_at = (
            None
            if rule.rekey_after is None or row.not_before is None
            else row.not_before + int(rule.rekey_after.total_seconds())
        )
        remedy = f"vagus ca roll {row.name}"
        if left <= 0:
            yield Finding("authorities", State.FAILING, f"{row.reference} expired at {_spell(row.not_after)}", remedy)
        elif rekey_at is not None and now >= rekey_at:
            yield Finding("authorities", State.WARNING, f"{row.reference} is due for a new key", remedy)
        elif left < 365 * 86400:
            yield Finding("authorities", State.WARNING, f"{row.reference} ends at {_spell(row.not_after)}", remedy)
        else:
            sound += 1
    if sound:
        yield Finding("authorities", State.WELL, f"{sound} active, none near its end")


def _status(installation: Installation) -> Iterator[Finding]:
    """A stale list locks out every good device, so it is told long before."""
    with installation.database.reading() as connection:
        watched = watch_crls(connection, installation.pack, installation.clock.now(), installation.settings.keystores)
    for waits in watched.unpublished:
        yield Finding("CRL", State.FAILING, waits.sentence, waits.remedy)
    for one in watched.crls:
        if one.is_due:
            state = State.FAILING if one.seconds_left <= 0 else State.WARNING
            yield Finding("CRL", state, one.sentence, one.remedy)
    for reference in watched.expired_responders:
        remedy = f"vagus serve --issue-for {reference.partition('#')[0]}"
        yield Finding("OCSP", State.FAILING, f"the responder of {reference} expired", remedy)
    if watched.without_crl:
        finding = (
            f"{len(watched.without_crl)} authorities have published no list yet: {', '.join(watched.without_crl[:5])}"
        )
        yield Finding("CRL", State.WARNING, finding, "vagus serve --issue-for NAME")
    fresh = sum(not one.is_due for one in watched.crls)
    if fresh:
        yield Finding("CRL", State.WELL, f"{fresh} lists are fresh")


def _published(installation: Installation, connect_to: tuple[str, int] | None) -> Iterator[Finding]:
    """What a relying party gets at the status URL, held against the table."""
    if not installation.settings.plan.exists():
        return
    fetch = HttpFetch(connect_to, seconds=3.0)
    url = installation.status_url
    prober = Prober(
        installation.pack,
        installation.database,
        installation.clock,
        installation.entropy,
        fetch,
        status_url=url,
        writer=None,
    )
    asked = url if connect_to is None else f"{_spell_address(*connect_to)} for {url}"
    if not prober.is_reachable():
        finding = f"nobody answers at {url}, where certificates say that lists and answers are"
        remedy = "vagus serve; or name its address: --status-address"
        if connect_to is not None:
            finding = f"nobody answers at {_spell_address(*connect_to)}, which was asked in place of {url}"
            remedy = "vagus serve; --status-address names where it serves status over plain HTTP"
        yield Finding("published", State.WARNING, finding, remedy)
        return
    with installation.database.reading() as connection:
        watched = watch_crls(connection, installation.pack, installation.clock.now(), installation.settings.keystores)
    remedies = {f"{url}/crl/{one.slug}/{one.generation}": one.remedy for one in watched.unpublished}
    report = prober.probe()
    for one in report.defects:
        remedy = f"reason {one.reason.value}"
        if one.reason is Reason.STATUS_INCOMPLETE:
            remedy = remedies.get(one.place.rpartition("/")[0], remedy)
        yield Finding("published", State.FAILING, f"{one.place}: {one.sentence}", remedy)
    if not report.defects:
        finding = f"{report.crls} lists and {report.responses} answers fetched from {asked} agree with the table"
        yield Finding("published", State.WELL, finding)


def _emergency_lists(installation: Installation) -> Iterator[Finding]:
    """Whether each subordinate of an offline authority could be revoked now, without the key of the one above it."""
    if installation.settings.kind != "hospital" or _is_node(installation):  # they rest beside the offline keys
        return
    found = installation.operations.ceremonies.find_sealed()
    remedy = f"vagus ceremony --passphrase-source {EMERGENCY}=fd:N"
    if found.missing:
        finding = f"no sealed emergency list could revoke {_some(found.missing)} without the key above it"
        yield Finding("emergency lists", State.WARNING, finding, remedy)
    if found.outdated:
        finding = (
            f"newer lists are out than those sealed for {_some(found.outdated)}, or these expired or are from the "
            "future: they are refused"
        )
        yield Finding("emergency lists", State.WARNING, finding, remedy)
    if found.ready:
        finding = f"{len(found.ready)} authorities can be revoked without the key above"
        yield Finding("emergency lists", State.WELL, finding)


def _makers(installation: Installation) -> Iterator[Finding]:
    """Read as `serve` reads them, and remembered nowhere."""
    memory = ReadOnlyCrlMemory(installation.database)
    lists = MakerCrls(installation.settings.folder / FOLDER, memory, ClockFloor(), installation.clock.now)
    with installation.database.reading() as connection:
        lists.read([row.certificate_der for row in list_maker_anchors(connection)])
    told = lists.problems()
    if not told:
        yield Finding("makers' lists", State.WELL, f"{lists.count} makers' lists can be taken and are fresh")
    for about, what in told.items():
        remedy = f"bring the maker's newest list, or remove {about}"
        yield Finding("makers' lists", State.WARNING, f"{about}: {what}", remedy)


def _work(installation: Installation) -> Iterator[Finding]:
    """Durable jobs that failed for good, and those that nobody takes."""
    now = int(installation.clock.now().timestamp())
    with installation.database.reading() as connection:
        given_up = list_given_up(connection, since=now - _WORK_TOLD)
        waiting = list_overdue(connection, before=now - _WORK_PATIENCE, at=now)
    for one in given_up[:5]:
        finding = f"{one.kind} {one.key} was given up at {_spell(one.done_at)}: {one.error}"
        yield Finding("work", State.WARNING, finding, "mend the cause, then ask for it again")
    if waiting:
        finding = f"{len(waiting)} jobs wait since an hour or more: {_some(waiting)}"
        yield Finding("work", State.WARNING, finding, "vagus serve runs them")


def _is_node(installation: Installation) -> bool:
    """Whether this is the folder of a status node: no keystore is here but the responders'."""
    folder = installation.settings.keystores
    return folder.is_dir() and [one.name for one in folder.iterdir() if one.is_dir()] == [OCSP_KEYSTORE]


def _active(installation: Installation) -> tuple[AuthorityRow, ...]:
    with installation.database.reading() as connection:
        return list_authorities(connection, state=ACTIVE)


def _spell(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"


def _spell_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
