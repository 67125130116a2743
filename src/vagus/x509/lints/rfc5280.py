"""What RFC 5280 asks of a certificate that we sign; one function per rule."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from vagus.x509 import der, oids
from vagus.x509.lints.registry import Document
from vagus.x509.names.distinguished import COUNTRY, SERIAL_NUMBER
from vagus.x509.names.general import Form
from vagus.x509.profiles import KeyUsage, Kind

if TYPE_CHECKING:
    from vagus.x509.lints.parsed_tbs import Draft

RFC5280 = Document("RFC 5280", "rfc5280")

_LONGEST_SERIAL = 20
_LAST_UTC_YEAR = 2049
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\Z"
)
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+(?:/\S*)?\Z")
_STRINGS = frozenset({der.UTF8_STRING, der.PRINTABLE_STRING})
_PRINTABLE_ONLY = frozenset({COUNTRY, SERIAL_NUMBER, "2.5.4.46"})


@lru_cache(maxsize=1024)
def _is_absolute(uri: str) -> bool:
    """Whether it has a scheme and a host."""
    return _URI.match(uri) is not None


@RFC5280.lint("der", "4.1")
def der_throughout(draft: Draft) -> str | None:
    """Every part that the lints read is DER of its type; a TBS that does not decode at all is reported under it too."""
    return "; ".join(draft.faults) or None


@RFC5280.lint("version", "4.1.2.1")
def version(draft: Draft) -> str | None:
    """Extensions need v3."""
    return None if draft.fields.version == 2 else f"version {draft.fields.version + 1}, must be 3"


@RFC5280.lint("serial-positive", "4.1.2.2")
def serial_positive(draft: Draft) -> str | None:
    """Zero and negative numbers are refused by verifiers."""
    return None if draft.fields.serial > 0 else "serial number is not positive"


@RFC5280.lint("serial-length", "4.1.2.2")
def serial_length(draft: Draft) -> str | None:
    """At most 20 bytes as encoded, a leading zero included."""
    size = draft.fields.serial.bit_length() // 8 + 1
    return None if size <= _LONGEST_SERIAL else f"serial number has {size} bytes, at most {_LONGEST_SERIAL}"


@RFC5280.lint("signature-algorithm", "4.1.2.3")
def signature_algorithm(draft: Draft) -> str | None:
    """The inner algorithm must equal the outer, which is the issuer's."""
    expected = draft.issuer.signature_algorithm
    return (
        None if draft.fields.signature_der == expected.identifier_der else f"signature algorithm is not {expected.name}"
    )


@RFC5280.lint("issuer-name", "4.1.2.4")
def issuer_name(draft: Draft) -> str | None:
    """Byte for byte the issuer's subject: some verifiers compare bytes."""
    if draft.fields.issuer_der == b"\x30\x00":
        return "issuer name is empty"
    return None if draft.fields.issuer_der == draft.issuer.subject_der else "issuer name differs from its certificate's"


@RFC5280.lint("time-form", "4.1.2.5")
def time_form(draft: Draft) -> str | None:
    """UTCTime until 2049, GeneralizedTime from 2050."""
    fields = draft.fields
    for what, moment, is_generalized in (
        ("notBefore", fields.not_before, fields.is_not_before_generalized),
        ("notAfter", fields.not_after, fields.is_not_after_generalized),
    ):
        if is_generalized is not (moment.year > _LAST_UTC_YEAR):
            return f"{what} {moment.year} is in the wrong time form"
    return None


@RFC5280.lint("time-order", "4.1.2.5")
def time_order(draft: Draft) -> str | None:
    """A period that ends before it begins is none."""
    return None if draft.fields.not_before <= draft.fields.not_after else "notAfter lies before notBefore"


@RFC5280.lint("ca-subject", "4.1.2.6")
def ca_subject(draft: Draft) -> str | None:
    """An authority has a name, because other certificates name it as issuer."""
    return "an authority's subject is empty" if draft.is_authority and draft.fields.subject_der == b"\x30\x00" else None


@RFC5280.lint("empty-subject", "4.1.2.6")
def empty_subject(draft: Draft) -> str | None:
    """Without a subject the alternative name is critical."""
    if draft.fields.subject_der != b"\x30\x00" or draft.is_authority:
        return None
    return None if draft.is_critical(oids.SUBJECT_ALT_NAME) else "subject is empty and subjectAltName is not critical"


@RFC5280.lint("san-criticality", "4.2.1.6")
def san_criticality(draft: Draft) -> str | None:
    """Beside a subject the alternative name is not critical."""
    is_odd = draft.fields.subject_der != b"\x30\x00" and draft.is_critical(oids.SUBJECT_ALT_NAME)
    return "subjectAltName is critical beside a subject" if is_odd else None


@RFC5280.lint("subject-strings", "4.1.2.4")
def subject_strings(draft: Draft) -> str | None:
    """UTF8String or PrintableString; X.520 asks PrintableString of country and serial number."""
    for attributes in draft.subject:
        for oid, tag, _ in attributes:
            if tag not in _STRINGS or (oid in _PRINTABLE_ONLY and tag != der.PRINTABLE_STRING):
                return f"subject attribute {oid} has string type {tag:#04x}"
    return None


@RFC5280.lint("subject-bounds", "appendix A.1")
def subject_bounds(draft: Draft) -> str | None:
    """Attributes are not empty and keep their upper bounds."""
    for attributes in draft.subject:
        for oid, _, content in attributes:
            bound = 2 if oid == COUNTRY else 64
            if not 1 <= len(content.decode("utf-8", "replace")) <= bound:
                return f"subject attribute {oid} is empty or longer than {bound}"
    return None


@RFC5280.lint("unique-ids", "4.1.2.8")
def unique_ids(draft: Draft) -> str | None:
    """Conforming authorities do not write unique identifiers."""
    return "issuerUniqueID or subjectUniqueID is present" if draft.fields.has_unique_ids else None


@RFC5280.lint("extensions-once", "4.2")
def extensions_once(draft: Draft) -> str | None:
    """No extension occurs twice."""
    return None if len(draft.fields.by_oid) == len(draft.fields.extensions) else "an extension occurs twice"


@RFC5280.lint("aki", "4.2.1.1")
def authority_key_identifier(draft: Draft) -> str | None:
    """Present, and the key identifier that the issuer's certificate has."""
    if not draft.has(oids.AUTHORITY_KEY_IDENTIFIER):
        return "authorityKeyIdentifier is missing"
    if draft.authority_key_id is None or draft.authority_key_id == draft.issuer.key_identifier:
        return None
    return "authorityKeyIdentifier is not the issuer's subjectKeyIdentifier"


@RFC5280.lint("aki-critical", "4.2.1.1")
def authority_key_identifier_criticality(draft: Draft) -> str | None:
    """Never critical."""
    return "authorityKeyIdentifier is critical" if draft.is_critical(oids.AUTHORITY_KEY_IDENTIFIER) else None


@RFC5280.lint("ski", "4.2.1.2")
def subject_key_identifier(draft: Draft) -> str | None:
    """Present, and made from the key by method 1."""
    if not draft.has(oids.SUBJECT_KEY_IDENTIFIER):
        return "subjectKeyIdentifier is missing"
    if draft.subject_key_id is None or draft.subject_key_id == draft.expected_key_id:
        return None
    return "subjectKeyIdentifier is not the SHA-1 of the key"


@RFC5280.lint("ski-critical", "4.2.1.2")
def subject_key_identifier_criticality(draft: Draft) -> str | None:
    """Never critical."""
    return "subjectKeyIdentifier is critical" if draft.is_critical(oids.SUBJECT_KEY_IDENTIFIER) else None


@RFC5280.lint("ku-present", "4.2.1.3")
def key_usage_present(draft: Draft) -> str | None:
    """Present and not empty."""
    if not draft.has(oids.KEY_USAGE):
        return "keyUsage is missing"
    return draft.forbidden.get(oids.KEY_USAGE)


@RFC5280.lint("ku-critical", "4.2.1.3")
def key_usage_criticality(draft: Draft) -> str | None:
    """Critical."""
    return "keyUsage is not critical" if draft.has(oids.KEY_USAGE) and not draft.is_critical(oids.KEY_USAGE) else None


@RFC5280.lint("ku-cert-sign", "4.2.1.9")
def key_cert_sign(draft: Draft) -> str | None:
    """KeyCertSign and cA go together."""
    if draft.key_usage is None or draft.basic is None:
        return None
    is_odd = (KeyUsage.KEY_CERT_SIGN in draft.key_usage) is not draft.is_authority
    return "keyCertSign and basicConstraints cA contradict each other" if is_odd else None


@RFC5280.lint("policies-once", "4.2.1.4")
def policies_once(draft: Draft) -> str | None:
    """At least one policy where the extension is present, none twice."""
    return draft.forbidden.get(oids.CERTIFICATE_POLICIES)


@RFC5280.lint("san-host-name", "4.2.1.6")
def host_name_syntax(draft: Draft) -> str | None:
    """DNSName in the preferred name syntax of RFC 1034."""
    for name in draft.names.dns:
        # Another lint forbids wildcards, so this one skips the wildcard label.
        if not _HOST_NAME.match(name.removeprefix("*.")):
            return f"dNSName {name!r} is not a host name"
    return None


@RFC5280.lint("san-address", "4.2.1.6")
def address_length(draft: Draft) -> str | None:
    """An iPAddress has 4 or 16 bytes."""
    for address in draft.names.addresses:
        if len(address) not in {4, 16}:
            return f"iPAddress has {len(address)} bytes"
    return None


@RFC5280.lint("bc-of-authority", "4.2.1.9")
def basic_constraints_present(draft: Draft) -> str | None:
    """Present and critical in an authority's certificate."""
    if draft.profile.kind is not Kind.AUTHORITY:
        return None
    if not draft.has(oids.BASIC_CONSTRAINTS):
        return "basicConstraints is missing"
    return None if draft.is_critical(oids.BASIC_CONSTRAINTS) else "basicConstraints is not critical"


@RFC5280.lint("bc-path-length", "4.2.1.9")
def path_length_without_ca(draft: Draft) -> str | None:
    """No path length without cA."""
    is_odd = draft.basic is not None and not draft.basic.is_ca and draft.basic.path_length is not None
    return "pathLenConstraint without cA" if is_odd else None


@RFC5280.lint("path-length-of-issuer", "6.1.4 (l)")
def path_length_of_issuer(draft: Draft) -> str | None:
    """What the issuer's path length leaves; a self-issued authority does not count."""
    limit = draft.issuer.path_length
    if draft.basic is None or not draft.basic.is_ca or limit is None:
        return None
    if draft.fields.subject_der == draft.issuer.subject_der:
        return None
    own = draft.basic.path_length
    if limit == 0:
        return "the issuer's path length 0 allows no authority below it"
    return None if own is not None and own < limit else f"path length {own} is not below the issuer's {limit}"


@RFC5280.lint("nc-ca-only", "4.2.1.10")
def name_constraints_in_authorities(draft: Draft) -> str | None:
    """Only in an authority's certificate."""
    is_odd = draft.has(oids.NAME_CONSTRAINTS) and not draft.is_authority
    return "nameConstraints outside an authority" if is_odd else None


@RFC5280.lint("nc-critical", "4.2.1.10")
def name_constraints_criticality(draft: Draft) -> str | None:
    """Critical."""
    is_odd = draft.has(oids.NAME_CONSTRAINTS) and not draft.is_critical(oids.NAME_CONSTRAINTS)
    return "nameConstraints is not critical" if is_odd else None


@RFC5280.lint("nc-subtrees", "4.2.1.10")
def name_constraints_subtrees(draft: Draft) -> str | None:
    """Not empty, minimum 0 and no maximum, addresses with their masks."""
    if draft.constraints is None:
        return draft.forbidden.get(oids.NAME_CONSTRAINTS)
    for subtree in (*draft.constraints.permitted, *draft.constraints.excluded):
        if subtree.form is Form.IP and len(subtree.content) not in {8, 32}:
            return "an address subtree is not an address and a mask"
    return None


@RFC5280.lint("eku-not-empty", "4.2.1.12")
def purposes_not_empty(draft: Draft) -> str | None:
    """At least one purpose where the extension is present."""
    return draft.forbidden.get(oids.EXTENDED_KEY_USAGE)


@RFC5280.lint("cdp-uri", "4.2.1.13")
def crl_point_uri(draft: Draft) -> str | None:
    """Not critical; every point is reachable by a URI with a host."""
    if draft.is_critical(oids.CRL_DISTRIBUTION_POINTS):
        return "cRLDistributionPoints is critical"
    for uris in draft.crl_points or ():
        if not uris or not all(_is_absolute(uri) for uri in uris):
            return "a distribution point lacks an absolute URI"
    return draft.forbidden.get(oids.CRL_DISTRIBUTION_POINTS)


@RFC5280.lint("aia-uri", "4.2.2.1")
def access_uri(draft: Draft) -> str | None:
    """Not critical; every location is a URI with a host."""
    if draft.is_critical(oids.AUTHORITY_INFO_ACCESS):
        return "authorityInfoAccess is critical"
    for _, uri in draft.access or ():
        if uri is None or not _is_absolute(uri):
            return f"access location {uri!r} is not an absolute URI"
    return None
