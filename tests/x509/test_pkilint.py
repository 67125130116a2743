"""The outside opinion of pkilint on one certificate of each profile; every exception has its reason."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from pkilint import loader, validation
from pkilint.bin import lint_pkix_signer_signee_cert_chain as pairs
from pkilint.cabf import serverauth
from pkilint.cabf.serverauth import serverauth_constants
from pkilint.pkix import certificate, extension, name

from tests.x509.hierarchy import Authority, chain, contents, issuer_of, pack, public_key, under

# finding -> why it is accepted. RFC 5280 findings have no exception at all.
EXCEPTIONS: dict[str, str] = {}
FORUM_EXCEPTIONS = {
    "cabf.serverauth.certificate_validity_period_exceeds_200_days": (
        "the 200 days bind public authorities; ours are private, and revocation reaches our verifiers in seconds"
    ),
    "cabf.serverauth.dv.unknown_attribute_present": "our subjects name the hospital",
    "cabf.serverauth.subscriber_common_name_unknown_source": "CN is a label for people: our verifiers never read it",
    "cabf.serverauth.subscriber_missing_reserved_policy_oid": "the forum's OIDs are for public authorities",
    "cabf.internal_domain_name": "a hospital's devices have internal names; .example replaces them here",
    "cabf.internal_ip_address": "a hospital's devices have internal addresses",
}
_WORSE = (validation.ValidationFindingSeverity.ERROR, validation.ValidationFindingSeverity.FATAL)


@cache
def rfc5280() -> Any:
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


def errors(validator: Any, node: Any) -> set[str]:
    return {
        described.finding.code
        for result in validator.validate(node)
        for described in result.finding_descriptions
        if described.finding.severity in _WORSE
    }


def errors_of(der: bytes) -> set[str]:
    return errors(rfc5280(), loader.load_certificate(der, "certificate").root)


def issued(profile: str) -> tuple[bytes, Authority]:
    """One certificate of the profile, and its issuer."""
    top, device, unit = chain()
    issuer = issuer_of(profile)
    made = {"root": top, "maker-root": issuer, "device-ca": device, "issuing-ca": unit}.get(profile)
    if made is None and profile.endswith("-ca"):
        made = under(issuer, profile, "p256", 105)
    return issuer.issue(contents(profile)) if made is None else made.der, issuer


@pytest.mark.parametrize("profile", sorted(pack().profiles))
def test_pkilint_has_no_error_against_any_profile(profile: str) -> None:
    assert errors_of(issued(profile)[0]) <= set(EXCEPTIONS)


@pytest.mark.parametrize("profile", sorted(pack().profiles))
def test_pkilint_finds_each_certificate_and_its_issuer_in_accord(profile: str) -> None:
    signed, issuer = issued(profile)
    together: dict[str, Any] = {}  # the linter finds the other document by its name here
    load = loader.RFC5280CertificateDocumentLoader().load_der_document
    together["issuer"] = load(issuer.der, "issuer", "issuer", together)
    together["subject"] = load(signed, "subject", "subject", together)
    decoders = pairs.create_decoder_validation_container()
    found = errors(decoders, together["issuer"].root) | errors(decoders, together["subject"].root)
    found |= errors(pairs.create_issuer_validation_container(), together["issuer"].root)
    found |= errors(pairs.create_subject_validation_container(), together["subject"].root)
    assert found == set()


@pytest.mark.parametrize("kind", ["p384", "rsa3072", "mldsa44", "mldsa65", "mldsa87"])
def test_pkilint_has_no_error_against_other_keys(kind: str) -> None:
    issuer = chain()[2]
    assert errors_of(issuer.issue(contents("bedside", public_key=public_key(kind)))) == set()


def test_the_forum_would_object_to_our_servers_only_where_we_say_why() -> None:
    validator = certificate.create_pkix_certificate_validator_container(
        serverauth.create_decoding_validators(),
        serverauth.create_validators(serverauth_constants.CertificateType.DV_FINAL_CERTIFICATE),
    )
    found = errors(validator, loader.load_certificate(issued("tls-server")[0], "certificate").root)
    assert found == set(FORUM_EXCEPTIONS)


def test_pkilint_does_find_what_is_wrong() -> None:
    wrong = chain()[2].issue(contents("bedside", dns_names=("pump_1..example",), serial=0))
    assert errors_of(wrong)
