"""CRLs decoded and compiled for look-up (RFC 5280 section 5); decides neither trust nor status.

Strict, but for small faults of CRLs in use that can hide no revocation (docs/verifier.md 8): an entry with such a fault
counts as revoked. A hospital cannot make a maker sign its CRL anew, and without it every device of the maker waits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509 import extensions as ext
from vagus.x509.certificates import Extension, PathCertificate, read_extensions, read_signed
from vagus.x509.extensions import AuthorityKeyId
from vagus.x509.names.distinguished import DistinguishedName, RelativeName, decode_name
from vagus.x509.names.general import GeneralNames, read_general_names
from vagus.x509.signatures import SignatureVerdicts

MAX_CRL = 64 * 1024 * 1024  # limit in bytes of a CRL: a million and a half entries fit
ALL_REASONS = 0b1_1111_1110  # every revocation reason: ReasonFlags bits 1 to 8 (RFC 5280 4.2.1.13)
CERTIFICATE_HOLD = 6
REMOVE_FROM_CRL = 8
_INVALIDITY_DATE = der.oid_contents("2.5.29.24")
_EXPIRED_CERTS_ON_CRL = der.oid_contents("2.5.29.60")
_KNOWN = frozenset(
    {
        ext.AUTHORITY_KEY_ID,
        ext.ISSUER_ALT_NAME,
        ext.CRL_NUMBER,
        ext.DELTA_CRL_INDICATOR,
        ext.ISSUING_DISTRIBUTION_POINT,
        ext.FRESHEST_CRL,
        ext.AUTHORITY_INFO_ACCESS,
        _EXPIRED_CERTS_ON_CRL,
    }
)
_SEEN = 65_536
_REASONS = {bytes((der.ENUMERATED, 1, code)): code for code in (0, 1, 2, 3, 4, 5, 6, 8, 9, 10)}  # by their DER
Name = tuple[RelativeName, ...]
Entries = Mapping[Name, Mapping[bytes, int]]


@dataclass(frozen=True, slots=True)
class IssuingDistributionPoint:
    """5.2.5: which certificates and reasons a CRL covers."""

    full_name: GeneralNames | None = None
    relative_name: RelativeName | None = None
    only_user: bool = False
    only_ca: bool = False
    only_attribute: bool = False
    reasons: int | None = None
    is_indirect: bool = False


EVERYTHING = IssuingDistributionPoint()


@dataclass(frozen=True, slots=True, eq=False)
class Crl:
    """A CRL that decoded. `entries`: certificate issuer -> serial (its contents in DER) -> its gravest reason code."""

    der: bytes
    sha256: bytes
    tbs: tuple[int, int]  # where tbsCertList lies in the CRL, so that 50 MB are not stored twice
    inner_algorithm_der: bytes
    algorithm_der: bytes
    signature: bytes
    issuer: DistinguishedName
    this_update: datetime
    next_update: datetime | None
    number: int | None
    base_number: int | None  # CRL number of the base that a delta CRL names (RFC 5280 5.2.4)
    scope: IssuingDistributionPoint
    scope_der: bytes  # bytes of issuingDistributionPoint: a delta CRL must repeat those of its base
    authority_key_id: AuthorityKeyId | None
    entries: Entries
    listed: tuple[int, int]  # where the contents of revokedCertificates lie in the CRL
    label: str

    @property
    def is_delta(self) -> bool:
        """Whether it says only what changed since `base_number`."""
        return self.base_number is not None

    def find_reason(self, issuer: DistinguishedName, serial_bytes: bytes) -> int | None:
        """The reason code under which a certificate is listed, None if it is not."""
        listed = self.entries.get(issuer.relative_names)
        return None if listed is None else listed.get(serial_bytes)


def decode_crl(crl_der: bytes) -> Crl:
    """The CRL that fills `crl_der`: one pass over its entries, some 1 us each.

    Raises Malformed(NON_DER|BAD_EXTENSION), NotTrusted(CRL_INVALID) for critical extensions that are not known
    (5.2, 5.3) and contradictions, LimitExceeded(TOO_LARGE).
    """
    der.check_size(crl_der, MAX_CRL, "CRL", "have it partitioned")
    data = bytes(crl_der)
    (start, at, tbs_end), algorithm_der, signature = read_signed(data, "a CertificateList", "tbsCertList")
    is_v2, at = _read_version(data, at, tbs_end)
    inner_start = at
    _, at = der.read_expected(data, at, tbs_end, der.SEQUENCE, "signature")
    inner_algorithm = data[inner_start:at]
    issuer_start = at
    _, at = der.read_expected(data, at, tbs_end, der.SEQUENCE, "issuer")
    issuer = decode_name(data[issuer_start:at])
    this_update, at = der.read_time(data, at, tbs_end, "thisUpdate")
    next_update = None
    if at < tbs_end and data[at] in {der.UTC_TIME, der.GENERALIZED_TIME}:
        next_update, at = der.read_time(data, at, tbs_end, "nextUpdate")
    entries: Entries = {}
    first = at
    if at < tbs_end and data[at] == der.SEQUENCE:
        _, first, at = der.read_element(data, at, tbs_end)
        # An empty SEQUENCE, where 5.1.2.6 wants none, names no certificate either.
        entries = _read_entries(data, first, at, issuer.relative_names, is_v2=is_v2)
    listed = first, at
    extensions = _read_tail(data, at, tbs_end, is_v2=is_v2)
    scope = _scope(extensions)
    if len(entries) > 1 and not scope.is_indirect:
        raise _invalid("a direct CRL has an entry of another certificate issuer (RFC 5280 5.2.5 asks for indirectCRL)")
    key_id = extensions.get(ext.AUTHORITY_KEY_ID)
    point = extensions.get(ext.ISSUING_DISTRIBUTION_POINT)
    digest = hashlib.sha256(data).digest()
    return Crl(
        der=data,
        sha256=digest,
        tbs=(start, tbs_end),
        inner_algorithm_der=inner_algorithm,
        algorithm_der=algorithm_der,
        signature=signature,
        issuer=issuer,
        this_update=this_update,
        next_update=next_update,
        number=_number(extensions, ext.CRL_NUMBER),
        base_number=_number(extensions, ext.DELTA_CRL_INDICATOR),
        scope=scope,
        scope_der=b"" if point is None else point.value,
        authority_key_id=None if key_id is None else ext.decode_authority_key_id(key_id.value),
        entries=entries,
        listed=listed,
        label=digest[:8].hex(),
    )


def read_revocation_dates(crl: Crl) -> dict[bytes, datetime]:
    """When each certificate was revoked, by the contents of its serial in DER; of two entries the earlier date counts.

    What is no date of RFC 5280 is left out. Empty for an indirect CRL with entries of other issuers.
    """
    dates: dict[bytes, datetime] = {}
    if len(crl.entries) > 1:
        return dates
    for first, stop in der.read_each(crl.der, *crl.listed, der.SEQUENCE, "a revoked certificate"):
        _, start, end = der.read_element(crl.der, first, stop)
        with suppress(Malformed):
            date, _ = der.read_time(crl.der, end, stop, "revocationDate")
            serial = crl.der[start:end]
            dates[serial] = min(date, dates.get(serial, date))
    return dates


def _invalid(what: str) -> NotTrusted:
    return NotTrusted(Reason.CRL_INVALID, f"{what}; have the CRL issued anew by RFC 5280 section 5")


def _read_version(data: bytes, at: int, end: int) -> tuple[bool, int]:
    if at < end and data[at] == der.INTEGER:
        _, first, at = der.read_element(data, at, end)
        if der.integer_value(data, first, at, "version") != 1:
            der.fail("a CRL version other than v2")
        return True, at
    return False, at


def _read_tail(data: bytes, at: int, end: int, *, is_v2: bool) -> dict[bytes, Extension]:
    if at == end:
        return {}
    first, last = der.read_expected(data, at, end, 0xA0, "crlExtensions")
    if last != end or not is_v2:
        der.fail("crlExtensions in a v1 CRL, or bytes after them")
    place = der.read_only(data, first, last, der.SEQUENCE, "crlExtensions")
    extensions = _read_extensions(data, *place)
    for oid, extension in extensions.items():
        if extension.is_critical and oid not in _KNOWN:
            raise _invalid(f"the CRL has the unknown critical extension {der.oid_text(oid)} (RFC 5280 5.2)")
    return extensions


def _read_extensions(data: bytes, start: int, end: int) -> dict[bytes, Extension]:
    """As `read_extensions`; an empty SEQUENCE, where RFC 5280 wants none, has no extension either."""
    return {} if start == end else read_extensions(data, start, end, may_spell_default=True)


def _number(extensions: Mapping[bytes, Extension], oid: bytes) -> int | None:
    extension = extensions.get(oid)
    if extension is None:
        return None
    start, end = der.read_whole(extension.value, der.INTEGER, "a CRL number")
    longest = max(der.MAX_INTEGER, end - start)
    number = der.integer_value(extension.value, start, end, "a CRL number", longest=longest)
    if not 0 <= number < 1 << 8 * (der.MAX_INTEGER - 1):
        der.fail("a CRL number that is negative or over 20 bytes (5.2.3)")
    return number


def _scope(extensions: Mapping[bytes, Extension]) -> IssuingDistributionPoint:
    extension = extensions.get(ext.ISSUING_DISTRIBUTION_POINT)
    if extension is None:
        return EVERYTHING
    value = extension.value
    start, end = der.read_whole(value, der.SEQUENCE, "issuingDistributionPoint")
    fields = der.read_optional(value, start, end, {0xA0, 0x81, 0x82, 0x83, 0x84, 0x85}, "issuingDistributionPoint")
    if not fields:
        der.fail("issuingDistributionPoint is empty (5.2.5)")
    full_name = relative_name = reasons = None
    flags: set[int] = set()
    for tag, place in fields.items():
        if tag == 0xA0:
            full_name, relative_name = ext.read_point_name(value, *place)
        elif tag == 0x83:
            reasons = der.named_bits_value(value, *place, "onlySomeReasons", may_trail=True)
        elif der.boolean_value(value, *place, "a flag of issuingDistributionPoint"):  # FALSE, the default, may stand
            flags.add(tag & 0x1F)
    if len(flags & {1, 2, 5}) > 1:
        raise _invalid("a CRL is for only users, only CAs and only attribute certificates at once (RFC 5280 5.2.5)")
    return IssuingDistributionPoint(full_name, relative_name, 1 in flags, 2 in flags, 5 in flags, reasons, 4 in flags)


def _read_entries(data: bytes, at: int, end: int, crl_issuer: Name, *, is_v2: bool) -> Entries:
    """The revokedCertificates, in one loop that makes no call for an entry of the usual shape.

    A CRL can have more than a million entries, so each costs about a microsecond. What follows the serial number (date
    and extensions) repeats from entry to entry. It is checked once and then looked up as bytes in `seen`, which holds
    at most 65,536 different endings; further ones are checked each time. An entry that names another certificate
    issuer changes the meaning of those after it (5.3.3), so its ending is never looked up.
    """
    listed: dict[bytes, int] = {}
    by_issuer: dict[Name, dict[bytes, int]] = {crl_issuer: listed}
    seen: dict[bytes, int] = {}
    while at < end:
        first, stop = der.read_expected(data, at, end, der.SEQUENCE, "a revoked certificate")
        # userCertificate of a CRL entry (RFC 5280 5.1.2.6)
        if stop - first < 4 or data[first] != der.INTEGER or data[first + 1] > der.MAX_SERIAL:
            der.fail("a revoked certificate without a serial number")
        serial_start = first + 2
        serial_end = serial_start + data[first + 1]
        if not serial_start < serial_end <= stop:
            der.fail("a serial number is empty or reaches beyond its entry")
        if data[serial_start] in {0x00, 0xFF}:
            der.integer_value(data, serial_start, serial_end, "a serial number", longest=der.MAX_SERIAL)
        # revocationDate and crlEntryExtensions of a CRL entry
        rest = data[serial_end:stop]
        reason = seen.get(rest)
        if reason is None:
            reason, issuer = _read_rest(data, serial_end, stop, is_v2=is_v2)
            if issuer is not None:
                # RFC 5280 5.3.3: certificateIssuer holds for this CRL entry and the following ones.
                listed = by_issuer.setdefault(issuer.relative_names, {})
            elif len(seen) < _SEEN:
                seen[rest] = reason
        serial = data[serial_start:serial_end]
        other = listed.setdefault(serial, reason)
        if other != reason:
            listed[serial] = max(other, reason, key=_gravity)
        at = stop
    return MappingProxyType(by_issuer)


def _gravity(reason: int) -> int:
    """How much an entry weighs beside another one for the same serial number, in whatever order they come.

    RFC 5280 does not forbid such a pair and does not say which entry counts. A CA that only appends makes such pairs.
    To refuse the CRL would take the status from all its certificates. To go by order would let a hold that is lifted
    later undo a revocation.
    """
    return 0 if reason == REMOVE_FROM_CRL else 1 if reason == CERTIFICATE_HOLD else 2


def _read_rest(data: bytes, start: int, end: int, *, is_v2: bool) -> tuple[int, DistinguishedName | None]:
    # The date decides nothing: whatever its contents are, the certificate is revoked.
    tag, _, last = der.read_element(data, start, end)
    if tag not in {der.UTC_TIME, der.GENERALIZED_TIME}:
        der.fail("a revoked certificate without a revocationDate")
    if last == end:
        return 0, None
    if not is_v2:
        der.fail("an entry of a v1 CRL has extensions")
    return _read_entry_extensions(data, last, end)


def _read_entry_extensions(data: bytes, at: int, end: int) -> tuple[int, DistinguishedName | None]:
    place = der.read_only(data, at, end, der.SEQUENCE, "crlEntryExtensions")
    reason = 0
    issuer = None
    for oid, extension in _read_extensions(data, *place).items():
        value = extension.value
        if oid == ext.REASON_CODE:
            reason = _REASONS.get(value, 0)  # unreadable or unknown (5.3.1): revoked, and never a hold or its end
        elif oid == ext.CERTIFICATE_ISSUER:
            start, stop = der.read_whole(value, der.SEQUENCE, "certificateIssuer")
            names = read_general_names(value, start, stop, "certificateIssuer").directories
            if len(names) != 1:
                raise _invalid("certificateIssuer of a CRL entry holds not exactly one directory name (RFC 5280 5.3.3)")
            issuer = names[0]
        elif extension.is_critical and oid != _INVALIDITY_DATE:  # the date decides nothing
            raise _invalid(f"a CRL entry has the unknown critical extension {der.oid_text(oid)} (RFC 5280 5.3)")
    return reason, issuer


def verify_crl(crl: Crl, signer: PathCertificate, verdicts: SignatureVerdicts, *, unsafe_legacy: bool = False) -> None:
    """6.3.3 (f), (g): whether `signer`, whose own path the caller has checked, may sign CRLs and signed this one.

    Raises NotTrusted(CRL_INVALID|SIG_ALG_MISMATCH|BAD_SIGNATURE|UNSUPPORTED_ALGORITHM|KEY_USAGE).
    """
    if crl.algorithm_der != crl.inner_algorithm_der:
        msg = f"CRL {crl.label} names two signature algorithms (RFC 5280 5.1.1.2); have it issued anew"
        raise NotTrusted(Reason.SIG_ALG_MISMATCH, msg, crl=crl.label)
    if signer.key_usage is not None and not signer.key_usage & ext.UsageBit.CRL_SIGN:
        msg = f"CRL {crl.label} is signed by certificate {signer.label}, whose keyUsage lacks cRLSign"
        raise NotTrusted(Reason.KEY_USAGE, msg, crl=crl.label, certificate=signer.label)
    verdicts.verify(
        crl.sha256,
        signer.spki_sha256,
        signer.spki_der,
        (crl.algorithm_der, crl.signature, crl.der[crl.tbs[0] : crl.tbs[1]]),
        unsafe_legacy=unsafe_legacy,
    )
