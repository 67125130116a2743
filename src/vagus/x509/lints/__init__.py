"""Every TBS is linted here before a key touches it, rule by rule with the document that imposes it; signs nothing."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from vagus.errors import Malformed, PolicyRefusal
from vagus.reasons import Reason
from vagus.x509.lints.ieee8021ar import IEEE8021AR
from vagus.x509.lints.keys_and_hosts import CABF, RFC8813, RFC9549, RFC9881
from vagus.x509.lints.parsed_tbs import decode_draft
from vagus.x509.lints.profile_contents import PROFILE_CONTENTS
from vagus.x509.lints.registry import Document, Finding, Lint
from vagus.x509.lints.revocation import RFC6960, RFC9608
from vagus.x509.lints.rfc5280 import RFC5280

if TYPE_CHECKING:
    from vagus.x509.profiles import Profile
    from vagus.x509.templates import IssuerFacts

DOCUMENTS: tuple[Document, ...] = (
    RFC5280,
    RFC6960,
    RFC8813,
    RFC9549,
    RFC9608,
    RFC9881,
    IEEE8021AR,
    CABF,
    PROFILE_CONTENTS,
)
LINTS: tuple[Lint, ...] = tuple(chain.from_iterable(document.lints for document in DOCUMENTS))

__all__ = ["DOCUMENTS", "LINTS", "Finding", "Lint", "check_tbs", "find_findings"]

_DER = RFC5280.lints[0]
_CHECKS = [(lint, lint.check) for lint in LINTS]


def find_findings(tbs_der: bytes, profile: Profile, issuer: IssuerFacts) -> tuple[Finding, ...]:
    """Every rule that the DER TBSCertificate breaks; empty when it may be signed."""
    try:
        draft = decode_draft(tbs_der, profile, issuer)
    except Malformed as fault:
        return (Finding(_DER, fault.message),)
    return tuple([Finding(lint, text) for lint, check in _CHECKS if (text := check(draft)) is not None])


def check_tbs(tbs_der: bytes, profile: Profile, issuer: IssuerFacts) -> None:
    """Check that this TBS breaks no rule, so that it may be signed.

    Raises PolicyRefusal(LINT) whose message lists every finding with id, document and clause.
    """
    findings = find_findings(tbs_der, profile, issuer)
    if findings:
        listed = "; ".join(map(str, findings))
        msg = f"the certificate of profile {profile.name} breaks {len(findings)} rules and is not signed: {listed}"
        raise PolicyRefusal(Reason.LINT, msg, profile=profile.name, lints=",".join(one.lint.id for one in findings))
