"""The shape of a policy pack as people write it in TOML; types and spellings only, no rule between two keys."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from vagus.policy.documents import Document
from vagus.policy.values import DeviceClass, Exposure, FailMode, Function, SessionOnRevocation
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.profiles import KeyUsage, Kind, NameForm

_DURATION = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d|y)\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 365 * 86400}


def read_duration(text: object) -> timedelta:
    """A duration from its text; a year counts 365 days."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.match(text) if isinstance(text, str) else None
    if match is None:
        msg = f'{text!r} is not a duration; write a number and s, m, h, d or y (365 days), as in "365d"'
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
Dotted = Annotated[str, StringConstraints(pattern=r"^[0-2](?:\.(?:0|[1-9][0-9]{0,9})){1,20}$", max_length=128)]


class OidsTable(Document):
    """The private arc under which the pack's own OIDs lie."""

    arc: Dotted
    production: bool


class ProfileTable(Document):
    """One kind of certificate. OIDs that start with "arc." lie under the private arc."""

    kind: Annotated[Kind, Field(strict=False)]
    name_form: Annotated[NameForm, Field(strict=False)]
    keys: Annotated[list[Annotated[KeyAlgorithm, Field(strict=False)]], Field(min_length=1)]
    key_usage: Annotated[list[Annotated[KeyUsage, Field(strict=False)]], Field(min_length=1)]
    extended_key_usage: list[str] = Field(default_factory=list)
    default_lifetime: Lifetime
    longest_lifetime: Lifetime
    crl_pointer: bool
    ocsp_pointer: bool
    short_lived: bool = False
    ocsp_nocheck: bool = False
    path_length: Annotated[int, Field(ge=0, le=10)] | None = None
    policies: list[str] = Field(default_factory=list)
    name_constrained: bool = False


class RuleTable(Document):
    """Who may have certificates of the profile that the table is named after."""

    categories: list[Slug] = Field(default_factory=list)
    exposure: Annotated[Exposure, Field(strict=False)]
    device_class: Annotated[DeviceClass, Field(strict=False)] | None = None
    life_sustaining: bool
    review_approvals: Annotated[int, Field(ge=0, le=5)]
    tls_minimum: Literal["1.2", "1.3"]
    session_on_revocation: Annotated[SessionOnRevocation, Field(strict=False)]
    functions: list[Annotated[Function, Field(strict=False)]] = Field(default_factory=list)


class FunctionTable(Document):
    """How connections of a function are held to the status."""

    fail_mode: Annotated[FailMode, Field(strict=False)]
    status_max_age: Duration
    grace: Grace
    always_closes: bool


class AuthorityTable(Document):
    """One kind of authority."""

    profile: Slug
    lifetime: Lifetime
    key: Annotated[KeyAlgorithm, Field(strict=False)]
    offline: bool
    rekey_after: Duration | None = None


class AuthoritiesTable(Document):
    """Every kind of authority."""

    root: AuthorityTable
    device_ca: AuthorityTable
    issuing_ca: AuthorityTable
    sdc_ca: AuthorityTable
    infrastructure_ca: AuthorityTable
    maker_root: AuthorityTable
    line_ca: AuthorityTable


class RenewalTable(Document):
    """When to renew and when to alert."""

    window: Duration
    critical: Duration
    alerts: Annotated[list[Duration], Field(min_length=1)]
    short_share: Annotated[int, Field(ge=10, le=60)]
    transfer_overlap: Duration


class CrlTable(Document):
    """When lists are signed."""

    resign_every: Duration
    publish_within: Duration
    next_update: Duration
    shortest_next_update: Duration
    longest_next_update: Duration
    shortest_interval: Duration
    offline_next_update: Duration
    offline_alert: Duration


class OcspTable(Document):
    """How long answers hold."""

    presigned_lifetime: Duration
    renew_after: Duration
    http_max_age: Duration
    replace_within: Duration
    responder_renew_before: Duration


class EnrolmentTable(Document):
    """Bounds around one enrolment."""

    backdate: Duration
    token_lifetime: Duration
    token_replay: Duration


class PackFile(Document):
    """A whole pack."""

    format: Literal[1]
    name: Slug
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]+(?:\.[0-9]+){0,3}$")]
    oids: OidsTable
    profiles: Annotated[dict[Slug, ProfileTable], Field(min_length=1, max_length=100)]
    rules: Annotated[dict[Slug, RuleTable], Field(max_length=100)]
    functions: dict[Annotated[Function, Field(strict=False)], FunctionTable]
    authorities: AuthoritiesTable
    renewal: RenewalTable
    crl: CrlTable
    ocsp: OcspTable
    enrolment: EnrolmentTable
    cryptoperiods: dict[Slug, Lifetime]
