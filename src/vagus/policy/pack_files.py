"""Reads a policy pack's TOML into `values`, converting OIDs and profiles; `pack_checks` has the rules between keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from vagus.policy import values
from vagus.policy.documents import Document
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.profiles import KeyUsage, Kind, NameForm

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
    default_lifetime: values.Lifetime
    longest_lifetime: values.Lifetime
    crl_pointer: bool
    ocsp_pointer: bool
    short_lived: bool = False
    ocsp_nocheck: bool = False
    path_length: Annotated[int, Field(ge=0, le=10)] | None = None
    policies: list[str] = Field(default_factory=list)
    name_constrained: bool = False


class PackFile(Document):
    """A whole pack."""

    format: Literal[1]
    name: values.Slug
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]+(?:\.[0-9]+){0,3}$")]
    oids: OidsTable
    profiles: Annotated[dict[values.Slug, ProfileTable], Field(min_length=1, max_length=100)]
    rules: Annotated[dict[values.Slug, values.Rule], Field(max_length=100)]
    functions: dict[Annotated[values.Function, Field(strict=False)], values.FunctionRule]
    authorities: values.AuthorityRules
    renewal: values.RenewalRules
    crl: values.CrlRules
    ocsp: values.OcspRules
    enrolment: values.EnrolmentRules
    cryptoperiods: dict[values.Slug, values.Lifetime]
