"""Bodies of EST requests: good ones enrol and enter no certificate, bad ones get a status and a sentence that fit."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cases.case import Case, Check, Observation
from tests.cases.workshop import Workshop
from tests.simulator.listeners import Response
from tests.simulator.orders import new_key, signing_request
from vagus.x509 import der

MOST_ATTRIBUTES = 32
_ENDINGS = (".b64", ".bin", ".der", ".pem")
_ECDSA = der.object_identifier("1.2.840.10045.4.3.2")
_BOM = b"\xef\xbb\xbf"
_ACCEPTED, _REFUSED = {200}, {400, 415}


@dataclass(frozen=True, slots=True)
class Body:
    """A request body, the PKCS#10 request that its sender meant, and what is wrong with the form it came in."""

    content: bytes
    request_der: bytes
    fault: str = ""
    words: str = ""
    """A pattern of which a good refusal contains a match."""

    @property
    def info(self) -> list[tuple[int, bytes, bytes]]:
        """The elements of its CertificationRequestInfo."""
        return der.split_elements(_outer(self.request_der)[0][1])

    @property
    def has_null(self) -> bool:
        """Whether its ECDSA signature names parameters NULL."""
        return _outer(self.request_der)[1][1] == _ECDSA + der.NULL_DER

    @property
    def is_compressed(self) -> bool:
        """Whether its key is a compressed point."""
        bits = der.split_elements(self.info[2][1])[1][1]
        return bits[1:2] in {b"\x02", b"\x03"} and len(bits) < 70

    @property
    def attributes(self) -> int:
        """How many it has."""
        return len(der.split_elements(self.info[3][1])) if len(self.info) > 3 else 0


def read_body(content: bytes) -> Body | None:
    """What a person would read in `content`; None where no PKCS#10 request is in it."""
    text, fault, words = content, "", ""
    if text.startswith(_BOM):
        text, fault, words = text[3:], "a byte order mark", "(?i)byte order mark|BOM"
    if b"-----BEGIN" in text:
        begins = text.startswith(b"-----BEGIN")
        fault, words = ("PEM", "PEM") if begins else ("text before PEM", "PEM.*text|text.*PEM")
        block = re.search(rb"-----BEGIN [A-Z ]*CERTIFICATE REQUEST-----(.*?)-----END", text, re.DOTALL)
        text = block[1] if block else b""
    if not text.startswith(b"0"):
        if b" " in text.strip():
            fault, words = fault or "spaces for plus", words or r"(?i)space|'\+'|plus"
        try:
            text = base64.b64decode(re.sub(rb"[\r\n\t]", b"", text.strip().replace(b" ", b"+")), validate=True)
        except ValueError:
            return None
    end = _length(text)
    if end < len(text):
        is_line = not text[end:].strip()
        fault, words = "bytes after the request", "(?i)new ?line|line (break|end|feed)" if is_line else "(?i)after"
    body = Body(content, text[:end], fault, words)
    try:
        shape = [tag for tag, _, _ in _outer(body.request_der)], [tag for tag, _, _ in body.info[:3]]
    except Exception:  # noqa: BLE001 whatever is in the file, it is no request
        return None
    return body if shape == ([0x30, 0x30, 0x03], [0x02, 0x30, 0x30]) else None


def _length(text: bytes) -> int:
    """Where the SEQUENCE that begins `text` ends."""
    if text[:1] != b"0" or len(text) < 4:
        return len(text)
    count = text[1] & 0x7F if text[1] & 0x80 else 0
    return 2 + count + (int.from_bytes(text[2 : 2 + count], "big") if count else text[1])


def _outer(request_der: bytes) -> list[tuple[int, bytes, bytes]]:
    return der.split_elements(der.content_of(request_der, der.SEQUENCE))


def with_null(request_der: bytes) -> bytes:
    """The same request with NULL parameters after its ECDSA algorithm; its signature covers neither."""
    (_, _, info), _, (_, _, signature) = _outer(request_der)
    return der.sequence(info, der.sequence(_ECDSA, der.NULL_DER), signature)


def damaged(request_der: bytes) -> bytes:
    """The same request, of which its key has signed another."""
    (_, _, info), (_, _, algorithm), _ = _outer(request_der)
    other = new_key().sign(b"another", ec.ECDSA(hashes.SHA256()))
    return der.sequence(info, algorithm, der.bit_string(other))


def describe(response: Response) -> str:
    """A response on one line."""
    if response.status == 200:
        return "200"
    said = json.loads(response.body)
    return f"{response.status} {said.get('reason')} {said.get('detail')}"


def _good(case: Case) -> list[tuple[str, Body]]:
    return [(name, body) for name, body in _bodies(case) if not body.fault]


def _faulty(case: Case) -> list[tuple[str, Body]]:
    return [(name, body) for name, body in _bodies(case) if body.fault]


def _bodies(case: Case) -> list[tuple[str, Body]]:
    found = [(name, read_body(content)) for name, content in case.matching(*_ENDINGS).items()]
    return [(name, body) for name, body in found if body is not None]


def _has_no_refused_form(case: Case) -> bool:
    return any(not body.is_compressed for _, body in _good(case))


def _observe_good(case: Case, workshop: Workshop) -> Iterator[Observation]:
    """A request that verifies enrols, whatever its encoder's habits; one over a bound is refused, and not for now."""
    seen: set[bytes] = set()
    for name, body in _good(case):
        if body.is_compressed or body.request_der in seen:
            continue
        seen.add(body.request_der)
        key = b"" if body.attributes > MOST_ATTRIBUTES else body.info[2][2]
        response = workshop.hospital.post(body.content, token=workshop.hospital.token(key))
        if body.attributes > MOST_ATTRIBUTES:
            is_right = response.status in {400, 413}
            yield Observation(name, describe(response), "400 or 413, since to wait changes nothing", is_right)
        else:
            yield _enrolled(name, response, body.info[2][2])
        if body.has_null:
            yield from _observe_null_twins(workshop)
            yield _signed(name, workshop, body.request_der)
    fresh = signing_request(new_key(), x509.Name([]))
    yield _enrolled("a plain request", workshop.hospital.post(base64.b64encode(fresh)), _spki(fresh))


def _observe_null_twins(workshop: Workshop) -> Iterator[Observation]:
    fresh = with_null(signing_request(new_key(), x509.Name([])))
    response = workshop.hospital.post(base64.b64encode(damaged(fresh)))
    is_right = response.status == 400 and response.reason == "POP_FAILED"
    yield Observation("NULL, and signed by another key", describe(response), "400 POP_FAILED", is_right)
    yield _enrolled("NULL on one's own key", workshop.hospital.post(base64.b64encode(fresh)), _spki(fresh))
    outcome, certificate = workshop.maker.sign(damaged(fresh))
    is_right = outcome.code == 1 and certificate is None
    yield Observation("make-idevids: NULL, and signed by another key", outcome.err[-200:], "refused", is_right)


def _signed(name: str, workshop: Workshop, request_der: bytes) -> Observation:
    outcome, certificate = workshop.maker.sign(request_der)
    is_right = certificate is not None and _key_of(x509.load_pem_x509_certificate(certificate)) == _spki(request_der)
    return Observation(f"make-idevids: {name}", outcome.err[-200:] or "signed", "a certificate of its key", is_right)


def _key_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _spki(request_der: bytes) -> bytes:
    return Body(b"", request_der).info[2][2]


def _enrolled(what: str, response: Response, spki_der: bytes) -> Observation:
    """200 with a certificate of that key, whose own signature algorithm has no parameters."""
    is_right = response.status == 200
    if is_right:
        found = response.certificate
        is_right = _key_of(found) == spki_der and _ECDSA + der.NULL_DER not in found.public_bytes(Encoding.DER)
    return Observation(what, describe(response), "200 and a certificate of its key, without NULL", is_right)


def _observe_faulty(case: Case, workshop: Workshop) -> Iterator[Observation]:
    """A refusal says what was seen; the same request in its right form enrols."""
    for name, body in _faulty(case):
        response = workshop.hospital.post(body.content)
        detail = "" if response.status == 200 else str(json.loads(response.body).get("detail"))
        is_right = response.status in _REFUSED and re.search(body.words, detail) is not None
        yield Observation(name, describe(response), f"a refusal that names {body.fault}", is_right)
    fresh = signing_request(new_key(), x509.Name([]))
    coded = workshop.hospital.post(base64.b64encode(fresh), headers=("Content-Encoding: gzip",))
    yield Observation("a body with Content-Encoding", describe(coded), "415", coded.status == 415)
    yield _enrolled("its own request in base64", workshop.hospital.post(base64.b64encode(fresh)), _spki(fresh))


CHECKS = (
    Check("EST requests", _has_no_refused_form, _observe_good),
    Check("EST bodies", lambda case: bool(_faulty(case)), _observe_faulty),
)
