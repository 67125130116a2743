"""The time as somebody under a pinned anchor signed it: thisUpdate of the anchor's own CRL; trusts no Date header.

A replayed CRL tells an earlier time than the present, never a later one, so as a *floor* it is always sound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from vagus_agent.est import Exchange


def find_crl_path(server: x509.Certificate) -> str | None:
    """Where the server's certificate says that its issuer's CRL is: the path of the first HTTP URL."""
    try:
        points = server.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    for point in points:
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier) and name.value.startswith("http://"):
                return urlsplit(name.value).path or None
    return None


def load_signed_time(exchange: Exchange, path: str, anchors: Sequence[x509.Certificate]) -> datetime | None:
    """ThisUpdate of the CRL at `path`; None where the server has none. Raises what `decode_signed_time` raises."""
    response = exchange.ask("GET", path)
    return decode_signed_time(response.body, anchors) if response.status == 200 else None


def decode_signed_time(crl_der: bytes, anchors: Sequence[x509.Certificate]) -> datetime:
    """When one of the anchors signed this CRL.

    Raises Malformed(NON_DER), NotTrusted(UNTRUSTED_ANCHOR, BAD_SIGNATURE).
    """
    try:
        crl = x509.load_der_x509_crl(crl_der)
        issuer = next((anchor for anchor in anchors if anchor.subject == crl.issuer), None)
        if issuer is None:
            msg = f"the CRL is of {crl.issuer.rfc4514_string()}, no pinned anchor; it tells no time"
            raise NotTrusted(Reason.UNTRUSTED_ANCHOR, msg)
        if not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # checked by the library
            raise NotTrusted(Reason.BAD_SIGNATURE, "the CRL's signature does not verify; it tells no time")
        return crl.last_update_utc
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed(Reason.NON_DER, f"the CRL does not decode: {error}") from None
