"""Decodes a certificate once into the frozen value that path validation uses; verifies nothing.

One odd extension does not make the certificate unreadable: what does not decode is recorded as a fault, and
the profile in force decides (RFC 5280 section 6 processes some extensions and ignores others).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509 import extensions as ext
from vagus.x509.names.distinguished import DistinguishedName, decode_name
from vagus.x509.names.general import NO_NAMES, GeneralNames

MAX_CERTIFICATE = 131_072  # limit in bytes of a certificate: the largest post-quantum certificate known is under 60 kB
MAX_EXTENSIONS = 64
_REPEATED = 192  # bytes of the longest extension whose decoded value is cached: 8,192 of them are a few megabytes
_CACHEABLE = 10_240  # bytes of the longest certificate that is cached, above one with ML-DSA-87


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension as it is written: contents of its OID, criticality, contents of extnValue."""

    oid: bytes
    is_critical: bool
    value: bytes


@dataclass(frozen=True, slots=True, eq=False)
class PathCertificate:
    """What a path needs to know of a certificate; two are the same when their `sha256` is."""

    der: bytes
    sha256: bytes
    tbs_der: bytes
    version: int  # certificate version 1, 2 or 3
    serial: int
    serial_bytes: bytes  # contents of the serial number's INTEGER: compared as they are, and their length has rules
    inner_algorithm_der: bytes
    algorithm_der: bytes
    signature: bytes
    issuer: DistinguishedName
    subject: DistinguishedName
    not_before: datetime
    not_after: datetime
    spki_der: bytes
    spki_sha256: bytes
    extensions: Mapping[bytes, Extension]
    faults: Mapping[bytes, VagusError]  # extensions that do not decode, with the error, by object identifier
    basic_constraints: ext.BasicConstraints | None
    key_usage: int | None
    purposes: frozenset[bytes] | None
    names: GeneralNames  # the names of the subjectAltName extension
    name_constraints: ext.NameConstraints | None
    policies: ext.Policies | None
    policy_mappings: tuple[tuple[bytes, bytes], ...]
    policy_constraints: ext.PolicyConstraints | None
    inhibit_any_policy: int | None
    authority_key_id: ext.AuthorityKeyId | None
    subject_key_id: bytes | None
    is_self_issued: bool
    label: str  # a short hash that names the certificate in messages: never text that the peer chose

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathCertificate) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def is_ca(self) -> bool:
        """Whether basicConstraints says cA."""
        return self.basic_constraints is not None and self.basic_constraints.is_ca

    def has(self, oid: bytes) -> bool:
        """Whether the extension is there, decodable or not."""
        return oid in self.extensions

    def is_critical(self, oid: bytes) -> bool:
        """Whether the extension is there and critical."""
        extension = self.extensions.get(oid)
        return extension is not None and extension.is_critical

    def value_of(self, oid: bytes) -> bytes | None:
        """The contents of extnValue, None where the extension is absent."""
        extension = self.extensions.get(oid)
        return None if extension is None else extension.value


def decode_certificate(certificate_der: bytes) -> PathCertificate:
    """The certificate that fills `certificate_der`, parsed anew (use `CertificateCache` where it repeats).

    Raises Malformed(NON_DER|BAD_VERSION|BAD_EXTENSION), LimitExceeded(TOO_LARGE|TOO_MANY).
    """
    der.check_size(certificate_der, MAX_CERTIFICATE, "certificate", "shorten it")
    data = bytes(certificate_der)
    digest = hashlib.sha256(data).digest()
    (start, tbs_first, tbs_end), algorithm_der, signature = read_signed(data, "a Certificate", "tbsCertificate")
    version, at = _read_version(data, tbs_first, tbs_end)
    serial_start, at = der.read_expected(data, at, tbs_end, der.INTEGER, "serialNumber")
    serial = der.integer_value(data, serial_start, at, "serialNumber", longest=der.MAX_SERIAL)
    serial_bytes = data[serial_start:at]
    inner_start = at
    _, at = der.read_expected(data, at, tbs_end, der.SEQUENCE, "signature")
    inner_algorithm = data[inner_start:at]
    issuer, at = _read_name(data, at, tbs_end, "issuer")
    validity_start, at = der.read_expected(data, at, tbs_end, der.SEQUENCE, "validity")
    not_before, not_after = _read_validity(data, validity_start, at)
    subject, at = _read_name(data, at, tbs_end, "subject")
    spki_start = at
    _, at = der.read_expected(data, at, tbs_end, der.SEQUENCE, "subjectPublicKeyInfo")
    spki_der = data[spki_start:at]
    extensions = _read_tail(data, at, tbs_end, version)
    found, faults = _decode_extensions(extensions)
    return PathCertificate(
        der=data,
        sha256=digest,
        tbs_der=data[start:tbs_end],
        version=version,
        serial=serial,
        serial_bytes=serial_bytes,
        inner_algorithm_der=inner_algorithm,
        algorithm_der=algorithm_der,
        signature=signature,
        issuer=issuer,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        spki_der=spki_der,
        spki_sha256=hashlib.sha256(spki_der).digest(),
        extensions=MappingProxyType(extensions),
        faults=MappingProxyType(faults),
        basic_constraints=found.get(ext.BASIC_CONSTRAINTS),
        key_usage=found.get(ext.KEY_USAGE),
        purposes=found.get(ext.EXTENDED_KEY_USAGE),
        names=found.get(ext.SUBJECT_ALT_NAME, NO_NAMES),
        name_constraints=found.get(ext.NAME_CONSTRAINTS),
        policies=found.get(ext.CERTIFICATE_POLICIES),
        policy_mappings=found.get(ext.POLICY_MAPPINGS, ()),
        policy_constraints=found.get(ext.POLICY_CONSTRAINTS),
        inhibit_any_policy=found.get(ext.INHIBIT_ANY_POLICY),
        authority_key_id=found.get(ext.AUTHORITY_KEY_ID),
        subject_key_id=found.get(ext.SUBJECT_KEY_ID),
        is_self_issued=issuer.matches(subject),
        label=digest[:8].hex(),
    )


def read_signed(data: bytes, what: str, signed: str) -> tuple[tuple[int, int, int], bytes, bytes]:
    """A SEQUENCE { `signed`, signatureAlgorithm, signatureValue }, as RFC 5280 4.1 has it, that fills `data`.

    Returns where the signed part lies (its start, the start of its contents, its end), the AlgorithmIdentifier and
    the signature. The signed part is not copied, because that of a CRL can have 50 MB. Raises Malformed(NON_DER).
    """
    start, end = der.read_whole(data, der.SEQUENCE, what)
    first, last = der.read_expected(data, start, end, der.SEQUENCE, signed)
    _, algorithm_end = der.read_expected(data, last, end, der.SEQUENCE, "signatureAlgorithm")
    bits = der.read_only(data, algorithm_end, end, der.BIT_STRING, "signatureValue")
    return (start, first, last), data[last:algorithm_end], der.whole_bytes(data, *bits, "signatureValue")


def _decode_extensions(extensions: Mapping[bytes, Extension]) -> tuple[dict[bytes, Any], dict[bytes, VagusError]]:
    """Each known extension decoded, or its fault: one odd extension must not make the certificate unreadable."""
    found: dict[bytes, Any] = {}
    faults: dict[bytes, VagusError] = {}
    for oid in extensions:
        decode = _DECODERS.get(oid)
        if decode is not None:
            value = extensions[oid].value
            try:
                found[oid] = _decode_repeated(oid, value) if len(value) <= _REPEATED else decode(value)
            except VagusError as fault:
                faults[oid] = fault
    return found, faults


_DECODERS: Mapping[bytes, Callable[[bytes], object]] = MappingProxyType(
    {
        ext.BASIC_CONSTRAINTS: ext.decode_basic_constraints,
        ext.KEY_USAGE: ext.decode_key_usage,
        ext.EXTENDED_KEY_USAGE: ext.decode_extended_key_usage,
        ext.SUBJECT_ALT_NAME: ext.decode_subject_alt_name,
        ext.NAME_CONSTRAINTS: ext.decode_name_constraints,
        ext.CERTIFICATE_POLICIES: ext.decode_policies,
        ext.POLICY_MAPPINGS: ext.decode_policy_mappings,
        ext.POLICY_CONSTRAINTS: ext.decode_policy_constraints,
        ext.INHIBIT_ANY_POLICY: ext.decode_inhibit_any_policy,
        ext.AUTHORITY_KEY_ID: ext.decode_authority_key_id,
        ext.SUBJECT_KEY_ID: ext.decode_subject_key_id,
    }
)


@lru_cache(maxsize=8192)
def _decode_repeated(oid: bytes, value: bytes) -> object:
    return _DECODERS[oid](value)


def _read_version(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at >= end or data[at] != 0xA0:
        return 1, at
    _, first, last = der.read_element(data, at, end)
    start, stop = der.read_expected(data, first, last, der.INTEGER, "version")
    number = der.integer_value(data, start, stop, "version")
    if stop != last or number not in {1, 2}:
        msg = f"certificate version field {number} is neither v2 nor v3, or bytes follow it (RFC 5280 4.1.2.1)"
        raise Malformed(Reason.BAD_VERSION, msg, value=number)
    return number + 1, last


def _read_name(data: bytes, at: int, end: int, what: str) -> tuple[DistinguishedName, int]:
    _, stop = der.read_expected(data, at, end, der.SEQUENCE, what)
    return decode_name(data[at:stop]), stop


def _read_validity(data: bytes, start: int, end: int) -> tuple[datetime, datetime]:
    not_before, at = der.read_time(data, start, end, "notBefore")
    not_after, last = der.read_time(data, at, end, "notAfter")
    if last != end:
        der.fail("bytes after notAfter")
    return not_before, not_after


def _read_tail(data: bytes, at: int, end: int, version: int) -> dict[bytes, Extension]:
    """issuerUniqueID, subjectUniqueID and extensions."""
    previous = 0
    while at < end:
        tag, first, last = der.read_element(data, at, end)
        if tag in {0x81, 0x82} and tag & 0x1F > previous:
            if version == 1:
                msg = "a v1 certificate has a unique identifier (RFC 5280 4.1.2.8); have it issued as v3 without"
                raise Malformed(Reason.BAD_VERSION, msg)
            der.bit_string_value(data, first, last, "a unique identifier")
            previous = tag & 0x1F
        elif tag == 0xA3 and last == end:
            if version != 3:
                msg = f"a v{version} certificate has extensions (RFC 5280 4.1.2.9); have it issued as v3"
                raise Malformed(Reason.BAD_VERSION, msg, value=version)
            return read_extensions(data, *der.read_only(data, first, last, der.SEQUENCE, "extensions"))
        else:
            der.fail(f"tbsCertificate ends with an unknown field of tag 0x{tag:02x}")
        at = last
    return {}


def read_extensions(data: bytes, start: int, end: int, *, may_spell_default: bool = False) -> dict[bytes, Extension]:
    """The extensions between `start` and `end` by OID.

    `may_spell_default` lets a written critical FALSE pass, which X.690 11.5 leaves out and which changes no meaning.
    Raises Malformed(NON_DER), Malformed(BAD_EXTENSION) for one that comes twice (RFC 5280 4.2),
    LimitExceeded(TOO_MANY) beyond 64.
    """
    found: dict[bytes, Extension] = {}
    while start < end:
        _, last = der.read_expected(data, start, end, der.SEQUENCE, "an extension")
        element = data[start:last]
        read = _read_repeated if len(element) <= _REPEATED else _read_extension
        extension = read(element, may_spell_default)
        if extension.oid in found:
            msg = f"extension {der.oid_text(extension.oid)} occurs twice (RFC 5280 4.2); have it issued with one"
            raise Malformed(Reason.BAD_EXTENSION, msg, oid=der.oid_text(extension.oid))
        if len(found) == MAX_EXTENSIONS:
            msg = f"a certificate has more than {MAX_EXTENSIONS} extensions; have it issued with fewer"
            raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_EXTENSIONS)
        found[extension.oid] = extension
        start = last
    if not found:
        der.fail("extensions is empty")
    return found


def _read_extension(element: bytes, may_spell_default: bool) -> Extension:
    first, last = der.read_whole(element, der.SEQUENCE, "an extension")
    oid_start, at = der.read_expected(element, first, last, der.OBJECT_IDENTIFIER, "extnID")
    oid = element[oid_start:at]
    der.check_oid(oid, "extnID")
    is_critical = False
    if at < last and element[at] == der.BOOLEAN:
        _, bool_start, at = der.read_element(element, at, last)
        is_critical = der.boolean_value(element, bool_start, at, "critical")
        if not is_critical and not may_spell_default:
            der.fail("critical FALSE is the default and must be left out")
    value_start, value_end = der.read_only(element, at, last, der.OCTET_STRING, "extnValue")
    return Extension(oid, is_critical, element[value_start:value_end])


# Cached: the certificates of one CA repeat most of their extensions byte by byte.
_read_repeated = lru_cache(maxsize=8192)(_read_extension)


class CertificateCache:
    """Parsed certificates by their bytes, the least recently used dropped. Safe to use from several threads.

    Large ones are parsed each time, so that a flood of foreign certificates cannot hold more than some 100 MB.
    """

    def __init__(self, size: int = 4096) -> None:
        self._decode = lru_cache(maxsize=size)(decode_certificate)

    def decode(self, certificate_der: bytes) -> PathCertificate:
        """As `decode_certificate`, cached. Only successes are cached."""
        if len(certificate_der) > _CACHEABLE:
            return decode_certificate(certificate_der)
        return self._decode(certificate_der)
