"""Chains of 2 to 6 certificates with random faults, the same for the same seed; judges none of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.x509 import chains
from tests.x509.chains import AT, DAY, Ext, Listed, Made, basic, crl, key, make, policies, purposes, san, usage
from vagus.x509 import der

GOLD, SILVER = "1.3.6.1.4.1.32473.1", "1.3.6.1.4.1.32473.2"
HOST = "pump.icu.h1.example"


@dataclass
class Plan:
    """A certificate to be: what its maker will write into it."""

    subject: str
    number: int  # of its key
    extensions: dict[str, Ext]
    changes: dict[str, object] = field(default_factory=dict)
    issuer_name: str | None = None
    signed_by: int | None = None  # another key than the issuer's
    twin: dict[str, object] | None = None  # a second certificate of the same name and key, with these changes
    is_sent: bool = True
    crl: dict[str, object] | None = field(default_factory=dict)  # None: no CRL of this CA
    listed: list[Listed] = field(default_factory=list)


@dataclass
class Draft:
    """A chain to be, from the root to the leaf, and what the caller asks of it."""

    rng: random.Random
    plans: list[Plan]
    with_crls: bool
    with_policies: bool
    labels: list[str] = field(default_factory=list)
    acceptable: tuple[str, ...] = ()
    explicit: bool = False

    @property
    def leaf(self) -> Plan:
        return self.plans[-1]

    def ca(self) -> Plan:
        """Some CA below the root; raises IndexError where there is none."""
        return self.rng.choice(self.plans[1:-1])

    def need_policies(self) -> None:
        if not self.with_policies:
            raise LookupError

    def any_below_root(self) -> Plan:
        return self.rng.choice(self.plans[1:])

    def issuer_of(self, plan: Plan) -> Plan:
        return self.plans[self.plans.index(plan) - 1]


@dataclass(frozen=True)
class Scenario:
    """A finished case."""

    seed: int
    labels: tuple[str, ...]
    root: Made
    target: Made
    sent: tuple[Made, ...]  # the certificates beside the target: CAs of the chain and others
    crls: tuple[bytes, ...]
    with_crls: bool
    acceptable: tuple[str, ...]
    explicit: bool


def scenario(seed: int) -> Scenario:
    """The case of this seed: none, one or two faults."""
    rng = random.Random(seed)
    draft = _draft(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        name = rng.choice(sorted(FAULTS))
        with suppress(LookupError):
            FAULTS[name](draft)
            draft.labels.append(name)
    return _build(seed, draft)


def _draft(rng: random.Random) -> Draft:
    count = rng.randint(2, 6)
    with_policies = rng.random() < 0.4
    numbers = rng.sample(range(1, 39), count)
    plans = []
    for index in range(count):
        is_leaf = index == count - 1
        extensions: dict[str, Ext] = {}
        if is_leaf:
            extensions["usage"] = usage(0)
            extensions["purposes"] = purposes(chains.CLIENT_AUTH)
            names: list[tuple[str, str | bytes]] = [("dns", HOST)]
            if rng.random() < 0.3:
                names.append(("ip", b"\x0a\x03\x07\x15"))
            if rng.random() < 0.2:
                names.append(("email", "pump@h1.example"))
            if rng.random() < 0.2:
                names.append(("uri", "https://h1.example/pump"))
            extensions["names"] = san(*names)
        else:
            spare = count - 2 - index
            extensions["basic"] = basic(True, rng.choice([None, None, spare, spare + 1]))
            extensions["usage"] = usage(5, 6)
            if index and rng.random() < 0.2:
                extensions["purposes"] = purposes(chains.CLIENT_AUTH, chains.SERVER_AUTH)
            if index and rng.random() < 0.3:
                extensions["constraints"] = chains.constraints(
                    [("dns", rng.choice(["example", "h1.example"])), ("ip", bytes([10, 0, 0, 0, 255, 0, 0, 0]))],
                    [("dns", "er.h1.example")],
                )
        if with_policies and index:
            extensions["policies"] = policies(*rng.choice([[GOLD], [GOLD, SILVER], [chains.ANY_POLICY]]))
        subject = "O=Harbour,CN=device" if is_leaf else f"O=Harbour,CN=Authority {index}"
        plans.append(Plan(subject, numbers[index], extensions))
    draft = Draft(rng, plans, with_crls=rng.random() < 0.5, with_policies=with_policies)
    if with_policies:
        draft.acceptable = rng.choice([(), (GOLD,), (GOLD, SILVER)])
        draft.explicit = rng.random() < 0.5
    return draft


# --- faults: each changes the draft, or raises LookupError where it has nothing to change --------------------------

Fault = Callable[[Draft], object]


def _change(**changes: object) -> Fault:
    return lambda draft: draft.any_below_root().changes.update(changes)


def _on_ca(edit: Callable[[Plan], object]) -> Fault:
    return lambda draft: edit(draft.ca())


def _on_leaf(edit: Callable[[Plan], object]) -> Fault:
    return lambda draft: edit(draft.leaf)


def _names(*names: tuple[str, str | bytes]) -> Fault:
    return _on_leaf(lambda plan: plan.extensions.update(names=san(*names)))


def _set(name: str, extension: Ext) -> Fault:
    return _on_ca(lambda plan: plan.extensions.update({name: extension}))


def _drop(name: str) -> Fault:
    return _on_ca(lambda plan: plan.extensions.pop(name, None))


def _unknown(draft: Draft) -> None:
    draft.any_below_root().extensions["unknown"] = Ext(chains.UNKNOWN, der.NULL_DER, critical=draft.rng.random() < 0.7)


def _list(draft: Draft, *choices: tuple[int | None, ...]) -> None:
    """Entries of one certificate in the CRL of its issuer, with the reasons of one of the choices."""
    victim = draft.any_below_root()
    serial = draft.rng.randrange(1 << 60, 1 << 61)
    victim.changes["serial"] = serial
    draft.issuer_of(victim).listed += [Listed(serial, reason) for reason in draft.rng.choice(choices)]
    draft.with_crls = True


def _revoke(draft: Draft) -> None:
    _list(draft, (None,), (1,), (6,))


def _list_twice(draft: Draft) -> None:
    """A CA that appends to its CRL: a revocation, a hold, a release for one serial number, in any order."""
    _list(draft, (1, 6), (6, 1), (1, 8), (8, 1), (6, 8), (8, 6))


def _crl(**changes: object) -> Fault:
    def act(draft: Draft) -> None:
        plan = draft.rng.choice(draft.plans[:-1])
        if plan.crl is not None:
            plan.crl.update(changes)
        draft.with_crls = True

    return act


def _no_crl(draft: Draft) -> None:
    draft.rng.choice(draft.plans[:-1]).crl = None
    draft.with_crls = True


def _twin(**changes: object) -> Fault:
    return _on_ca(lambda plan: setattr(plan, "twin", dict(changes)))


def _self_issued(draft: Draft) -> None:
    """A CA rolls its key: a certificate for the new key by the old one, under the same name."""
    old = draft.ca()
    fresh = Plan(old.subject, draft.rng.randrange(40, 60), dict(old.extensions))
    fresh.extensions.pop("constraints", None)
    draft.plans.insert(draft.plans.index(old) + 1, fresh)


def _policy_of_ca(extension: Ext, name: str) -> Fault:
    def act(draft: Draft) -> None:
        plan = draft.ca()
        draft.need_policies()
        plan.extensions[name] = extension

    return act


def _constrain(permitted: list[tuple[str, str | bytes]], excluded: list[tuple[str, str | bytes]]) -> Fault:
    return _set("constraints", chains.constraints(permitted, excluded))


def _misname(draft: Draft) -> None:
    draft.any_below_root().issuer_name = "O=Unknown,CN=Nowhere"


def _missign(draft: Draft) -> None:
    draft.any_below_root().signed_by = 39


def _repolicy(draft: Draft) -> None:
    draft.need_policies()
    draft.any_below_root().extensions["policies"] = policies("1.3.6.1.4.1.32473.9")


FAULTS: dict[str, Fault] = {
    "expired": _change(not_after=AT - DAY),
    "not yet valid": _change(not_before=AT + DAY),
    "forged signature": _change(flip=99),
    "two algorithms": _change(outer_algorithm=chains.identifier("1.2.840.10045.4.3.3")),
    "other issuer name": _misname,
    "other key": _missign,
    "unknown extension": _unknown,
    "missing CA": _on_ca(lambda plan: setattr(plan, "is_sent", False)),
    "no basicConstraints": _drop("basic"),
    "cA false": _set("basic", Ext("2.5.29.19", der.sequence(), critical=True)),
    "pathLen 0": _set("basic", basic(True, 0)),
    "no keyUsage": _drop("usage"),
    "no keyCertSign": _set("usage", usage(6)),
    "no cRLSign": _set("usage", usage(5)),
    "v1 CA": _on_ca(lambda plan: plan.changes.update(version=b"", with_key_ids=False)),
    "CA for servers only": _set("purposes", purposes(chains.SERVER_AUTH)),
    "CA for any purpose": _set("purposes", purposes(chains.ANY_PURPOSE)),
    "leaf for servers only": _on_leaf(lambda plan: plan.extensions.update(purposes=purposes(chains.SERVER_AUTH))),
    "leaf for any purpose": _on_leaf(lambda plan: plan.extensions.update(purposes=purposes(chains.ANY_PURPOSE))),
    "leaf without purpose": _on_leaf(lambda plan: plan.extensions.pop("purposes", None)),
    "leaf that cannot sign": _on_leaf(lambda plan: plan.extensions.update(usage=usage(2))),
    "foreign host": _names(("dns", "pump.icu.h2.example")),
    "excluded host": _names(("dns", "pump.er.h1.example")),
    "wildcard host": _names(("dns", "*.h1.example")),
    "upper-case host": _names(("dns", "PUMP.H1.Example")),
    "foreign address": _names(("ip", b"\x0b\x03\x07\x15")),
    "no names": _on_leaf(lambda plan: plan.extensions.pop("names", None)),
    "otherName": _names(("other", chains.hardware_module())),
    "directory constraint kept": _constrain([("directory", "O=Harbour")], []),
    "directory constraint broken": _constrain([("directory", "O=Other")], []),
    "directory excluded": _constrain([], [("directory", "O=Harbour,CN=device")]),
    "mail constraint": _constrain([("email", "h2.example")], []),
    "uri constraint kept": _constrain([("uri", ".example"), ("uri", "h1.example")], []),
    "uri constraint broken": _constrain([("uri", "h2.example")], []),
    "address constraint": _constrain([], [("ip", bytes([10, 0, 0, 0, 255, 0, 0, 0]))]),
    "any host permitted": _constrain([("dns", "")], []),
    "any host excluded": _constrain([], [("dns", "")]),
    "revoked": _revoke,
    "listed twice": _list_twice,
    "missing CRL": _no_crl,
    "stale CRL": _crl(this_update=AT - 9 * DAY, next_update=AT - DAY),
    "future CRL": _crl(this_update=AT + DAY),
    "forged CRL": _crl(flip=50),
    "CRL with unknown extension": _crl(extra=(Ext(chains.UNKNOWN, b"\x05\x00", critical=True),)),
    "CRL for users only": _crl(extra=(chains.scope(only_user=True),)),
    "CRL for CAs only": _crl(extra=(chains.scope(only_ca=True),)),
    "expired twin": _twin(not_after=AT - DAY),
    "forged twin": _twin(flip=9),
    "good twin": _twin(),
    "self-issued CA": _self_issued,
    "explicit policy": _policy_of_ca(chains.policy_constraints(require=0), "policy constraints"),
    "mapping": _policy_of_ca(chains.mappings((GOLD, SILVER)), "mappings"),
    "mapping of anyPolicy": _policy_of_ca(chains.mappings((GOLD, chains.ANY_POLICY)), "mappings"),
    "mapping inhibited": _policy_of_ca(chains.policy_constraints(inhibit=0), "policy constraints"),
    "anyPolicy inhibited": _policy_of_ca(chains.inhibit_any(0), "inhibit any"),
    "other policy": _repolicy,
    "RSA leaf": _on_leaf(lambda plan: plan.changes.update(private=key("rsa2048"))),
    "Ed25519 leaf": _on_leaf(lambda plan: plan.changes.update(private=key("ed25519"))),
}


# --- building ----------------------------------------------------------------------------------------------------


def _build(seed: int, draft: Draft) -> Scenario:
    made: list[Made] = []
    sent: list[Made] = []
    crls: list[bytes] = []
    for index, plan in enumerate(draft.plans):
        issuer = made[-1] if made else None
        one = _make(plan, issuer, plan.changes)
        if 0 < index < len(draft.plans) - 1 and plan.is_sent:
            sent.append(one)
            if plan.twin is not None:
                sent.append(_make(plan, issuer, {**plan.changes, "serial": seed + 7, **plan.twin}))
        if index < len(draft.plans) - 1 and plan.crl is not None:
            changes = dict(plan.crl)
            extra = changes.pop("extra", ())
            assert isinstance(extra, tuple)
            crls.append(crl(one, plan.listed, chains.aki(one.private), *extra, **changes))  # type: ignore[arg-type]
        made.append(one)
    draft.rng.shuffle(sent)
    return Scenario(
        seed=seed,
        labels=tuple(draft.labels),
        root=made[0],
        target=made[-1],
        sent=tuple(sent),
        crls=tuple(crls) if draft.with_crls else (),
        with_crls=draft.with_crls,
        acceptable=draft.acceptable,
        explicit=draft.explicit,
    )


def _make(plan: Plan, issuer: Made | None, changes: dict[str, object]) -> Made:
    named = {"issuer_name": chains.name(plan.issuer_name)} if plan.issuer_name is not None else {}
    if issuer is not None and plan.signed_by is not None:
        issuer = Made(der=issuer.der, subject=issuer.subject, private=key("p256", plan.signed_by))
    wanted = {"private": key("p256", plan.number), **changes, **named}
    extensions = [] if "version" in wanted else list(plan.extensions.values())
    return make(plan.subject, extensions, issuer=issuer, **wanted)  # type: ignore[arg-type]
