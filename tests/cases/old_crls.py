"""CRLs with small faults: what such a CRL revokes is refused, and its issuer's other certificates are not held up.

The library reads no CRL of this kind. So this check reads serial numbers itself, from the bytes and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cases.case import Case, Check, Observation
from tests.cases.certificates import read_certificates
from tests.cases.workshop import Workshop
from tests.x509 import chains
from tests.x509.chains import AT, Listed
from vagus.errors import VagusError
from vagus.x509 import der
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.decoding import Crl, decode_crl, verify_crl
from vagus.x509.signatures import SignatureVerdicts

_ABSENT = 0x5EED


def _crls(case: Case) -> dict[str, bytes]:
    return {name: content for name, content in case.matching(".crl").items() if content[:1] == b"\x30"}


def _recognises(case: Case) -> bool:
    """CRLs beside the CA that signed them, without a certificate that they are about and without a key."""
    leaves, authorities = read_certificates(case)
    has_key = any(b"PRIVATE KEY" in content for content in case.files.values())
    return bool(_crls(case) and authorities) and not leaves and not has_key


def listed_serials(crl_der: bytes) -> list[bytes]:
    """The contents of the serial numbers in revokedCertificates, whatever else an entry holds."""
    outer = der.read_children(crl_der, *der.read_whole(crl_der, der.SEQUENCE, "a CRL"))
    fields = der.read_children(crl_der, *outer[0][2:])
    times = [place for place, field in enumerate(fields) if field[0] in {der.UTC_TIME, der.GENERALIZED_TIME}]
    after = fields[times[-1] + 1 :]
    if not after or after[0][0] != der.SEQUENCE:
        return []
    entries = der.read_children(crl_der, *after[0][2:])
    serials = [der.read_children(crl_der, *entry[2:])[0] for entry in entries]
    return [crl_der[first:last] for _, _, first, last in serials]


def _read(crl_der: bytes, signers: list[x509.Certificate]) -> Crl | str:
    """The CRL as the verifier has it, or why it is refused."""
    try:
        crl = decode_crl(crl_der)
        for each in signers:
            signer = decode_certificate(each.public_bytes(Encoding.DER))
            if signer.subject.matches(crl.issuer):
                verify_crl(crl, signer, SignatureVerdicts())
                return crl
    except VagusError as refusal:
        return f"{refusal.reason}: {refusal.message}"
    return "no signer"


def _judge(what: str, crl_der: bytes, signers: list[x509.Certificate]) -> Iterator[Observation]:
    seen = _read(crl_der, signers)
    if isinstance(seen, str):
        yield Observation(what, seen, "read, since it can hide no revocation", is_right=False)
        return
    reasons = [seen.find_reason(seen.issuer, serial) for serial in listed_serials(crl_der)]
    right = all(reason is not None and reason != 8 for reason in reasons)
    yield Observation(f"{what}: what it names", str(reasons), "revoked or on hold", right)
    absent = seen.find_reason(seen.issuer, der.integer(_ABSENT)[2:])
    yield Observation(f"{what}: what it does not name", str(absent), "None", absent is None)


def _observe(case: Case, _workshop: Workshop) -> Iterator[Observation]:
    _, authorities = read_certificates(case)
    for name, content in _crls(case).items():
        yield from _judge(name, content, authorities)
    # The twins: a faultless CRL, and faults that could hide a revocation.
    root = chains.root()
    signers = [x509.load_der_x509_certificate(root.der)]
    yield from _judge("a faultless CRL", chains.crl(root, [Listed(5, 1)]), signers)
    entry = der.sequence(b"\x02\x02\x00\x05", der.time(AT))
    critical = Listed(5, extra=(chains.Ext(chains.UNKNOWN, b"", critical=True),)).encode()
    for what, body in {"a padded serial": entry, "an unknown critical extension": critical}.items():
        seen = _read(chains.crl(root, body=der.sequence(body)), signers)
        yield Observation(what, str(seen)[:60], "refused whole", isinstance(seen, str))
    seen = _read(chains.crl(root, body=der.sequence(), flip=9), signers)
    yield Observation("an empty SEQUENCE under a bad signature", str(seen)[:60], "refused", isinstance(seen, str))


CHECKS = (Check("CRLs with small faults", _recognises, _observe),)
