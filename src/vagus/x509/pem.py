"""Certificates, requests and CRLs between PEM text and DER bytes (RFC 7468), by one rule; decodes none of them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator

from vagus.errors import Malformed
from vagus.reasons import Reason

CERTIFICATE = "CERTIFICATE"
REQUEST = "CERTIFICATE REQUEST"
CRL = "X509 CRL"

_SAME = {"X509 CERTIFICATE": CERTIFICATE, "X.509 CERTIFICATE": CERTIFICATE, "NEW CERTIFICATE REQUEST": REQUEST}
"""Labels of older software that are taken for the present ones (RFC 7468 5.1 and 7). RFC 7468 6 has none for CRLs."""
_REMEDIES = {
    "TRUSTED CERTIFICATE": "its trust settings would be lost; write it anew with: openssl x509 -in FILE -out NEW",
    "PKCS7": "write its certificates with: openssl pkcs7 -print_certs -in FILE -out NEW",
}
_BUNDLES = frozenset({"PKCS7", "CMS"})
# RFC 7468 section 3: a label has printable characters, with single hyphens and spaces between them.
_BOUNDARY = re.compile(rb"-----(BEGIN|END) ([!-,.-~](?:[ -]?[!-,.-~]){0,63})-----")
_SEQUENCE = 0x30
_MOST = 10_000
_MOST_NAMED = 5


def decode_blocks(raw: bytes, label: str) -> tuple[bytes, ...]:
    """The DER objects in `raw`: one as it is, or every PEM block called `label` ("CERTIFICATE", "X509 CRL").

    A label that older software writes for the same object counts as `label`. Blocks of other things (a key, parameters)
    and the text between blocks are skipped. Raises Malformed(BAD_ENCODING) when nothing is left, for a block that is
    cut off, that is not base64, or that has the object in a form that is not read (a TRUSTED CERTIFICATE, PKCS #7),
    and Malformed(TOO_MANY) above 10,000.
    """
    return (raw,) if raw[:1] == bytes([_SEQUENCE]) else decode_pem(raw, label)


def decode_one(raw: bytes, label: str) -> bytes:
    """The only object in `raw`: of several, none is chosen. Raises as `decode_blocks`."""
    found = decode_blocks(raw, label)
    if len(found) > 1:
        msg = f"the file has {len(found)} blocks {label}, and one is wanted; put that one into a file alone"
        raise Malformed(Reason.BAD_ENCODING, msg)
    return found[0]


def decode_one_or_base64(raw: bytes, label: str) -> bytes:
    """As `decode_one`; also takes the base64 of a PEM block without its BEGIN and END, as some web pages show it."""
    text = b"".join(raw.split())
    if raw[:1] != bytes([_SEQUENCE]) and text and not list_labels(raw):
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            pass  # neither: the error below names what a file may have
    return decode_one(raw, label)


def decode_pem(raw: bytes, label: str) -> tuple[bytes, ...]:
    """As `decode_blocks`, of PEM alone."""
    found: list[bytes] = []
    seen: list[str] = []
    for line, name, body in _read_blocks(raw):
        seen.append(name)
        if _SAME.get(name, name) != label:
            _check_other(name, label, line)
            continue
        try:
            found.append(base64.b64decode(b"".join(body.split()), validate=True))
        except binascii.Error as fault:
            msg = f"the PEM block {name} in line {line} is not base64; send the file as it was made"
            raise Malformed(Reason.BAD_ENCODING, msg) from fault
        if len(found) > _MOST:
            raise Malformed(Reason.TOO_MANY, f"the file has more than {_MOST} PEM blocks; split it")
    if not found:
        msg = f"the file has neither DER nor a PEM block {label}; it has {describe_labels(seen)}; give such a file"
        raise Malformed(Reason.BAD_ENCODING, msg, labels=", ".join(dict.fromkeys(seen)))
    return tuple(found)


def decode_certificates(raw: bytes) -> tuple[bytes, ...]:
    """The certificates in `raw`, DER or PEM. Raises as `decode_blocks`."""
    return decode_blocks(raw, CERTIFICATE)


def list_labels(raw: bytes) -> tuple[str, ...]:
    """The labels of the PEM blocks in `raw`, as they are written, also of blocks that do not end."""
    return tuple(found[2].decode("ascii") for found in _BOUNDARY.finditer(raw) if found[1] == b"BEGIN")


def describe_labels(seen: Iterable[str]) -> str:
    """The labels that a file has, for messages."""
    names = tuple(dict.fromkeys(seen))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}" if names else "no PEM block at all"


def encode_block(der: bytes, label: str) -> bytes:
    """One PEM block, lines of 64 characters, as RFC 7468 section 2 asks of generators."""
    text = base64.b64encode(der)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    name = label.encode("ascii")
    return b"-----BEGIN " + name + b"-----\n" + lines + b"\n-----END " + name + b"-----\n"


def encode_certificates(ders: Iterable[bytes]) -> bytes:
    """Certificates as PEM, in the order given."""
    return b"".join(encode_block(der, CERTIFICATE) for der in ders)


def _read_blocks(raw: bytes) -> Iterator[tuple[int, str, bytes]]:
    """Line, label and body of each block. A damaged block is refused, as it would be passed over otherwise."""
    begun: re.Match[bytes] | None = None
    line, counted = 1, 0
    for bound in _BOUNDARY.finditer(raw):
        name = bound[2].decode("ascii")
        if bound[1] == b"BEGIN":
            if begun is not None:
                break
            line, counted = line + raw.count(b"\n", counted, bound.start()), bound.start()
            begun = bound
        elif begun is None or begun[2] != bound[2]:
            here = line + raw.count(b"\n", counted, bound.start())
            msg = f"the END {name} in line {here} has no BEGIN before it; the file is damaged, copy it again"
            raise Malformed(Reason.BAD_ENCODING, msg)
        else:
            yield line, name, raw[begun.end() : bound.start()]
            begun = None
    if begun is not None:
        msg = f"the PEM block {begun[2].decode('ascii')} in line {line} has no END; the file is cut off, copy it again"
        raise Malformed(Reason.BAD_ENCODING, msg)


def _check_other(name: str, label: str, line: int) -> None:
    """Refuse a block that has what is wanted in a form that is not read. Raises Malformed(BAD_ENCODING)."""
    kind = {REQUEST: "REQUEST", CRL: "CRL"}.get(label, label)
    is_bundle = name in _BUNDLES and label in {CERTIFICATE, CRL}
    if is_bundle or name.upper().endswith(kind):
        remedy = _REMEDIES.get(name, f"export it as {label}")
        msg = f"the PEM block in line {line} is a {name}, which is not read as {label}: {remedy}"
        raise Malformed(Reason.BAD_ENCODING, msg, labels=name)
