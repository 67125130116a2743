"""A TBSCertificate as the lints see it: the verifier's own values, and every fault that its decoders found.

The lints ask more of an encoding than the verifier does: an extension must be written as our templates write it.
What differs is a fault as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, cast

from vagus.errors import VagusError
from vagus.x509 import der, oids
from vagus.x509 import extensions as ext
from vagus.x509.keys import key_identifier, read_key_algorithm
from vagus.x509.names.distinguished import Attribute, read_attributes
from vagus.x509.names.general import NO_NAMES, Form, GeneralNames
from vagus.x509.tbs import TbsFields, decode_tbs
from vagus.x509.templates import KEY_USAGE_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vagus.x509.algorithms import KeyAlgorithm
    from vagus.x509.profiles import KeyUsage, Profile
    from vagus.x509.templates import IssuerFacts

_Value = TypeVar("_Value")
_OURS = sum(1 << bit for bit in KEY_USAGE_BITS.values())


@dataclass(slots=True, kw_only=True)  # not frozen: made anew for each certificate, and freezing doubles the time
class Draft:
    """What the lints judge. An extension that is absent or does not decode is None.

    `faults` says what does not decode; `forbidden` says, by the extension's OID, what decodes and RFC 5280 forbids.
    """

    fields: TbsFields
    profile: Profile
    issuer: IssuerFacts
    faults: tuple[str, ...]
    forbidden: Mapping[str, str]
    subject: tuple[tuple[Attribute, ...], ...]
    key_algorithm: KeyAlgorithm | None
    subject_key_id: bytes | None  # the subjectKeyIdentifier extension's value
    expected_key_id: bytes
    authority_key_id: bytes | None
    key_usage: frozenset[KeyUsage] | None
    purposes: tuple[str, ...] | None
    basic: ext.BasicConstraints | None
    names: GeneralNames
    policies: ext.Policies | None
    crl_points: tuple[tuple[str, ...], ...] | None  # for each CRL distribution point, its URIs
    # accessMethod and URI of each authorityInfoAccess entry; None for a location that is no URI
    access: tuple[tuple[str, str | None], ...] | None
    constraints: ext.NameConstraints | None

    @property
    def is_authority(self) -> bool:
        """Whether basicConstraints decodes and says cA."""
        return self.basic is not None and self.basic.is_ca

    def is_critical(self, oid: str) -> bool:
        """Whether the extension is there and critical."""
        found = self.fields.by_oid.get(oid)
        return found is not None and found.is_critical

    def has(self, oid: str) -> bool:
        """Whether the extension is there."""
        return oid in self.fields.by_oid


def decode_draft(tbs_der: bytes, profile: Profile, issuer: IssuerFacts) -> Draft:
    """The draft in a DER TBSCertificate. Raises Malformed when its outer structure does not decode."""
    fields = decode_tbs(tbs_der)
    faults: list[str] = []
    forbidden: dict[str, str] = {}

    def attempt(what: str, decode: Callable[[bytes], _Value], value: bytes) -> _Value | None:
        try:
            return decode(value)
        except VagusError as fault:
            faults.append(f"{what} does not decode ({fault})")
            return None

    def read(oid: str, decode: Callable[[bytes], _Value]) -> _Value | None:
        found = fields.by_oid.get(oid)
        if found is None:
            return None
        try:
            return decode(found.value)
        except ext.ForbiddenValue as fault:
            forbidden[oid] = fault.message
            return cast("_Value | None", fault.value)
        except VagusError as fault:
            faults.append(f"extension {oid} does not decode ({fault})")
            return None

    return Draft(
        fields=fields,
        profile=profile,
        issuer=issuer,
        subject=attempt("subject", read_attributes, fields.subject_der) or (),
        key_algorithm=attempt("public key", read_key_algorithm, fields.spki_der),
        expected_key_id=attempt("public key", key_identifier, fields.spki_der) or b"",
        subject_key_id=read(oids.SUBJECT_KEY_IDENTIFIER, ext.decode_subject_key_id),
        authority_key_id=read(oids.AUTHORITY_KEY_IDENTIFIER, _authority_key_id),
        key_usage=read(oids.KEY_USAGE, _key_usage),
        purposes=read(oids.EXTENDED_KEY_USAGE, _purposes),
        basic=read(oids.BASIC_CONSTRAINTS, _basic_constraints),
        names=read(oids.SUBJECT_ALT_NAME, ext.decode_subject_alt_name) or NO_NAMES,
        policies=read(oids.CERTIFICATE_POLICIES, _policies),
        crl_points=read(oids.CRL_DISTRIBUTION_POINTS, _crl_points),
        access=read(oids.AUTHORITY_INFO_ACCESS, _access),
        constraints=read(oids.NAME_CONSTRAINTS, ext.decode_name_constraints),
        faults=tuple(faults),  # Python evaluates this argument after the readers above, which fill the list
        forbidden=MappingProxyType(forbidden),
    )


# Results are cached: these readers are pure, and most inputs repeat from certificate to certificate.


@lru_cache(maxsize=256)
def _authority_key_id(value: bytes) -> bytes:
    """The key identifier; issuer and serial beside it are refused: they break when an authority is issued anew."""
    found = ext.decode_authority_key_id(value)
    if found.key_id is None or found.issuer is not None or found.serial is not None:
        der.fail("authorityKeyIdentifier is not a key identifier alone")
    return found.key_id


@lru_cache(maxsize=256)
def _key_usage(value: bytes) -> frozenset[KeyUsage]:
    bits = ext.decode_key_usage(value)
    if bits & ~_OURS:
        der.fail("keyUsage has bits that no profile uses")
    return frozenset(use for use, bit in KEY_USAGE_BITS.items() if bits >> bit & 1)


@lru_cache(maxsize=256)
def _purposes(value: bytes) -> tuple[str, ...]:
    return tuple(der.decode_object_identifier(oid) for oid in ext.decode_oid_list(value, "extendedKeyUsage"))


@lru_cache(maxsize=256)
def _basic_constraints(value: bytes) -> ext.BasicConstraints:
    found = ext.decode_basic_constraints(value)
    is_ca = der.TRUE_DER if found.is_ca else b""
    if value != der.sequence(is_ca, b"" if found.path_length is None else der.integer(found.path_length)):
        der.fail("basicConstraints writes cA FALSE, its default (X.690 11.5)")
    return found


@lru_cache(maxsize=256)
def _policies(value: bytes) -> ext.Policies:
    """Policies without qualifiers (RFC 5280 4.2.1.4 recommends the OID alone)."""
    found = ext.decode_policies(value)
    if value != der.sequence(*(der.sequence(der.encode_tlv(der.OBJECT_IDENTIFIER, oid)) for oid in found.oids)):
        der.fail("a policy is not an object identifier alone")
    return found


@lru_cache(maxsize=1024)
def _crl_points(value: bytes) -> tuple[tuple[str, ...], ...]:
    points = ext.decode_distribution_points(value)
    if any(point != ext.DistributionPoint(point.full_name, None, None, None) for point in points):
        der.fail("a distribution point has something else than a full name")
    return tuple(point.full_name.uris for point in points if point.full_name is not None)


@lru_cache(maxsize=1024)
def _access(value: bytes) -> tuple[tuple[str, str | None], ...]:
    return tuple(
        (der.decode_object_identifier(method), str(location.value) if location.form is Form.URI else None)
        for method, location in ext.access_locations(value)
    )
