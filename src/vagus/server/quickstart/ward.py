"""Makes a hospital with one ward in a new folder, whole or not at all, and serves it until it is stopped."""

from __future__ import annotations

import base64
import errno
import logging
import os
import re
import shlex
import socket
import stat
import sys
import tempfile
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vagus.addresses import join_address
from vagus.durable_files import GROUP_FILE, FolderLocked, lock_folder, remove_folder, replace_durably, write_new
from vagus.errors import Conflict, Malformed, Misconfigured, Unavailable
from vagus.policy.plan_files import ListenerKind
from vagus.policy.plans import HospitalPlan, load_plan
from vagus.reasons import Reason
from vagus.server.quickstart.telemetry_store import TelemetryStore
from vagus.wiring import Installation, real_entropy
from vagus.x509.pem import encode_certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PLAN = Path(__file__).with_name("one-ward.toml")
"""The plan that comes with the program; examples/one-ward.toml is the same."""
FIRST_PORT = 8480
PORTS = 4
"""Status, enrolment, gateway and telemetry store: the ports of the plan, one after the other."""
DEVICE = "Aorta IP3:AIP3-000001"
NOT_FOR_PRODUCTION = (
    "one passphrase for every key, in a file beside them; the documentation's OID arc; the root's key on this machine"
)

_LOCK = "quickstart.lock"
"""Held in the folder beside, while a ward is made there. The kernel releases it when that process is killed."""
_ADDRESS = re.compile(r'"(127\.0\.0\.1):([0-9]+)"')
_DRAWN = range(20_000, 32_000)
"""Ports below those that systems lend to outgoing connections."""


@dataclass(frozen=True, slots=True)
class Ward:
    """What lies in the folder of a quick start, and the commands that go on from it."""

    folder: Path

    @property
    def installation(self) -> Path:
        """The installation's folder, for `vagus --dir`."""
        return self.folder / "hospital"

    @property
    def events(self) -> Path:
        """Where a line is logged for each issuance, revocation and refusal."""
        return self.folder / "events.log"

    @property
    def passphrase_source(self) -> str:
        """The one passphrase, as an option names it."""
        return f"file:{self.folder / 'passphrase'}"

    def plan(self) -> HospitalPlan:
        """The plan with the ports that were taken. Raises Misconfigured(BAD_PLAN)."""
        plan = load_plan(self.folder / "plan.toml")
        if not isinstance(plan, HospitalPlan):
            msg = f"{self.folder / 'plan.toml'} is no hospital's plan; make another ward with `vagus quickstart`"
            raise Misconfigured(Reason.BAD_PLAN, msg)
        return plan

    def store_port(self) -> int:
        """Where the gateway expects the telemetry store."""
        return next(one.upstream[1] for one in self.plan().listeners if one.upstream is not None)

    def commands(self) -> Mapping[str, str]:
        """The next commands: a device's first certificate, its first connection, its revocation; to serve again."""
        by_kind = {one.kind: one for one in self.plan().listeners}
        status, enrol = by_kind[ListenerKind.STATUS], by_kind[ListenerKind.ENROLMENT]
        gateway = by_kind[ListenerKind.RELAY_HTTP]
        routes = {
            name: f"{one.host_names[0]}={join_address(*one.address)}" for name, one in (("e", enrol), ("g", gateway))
        }
        state = ("--state", str(self.folder / "device"))
        where = ("--server", routes["e"], "--relay", routes["g"], "--status", join_address(*status.address))
        proof = ("--anchors", str(self.folder / "anchor.pem"), "--token", f"file:{self.folder / 'token'}")
        vagus = ("vagus", "--dir", str(self.installation))
        store = (sys.executable, "-m", TelemetryStore.__module__, str(self.store_port()))
        return {
            "enrol": shlex.join(("vagus-agent", "enrol", *state, *where, *proof, "--category", "infusion-pump")),
            "connect": shlex.join(("vagus-agent", "connect", *state)),
            "revoke": shlex.join((*vagus, "device", "revoke", DEVICE, "--reason", "keyCompromise", "--yes")),
            "serve": shlex.join((*vagus, "serve", "--issue-for", "all", "--passphrase-source", self.passphrase_source)),
            "store": shlex.join(store),
        }


def make_ward(folder: Path, *, first_port: int | None, say: Callable[[str], None]) -> Ward:
    """A hospital of the shipped plan in `folder`, which is new or empty; `say` gets a line at each step.

    `first_port` is the first of four ports; left out, free ones are taken. Everything is made beside the folder and
    renamed at the end. What a killed quick start of the same folder left there is removed first.

    Raises Conflict(ALREADY_EXISTS) for a folder that holds something, Malformed(BAD_ARGUMENT) for one that cannot be
    made there, Misconfigured(BAD_SETTINGS) for ports that are taken, Misconfigured(BAD_PLAN) for
    a plan that cannot be read, Unavailable(DATABASE_UNAVAILABLE) when the disk fails, and as the acts within.
    """
    _check_empty(folder)
    plan = _read_plan()
    first = _find_ports(first_port)
    try:
        _remove_abandoned(folder, say)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
        try:
            with lock_folder(scratch / _LOCK, seconds=0):
                _make(Ward(scratch), _with_ports(plan, first), say)
                scratch.rename(folder)
                (folder / _LOCK).unlink(missing_ok=True)
        except BaseException:
            remove_folder(scratch)
            raise
    except FolderLocked as fault:  # the other began in the moment between making the lock and taking it
        msg = f"another quick start of {folder} runs; wait until it ends, or name another folder"
        raise Conflict(Reason.ALREADY_EXISTS, msg, path=str(folder)) from fault
    except OSError as fault:
        raise _not_made(folder, fault) from fault
    return Ward(folder)


def serve_ward(ward: Ward, *, ready: Callable[[Mapping[str, object]], None], say: Callable[[str], None]) -> int:
    """Serve until SIGTERM or Ctrl-C, with a telemetry store behind the gateway; gives how many lines the store took.

    Raises Misconfigured(BAD_SETTINGS) where the store's port was taken meanwhile, and as `serve`.
    """
    from vagus.server.serving import serve

    port = ward.store_port()
    try:
        store = TelemetryStore(port)
    except OSError as fault:
        msg = f"port {port} of the telemetry store is taken ({fault.strerror}); end the program that has it"
        raise Misconfigured(Reason.BAD_SETTINGS, msg, port=port) from fault
    sources = [ward.passphrase_source]
    with (
        store.serving(),
        _logging_events(ward.events),
        Installation.open(ward.installation, passphrase_sources=sources) as opened,
    ):
        serve(opened, issue_for=("all",), is_status_only=False, ready=ready, say=say)
    return store.lines


@contextmanager
def _logging_events(file: Path) -> Iterator[None]:
    """Keep the lines of each issuance and refusal off the screen, on which people read commands."""
    handler, log = logging.FileHandler(file, encoding="utf-8"), logging.getLogger("vagus.events")
    handler.setFormatter(logging.Formatter("%(created)d %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _make(ward: Ward, plan: str, say: Callable[[str], None]) -> None:
    """The acts of `vagus init`, `plan apply --ceremony`, `token make` and `ca export`, each with its own right."""
    write_new(ward.folder / "passphrase", base64.b64encode(real_entropy(24)) + b"\n")
    replace_durably(ward.folder / "plan.toml", plan.encode(), GROUP_FILE)
    say("beginning an installation")
    with Installation.create(
        ward.installation,
        kind="hospital",
        origin="one-ward.vagus.internal",
        database="sqlite:///vagus.sqlite3",
        passphrase_sources=[ward.passphrase_source],
    ) as installation:
        actor, operations = installation.actor, installation.operations
        say("applying the plan: 1 hospital, 1 unit, 10 devices")
        found = operations.plans.compare(actor, ward.folder / "plan.toml")
        operations.plans.apply(actor, found, advance=lambda _steps: None, with_offline=True)
        say("holding the ceremony: the root certifies the authorities")
        operations.ceremonies.hold_if_due(actor, advance=lambda _step: None)
        token = operations.tokens.make(actor, DEVICE)
        write_new(ward.folder / "token", f"{token.text}\n".encode("ascii"))
        anchors = operations.authorities.export(actor, "h1/infra", with_chain=False)
        pem = encode_certificates(one.certificate_der for one in anchors)
        replace_durably(ward.folder / "anchor.pem", pem, GROUP_FILE)


def _remove_abandoned(folder: Path, say: Callable[[str], None]) -> None:
    """Remove what quick starts of `folder` left beside it when they were killed: their lock is free.

    A folder that another user owns or may enter, or that has no lock, is none of these and stays.
    """
    is_ours = re.compile(rf"\.{re.escape(folder.name)}\.[a-z0-9_]{{8}}")
    for one in folder.absolute().parent.iterdir():
        if is_ours.fullmatch(one.name) is None:
            continue
        with suppress(OSError, FolderLocked):
            facts = one.lstat()
            is_private = stat.S_ISDIR(facts.st_mode) and not facts.st_mode & 0o077 and facts.st_uid == os.geteuid()
            if is_private and (one / _LOCK).is_file():
                with lock_folder(one / _LOCK, seconds=0):
                    remove_folder(one)
                say(f"removed {one}, which a quick start left when it was killed")


def _check_empty(folder: Path) -> None:
    if not folder.name:  # "" and "." mean the present folder, which no new one can replace
        raise Malformed(Reason.BAD_ARGUMENT, "no new folder is named; give one, as in `vagus quickstart ward`")
    try:
        found = sorted(one.name for one in folder.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError as fault:
        raise Malformed(Reason.BAD_ARGUMENT, f"{folder} is not a folder; name a new one", path=str(folder)) from fault
    except OSError as fault:
        raise _not_made(folder, fault) from fault
    if found:
        msg = f"folder {folder} holds {found[0]!r} and {len(found) - 1} more; name a new or an empty folder"
        raise Conflict(Reason.ALREADY_EXISTS, msg, path=str(folder))


def _not_made(folder: Path, fault: OSError) -> Malformed | Unavailable:
    why = fault.strerror or type(fault).__name__
    if fault.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
        msg = f"folder {folder}: the disk fails ({why}), and nothing was made; make room, or name one on another disk"
        return Unavailable(Reason.DATABASE_UNAVAILABLE, msg, path=str(folder))
    msg = f"folder {folder} cannot be made ({why}); name one in a folder that exists and that this user may write"
    return Malformed(Reason.BAD_ARGUMENT, msg, path=str(folder))


def _read_plan() -> str:
    try:
        return PLAN.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        msg = f"{PLAN}: the plan that comes with the program cannot be read; install vagus again"
        raise Misconfigured(Reason.BAD_PLAN, msg, file=str(PLAN)) from fault


def _with_ports(plan: str, first: int) -> str:
    """The plan with its ports moved together, so that they begin at `first`."""
    return _ADDRESS.sub(lambda found: f'"{found[1]}:{int(found[2]) - FIRST_PORT + first}"', plan)


def _find_ports(first: int | None) -> int:
    """The first of four free ports in a row: `first`, if it is given. Raises Misconfigured(BAD_SETTINGS)."""
    if first is not None:
        for port in range(first, first + PORTS):
            if (fault := _try_port(port)) is not None:
                found = (
                    "is taken; end the program that has it" if fault.errno == errno.EADDRINUSE else f"fails: {fault}"
                )
                msg = f"ports {first} to {first + PORTS - 1} are needed and {port} {found}, give another --port, "
                raise Misconfigured(Reason.BAD_SETTINGS, f"{msg}or leave --port out: free ports are found then")
        return first
    tries = (_DRAWN[int.from_bytes(real_entropy(4)) % (len(_DRAWN) - PORTS)] for _ in range(200))
    for start in (FIRST_PORT, *tries):
        if all(_try_port(port) is None for port in range(start, start + PORTS)):
            return start
    msg = f"no {PORTS} free ports in a row were found on 127.0.0.1; end programs that listen, or give --port"
    raise Misconfigured(Reason.BAD_SETTINGS, msg)


def _try_port(port: int) -> OSError | None:
    """Why no process of this user can listen on a port now; None where one can."""
    with closing(socket.socket()) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError as fault:
            return fault
    return None
