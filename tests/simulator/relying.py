"""One hospital as an operator makes it, by the command line alone, serving while the tests of the session last.

Its devices get their certificates over EST from the serving process. Two shards of the ICU's CRL are in use: the
first is declared full before the server starts, so that devices enrolled by it get the second.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.simulator import plans
from tests.simulator.clients import ListenerConnection, Wish, enrol
from tests.simulator.commands import ENVIRONMENT, PASSPHRASE, SOURCE, found_hospital, vagus
from tests.simulator.orders import key_pem, new_key, order_for, public_key_of
from tests.simulator.processes import Served, serving
from tests.simulator.upstreams import Seen, http_upstream, pass_on, raw_upstream
from tests.simulator.waiting import wait_until
from vagus.authority.shards import SHARD_PLACES
from vagus.identifiers import DeviceId, DeviceName
from vagus.operations.devices import find_named
from vagus.records.certificates import take_places
from vagus.wiring import Installation
from vagus.x509.names.distinguished import SubjectFields

DOMAIN = "test.example"
STATUS_HOST = "status.test.example"
SERVER_NAMES = ("web.test.example", "broker.test.example", "radius.test.example", "127.0.0.1")
"""What the gateway in the ICU may show as a server; nginx, HAProxy, mosquitto and FreeRADIUS show it here."""


def plan(upstream: int, lines: int) -> str:
    """One hospital with a relay for each kind of device, and one for raw streams."""
    h1: dict[str, Any] = {"hospital": "h1", "upstream": upstream}
    return plans.hospital_plan(
        plans.hospital(
            plans.devices("icu", 1, 40),
            plans.devices("icu", 1, 1, plans.GATEWAY, host_names=list(SERVER_NAMES)),
            plans.devices("er", 5001, 10),
            plans.devices("remote-care", 1, 4, "Aorta Rhythm"),
            title="Klinikum Süd",
            units=("icu", "er", "remote-care"),
        ),
        country="DE",
        models=[
            plans.model(),
            plans.model("Aorta Rhythm", category="pacemaker", prefix="ARH"),
            plans.model(plans.GATEWAY, "Keystone", "device-gateway", "KGW"),
        ],
        listeners=[
            plans.STATUS,
            plans.listener("enrol", "enrolment", "enrol.test.example", hospital="h1"),
            plans.listener(
                "enrol-old",
                "enrolment",
                "old.test.example",
                hospital="h1",
                units=["er"],
                tls_minimum="1.2",
                base64="wrapped",
            ),
            plans.listener(
                "enrol-12", "enrolment", "enrol-12.test.example", hospital="h1", units=["er"], tls_minimum="1.2"
            ),
            plans.listener("control", "relay-http", "control.test.example", units=["icu"], function="control", **h1),
            plans.listener("home", "relay-http", "home.test.example", units=["remote-care"], **h1),
            plans.listener("legacy", "relay-http", "legacy.test.example", units=["er"], tls_minimum="1.2", **h1),
            plans.listener(
                "lines", "relay-tcp", "lines.test.example", lines, hospital="h1", units=["icu"], proxy_protocol="v2"
            ),
        ],
    )


@dataclass(frozen=True, slots=True)
class Bearer:
    """The owner of a certificate: files that every program here can read."""

    name: str
    device: str
    leaf: Path  # the certificate alone, PEM
    chain: Path  # with the authorities above it, without the root
    key: Path  # PKCS#8 PEM, not encrypted

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf, parsed by others than ourselves."""
        return x509.load_pem_x509_certificate(self.leaf.read_bytes())

    @property
    def shard_url(self) -> str:
        """Where its CRL is, as its own certificate says."""
        point = self.certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value[0]
        assert point.full_name is not None
        return str(point.full_name[0].value)


class Hospital:
    """The installation, its serving process, and the files that relying parties get from it."""

    def __init__(self, folder: Path, seen: Seen) -> None:
        self.folder = folder / "installation"
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        self.seen = seen
        self.served: Served
        self.behind_lines = 0
        """The port of the server that stands behind the relay of raw streams."""
        self._devices: dict[str, list[str]] = {}
        self._tokens: dict[str, str] = {}
        self._bearers: dict[str, Bearer] = {}

    # making it

    def found(self, upstream: int, lines: int, *options: str) -> None:
        """Plan, hierarchy, inventory, and the first shard of the ICU declared full."""
        found_hospital(self.folder, plan(upstream, lines), *options)
        for row in json.loads(self.vagus("device", "list", "--limit", "1000", "--json")):
            kind = row["unit"] + ("/gate" if row["model"] == "Keystone Gateway" else "")
            self._devices.setdefault(kind, []).append(row["id"])
        for authority in ("root", "h1", "h1/icu", "h1/er", "h1/remote-care", "h1/sdc", "h1/infra"):
            self.vagus("ca", "export", authority, "--out", str(self.authority(authority)))
        self._act_in_process()

    def _act_in_process(self) -> None:
        """What has no command or would take a process for each device: tokens, one SDC peer, a device in shard 0."""
        passphrase = self.files / "passphrase"
        passphrase.touch(0o600)
        passphrase.write_text(PASSPHRASE)
        with Installation.open(self.folder, passphrase_sources=[f"file:{passphrase}"]) as installation:
            everyone = [device for devices in self._devices.values() for device in devices]
            made = [installation.tokens.make(DeviceId(device), by="operator:test") for device in everyone]
            self._tokens = {str(each.result().device_id): each.result().text for each in made}
            self._issue_directly(installation, "early", "h1/icu", "bedside", self._devices["h1/icu"].pop())
            self._issue_directly(installation, "sdc", "h1/sdc", "sdc-provider", self._devices["h1/icu"].pop())
            icu = installation.open_issuers(["h1/icu"])["h1/icu"].authority_id
            installation.writer.submit(lambda batch: take_places(batch.connection, icu, 0, SHARD_PLACES)).result()

    def _issue_directly(self, installation: Installation, name: str, authority: str, profile: str, device: str) -> None:
        key = new_key()
        row = find_named(installation.database, device)
        order = order_for(
            device,
            f"test-{name}",
            profile=profile,
            public_key=public_key_of(key),
            subject=SubjectFields(organisation="Klinikum Süd", unit="Intensive Care", common_name=device),
            dns_names=(str(DeviceName(row.id, row.unit, DOMAIN)),),
        )
        issued = installation.issuance.issue_now(order, installation.open_issuers([authority])[authority])
        self._keep(name, device, x509.load_der_x509_certificate(issued.der), key, authority)

    # while it serves

    def vagus(self, *arguments: str) -> str:
        """What `vagus ARGUMENTS` prints."""
        return vagus(self.folder, *arguments)

    def port(self, listener: str) -> int:
        """Where a listener is."""
        return self.served.port(listener)

    @property
    def status(self) -> str:
        """The status listener as a URL."""
        return f"http://127.0.0.1:{self.port('status')}"

    def curl_words(self, host: str, port: int, who: Bearer | None) -> list[str | Path]:
        """The arguments of curl for a server of that name on loopback; the root alone is trusted."""
        shown: list[str | Path] = [] if who is None else ["--cert", who.chain, "--key", who.key]
        return ["-sS", "--cacert", self.authority("root"), "--resolve", f"{host}:{port}:127.0.0.1", *shown]

    def authority(self, name: str) -> Path:
        """An authority's certificate, PEM."""
        return self.files / f"ca-{name.replace('/', '.')}.pem"

    def spare(self, unit: str = "h1/icu") -> tuple[str, str]:
        """A device that has no certificate yet, and its token."""
        device = self._devices[unit].pop()
        return device, self._tokens[device]

    def enrol(self, name: str, unit: str = "h1/icu", *, label: str | None = None) -> Bearer:
        """A device of `unit` enrols over EST with its token; its files are called `name`."""
        device, token = self.spare(unit)
        wish = Wish(device, token)
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.load_verify_locations(self.authority("root"))
        with closing(ListenerConnection(self.served.addresses["enrol"], "enrol.test.example", trust)) as connection:
            certificate = x509.load_der_x509_certificate(enrol(connection, wish, label))
        authority = unit.removesuffix("/gate") if label is None else "h1/infra"
        return self._keep(name, device, certificate, wish.key, authority)

    def _keep(
        self, name: str, device: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, authority: str
    ) -> Bearer:
        files = self.files
        bearer = Bearer(name, device, files / f"{name}.pem", files / f"{name}-chain.pem", files / f"{name}.key")
        self._bearers[name] = bearer
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        above = [authority] if authority in {"h1/infra", "h1/sdc"} else [authority, "h1"]
        bearer.leaf.write_bytes(pem)
        bearer.chain.write_bytes(pem + b"".join(self.authority(each).read_bytes() for each in above))
        bearer.key.write_bytes(key_pem(key))
        bearer.key.chmod(0o600)
        return bearer

    def bearer(self, name: str) -> Bearer:
        """The device that enrolled under `name`."""
        return self._bearers[name]

    def revoke(self, bearer: Bearer, reason: str = "keyCompromise") -> None:
        """Revoke a device's certificates from another process, and wait until its CRL is out."""
        self.vagus("device", "revoke", bearer.device, "--reason", reason, "--yes")
        wait_until(lambda: self._has(bearer.shard_url, bearer), f"{bearer.name} in its CRL")

    def await_complete_crl(self, bearer: Bearer) -> None:
        """Wait until a revoked device is in the complete CRL too, which gathers for half a minute."""
        complete = bearer.shard_url.rpartition("/")[0] + "/complete.crl"
        wait_until(lambda: self._has(complete, bearer), f"{bearer.name} in the complete CRL", seconds=120)

    def _has(self, url: str, bearer: Bearer) -> bool:
        serial = bearer.certificate.serial_number
        return self.crl_at(url).get_revoked_certificate_by_serial_number(serial) is not None

    def fetch(self, path: str) -> bytes:
        """A file of the status listener."""
        return self.served.get(path)

    def crl_at(self, url: str) -> x509.CertificateRevocationList:
        """The CRL that a certificate's distribution point names."""
        return x509.load_der_x509_crl(self.fetch(url.removeprefix(f"http://{STATUS_HOST}")))

    def crls(self, name: str, *wanted: str) -> Path:
        """A PEM file of CRLs, each wanted as SLUG/SHARD: `root/0`, `h1.icu/complete`."""
        path = self.files / f"{name}-crls.pem"
        ders = []
        for each in wanted:
            slug, _, shard = each.partition("/")
            ders.append(self.fetch(f"/crl/{slug}/1/{shard}.crl"))
        path.write_bytes(b"".join(x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM) for der in ders))
        return path


@contextmanager
def hospital(folder: Path, database: str | None = None) -> Iterator[Hospital]:
    """A hospital that serves while the block lasts."""
    with http_upstream() as (upstream, seen), raw_upstream(lambda stream: pass_on(stream, made.behind_lines)) as lines:
        made = Hospital(folder, seen)
        made.found(upstream, lines, *(("--database", database) if database else ()))
        more = ("--issue-for", "all", "--passphrase-source", SOURCE)
        with serving(made.folder, *more, around=ENVIRONMENT) as made.served:
            yield made
        assert made.served.process.returncode == 0, made.served.log()[-3000:]
