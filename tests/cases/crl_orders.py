"""A leaf, its path and CRLs: the verdict is the same in each order of the CRLs, and the newest of an issuer counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, permutations
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cases.case import Case, Check, Observation
from tests.cases.certificates import Chain, make_chain, read_certificates
from tests.cases.workshop import Workshop
from tests.simulator.running import Outcome

MOST_ORDERS = 24


def read_crls(case: Case) -> list[x509.CertificateRevocationList]:
    """Every CRL that the library can read."""
    found = []
    for content in case.matching(".crl").values():
        try:
            load = x509.load_pem_x509_crl if content.lstrip().startswith(b"-----") else x509.load_der_x509_crl
            found.append(load(content))
        except ValueError:
            return []
    return found


def _recognises(case: Case) -> bool:
    leaves, authorities = read_certificates(case)
    crls = read_crls(case)
    return len(leaves) == 1 and bool(authorities) and len(crls) > len({crl.issuer for crl in crls})


def validate(workshop: Workshop, chain: Chain, *more: str) -> Outcome:
    """`vagus validate` of the chain as a client."""
    return workshop.vagus(*chain.arguments(workshop.scratch()), "--role", "client", *more)


def _observe(case: Case, workshop: Workshop) -> Iterator[Observation]:
    leaves, authorities = read_certificates(case)
    crls = read_crls(case)
    yield from _observe_orders("its CRLs", workshop, Chain(leaves[0], tuple(authorities)), crls)
    # The twins: of two CRLs that this check signs the newer one revokes, and then the older one.
    made = make_chain(workshop.clock_start)
    for what, revoked in {
        "a newer CRL that revokes": (False, True),
        "an older CRL that revokes": (True, False),
    }.items():
        twin = [made.crl(number, is_revoked=one) for number, one in enumerate(revoked, 1)]
        right = "REVOKED" if revoked[-1] else "accepted"
        yield from _observe_orders(what, workshop, made.chain, [made.root_crl(), *twin], right)


def _observe_orders(
    what: str, workshop: Workshop, chain: Chain, crls: Sequence[x509.CertificateRevocationList], right: str = ""
) -> Iterator[Observation]:
    """Each order of the CRLs gives what the newest CRL of each issuer gives alone."""
    newest = {crl.issuer: crl for crl in sorted(crls, key=lambda crl: crl.last_update_utc)}
    at = max(crl.last_update_utc for crl in crls) + timedelta(hours=1)
    alone = _verdict(workshop, chain, list(newest.values()), at)
    yield Observation(
        f"{what}, the newest alone", alone, right or "a verdict", alone == right if right else bool(alone)
    )
    for order in islice(permutations(crls), MOST_ORDERS):
        numbers = [_number(crl) for crl in order]
        seen = _verdict(workshop, chain, order, at)
        yield Observation(f"{what} in the order {numbers}", seen, alone, seen == alone)


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _verdict(workshop: Workshop, chain: Chain, crls: Sequence[x509.CertificateRevocationList], at: datetime) -> str:
    """The word accepted, or the reason of the refusal."""
    folder = workshop.scratch()
    words: list[str] = []
    for number, crl in enumerate(crls):
        path: Path = folder / f"{number}.crl"
        path.write_bytes(crl.public_bytes(Encoding.DER))
        words += ["--crl", str(path)]
    outcome = validate(workshop, chain, *words, "--at", at.astimezone(UTC).isoformat(), "--json")
    if outcome.code not in {0, 1} or not outcome.out:
        return f"exit code {outcome.code}: {outcome.err[-200:]}"
    facts = outcome.facts
    return "accepted" if outcome.code == 0 else str(facts["reason"])


CHECKS = (Check("orders of CRLs", _recognises, _observe),)
