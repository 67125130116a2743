"""The tables and keys of a plan file as pydantic models; `plans` checks how the tables fit together.

The tables are frozen values. Those named `Planned...` are parts of the finished plan as they are.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vagus.errors import Malformed
from vagus.identifiers import check_label
from vagus.policy.documents import Document

_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_TITLE = re.compile(r"[^\x00-\x1f\x7f]{1,64}\Z")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+-]{0,78}[A-Za-z0-9+])?\Z")
_PREFIX = re.compile(r"[A-Z0-9](?:[A-Z0-9-]{0,30}[A-Z0-9])?\Z")
_CATEGORY = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")
_DEVICE = re.compile(r"[^:\x00-\x1f]{1,80}:[^:\x00-\x1f]{1,80}\Z")
_COUNTRY = re.compile(r"[A-Z]{2}\Z")
_URL = re.compile(r"http://(?P<host>[^/:?#@\s]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>(?:/[A-Za-z0-9._~-]+)*)\Z")
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})\Z")


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
    if found is None or int(found["port"] or 80) not in range(1, 65536):
        raise ValueError(f"{text[:80]!r} is not http://host[:port][/path] without a slash at its end; correct it")
    return text


def check_address(text: str) -> str:
    """`text` if it is host:port with a port of 0-65535 (0: whatever is free). Raises ValueError."""
    found = _ADDRESS.match(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"{text[:80]!r} is not host:port, as in 127.0.0.1:8443; correct it")
    return text


def split_address(text: str) -> tuple[str, int]:
    """The host and port of a checked `host:port`; brackets of IPv6 are taken off."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _split_address(text: object) -> object:
    return split_address(check_address(text)) if isinstance(text, str) else text


def _split_reference(text: object) -> object:
    if not isinstance(text, str):
        return text
    if not _DEVICE.match(text):
        raise ValueError(f"{text[:80]!r} is not MODEL:SERIAL, as in Keystone Gateway:KGW-000001; correct it")
    model, _, serial = text.partition(":")
    return model, serial


Label = Annotated[str, AfterValidator(_label)]
Title = Annotated[str, _matches(_TITLE, "1-64 printable characters")]
Name = Annotated[str, _matches(_NAME, "1-80 letters, digits, spaces and . _ + -")]
Prefix = Annotated[str, _matches(_PREFIX, "1-32 of A-Z, 0-9 and inner hyphens")]
Category = Annotated[str, _matches(_CATEGORY, "1-40 of a-z, 0-9 and hyphens, as the policy pack spells it")]
Country = Annotated[str, _matches(_COUNTRY, "two capital letters (ISO 3166)")]
HostName = Annotated[str, AfterValidator(_host_name)]
HostNames = Annotated[tuple[HostName, ...], Field(strict=False)]
StatusUrl = Annotated[str, AfterValidator(_url)]
Address = Annotated[str, AfterValidator(check_address)]
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
    domain: HostName
    status_url: StatusUrl
    country: Country | None = None
    constrain_dn: bool = False
    # elsewhere: a foreign CA signs the requests of our authorities, and its certificates are imported
    root: Literal["here", "elsewhere"] = "here"


class UnitTable(Document):
    """An issuing compartment."""

    label: Label
    title: Title


class PlannedDevices(Document):
    """So many devices of one model in one unit, by the maker's counter: first, first + 1 ..."""

    unit: Label
    """In the file: the label of a unit of the hospital. In a plan: the whole name ("h1/icu")."""
    model: Name
    first: Count
    count: Count = 1
    place: Title | None = None
    host_names: HostNames = ()


class PlannedHospital(Document):
    """A hospital: its compartments and their devices."""

    label: Label
    title: Title
    units: Annotated[list[UnitTable], Field(min_length=1, max_length=500)]
    devices: list[PlannedDevices] = Field(default_factory=list)


class PlannedModel(Document):
    """A product of a maker. The category chooses the profile through the policy pack."""

    name: Name
    maker: Title
    category: Category
    serial_prefix: Prefix
    anchor: str | None = None  # path of the maker's root certificate (PEM or DER), relative to the plan file


class PlannedListener(Document):
    """A listener of the serving process: its protocol, its address, and which compartments it accepts."""

    name: Label
    kind: Annotated[ListenerKind, Field(strict=False)]
    address: HostAndPort
    hospital: Label | None = None
    host_names: HostNames = ()
    units: Annotated[frozenset[Label], Field(strict=False)] = frozenset()
    """In the file: labels of its units, none for all. In a plan: the whole names ("h1/icu") of all that it accepts."""
    function: Literal["telemetry", "alarm", "control", "programming", "firmware", "imaging"] = "telemetry"
    upstream: HostAndPort | None = None
    tls_minimum: Literal["1.2", "1.3"] = "1.3"
    registration_authorities: Annotated[tuple[DeviceReference, ...], Field(strict=False)] = ()
    """Devices whose connections may carry requests of others; enrolment alone."""


class HospitalFile(Document):
    """A hospital group's plan."""

    kind: Literal["hospital"]
    format: Literal[1]
    group: GroupTable
    hospitals: Annotated[list[PlannedHospital], Field(min_length=1, max_length=500)]
    models: list[PlannedModel] = Field(default_factory=list)
    listeners: Annotated[list[PlannedListener], Field(max_length=100, default_factory=list)]


class MakerTable(Document):
    """A maker of devices."""

    title: Title
    status_url: StatusUrl
    country: Country | None = None


class MakerModel(Document):
    """A product as its maker plans it."""

    name: Name
    category: Category
    serial_prefix: Prefix


class PlannedBatch(Document):
    """Devices that leave the line together."""

    name: Label
    model: Name
    first: Count
    count: Count


class MakerFile(Document):
    """A maker's plan."""

    kind: Literal["maker"]
    format: Literal[1]
    maker: MakerTable
    models: Annotated[list[MakerModel], Field(min_length=1, max_length=1000)]
    batches: list[PlannedBatch] = Field(default_factory=list)
    listeners: Annotated[list[PlannedListener], Field(max_length=100, default_factory=list)]
