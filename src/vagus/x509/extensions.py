"""The certificate extensions that the verifier and the lints judge, each decoded strictly into a value.

What RFC 5280 forbids in an extension by itself (an empty list, a policy that comes twice) is refused here too, as
`ForbiddenValue`. Rules that compare extensions with each other are applied elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der, oids
from vagus.x509.names.distinguished import RelativeName, decode_relative_name
from vagus.x509.names.general import GeneralName, GeneralNames, read_general_name, read_general_names

SUBJECT_KEY_ID = der.oid_contents(oids.SUBJECT_KEY_IDENTIFIER)
KEY_USAGE = der.oid_contents(oids.KEY_USAGE)
SUBJECT_ALT_NAME = der.oid_contents(oids.SUBJECT_ALT_NAME)
ISSUER_ALT_NAME = der.oid_contents(oids.ISSUER_ALT_NAME)
BASIC_CONSTRAINTS = der.oid_contents(oids.BASIC_CONSTRAINTS)
CRL_NUMBER = der.oid_contents(oids.CRL_NUMBER)
REASON_CODE = der.oid_contents(oids.REASON_CODE)
DELTA_CRL_INDICATOR = der.oid_contents(oids.DELTA_CRL_INDICATOR)
ISSUING_DISTRIBUTION_POINT = der.oid_contents(oids.ISSUING_DISTRIBUTION_POINT)
CERTIFICATE_ISSUER = der.oid_contents(oids.CERTIFICATE_ISSUER)
NAME_CONSTRAINTS = der.oid_contents(oids.NAME_CONSTRAINTS)
CRL_DISTRIBUTION_POINTS = der.oid_contents(oids.CRL_DISTRIBUTION_POINTS)
CERTIFICATE_POLICIES = der.oid_contents(oids.CERTIFICATE_POLICIES)
POLICY_MAPPINGS = der.oid_contents(oids.POLICY_MAPPINGS)
AUTHORITY_KEY_ID = der.oid_contents(oids.AUTHORITY_KEY_IDENTIFIER)
POLICY_CONSTRAINTS = der.oid_contents(oids.POLICY_CONSTRAINTS)
EXTENDED_KEY_USAGE = der.oid_contents(oids.EXTENDED_KEY_USAGE)
FRESHEST_CRL = der.oid_contents(oids.FRESHEST_CRL)
INHIBIT_ANY_POLICY = der.oid_contents(oids.INHIBIT_ANY_POLICY)
AUTHORITY_INFO_ACCESS = der.oid_contents(oids.AUTHORITY_INFO_ACCESS)
OCSP_NOCHECK = der.oid_contents(oids.OCSP_NOCHECK)
NO_REV_AVAIL = der.oid_contents(oids.NO_REV_AVAIL)

ANY_POLICY = der.oid_contents(oids.ANY_POLICY)
ANY_EXTENDED_KEY_USAGE = der.oid_contents(oids.ANY_EXTENDED_KEY_USAGE)
_KNOWN_QUALIFIERS = frozenset({der.oid_contents("1.3.6.1.5.5.7.2.1"), der.oid_contents("1.3.6.1.5.5.7.2.2")})


class ForbiddenValue(Malformed):
    """The extension is DER of its type, but RFC 5280 forbids this value of it in every certificate.

    The verifier treats it as any other fault. The lints report it under the rule that forbids it, and go on with
    `value`: what was decoded, None where nothing is left to judge.
    """

    def __init__(self, what: str, value: object = None) -> None:
        super().__init__(Reason.NON_DER, f"{what}; have the issuer encode it as RFC 5280 4.2.1 asks")
        self.value = value


class UsageBit:
    """The bits of keyUsage (RFC 5280 4.2.1.3)."""

    DIGITAL_SIGNATURE = 1 << 0
    KEY_AGREEMENT = 1 << 4
    KEY_CERT_SIGN = 1 << 5
    CRL_SIGN = 1 << 6


@dataclass(frozen=True, slots=True)
class BasicConstraints:
    """4.2.1.9. `path_length` is decoded even where cA is false, so that a profile can object."""

    is_ca: bool
    path_length: int | None


@dataclass(frozen=True, slots=True)
class Policies:
    """4.2.1.4: the policy OIDs (contents bytes) and whether a qualifier of unknown kind occurs."""

    oids: tuple[bytes, ...]
    has_unknown_qualifier: bool


@dataclass(frozen=True, slots=True)
class PolicyConstraints:
    """4.2.1.11."""

    require_explicit: int | None
    inhibit_mapping: int | None


@dataclass(frozen=True, slots=True)
class AuthorityKeyId:
    """4.2.1.1."""

    key_id: bytes | None
    issuer: GeneralNames | None
    serial: int | None


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """4.2.1.10: minimum is always 0 and maximum absent, anything else is refused on decoding."""

    permitted: tuple[GeneralName, ...]
    excluded: tuple[GeneralName, ...]


@dataclass(frozen=True, slots=True)
class DistributionPoint:
    """4.2.1.13. Reasons are a bit set as in ReasonFlags; None means all of them."""

    full_name: GeneralNames | None
    relative_name: RelativeName | None
    reasons: int | None
    crl_issuer: GeneralNames | None


def decode_basic_constraints(value: bytes) -> BasicConstraints:
    """Raises Malformed(NON_DER)."""
    start, end = der.read_whole(value, der.SEQUENCE, "basicConstraints")
    is_ca = False
    path_length = None
    if start < end and value[start] == der.BOOLEAN:
        # An explicit cA FALSE in basicConstraints breaks X.690 11.5, but certificates in use have it, and its meaning
        # is clear.
        _, first, start = der.read_element(value, start, end)
        is_ca = der.boolean_value(value, first, start, "cA")
    if start < end:
        first, last = der.read_only(value, start, end, der.INTEGER, "pathLenConstraint")
        path_length = _skip_count(value, first, last, "pathLenConstraint")
    return BasicConstraints(is_ca, path_length)


def decode_key_usage(value: bytes) -> int:
    """The bits as a number, bit n for KeyUsage bit n. Raises Malformed(NON_DER), also when no bit is set."""
    start, end = der.read_whole(value, der.BIT_STRING, "keyUsage")
    bits = der.named_bits_value(value, start, end, "keyUsage")
    if not bits:
        raise ForbiddenValue("keyUsage of the certificate sets no bit")
    return bits


def decode_oid_list(value: bytes, what: str) -> tuple[bytes, ...]:
    """A SEQUENCE of at least one OBJECT IDENTIFIER, as contents bytes. Raises Malformed(NON_DER)."""
    start, end = der.read_whole(value, der.SEQUENCE, what)
    found = tuple(value[first:last] for first, last in der.read_each(value, start, end, der.OBJECT_IDENTIFIER, what))
    for oid in found:
        der.check_oid(oid, what)
    if not found:
        raise ForbiddenValue(f"the certificate extension {what} is empty")
    return found


def decode_extended_key_usage(value: bytes) -> frozenset[bytes]:
    """The purposes as contents bytes. Raises Malformed(NON_DER)."""
    return frozenset(decode_oid_list(value, "extendedKeyUsage"))


def decode_subject_alt_name(value: bytes) -> GeneralNames:
    """Raises Malformed(NON_DER), LimitExceeded(TOO_MANY)."""
    start, end = der.read_whole(value, der.SEQUENCE, "subjectAltName")
    return read_general_names(value, start, end, "subjectAltName")


def decode_name_constraints(value: bytes) -> NameConstraints:
    """Raises Malformed(NON_DER) for empty lists, a minimum, a maximum, or neither list."""
    start, end = der.read_whole(value, der.SEQUENCE, "nameConstraints")
    fields = der.read_optional(value, start, end, {0xA0, 0xA1}, "nameConstraints")
    lists = {tag: _read_subtrees(value, *place) for tag, place in fields.items()}
    if not lists:
        raise ForbiddenValue("nameConstraints holds no subtree")
    return NameConstraints(lists.get(0xA0, ()), lists.get(0xA1, ()))


def _read_subtrees(value: bytes, start: int, end: int) -> tuple[GeneralName, ...]:
    subtrees = []
    for first, last in der.read_each(value, start, end, der.SEQUENCE, "a GeneralSubtree"):
        base, after = read_general_name(value, first, last)
        if after != last:
            raise ForbiddenValue("a GeneralSubtree of nameConstraints has a minimum or maximum (RFC 5280 4.2.1.10)")
        subtrees.append(base)
    if not subtrees:
        raise ForbiddenValue("nameConstraints has an empty list of subtrees")
    return tuple(subtrees)


def decode_policies(value: bytes) -> Policies:
    """Raises Malformed(NON_DER), also for a policy that is listed twice (4.2.1.4)."""
    start, end = der.read_whole(value, der.SEQUENCE, "certificatePolicies")
    found: list[bytes] = []
    has_unknown = False
    for first, last in der.read_each(value, start, end, der.SEQUENCE, "PolicyInformation"):
        oid_start, oid_end = der.read_expected(value, first, last, der.OBJECT_IDENTIFIER, "policyIdentifier")
        der.check_oid(value[oid_start:oid_end], "policyIdentifier")
        found.append(value[oid_start:oid_end])
        if oid_end < last:
            has_unknown |= _read_qualifiers(value, oid_end, last)
    policies = Policies(tuple(found), has_unknown)
    if not found or len(set(found)) != len(found):
        raise ForbiddenValue("certificatePolicies is empty or lists a policy twice", policies)
    return policies


def _read_qualifiers(value: bytes, start: int, end: int) -> bool:
    first, last = der.read_only(value, start, end, der.SEQUENCE, "policyQualifiers")
    if first == last:
        der.fail("policyQualifiers is empty")
    has_unknown = False
    for inner, outer in der.read_each(value, first, last, der.SEQUENCE, "a PolicyQualifierInfo"):
        oid_start, oid_end = der.read_expected(value, inner, outer, der.OBJECT_IDENTIFIER, "policyQualifierId")
        if oid_end == outer or der.read_element(value, oid_end, outer)[2] != outer:
            der.fail("a PolicyQualifierInfo is not an identifier and one qualifier")
        has_unknown |= value[oid_start:oid_end] not in _KNOWN_QUALIFIERS
    return has_unknown


def decode_policy_mappings(value: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Pairs of issuer domain policy and subject domain policy. Raises Malformed(NON_DER)."""
    start, end = der.read_whole(value, der.SEQUENCE, "policyMappings")
    pairs = []
    for first, last in der.read_each(value, start, end, der.SEQUENCE, "a policy mapping"):
        left_start, left_end = der.read_expected(value, first, last, der.OBJECT_IDENTIFIER, "issuerDomainPolicy")
        right_start, right_end = der.read_only(value, left_end, last, der.OBJECT_IDENTIFIER, "subjectDomainPolicy")
        der.check_oid(value[left_start:left_end], "issuerDomainPolicy")
        der.check_oid(value[right_start:right_end], "subjectDomainPolicy")
        pairs.append((value[left_start:left_end], value[right_start:right_end]))
    if not pairs:
        der.fail("policyMappings is empty")
    return tuple(pairs)


def decode_policy_constraints(value: bytes) -> PolicyConstraints:
    """Raises Malformed(NON_DER), also for the empty SEQUENCE (4.2.1.11)."""
    start, end = der.read_whole(value, der.SEQUENCE, "policyConstraints")
    fields = der.read_optional(value, start, end, {0x80, 0x81}, "policyConstraints")
    counts = {tag: _skip_count(value, *place, "policyConstraints") for tag, place in fields.items()}
    if not counts:
        der.fail("policyConstraints is empty")
    return PolicyConstraints(counts.get(0x80), counts.get(0x81))


def decode_inhibit_any_policy(value: bytes) -> int:
    """Raises Malformed(NON_DER)."""
    start, end = der.read_whole(value, der.INTEGER, "inhibitAnyPolicy")
    return _skip_count(value, start, end, "inhibitAnyPolicy")


def _skip_count(value: bytes, start: int, end: int, what: str) -> int:
    count = der.integer_value(value, start, end, what)
    if count < 0:
        der.fail(f"{what} holds a negative number of certificates")
    return count


def decode_authority_key_id(value: bytes) -> AuthorityKeyId:
    """Raises Malformed(NON_DER)."""
    start, end = der.read_whole(value, der.SEQUENCE, "authorityKeyIdentifier")
    fields = der.read_optional(value, start, end, {0x80, 0xA1, 0x82}, "authorityKeyIdentifier")
    key_id = issuer = serial = None
    if 0x80 in fields:
        key_id = value[slice(*fields[0x80])]
    if 0xA1 in fields:
        issuer = read_general_names(value, *fields[0xA1], "authorityCertIssuer")
    if 0x82 in fields:
        serial = der.integer_value(value, *fields[0x82], "authorityCertSerialNumber", longest=der.MAX_SERIAL)
    return AuthorityKeyId(key_id, issuer, serial)


def decode_subject_key_id(value: bytes) -> bytes:
    """Raises Malformed(NON_DER)."""
    start, end = der.read_whole(value, der.OCTET_STRING, "subjectKeyIdentifier")
    return value[start:end]


def decode_distribution_points(value: bytes) -> tuple[DistributionPoint, ...]:
    """Either cRLDistributionPoints or freshestCRL. Raises Malformed(NON_DER), also for a point with reasons alone."""
    start, end = der.read_whole(value, der.SEQUENCE, "CRL distribution points")
    places = der.read_each(value, start, end, der.SEQUENCE, "a distribution point")
    points = tuple(_read_point(value, *place) for place in places)
    if not points:
        raise ForbiddenValue("cRLDistributionPoints lists no distribution point")
    return points


def _read_point(value: bytes, start: int, end: int) -> DistributionPoint:
    fields = der.read_optional(value, start, end, {0xA0, 0x81, 0xA2}, "a distribution point")
    full_name = relative_name = reasons = crl_issuer = None
    if 0xA0 in fields:
        full_name, relative_name = read_point_name(value, *fields[0xA0])
    if 0x81 in fields:
        reasons = der.named_bits_value(value, *fields[0x81], "reasons", may_trail=True)
    if 0xA2 in fields:
        crl_issuer = read_general_names(value, *fields[0xA2], "cRLIssuer")
    if full_name is None and relative_name is None and crl_issuer is None:
        raise ForbiddenValue("a CRL distribution point names neither itself nor a CRL issuer")
    return DistributionPoint(full_name, relative_name, reasons, crl_issuer)


def read_point_name(value: bytes, start: int, end: int) -> tuple[GeneralNames | None, RelativeName | None]:
    """A DistributionPointName: full names or the one RDN that the issuer's name lacks. Raises Malformed(NON_DER)."""
    tag, first, last = der.read_element(value, start, end)
    if last != end or tag not in {0xA0, 0xA1}:
        der.fail("a DistributionPointName is neither full nor relative")
    if tag == 0xA0:
        return read_general_names(value, first, last, "fullName"), None
    return None, decode_relative_name(value, first, last)


def access_locations(value: bytes) -> tuple[tuple[bytes, GeneralName], ...]:
    """The method (OID contents) and location of each AccessDescription (4.2.2.1). Raises Malformed(NON_DER)."""
    start, end = der.read_whole(value, der.SEQUENCE, "authorityInfoAccess")
    found = []
    for first, last in der.read_each(value, start, end, der.SEQUENCE, "an AccessDescription"):
        oid_start, oid_end = der.read_expected(value, first, last, der.OBJECT_IDENTIFIER, "accessMethod")
        location, after = read_general_name(value, oid_end, last)
        if after != last:
            der.fail("bytes after accessLocation")
        found.append((value[oid_start:oid_end], location))
    if not found:
        der.fail("authorityInfoAccess is empty")
    return tuple(found)
