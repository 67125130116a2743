"""A policy pack as frozen values (profiles, rules, authorities, CRL and OCSP times); reads no file.

The tables of a pack file are these values themselves: pydantic checks types and spellings once, when the file is read.
`pack_checks` has the rules between two keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from vagus.errors import PolicyRefusal
from vagus.policy.documents import Document
from vagus.reasons import Reason
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.profiles import Profile

_DURATION = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d|y)\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 365 * 86400}


def read_duration(text: object) -> timedelta:
    """A duration from its text; a year counts 365 days. Raises ValueError."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.match(text) if isinstance(text, str) else None
    if match is None:
        msg = f"{text!r} is not a duration; write a number and s, m, h, d or y (365 days), as in '365d'"
        raise ValueError(msg)
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def _read_lifetime(text: object) -> timedelta | None:
    return None if text is None or text == "unlimited" else read_duration(text)


def _read_none(text: object) -> timedelta:
    return timedelta(0) if text == "none" else read_duration(text)


Duration = Annotated[timedelta, BeforeValidator(read_duration)]
Lifetime = Annotated[timedelta | None, BeforeValidator(_read_lifetime)]
Grace = Annotated[timedelta, BeforeValidator(_read_none)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
_Spelled = Field(strict=False)  # pydantic reads an enumeration from its text, and a tuple or set from a TOML list


class Function(StrEnum):
    """What a connection is for. The fail mode depends on it, not on the device's class."""

    TELEMETRY = "telemetry"
    ALARM = "alarm"
    IMAGING = "imaging"
    CONTROL = "control"
    PROGRAMMING = "programming"
    FIRMWARE = "firmware"


class FailMode(StrEnum):
    """What happens when status cannot be known. Therapy and local alarms never depend on a certificate at all."""

    OPERATIONAL = "operational"  # without status information, the function continues within a bounded, logged grace
    SECURE = "secure"  # without status information, the function is refused


class SessionOnRevocation(StrEnum):
    """What happens to an open session whose certificate is revoked."""

    CLOSE = "close"
    DEGRADE = "degrade"


class Exposure(StrEnum):
    """Where a device lives."""

    IMPLANTED = "implanted"
    WORN = "worn"
    HOME = "home"
    HOSPITAL = "hospital"


class DeviceClass(StrEnum):
    """FDA class: sets the review level and nothing else (21 CFR 860.3)."""

    I = "I"  # noqa: E741 the Roman number one is the regulation's own name
    II = "II"
    III = "III"


class KeyState(StrEnum):
    """States of a key (NIST SP 800-57 part 1 section 7)."""

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


class Rule(Document):
    """Who may obtain certificates of the profile that the rule is named after, and how their devices are treated."""

    categories: Annotated[tuple[Slug, ...], _Spelled] = ()
    """Device categories that get this profile. A category stands in one rule only."""
    exposure: Annotated[Exposure, _Spelled]
    """Where the device lives. TLS 1.2 is refused for implanted, worn and home devices."""
    device_class: Annotated[DeviceClass, _Spelled] | None = None
    """FDA class, the highest among its categories; absent for what is no device."""
    is_life_sustaining: bool = Field(alias="life_sustaining")
    """Whether a patient's life depends on it; bounds the lifetime."""
    review_approvals: Annotated[int, Field(ge=0, le=5)]
    """How many persons approve a revocation plan with such certificates; class III needs 2."""
    tls_minimum: Literal["1.2", "1.3"]
    """Oldest TLS version at our gateways."""
    session_on_revocation: Annotated[SessionOnRevocation, _Spelled]
    """For telemetry, alarms and imaging; sessions for other functions always close."""
    sdc_profile: Slug | None = None
    """What its devices show to SDC peers (IEEE 11073): the profile that EST's label `sdc` gives; absent for none."""
    functions: Annotated[frozenset[Annotated[Function, _Spelled]], _Spelled] = frozenset()
    """What its devices may connect for."""


class FunctionRule(Document):
    """How connections of one function are held to the revocation status."""

    fail_mode: Annotated[FailMode, _Spelled]
    """What happens when no status is available: go on for the grace, or refuse."""
    status_max_age: Duration
    """How old the newest status may be before the fail mode applies."""
    grace: Grace
    """How much longer `operational` goes on, logged; zero for `secure`."""
    always_closes: bool
    """Whether open sessions of a revoked device are closed whatever its rule says."""


class AuthorityRule(Document):
    """One kind of authority."""

    profile: Slug
    """The profile of its certificate."""
    lifetime: Lifetime
    """Lifetime of its certificate; unlimited: 99991231235959Z."""
    key_algorithm: Annotated[KeyAlgorithm, _Spelled] = Field(alias="key")
    """Key algorithm of a new generation."""
    is_offline: bool = Field(alias="offline")
    """Whether ceremonies alone open its key."""
    rekey_after: Duration | None = None
    """Age of the key from which `vagus doctor` asks for `ca roll`; absent: not on a schedule."""


class AuthorityRules(Document):
    """Every kind of authority. A maker's root has its own rules, because its certificates must not expire."""

    root: AuthorityRule
    """The root of a hospital group."""
    device_ca: AuthorityRule
    """The CA of a hospital above its units."""
    issuing_ca: AuthorityRule
    """The CA of a unit."""
    sdc_ca: AuthorityRule
    """The CA of SDC peers."""
    infrastructure_ca: AuthorityRule
    """The CA of listeners and servers."""
    maker_root: AuthorityRule
    """The root of a maker."""
    line_ca: AuthorityRule
    """The CA of a maker's line."""

    def of_kind(self, kind: str, *, is_maker: bool = False) -> AuthorityRule:
        """The rule of a kind as the table `authorities` spells it ("device_ca"); a maker's "root" is `maker_root`.

        Raises PolicyRefusal(AUTHORITY_UNKNOWN).
        """
        name = "maker_root" if is_maker and kind == "root" else kind
        kinds = type(self).model_fields
        if name not in kinds:
            msg = f"authority kind {kind!r} is not one of {', '.join(kinds)}; correct it"
            raise PolicyRefusal(Reason.AUTHORITY_UNKNOWN, msg, kind=kind)
        rule: AuthorityRule = getattr(self, name)
        return rule


class RenewalRules(Document):
    """When certificates are renewed, and when operators are alerted because they are not."""

    window: Duration
    """Before expiry: the window of renewal opens."""
    critical: Duration
    """Before expiry: a renewal that is still missing is critical."""
    alerts: Annotated[tuple[Duration, ...], Field(min_length=1, strict=False)]
    """Before expiry, from the longest to the shortest. No notification is sent yet."""
    short_share: Annotated[int, Field(ge=10, le=60)]
    """Percent of a short lifetime that the window takes at most."""
    transfer_overlap: Duration
    """How long both certificates are valid when a device changes its compartment."""

    def window_of(self, lifetime: timedelta) -> timedelta:
        """How long before expiry the window of a certificate of this lifetime opens.

        The full window, but never more than `short_share` percent of the lifetime: an 8 h certificate has no 60 days.
        """
        return min(self.window, lifetime * self.short_share / 100)


class CrlRules(Document):
    """When CRLs are signed and how long they are valid."""

    resign_every: Duration
    """An online authority signs a new CRL this often, also without a new revocation."""
    publish_within: Duration
    """A revocation is in a CRL this soon, or it is reported as overdue."""
    next_update: Duration
    """Validity of CRLs of online authorities."""
    shortest_next_update: Duration
    """Lower bound of `next_update`."""
    longest_next_update: Duration
    """Upper bound of `next_update`."""
    shortest_interval: Duration
    """Between two publications of one shard; thisUpdate counts whole seconds."""
    offline_next_update: Duration
    """Validity of CRLs that a ceremony signs."""
    offline_alert: Duration
    """Before such a CRL expires: a ceremony is due."""


class OcspRules(Document):
    """How long OCSP responses are valid."""

    presigned_lifetime: Duration
    """Validity of a response that was signed ahead."""
    renew_after: Duration
    """Age from which a response is signed again."""
    http_max_age: Duration
    """How long HTTP caches may keep a response."""
    replace_within: Duration
    """After a revocation, a new response is sent this soon. A statement for auditors."""
    responder_renew_before: Duration
    """A responder certificate is replaced this long before it expires."""


class EnrolmentRules(Document):
    """Bounds around one enrolment."""

    backdate: Duration
    """How far in the past notBefore lies, for clocks that run late."""
    token_lifetime: Duration
    """How long an enrolment token may be used, unless `token make --hours` says otherwise."""
    token_replay: Duration
    """How long the same token with the same key gives the same certificate."""


class ServiceKeys(Document):
    """The kinds of keys that are made here for what is no authority, and the kind that devices are asked for."""

    ocsp_responder: Annotated[KeyAlgorithm, _Spelled] = KeyAlgorithm.P256
    """A change holds from the responder's next renewal on."""
    listener: Annotated[KeyAlgorithm, _Spelled] = KeyAlgorithm.P256
    """Of our own listeners' certificates. A change holds from the next start on."""
    device: Annotated[KeyAlgorithm, _Spelled] = KeyAlgorithm.P256
    """What EST asks clients for (RFC 7030 4.5); a profile may take other kinds as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPack:
    """A whole policy. `rules` are keyed by the profile that they govern, `authorities` by the kind of authority."""

    name: str
    version: str
    sha256: str  # SHA-256, which the ledger records: of the file's bytes, or with a base of all values
    arc: str
    is_production_arc: bool
    profiles: Mapping[str, Profile]
    rules: Mapping[str, Rule]
    functions: Mapping[Function, FunctionRule]
    authorities: AuthorityRules
    renewal: RenewalRules
    crl: CrlRules
    ocsp: OcspRules
    enrolment: EnrolmentRules
    service_keys: ServiceKeys
    # longest signing use by kind of key; None: as long as the device lives
    cryptoperiods: Mapping[str, timedelta | None]

    def profile(self, name: str) -> Profile:
        """The profile of this name. Raises PolicyRefusal(POLICY_VIOLATION)."""
        found = self.profiles.get(name)
        if found is None:
            msg = f"profile {name!r} is not in policy pack {self.name}; it has {', '.join(sorted(self.profiles))}"
            raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, profile=name)
        return found

    def rule(self, profile: str) -> Rule:
        """The rule of a profile. Raises PolicyRefusal(POLICY_VIOLATION) for profiles that no device asks for."""
        found = self.rules.get(profile)
        if found is None:
            msg = f"profile {profile!r} has no rule in policy pack {self.name}, so no device may have it; add a rule"
            raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, profile=profile)
        return found

    def profile_of_category(self, category: str) -> str | None:
        """The profile of a device category ("infusion-pump"); None where no rule has it."""
        return next((profile for profile, rule in self.rules.items() if category in rule.categories), None)

    def session_on_revocation(self, profile: str, function: Function) -> SessionOnRevocation:
        """What happens to an open session for `function` when the certificate of its device is revoked."""
        if self.functions[function].always_closes:
            return SessionOnRevocation.CLOSE
        return self.rule(profile).session_on_revocation

    def check_lifetime(self, profile: Profile, asked: timedelta | None) -> timedelta | None:
        """The lifetime to give: what was asked within the profile's bound, or its default; None is no expiration.

        Raises PolicyRefusal(LIFETIME_TOO_LONG).
        """
        if asked is None:
            return profile.default_lifetime
        if profile.longest_lifetime is not None and asked > profile.longest_lifetime:
            limit, given = spell_duration(profile.longest_lifetime), spell_duration(asked)
            msg = f"lifetime {given} exceeds the {limit} that profile {profile.name} allows; ask for less"
            raise PolicyRefusal(Reason.LIFETIME_TOO_LONG, msg, profile=profile.name, asked=given, allowed=limit)
        return asked


def spell_duration(span: timedelta) -> str:
    """A duration as packs write it: "365d", "8h", "90s"."""
    seconds = int(span.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
