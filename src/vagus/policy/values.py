"""A policy pack as frozen values: who may have what, for how long, under which rules; reads no file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from vagus.errors import PolicyRefusal
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vagus.x509.algorithms import KeyAlgorithm
    from vagus.x509.profiles import Profile


class Function(StrEnum):
    """What a connection is for; the fail mode hangs on it, not on the device's class."""

    TELEMETRY = "telemetry"
    ALARM = "alarm"
    IMAGING = "imaging"
    CONTROL = "control"
    PROGRAMMING = "programming"
    FIRMWARE = "firmware"


class FailMode(StrEnum):
    """What happens when status cannot be known. Therapy and local alarms never depend on a certificate at all."""

    OPERATIONAL = "operational"  # goes on within a bounded, logged grace
    SECURE = "secure"  # is refused


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

    I = "I"  # noqa: E741  Roman one
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may obtain certificates of one profile and how their bearers are treated."""

    profile: str
    categories: frozenset[str]
    exposure: Exposure
    device_class: DeviceClass | None  # the highest among its categories; None for what is no device
    is_life_sustaining: bool
    review_approvals: int
    tls_minimum: str  # "1.2" or "1.3"
    session_on_revocation: SessionOnRevocation  # for telemetry, alarms and imaging; other functions always close
    functions: frozenset[Function]  # what its bearer may connect for


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRule:
    """How connections of one function are held to the revocation status."""

    function: Function
    fail_mode: FailMode
    status_max_age: timedelta  # how old the newest status may be before the fail mode applies
    grace: timedelta  # how much longer `operational` goes on, logged; zero for `secure`
    always_closes: bool  # open sessions of a revoked bearer are closed whatever its rule says


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityRule:
    """One kind of authority."""

    profile: str
    lifetime: timedelta | None  # None: 99991231235959Z
    key_algorithm: KeyAlgorithm
    is_offline: bool
    rekey_after: timedelta | None  # None: not on a schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityRules:
    """Every kind of authority; a maker's root has rules of its own, for its certificates must not expire."""

    root: AuthorityRule
    device_ca: AuthorityRule
    issuing_ca: AuthorityRule
    sdc_ca: AuthorityRule
    infrastructure_ca: AuthorityRule
    maker_root: AuthorityRule
    line_ca: AuthorityRule

    def of_kind(self, kind: str, *, is_maker: bool = False) -> AuthorityRule:
        """The rule of a kind as the table `authorities` spells it ("device_ca"); a maker's "root" is `maker_root`.

        Raises PolicyRefusal(AUTHORITY_UNKNOWN).
        """
        name = "maker_root" if is_maker and kind == "root" else kind
        rule = getattr(self, name, None) if name in self.__slots__ else None
        if not isinstance(rule, AuthorityRule):
            msg = f"authority kind {kind!r} is not one of {', '.join(self.__slots__)}; correct it"
            raise PolicyRefusal(Reason.AUTHORITY_UNKNOWN, msg, kind=kind)
        return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRules:
    """When certificates are renewed and who is told when they are not."""

    window: timedelta  # before expiry; the window opens
    critical: timedelta
    alerts: tuple[timedelta, ...]  # before expiry, escalating, each acknowledged once
    short_share: int  # percent of a short lifetime that the window takes at most
    transfer_overlap: timedelta  # both certificates live this long when a device changes its compartment

    def window_of(self, lifetime: timedelta) -> timedelta:
        """How long before expiry the window of a certificate of this lifetime opens.

        The full window, but never more than `short_share` percent of the lifetime: an 8 h certificate has no 60 days.
        """
        return min(self.window, lifetime * self.short_share / 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlRules:
    """When revocation lists are signed and how long they hold."""

    resign_every: timedelta  # online authorities, nothing new to say
    publish_within: timedelta  # after a revocation
    next_update: timedelta  # default per issuer
    shortest_next_update: timedelta
    longest_next_update: timedelta
    shortest_interval: timedelta  # between two publications of a shard: thisUpdate counts whole seconds
    offline_next_update: timedelta  # lists signed in a ceremony
    offline_alert: timedelta  # before their expiry


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspRules:
    """How long answers hold."""

    presigned_lifetime: timedelta
    renew_after: timedelta
    http_max_age: timedelta
    replace_within: timedelta  # after a revocation
    responder_renew_before: timedelta  # a responder certificate is replaced this long before it expires


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRules:
    """Bounds around a single enrolment."""

    backdate: timedelta  # notBefore lies this far in the past, for clocks that run late
    token_lifetime: timedelta
    token_replay: timedelta  # the same token with the same key gives the same certificate this long


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPack:
    """A whole policy. `rules` are keyed by the profile that they govern."""

    name: str
    version: str
    sha256: str  # of the file's octets: what the ledger records
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
    cryptoperiods: Mapping[str, timedelta | None]  # longest signing use by kind of key; None: as long as the device

    def profile(self, name: str) -> Profile:
        """The profile of this name. Raises PolicyRefusal(POLICY_VIOLATION)."""
        found = self.profiles.get(name)
        if found is None:
            msg = f"profile {name!r} is not in policy pack {self.name}; it has {', '.join(sorted(self.profiles))}"
            raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, profile=name)
        return found

    def rule(self, profile: str) -> Rule:
        """The rule of a profile. Raises PolicyRefusal(POLICY_VIOLATION) for profiles that no bearer asks for."""
        found = self.rules.get(profile)
        if found is None:
            msg = f"profile {profile!r} has no rule in policy pack {self.name}, so nobody may have it; add a rule"
            raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, profile=profile)
        return found

    def rule_for_category(self, category: str) -> Rule:
        """The rule of a device category ("infusion-pump"). Raises PolicyRefusal(POLICY_VIOLATION)."""
        for rule in self.rules.values():
            if category in rule.categories:
                return rule
        msg = f"device category {category!r} is in no rule of policy pack {self.name}; add it to one"
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg, category=category)

    def session_on_revocation(self, profile: str, function: Function) -> SessionOnRevocation:
        """What becomes of an open session for `function` when the certificate of its bearer is revoked."""
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
