"""Verifies a server's chain (anchor, dates, role, host name) and the device's newly issued certificate; pure.

Only public keys that were pinned (the anchors) and the exact host name count. TLS libraries, system trust stores and
common names do not.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus_agent.keys import certified_key_der

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

_LONGEST_CHAIN = 6
UNREADABLE = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for bytes that are no certificate or CRL: the last three are no ValueError."""
_KNOWN_EXTENSIONS = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


def decode_chain(chain_der: Sequence[bytes], *, limit: int = _LONGEST_CHAIN) -> tuple[x509.Certificate, ...]:
    """The certificates that a peer sent, leaf first. Raises Malformed(NON_DER), NotTrusted(BUDGET_EXHAUSTED)."""
    if len(chain_der) > limit:
        msg = f"the server sent {len(chain_der)} certificates, {limit} is the limit; it must send its chain alone"
        raise NotTrusted(Reason.BUDGET_EXHAUSTED, msg, sent=len(chain_der))
    try:
        chain = tuple(x509.load_der_x509_certificate(der) for der in chain_der)
        for certificate in chain:
            # the library decodes these names when they are first read, and raises then
            _ = certificate.subject, certificate.issuer
        return chain
    except UNREADABLE as error:
        msg = f"a certificate from the server does not decode ({error}); ask the server's operator"
        raise Malformed(Reason.NON_DER, msg) from None


def verify_server(
    peer_chain: Sequence[bytes],
    *,
    anchors: Sequence[x509.Certificate],
    host: str,
    at: datetime | None,
) -> x509.Certificate:
    """The certificate of the server that we meant to reach, checked; `at` None leaves dates out.

    Raises NotTrusted with UNTRUSTED_ANCHOR, BAD_SIGNATURE, EXPIRED, NOT_YET_VALID, EXPIRED_CA, NOT_A_CA,
    UNKNOWN_CRITICAL, ROLE_MISSING or NAME_MISMATCH; Malformed for certificates that do not decode.
    """
    # 1. Refuse a server that shows no certificate: it has no identity.
    if not peer_chain:
        raise NotTrusted(
            Reason.UNTRUSTED_ANCHOR,
            "the server sent no certificate, so it cannot be the hospital's; check the server's address",
        )
    leaf, *others = decode_chain(peer_chain)
    # 2. Build a path of signatures from the leaf to a pinned anchor (RFC 5280 6.1.3 (a)(1), (a)(4)).
    path = build_path(leaf, others, anchors)
    # 3. Check the dates of every certificate of the path and of the anchor itself (RFC 5280 6.1.3 (a)(2)).
    if at is not None:
        _check_dates(path, at)
    # 4. Check that every issuer in between is a CA, and that no critical extension is unknown (RFC 5280 6.1.4 (k)-(o),
    # 6.1.5 (f)).
    for below, certificate in enumerate(path[1:-1]):
        _check_authority(certificate, below=below)
    for certificate in path[:-1]:
        _check_extensions_known(certificate)
    # 5. Require the purpose serverAuth: our infrastructure CAs certify servers and nothing else.
    _check_server_role(leaf)
    # 6. Require the exact host name (RFC 9525 6.3) as dNSName or iPAddress; the common name and wildcards never count.
    _check_host(leaf, host)
    # Revocation is checked elsewhere: it needs the device's newest CRL (crl_memory), and this function is pure.
    return leaf


def build_path(
    leaf: x509.Certificate, others: Iterable[x509.Certificate], anchors: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """The path from `leaf` to an anchor, both included, each signature verified.

    Raises NotTrusted(UNTRUSTED_ANCHOR) when none of the anchors signed, directly or through `others`.
    """
    pool = list(others)
    path = [leaf]
    while len(path) <= _LONGEST_CHAIN:
        child = path[-1]
        if child in anchors:
            return tuple(path)
        anchor = next((a for a in anchors if _has_issued(a, child)), None)
        if anchor is not None:
            return (*path, anchor)
        issuer = next((c for c in pool if c not in path and _has_issued(c, child)), None)
        if issuer is None:
            break
        path.append(issuer)
    who = ", ".join(anchor.subject.rfc4514_string() for anchor in anchors) or "none given"
    issued_by = path[-1].issuer.rfc4514_string()
    msg = f"no pinned anchor ({who}) signed certificate {leaf.subject.rfc4514_string()!r}, issued by {issued_by!r}"
    msg = f"{msg}; if the hospital changed its authority, get the new anchor file by hand"
    raise NotTrusted(Reason.UNTRUSTED_ANCHOR, msg, issuer=issued_by)


def verify_issued(
    issued: Sequence[x509.Certificate],
    *,
    our_key_der: bytes,
    authorities: Sequence[x509.Certificate],
    current: x509.Certificate | None,
    at: datetime,
) -> tuple[x509.Certificate, ...]:
    """The chain to keep with a certificate that we were just given, leaf first and without the root.

    `authorities` came from /cacerts over a connection under the pinned anchors (RFC 7030 4.1.1).
    Raises NotTrusted: KEY_MISMATCH (another key), IDENTITY_MISSING or IDENTITY_AMBIGUOUS, NAMES_CHANGED (a renewal
    gave another name), NO_PATH (none of the authorities signed), NOT_A_CA, EXPIRED or NOT_YET_VALID.
    """
    # 1. Check that the issued certificate is for our key.
    leaf = issued[0]
    if certified_key_der(leaf) != our_key_der:
        msg = "the issued certificate has another public key than the requested one, so nothing was replaced; report it"
        raise NotTrusted(Reason.KEY_MISMATCH, msg)
    # 2. Check that it names this device once, and that a renewal keeps the name (RFC 7030 4.2.2).
    name = identity_of(leaf)
    if current is not None and name != identity_of(current):
        msg = f"the renewed certificate names {name}, the present one {identity_of(current)}, so nothing was replaced"
        raise NotTrusted(Reason.NAMES_CHANGED, msg, name=name)
    # 3. Check that it comes from the authorities that the hospital's server sent, each of them a CA, and is valid now.
    path = [leaf]
    while len(path) <= _LONGEST_CHAIN and not _is_self_issued(path[-1]):
        issuer = next((c for c in (*authorities, *issued[1:]) if c not in path and _has_issued(c, path[-1])), None)
        if issuer is None:
            break
        path.append(issuer)
    if len(path) < 2 or path[-1] not in authorities:
        msg = (
            f"none of the {len(authorities)} authorities that the server sent signed our certificate; ask its operator"
        )
        raise NotTrusted(Reason.NO_PATH, msg, issuer=leaf.issuer.rfc4514_string())
    _check_dates(path, at)
    for below, certificate in enumerate(path[1:]):
        _check_authority(certificate, below=below)
    return tuple(c for c in path if not _is_self_issued(c))


def identity_of(leaf: x509.Certificate) -> str:
    """The one dNSName that names the device. Raises NotTrusted(IDENTITY_MISSING, IDENTITY_AMBIGUOUS)."""
    names = _alternative_names(leaf)
    dns_names = names.get_values_for_type(x509.DNSName) if names is not None else []
    if len(dns_names) == 1:
        return dns_names[0]
    reason = Reason.IDENTITY_AMBIGUOUS if dns_names else Reason.IDENTITY_MISSING
    msg = f"the device certificate has {len(dns_names)} dNSNames, and must have one; ask the server's operator"
    raise NotTrusted(reason, msg, count=len(dns_names))


def _is_self_issued(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def _has_issued(issuer: x509.Certificate, child: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_dates(path: Sequence[x509.Certificate], at: datetime) -> None:
    for certificate in path:
        who = certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"
        if at < certificate.not_valid_before_utc:
            begin = certificate.not_valid_before_utc.isoformat()
            msg = (
                f"certificate {who} is valid from {begin}, the clock shows {at.isoformat()}; check this device's clock"
            )
            raise NotTrusted(Reason.NOT_YET_VALID, msg, not_before=begin)
        if at > certificate.not_valid_after_utc:
            end = certificate.not_valid_after_utc.isoformat()
            reason = Reason.EXPIRED if certificate is path[0] else Reason.EXPIRED_CA
            msg = (
                f"certificate {who} expired on {end}, the clock shows {at.isoformat()}; check the clock, then renew it"
            )
            raise NotTrusted(reason, msg, not_after=end)


def _check_authority(certificate: x509.Certificate, *, below: int) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        basic, usage = None, None
    who = certificate.subject.rfc4514_string()
    if basic is None or usage is None or not basic.ca or not usage.key_cert_sign:
        msg = f"certificate {who} signed another but is no CA (basicConstraints, keyUsage); do not trust this server"
        raise NotTrusted(Reason.NOT_A_CA, msg, issuer=who)
    if basic.path_length is not None and below > basic.path_length:
        msg = f"CA {who} allows {basic.path_length} CAs below it, and the path has {below}; do not trust this server"
        raise NotTrusted(Reason.PATHLEN, msg, issuer=who)


def _check_extensions_known(certificate: x509.Certificate) -> None:
    try:
        unread = [e.oid for e in certificate.extensions if e.critical and e.oid not in _KNOWN_EXTENSIONS]
    except UNREADABLE as error:
        raise NotTrusted(
            Reason.BAD_EXTENSION, f"an extension of the server's certificate does not decode: {error}"
        ) from None
    if unread:
        msg = f"the certificate has the critical extension {unread[0].dotted_string}, which this agent does not know"
        raise NotTrusted(Reason.UNKNOWN_CRITICAL, msg, oid=unread[0].dotted_string)


def _check_server_role(leaf: x509.Certificate) -> None:
    try:
        roles = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        roles = x509.ExtendedKeyUsage([])
    if ExtendedKeyUsageOID.SERVER_AUTH not in roles:
        msg = "the server's certificate lacks the purpose serverAuth, so it is no server of this hospital"
        raise NotTrusted(Reason.ROLE_MISSING, msg)


def _check_host(leaf: x509.Certificate, host: str) -> None:
    names = _alternative_names(leaf)
    if names is not None:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            shown = names.get_values_for_type(x509.DNSName)
            # compared whole, without wildcards: "*" is no host name
            if host.lower() in (name.lower() for name in shown):
                return
        else:
            if address in names.get_values_for_type(x509.IPAddress):
                return
    msg = f"the server's certificate does not name host {host}; check the address given as --server or --relay"
    raise NotTrusted(Reason.NAME_MISMATCH, msg, host=host)


def _alternative_names(leaf: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except UNREADABLE as error:
        raise NotTrusted(
            Reason.BAD_EXTENSION, f"the subjectAltName of the certificate does not decode: {error}"
        ) from None
