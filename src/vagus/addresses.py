"""Host and port as one text, written and read by one rule: an IPv6 address stands in brackets; opens no socket."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final

_ADDRESS: Final = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})\Z")
_HIGHEST_PORT: Final = 65_535


def spell_host(host: str) -> str:
    """A host as it stands before a port, in a URL and in Host: `[2001:db8::1]` (RFC 3986 3.2.2, RFC 5952 4 and 6)."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return f"[{address}]" if isinstance(address, IPv6Address) else host


def join_address(host: str, port: int) -> str:
    """`host:port`, as `split_address` reads it back."""
    return f"{spell_host(host)}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port` with a port of 0-65535 (0: a free one), an IPv6 address without its brackets.

    Raises ValueError, with what to write.
    """
    found = _ADDRESS.match(text)
    if found is None or int(found["port"]) > _HIGHEST_PORT:
        raise ValueError(f"{text[:80]!r} is not host:port, as in 127.0.0.1:8443 or [::1]:8443; correct it")
    if found["literal"] is None:
        return found["host"], int(found["port"])
    try:
        return str(IPv6Address(found["literal"])), int(found["port"])
    except ValueError as fault:
        raise ValueError(f"{text[:80]!r} has no IPv6 address in its brackets ({fault}); correct it") from fault
