"""Name constraints (RFC 5280 4.2.1.10): whether a certificate's names lie in its issuers' subtrees; reads no identity.

A name that cannot be parsed is never within a permitted subtree and always within an excluded one, so that doubt always
refuses. The constraints of several CAs are not merged: a name must pass each CA by itself. That is the intersection of
permitted and the union of excluded subtrees which 6.1.4 (g) asks for, without computing either.

The naive cost is names times subtrees, and an attacker can send 10,000 of each. `check_names` charges exactly that
product to the budget before it compares, whatever the comparison really costs. A dNSName needs at most one set look-up
a label; the other forms compare with each subtree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn
from urllib.parse import urlsplit

from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509.budgets import Budget
from vagus.x509.certificates import PathCertificate
from vagus.x509.extensions import NameConstraints
from vagus.x509.names.distinguished import DistinguishedName
from vagus.x509.names.general import Form, GeneralName, NameValue

_FORMS = (Form.DIRECTORY, Form.DNS, Form.IP, Form.EMAIL, Form.URI)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")


def is_host_name(text: str) -> bool:
    """Whether lower-case `text` is a DNS name of 1-253 characters in LDH labels (underscores are in use)."""
    return len(text) <= 253 and _HOST.match(text) is not None


def is_mailbox(text: str) -> bool:
    """Whether `text` is a Mailbox of RFC 5321 with an unquoted local part and a host name."""
    local, at, host = text.rpartition("@")
    return bool(at) and _LOCAL_PART.match(local) is not None and is_host_name(host.lower())


@dataclass(frozen=True, slots=True)
class _Subtrees:
    """The permitted or the excluded subtrees, by form and in the shape that makes matching cheap."""

    count: dict[Form, int]
    dns: frozenset[str]  # host names of the subtrees, in lower case; "" means every name
    dns_below: frozenset[str]  # from ".example.com": names with at least one label more
    emails: tuple[str, ...]
    uris: tuple[str, ...]
    addresses: tuple[tuple[int, int, int], ...]  # length of an address in bytes, network, mask
    directories: tuple[DistinguishedName, ...]


@dataclass(frozen=True, slots=True)
class CompiledConstraints:
    """One nameConstraints extension, ready to match."""

    permitted: _Subtrees
    excluded: _Subtrees


def compile_constraints(constraints: NameConstraints, *, allows_leading_dot: bool) -> CompiledConstraints:
    """Check the subtrees' own syntax and sort them.

    `allows_leading_dot`: 4.2.1.10 gives a dNSName subtree no leading period; users of OpenSSL write one to mean
    "at least one label more". Raises Malformed(BAD_EXTENSION).
    """
    return CompiledConstraints(
        _compile(constraints.permitted, allows_leading_dot=allows_leading_dot),
        _compile(constraints.excluded, allows_leading_dot=allows_leading_dot),
    )


def _compile(subtrees: Sequence[GeneralName], *, allows_leading_dot: bool) -> _Subtrees:
    count: dict[Form, int] = {}
    dns: set[str] = set()
    below: set[str] = set()
    emails: list[str] = []
    uris: list[str] = []
    addresses: list[tuple[int, int, int]] = []
    directories: list[DistinguishedName] = []
    for subtree in subtrees:
        form, value = subtree.form, subtree.value
        count[form] = count.get(form, 0) + 1
        if isinstance(value, DistinguishedName):
            directories.append(value)
        elif isinstance(value, bytes):
            if form is Form.IP:
                addresses.append(_network(value))
        elif form is Form.DNS:
            base = value.lower()
            if base.startswith(".") and allows_leading_dot:
                below.add(_checked_host(base[1:], value))
            else:
                dns.add(base and _checked_host(base, value))
        elif form is Form.URI:
            uris.append(_checked_host(value.lower().removeprefix("."), value) and value.lower())
        else:
            emails.append(_mail_subtree(value))

    return _Subtrees(
        count=count,
        dns=frozenset(dns),
        dns_below=frozenset(below),
        emails=tuple(emails),
        uris=tuple(uris),
        addresses=tuple(addresses),
        directories=tuple(directories),
    )


def _bad_subtree(what: str) -> Malformed:
    return Malformed(Reason.BAD_EXTENSION, f"nameConstraints: {what} (RFC 5280 4.2.1.10); have the CA re-issued")


def _checked_host(host: str, shown: str) -> str:
    if not is_host_name(host):
        raise _bad_subtree(f"{shown[:80]!r} in a subtree is not the name of a host or domain")
    return host


def _mail_subtree(value: str) -> str:
    local, at, host = value.rpartition("@")
    _checked_host((host if at else value.removeprefix(".")).lower(), value)
    if at and not _LOCAL_PART.match(local):
        raise _bad_subtree(f"{value[:80]!r} in a subtree is not a mailbox")
    return f"{local}@{host.lower()}" if at else value.lower()


def _network(value: bytes) -> tuple[int, int, int]:
    size = len(value) // 2
    if len(value) not in {8, 32}:
        raise _bad_subtree(f"an address range of a subtree has {len(value)} bytes, neither 8 nor 32")
    address, mask = int.from_bytes(value[:size], "big"), int.from_bytes(value[size:], "big")
    wild = mask ^ ((1 << 8 * size) - 1)
    if wild & (wild + 1):
        raise _bad_subtree("an address mask of a subtree has a gap (RFC 4632 writes prefixes)")
    return size, address & mask, mask


def check_names(certificate: PathCertificate, above: Sequence[CompiledConstraints], budget: Budget) -> None:
    """Steps 6.1.3 (b) and (c) for one certificate under the constraints of all CAs above it.

    The caller leaves out self-issued certificates that are not the last. Permitted subtrees of several CAs intersect
    (6.1.4 (g)), which holds exactly if each name passes each of them.
    Raises NotTrusted(NAME_CONSTRAINT), LimitExceeded(BUDGET_EXHAUSTED).
    """
    if not above:
        return
    names = certificate.names
    subject = certificate.subject
    # RFC 5280 4.2.1.10: a subject that is not empty counts as a directoryName, and its emailAddress attributes as mail
    # addresses. The latter count beside a subjectAltName too, since relying parties read them there.
    directories = names.directories if subject.is_empty else (subject, *names.directories)
    emails = (*names.emails, *subject.emails)
    values: dict[Form, Sequence[NameValue]] = dict(
        zip(_FORMS, (directories, names.dns, names.addresses, emails, names.uris), strict=True)
    )
    for constraints in above:
        for subtrees, is_permitted in ((constraints.permitted, True), (constraints.excluded, False)):
            for form, count in subtrees.count.items():
                matcher = _MATCHERS.get(form)
                if matcher is None:
                    _check_absent(certificate, form)
                    continue
                budget.spend_comparisons(len(values[form]) * count)
                for value in values[form]:
                    if matcher(value, subtrees, is_permitted) is not is_permitted:
                        _refuse(certificate, form, is_permitted=is_permitted)


def _refuse(certificate: PathCertificate, form: Form, *, is_permitted: bool) -> NoReturn:
    where = "outside the permitted" if is_permitted else "inside the excluded"
    msg = f"a {form.name} name of certificate {certificate.label} lies {where} subtrees of a CA above it"
    raise NotTrusted(
        Reason.NAME_CONSTRAINT, f"{msg}; let the CA of its own domain issue it", certificate=certificate.label
    )


def _check_absent(certificate: PathCertificate, constrained: Form) -> None:
    """4.2.1.10: a form that is constrained and that we cannot process must not appear, critical or not."""
    if any(form is constrained for form, _ in certificate.names.others):
        msg = f"certificate {certificate.label} holds a {constrained.name}, a form that a CA above it constrains"
        msg = f"{msg} and for which no matching is defined; issue the certificate without that name"
        raise NotTrusted(Reason.NAME_CONSTRAINT, msg, certificate=certificate.label)


def _directory_hit(name: NameValue, subtrees: _Subtrees, _: bool) -> bool:
    return isinstance(name, DistinguishedName) and any(name.is_within(base) for base in subtrees.directories)


def _dns_hit(name: NameValue, subtrees: _Subtrees, is_permitted: bool) -> bool:
    lowered = str(name).lower()
    is_wildcard = lowered.startswith("*.")
    host = lowered[2:] if is_wildcard else lowered
    if not is_host_name(host):
        return not is_permitted
    if "" in subtrees.dns:
        return True
    rest = host
    while rest:
        if rest in subtrees.dns or (rest in subtrees.dns_below and (rest != host or is_wildcard)):
            return True
        rest = rest.partition(".")[2]
    if is_wildcard and not is_permitted:
        # A wildcard name also covers excluded hosts one label below it (CVE-2025-61727).
        return any(base.partition(".")[2] == host for base in subtrees.dns)
    return False


def _address_hit(name: NameValue, subtrees: _Subtrees, is_permitted: bool) -> bool:
    if not isinstance(name, bytes) or len(name) not in {4, 16}:
        return not is_permitted
    value = int.from_bytes(name, "big")
    return any(size == len(name) and value & mask == network for size, network, mask in subtrees.addresses)


def _email_hit(name: NameValue, subtrees: _Subtrees, is_permitted: bool) -> bool:
    email = str(name)
    local, _, host = email.rpartition("@")
    host = host.lower()
    if not is_mailbox(email):
        return not is_permitted
    # RFC 5321 2.4: the local part of a mailbox keeps its case. RFC 5280 4.2.1.10: a subtree is a mailbox, a host, or
    # .domain for any host inside it.
    return any(
        base == f"{local}@{host}" if "@" in base else (host.endswith(base) if base[0] == "." else host == base)
        for base in subtrees.emails
    )


def _uri_hit(name: NameValue, subtrees: _Subtrees, is_permitted: bool) -> bool:
    try:
        host = (urlsplit(str(name)).hostname or "").lower()
    except ValueError:
        host = ""
    # RFC 5280 4.2.1.10: a URI without an authority whose host is a fully qualified domain name must be refused.
    if not is_host_name(host) or host.rpartition(".")[2].isdigit():
        return not is_permitted
    return any(host.endswith(base) if base[0] == "." else host == base for base in subtrees.uris)


_MATCHERS: Mapping[Form, Callable[[NameValue, _Subtrees, bool], bool]] = MappingProxyType(
    {
        Form.DIRECTORY: _directory_hit,
        Form.DNS: _dns_hit,
        Form.IP: _address_hit,
        Form.EMAIL: _email_hit,
        Form.URI: _uri_hit,
    }
)
