"""Keys with compressed points: enrolment and the verifier give one answer, and both take the uncompressed twin."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cases.case import Case, Check, Observation
from tests.cases.certificates import MadeChain, make_chain
from tests.cases.est_bodies import Body, describe, read_body
from tests.cases.workshop import Workshop
from tests.simulator.orders import new_key, signing_request
from vagus.x509 import der

_P256 = der.sequence(der.object_identifier("1.2.840.10045.2.1"), der.object_identifier("1.2.840.10045.3.1.7"))


def compress(spki_der: bytes) -> bytes:
    """The same P-256 key with its point compressed."""
    point = spki_der[-65:]
    short = bytes((2 + point[-1] % 2,)) + point[1:33]
    return der.sequence(_P256, der.bit_string(short))


def signed_again(certificate_der: bytes, spki_der: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate with another SubjectPublicKeyInfo, signed by the key of its issuer."""
    (_, tbs, _), (_, _, algorithm), _ = der.split_elements(der.content_of(certificate_der, der.SEQUENCE))
    parts = [whole for _, _, whole in der.split_elements(tbs)]
    parts[6] = spki_der
    made = der.sequence(*parts)
    signature = key.sign(made, ec.ECDSA(hashes.SHA256()))
    return der.sequence(made, algorithm, der.bit_string(signature))


def _recognises(case: Case) -> bool:
    return any(body.is_compressed for body in _bodies(case))


def _bodies(case: Case) -> list[Body]:
    found = [read_body(content) for content in case.matching(".b64", ".bin", ".der").values()]
    return [body for body in found if body is not None]


def _observe(case: Case, workshop: Workshop) -> Iterator[Observation]:
    made = make_chain(workshop.clock_start)
    for body in (one for one in _bodies(case) if one.is_compressed):
        response = workshop.hospital.post(body.content)
        verdict = _is_valid(workshop, made, body.info[2][2])
        seen = f"enrolment {describe(response)}; the verifier {'accepts' if verdict else 'refuses'}"
        yield Observation("a compressed point", seen, "one answer", (response.status == 200) is verdict)
    key = new_key()
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    response = workshop.hospital.post(base64.b64encode(signing_request(key, x509.Name([]))))
    is_right = response.status == 200 and _is_valid(workshop, made, spki)
    yield Observation("an uncompressed point", describe(response), "enrolled and accepted", is_right)
    short = _is_valid(workshop, made, compress(spki))
    long = workshop.hospital.post(base64.b64encode(compressed_request(new_key())))
    seen = f"{describe(long)}; the verifier {'accepts' if short else 'refuses'}"
    yield Observation("another compressed point", seen, "one answer", (long.status == 200) is short)


def compressed_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PKCS#10 request whose key is a compressed point."""
    outer = der.split_elements(der.content_of(signing_request(key, x509.Name([])), der.SEQUENCE))
    parts = [whole for _, _, whole in der.split_elements(outer[0][1])]
    parts[2] = compress(parts[2])
    info = der.sequence(*parts)
    signature = der.bit_string(key.sign(info, ec.ECDSA(hashes.SHA256())))
    return der.sequence(info, outer[1][2], signature)


def _is_valid(workshop: Workshop, made: MadeChain, spki_der: bytes) -> bool:
    leaf_der = signed_again(made.chain.leaf.public_bytes(Encoding.DER), spki_der, made.ca_key)
    words = made.chain.arguments(workshop.scratch(), leaf_der)
    at = workshop.clock_start.isoformat()
    return workshop.vagus(*words, "--role", "client", "--unsafe-no-status", "--at", at).code == 0


CHECKS = (Check("compressed points", _recognises, _observe),)
