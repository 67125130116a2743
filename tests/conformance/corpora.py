"""Malformed corpora and lone signatures: OpenSSL's fuzz inputs, zlint, ML-DSA artifacts, Wycheproof."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.conformance.reading import pem_certificate
from tests.conformance.verdicts import Case, Expected, Got, judge
from vagus.errors import VagusError
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.decoding import decode_crl
from vagus.x509.der import object_identifier
from vagus.x509.ocsp.messages import decode_ocsp_request, decode_ocsp_response
from vagus.x509.pem import decode_certificates
from vagus.x509.signatures import key_facts, verify_signed

_MLDSA = re.compile(r"(?:^|/)ml-dsa-(?:44|65|87)-2\.16\.840\.1\.101\.3\.4\.3\.(?:17|18|19)_ta\.der$")


def run_fuzz(folder: Path) -> Iterator[Case]:
    """Every input of every zip, to the reader that it was made for and to the others: our error or a value."""
    for path in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith("/"):
                    yield judge(
                        "openssl-fuzz", f"{path.stem}/{Path(name).name}", Expected.EITHER, _reads(archive.read(name))
                    )


def _reads(content: bytes) -> Callable[[], None]:
    def act() -> None:
        for decode in (decode_certificate, decode_crl, decode_ocsp_request, decode_ocsp_response):
            with suppress(VagusError):
                decode(content)
                return
        key_facts(content)

    return act


def run_zlint(folder: Path) -> Iterator[Case]:
    """Every PEM: it parses and its key is read, or one of our errors says why not."""
    for path in sorted(folder.glob("*.pem")):
        yield judge("zlint", path.name, Expected.EITHER, partial(_verify_pem, path.read_bytes()))


def _verify_pem(text: bytes) -> None:
    content = decode_certificates(text)[0]
    key_facts(decode_certificate(content).spki_der)
    _verify_self(content)


def run_pqc(folder: Path) -> Iterator[Case]:
    """Self-signed ML-DSA certificates of several makers and of RFC 9881; other algorithms are reported."""
    for path in sorted(folder.glob("*certs*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("_ta.der"):
                    continue
                case_name = f"{path.stem}/{Path(name).name}"
                content = archive.read(name)
                if _MLDSA.search(name):
                    yield judge("pqc", case_name, Expected.ACCEPT, partial(_verify_self, content))
                    continue
                refused = judge("pqc", case_name, Expected.REFUSE, partial(_verify_self, content))
                got = Got.UNSUPPORTED if refused.got is Got.REFUSED else refused.got
                yield Case("pqc", case_name, Expected.ACCEPT, got, refused.reason)
    for path in sorted((folder / "rfc9881").glob("*.crt")):
        content = pem_certificate(path.read_text(encoding="ascii"))
        yield judge("pqc", f"rfc9881/{path.name}", Expected.ACCEPT, partial(_verify_self, content))


def _verify_self(content: bytes) -> None:
    certificate = decode_certificate(content)
    verify_signed(certificate.spki_der, certificate.algorithm_der, certificate.signature, certificate.tbs_der)


_WYCHEPROOF = {
    "ECDSA": "1.2.840.10045.4.3.2",
    "EDDSA": "1.3.101.112",
    "ML-DSA-44": "2.16.840.1.101.3.4.3.17",
    "ML-DSA-65": "2.16.840.1.101.3.4.3.18",
    "ML-DSA-87": "2.16.840.1.101.3.4.3.19",
}


def run_wycheproof(folder: Path) -> Iterator[Case]:
    """Signature vectors through the verifier's own `verify_signed`; contexts of ML-DSA never occur in certificates."""
    for path in sorted(folder.glob("*.json")):
        suite = json.loads(path.read_text(encoding="utf-8"))
        oid = _WYCHEPROOF.get(suite["algorithm"])
        for group in suite["testGroups"]:
            for test in group["tests"]:
                name = f"{path.stem}/{test['tcId']}"
                expected = {"valid": Expected.ACCEPT, "invalid": Expected.REFUSE}.get(test["result"], Expected.EITHER)
                if oid is None or group.get("sha", "SHA-256") != "SHA-256" or test.get("ctx"):
                    yield Case("wycheproof", name, expected, Got.UNSUPPORTED, suite["algorithm"])
                    continue
                key, signature = group.get("publicKeyDer"), bytes.fromhex(test["sig"])
                message = bytes.fromhex(test["msg"])
                if key is None:
                    # the keys of this group do not encode, so whatever they verify is invalid
                    yield Case("wycheproof", name, expected, Got.REFUSED, "BAD_ENCODING")
                    continue
                yield judge("wycheproof", name, expected, _verifies(bytes.fromhex(key), oid, signature, message))


def _verifies(spki_der: bytes, oid: str, signature: bytes, message: bytes) -> Callable[[], None]:
    body = object_identifier(oid)
    identifier = b"\x30" + bytes([len(body)]) + body
    return lambda: verify_signed(spki_der, identifier, signature, message)
