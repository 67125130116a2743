"""Server certificates: every spelling of a name or address that a certificate has is that name, and no other is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509

from tests.cases.case import Case, Check, Observation
from tests.cases.certificates import Chain, make_chain, read_certificates
from tests.cases.workshop import Workshop
from tests.simulator.running import Outcome


def _names(certificate: x509.Certificate) -> tuple[list[str], list[IPv4Address | IPv6Address]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    addresses = [one for one in names.get_values_for_type(x509.IPAddress) if isinstance(one, IPv4Address | IPv6Address)]
    return names.get_values_for_type(x509.DNSName), addresses


def _servers(case: Case) -> list[x509.Certificate]:
    leaves, authorities = read_certificates(case)
    is_alone = authorities and not case.matching(".crl", ".b64", ".bin")
    return [leaf for leaf in leaves if any(_names(leaf))] if is_alone else []


def _observe(case: Case, workshop: Workshop) -> Iterator[Observation]:
    _, authorities = read_certificates(case)
    for leaf in _servers(case):
        yield from _observe_names(workshop, Chain(leaf, tuple(authorities)))
    names = x509.DNSName("xn--bcher-kva.twin.example"), x509.IPAddress(ip_address("2001:db8::1"))
    yield from _observe_names(workshop, make_chain(workshop.clock_start, *names, is_server=True).chain)


def _observe_names(workshop: Workshop, chain: Chain) -> Iterator[Observation]:
    domains, addresses = _names(chain.leaf)
    for name in domains:
        yield _same(workshop, chain, name)
        yield _same(workshop, chain, name.upper())
        yield _same(workshop, chain, f"{name}.", may_be_wrong_use=True)
        shown = ".".join(_u_label(label) for label in name.split("."))
        if shown != name:
            yield _same(workshop, chain, shown)
        yield _other(workshop, chain, f"x{name}")
        yield _other(workshop, chain, f"x.{name}.")
    for address in addresses:
        yield _same(workshop, chain, str(address))
        yield _same(workshop, chain, f"[{address}]", may_be_wrong_use=True)
        yield _other(workshop, chain, f"[{type(address)(int(address) ^ 2)}]")


def _u_label(label: str) -> str:
    return label[4:].encode().decode("punycode") if label.startswith("xn--") else label


def _same(workshop: Workshop, chain: Chain, name: str, *, may_be_wrong_use: bool = False) -> Observation:
    outcome = _validate(workshop, chain, name)
    is_explained = may_be_wrong_use and outcome.code == 2 and name.strip("[].") in outcome.err
    right = "accepted" + (", or wrong use that says what to write" if may_be_wrong_use else "")
    return Observation(f"--host-name {name}", _describe(outcome), right, outcome.code == 0 or is_explained)


def _other(workshop: Workshop, chain: Chain, name: str) -> Observation:
    outcome = _validate(workshop, chain, name)
    is_right = outcome.code == 2 or (outcome.code == 1 and outcome.facts["reason"] == "NAME_MISMATCH")
    return Observation(f"--host-name {name}", _describe(outcome), "refused", is_right)


def _validate(workshop: Workshop, chain: Chain, name: str) -> Outcome:
    at = max(each.not_valid_before_utc for each in (chain.leaf, *chain.authorities)) + timedelta(days=1)
    words = ("--role", "server", "--unsafe-no-status", "--host-name", name, "--at", at.isoformat(), "--json")
    return workshop.vagus(*chain.arguments(workshop.scratch()), *words)


def _describe(outcome: Outcome) -> str:
    return "accepted" if outcome.code == 0 else f"exit code {outcome.code} {(outcome.out or outcome.err)[:120]}"


CHECKS = (Check("host names", lambda case: bool(_servers(case)), _observe),)
