"""Builds the TBSCertificate of each profile: subject, extensions, name constraints; signs nothing."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der, oids
from vagus.x509.algorithms import SignatureAlgorithm, default_signature_algorithm
from vagus.x509.extensions import decode_basic_constraints, decode_name_constraints, decode_subject_key_id
from vagus.x509.keys import PublicKey, decode_public_key, key_identifier
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.names.general import Form
from vagus.x509.names.hardware_module import HardwareModule, encode_hardware_module
from vagus.x509.profiles import KeyUsage, Kind, Profile
from vagus.x509.tbs import decode_tbs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from vagus.x509 import Certificate

KEY_USAGE_BITS: Mapping[KeyUsage, int] = MappingProxyType({use: bit for bit, use in enumerate(KeyUsage)})
_VERSION_3 = b"\xa0\x03\x02\x01\x02"
# RFC 6761: no one can own this name. It fills a name constraint that must exclude every name.
NOWHERE = "none.invalid"
EVERY_ADDRESS = frozenset({bytes(8), bytes(32)})
"""The iPAddress subtrees, address and mask, that hold every IPv4 and every IPv6 address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerFacts:
    """What building a certificate needs to know of its issuer; all public.

    `not_after` is None for an issuer without expiration (99991231235959Z); `permitted_dns` are the dNSName subtrees
    that its own certificate permits, empty where it constrains none; `path_length` is None where unlimited.
    `excludes_addresses` says that its certificate excludes every IP address for all below it (RFC 5280 6.1.4 (g)).
    """

    subject_der: bytes
    key_identifier: bytes
    spki_der: bytes
    signature_algorithm: SignatureAlgorithm
    not_after: datetime | None
    generation: int = 1
    path_length: int | None = None
    permitted_dns: tuple[str, ...] = ()
    excludes_addresses: bool = False


def issuer_facts(
    certificate: Certificate, *, signature_algorithm: SignatureAlgorithm | None = None, generation: int = 1
) -> IssuerFacts:
    """The facts of an authority, its name and key identifier byte for byte as its certificate has them.

    The signature algorithm is the default of its key unless one is given. Raises Malformed for a certificate that
    does not decode, and what `decode_public_key` raises.
    """
    fields = decode_tbs(certificate.tbs_certificate_bytes)
    key = decode_public_key(fields.spki_der)
    identifier = fields.by_oid.get(oids.SUBJECT_KEY_IDENTIFIER)
    basic = fields.by_oid.get(oids.BASIC_CONSTRAINTS)
    constraints = fields.by_oid.get(oids.NAME_CONSTRAINTS)
    return IssuerFacts(
        subject_der=fields.subject_der,
        key_identifier=decode_subject_key_id(identifier.value) if identifier else key_identifier(fields.spki_der),
        spki_der=fields.spki_der,
        signature_algorithm=signature_algorithm or default_signature_algorithm(key.algorithm),
        not_after=None if _is_without_expiry(fields.not_after) else fields.not_after,
        generation=generation,
        path_length=decode_basic_constraints(basic.value).path_length if basic else None,
        permitted_dns=_permitted_dns(constraints.value) if constraints else (),
        excludes_addresses=_excludes_addresses(constraints.value) if constraints else False,
    )


def self_issuer(
    subject_der: bytes,
    key: PublicKey,
    not_after: datetime | None,
    *,
    signature_algorithm: SignatureAlgorithm | None = None,
) -> IssuerFacts:
    """The facts of a root that is about to sign its own certificate."""
    return IssuerFacts(
        subject_der=subject_der,
        key_identifier=key_identifier(key.spki_der),
        spki_der=key.spki_der,
        signature_algorithm=signature_algorithm or default_signature_algorithm(key.algorithm),
        not_after=not_after,
    )


def _is_without_expiry(moment: datetime) -> bool:
    return (moment.year, moment.month, moment.day, moment.hour) == (9999, 12, 31, 23)


def _permitted_dns(value: bytes) -> tuple[str, ...]:
    permitted = decode_name_constraints(value).permitted
    return tuple(str(name.value).lower().removeprefix(".") for name in permitted if name.form is Form.DNS)


def _excludes_addresses(value: bytes) -> bool:
    excluded = {name.content for name in decode_name_constraints(value).excluded if name.form is Form.IP}
    return excluded >= EVERY_ADDRESS


# --- name constraints of authorities --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NameConstraintSpec:
    """RFC 5280 4.2.1.10 subtrees. `permitted_directory` holds whole DER Names; networks are CIDR text."""

    permitted_dns: tuple[str, ...] = ()
    permitted_uri: tuple[str, ...] = ()
    permitted_email: tuple[str, ...] = ()
    permitted_ip: tuple[str, ...] = ()
    permitted_directory: tuple[bytes, ...] = ()
    excluded_ip: tuple[str, ...] = ()


_EVERY_ADDRESS = ("0.0.0.0/0", "::/0")


def device_subtree_constraints(
    domain: str, *, inherits_addresses: bool = False, constrain_dn: SubjectFields | None = None
) -> NameConstraintSpec:
    """What binds a device CA or unit CA to its subtree (docs/isolation.md).

    Host names of `domain` are permitted; URIs, mail and IP addresses are excluded. `inherits_addresses` leaves the
    addresses to the CA above, which excludes them: Java before 17.0.21 ends with an error on two CAs in a row that
    exclude every address (JDK-8267617). `constrain_dn` adds O and OU for relying parties that match on distinguished
    names; pyca's own verifier then refuses every leaf.
    """
    prefix = (
        SubjectFields(constrain_dn.organisation, constrain_dn.unit, country=constrain_dn.country)
        if constrain_dn
        else None
    )
    return NameConstraintSpec(
        permitted_dns=(domain,),
        permitted_uri=(NOWHERE,),
        permitted_email=(NOWHERE,),
        permitted_directory=(encode_subject(prefix),) if prefix else (),
        excluded_ip=() if inherits_addresses else _EVERY_ADDRESS,
    )


def sdc_constraints(domains: Iterable[str], networks: Iterable[str] = ()) -> NameConstraintSpec:
    """What binds an SDC CA: its host names and networks, no mail; URIs stay free, for EPRs are `urn:uuid:` names.

    Without networks every IP address is excluded. URI constraints refuse any `urn:` (RFC 5280 4.2.1.10).
    """
    allowed = tuple(networks)
    return NameConstraintSpec(
        permitted_dns=tuple(domains),
        permitted_email=(NOWHERE,),
        permitted_ip=allowed,
        excluded_ip=() if allowed else _EVERY_ADDRESS,
    )


@lru_cache(maxsize=256)
def encode_name_constraints(spec: NameConstraintSpec) -> bytes:
    """The extension's value. Raises Malformed(NON_CANONICAL) for what is no host name or network."""
    permitted = b"".join(
        (
            *(_subtree(0x82, _ia5(name, "permitted host name")) for name in spec.permitted_dns),
            *(_subtree(0x81, _ia5(name, "permitted mail domain")) for name in spec.permitted_email),
            *(_subtree(0x86, _ia5(name, "permitted URI host")) for name in spec.permitted_uri),
            *(_subtree(0x87, _network(name)) for name in spec.permitted_ip),
            *(_subtree(0xA4, name) for name in spec.permitted_directory),
        )
    )
    excluded = b"".join(_subtree(0x87, _network(name)) for name in spec.excluded_ip)
    return der.sequence(
        der.encode_tlv(0xA0, permitted) if permitted else b"", der.encode_tlv(0xA1, excluded) if excluded else b""
    )


def _subtree(tag: int, content: bytes) -> bytes:
    return der.sequence(der.encode_tlv(tag, content))


def _ia5(text: str, what: str) -> bytes:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        msg = f"{what} {text!r} is not ASCII without spaces; write it in its ASCII form (RFC 5280 7.2)"
        raise Malformed(Reason.NON_CANONICAL, msg, value=text)
    return text.encode("ascii")


def _network(text: str) -> bytes:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as fault:
        msg = f"{text!r} is not a network ({fault}); write it as 10.1.0.0/16"
        raise Malformed(Reason.NON_CANONICAL, msg, value=text) from fault
    return network.network_address.packed + network.netmask.packed


def _address(text: str) -> bytes:
    try:
        return ipaddress.ip_address(text).packed
    except ValueError as fault:
        msg = f"{text!r} is not an IP address; write it as 10.1.0.7 or 2001:db8::7"
        raise Malformed(Reason.NON_CANONICAL, msg, value=text) from fault


# --- the TBSCertificate ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything that a certificate says, from profile and inventory; of the request only the key.

    `not_after` None means 99991231235959Z, no expiration (RFC 5280 4.1.2.5). Moments are aware, cut to whole seconds.
    """

    profile: Profile
    public_key: PublicKey
    subject_der: bytes
    serial: int
    not_before: datetime
    not_after: datetime | None
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    hardware_module: HardwareModule | None = None
    crl_url: str | None = None
    ocsp_url: str | None = None
    ca_issuers_url: str | None = None
    name_constraints: NameConstraintSpec | None = None


def build_tbs(contents: Contents, issuer: IssuerFacts) -> bytes:
    """The DER TBSCertificate that `issuer` will sign; issuer name and algorithm exactly as in `issuer`.

    Pure: equal arguments give equal bytes. Raises Malformed(NON_CANONICAL or BAD_ENCODING) for names, addresses and
    URLs that cannot be encoded.
    """
    profile = contents.profile
    not_after = der.NO_EXPIRY_DER if contents.not_after is None else der.time(contents.not_after)
    extensions = [
        _static_extensions(profile),
        _key_identifiers(contents.public_key.spki_der, issuer.key_identifier),
        _alternative_names(contents),
    ]
    if contents.name_constraints is not None:
        value = encode_name_constraints(contents.name_constraints)
        # RFC 5280 4.2.1.10: nameConstraints MUST be critical
        extensions.append(extension(oids.NAME_CONSTRAINTS, value, is_critical=True))
    extensions.append(
        _pointers(
            contents.crl_url if profile.has_crl_pointer else None,
            contents.ocsp_url if profile.has_ocsp_pointer else None,
            contents.ca_issuers_url,
        )
    )
    return der.sequence(
        _VERSION_3,
        der.integer(contents.serial),
        issuer.signature_algorithm.identifier_der,
        issuer.subject_der,
        der.encode_tlv(der.SEQUENCE, der.time(contents.not_before) + not_after),
        contents.subject_der,
        contents.public_key.spki_der,
        der.explicit(3, der.sequence(*extensions)),
    )


def assemble(tbs_der: bytes, signature_algorithm: SignatureAlgorithm, signature: bytes) -> bytes:
    """The DER Certificate around a TBS and the signature over it (RFC 5280 4.1.1)."""
    return der.sequence(tbs_der, signature_algorithm.identifier_der, der.bit_string(signature))


def extension(oid: str, value: bytes, *, is_critical: bool = False) -> bytes:
    """One Extension (RFC 5280 4.1.2.9); FALSE is the default and therefore never written."""
    return der.sequence(der.object_identifier(oid), der.TRUE_DER if is_critical else b"", der.octet_string(value))


@lru_cache(maxsize=256)
def _static_extensions(profile: Profile) -> bytes:
    """What every certificate of a profile shares."""
    is_authority = profile.kind is Kind.AUTHORITY
    basic = b""
    if is_authority:
        basic = der.TRUE_DER + (der.integer(profile.path_length) if profile.path_length is not None else b"")
    found = [
        extension(oids.BASIC_CONSTRAINTS, der.sequence(basic), is_critical=True),
        extension(
            oids.KEY_USAGE, der.named_bit_string(KEY_USAGE_BITS[use] for use in profile.key_usage), is_critical=True
        ),
    ]
    if profile.extended_key_usage:
        purposes = der.sequence(*(der.object_identifier(oid) for oid in profile.extended_key_usage))
        found.append(extension(oids.EXTENDED_KEY_USAGE, purposes))
    if profile.certificate_policies:
        policies = der.sequence(*(der.sequence(der.object_identifier(oid)) for oid in profile.certificate_policies))
        found.append(extension(oids.CERTIFICATE_POLICIES, policies))
    if profile.has_ocsp_nocheck:
        found.append(extension(oids.OCSP_NOCHECK, der.NULL_DER))
    if profile.is_short_lived:
        found.append(extension(oids.NO_REV_AVAIL, der.NULL_DER))  # RFC 9608 2: noRevAvail is never critical
    return b"".join(found)


def _key_identifiers(spki_der: bytes, issuer_key_identifier: bytes) -> bytes:
    return extension(
        oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(key_identifier(spki_der))
    ) + _authority_key_identifier(issuer_key_identifier)


@lru_cache(maxsize=256)
def _authority_key_identifier(identifier: bytes) -> bytes:
    return extension(oids.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.implicit(0, identifier)))


def _alternative_names(contents: Contents) -> bytes:
    names = [
        *(der.implicit(2, _ia5(name, "host name")) for name in contents.dns_names),
        *(der.implicit(7, _address(text)) for text in contents.ip_addresses),
    ]
    if contents.hardware_module is not None:
        names.append(encode_hardware_module(contents.hardware_module))
    if not names:
        return b""
    # RFC 5280 4.2.1.6: subjectAltName is critical exactly when the subject is empty.
    return extension(oids.SUBJECT_ALT_NAME, der.sequence(*names), is_critical=contents.subject_der == b"\x30\x00")


@lru_cache(maxsize=1024)
def _pointers(crl_url: str | None, ocsp_url: str | None, ca_issuers_url: str | None) -> bytes:
    """The cRLDistributionPoints (RFC 5280 4.2.1.13) and authorityInfoAccess (4.2.2.1)."""
    found = b""
    if crl_url is not None:
        # RFC 5280 4.2.1.13: DistributionPoint { [0] DistributionPointName { [0] fullName { [6] URI } } }
        name = der.explicit(0, der.encode_tlv(0xA0, der.implicit(6, _ia5(crl_url, "CRL URL"))))
        found += extension(oids.CRL_DISTRIBUTION_POINTS, der.sequence(der.sequence(name)))
    methods = [
        der.sequence(der.object_identifier(oid), der.implicit(6, _ia5(url, "URL")))
        for oid, url in ((oids.OCSP_ACCESS, ocsp_url), (oids.CA_ISSUERS_ACCESS, ca_issuers_url))
        if url is not None
    ]
    if methods:
        found += extension(oids.AUTHORITY_INFO_ACCESS, der.sequence(*methods))
    return found
