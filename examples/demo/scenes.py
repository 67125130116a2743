"""The scenes: each shows a refusal beside its benign twin, the same device with only the fault taken away."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from examples.demo.fleet import Device, Outcome, Probe
from examples.demo.plans import BuiltListeners
from examples.demo.rogue import Rogue, look_alike
from examples.demo.stage import Stage

CLOSED_WITHIN: Final = 2.0
"""Seconds from the commit of a revocation to the end of an open control connection (design section 6)."""

_SHORT: Final = ("--patience", "4", "--count", "2")


@dataclass(frozen=True, slots=True)
class LogMemory:
    """What a second party remembers of the log."""

    checkpoint: Path
    copy: Path


@dataclass(frozen=True, slots=True)
class Cast:
    """Who and what the scenes play with."""

    stage: Stage
    hospital: Path
    maker: Path
    listeners: BuiltListeners
    devices: tuple[Device, ...]
    anchors: dict[str, Path]

    def device(self, unit: str, category: str, number: int = 0) -> Device:
        """A device of a unit and category."""
        found = [d for d in self.devices if d.made.unit == unit and d.made.category == category]
        return found[number]

    def counts(self, port: int | None = None) -> dict[str, Any]:
        """What the telemetry store behind the gateway has received."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port or self.listeners.store}/counts", timeout=10) as response:
            found: dict[str, Any] = json.load(response)
        return found


def passes(cast: Cast, outcome: Outcome, text: str) -> None:
    """The twin: it works."""
    cast.stage.check(outcome.code == 0, text, outcome)


def refused(cast: Cast, outcome: Outcome, reasons: set[str], text: str) -> None:
    """The fault: it is refused, for the right reason and by our own exit code, never by accident."""
    cast.stage.check(outcome.code not in {0, 2} and outcome.reason in reasons, f"{text} [{outcome.reason}]", outcome)


def revoked_pump(cast: Cast) -> None:
    """New, resumed and open connections of a pump before and after its revocation; its neighbour stays."""
    stage, control = cast.stage, cast.listeners.control.route
    stage.chapter(
        "A pump is revoked: its new, resumed and open connections end; its neighbour's go on",
        "a revocation ends new, resumed and open connections within 2 s, and no others",
    )
    pump, neighbour = cast.device("h1/icu", "infusion-pump", 0), cast.device("h1/icu", "infusion-pump", 1)
    for device in (pump, neighbour):
        passes(cast, device.run("connect", "--relay", control, *_SHORT), f"{device.label} works at the control gateway")
    open_pump, open_neighbour = pump.probe(control), neighbour.probe(control)
    for probe in (open_pump, open_neighbour):
        probe.ask("open")
        stage.check(probe.ask("send 1").get("ok") is True, "an open control connection carries a line")
    _revoke_under(cast, pump, open_pump, open_neighbour)
    open_pump.end()
    open_neighbour.end()
    _resumptions(cast)
    refused(
        cast,
        pump.run("connect", *_SHORT),
        {"REVOKED", "DEVICE_STATE"},
        "a new connection of the revoked pump is refused",
    )
    passes(cast, neighbour.run("connect", *_SHORT), "a new connection of its neighbour passes")


def _revoke_under(cast: Cast, pump: Device, open_pump: Probe, open_neighbour: Probe) -> None:
    open_pump.give("watch 30")
    watching_since = time.monotonic()
    model = pump.made.model
    done = cast.stage.vagus_json(
        cast.hospital, "device", "revoke", f"{model}:{pump.made.serial}", "--reason", "keyCompromise", "--yes"
    )
    command_took = time.monotonic() - watching_since
    cast.stage.check(done["revoked"] >= 1, "vagus device revoke took every certificate of the pump", done)
    pump_saw = open_pump.hear()
    late = max(0.0, float(pump_saw.get("after", 99)) - command_took)
    text = f"the pump's open control connection was closed, {late:.1f} s after the command had ended"
    cast.stage.check(pump_saw.get("closed") is True and late <= CLOSED_WITHIN, text, pump_saw)
    neighbour_saw = open_neighbour.ask("watch 1")
    cast.stage.check(neighbour_saw.get("closed") is False, "its neighbour's open connection stayed", neighbour_saw)
    cast.stage.check(open_neighbour.ask("send 1").get("ok") is True, "and still carries lines")


def _resumptions(cast: Cast) -> None:
    """Tickets: the telemetry gateway gives them, so the same device resumes before its revocation and not after."""
    stage = cast.stage
    pump = cast.device("h1/icu", "infusion-pump", 2)
    probe = pump.probe(cast.listeners.telemetry.route)
    probe.ask("open")
    probe.ask("send 1")
    before = probe.ask("resume")
    sent = probe.ask("send 1")
    holds = before.get("resumed") is True and sent.get("ok") is True
    stage.check(holds, f"{pump.label} resumes its TLS session and is let in", before)
    probe.ask("close")
    cast.stage.vagus(cast.hospital, "device", "revoke", f"{pump.made.model}:{pump.made.serial}", "--yes")
    after = probe.ask("resume")
    outcome = probe.ask("send 1")
    # its state and its certificate change in one commit; the gateway reports the first check that failed
    is_refused = outcome.get("ok") is False and outcome.get("reason") in {"REVOKED", "DEVICE_STATE", "TLS_HANDSHAKE"}
    stage.check(
        is_refused, f"after its revocation its ticket helps no more [{outcome.get('reason')}]", (after, outcome)
    )
    probe.end()


def spoofed_station(cast: Cast) -> None:
    """A self-signed look-alike of the authority, and another hospital's genuine station."""
    stage, listeners = cast.stage, cast.listeners
    stage.chapter(
        "A spoofed station: devices give it nothing, not one byte, not even their certificate",
        "a device gives a false station not one byte, and another hospital's station none either",
    )
    pump = cast.device("h1/er", "infusion-pump", 0)
    genuine = x509.load_pem_x509_certificate(cast.anchors["h1"].read_bytes())
    with Rogue(look_alike(genuine, listeners.telemetry.host)) as rogue:
        route = f"{listeners.telemetry.host}=127.0.0.1:{rogue.port}"
        outcome = pump.run("connect", "--relay", route, *_SHORT)
        refused(cast, outcome, {"UNTRUSTED_ANCHOR"}, f"{pump.label} refuses a look-alike of root and authority")
        stage.check(rogue.calls == 1, "the rogue was really called", rogue.calls)
        caught = (
            f"canary bytes caught by the rogue: {rogue.canary_bytes}; certificates shown to it: {rogue.certificates}"
        )
        stage.check(rogue.canary_bytes == 0 and rogue.certificates == 0, caught)
        passes(cast, pump.run("connect", "--relay", listeners.telemetry.route, *_SHORT), "the genuine gateway passes")
        _show_that_the_rogue_counts(cast, pump, rogue, route)
    before = cast.counts(listeners.store_h2)["bytes"]
    outcome = pump.run("connect", "--relay", listeners.telemetry_h2.route, *_SHORT)
    refused(cast, outcome, {"UNTRUSTED_ANCHOR"}, "another hospital's genuine station is refused")
    after = cast.counts(listeners.store_h2)["bytes"]
    stage.check(before == after, f"canary bytes behind the other hospital's station: {after - before}")
    twin = cast.device("h2/icu", "infusion-pump")
    passes(cast, twin.run("connect", *_SHORT), f"{twin.label}, whose own station it is, passes there")
    stage.check(cast.counts(listeners.store_h2)["bytes"] > after, "and its lines arrive")


def _show_that_the_rogue_counts(cast: Cast, pump: Device, rogue: Rogue, route: str) -> None:
    """The counter is no dummy: a copy of the device that was made to trust the rogue fills it."""
    fooled = Device(cast.stage, pump.made, cast.stage.folder / "fooled")
    shutil.copytree(pump.state, fooled.state, symlinks=True, dirs_exist_ok=True)
    own = cast.stage.folder / "rogue-anchor.pem"
    own.write_bytes(rogue.anchor_pem)
    outcome = fooled.run("connect", "--relay", route, "--anchors", str(own), *_SHORT)
    counted = f"(a copy of the device that pins the rogue's root gives it {rogue.canary_bytes} bytes: it counts)"
    cast.stage.check(outcome.code == 0 and rogue.canary_bytes > 0, counted, outcome)


def other_unit(cast: Cast) -> None:
    """The gateway of one unit's control refuses a device of the next unit, which passes at the common gateway."""
    cast.stage.chapter(
        "A device of another unit",
        "a unit's control gateway takes devices of that unit alone",
    )
    listeners, stranger, own = (
        cast.listeners,
        cast.device("h1/er", "infusion-pump", 1),
        cast.device("h1/icu", "ventilator"),
    )
    outcome = stranger.run("connect", "--relay", listeners.control.route, *_SHORT)
    refused(cast, outcome, {"WRONG_COMPARTMENT"}, f"{stranger.label} at the control gateway of h1/icu is refused")
    passes(
        cast, stranger.run("connect", "--relay", listeners.telemetry.route, *_SHORT), "at the common gateway it passes"
    )
    passes(
        cast,
        own.run("connect", "--relay", listeners.control.route, *_SHORT),
        f"{own.label} passes at that control gateway",
    )


def used_token(cast: Cast, scanner: Device, options: list[str]) -> None:
    """A one-time token enrols one key; the same key may ask again, another key may not."""
    stage = cast.stage
    stage.chapter(
        "A one-time token, for a scanner without a maker's certificate",
        "a token enrols one device once; a stolen or an invented one enrols none",
    )
    made = stage.vagus_json(cast.hospital, "token", "make", f"{scanner.made.model}:{scanner.made.serial}")
    first = scanner.run("enrol", *options, "--token", "env:ENROLMENT_TOKEN", ENROLMENT_TOKEN=made["token"])
    passes(cast, first, f"{scanner.label} enrols with its token")
    thief = Device(stage, scanner.made, stage.folder / "thief")
    stolen = thief.run("enrol", *options, "--token", "env:ENROLMENT_TOKEN", ENROLMENT_TOKEN=made["token"])
    refused(cast, stolen, {"TOKEN_REUSED", "TOKEN_SPENT"}, "the same token with another key is refused")
    passes(cast, scanner.run("connect", *_SHORT), "the scanner's certificate works")
    invented = thief.run("enrol", *options, "--token", "env:ENROLMENT_TOKEN", ENROLMENT_TOKEN="a" * 40)
    refused(cast, invented, {"TOKEN_INVALID"}, "an invented token is refused")


def stale_clock(cast: Cast) -> None:
    """A device that wakes in the past believes no date until something signed gives it the time."""
    stage, monitor = cast.stage, cast.device("h1/icu", "patient-monitor")
    stage.chapter(
        "A stale clock",
        "a device with a wrong clock trusts no date until it has signed time",
    )
    long_ago = ("--unsafe-clock-offset", str(-20 * 365 * 86400))
    alone = ("--server", "enrol.nowhere.example=127.0.0.1:9", "--status", "127.0.0.1:9")
    outcome = monitor.run("connect", *long_ago, *alone, *_SHORT)
    refused(cast, outcome, {"CLOCK_ROLLBACK"}, f"{monitor.label}, woken 20 years ago and cut off, refuses to connect")
    known = ("--server", cast.listeners.enrol.route, "--status", f"127.0.0.1:{cast.listeners.status.port}")
    healed = monitor.run("connect", *long_ago, *known, *_SHORT)
    passes(cast, healed, "with the same clock it asks for signed time under its pinned anchor, and connects")
    stage.check(healed.last.get("clock_corrected") is True, "and says that its clock was wrong", healed)
    passes(cast, monitor.run("connect", *_SHORT), "with a right clock it connects at once")


def renewal(cast: Cast) -> None:
    """Outside its window a device keeps its certificate; inside it gets another key, and the old pair stays a while."""
    stage, device = cast.stage, cast.device("h1/remote-care", "glucose-monitor")
    stage.chapter(
        "A renewal",
        "a certificate is renewed with a new key; the old pair stays until the new one has worked",
    )
    before = device.run("status").last
    early = device.run("renew")
    stage.check(early.code == 0 and early.last.get("renewed") is False, "a fresh certificate is not renewed", early)
    inside = ("--unsafe-clock-offset", str(320 * 86400))
    renewed = device.run("renew", *inside)
    again = device.run("status").last
    is_new = (
        renewed.code == 0 and again.get("serial") != before.get("serial") and again.get("name") == before.get("name")
    )
    stage.check(is_new, f"{device.label}, 320 days on: a new certificate and key, the same name", renewed)
    stage.check(again.get("proven") is False, "the old pair is stored until the new one has worked")
    passes(cast, device.run("connect", *_SHORT), "the new certificate works")
    stage.check(device.run("status").last.get("proven") is True, "and the old pair is gone")


def keep_memory(cast: Cast) -> LogMemory:
    """A second memory of the log: a checkpoint stored elsewhere, and an honest copy of the installation of today."""
    folder = cast.stage.folder / "memory"
    folder.mkdir()
    shutil.copy(cast.hospital / "log" / "checkpoint", folder / "checkpoint")
    copy = folder / "copy"
    copy.mkdir(mode=0o700)
    for name in ("vagus.toml", "log.vkey", "plan.toml"):
        shutil.copy(cast.hospital / name, copy / name)
    with (
        closing(sqlite3.connect(f"file:{cast.hospital / 'vagus.sqlite3'}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy / "vagus.sqlite3")) as target,
    ):
        source.backup(target)
    (copy / "vagus.sqlite3").chmod(0o600)
    return LogMemory(folder / "checkpoint", copy)


def ledger(cast: Cast, memory: LogMemory) -> None:
    """The log is whole and holds what happened; a copy that ends earlier is sound in itself and caught all the same."""
    stage = cast.stage
    stage.chapter(
        "The log",
        "the ledger is whole, and a copy that was cut back is caught",
    )
    whole = stage.vagus_json(cast.hospital, "audit", "verify", "--against", str(memory.checkpoint))
    said = f"{whole['size']} entries verified, against a checkpoint of {whole['against']} that was stored elsewhere"
    stage.check(whole["verdict"] == "sound" and whole["size"] > whole["against"], said, whole)
    remembered = cast.device("h1/er", "patient-monitor").run("status").last.get("checkpoint_size")
    stage.check(bool(remembered), f"devices remember it too: a patient monitor keeps its head of {remembered} entries")
    cut = stage.vagus_json(memory.copy, "audit", "verify")
    said = f"a copy that was cut back to {cut['size']} entries looks sound, and says what it cannot know"
    stage.check(cut["verdict"] == "sound" and bool(cut["caveat"]), said, cut)
    stage.vagus(memory.copy, "audit", "verify", "--against", str(memory.checkpoint))
    stage.check(True, "against the earlier checkpoint it passes: the copy itself is honest")
    late = stage.folder / "late.checkpoint"
    shutil.copy(cast.hospital / "log" / "checkpoint", late)
    stage.vagus(cast.hospital, "audit", "verify", "--against", str(late))
    stage.vagus(memory.copy, "audit", "verify", "--against", str(late), expect=5)
    stage.check(True, "against the newest checkpoint the whole log passes and the copy is caught, exit code 5")
    _cut_published(cast, memory, late)


def _cut_published(cast: Cast, memory: LogMemory, late: Path) -> None:
    """The same for the tiles that anybody may mirror."""
    stage, published = cast.stage, cast.hospital / "log"
    key = (cast.hospital / "log.vkey").read_text("ascii").strip()
    cut = stage.folder / "cut-log"
    shutil.copytree(published, cut)
    shutil.copy(memory.checkpoint, cut / "checkpoint")
    options = ("audit", "verify", "--key", key, "--against", str(late), "--published")
    stage.vagus(cast.hospital, *options, str(published))
    stage.vagus(cast.hospital, *options, str(cut), expect=5)
    stage.check(True, "so do the published tiles, and so is a mirror of them that was cut back")
