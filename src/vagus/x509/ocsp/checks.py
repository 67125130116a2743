"""Checks an OCSP response (signer, dates, nonce: RFC 6960 3.2) and reads the status it gives; fetches nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from vagus.errors import NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.x509 import extensions as ext
from vagus.x509.certificates import PathCertificate
from vagus.x509.crls.decoding import CERTIFICATE_HOLD
from vagus.x509.dates import later
from vagus.x509.der import oid_contents
from vagus.x509.keys import key_identifier
from vagus.x509.ocsp.messages import CertStatus, OcspResponse, SingleResponse, decode_ocsp_response
from vagus.x509.signatures import SignatureVerdicts

_OCSP_SIGNING = oid_contents("1.3.6.1.5.5.7.3.9")


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspRules:
    """What the caller asks of a response beyond RFC 6960.

    `nonce`: what was sent, None if nothing was; a response to it must repeat it unless `accepts_missing_nonce`
    (pre-signed responses hold none). `longest_life`: how old a status without nextUpdate may be. `slack`: how far the
    responder's clock may run ahead of ours.
    """

    nonce: bytes | None = None
    accepts_missing_nonce: bool = False
    longest_life: timedelta | None = None
    slack: timedelta = timedelta(minutes=5)
    requires_nocheck: bool = True
    """A delegated responder without id-pkix-ocsp-nocheck needs a status of its own; without `responder_status` it is
    refused (4.2.2.2.1 leaves it to the client)."""
    responder_status: Callable[[PathCertificate, PathCertificate, datetime], None] | None = None
    unsafe_legacy: bool = False
    """SHA-1 signatures, for old test vectors; no policy can set it."""


DEFAULT_OCSP_RULES = OcspRules()


def check_response(
    response_der: bytes,
    certificate: PathCertificate,
    issuer: PathCertificate,
    at: datetime,
    verdicts: SignatureVerdicts,
    rules: OcspRules = DEFAULT_OCSP_RULES,
) -> SingleResponse:
    """The status `good` of `certificate`, whose issuer the caller has validated.

    Raises as `read_status`, and NotTrusted: REVOKED, ON_HOLD, NOT_ISSUED (unknown).
    """
    single = read_status(response_der, certificate, issuer, at, verdicts, rules)
    if single.status is CertStatus.REVOKED:
        msg = f"certificate {certificate.label} is revoked, by its OCSP response; replace the certificate"
        reason = Reason.REVOKED if is_for_ever(single) else Reason.ON_HOLD
        raise NotTrusted(reason, msg, certificate=certificate.label, code=single.revocation_reason)
    if single.status is CertStatus.UNKNOWN:
        msg = f"the OCSP responder does not know certificate {certificate.label}; its issuer never recorded it"
        raise NotTrusted(Reason.NOT_ISSUED, msg, certificate=certificate.label)
    return single


def read_status(
    response_der: bytes,
    certificate: PathCertificate,
    issuer: PathCertificate,
    at: datetime,
    verdicts: SignatureVerdicts,
    rules: OcspRules = DEFAULT_OCSP_RULES,
) -> SingleResponse:
    """The status of `certificate`, good or not, from a response that counts at `at`.

    Raises NotTrusted: OCSP_MISMATCH (of another certificate), OCSP_RESPONDER (signed by an unauthorised responder),
    BAD_SIGNATURE, OCSP_STALE, OCSP_NONCE, OCSP_INVALID, STATUS_UNAVAILABLE; Malformed and LimitExceeded for what does
    not decode.
    """
    response = decode_ocsp_response(response_der)
    # RFC 6960 3.2 (1): the response covers the certificate that was requested.
    single = _find_single(response, certificate, issuer)
    # RFC 6960 3.2 (2), (3), (4): the signature verifies, and its signer is the intended, authorised responder. A
    # permanent revocation needs that only for the time when it was signed.
    signed_at = min(at, response.produced_at) if is_for_ever(single) else at
    signer = _find_signer(response, issuer, (at, signed_at), verdicts, rules)
    verdicts.verify(
        response.sha256,
        signer.spki_sha256,
        signer.spki_der,
        (response.algorithm_der, response.signature, response.tbs_der),
        unsafe_legacy=rules.unsafe_legacy,
    )
    # RFC 9654 2.1: the nonce of the response is that of the request.
    _check_nonce(response, rules)
    # RFC 6960 3.2 (5): thisUpdate does not lie in the future.
    _check_made(response, single, at, rules)
    # RFC 6960 2.2: the status itself. A revocation holds for ever, however old the response that contains it.
    if not is_for_ever(single):
        # RFC 6960 3.2 (5), (6): thisUpdate is recent enough, and nextUpdate lies ahead.
        _check_age(single, at, rules)
    return single


def _find_single(response: OcspResponse, certificate: PathCertificate, issuer: PathCertificate) -> SingleResponse:
    """The gravest and newest status of this certificate; a status of another certificate does not count."""
    singles = [single for single in response.singles if single.cert_id.names(certificate, issuer)]
    if not singles:
        msg = f"the OCSP response does not cover certificate {certificate.label} of its issuer; request it again"
        raise NotTrusted(Reason.OCSP_MISMATCH, msg, certificate=certificate.label)
    bad = [single for single in singles if single.status is not CertStatus.GOOD]
    gravest = [single for single in bad if is_for_ever(single)] or bad or singles
    return max(gravest, key=lambda single: single.this_update)


def is_for_ever(single: SingleResponse) -> bool:
    """Whether it says revoked, and not only for a while."""
    return single.status is CertStatus.REVOKED and single.revocation_reason != CERTIFICATE_HOLD


def _is_named(response: OcspResponse, candidate: PathCertificate) -> bool:
    """4.2.1: the ResponderID is the candidate's subject or the SHA-1 hash of its key."""
    if response.responder_name is not None:
        return response.responder_name.matches(candidate.subject)
    return response.responder_key_hash == key_identifier(candidate.spki_der)


def _find_signer(
    response: OcspResponse,
    issuer: PathCertificate,
    moments: tuple[datetime, datetime],
    verdicts: SignatureVerdicts,
    rules: OcspRules,
) -> PathCertificate:
    """4.2.2.2: the CA itself, or a responder that the very CA has delegated with a certificate of its own.

    `moments`: the one that is asked about, and the one at which the delegate's certificate must be in date.
    """
    at, signed_at = moments
    if _is_named(response, issuer):
        return issuer
    refusal = NotTrusted(
        Reason.OCSP_RESPONDER, "the OCSP response is signed neither by the issuer nor by a responder it delegated"
    )
    for candidate in response.certificates:
        if _is_named(response, candidate):
            try:
                _check_in_date(candidate, signed_at)
                _check_delegate(candidate, issuer, at, verdicts, rules)
            except VagusError as fault:
                msg = f"the OCSP responder certificate {candidate.label} is not authorised: {fault.message}"
                refusal = NotTrusted(Reason.OCSP_RESPONDER, msg, certificate=candidate.label, cause=fault.reason)
            else:
                return candidate
    raise refusal


def _check_in_date(delegate: PathCertificate, at: datetime) -> None:
    if not delegate.not_before <= at or at.replace(microsecond=0) > delegate.not_after:
        raise NotTrusted(
            Reason.EXPIRED, f"OCSP responder certificate {delegate.label} is not valid at {at:%Y-%m-%d %H:%M:%S} UTC"
        )


def _check_delegate(
    delegate: PathCertificate, issuer: PathCertificate, at: datetime, verdicts: SignatureVerdicts, rules: OcspRules
) -> None:
    label = delegate.label
    # RFC 6960 4.2.2.2: the responder's certificate is "issued directly by the CA that is identified in the request",
    # with the same key.
    if not delegate.issuer.matches(issuer.subject):
        raise NotTrusted(Reason.NAME_CHAINING, f"OCSP responder certificate {label} is of another CA than the status")
    if delegate.algorithm_der != delegate.inner_algorithm_der:
        raise NotTrusted(Reason.SIG_ALG_MISMATCH, f"OCSP responder certificate {label} names two signature algorithms")
    verdicts.verify(
        delegate.sha256,
        issuer.spki_sha256,
        issuer.spki_der,
        (delegate.algorithm_der, delegate.signature, delegate.tbs_der),
        unsafe_legacy=rules.unsafe_legacy,
    )
    # RFC 6960 4.2.2.2: the extendedKeyUsage must contain id-kp-OCSPSigning; anyExtendedKeyUsage does not replace it.
    if delegate.purposes is None or _OCSP_SIGNING not in delegate.purposes:
        raise NotTrusted(Reason.ROLE_MISSING, f"OCSP responder certificate {label} lacks the purpose id-kp-OCSPSigning")
    if delegate.key_usage is not None and not delegate.key_usage & ext.UsageBit.DIGITAL_SIGNATURE:
        raise NotTrusted(Reason.KEY_USAGE, f"OCSP responder certificate {label} lacks the key usage digitalSignature")
    if any(
        extension.is_critical and (oid not in _DELEGATE_EXTENSIONS or oid in delegate.faults)
        for oid, extension in delegate.extensions.items()
    ):
        raise NotTrusted(Reason.UNKNOWN_CRITICAL, f"OCSP responder certificate {label} has unknown critical extensions")
    # RFC 6960 4.2.2.2.1: nocheck holds for the whole (short) life of the responder's certificate. Without it, the
    # certificate's own status must be checked.
    if not delegate.has(ext.OCSP_NOCHECK) and rules.requires_nocheck:
        if rules.responder_status is None:
            raise NotTrusted(
                Reason.STATUS_UNAVAILABLE,
                f"OCSP responder certificate {label} has no id-pkix-ocsp-nocheck, and its own status is not available",
            )
        rules.responder_status(delegate, issuer, at)


_DELEGATE_EXTENSIONS = frozenset(
    {
        ext.SUBJECT_KEY_ID,
        ext.KEY_USAGE,
        ext.SUBJECT_ALT_NAME,
        ext.BASIC_CONSTRAINTS,
        ext.CRL_DISTRIBUTION_POINTS,
        ext.CERTIFICATE_POLICIES,
        ext.AUTHORITY_KEY_ID,
        ext.EXTENDED_KEY_USAGE,
        ext.AUTHORITY_INFO_ACCESS,
        ext.OCSP_NOCHECK,
    }
)


def _check_nonce(response: OcspResponse, rules: OcspRules) -> None:
    if rules.nonce is None:
        return
    if response.nonce is None:
        if rules.accepts_missing_nonce:
            return
        msg = "the OCSP response has no nonce, so it may be an old one; use a responder that signs each response anew"
        raise NotTrusted(Reason.OCSP_NONCE, msg)
    if response.nonce != rules.nonce:
        raise NotTrusted(Reason.OCSP_NONCE, "the OCSP response has another nonce than the request; request it again")


def _check_made(response: OcspResponse, single: SingleResponse, at: datetime, rules: OcspRules) -> None:
    latest = later(at, rules.slack)
    if single.this_update > latest or response.produced_at > latest:
        msg = f"the OCSP response is dated {single.this_update:%Y-%m-%d %H:%M:%S} UTC, in the future; check the clocks"
        raise NotTrusted(Reason.OCSP_STALE, msg)


def _check_age(single: SingleResponse, at: datetime, rules: OcspRules) -> None:
    end = single.next_update
    if end is None:
        # RFC 6960 4.2.2.1: without nextUpdate, newer information is available all the time, so the response has no age
        # limit.
        if rules.longest_life is None:
            raise NotTrusted(Reason.OCSP_STALE, "the OCSP response has no nextUpdate, so no end; request it again")
        end = later(single.this_update, rules.longest_life)
    if end < single.this_update:
        raise NotTrusted(Reason.OCSP_INVALID, "the OCSP response ends before thisUpdate; use another responder")
    if at > end:
        stale = int((at - end).total_seconds())
        msg = f"the OCSP response passed its nextUpdate {end:%Y-%m-%d %H:%M:%S} UTC; fetch a newer one"
        raise NotTrusted(Reason.OCSP_STALE, msg, stale_seconds=stale)
