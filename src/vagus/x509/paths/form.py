"""Checks a certificate's form (RFC 5280 section 4, BR), each rule by a switch of the verifier's profile.

Section 6 asks for none of it: the profile `pkix` passes every rule here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from vagus.errors import NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.x509 import extensions as ext
from vagus.x509.certificates import PathCertificate
from vagus.x509.names.distinguished import COMMON_NAME
from vagus.x509.names.general import Form
from vagus.x509.paths.name_constraints import is_host_name, is_mailbox
from vagus.x509.paths.rules import PathRules


def _object(certificate: PathCertificate, what: str, reason: Reason = Reason.PROFILE_VIOLATION) -> NoReturn:
    msg = f"certificate {certificate.label} {what}; have it re-issued or choose another profile"
    raise NotTrusted(reason, msg, certificate=certificate.label)


def check_form(certificate: PathCertificate, rules: PathRules, *, is_ca: bool) -> None:
    """The rules for every certificate of a path. `is_ca`: it issued the next one. Raises NotTrusted."""
    if rules.requires_v3 and certificate.version != 3:
        _object(certificate, "is not v3 (RFC 5280 4.1.2.1)", Reason.BAD_VERSION)
    if rules.requires_positive_serial and (certificate.serial <= 0 or len(certificate.serial_bytes) > 20):
        _object(certificate, "has a serial number that is not positive and at most 20 bytes (4.1.2.2)")
    _check_key_ids(certificate, rules, is_ca=is_ca)
    _check_constraints_form(certificate, rules, is_ca=is_ca)
    if rules.forbids_critical_access and certificate.is_critical(ext.AUTHORITY_INFO_ACCESS):
        _object(certificate, "has a critical authorityInfoAccess (4.2.2.1)")
    if rules.requires_readable_pointers:
        _check_pointers(certificate)
    if rules.requires_subject and certificate.subject.is_empty:
        if is_ca:
            _object(certificate, "is a CA without a subject (4.1.2.6)")
        if not certificate.is_critical(ext.SUBJECT_ALT_NAME):
            _object(certificate, "has no subject and no critical subjectAltName (4.2.1.6)")
    if rules.requires_valid_names:
        _check_names_form(certificate)


def _check_pointers(certificate: PathCertificate) -> None:
    for oid, decode in _POINTERS:
        value = certificate.value_of(oid)
        if value is not None:
            try:
                decode(value)
            except VagusError as fault:
                _object(certificate, f"has pointers that do not decode: {fault.message}", Reason.BAD_EXTENSION)


_POINTERS: tuple[tuple[bytes, Callable[[bytes], object]], ...] = (
    (ext.CRL_DISTRIBUTION_POINTS, ext.decode_distribution_points),
    (ext.FRESHEST_CRL, ext.decode_distribution_points),
    (ext.AUTHORITY_INFO_ACCESS, ext.access_locations),
)


def _check_key_ids(certificate: PathCertificate, rules: PathRules, *, is_ca: bool) -> None:
    if rules.requires_authority_key_id and (
        certificate.authority_key_id is None or certificate.authority_key_id.key_id is None
    ):
        _object(certificate, "has no authorityKeyIdentifier with a keyIdentifier (4.2.1.1)")
    if rules.requires_subject_key_id and is_ca and certificate.subject_key_id is None:
        _object(certificate, "is a CA without subjectKeyIdentifier (4.2.1.2)")
    if rules.forbids_critical_key_ids and (
        certificate.is_critical(ext.AUTHORITY_KEY_ID) or certificate.is_critical(ext.SUBJECT_KEY_ID)
    ):
        _object(certificate, "has a critical key identifier (4.2.1.1, 4.2.1.2)")


def _check_constraints_form(certificate: PathCertificate, rules: PathRules, *, is_ca: bool) -> None:
    if rules.requires_critical_ca and is_ca and not certificate.is_critical(ext.BASIC_CONSTRAINTS):
        _object(certificate, "is a CA whose basicConstraints is not critical (4.2.1.9)")
    if rules.requires_critical_constraints:
        for oid, clause in (
            (ext.NAME_CONSTRAINTS, "nameConstraints (4.2.1.10)"),
            (ext.POLICY_CONSTRAINTS, "policyConstraints (4.2.1.11)"),
            (ext.INHIBIT_ANY_POLICY, "inhibitAnyPolicy (4.2.1.14)"),
        ):
            if certificate.has(oid) and not certificate.is_critical(oid):
                _object(certificate, f"has a non-critical {clause}")
    if rules.forbids_leaf_constraints and certificate.has(ext.NAME_CONSTRAINTS) and not certificate.is_ca:
        _object(certificate, "is no CA and has nameConstraints (4.2.1.10)")
    if rules.requires_ca_key_usage and is_ca and certificate.key_usage is None:
        _object(certificate, "is a CA without keyUsage (4.2.1.3)", Reason.KEY_USAGE)
    if rules.forbids_idle_ca_bits:
        _check_idle_bits(certificate, is_ca=is_ca)


def _check_idle_bits(certificate: PathCertificate, *, is_ca: bool) -> None:
    basic, usage = certificate.basic_constraints, certificate.key_usage
    if basic is not None and not basic.is_ca and basic.path_length is not None:
        _object(certificate, "has a pathLenConstraint and is no CA (4.2.1.9)")
    if usage is None:
        return
    may_sign = bool(usage & ext.UsageBit.KEY_CERT_SIGN)
    if may_sign and not certificate.is_ca:
        _object(certificate, "has keyCertSign and is no CA (4.2.1.9)", Reason.KEY_USAGE)
    if is_ca and certificate.is_ca and not may_sign:
        _object(certificate, "is a CA without keyCertSign (4.2.1.9)", Reason.KEY_USAGE)


def _check_names_form(certificate: PathCertificate) -> None:
    for name in certificate.names.dns:
        host = name.lower().removeprefix("*.")
        if not is_host_name(host) or _is_address(name):
            _object(certificate, "has a dNSName that is no host name (4.2.1.6)", Reason.NAME_FORM)
    for address in certificate.names.addresses:
        if len(address) not in {4, 16}:
            _object(certificate, f"has an iPAddress of {len(address)} bytes (4.2.1.6)", Reason.NAME_FORM)
    for mailbox in certificate.names.emails:
        if not is_mailbox(mailbox):
            _object(certificate, "has an rfc822Name that is no mailbox (4.2.1.6)", Reason.NAME_FORM)


def _is_address(text: str) -> bool:
    if not text[-1:].isdigit() and ":" not in text:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_anchor_form(anchor: PathCertificate, rules: PathRules) -> None:
    """The same rules for the certificate of an anchor, where the profile extends them to it. Raises NotTrusted."""
    key_id = anchor.authority_key_id
    if rules.forbids_authority_key_issuer and key_id is not None:
        if key_id.issuer is not None or key_id.serial is not None:
            _object(anchor, "names issuer or serial in its authorityKeyIdentifier (BR 7.1.2.1.3)")
        if key_id.key_id is None or key_id.key_id != anchor.subject_key_id:
            _object(anchor, "has an authorityKeyIdentifier that differs from its own key (BR 7.1.2.1.3)")
    if not rules.checks_anchor_form:
        return
    if anchor.is_self_issued and key_id is None:
        # RFC 5280 4.2.1.1: a self-signed certificate may have no authorityKeyIdentifier.
        check_form(anchor, replace(rules, requires_authority_key_id=False), is_ca=True)
    else:
        check_form(anchor, rules, is_ca=True)


def check_leaf_form(leaf: PathCertificate, rules: PathRules, is_public_suffix: Callable[[str], bool] | None) -> None:
    """The rules for the target alone. Raises NotTrusted."""
    usage = leaf.key_usage
    if rules.requires_signing_leaf and usage is not None and not usage & ext.UsageBit.DIGITAL_SIGNATURE:
        _object(leaf, "may not sign by its keyUsage, which TLS 1.3 needs (RFC 8446 4.4.2.2)", Reason.KEY_USAGE)
    if rules.forbids_ca_leaf and leaf.is_ca:
        _object(leaf, "is a CA where an end entity belongs (BR 7.1.2.7.8, 802.1AR 8.10)")
    if rules.forbids_critical_purpose and leaf.is_critical(ext.EXTENDED_KEY_USAGE):
        _object(leaf, "has a critical extendedKeyUsage (BR 7.1.2.7.6)")
    has_names = leaf.has(ext.SUBJECT_ALT_NAME)
    if rules.requires_names and not has_names:
        _object(leaf, "has no subjectAltName (BR 7.1.2.7.12)", Reason.IDENTITY_MISSING)
    if (
        rules.forbids_critical_names_with_subject
        and leaf.is_critical(ext.SUBJECT_ALT_NAME)
        and not leaf.subject.is_empty
    ):
        _object(leaf, "has a subject and a critical subjectAltName (BR 7.1.2.7.12)")
    _check_leaf_names(leaf, rules, is_public_suffix)


def _check_leaf_names(leaf: PathCertificate, rules: PathRules, is_public_suffix: Callable[[str], bool] | None) -> None:
    if rules.common_name_in_names:
        _check_common_names(leaf)
    if rules.forbids_wildcards and any("*" in name for name in leaf.names.dns):
        _object(leaf, "has a wildcard name where one device is named", Reason.NAME_FORM)
    if rules.forbids_public_suffix_wildcard and is_public_suffix is not None:
        for name in leaf.names.dns:
            if name.startswith("*.") and is_public_suffix(name[2:].lower()):
                _object(leaf, "has a wildcard over a whole public suffix (BR 3.2.2.6)", Reason.NAME_FORM)
    if rules.name_forms is not None and not leaf.names.forms <= rules.name_forms:
        extra = ", ".join(sorted(Form(form).name for form in leaf.names.forms - rules.name_forms))
        _object(leaf, f"holds names of the form {extra}, which the profile does not list", Reason.NAME_FORM)


def _check_common_names(leaf: PathCertificate) -> None:
    written = set(leaf.names.dns) | {str(ipaddress.ip_address(address)) for address in leaf.names.addresses}
    for common_name in leaf.subject.texts(COMMON_NAME):
        if common_name not in written:
            _object(leaf, "has a common name that its subjectAltName does not repeat (BR 7.1.4.3)")
