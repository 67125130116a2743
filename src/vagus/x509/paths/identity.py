"""Checks whether a certificate names the expected host (RFC 9525); the common name is never read."""

from __future__ import annotations

import unicodedata
from ipaddress import IPv4Address, IPv6Address, ip_address

from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509.certificates import PathCertificate
from vagus.x509.paths.name_constraints import is_host_name


def decode_host(text: str) -> str | IPv4Address | IPv6Address:
    """A host as people write it, in the form in which certificates name it: an address, or a DNS name in A-labels.

    RFC 9525 6.3: U-labels become A-labels. The dot of the DNS root and the brackets of an IPv6 address (RFC 3986 3.2.2)
    are spelling. Raises Malformed(BAD_ARGUMENT).
    """
    bracketed = text[1:-1] if text.startswith("[") and text.endswith("]") else ""
    name = ".".join(_a_label(label) for label in text.removesuffix(".").split("."))
    if bracketed:
        if (address := _find_address(bracketed)) is not None and address.version == 6:
            return address
    elif (address := _find_address(text)) is not None:
        return address
    elif is_host_name(name) and _find_address(name) is None:
        return name
    msg = f"{text[:255]!r} is neither a host name nor an address; write it as gate.h1.example, 10.3.7.21 or 2001:db8::1"
    raise Malformed(Reason.BAD_ARGUMENT, f"{msg}, without scheme, port and path", value=text[:255])


def _find_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _a_label(label: str) -> str:
    """RFC 5891 4.4, after lower case and NFC (RFC 5895 2). A label that IDNA does not allow is in no certificate."""
    lowered = unicodedata.normalize("NFC", label.lower())
    return lowered if lowered.isascii() else f"xn--{lowered.encode('punycode').decode('ascii')}"


def check_host(leaf: PathCertificate, host: str, *, allows_wildcards: bool = True) -> None:
    """Whether a dNSName or iPAddress of the leaf is `host`, a DNS name or an address in text (`decode_host`).

    RFC 9525 6.3: a wildcard is the whole left-most label and matches exactly one label, below a name of at least
    two. An address matches an iPAddress only, byte by byte. Raises NotTrusted(NAME_MISMATCH).
    """
    try:
        wanted = decode_host(host)
    except Malformed:
        wanted = ""
    if isinstance(wanted, str):
        is_named = any(_is_dns_match(name, wanted, allows_wildcards=allows_wildcards) for name in leaf.names.dns)
    else:
        is_named = wanted.packed in leaf.names.addresses
    if not is_named:
        msg = f"certificate {leaf.label} does not name {host[:255]!r} in its subjectAltName; issue one for this name"
        raise NotTrusted(Reason.NAME_MISMATCH, msg, certificate=leaf.label)


def _is_dns_match(pattern: str, wanted: str, *, allows_wildcards: bool) -> bool:
    presented = pattern.lower()
    if presented.startswith("*."):
        rest = presented[2:]
        return allows_wildcards and "." in rest and is_host_name(rest) and wanted.partition(".")[2] == rest
    return is_host_name(presented) and presented == wanted
