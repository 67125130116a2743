"""What a plan file may say, table by table, as people write it; how its tables belong together is judged in `plans`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

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


Label = Annotated[str, AfterValidator(_label)]
Title = Annotated[str, _matches(_TITLE, "1-64 printable characters")]
Name = Annotated[str, _matches(_NAME, "1-80 letters, digits, spaces and . _ + -")]
Prefix = Annotated[str, _matches(_PREFIX, "1-32 of A-Z, 0-9 and inner hyphens")]
Category = Annotated[str, _matches(_CATEGORY, "1-40 of a-z, 0-9 and hyphens, as the policy pack spells it")]
Country = Annotated[str, _matches(_COUNTRY, "two capital letters (ISO 3166)")]
HostName = Annotated[str, AfterValidator(_host_name)]
StatusUrl = Annotated[str, AfterValidator(_url)]
Address = Annotated[str, AfterValidator(check_address)]
DeviceReference = Annotated[str, _matches(_DEVICE, "MODEL:SERIAL, as in Keystone ListenerState:KGW-000001")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class GroupTable(Document):
    """The group of hospitals that shares a root."""

    title: Title
    domain: HostName
    status_url: StatusUrl
    country: Country | None = None
    constrain_dn: bool = False
    root: Literal["here", "elsewhere"] = "here"  # elsewhere: our requests go out, its certificates come in


class UnitTable(Document):
    """An issuing compartment."""

    label: Label
    title: Title


class DevicesTable(Document):
    """So many devices of one model in one unit; the maker's counter of the first of them."""

    unit: Label
    model: Name
    first: Count
    count: Count = 1
    place: Title | None = None
    host_names: list[HostName] = Field(default_factory=list)


class HospitalTable(Document):
    """A hospital: its compartments and what stands in them."""

    label: Label
    title: Title
    units: Annotated[list[UnitTable], Field(min_length=1, max_length=500)]
    devices: list[DevicesTable] = Field(default_factory=list)


class ModelTable(Document):
    """A product of a maker; category chooses the profile through the policy pack."""

    name: Name
    maker: Title
    category: Category
    serial_prefix: Prefix
    anchor: str | None = None  # the maker's root certificate (PEM or DER), relative to the plan


class ListenerTable(Document):
    """A door of the serving process."""

    name: Label
    kind: Literal["enrolment", "status", "relay-http", "relay-tcp"]
    address: Address
    hospital: Label | None = None
    host_names: list[HostName] = Field(default_factory=list)
    units: list[Label] = Field(default_factory=list)  # of that hospital; empty: all of them
    function: Literal["telemetry", "alarm", "control", "programming", "firmware", "imaging"] = "telemetry"
    upstream: Address | None = None
    tls_minimum: Literal["1.2", "1.3"] = "1.3"
    registration_authorities: list[DeviceReference] = Field(default_factory=list)  # MODEL:SERIAL; enrolment alone


class HospitalFile(Document):
    """A hospital group's plan."""

    kind: Literal["hospital"]
    format: Literal[1]
    group: GroupTable
    hospitals: Annotated[list[HospitalTable], Field(min_length=1, max_length=500)]
    models: list[ModelTable] = Field(default_factory=list)
    listeners: Annotated[list[ListenerTable], Field(max_length=100, default_factory=list)]


class MakerTable(Document):
    """A maker of devices."""

    title: Title
    status_url: StatusUrl
    country: Country | None = None


class MakerModelTable(Document):
    """A product as its maker plans it."""

    name: Name
    category: Category
    serial_prefix: Prefix


class BatchTable(Document):
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
    models: Annotated[list[MakerModelTable], Field(min_length=1, max_length=1000)]
    batches: list[BatchTable] = Field(default_factory=list)
    listeners: Annotated[list[ListenerTable], Field(max_length=100, default_factory=list)]
