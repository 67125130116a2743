"""The device's newest CRL of its pinned CA: decodes, verifies and stores it, and refuses servers that it revokes.

A replayed CRL has an earlier time than the present, never a later one, so its time is always sound as a clock floor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID

from vagus.durable_files import replace_durably
from vagus.errors import Malformed, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus_agent.verification import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from vagus_agent.est import Exchange

_READ: Final = frozenset({ExtensionOID.ISSUING_DISTRIBUTION_POINT})
"""Critical, and may be ignored: a shard's scope only narrows what the CRL is about. A delta CRL is refused."""


class CrlMemory:
    """One CRL on disk. An older one never replaces it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def refresh(self, exchange: Exchange, path: str, anchors: Sequence[x509.Certificate]) -> datetime | None:
        """When the anchor signed the CRL at `path`, which is stored when it is newer; None where the server has none.

        Raises what `decode_list` raises.
        """
        response = exchange.ask("GET", path)
        if response.status != 200:
            return None
        offered = decode_list(response.body, anchors)
        kept = self._load(anchors)
        if kept is None or offered.last_update_utc > kept.last_update_utc:
            replace_durably(self._path, response.body)
        return offered.last_update_utc

    def check_server(self, server: x509.Certificate, anchors: Sequence[x509.Certificate]) -> None:
        """Raises NotTrusted(REVOKED) for a server whose certificate the newest known CRL holds.

        Without a CRL, or with an old one, no server is refused: telemetry and alarms do not depend on it.
        """
        kept = self._load(anchors)
        if kept is None or kept.issuer != server.issuer:
            return
        if kept.get_revoked_certificate_by_serial_number(server.serial_number) is not None:
            at = kept.last_update_utc.isoformat()
            msg = f"the server's certificate {server.serial_number:x} is revoked (CRL of {at}); do not use this server"
            raise NotTrusted(Reason.REVOKED, msg, serial=f"{server.serial_number:x}")

    def _load(self, anchors: Sequence[x509.Certificate]) -> x509.CertificateRevocationList | None:
        """The stored CRL; a damaged file, or one of an anchor that is no longer pinned, counts as none."""
        try:
            return decode_list(self._path.read_bytes(), anchors)
        except (FileNotFoundError, VagusError):
            return None


def find_crl_path(server: x509.Certificate) -> str | None:
    """Where the server's certificate says that its issuer's CRL is: the path of the first HTTP URL."""
    try:
        points = server.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return None
    for point in points:
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier) and name.value.startswith("http://"):
                return urlsplit(name.value).path or None
    return None


def decode_list(crl_der: bytes, anchors: Sequence[x509.Certificate]) -> x509.CertificateRevocationList:
    """The CRL, signed by one of the anchors itself.

    Raises Malformed(NON_DER), NotTrusted(UNTRUSTED_ANCHOR, BAD_SIGNATURE, UNKNOWN_CRITICAL).
    """
    try:
        crl = x509.load_der_x509_crl(crl_der)
        issuer = next((anchor for anchor in anchors if anchor.subject == crl.issuer), None)
        if issuer is None:
            msg = f"the CRL's issuer {crl.issuer.rfc4514_string()} is no pinned anchor, so the CRL is ignored"
            raise NotTrusted(Reason.UNTRUSTED_ANCHOR, msg)
        if not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # checked by the library
            raise NotTrusted(
                Reason.BAD_SIGNATURE,
                "the CRL's signature does not verify, so the CRL is ignored; check where it comes from",
            )
        unread = [each.oid.dotted_string for each in crl.extensions if each.critical and each.oid not in _READ]
    except (*UNREADABLE, UnsupportedAlgorithm) as error:
        raise Malformed(Reason.NON_DER, f"the CRL does not decode: {error}") from None
    if unread:
        msg = f"the CRL has the critical extension {unread[0]}, which this agent does not know, so the CRL is ignored"
        raise NotTrusted(Reason.UNKNOWN_CRITICAL, msg, oid=unread[0])
    return crl
