"""Finds the signer of a CRL: certificates of one key with a path to an anchor (RFC 5280 6.3.3); checks no status."""

from __future__ import annotations

from functools import partial

from vagus.errors import LimitExceeded, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.x509.budgets import DEFAULT_LIMITS, Budget
from vagus.x509.certificates import PathCertificate
from vagus.x509.crls.decoding import Crl, verify_crl
from vagus.x509.paths.search import Search, find_path

# How many keys of one name are tried on one CRL: each try hashes the whole CRL, up to 64 MB.
_MOST_KEYS = 16


def find_signers(crl: Crl, search: Search) -> tuple[PathCertificate, ...]:
    """The certificates of the one key that signed the CRL: anchors of `search.pool`, or CAs there that lead to one.

    An attacker may add many candidates of the same name: one budget holds for all of them and their paths. Raises
    NotTrusted(CRL_INVALID|BAD_SIGNATURE|…) if none signed it, LimitExceeded(BUDGET_EXHAUSTED) after too many tries.
    """
    anchors = [anchor.certificate for anchor in search.pool.anchors_named(crl.issuer)]
    known = search.pool.certificates_named(crl.issuer)
    refusal: VagusError = NotTrusted(
        Reason.CRL_INVALID, f"CRL {crl.label} is of an issuer that is not known here; add its CA certificate"
    )
    budget = Budget(DEFAULT_LIMITS)
    signers: list[PathCertificate] = []
    tried: set[bytes] = set()
    for candidate in sorted(filter(None, (*anchors, *known)), key=partial(_is_unlikely, crl)):
        if signers and candidate.spki_sha256 != signers[0].spki_sha256:
            continue
        tried.add(candidate.spki_sha256)
        try:
            if len(tried) > _MOST_KEYS:
                raise _too_many_keys(crl)
            budget.spend_signature()
            verify_crl(crl, candidate, search.verdicts, unsafe_legacy=search.rules.unsafe_legacy)
            if candidate not in anchors:
                find_path(candidate, search, budget)
        except LimitExceeded:
            if signers:
                break
            raise
        except VagusError as fault:
            refusal = fault
        else:
            signers.append(candidate)
    if not signers:
        raise refusal
    return tuple(signers)


def _is_unlikely(crl: Crl, candidate: PathCertificate) -> bool:
    """Whether the CRL's authority key identifier differs from the candidate's (RFC 5280 5.2.1): it is tried last."""
    wanted = None if crl.authority_key_id is None else crl.authority_key_id.key_id
    return wanted is not None and candidate.subject_key_id != wanted


def _too_many_keys(crl: Crl) -> LimitExceeded:
    msg = f"more than {_MOST_KEYS} keys have the issuer's name of CRL {crl.label}, and none of those tried signed it"
    msg = f"{msg}; load the CA certificate that signed the CRL, and no others of its name"
    return LimitExceeded(Reason.BUDGET_EXHAUSTED, msg, limit=_MOST_KEYS, crl=crl.label)
