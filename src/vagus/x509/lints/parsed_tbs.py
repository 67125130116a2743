"""A TBS as the lints see it: every extension decoded once, faults of syntax kept as findings; judges nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from vagus.errors import VagusError
from vagus.x509 import der, oids
from vagus.x509.keys import key_identifier, read_key_algorithm
from vagus.x509.names.distinguished import GeneralName, GeneralNameForm, decode_general_names, decode_name
from vagus.x509.tbs import TbsFields, decode_tbs
from vagus.x509.templates import KEY_USAGE_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vagus.x509.algorithms import KeyAlgorithm
    from vagus.x509.profiles import KeyUsage, Profile
    from vagus.x509.templates import IssuerFacts

Rdns: TypeAlias = tuple[tuple[tuple[str, int, bytes], ...], ...]
_Value = TypeVar("_Value")

_USES: Mapping[int, KeyUsage] = MappingProxyType({bit: use for use, bit in KEY_USAGE_BITS.items()})


@dataclass(frozen=True, slots=True)
class Subtree:
    """One GeneralSubtree: whether permitted, the tag of its base, its content, and whether minimum or maximum stand."""

    is_permitted: bool
    tag: int
    content: bytes
    has_distances: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the lints look at. An extension that is absent or does not decode is None; `faults` names the latter."""

    fields: TbsFields
    profile: Profile
    issuer: IssuerFacts
    faults: tuple[str, ...]
    subject: Rdns
    key_algorithm: KeyAlgorithm | None
    subject_key_id: bytes | None  # as the extension has it
    expected_key_id: bytes
    authority_key_id: bytes | None
    key_usage: frozenset[KeyUsage] | None
    purposes: tuple[str, ...] | None
    basic: tuple[bool, int | None] | None
    names: tuple[GeneralName, ...]
    host_names: tuple[bytes, ...]  # the dNSNames among them
    policies: tuple[str, ...] | None
    crl_points: tuple[tuple[str, ...], ...] | None  # per distribution point its URIs
    access: tuple[tuple[str, int, str], ...] | None  # method, tag of the location, text
    subtrees: tuple[Subtree, ...] | None

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

    def read(oid: str, decode: Callable[[bytes], _Value]) -> _Value | None:
        found = fields.by_oid.get(oid)
        if found is None:
            return None
        try:
            return decode(found.value)
        except (VagusError, ValueError, IndexError) as fault:
            faults.append(f"extension {oid} does not decode ({fault})")
            return None

    def attempt(what: str, decode: Callable[[bytes], _Value], value: bytes) -> _Value | None:
        try:
            return decode(value)
        except (VagusError, IndexError) as fault:
            faults.append(f"{what} does not decode ({fault})")
            return None

    names = read(oids.SUBJECT_ALT_NAME, decode_general_names) or ()
    return Draft(
        fields=fields,
        profile=profile,
        issuer=issuer,
        subject=attempt("subject", decode_name, fields.subject_der) or (),
        key_algorithm=attempt("public key", read_key_algorithm, fields.spki_der),
        expected_key_id=attempt("public key", key_identifier, fields.spki_der) or b"",
        subject_key_id=read(oids.SUBJECT_KEY_IDENTIFIER, _subject_key_id),
        authority_key_id=read(oids.AUTHORITY_KEY_IDENTIFIER, _authority_key_id),
        key_usage=read(oids.KEY_USAGE, _key_usage),
        purposes=read(oids.EXTENDED_KEY_USAGE, _object_identifiers),
        basic=read(oids.BASIC_CONSTRAINTS, _basic_constraints),
        names=names,
        host_names=tuple([name.content for name in names if name.form is GeneralNameForm.DNS_NAME]),
        policies=read(oids.CERTIFICATE_POLICIES, _policies),
        crl_points=read(oids.CRL_DISTRIBUTION_POINTS, _crl_points),
        access=read(oids.AUTHORITY_INFO_ACCESS, _access),
        subtrees=read(oids.NAME_CONSTRAINTS, _subtrees),
        faults=tuple(faults),  # evaluated last: the readers above fill it
    )


# Every reader below is pure and most of its inputs repeat from certificate to certificate, so answers are kept.


def _subject_key_id(value: bytes) -> bytes:
    return der.content_of(value, der.OCTET_STRING)


@lru_cache(maxsize=256)
def _authority_key_id(value: bytes) -> bytes:
    """The key identifier; issuer and serial beside it are refused: they break re-issued authorities."""
    parts = der.split_elements(der.content_of(value, der.SEQUENCE))
    if [tag for tag, _, _ in parts] != [0x80]:
        msg = "authorityKeyIdentifier is not a key identifier alone"
        raise ValueError(msg)
    return parts[0][1]


@lru_cache(maxsize=256)
def _key_usage(value: bytes) -> frozenset[KeyUsage]:
    content = der.content_of(value, der.BIT_STRING)
    bits = [
        position for position in range((len(content) - 1) * 8) if content[1 + position // 8] & (0x80 >> position % 8)
    ]
    if der.named_bit_string(bits) != value or any(bit not in _USES for bit in bits):
        msg = "keyUsage has trailing zero bits or bits that this house does not use"
        raise ValueError(msg)
    return frozenset(_USES[bit] for bit in bits)


@lru_cache(maxsize=256)
def _object_identifiers(value: bytes) -> tuple[str, ...]:
    found: list[str] = []
    for tag, content, _ in der.split_elements(der.content_of(value, der.SEQUENCE)):
        if tag != der.OBJECT_IDENTIFIER:
            msg = "something else than object identifiers"
            raise ValueError(msg)
        found.append(der.decode_object_identifier(content))
    return tuple(found)


@lru_cache(maxsize=256)
def _basic_constraints(value: bytes) -> tuple[bool, int | None]:
    is_authority, length = False, None
    for tag, content, whole in der.split_elements(der.content_of(value, der.SEQUENCE)):
        if tag == der.BOOLEAN and whole == der.TRUE_DER and not is_authority and length is None:
            is_authority = True
        elif tag == der.INTEGER and length is None and whole == der.integer(int.from_bytes(content, "big")):
            length = int.from_bytes(content, "big")
        else:
            msg = "basicConstraints is not cA and pathLenConstraint in DER"
            raise ValueError(msg)
    return is_authority, length


@lru_cache(maxsize=256)
def _policies(value: bytes) -> tuple[str, ...]:
    """Policy OIDs; qualifiers are refused (RFC 5280 4.2.1.4 recommends the OID alone)."""
    found: list[str] = []
    for _, content, _ in der.split_elements(der.content_of(value, der.SEQUENCE)):
        parts = der.split_elements(content)
        if [tag for tag, _, _ in parts] != [der.OBJECT_IDENTIFIER]:
            msg = "a policy is not an object identifier alone"
            raise ValueError(msg)
        found.append(der.decode_object_identifier(parts[0][1]))
    return tuple(found)


@lru_cache(maxsize=1024)
def _crl_points(value: bytes) -> tuple[tuple[str, ...], ...]:
    found: list[tuple[str, ...]] = []
    for _, point, _ in der.split_elements(der.content_of(value, der.SEQUENCE)):
        uris: list[str] = []
        for tag, content, _ in der.split_elements(point):
            full = der.split_elements(content) if tag == 0xA0 else []
            if len(full) != 1 or full[0][0] != 0xA0:
                msg = "a distribution point has something else than a full name"
                raise ValueError(msg)
            uris.extend(name.decode("ascii") for inner, name, _ in der.split_elements(full[0][1]) if inner == 0x86)
        found.append(tuple(uris))
    return tuple(found)


@lru_cache(maxsize=1024)
def _access(value: bytes) -> tuple[tuple[str, int, str], ...]:
    found: list[tuple[str, int, str]] = []
    for _, description, _ in der.split_elements(der.content_of(value, der.SEQUENCE)):
        (_, method, _), (tag, location, _) = der.split_elements(description)
        found.append((der.decode_object_identifier(method), tag, location.decode("ascii", "replace")))
    return tuple(found)


@lru_cache(maxsize=256)
def _subtrees(value: bytes) -> tuple[Subtree, ...]:
    found: list[Subtree] = []
    for tag, content, _ in der.split_elements(der.content_of(value, der.SEQUENCE)):
        if tag not in {0xA0, 0xA1}:
            msg = "nameConstraints holds something else than permitted and excluded subtrees"
            raise ValueError(msg)
        for _, subtree, _ in der.split_elements(content):
            parts = der.split_elements(subtree)
            found.append(Subtree(tag == 0xA0, parts[0][0], parts[0][1], len(parts) > 1))
    return tuple(found)
