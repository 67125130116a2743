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
    """Your private enterprise arc. `arc.2.10` elsewhere in the pack lies below it."""
    production: bool
    """Whether the arc is your own. `true` is refused with the documentation arc (RFC 5612)."""


class ProfileTable(Document):
    """One kind of certificate. OIDs that start with "arc." lie under the private arc."""

    kind: Annotated[Kind, Field(strict=False)]
    """The shape of the certificate."""
    name_form: Annotated[NameForm, Field(strict=False)]
    """Which names stand in subjectAltName."""
    keys: Annotated[list[Annotated[KeyAlgorithm, Field(strict=False)]], Field(min_length=1)]
    """Key algorithms that are certified. `rsa2048` is for old servers and devices alone; for a device an operator must
    give the reason (`vagus device certify`). `ed25519` and `ed448` are refused."""
    key_usage: Annotated[list[Annotated[KeyUsage, Field(strict=False)]], Field(min_length=1)]
    """Key usages (RFC 5280 4.2.1.3)."""
    extended_key_usage: list[str] = Field(default_factory=list)
    """Purposes by name, OID or `arc.` and numbers (RFC 5280 4.2.1.12)."""
    default_lifetime: values.Lifetime
    """Lifetime when nothing else is asked for."""
    longest_lifetime: values.Lifetime
    """The longest lifetime that may be asked for."""
    crl_pointer: bool
    """Whether the certificate names its CRL."""
    ocsp_pointer: bool
    """Whether the certificate names the OCSP responder."""
    short_lived: bool = False
    """noRevAvail in place of both pointers (RFC 9608); 7 days at most."""
    ocsp_nocheck: bool = False
    """id-pkix-ocsp-nocheck, for responders (RFC 6960 4.2.2.2.1)."""
    path_length: Annotated[int, Field(ge=0, le=10)] | None = None
    """How many authorities may follow below; authorities only, and required there."""
    policies: list[str] = Field(default_factory=list)
    """Certificate policies as OIDs or `arc.` and numbers."""
    name_constrained: bool = False
    """Whether an authority of this profile is confined to its subtree of names."""


class PackFile(Document):
    """A whole pack."""

    format: Literal[1]
    """Version of this form."""
    base: values.Slug | None = None
    """The shipped pack whose values hold where this file says nothing, `iob-2026` or `iob-2026-pq`."""
    name: values.Slug
    """Name of the pack."""
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]+(?:\.[0-9]+){0,3}$")]
    """Version of the pack, for people."""
    oids: OidsTable
    """The private arc."""
    profiles: Annotated[dict[values.Slug, ProfileTable], Field(min_length=1, max_length=100)]
    """What each kind of certificate contains."""
    rules: Annotated[dict[values.Slug, values.Rule], Field(max_length=100)]
    """Who may have the certificates of a profile; named after the profile."""
    functions: dict[Annotated[values.Function, Field(strict=False)], values.FunctionRule]
    """How each function of a connection is held to the revocation status."""
    authorities: values.AuthorityRules
    """The kinds of authorities."""
    renewal: values.RenewalRules
    """Renewal of certificates."""
    crl: values.CrlRules
    """Times of CRLs."""
    ocsp: values.OcspRules
    """Times of OCSP responses."""
    enrolment: values.EnrolmentRules
    """Bounds of an enrolment."""
    service_keys: values.ServiceKeys = values.ServiceKeys()
    """Kinds of keys that are no authority's."""
    cryptoperiods: dict[values.Slug, values.Lifetime]
    """The longest that a kind of key may sign (SP 800-57). A statement for auditors; no code reads it."""
