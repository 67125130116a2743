"""The classes of disagreement with other verifiers, each a predicate and a reason; in prose: docs/verifier.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.x509.random_chains import Scenario
from vagus.reasons import Reason

# OpenSSL's error numbers (x509_vfy.h)
SIGNATURE_FAILURE = 7
SELF_SIGNED_IN_CHAIN = 19
CERTIFICATE_REVOKED = 23
INVALID_PURPOSE = 26
DIFFERENT_CRL_SCOPE = 44
LIST_UNUSABLE = frozenset({3, 8, 11, 12, 35, 36})  # absent, forged, of the future, stale, no cRLSign, unknown critical
CRL_PATH_VALIDATION_ERROR = 54


@dataclass(frozen=True, slots=True)
class Class:
    """One class. `holds` sees the labels, our reason (None = accepted) and the other verifier's result."""

    name: str
    why: str
    holds: Callable[[frozenset[str], Reason | None, int | str], bool]


OPENSSL = (
    Class(
        "no second try",
        "OpenSSL takes the first issuer by name and key identifier and does not go back when its signature fails or it "
        "is revoked. Here the search goes on; under our device profile a revoked CA ends it",
        lambda labels, ours, theirs: (
            ours is None
            and bool(
                ("forged twin" in labels and theirs == SIGNATURE_FAILURE)
                or (
                    "good twin" in labels
                    and bool(labels & {"listed twice", "revoked"})
                    and theirs == CERTIFICATE_REVOKED
                )
            )
        ),
    ),
    Class(
        "anyExtendedKeyUsage",
        "OpenSSL's purpose sslclient does not count anyExtendedKeyUsage; RFC 5280 4.2.1.12 does, and so does pkix. "
        "Our device and webpki profiles refuse it",
        lambda labels, ours, theirs: (
            bool(labels & {"CA for any purpose", "leaf for any purpose"}) and ours is None and theirs == INVALID_PURPOSE
        ),
    ),
    Class(
        "keyUsage of the leaf",
        "sslclient asks for digitalSignature or keyAgreement; section 6 does not. Our device profile asks as well",
        lambda labels, ours, theirs: "leaf that cannot sign" in labels and ours is None and theirs == INVALID_PURPOSE,
    ),
    Class(
        "wildcards and excluded names",
        "a wildcard that could speak for an excluded host is refused here (CVE-2025-61727) and accepted by OpenSSL",
        lambda labels, ours, theirs: "wildcard host" in labels and ours is Reason.NAME_CONSTRAINT and theirs == 0,
    ),
    Class(
        "status of the root",
        "with CRL_CHECK_ALL OpenSSL checks whether the root itself is revoked, so its CRL must cover CAs; "
        "section 6.1 starts below the anchor",
        lambda labels, ours, theirs: "CRL for users only" in labels and ours is None and theirs == DIFFERENT_CRL_SCOPE,
    ),
    Class(
        "a new key's own CRL",
        "the old key's CRL is unusable and the new key's alone covers the certificate that the old gave the new: "
        "pkix closes the circle as PKITS 4.5 wants it; OpenSSL checks no path within a path",
        lambda labels, ours, theirs: (
            "self-issued CA" in labels and ours is None and theirs == CRL_PATH_VALIDATION_ERROR
        ),
    ),
    Class(
        "CRLs by two keys",
        "where the old and the new key of a CA both publish, OpenSSL reads one CRL, even if it is forged or lacks the "
        "certificate; here what is forged is never loaded, and what either CRL names is revoked",
        lambda labels, ours, theirs: (
            "self-issued CA" in labels
            and (
                (ours is None and theirs in LIST_UNUSABLE)
                or ("revoked" in labels and ours in {Reason.REVOKED, Reason.REVOKED_CA, Reason.ON_HOLD} and theirs == 0)
            )
        ),
    ),
    Class(
        "two entries for one certificate",
        "of two entries for one serial number OpenSSL reads the first, and takes removeFromCRL in a complete CRL for "
        "good; here the graver counts, in whatever order they come",
        lambda labels, ours, theirs: (
            "listed twice" in labels and ours in {Reason.REVOKED, Reason.REVOKED_CA, Reason.ON_HOLD} and theirs == 0
        ),
    ),
    Class(
        "a link that signs itself",
        "a self-issued certificate for the key that its issuer has already: OpenSSL stops there as at an unknown root, "
        "here the path goes round it, since it adds nothing (RFC 4158 2.4.2)",
        lambda labels, ours, theirs: "self-issued CA" in labels and ours is None and theirs == SELF_SIGNED_IN_CHAIN,
    ),
    Class(
        "a mapping beside anyPolicy",
        "a mapped policy that the certificate has through anyPolicy alone is still expected by OpenSSL; "
        "6.1.4 (b) replaces what is expected. test_policies.py holds our graph to the tree of section 6.1",
        lambda labels, ours, theirs: "mapping" in labels and ours is Reason.POLICY_REQUIRED and theirs == 0,
    ),
)

PYHANKO = (
    Class(
        "address constraints",
        "pyhanko-certvalidator 0.33 has no matching for iPAddress and raises NotImplementedError",
        lambda _labels, _ours, theirs: str(theirs).startswith("NotImplementedError"),
    ),
    Class(
        "the empty DNS subtree",
        "zero labels: every name lies in it (RFC 5280 4.2.1.10); pyhanko takes it for no name at all",
        lambda labels, ours, theirs: (
            ("any host permitted" in labels and ours is None)
            or ("any host excluded" in labels and ours is Reason.NAME_CONSTRAINT and theirs == "")
        ),
    ),
    Class(
        "purposes of CAs",
        "pyhanko reads extendedKeyUsage in the leaf only; nesting is custom, which OpenSSL and this verifier follow",
        lambda labels, ours, theirs: "CA for servers only" in labels and ours is Reason.ROLE_FORBIDDEN and theirs == "",
    ),
    Class(
        "anyExtendedKeyUsage",
        "as with OpenSSL, in the leaf",
        lambda labels, ours, theirs: (
            "leaf for any purpose" in labels and ours is None and str(theirs).startswith("InvalidCertificateError")
        ),
    ),
    Class(
        "wildcards and excluded names",
        "as with OpenSSL",
        lambda labels, ours, theirs: "wildcard host" in labels and ours is Reason.NAME_CONSTRAINT and theirs == "",
    ),
)


def explain(scenario: Scenario, ours: Reason | None, theirs: int | str, classes: tuple[Class, ...]) -> str | None:
    """The class of a disagreement, None where it has none."""
    labels = frozenset(scenario.labels)
    return next((one.name for one in classes if one.holds(labels, ours, theirs)), None)
