"""`python -m examples.demo [--stay]`: the main job from two plans to devices let in and devices refused, in one run.

Exit code 0 when every check held. Everything happens on loopback and in a scratch folder that is removed at the end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from examples.demo import scenes
from examples.demo.fleet import Device, Outcome, everyone, options_of
from examples.demo.performance import perform
from examples.demo.plans import MAKER, BuiltListeners, Made, fleet, write_hospital_plan, write_maker_plan
from examples.demo.stage import Stage

LINES = 3
ISSUING = ("h1/icu", "h1/er", "h1/dialysis", "h1/imaging", "h1/remote-care", "h1/infra", "h2/icu", "h2/infra")


def main() -> None:
    """Play it."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="keep serving at the end, until interrupted")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="play in this folder and leave it")
    options = parser.parse_args()

    def perform_all(stage: Stage) -> None:
        cast = play(stage)
        stage.summarise()
        if options.stay:
            _stay(cast)

    sys.exit(perform(perform_all, options.keep))


def play(stage: Stage) -> scenes.Cast:
    """All scenes in order."""
    listeners, made = BuiltListeners.draw(), fleet()
    devices = tuple(Device(stage, each, stage.folder / "devices" / each.serial) for each in made)
    with ThreadPoolExecutor(1) as beside:  # two installations that know nothing of each other
        founding = beside.submit(_apply_plan, stage, listeners)
        maker, files = _make_devices(stage, listeners, devices)
        founded = founding.result()
    hospital, anchors = _found_hospitals(stage, founded, files)
    _open_listeners(stage, hospital, listeners)
    cast = scenes.Cast(stage, hospital, maker, listeners, devices, anchors)
    _enrol(cast)
    memory = scenes.keep_memory(cast)
    scenes.revoked_pump(cast)
    scenes.spoofed_station(cast)
    scenes.other_unit(cast)
    scanner = Device(stage, Made("h1/imaging", "Meridian CT", "ct-scanner", "MCT-000001"), stage.folder / "scanner")
    scenes.used_token(cast, scanner, options_of(listeners, scanner.made, anchors))
    scenes.stale_clock(cast)
    scenes.renewal(cast)
    scenes.ledger(cast, memory)
    return cast


def _make_devices(stage: Stage, listeners: BuiltListeners, devices: tuple[Device, ...]) -> tuple[Path, Path]:
    """The maker's side: a root, a line, and a birth certificate for each device. Gives what it hands over."""
    stage.chapter(
        f"The maker, {MAKER}: an installation of its own, and {len(devices)} devices with birth certificates",
        "a maker certifies its devices on the line; no private key leaves a device",
    )
    maker, files = stage.folder / "maker", stage.folder / "handed-over"
    files.mkdir()
    stage.vagus(maker, "init", "--kind", "maker", seal=True)
    write_maker_plan(stage.folder / "maker.toml", listeners)
    stage.vagus(maker, "plan", "apply", str(stage.folder / "maker.toml"), "--yes", "--ceremony", seal=True)
    born = everyone(stage, devices, lambda device: device.run("request", "--serial", device.made.serial))
    requests = stage.folder / "requests"
    requests.mkdir()
    for device in devices:
        shutil.copy(device.state / "idevid" / "request.csr", requests / f"{device.made.serial}.csr")
    stage.check(all(o.code == 0 for o in born.values()), "every device made its own key; only requests left them")
    serials = [word for device in devices for word in ("--serial", device.made.serial)]
    births = stage.folder / "births"
    arguments = ("maker", "make-idevids", "--requests", str(requests), "--out", str(births), *serials)
    done = stage.vagus_json(maker, *arguments, seal=True)
    stage.check(done["issued"] == len(devices), f"the line CA issued {done['issued']} IDevIDs", done)
    for device in devices:
        shutil.copy(births / device.made.serial / "certificate.pem", device.state / "idevid" / "certificate.pem")
    stage.vagus(maker, "maker", "manifest", "--out", str(files / "manifest.json"))
    stage.vagus(maker, "ca", "export", "root", "--out", str(files / "maker-root.pem"))
    return maker, files


@dataclass(frozen=True, slots=True)
class Founded:
    """A hospital group's installation after its plan was applied twice."""

    folder: Path
    devices: int
    seconds: float
    is_idempotent: bool


def _apply_plan(stage: Stage, listeners: BuiltListeners) -> Founded:
    """The hospital group's installation from one plan; says nothing, because it runs beside the maker's."""
    hospital, plan = stage.folder / "hospital", stage.folder / "hospitals.toml"
    stage.vagus(hospital, "init", "--kind", "hospital", seal=True)
    write_hospital_plan(plan, listeners)
    begun = time.monotonic()
    applied = stage.vagus_json(hospital, "plan", "apply", str(plan), "--yes", "--ceremony", seal=True)
    took = time.monotonic() - begun
    before = stage.vagus(hospital, "export")
    stage.vagus(hospital, "plan", "apply", str(plan), "--yes", "--ceremony", seal=True)
    return Founded(hospital, applied["devices"], took, before == stage.vagus(hospital, "export"))


def _found_hospitals(stage: Stage, founded: Founded, files: Path) -> tuple[Path, dict[str, Path]]:
    """The hospital group's side, up to an inventory that knows the maker's devices."""
    stage.chapter(
        "The hospital group: five hospitals, 39 units, 2,000 devices, from one plan",
        "one plan file makes a hospital group's PKI; the maker hands over two files and no access",
    )
    hospital = founded.folder
    stage.check(founded.devices == 2000, f"plan applied, root ceremony held ({founded.seconds:.0f} s)", founded)
    stage.check(founded.is_idempotent, "a second apply changes not one byte of the export")
    arguments = ("device", "import", str(files / "manifest.json"), "--anchor", str(files / "maker-root.pem"))
    taken = stage.vagus_json(hospital, *arguments)
    stage.check(taken["known"] > 0, f"the maker's manifest and anchor came as files: {taken['known']} devices", taken)
    anchors = {label: stage.folder / f"{label}-anchor.pem" for label in ("h1", "h2")}
    for label, path in anchors.items():
        stage.vagus(hospital, "ca", "export", f"{label}/infra", "--out", str(path))
    return hospital, anchors


def _open_listeners(stage: Stage, hospital: Path, listeners: BuiltListeners) -> None:
    """Stores behind the gateway, and the server that opens only the keys it issues with."""
    stage.chapter(
        "Serving: status, enrolment and gateways; offline keys stay closed",
        "one process serves with the keys that it was given, and without those of roots",
    )
    for ports in ((listeners.store, listeners.store_raw), (listeners.store_h2, listeners.store_h2_raw)):
        command = [sys.executable, "-m", "examples.demo.upstream", *map(str, ports)]
        process = stage.start(command, stage.folder / "upstream.log")
        stage.wait_for_port(ports[0], process, stage.folder / "upstream.log")
    server = stage.serve(hospital, "--issue-for", ",".join(ISSUING))
    for listener in listeners.hospital_listeners:
        stage.wait_for_port(listener.port, server, hospital / "serve.log")
    stage.check(server.poll() is None, f"one process serves {len(listeners.hospital_listeners)} listeners")


def _enrol(cast: scenes.Cast) -> None:
    """Sixty agents, each a process: enrol with the maker's certificate, then telemetry through the gateway."""
    stage, devices = cast.stage, cast.devices
    stage.chapter(
        f"{len(devices)} devices enrol with their IDevIDs and stream telemetry through the gateway",
        "devices enrol by EST with their birth certificates; their telemetry arrives by mutual TLS",
    )
    key = (cast.hospital / "log.vkey").read_text("ascii").strip()

    def live(device: Device) -> Outcome:
        return device.run(
            "run", *options_of(cast.listeners, device.made, cast.anchors), "--log-key", key, "--count", str(LINES)
        )

    begun = time.monotonic()
    outcomes = everyone(stage, devices, live)
    took = time.monotonic() - begun
    bad = [f"{device.label}: {outcome}" for device, outcome in outcomes.items() if outcome.code != 0]
    stage.check(not bad, f"{len(devices) - len(bad)} of {len(devices)} enrolled and connected ({took:.0f} s)", bad[:3])
    received = cast.counts()
    per_device = received["lines"]
    ours = [device for device in devices if device.made.hospital == "h1"]
    whole = sum(1 for lines in per_device.values() if lines == LINES)
    stage.check(
        whole == len(ours), f"the store behind the gateway has {LINES} lines of each of {whole} devices", received
    )
    certified = received["certified_requests"]
    stage.check(certified == LINES * len(ours), f"each request came with its Client-Cert (RFC 9440): {certified}")
    kinds = sorted({device.made.category for device in devices})
    stage.say(f"{len(kinds)} kinds: {', '.join(kinds)}")
    hub = cast.device("h1/remote-care", "home-hub")
    raw = hub.run("connect", "--relay", cast.listeners.lines.route, "--count", "5")
    stage.check(raw.last.get("lines") == 5, f"{hub.label} also streams raw lines through the TCP gateway", raw)


def _stay(cast: scenes.Cast) -> None:
    print(f"\nStill serving from {cast.hospital}; press Ctrl-C to end.")
    for listener in cast.listeners.hospital_listeners:
        print(f"  {listener.name:16} {listener.route}")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("\nstopped")


if __name__ == "__main__":
    main()
