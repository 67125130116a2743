"""Which header fields cross the gateway in both directions, and those that name the client (RFC 9440)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from vagus.endpoints.http import Headers
from vagus.fleet.admission import Admitted
from vagus.tls import Peer

Field = tuple[bytes, bytes]

# RFC 9110 7.6.1: hop-by-hop fields are for one connection only. The relay sets Content-Length itself, from how the body
# really comes.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"content-length",
    }
)
# Servers behind a proxy read the client's identity from these fields, so only the gateway may set them.
_IDENTITY: Final = frozenset(
    {
        b"client-cert",
        b"client-cert-chain",
        b"forwarded",
        b"x-real-ip",
        b"true-client-ip",
        b"remote-user",
        b"x-rewrite-url",
    }
)
_IDENTITY_PREFIXES: Final = (
    b"x-vagus-",
    b"x-forwarded-",
    b"x-client-cert",
    b"x-client-dn",
    b"x-client-s-dn",
    b"x-client-verify",
    b"x-ssl-",
    b"ssl-client-",
    b"x-tls-client-",
    b"x-remote-user",
    b"x-arr-clientcert",
    b"x-amzn-mtls-",
    b"x-original-",
)
# CGI and WSGI servers read "client_cert", "client.cert" and "client-cert" as one field name, so all of them are
# removed.
_ONE_SPELLING: Final = bytes(each if chr(each).isascii() and chr(each).isalnum() else ord("-") for each in range(256))
_VIA: Final = (b"via", b"1.1 vagus")


def _is_identity(name: bytes) -> bool:
    plain = name.translate(_ONE_SPELLING)
    return plain in _IDENTITY or plain.startswith(_IDENTITY_PREFIXES)


def _named_by_connection(headers: Headers) -> set[bytes]:
    return {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}


def _byte_sequence(der: bytes) -> bytes:
    """RFC 8941 3.3.5."""
    return b":" + base64.b64encode(der) + b":"


def identity_fields(peer: Peer | None, admitted: Admitted | None) -> list[Field]:
    """Client-Cert and Client-Cert-Chain (RFC 9440 2), and X-Vagus-Device, -Unit and -Serial from the inventory.

    The chain is the rest of the validated path. In the serial number, all but the unreserved characters of URLs are
    percent-encoded (RFC 3986 2.1), since a maker may use any text.

    Without a verdict of ours there are no fields: a certificate that was not validated must not look as if it were.
    """
    if peer is None or peer.leaf_der is None or admitted is None:
        return []
    fields = [(b"client-cert", _byte_sequence(peer.leaf_der))]
    path = admitted.identity.path if admitted.identity is not None else ()
    above = [_byte_sequence(certificate.der) for certificate in path[1:]]
    if above:
        fields.append((b"client-cert-chain", b", ".join(above)))
    if (device := admitted.device) is not None:
        fields += [
            (b"x-vagus-device", str(device.id).encode("ascii")),
            (b"x-vagus-unit", str(device.unit).encode("ascii")),
            (b"x-vagus-serial", quote(device.maker_serial, safe="").encode("ascii")),
        ]
    return fields


def request_fields(headers: Headers, identity: Sequence[Field], source: str, framing: Iterable[Field]) -> list[Field]:
    """The fields of a request as the upstream gets them; names in `headers` are lower case."""
    dropped = _HOP_BY_HOP | _named_by_connection(headers)
    kept = [
        (name, value)
        for name, value in headers
        if name == b"host" or not (name in dropped or name == b"expect" or _is_identity(name))
    ]
    forwarded = [(b"x-forwarded-for", source.encode("ascii", "replace")), (b"x-forwarded-proto", b"https"), _VIA]
    return [*kept, *identity, *forwarded, *framing]


def response_fields(headers: Headers) -> list[Field]:
    """The fields of a response as the client gets them, without framing; Date is the gateway's own."""
    dropped = _HOP_BY_HOP | _named_by_connection(headers) | {b"date"}
    return [(name, value) for name, value in headers if name not in dropped]
