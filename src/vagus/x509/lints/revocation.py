"""What RFC 6960 asks of responders and RFC 9608 of certificates without revocation information."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.x509 import der, oids
from vagus.x509.lints.registry import Document
from vagus.x509.profiles import Kind

if TYPE_CHECKING:
    from vagus.x509.lints.parsed_tbs import Draft

RFC6960 = Document("RFC 6960", "rfc6960")
RFC9608 = Document("RFC 9608", "rfc9608")


def _is_responder(draft: Draft) -> bool:
    return draft.profile.kind is Kind.OCSP_RESPONDER


@RFC6960.lint("responder-purpose", "4.2.2.2")
def responder_purpose(draft: Draft) -> str | None:
    """A delegated responder says so."""
    is_odd = _is_responder(draft) and oids.OCSP_SIGNING not in (draft.purposes or ())
    return "a responder lacks id-kp-OCSPSigning" if is_odd else None


@RFC6960.lint("responder-purpose-elsewhere", "4.2.2.2")
def responder_purpose_elsewhere(draft: Draft) -> str | None:
    """A holder of OCSPSigning can forge status, so only responders have it."""
    is_odd = not _is_responder(draft) and oids.OCSP_SIGNING in (draft.purposes or ())
    return "id-kp-OCSPSigning outside a responder" if is_odd else None


@RFC6960.lint("nocheck", "4.2.2.2.1")
def nocheck(draft: Draft) -> str | None:
    """Our responders are short-lived and carry id-pkix-ocsp-nocheck; no other certificate does."""
    found = draft.fields.by_oid.get(oids.OCSP_NOCHECK)
    if (found is not None) is not _is_responder(draft):
        return "id-pkix-ocsp-nocheck is missing" if found is None else "id-pkix-ocsp-nocheck outside a responder"
    return None


@RFC6960.lint("nocheck-value", "4.2.2.2.1")
def nocheck_value(draft: Draft) -> str | None:
    """NULL, and not critical."""
    found = draft.fields.by_oid.get(oids.OCSP_NOCHECK)
    if found is None:
        return None
    return "id-pkix-ocsp-nocheck is critical or not NULL" if found.is_critical or found.value != der.NULL_DER else None


@RFC9608.lint("value", "2")
def no_revocation_value(draft: Draft) -> str | None:
    """NULL, and not critical."""
    found = draft.fields.by_oid.get(oids.NO_REV_AVAIL)
    if found is None:
        return None
    return "noRevAvail is critical or not NULL" if found.is_critical or found.value != der.NULL_DER else None


@RFC9608.lint("authority", "3")
def no_revocation_authority(draft: Draft) -> str | None:
    """Never in an authority's certificate."""
    is_odd = draft.has(oids.NO_REV_AVAIL) and draft.is_authority
    return "noRevAvail in an authority's certificate" if is_odd else None


@RFC9608.lint("crl-pointer", "3")
def no_revocation_crl(draft: Draft) -> str | None:
    """No pointer to a CRL beside it."""
    is_odd = draft.has(oids.NO_REV_AVAIL) and (draft.has(oids.CRL_DISTRIBUTION_POINTS) or draft.has(oids.FRESHEST_CRL))
    return "noRevAvail beside a CRL pointer" if is_odd else None


@RFC9608.lint("ocsp-pointer", "3")
def no_revocation_ocsp(draft: Draft) -> str | None:
    """No pointer to a responder beside it."""
    has_responder = any(method == oids.OCSP_ACCESS for method, _ in draft.access or ())
    return "noRevAvail beside an OCSP pointer" if draft.has(oids.NO_REV_AVAIL) and has_responder else None
