"""PEM and other wrappings as the suites use them, read leniently; the bytes inside go to our strict readers."""

from __future__ import annotations

import base64
import re

_BLOCK = re.compile(r"^-----BEGIN ([A-Z0-9 ]+)-----\s*(.*?)^-----END \1-----", re.DOTALL | re.MULTILINE)


def pem_blocks(text: str) -> list[tuple[str, bytes]]:
    """Label and contents of each PEM block; text between them is explanation."""
    return [(label, base64.b64decode("".join(body.split()))) for label, body in _BLOCK.findall(text)]


def pem_certificates(text: str) -> list[bytes]:
    """The contents of all CERTIFICATE blocks."""
    return [body for label, body in pem_blocks(text) if label == "CERTIFICATE"]


def pem_certificate(text: str) -> bytes:
    """The one certificate of a PEM text."""
    return pem_certificates(text)[0]
