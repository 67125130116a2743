"""Certificates between PEM text and DER bytes (RFC 7468); decodes no certificate."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from vagus.errors import Malformed
from vagus.reasons import Reason

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\s(.*?)-----END \1-----", re.DOTALL)
_SEQUENCE = 0x30
_MOST = 10_000


def decode_blocks(raw: bytes, label: str) -> tuple[bytes, ...]:
    """The DER objects in `raw`: one as it is, or every PEM block called `label` ("CERTIFICATE", "X509 CRL").

    Raises Malformed(BAD_ENCODING) when there is none or one is not base64, Malformed(TOO_MANY) above 10,000.
    """
    if raw[:1] == bytes([_SEQUENCE]):
        return (raw,)
    found: list[bytes] = []
    for name, body in _BLOCK.findall(raw):
        if name.decode("ascii") != label:
            continue
        try:
            found.append(base64.b64decode(b"".join(body.split()), validate=True))
        except binascii.Error as fault:
            msg = f"PEM block {len(found) + 1} is not base64; send the file as it was made"
            raise Malformed(Reason.BAD_ENCODING, msg) from fault
        if len(found) > _MOST:
            raise Malformed(Reason.TOO_MANY, f"the file has more than {_MOST} PEM blocks; split it")
    if not found:
        raise Malformed(Reason.BAD_ENCODING, f"the file has neither DER nor a PEM block {label}; give such a file")
    return tuple(found)


def decode_certificates(raw: bytes) -> tuple[bytes, ...]:
    """The certificates in `raw`, DER or PEM. Raises as `decode_blocks`."""
    return decode_blocks(raw, "CERTIFICATE")


def encode_block(der: bytes, label: str) -> bytes:
    """One PEM block, lines of 64 characters, as RFC 7468 section 2 asks of generators."""
    text = base64.b64encode(der)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    name = label.encode("ascii")
    return b"-----BEGIN " + name + b"-----\n" + lines + b"\n-----END " + name + b"-----\n"


def encode_certificates(ders: Iterable[bytes]) -> bytes:
    """Certificates as PEM, in the order given."""
    return b"".join(encode_block(der, "CERTIFICATE") for der in ders)
