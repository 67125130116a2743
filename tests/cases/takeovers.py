"""A CA with its key and CRL: it is taken over exactly if verifiers accept its devices; gateways then admit them.

Serial numbers: what can be read in two ways revokes nothing, and says both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cases.case import Case, Check, Observation
from tests.cases.workshop import Hospital, Workshop
from tests.simulator.attacked import Credential, request
from tests.simulator.certificates import key_usage, sign_certificate
from tests.simulator.orders import key_pem, new_key
from tests.simulator.running import Outcome, run

_TRUSTED = b"-----BEGIN TRUSTED CERTIFICATE-----"
_GET = b"GET / HTTP/1.1\r\nHost: control.test.example\r\n\r\n"
_DEVICES = 3


@dataclass(frozen=True, slots=True)
class Takeover:
    """A chain file with the CA's key and its newest CRL."""

    name: str
    chain: bytes
    key: bytes
    crl: bytes

    @property
    def certificates(self) -> list[x509.Certificate]:
        """The certificates of the chain, also of blocks with trust settings."""
        plain = self.chain.replace(b"TRUSTED CERTIFICATE", b"CERTIFICATE")
        bodies = re.findall(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", plain, re.DOTALL)
        return [x509.load_der_x509_certificate(_first_element(body)) for body in bodies]

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """The key of the CA."""
        found = load_pem_private_key(self.key, None)
        assert isinstance(found, ec.EllipticCurvePrivateKey)
        return found

    def earlier(self, name: str, serial: int, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        """A client certificate that the CA issued yesterday."""
        began = datetime.now(UTC) - timedelta(days=1)
        return (
            x509.CertificateBuilder(self.certificates[0].subject, _named(f"earlier {serial}"), key.public_key(), serial)
            .not_valid_before(began)
            .not_valid_after(began + timedelta(days=300))
            .add_extension(key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(self.private, hashes.SHA256())
        )


def _first_element(body: bytes) -> bytes:
    """The DER of a block's first element: openssl puts trust settings after the certificate."""
    raw = base64.b64decode(body)
    size = int.from_bytes(raw[2:4], "big") + 4 if raw[1] == 0x82 else raw[2] + 3
    return raw[:size]


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _takeovers(case: Case) -> list[Takeover]:
    keys = [content for content in case.files.values() if b"PRIVATE KEY-----" in content]
    crls = list(case.matching(".crl").values())
    found = []
    for name, content in case.matching(".pem", ".crt").items():
        if b"CERTIFICATE-----" in content and len(keys) == 1 and crls:
            taken = Takeover(name, content, keys[0], crls[0])
            if taken.certificates[0].public_key() == taken.private.public_key():
                found.append(taken)
    return found


def _import(workshop: Workshop, folder: Path, taken: Takeover) -> Outcome:
    place = workshop.scratch()
    for name, content in {"chain.pem": taken.chain, "key.pem": taken.key, "old.crl": taken.crl}.items():
        (place / name).write_bytes(content)
    files = (str(place / "chain.pem"), str(place / "key.pem"), "--crl", str(place / "old.crl"))
    return run(folder, "ca", "import", "h1/icu", *files, "--json")


def _is_good(workshop: Workshop, taken: Takeover) -> str:
    """Whether a relying party that trusts the chain's root accepts a device of the CA: the word, or the reason."""
    if _TRUSTED in taken.chain:
        return "TRUSTED CERTIFICATE"
    place = workshop.scratch()
    leaf = taken.earlier(f"{'a' * 26}.icu.h1.test.example", 77, new_key())
    for name, each in (("leaf", leaf), ("ca", taken.certificates[0]), ("root", taken.certificates[-1])):
        (place / f"{name}.der").write_bytes(each.public_bytes(Encoding.DER))
    words = (str(place / "leaf.der"), str(place / "ca.der"), "--anchors", str(place / "root.der"))
    outcome = workshop.vagus("validate", *words, "--role", "client", "--unsafe-no-status", "--json")
    return "accepted" if outcome.code == 0 else str(outcome.facts["reason"]) if outcome.out else outcome.err


def _observe_import(workshop: Workshop, taken: Takeover) -> Iterator[Observation]:
    verdict = _is_good(workshop, taken)
    folder = workshop.found(_DEVICES)
    before = run(folder, "ca", "list", "--json").facts
    outcome = _import(workshop, folder, taken)
    if verdict != "accepted":
        right = outcome.code in {1, 2} and (verdict in outcome.err)
        yield Observation(taken.name, f"exit {outcome.code}: {outcome.err}", f"refused with {verdict}", right)
        after = run(folder, "ca", "list", "--json").facts
        yield Observation(f"{taken.name}: what was made", str(len(after) - len(before)), "0", after == before)
        return
    what = f"exit {outcome.code}: {outcome.err or outcome.out}"
    yield Observation(taken.name, what, "taken over, as verifiers accept its devices", outcome.code == 0)
    if outcome.code == 0:
        yield from _observe_gateway(workshop, folder, taken)


def _observe_gateway(workshop: Workshop, folder: Path, taken: Takeover) -> Iterator[Observation]:
    """A device that enrols now, one with an earlier certificate, one whose earlier certificate is revoked."""
    listed = run(folder, "device", "list", "--json").facts
    keys = [new_key() for _ in range(3)]
    names = [f"{listed[1]['serial']}.icu.old.example", f"{listed[2]['serial']}.icu.old.example", "forged.example"]
    made = [taken.earlier(name, 1000 + at, key) for at, (name, key) in enumerate(zip(names, keys, strict=True))]
    place = workshop.scratch()
    for at, each in enumerate(made[:2]):
        (place / f"{at}.pem").write_bytes(each.public_bytes(Encoding.PEM))
    imported = "h1/icu#2"
    into = run(folder, "ca", "take-in", imported, str(place), "--json")
    yield Observation("certificates taken in", into.out or into.err, "both", into.code == 0)
    revoked = run(folder, "ca", "revoke-earlier", imported, "--certificate", str(place / "1.pem"), "--yes")
    yield Observation("an earlier one is revoked", revoked.err, "", revoked.code == 0)
    authority = taken.certificates[0]
    with workshop.serve(folder) as hospital:
        key = new_key()
        issued = hospital.post(request(key)).certificate
        seen, right_issuer = issued.issuer.rfc4514_string(), authority.subject.rfc4514_string()
        yield Observation("the issuer", seen, right_issuer, issued.issuer == authority.subject)
        for what, leaf, own, right in (
            ("a device that enrolled", issued, key, 200),
            ("a device with an earlier certificate", made[0], keys[0], 200),
            ("a revoked earlier certificate", made[1], keys[1], 403),
            ("a certificate that was not taken in", made[2], keys[2], 403),
        ):
            status, reason = _ask(hospital, Credential(own, [leaf, authority]))
            wanted = {403: "REVOKED" if leaf is made[1] else "NOT_ISSUED"}.get(right, "")
            is_right = status == right and wanted in reason
            yield Observation(f"{what} at the gateway", f"{status} {reason}", f"{right} {wanted}", is_right)
    audit = run(folder, "audit", "verify")
    yield Observation("the audit", audit.err or audit.out, "sound", audit.code == 0)


def _ask(hospital: Hospital, who: Credential) -> tuple[int, str]:
    with hospital.connect("control", who) as wire:
        response = wire.say(_GET).hear()
    return (0, "closed") if response is None else (response.status, response.body.decode("utf-8", "replace"))


def _observe(case: Case, workshop: Workshop) -> Iterator[Observation]:
    for taken in _takeovers(case):
        yield from _observe_import(workshop, taken)
    # The twins: one CA for clients and one for mail.
    for purpose, right in ((ExtendedKeyUsageOID.CLIENT_AUTH, 0), (ExtendedKeyUsageOID.EMAIL_PROTECTION, 1)):
        outcome = _import(workshop, workshop.found(_DEVICES), make_takeover(purpose))
        seen = f"exit {outcome.code}: {outcome.err}"
        yield Observation(f"a CA for {purpose.dotted_string}", seen, f"exit {right}", outcome.code == right)


def make_takeover(purpose: x509.ObjectIdentifier) -> Takeover:
    """A CA for one purpose, with its root, key and CRL."""
    root_key, key, now = new_key(), new_key(), datetime.now(UTC).replace(microsecond=0)
    names = _named("Root of before"), _named("CA of before")
    ca = (x509.BasicConstraints(ca=True, path_length=None), True), (key_usage("key_cert_sign", "crl_sign"), True)
    sign = partial(sign_certificate, not_before=now - timedelta(days=100), lifetime=timedelta(days=3000))
    root = sign(names[0], root_key.public_key(), names[0], root_key, *ca)
    made = sign(names[1], key.public_key(), names[0], root_key, *ca, (x509.ExtendedKeyUsage([purpose]), False))
    crl = (
        x509.CertificateRevocationListBuilder(names[1], now - timedelta(hours=1), now + timedelta(days=9))
        .add_extension(x509.CRLNumber(3), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (made, root))
    return Takeover("a chain of this check", chain, key_pem(key), crl.public_bytes(Encoding.PEM))


# a command line in the text of a case

_COMMAND = re.compile(r"ca revoke-earlier (\S+#\d+) ([0-9]{20,49})(?!\S)")


def _recognises_serial(case: Case) -> bool:
    return not case.files and _COMMAND.search(case.readme) is not None


def _observe_serial(case: Case, workshop: Workshop) -> Iterator[Observation]:
    found = _COMMAND.search(case.readme)
    assert found is not None
    digits = found[2]
    folder = workshop.found(_DEVICES)
    assert _import(workshop, folder, make_takeover(ExtendedKeyUsageOID.CLIENT_AUTH)).code == 0
    words = ("ca", "revoke-earlier", "h1/icu#2")
    seen = run(folder, *words, digits, "--yes")
    says = all(word in seen.err for word in (f"0x{digits}", f"dec:{digits}", f"{int(digits):x}"))
    what = f"exit {seen.code}: {seen.err}"
    yield Observation("digits alone", what, "refused with both readings", seen.code == 2 and says)
    for text, number in ((f"dec:{digits}", int(digits)), ("0x0", 0), ("5eed", 0x5EED)):
        outcome = run(folder, *words, text, "--yes", "--json")
        facts = outcome.facts if outcome.code == 0 else {}
        right = facts.get("serial") == f"{number:x}" and facts.get("revoked") == 1
        yield Observation(text, outcome.out or outcome.err, f"{number:x} is revoked", right)


CHECKS = (
    Check("imported CAs", lambda case: bool(_takeovers(case)), _observe),
    Check("serial numbers of earlier certificates", _recognises_serial, _observe_serial),
)
