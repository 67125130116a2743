"""Checks of the host and the database: permissions, operators, policy, durability, disk and clock."""

from __future__ import annotations

import os
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from vagus.components import Components
from vagus.errors import VagusError
from vagus.fleet.verifier_memory import set_floor
from vagus.keystore.software import read_derivation
from vagus.ledger.entries import decode_entry
from vagus.operations.doctor.findings import Finding, State, some_of
from vagus.operations.installation import find_other_keys
from vagus.operations.local_account import find_operator, has_login
from vagus.records.engine.temporary_files import has_temporary_folder
from vagus.records.log import iterate_leaves, load_head
from vagus.trust.anchors import ClockFloor

_FSYNC_ROUNDS = 15
_SLOW_FSYNC_MS = 20.0
_CLOCK_SLACK = timedelta(minutes=5)


def check_permissions(components: Components) -> Iterator[Finding]:
    """Only the owner may read secrets."""
    settings = components.settings
    wanted = [(settings.folder, 0o700), (settings.keystores, 0o700), (settings.folder / "vagus.toml", 0o600)]
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


def check_operators(_components: Components) -> Iterator[Finding]:
    """Two approvals are two people only where the system can distinguish them."""
    if has_login():
        yield Finding("operators", State.WELL, f"the login that acts here is {find_operator()}")
        return
    finding = (
        f"no login is known to the kernel: all who act this way are {find_operator()}, one person, and what "
        f"needs two approvals waits for another"
    )
    remedy = "log in on the host, where PAM has pam_loginuid, and run vagus from there by sudo -u: not in a container"
    yield Finding("operators", State.WARNING, finding, remedy)


def check_policy(components: Components) -> Iterator[Finding]:
    """The pack in use is the one in the ledger and fit for production."""
    pack = components.pack
    adopted = components.row.policy_sha256
    if adopted is not None and adopted.hex() != pack.sha256:
        finding = f"the pack in use ({pack.name} {pack.version}) is not the one that the ledger knows"
        yield Finding("policy pack", State.WARNING, finding, "vagus serve adopts it")
    else:
        yield Finding("policy pack", State.WELL, f"{pack.name} {pack.version}")
    if not pack.is_production_arc:
        finding = f"OID arc {pack.arc} is for documentation"
        yield Finding("policy pack", State.WARNING, finding, "name a pack with your own arc before production")
    if classical := [str(one) for one in find_other_keys(components) if one.is_classical]:
        finding = f"the pack asks for post-quantum keys, and these authorities have others: {some_of(classical)}"
        yield Finding("policy pack", State.WARNING, finding, "vagus ca roll NAME, from the root down; vagus ceremony")


def check_keystores(components: Components) -> Iterator[Finding]:
    """What guessing a passphrase costs, by the derivation that each keystore really has; needs no passphrase."""
    settings = components.settings
    weak, other, unread = [], [], []
    for folder in sorted(path.parent for path in settings.keystores.glob("*/keystore.toml")):
        try:
            derivation = read_derivation(folder)
        except VagusError as error:
            unread.append(error.message)
            continue
        if not derivation.is_strong:
            weak.append(folder.name)
        elif derivation.kdf != settings.kdf:
            other.append(folder.name)
    for message in unread:
        yield Finding("keystores", State.FAILING, message)
    change = "vagus keystore change-passphrase NAME"
    if settings.unsafe_fast_kdf:
        finding = "new keystores are made with a weak derivation (vagus.toml: keystore.unsafe_fast)"
        yield Finding("keystores", State.WARNING, finding, "only for tests: set it to false")
    if weak:
        finding = f"keystores have a weak derivation ({some_of(weak)})"
        remedy = f"only for tests: {change}, once keystore.unsafe_fast is false in vagus.toml"
        yield Finding("keystores", State.WARNING, finding, remedy)
    if other:
        finding = f"keystores have another derivation than {settings.kdf} of vagus.toml ({some_of(other)})"
        yield Finding("keystores", State.WARNING, finding, change)


def check_durability(components: Components) -> Iterator[Finding]:
    """The database engine keeps what was committed."""
    components.database.check_schema()
    components.database.check_durability()
    settings = ", ".join(f"{name} {value}" for name, value in components.database.describe_durability())
    yield Finding("database", State.WELL, f"durable: {settings}")
    if components.database.is_sqlite and not has_temporary_folder():
        finding = "no folder for temporary files can be written here, so large sorts are done in memory"
        remedy = "name one in SQLITE_TMPDIR or TMPDIR, or mount a writable /tmp, where memory is short"
        yield Finding("database", State.WARNING, finding, remedy)


def check_fsync(components: Components) -> Iterator[Finding]:
    """How long this disk takes for a durable write, which every response of an enrolment waits for."""
    place = components.settings.database_file
    folder = components.settings.folder if place is None else place.parent
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
        remedy = "responses wait for it: put the database on a faster disk"
        yield Finding("fsync", State.WARNING, f"{median:.2f} ms", remedy)
    else:
        yield Finding("fsync", State.WELL, f"{median:.2f} ms (slowest of {_FSYNC_ROUNDS}: {max(times):.2f} ms)")


def check_clock(components: Components) -> Iterator[Finding]:
    """A clock that is earlier than the newest ledger entry or CRL was set back, or it ran ahead before."""
    now = components.clock.now()
    set_floor(dated := ClockFloor(slack=_CLOCK_SLACK), components.database)
    with components.database.reading() as connection:
        size = load_head(connection).size
        newest = [leaf.entry for leaf in iterate_leaves(connection, max(0, size - 1), size)]
    floor = datetime.fromtimestamp(decode_entry(newest[0]).at, UTC) if newest else now
    shown = f"the clock shows {now:%Y-%m-%d %H:%M:%S}Z"
    if now + _CLOCK_SLACK < floor:
        finding = f"{shown}, the ledger's newest entry is of {floor:%Y-%m-%d %H:%M:%S}Z"
        yield Finding("clock", State.FAILING, finding, "set the clock before anything is issued")
    if now < dated.opens_at:
        finding = (
            f"{shown}, a CRL is dated {dated.moment:%Y-%m-%d %H:%M:%S}Z: "
            f"listeners refuse every certificate until {dated.opens_at:%Y-%m-%d %H:%M:%S}Z"
        )
        yield Finding("clock", State.FAILING, finding, "set the clock; where it is right now: vagus ca forget-dates")
    elif now + _CLOCK_SLACK >= floor:
        components.make_clock_bound().check_only()
        yield Finding("clock", State.WELL, f"{now:%Y-%m-%d %H:%M:%S}Z, before no entry of the ledger")
