"""The verifier's profiles: `PathRules`, a table of switches with their clauses. BR: CA/Browser Forum TLS Baseline."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vagus.x509.names.general import Form


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRules:
    """Which rules beyond RFC 5280 section 6 a validation applies. Every default is plain section 6 (`pkix`)."""

    name: str

    # --- switches for the anchor's own certificate
    applies_anchor_constraints: bool = False
    """Name, path length and policy constraints in the anchor's certificate bind (RFC 5937 3; RFC 5280 6.1 leaves it
    to the application)."""
    applies_anchor_validity: bool = False
    """The anchor's certificate must be in date (6.1.1 (d) names no validity)."""
    requires_anchor_ca: bool = False
    """The anchor's certificate is v3 and says cA, whatever else of it binds."""
    checks_anchor_form: bool = False
    """The rules on form below also bind the anchor's certificate."""

    # --- switches for form (RFC 5280 section 4: what an issuer MUST do; section 6 does not ask verifiers for it)
    requires_v3: bool = False  # RFC 5280 4.1.2.1: version 3
    requires_positive_serial: bool = False  # RFC 5280 4.1.2.2: the serial is positive and has at most 20 bytes
    # RFC 5280 4.2.1.1: present except in self-signed certificates, with a keyIdentifier
    requires_authority_key_id: bool = False
    # BR 7.1.2.11.1: no authorityCertIssuer or serial in authorityKeyIdentifier
    forbids_authority_key_issuer: bool = False
    requires_subject_key_id: bool = False  # RFC 5280 4.2.1.2: subjectKeyIdentifier in every CA certificate
    forbids_critical_key_ids: bool = False  # RFC 5280 4.2.1.1, 4.2.1.2: key identifiers are not critical
    requires_critical_ca: bool = False  # RFC 5280 4.2.1.9: basicConstraints of a CA is critical
    requires_critical_constraints: bool = False  # RFC 5280 4.2.1.10, 4.2.1.11, 4.2.1.14: constraints MUST be critical
    forbids_leaf_constraints: bool = False  # RFC 5280 4.2.1.10: nameConstraints in CA certificates only
    forbids_idle_ca_bits: bool = False  # RFC 5280 4.2.1.3, 4.2.1.9: keyCertSign, pathLen and cA go together
    forbids_critical_access: bool = False  # RFC 5280 4.2.2.1: authorityInfoAccess MUST be non-critical
    # RFC 5280 4.2.1.13, 4.2.2.1: pointers to CRLs and CAs decode, though unused
    requires_readable_pointers: bool = False
    requires_subject: bool = False  # RFC 5280 4.1.2.6, 4.2.1.6: a CA has a subject; without subject the SAN is critical
    requires_valid_names: bool = False  # RFC 5280 4.2.1.6: DNS, mail and address names are well-formed
    forbids_leading_dot: bool = False  # RFC 5280 4.2.1.10: no leading period in a dNSName subtree
    requires_ca_key_usage: bool = False  # RFC 5280 4.2.1.3: a CA has keyUsage

    # --- switches for the leaf certificate
    requires_signing_leaf: bool = False  # RFC 8446 4.4.2.2: keyUsage, if present, has digitalSignature
    forbids_ca_leaf: bool = False  # BR 7.1.2.7.8; 802.1AR 8.10: an IDevID or LDevID is no CA
    forbids_critical_names_with_subject: bool = False  # BR 7.1.2.7.12: SAN is critical only without a subject
    requires_names: bool = False  # BR 7.1.2.7.12: a subjectAltName in the leaf
    common_name_in_names: bool = False  # BR 7.1.4.3: a common name repeats a SAN entry, letter by letter
    forbids_public_suffix_wildcard: bool = False  # BR 3.2.2.6: no wildcard directly below a public suffix
    forbids_wildcards: bool = False  # an identity names one device, so it has no wildcard
    name_forms: frozenset[Form] | None = None  # the only name forms that the leaf may have; None: any

    # --- switches for extendedKeyUsage (RFC 5280 4.2.1.12 leaves CA certificates to the application)
    requires_purpose: bool = False  # the leaf certificate has an extendedKeyUsage
    forbids_critical_purpose: bool = False  # BR 7.1.2.7.6: extendedKeyUsage of the leaf is not critical
    accepts_any_purpose: bool = True  # anyExtendedKeyUsage in the leaf means every purpose
    accepts_any_purpose_above: bool = True  # anyExtendedKeyUsage in CA certificates means every purpose
    nests_purposes: bool = True  # the extendedKeyUsage of an intermediate must contain the purpose, too
    forbids_anchor_purpose: bool = False  # BR 7.1.2.1.2: the anchor has no extendedKeyUsage
    forbids_mixed_purposes: bool = False  # BR 7.1.2.7.10: not for TLS and also for code, time stamps or OCSP

    # --- switches for keys and signatures
    smallest_rsa: int = 1024  # bits of the smallest RSA modulus accepted
    smallest_leaf_rsa: int = 1024
    rsa_in_bytes: bool = False  # BR 6.1.5: the RSA modulus is a multiple of 8 bits
    checks_anchor_key: bool = False
    bans_revoked_keys: bool = False
    """A CA that is revoked on one path ends the search: no cross-certificate leads around it."""
    unsafe_legacy: bool = False
    """Accept SHA-1 and DSA. No profile below sets it; only conformance tests with old vectors do."""
    unsafe_small_rsa: int = 0
    """Smallest RSA modulus in bits for tests with old vectors, in place of `smallest_rsa`; 0 where not used."""


PKIX = PathRules(name="pkix")

DEVICE = PathRules(
    name="device",
    applies_anchor_constraints=True,
    applies_anchor_validity=True,
    requires_v3=True,
    requires_positive_serial=True,
    forbids_critical_key_ids=True,
    requires_critical_ca=True,
    requires_ca_key_usage=True,
    forbids_leaf_constraints=True,
    forbids_idle_ca_bits=True,
    requires_subject=True,
    requires_valid_names=True,
    requires_signing_leaf=True,
    forbids_ca_leaf=True,
    forbids_wildcards=True,
    requires_purpose=True,
    accepts_any_purpose=False,
    smallest_rsa=3072,
    smallest_leaf_rsa=2048,
    checks_anchor_key=True,
    bans_revoked_keys=True,
)
"""What Vagus issues and admits. Role and identity are checked after the path, in `trust/validation.py`."""

IDEVID = replace(
    DEVICE,
    name="idevid",
    requires_purpose=False,
    smallest_rsa=2048,
)
"""Makers' initial identities (802.1AR): no extendedKeyUsage, often no subjectAltName; on enrolment listeners only."""
