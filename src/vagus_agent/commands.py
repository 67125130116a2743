"""The agent's commands (request, enrol, renew, run ...) as steps that return results; parses no arguments."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vagus.durable_files import PRIVATE_FOLDER, replace_durably
from vagus.errors import Conflict, IntegrityFailure, Malformed, Misconfigured, NotTrusted, Unavailable, VagusError
from vagus.reasons import Reason
from vagus.texts import decode_text
from vagus_agent.keys import DeviceKeyAlgorithm, build_idevid_request, decode_key, make_key
from vagus_agent.outcomes import Exit
from vagus_agent.renewal import renewal_moment, retry_wait
from vagus_agent.routes import Patience, Route
from vagus_agent.state import StateFolder
from vagus_agent.verification import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vagus.clock import Clock, Entropy
    from vagus_agent.credentials import Credential
    from vagus_agent.device import Device
    from vagus_agent.est import Token
    from vagus_agent.outcomes import Result, Value

COMMANDS: Final = {
    "request": "a key and a request for the maker's line",
    "enrol": "a first certificate, with the maker's or a token",
    "renew": "another certificate, when it is due",
    "connect": "send telemetry through a relay",
    "run": "enrol, renew and send, until it is stopped",
    "status": "what the device holds",
    "probe": "whether each server responds, for monitoring",
}
"""Each with what it does."""
_REMEMBERING: Final = ("enrol", "run")
"""The options of these commands are stored; the other commands use theirs once."""

_MAX_TOKEN: Final = 512
_SERIAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LASTING: Final = (Conflict, Misconfigured, IntegrityFailure)
"""Errors that waiting does not heal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line as values."""

    command: str
    state: Path
    server: str | None = None
    relay: str | None = None
    status: str | None = None
    anchors: Path | None = None
    idevid_cert: Path | None = None
    idevid_key: Path | None = None
    token: str | None = None
    key: str | None = None
    category: str | None = None
    log_key: str | None = None
    serial: str | None = None
    count: int = 5
    interval: float = 0.0
    connections: int = 1
    resume: bool = False
    force: bool = False
    patience: float = 10.0
    attempts: int = 8
    as_json: bool = False
    unsafe_clock_offset: float = 0.0


def run_command(
    options: Options, clock: Clock, entropy: Entropy, orders: Iterable[str], sleep: Callable[[float], None]
) -> Iterator[Result]:
    """The results of one command, as they come. Raises VagusError."""
    keeps = options.command in _REMEMBERING
    folder = StateFolder(options.state, anchors=None if keeps else options.anchors)
    if options.command == "status":
        yield _status(folder, _device(options, folder, clock, entropy, keeps=False))
        return
    with folder.locked():
        if options.command == "request":
            yield _request(options, folder)
            return
        device = _device(options, folder, clock, entropy, keeps=keeps)
        match options.command:
            case "enrol":
                credential = device.enrol(_load_token(options.token), is_forced=options.force)
                yield _tell_credential(device, credential)
            case "renew":
                renewed = device.renew(is_forced=options.force)
                yield {"ok": True, "renewed": False} if renewed is None else _tell_credential(device, renewed)
            case "connect":
                yield from _connect(options, device)
            case "probe":
                from vagus_agent.probe import Probe

                device.settle_clock()
                yield from Probe(device).obey_all(orders)
            case _:
                try:
                    yield from _run(options, device, entropy, sleep)
                finally:
                    device.hang_up()


def _device(options: Options, folder: StateFolder, clock: Clock, entropy: Entropy, *, keeps: bool) -> Device:
    from vagus_agent.device import Device  # loaded late: the command `request` needs neither TLS nor protocols

    orders = folder.load_orders()
    orders = replace(
        orders,
        server=Route.parse(options.server) if options.server else orders.server,
        relay=Route.parse(options.relay) if options.relay else orders.relay,
        status=Route.parse(options.status) if options.status else orders.status,
        category=options.category or orders.category,
        key_algorithm=DeviceKeyAlgorithm(options.key) if options.key else orders.key_algorithm,
        log_key=options.log_key or orders.log_key,
    )
    if keeps:
        if options.anchors is not None:
            folder.keep_anchors(options.anchors)
        if (options.idevid_cert is None) != (options.idevid_key is None):
            raise Misconfigured(Reason.BAD_ARGUMENT, "--idevid-cert and --idevid-key belong together; give both")
        if options.idevid_cert is not None and options.idevid_key is not None:
            folder.keep_idevid(options.idevid_cert, options.idevid_key)
        folder.keep_orders(orders)
    patience = Patience(connect=options.patience, response=max(options.patience, 1.0) * 3)
    return Device(folder, orders, system_clock=clock, entropy=entropy, patience=patience)


def _request(options: Options, folder: StateFolder) -> Result:
    """A key and a request for the maker's line, made once: the key never leaves the device."""
    if options.serial is None or not _SERIAL.match(options.serial):
        msg = "the command request needs --serial with the maker's serial: 1-64 of letters, digits, '.', '_' and '-'"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    target = folder.path / "idevid"
    target.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    if not (target / "key.pem").exists():
        replace_durably(target / "key.pem", make_key(DeviceKeyAlgorithm(options.key or DeviceKeyAlgorithm.P256)))
    key = decode_key((target / "key.pem").read_bytes())
    replace_durably(target / "request.csr", build_idevid_request(key, options.serial))
    return {"ok": True, "serial": options.serial, "request": str(target / "request.csr")}


def _connect(options: Options, device: Device) -> Iterator[Result]:
    device.settle_clock()
    session = None
    for number in range(1, options.connections + 1):
        sent, session = device.connect(options.count, session if options.resume else None)
        yield {
            "ok": True,
            "connection": number,
            "lines": sent.lines,
            "resumed": sent.resumed,
            "group": sent.group,
            "clock_corrected": device.clock.is_corrected() or None,
        }


def _run(options: Options, device: Device, entropy: Entropy, sleep: Callable[[float], None]) -> Iterator[Result]:
    """Enrol where needed, renew when due, send telemetry batch after batch; waits longer after each failure."""
    token, batch, failures = _load_token(options.token), 0, 0
    due = None
    while options.count == 0 or batch < options.count:
        try:
            credential = device.enrol(token)
            token = None
            if due is None:
                due = renewal_moment(device.window_of(credential), entropy)
                yield _tell_credential(device, credential)
            if device.clock.now() >= due:
                renewed = device.renew()
                due = None
                if renewed is not None:
                    yield _tell_credential(device, renewed)
            device.refresh_if_due()
            sent = device.stream(1)
        except _LASTING:
            raise
        except VagusError as error:
            failures += 1
            if failures >= options.attempts:
                raise
            asked = error.facts.get("retry_after") if isinstance(error, Unavailable) else None
            wait = max(retry_wait(failures, entropy), float(asked or 0))
            yield {"ok": False, "reason": str(error.reason), "message": error.message, "again_in": round(wait, 1)}
            sleep(wait)
            continue
        failures = 0
        batch += 1
        yield {"ok": True, "batch": batch, "lines": sent.lines, "resumed": sent.resumed} | _tell_side_problem(device)
        if options.interval > 0 and (options.count == 0 or batch < options.count):
            sleep(options.interval)


def _tell_side_problem(device: Device) -> dict[str, Value]:
    """What was wrong with log or CRL since the last result, once."""
    problem, device.side_problem = device.side_problem, None
    return {} if problem is None else {"side_problem": problem}


def _tell_credential(device: Device, credential: Credential) -> Result:
    leaf = credential.leaf
    return {
        "ok": True,
        "name": identity_of(leaf),
        "generation": credential.generation,
        "issuer": leaf.issuer.rfc4514_string(),
        "serial": f"{leaf.serial_number:x}",
        "not_after": leaf.not_valid_after_utc.isoformat(),
        "side_problem": device.side_problem,
        "renew_from": device.window_of(credential).opens.isoformat(),
    }


def _status(folder: StateFolder, device: Device) -> Result:
    """What the folder holds, read without changing anything."""
    with suppress(VagusError):
        credential = device.store.find_current()
        if credential is not None:
            clock_problem, seen = None, device.log.load()
            try:
                device.check_clock()
            except NotTrusted as error:
                clock_problem = error.message
            has_expired = device.clock.now() > credential.leaf.not_valid_after_utc
            return {
                **_tell_credential(device, credential),
                "proven": credential.is_proven,
                "expired": has_expired,
                "checkpoint_size": None if seen is None else seen.size,
                "clock_problem": clock_problem,
            } | (_tell_expired(folder) if has_expired else {})
    damaged = (folder.path / "current").exists()
    return {"ok": True, "name": None, "enrolled": False, "damaged": damaged or None}


def _tell_expired(folder: StateFolder) -> dict[str, Value]:
    """What comes next for a device whose certificate has expired, and the exit code that reports it."""
    has_idevid = (folder.path / "idevid" / "certificate.pem").exists()
    how = "vagus-agent enrol" if has_idevid else "vagus-agent enrol --token SOURCE"
    step = f"the certificate has expired: hand the device to biomedical engineering, who enrol it again ({how})"
    return {"next_step": step, "exit": int(Exit.EXPIRED)}


def _check_private(descriptor: int, where: str) -> None:
    """Raises Misconfigured(PERMISSIONS_TOO_OPEN): another user who reads the token may spend it first."""
    found = os.fstat(descriptor)
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISREG(found.st_mode) and mode & 0o077:
        msg = f"{where}: the token file has mode {mode:04o}, others could read it; chmod 0600, and have a new one made"
        raise Misconfigured(Reason.PERMISSIONS_TOO_OPEN, msg)


def _load_token(source: str | None) -> Token | None:
    """The token from `fd:N`, `file:PATH` or `env:NAME`. Raises Misconfigured(BAD_ARGUMENT, PERMISSIONS_TOO_OPEN)."""
    if source is None:
        return None
    from vagus_agent.est import Token

    kind, _, where = source.partition(":")
    try:
        match kind:
            case "fd":
                with os.fdopen(int(where), "rb") as file:
                    text = decode_text(file.read(_MAX_TOKEN + 1)).strip()
            case "file":
                with Path(where).open("rb") as file:
                    _check_private(file.fileno(), where)
                    text = decode_text(file.read(_MAX_TOKEN + 1)).strip()
            case "env":
                text = os.environ.pop(where)
            case _:
                raise ValueError
    except (OSError, ValueError, KeyError):
        msg = "--token names a source (fd:3, file:/path or env:NAME) that holds no token; write the token there"
        raise Misconfigured(Reason.BAD_ARGUMENT, msg) from None
    if not 0 < len(text) <= _MAX_TOKEN or not (text.isascii() and text.isprintable()):
        msg = f"the enrolment token has {len(text)} characters; 1-{_MAX_TOKEN} printable ones are possible"
        raise Misconfigured(Reason.BAD_ARGUMENT, msg)
    return Token(text)
