"""The tables and keys of a plan file as pydantic models; `plans` checks how the tables fit together.

The tables are frozen values. Those named `Planned...` are parts of the finished plan as they are.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from vagus.addresses import split_address
from vagus.errors import Malformed
from vagus.identifiers import check_label
from vagus.policy.documents import Document
from vagus.texts import find_unseen

_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_LONGEST_TITLE = 64  # RFC 5280 appendix A: ub-organization-name
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+-]{0,78}[A-Za-z0-9+])?\Z")
_PREFIX = re.compile(r"[A-Z0-9](?:[A-Z0-9-]{0,30}[A-Z0-9])?\Z")
_CATEGORY = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")
_DEVICE = re.compile(r"[^:\x00-\x1f]{1,80}:[^:\x00-\x1f]{1,80}\Z")
_COUNTRY = re.compile(r"[A-Z]{2}\Z")
_URL = re.compile(
    r"http://(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<host>[^/:?#@\[\]\s]+))(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~-]+)*)\Z"
)


def _label(text: str) -> str:
    try:
        return check_label(text)
    except Malformed as fault:
        raise ValueError(fault.message) from fault


def _matches(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.match(text):
            raise ValueError(f"{text[:80]!r} is not {what}; correct it")
        return text

    return AfterValidator(check)


def _host_name(text: str) -> str:
    labels = text.split(".")
    if len(text) > 200 or len(labels) < 2 or not all(_HOST_LABEL.match(label) for label in labels):
        raise ValueError(f"{text[:80]!r} is not a lower-case host name of at least two labels; correct it")
    return text


def _url(text: str) -> str:
    found = _URL.match(text)
    is_spelled = found is not None and (found["literal"] is None or _is_ipv6(found["literal"]))
    if found is None or int(found["port"] or 80) not in range(1, 65536) or not is_spelled:
        raise ValueError(f"{text[:80]!r} is not http://host[:port][/path] without a slash at its end; correct it")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _address(text: str) -> str:
    split_address(text)
    return text


def _split_address(text: object) -> object:
    return split_address(text) if isinstance(text, str) else text


def _split_reference(text: object) -> object:
    if not isinstance(text, str):
        return text
    if not _DEVICE.match(text):
        raise ValueError(f"{text[:80]!r} is not MODEL:SERIAL, as in Keystone Gateway:KGW-000001; correct it")
    model, _, serial = text.partition(":")
    return model, serial


def _title(text: str, info: ValidationInfo) -> str:
    """A name for people, which also stands in subjects; what a subject cannot have is refused here already."""
    is_judged = info.context is True  # the plan in force may be of an earlier release
    unseen = find_unseen(text) if is_judged else None
    if unseen is not None:
        raise ValueError(f"{text[:80]!r} has {unseen}, which is not visible; delete it, or write a plain space")
    if not 0 < len(text) <= _LONGEST_TITLE or (is_judged and text != text.strip()):
        raise ValueError(f"{text[:80]!r} is not 1-{_LONGEST_TITLE} characters without space at its ends; correct it")
    return text


Label = Annotated[str, AfterValidator(_label)]
Title = Annotated[str, AfterValidator(_title)]
Name = Annotated[str, _matches(_NAME, "1-80 letters, digits, spaces and . _ + -")]
Prefix = Annotated[str, _matches(_PREFIX, "1-32 of A-Z, 0-9 and inner hyphens")]
Category = Annotated[str, _matches(_CATEGORY, "1-40 of a-z, 0-9 and hyphens, as the policy pack spells it")]
Country = Annotated[str, _matches(_COUNTRY, "two capital letters (ISO 3166)")]
HostName = Annotated[str, AfterValidator(_host_name)]
HostNames = Annotated[tuple[HostName, ...], Field(strict=False)]
StatusUrl = Annotated[str, AfterValidator(_url)]
Address = Annotated[str, AfterValidator(_address)]
HostAndPort = Annotated[tuple[str, int], BeforeValidator(_split_address)]
"""Written `host:port` in the file."""
DeviceReference = Annotated[tuple[str, str], BeforeValidator(_split_reference)]
"""Model and maker's serial number; written `MODEL:SERIAL` in the file."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class ListenerKind(StrEnum):
    """The protocol of a listener."""

    ENROLMENT = "enrolment"
    STATUS = "status"
    RELAY_HTTP = "relay-http"
    RELAY_TCP = "relay-tcp"


class GroupTable(Document):
    """The group of hospitals that shares a root."""

    title: Title
    """Organisation name (O) of the root's subject."""
    domain: HostName
    """Ends the host name of every device: `<device id>.<unit>.<hospital>.<domain>`. Chosen once."""
    status_url: StatusUrl
    """Where CRLs, OCSP responses and CA certificates are fetched from. It stands in every certificate: chosen once."""
    country: Country | None = None
    """Country (C) of the subjects of authorities."""
    constrain_dn: bool = False
    """Whether device and unit CAs are also constrained to the directory name of their hospital or unit."""
    root: Literal["here", "elsewhere"] = "here"
    """`here`: the installation makes its own root. `elsewhere`: a foreign CA signs the requests of our authorities."""


class UnitTable(Document):
    """An issuing compartment."""

    label: Label
    """Name of the unit within its hospital; part of host names. Chosen once. Not `sdc` or `infra`."""
    title: Title
    """Organisational unit (OU) in the subjects of its CA and devices."""


class PlannedDevices(Document):
    """So many devices of one model in one unit, by the maker's counter: first, first + 1 ..."""

    unit: Label
    """The label of a unit of the hospital. A checked plan has the whole name (`h1/icu`)."""
    model: Name
    """A model of this plan."""
    first: Count
    """The first number of the maker's counter: `AIP3` and 1 give the serial AIP3-000001."""
    count: Count = 1
    """How many devices, counted on from `first`."""
    place: Title | None = None
    """Where they are, for people."""
    host_names: HostNames = ()
    """Names that the server certificates of the device carry; with `count = 1` only."""


class PlannedHospital(Document):
    """A hospital: its compartments and their devices."""

    label: Label
    """Name of the hospital; part of host names and authority names. Chosen once."""
    title: Title
    """Organisation (O) in the subjects of its authorities and devices."""
    units: Annotated[list[UnitTable], Field(min_length=1, max_length=500)]
    """Its issuing compartments, one online CA each."""
    devices: list[PlannedDevices] = Field(default_factory=list)
    """Its devices, in groups of one model and unit."""


class PlannedModel(Document):
    """A product of a maker. The category chooses the profile through the policy pack."""

    name: Name
    """Name of the product, as in the maker's manifest."""
    maker: Title
    """Name of the maker."""
    category: Category
    """Device category; the policy pack finds the certificate profile by it."""
    serial_prefix: Prefix
    """What the maker's serial numbers begin with. No two models share it."""
    anchor: str | None = None
    """The maker's root certificate (PEM or DER), a path relative to the plan file. With it, IDevIDs enrol."""


class PlannedListener(Document):
    """A listener of the serving process: its protocol, its address, and which compartments it accepts."""

    name: Label
    """Name of the listener, for logs and for `serve.addresses`."""
    kind: Annotated[ListenerKind, Field(strict=False)]
    """`enrolment`: EST. `status`: CRLs, OCSP and the ledger. `relay-http`, `relay-tcp`: the gateway."""
    address: HostAndPort
    """Where it listens. Port 0: a free one."""
    hospital: Label | None = None
    """The hospital that it serves; needed by all kinds but `status`."""
    host_names: HostNames = ()
    """Names in its certificate; at least one, but not for `status`."""
    units: Annotated[frozenset[Label], Field(strict=False)] = frozenset()
    """Labels of the units that it accepts; none: all. A checked plan has their whole names (`h1/icu`)."""
    function: Literal["telemetry", "alarm", "control", "programming", "firmware", "imaging"] = "telemetry"
    """What connections through this gateway are for; the fail mode depends on it."""
    upstream: HostAndPort | None = None
    """The server behind the gateway; for relays only."""
    proxy_protocol: Literal["off", "v2"] = "off"
    """`v2`: each connection to the upstream begins with a PROXY header that names the device; `relay-tcp` alone."""
    tls_minimum: Literal["1.2", "1.3"] = "1.3"
    """Oldest TLS version. 1.2 is refused while a unit has devices whose rule asks for 1.3."""
    base64: Literal["line", "wrapped"] = "line"
    """EST responses on one line (RFC 8951), or wrapped into lines of 64 characters for libest; enrolment alone."""
    registration_authorities: Annotated[tuple[DeviceReference, ...], Field(strict=False)] = ()
    """Devices whose connections may carry requests of others; enrolment alone."""

    def is_wider_than(self, other: PlannedListener) -> bool:
        """Whether it takes more units than the same listener of another plan, and differs in nothing else."""
        return self.units > other.units and self == other.model_copy(update={"units": self.units})


class HospitalFile(Document):
    """A hospital group's plan."""

    kind: Literal["hospital"]
    """The kind of plan."""
    format: Literal[1]
    """Version of this form."""
    group: GroupTable
    """The group."""
    hospitals: Annotated[list[PlannedHospital], Field(min_length=1, max_length=500)]
    """Its hospitals."""
    models: list[PlannedModel] = Field(default_factory=list)
    """Products that the plan counts."""
    listeners: Annotated[list[PlannedListener], Field(max_length=100, default_factory=list)]
    """Listeners of `vagus serve`."""


class MakerTable(Document):
    """A maker of devices."""

    title: Title
    """Organisation name (O) of root and line CA."""
    status_url: StatusUrl
    """Where the line's CRLs and OCSP responses are fetched from. Chosen once."""
    country: Country | None = None
    """Country (C) of the subjects."""


class MakerModel(Document):
    """A product as its maker plans it."""

    name: Name
    """Name of the product."""
    category: Category
    """Device category, as in the policy packs of hospitals."""
    serial_prefix: Prefix
    """What its serial numbers begin with. No two models share it."""


class PlannedBatch(Document):
    """Devices that leave the line together."""

    name: Label
    """Name of the lot."""
    model: Name
    """A model of this plan."""
    first: Count
    """The first number of the counter."""
    count: Count
    """How many devices."""


class MakerFile(Document):
    """A maker's plan."""

    kind: Literal["maker"]
    """The kind of plan."""
    format: Literal[1]
    """Version of this form."""
    maker: MakerTable
    """The maker."""
    models: Annotated[list[MakerModel], Field(min_length=1, max_length=1000)]
    """Its products."""
    batches: list[PlannedBatch] = Field(default_factory=list)
    """Lots that leave the line."""
    listeners: Annotated[list[PlannedListener], Field(max_length=100, default_factory=list)]
    """Listeners of `vagus serve`; of kind `status` only."""
