"""`python -m examples.demo_pq`: a post-quantum hospital from two plans to a revoked pump that is refused.

Exit code 0 when every check held. Everything happens on loopback and in a scratch folder that is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from examples.demo.fleet import Device
from examples.demo.performance import perform
from examples.demo.plans import Made
from examples.demo.stage import Broken, Stage
from examples.demo_pq import judges
from examples.demo_pq.hospital import MODEL, SERIALS, Ward

PACK = "iob-2026-pq"
GROUP = "X25519MLKEM768"
LINES = 3


def main() -> None:
    """Play it."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo_pq", description=__doc__)
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="play in this folder and leave it")
    options = parser.parse_args()

    def perform_all(stage: Stage) -> None:
        play(stage)
        stage.summarise()

    sys.exit(perform(perform_all, options.keep))


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays."""

    stage: Stage
    ward: Ward
    hospital: Path
    pumps: tuple[Device, ...]

    def files(self, name: str) -> Path:
        """A file that is handed to others."""
        return self.stage.folder / name


def play(stage: Stage) -> None:
    """All scenes in order."""
    ward, hospital = Ward(), stage.folder / "hospital"
    made = tuple(Made("h1/icu", MODEL, "infusion-pump", serial) for serial in SERIALS)
    cast = Cast(stage, ward, hospital, tuple(Device(stage, one, stage.folder / one.serial) for one in made))
    maker_plan, hospital_plan = ward.write_plans(stage.folder)
    _make_pumps(cast, maker_plan)
    _found(cast, hospital_plan)
    server = stage.serve(hospital, "--issue-for", "all")
    store = stage.start(
        [sys.executable, "-m", "examples.demo.upstream", str(ward.store), str(ward.store_raw)],
        stage.folder / "store.log",
    )
    stage.wait_for_port(ward.store, store, stage.folder / "store.log")
    for listener in ward.listeners:
        stage.wait_for_port(listener.port, server, hospital / "serve.log")
    _enrol(cast)
    _judge(cast, cast.pumps[0], "OK")
    _revoke(cast)


def _make_pumps(cast: Cast, plan: Path) -> None:
    stage, maker = cast.stage, cast.stage.folder / "maker"
    stage.chapter(
        f"The maker: a line under policy pack {PACK}, and {len(cast.pumps)} pumps with ML-DSA keys",
        "a maker certifies ML-DSA keys that its devices made; no private key leaves a device",
    )
    stage.vagus(maker, "init", "--kind", "maker", "--policy", PACK, "--unsafe-fast-kdf", seal=True)
    stage.vagus(maker, "plan", "apply", str(plan), "--yes", "--ceremony", seal=True)
    requests, births = cast.files("requests"), cast.files("births")
    requests.mkdir()
    for pump in cast.pumps:
        done = pump.run("request", "--serial", pump.made.serial, "--key", "mldsa65")
        stage.check(done.code == 0, f"{pump.made.serial} made an ML-DSA-65 key; its request left it", done)
        shutil.copy(pump.state / "idevid" / "request.csr", requests / f"{pump.made.serial}.csr")
    stage.vagus(maker, "maker", "make-idevids", "--requests", str(requests), "--out", str(births), seal=True)
    for pump in cast.pumps:
        shutil.copy(births / pump.made.serial / "certificate.pem", pump.state / "idevid" / "certificate.pem")
    stage.vagus(maker, "maker", "manifest", "--out", str(cast.files("manifest.json")))
    stage.vagus(maker, "ca", "export", "root", "--out", str(cast.files("maker-root.pem")))


def _found(cast: Cast, plan: Path) -> None:
    stage, hospital = cast.stage, cast.hospital
    stage.chapter(
        f"The hospital: one ward under policy pack {PACK}",
        "the choice of a policy pack makes every authority post-quantum, from the root down",
    )
    begun = stage.vagus_json(hospital, "init", "--policy", PACK, "--unsafe-fast-kdf", seal=True)
    stage.check(begun["policy_pack"].startswith(PACK), f"vagus init --policy {PACK}: {begun['policy_pack']}", begun)
    stage.vagus(hospital, "plan", "apply", str(plan), "--yes", "--ceremony", seal=True)
    stage.vagus(
        hospital, "device", "import", str(cast.files("manifest.json")), "--anchor", str(cast.files("maker-root.pem"))
    )
    stage.vagus(hospital, "ca", "export", "h1/infra", "--out", str(cast.files("infra.pem")))
    stage.vagus(hospital, "ca", "export", "--roots", "--out", str(cast.files("root.pem")))
    stage.vagus(hospital, "ca", "export", "--hospital", "h1", "--no-root", "--out", str(cast.files("above.pem")))
    above = x509.load_pem_x509_certificates(cast.files("root.pem").read_bytes() + cast.files("above.pem").read_bytes())
    for one in above:
        name = one.subject.rfc4514_string().split(",")[0].removeprefix("CN=")
        stage.say(f"{name}: {_kind(one)}, {len(one.public_bytes(serialization.Encoding.DER)):,} bytes")
    stage.check(all("ML-DSA" in _kind(one) for one in above), f"all {len(above)} authorities have ML-DSA keys")


def _enrol(cast: Cast) -> None:
    stage, ward = cast.stage, cast.ward
    stage.chapter(
        "The pumps enrol with the maker's certificate and stream telemetry through the gateway",
        "devices with ML-DSA keys enrol by EST and send by mutual TLS with a hybrid key exchange",
    )
    for pump in cast.pumps:
        done = pump.run(
            *("enrol", "--server", ward.enrol.route, "--relay", ward.telemetry.route),
            *("--status", f"127.0.0.1:{ward.status.port}", "--anchors", str(cast.files("infra.pem"))),
            *("--category", pump.made.category, "--key", "mldsa65"),
        )
        stage.check(done.code == 0, f"{pump.label} enrolled", done)
    leaf = x509.load_pem_x509_certificate(_chain_of(cast.pumps[0]))
    stage.check(
        _kind(leaf) == "ML-DSA-65", f"its key is {_kind(leaf)}, its certificate {len(_der(leaf)):,} bytes", leaf
    )
    for pump in cast.pumps:
        done = pump.run("connect", "--count", str(LINES))
        stage.check(done.code == 0, f"{pump.label} sent {done.last.get('lines')} lines", done)
        stage.check(done.last.get("group") == GROUP, f"the key exchange was the hybrid {done.last.get('group')}", done)
    counts = _counts(ward)
    arrived = sorted(counts["lines"].values())
    stage.check(arrived == [LINES] * len(cast.pumps), f"the store behind the gateway has {sum(arrived)} lines", counts)


def _judge(cast: Cast, pump: Device, expected: str) -> None:
    """Others than ourselves judge the path of a pump, with the CRLs of every level."""
    stage, leaf, crls = cast.stage, cast.files(f"{pump.made.serial}.pem"), cast.files("crls.pem")
    stage.chapter(
        f"OpenSSL judges the chain of {pump.label}, with every CRL above it",
        "the verdict of software of others on chain and CRLs is ours",
    )
    leaf.write_bytes(_chain_of(pump))
    stage.vagus(cast.hospital, "ca", "crls", "h1/icu", "--out", str(crls), "--replace")
    files = (leaf, cast.files("above.pem"), cast.files("root.pem"), crls)
    said = judges.verify_by_library(*files)
    stage.check(expected in said, f"{judges.library_version()} of the package cryptography: {said}", said)
    found = judges.find_openssl()
    if found is None:
        stage.say("no openssl program from 3.5 on is at hand (tests/interop/prepare.sh brings one): not asked")
        return
    said = judges.verify_by_program(found[0], *files)
    stage.check(expected in said, f"{found[1]}: {said}", said)


def _revoke(cast: Cast) -> None:
    stage, (pump, neighbour, _) = cast.stage, cast.pumps
    stage.chapter(f"{pump.label} is revoked", "a revoked device is refused and its neighbour is not")
    name = f"{MODEL}:{pump.made.serial}"
    stage.vagus(cast.hospital, "device", "revoke", name, "--reason", "keyCompromise", "--yes")
    refused = pump.run("connect", "--count", "1")
    # the device is quarantined by the same act: the gateway names whichever it reads first
    stage.check(
        refused.code != 0 and refused.reason in {"REVOKED", "DEVICE_STATE"},
        f"it is refused [{refused.reason}]",
        refused,
    )
    again = pump.run("enrol", "--force")
    stage.check(again.code not in {0, 2}, f"it gets no other certificate [{again.reason}]", again)
    passes = neighbour.run("connect", "--count", "1")
    stage.check(passes.code == 0, f"{neighbour.label} goes on", passes)
    _await_crl(cast, pump)
    _judge(cast, pump, "certificate revoked")


def _await_crl(cast: Cast, pump: Device) -> None:
    """Until the complete CRL names the pump: at most the minute that the pack allows."""
    serial = x509.load_pem_x509_certificate(_chain_of(pump)).serial_number
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        text = cast.stage.vagus(cast.hospital, "ca", "crls", "h1/icu")
        if x509.load_pem_x509_crl(text.encode()).get_revoked_certificate_by_serial_number(serial) is not None:
            return
        time.sleep(0.5)
    raise Broken("the CRL does not name the revoked pump after a minute")


def _chain_of(pump: Device) -> bytes:
    return (pump.state / "current" / "chain.pem").read_bytes()


def _counts(ward: Ward) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{ward.store}/counts", timeout=10) as response:
        return json.load(response)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _kind(certificate: x509.Certificate) -> str:
    """The kind of its key: ML-DSA-65, or what else it is."""
    name = type(certificate.public_key()).__name__.removesuffix("PublicKey")
    return name.replace("MLDSA", "ML-DSA-") if name.startswith("MLDSA") else name


if __name__ == "__main__":
    main()
