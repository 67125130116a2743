"""Checks whether a certificate names the expected host (RFC 9525); the common name is never read."""

from __future__ import annotations

import ipaddress

from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.x509.certificates import PathCertificate
from vagus.x509.paths.name_constraints import is_host_name


def check_host(leaf: PathCertificate, host: str, *, allows_wildcards: bool = True) -> None:
    """Whether a dNSName or iPAddress of the leaf is `host`, a DNS name or an address in text.

    RFC 9525 6.3: a wildcard is the whole left-most label and matches exactly one label, below a name of at least
    two. An address matches an iPAddress only, byte by byte. Raises NotTrusted(NAME_MISMATCH).
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if any(_is_dns_match(name, host, allows_wildcards=allows_wildcards) for name in leaf.names.dns):
            return
    else:
        if address.packed in leaf.names.addresses:
            return
    msg = f"certificate {leaf.label} does not name {host[:255]!r} in its subjectAltName; issue one for this name"
    raise NotTrusted(Reason.NAME_MISMATCH, msg, certificate=leaf.label)


def _is_dns_match(pattern: str, host: str, *, allows_wildcards: bool) -> bool:
    presented, wanted = pattern.lower(), host.lower()
    if not is_host_name(wanted):
        return False
    if presented.startswith("*."):
        rest = presented[2:]
        return allows_wildcards and "." in rest and is_host_name(rest) and wanted.partition(".")[2] == rest
    return is_host_name(presented) and presented == wanted
