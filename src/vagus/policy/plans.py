"""A hospital group's or a maker's plan as a checked, frozen value; knows nothing of what stands (`fleet.plans`).

A plan names people's words (hospitals, units, models, counts); device identifiers are drawn when it is applied, and
the makers' serial numbers follow from model and counter, so that a maker's manifest names the same devices.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vagus.errors import Misconfigured
from vagus.identifiers import UnitName
from vagus.policy.documents import check_tables, decode_tables, read_document
from vagus.policy.plan_files import HospitalFile, ListenerTable, MakerFile
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

RESERVED_UNITS = frozenset({"sdc", "infra"})
RESERVED_HOSPITALS = frozenset({"root", "line", "log", "gate", "ocsp", "emergency", "snapshot"})
_LONGEST_IDENTITY = 128
_MOST_DEVICES = 1_000_000


class AuthorityKind(StrEnum):
    """What an authority is for; spelt as the table `authorities` stores it."""

    ROOT = "root"
    DEVICE_CA = "device_ca"
    ISSUING_CA = "issuing_ca"
    SDC_CA = "sdc_ca"
    INFRASTRUCTURE_CA = "infrastructure_ca"
    LINE_CA = "line_ca"

    @property
    def is_offline(self) -> bool:
        """Whether its key is opened in a ceremony only (design section 4)."""
        return self in {AuthorityKind.ROOT, AuthorityKind.DEVICE_CA}

    @property
    def profile(self) -> str:
        """The name of its profile in a policy pack."""
        return self.value.replace("_", "-")


class ListenerKind(StrEnum):
    """What a door of the serving process speaks."""

    ENROLMENT = "enrolment"
    STATUS = "status"
    RELAY_HTTP = "relay-http"
    RELAY_TCP = "relay-tcp"


@dataclass(frozen=True, slots=True)
class PlannedAuthority:
    """An authority that a plan asks for. `domain` is the subtree it may name, None where nothing constrains it."""

    name: str
    kind: AuthorityKind
    parent: str | None
    organisation: str
    unit: str | None
    common_name: str
    country: str | None
    domain: str | None
    constrain_dn: bool


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """An issuing compartment with the words of its devices' subjects."""

    name: UnitName
    organisation: str
    title: str


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A product whose devices may stand in the inventory."""

    name: str
    maker: str
    category: str
    serial_prefix: str
    anchor: Path | None


@dataclass(frozen=True, slots=True)
class PlannedDevices:
    """Devices of one model in one unit, by the maker's counter: first, first + 1 ..."""

    unit: UnitName
    model: str
    first: int
    count: int
    place: str | None
    host_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """One device before it has an identifier."""

    unit: str
    model: str
    maker_serial: str
    place: str | None
    host_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedListener:
    """A door: what it speaks, where, which compartments it accepts, and where it relays to."""

    name: str
    kind: ListenerKind
    host: str
    port: int
    hospital: str | None
    host_names: tuple[str, ...]
    units: frozenset[str]  # "h1/icu"; those that it accepts
    function: str
    upstream: tuple[str, int] | None
    tls_minimum: str
    registration_authorities: tuple[tuple[str, str], ...] = ()  # (model, maker's serial) of devices that carry requests


@dataclass(frozen=True, slots=True)
class PlannedHospital:
    """A hospital and its compartments."""

    label: str
    title: str
    units: tuple[PlannedUnit, ...]


@dataclass(frozen=True, slots=True)
class HospitalPlan:
    """What a group of hospitals wants to have."""

    sha256: bytes
    title: str
    country: str | None
    group_domain: str
    status_url: str
    constrain_dn: bool
    has_own_root: bool  # False: the root lives elsewhere, and the three branches are certified by it
    hospitals: tuple[PlannedHospital, ...]
    models: tuple[PlannedModel, ...]
    devices: tuple[PlannedDevices, ...]
    listeners: tuple[PlannedListener, ...]

    @property
    def listener_names(self) -> frozenset[str]:
        """The host names of every door: no device may show them."""
        return frozenset(name for one in self.listeners for name in one.host_names)

    @property
    def units(self) -> tuple[PlannedUnit, ...]:
        """Every compartment, hospital by hospital."""
        return tuple(unit for hospital in self.hospitals for unit in hospital.units)

    def authorities(self) -> tuple[PlannedAuthority, ...]:
        """The three branches per hospital under one root, parents before children (design section 1)."""
        root = PlannedAuthority(
            name="root",
            kind=AuthorityKind.ROOT,
            parent=None,
            organisation=self.title,
            unit=None,
            common_name=f"{self.title} Root",
            country=self.country,
            domain=None,
            constrain_dn=False,
        )
        found = [root] if self.has_own_root else []
        for hospital in self.hospitals:
            found.extend(self._branches(hospital))
        return tuple(found)

    def _branches(self, hospital: PlannedHospital) -> Iterator[PlannedAuthority]:
        domain = f"{hospital.label}.{self.group_domain}"

        def planned(
            name: str, kind: AuthorityKind, parent: str | None, title: str, subtree: str | None
        ) -> PlannedAuthority:
            unit = None if kind is AuthorityKind.DEVICE_CA else title
            common_name = f"{title} {_TITLES[kind]}"
            constrain_dn = self.constrain_dn and kind in {AuthorityKind.DEVICE_CA, AuthorityKind.ISSUING_CA}
            return PlannedAuthority(
                name, kind, parent, hospital.title, unit, common_name, self.country, subtree, constrain_dn
            )

        label, above = hospital.label, "root" if self.has_own_root else None
        yield planned(label, AuthorityKind.DEVICE_CA, above, hospital.title, domain)
        yield planned(f"{label}/sdc", AuthorityKind.SDC_CA, above, hospital.title, domain)
        yield planned(f"{label}/infra", AuthorityKind.INFRASTRUCTURE_CA, above, hospital.title, None)
        for unit in hospital.units:
            yield planned(
                str(unit.name), AuthorityKind.ISSUING_CA, label, unit.title, unit.name.domain(self.group_domain)
            )

    def each_device(self) -> Iterator[PlannedDevice]:
        """Every device of the plan, one by one, in the order of the file."""
        prefixes = {model.name: model.serial_prefix for model in self.models}
        for group in self.devices:
            for counter in range(group.first, group.first + group.count):
                serial = maker_serial(prefixes[group.model], counter)
                yield PlannedDevice(str(group.unit), group.model, serial, group.place, group.host_names)


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """Devices that leave the line together."""

    name: str
    model: str
    first: int
    count: int
    serials: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MakerPlan:
    """What a maker wants to have: a root, a line CA, products and batches."""

    sha256: bytes
    title: str
    country: str | None
    status_url: str
    models: tuple[PlannedModel, ...]
    batches: tuple[PlannedBatch, ...]
    listeners: tuple[PlannedListener, ...]

    def authorities(self) -> tuple[PlannedAuthority, ...]:
        """The root and the line CA beneath it."""
        return tuple(
            PlannedAuthority(
                name=name,
                kind=kind,
                parent=parent,
                organisation=self.title,
                unit=None,
                common_name=f"{self.title} {_TITLES[kind]}",
                country=self.country,
                domain=None,
                constrain_dn=False,
            )
            for name, kind, parent in (("root", AuthorityKind.ROOT, None), ("line", AuthorityKind.LINE_CA, "root"))
        )


Plan = HospitalPlan | MakerPlan

_TITLES = {
    AuthorityKind.ROOT: "Root",
    AuthorityKind.DEVICE_CA: "Device CA",
    AuthorityKind.ISSUING_CA: "Issuing CA",
    AuthorityKind.SDC_CA: "SDC CA",
    AuthorityKind.INFRASTRUCTURE_CA: "Infrastructure CA",
    AuthorityKind.LINE_CA: "Line CA",
}


def maker_serial(prefix: str, counter: int) -> str:
    """The serial number that a maker gives to its device number `counter`: PREFIX-000042."""
    return f"{prefix}-{counter:06d}"


def load_plan(path: Path) -> Plan:
    """The plan in a TOML file. Raises Misconfigured(BAD_PLAN) naming file, key and remedy."""
    return decode_plan(read_document(path, Reason.BAD_PLAN), str(path), folder=path.parent)


def decode_plan(raw: bytes, file: str, *, folder: Path) -> Plan:
    """The plan in the bytes of a TOML file; anchors are named relative to `folder`.

    Raises Misconfigured(BAD_PLAN).
    """
    tables = decode_tables(raw, file, Reason.BAD_PLAN)
    digest = hashlib.sha256(raw).digest()
    match tables.get("kind"):
        case "hospital":
            return _HospitalReader(file).read(check_tables(tables, file, HospitalFile, Reason.BAD_PLAN), digest, folder)
        case "maker":
            return _MakerReader(file).read(check_tables(tables, file, MakerFile, Reason.BAD_PLAN), digest)
        case other:
            msg = f'{file}: kind: {other!r} is not "hospital" or "maker"; say which plan this is'
            raise Misconfigured(Reason.BAD_PLAN, msg, file=file, key="kind")


class _Reader:
    """What both kinds of plan check."""

    def __init__(self, file: str) -> None:
        self._file = file

    def refuse(self, key: str, finding: str) -> NoReturn:
        """Stop with the file, the key and what to do."""
        raise Misconfigured(Reason.BAD_PLAN, f"{self._file}: {key}: {finding}", file=self._file, key=key)

    def check_distinct(self, names: Iterable[str], key: str) -> None:
        seen: dict[str, int] = {}
        for index, name in enumerate(names):
            if name in seen:
                self.refuse(f"{key}[{index}]", f"{name!r} stands already at {key}[{seen[name]}]; rename or delete one")
            seen[name] = index

    def check_ranges(self, ranges: Sequence[tuple[str, str, int, int]]) -> None:
        """No two (key, model, first, count) may count the same device of a model."""
        ordered = sorted(ranges, key=lambda one: (one[1], one[2]))
        for before, after in itertools.pairwise(ordered):
            end = before[2] + before[3]
            if before[1] == after[1] and after[2] < end:
                counted = f"{after[1]} number {after[2]} is counted at {before[0]} too"
                self.refuse(f"{after[0]}.first", f"{counted}; begin at {end} or later")

    def listener(self, table: ListenerTable, index: int, units: Mapping[str, frozenset[str]]) -> PlannedListener:
        """One door, checked against the hospitals of the plan (`units`: hospital -> its compartments)."""
        key = f"listeners[{index}]"
        kind = ListenerKind(table.kind)
        accepted: frozenset[str] = frozenset()
        if kind is not ListenerKind.STATUS:
            if table.hospital is None or table.hospital not in units:
                self.refuse(f"{key}.hospital", f"{table.hospital!r} is no hospital of this plan; name one")
            unknown = [label for label in table.units if f"{table.hospital}/{label}" not in units[table.hospital]]
            if unknown:
                self.refuse(f"{key}.units", f"{unknown[0]!r} is no unit of {table.hospital}; name its own units")
            accepted = frozenset(f"{table.hospital}/{label}" for label in table.units) or units[table.hospital]
            if not table.host_names:
                self.refuse(f"{key}.host_names", "a TLS door needs at least one host name for its certificate; add it")
        if (table.upstream is not None) is not (kind in {ListenerKind.RELAY_HTTP, ListenerKind.RELAY_TCP}):
            self.refuse(f"{key}.upstream", "a relay needs an upstream host:port and no other door has one; correct it")
        if table.registration_authorities and kind is not ListenerKind.ENROLMENT:
            self.refuse(f"{key}.registration_authorities", "only an enrolment door has them; delete the key")
        host, port = split_address(table.address)
        return PlannedListener(
            name=table.name,
            kind=kind,
            host=host,
            port=port,
            hospital=table.hospital,
            host_names=tuple(table.host_names),
            units=accepted,
            function=table.function,
            upstream=split_address(table.upstream) if table.upstream else None,
            tls_minimum=table.tls_minimum,
            registration_authorities=tuple(
                (one.partition(":")[0], one.partition(":")[2]) for one in table.registration_authorities
            ),
        )


class _HospitalReader(_Reader):
    def read(self, file: HospitalFile, digest: bytes, folder: Path) -> HospitalPlan:
        self._check_names(file)
        hospitals = tuple(
            PlannedHospital(
                hospital.label,
                hospital.title,
                tuple(
                    PlannedUnit(UnitName(hospital.label, unit.label), hospital.title, unit.title)
                    for unit in hospital.units
                ),
            )
            for hospital in file.hospitals
        )
        units = {one.label: frozenset(str(unit.name) for unit in one.units) for one in hospitals}
        self._check_host_names(file)
        return HospitalPlan(
            sha256=digest,
            title=file.group.title,
            country=file.group.country,
            group_domain=file.group.domain,
            status_url=file.group.status_url,
            constrain_dn=file.group.constrain_dn,
            has_own_root=file.group.root == "here",
            hospitals=hospitals,
            models=tuple(
                PlannedModel(
                    one.name, one.maker, one.category, one.serial_prefix, folder / one.anchor if one.anchor else None
                )
                for one in file.models
            ),
            devices=self._devices(file),
            listeners=tuple(self.listener(one, index, units) for index, one in enumerate(file.listeners)),
        )

    def _check_names(self, file: HospitalFile) -> None:
        self.check_distinct((one.label for one in file.hospitals), "hospitals")
        self.check_distinct((one.name for one in file.models), "models")
        self.check_distinct((one.serial_prefix for one in file.models), "models")
        self.check_distinct((one.name for one in file.listeners), "listeners")
        for place, hospital in enumerate(file.hospitals):
            key = f"hospitals[{place}]"
            if hospital.label in RESERVED_HOSPITALS:
                self.refuse(f"{key}.label", f"{hospital.label!r} is the name of a keystore of the house; rename it")
            self.check_distinct((one.label for one in hospital.units), f"{key}.units")
            for index, unit in enumerate(hospital.units):
                self._check_unit(f"{key}.units[{index}].label", hospital.label, unit.label, file.group.domain)

    def _check_host_names(self, file: HospitalFile) -> None:
        """A device's certificate with a door's name would be taken for the door; doors may share their names."""
        owners = {name: f"listener {one.name}" for one in file.listeners for name in one.host_names}
        for place, hospital in enumerate(file.hospitals):
            for index, group in enumerate(hospital.devices):
                key = f"hospitals[{place}].devices[{index}]"
                for name in dict.fromkeys(group.host_names):
                    if name in owners:
                        self.refuse(f"{key}.host_names", f"{name} is the name of {owners[name]} already; give another")
                    owners[name] = key

    def _check_unit(self, key: str, hospital: str, label: str, domain: str) -> None:
        if label in RESERVED_UNITS:
            self.refuse(key, f"{label!r} is reserved for the hospital's own branch; rename the unit")
        length = 26 + 1 + len(UnitName(hospital, label).domain(domain))
        if length > _LONGEST_IDENTITY:
            limit = f"the {_LONGEST_IDENTITY} allowed"
            self.refuse(key, f"identity names here have {length} characters, over {limit}; shorten group.domain")

    def _devices(self, file: HospitalFile) -> tuple[PlannedDevices, ...]:
        models = {one.name for one in file.models}
        found: list[PlannedDevices] = []
        ranges: list[tuple[str, str, int, int]] = []
        for place, hospital in enumerate(file.hospitals):
            labels = {unit.label for unit in hospital.units}
            for index, group in enumerate(hospital.devices):
                key = f"hospitals[{place}].devices[{index}]"
                if group.unit not in labels:
                    self.refuse(f"{key}.unit", f"{group.unit!r} is no unit of {hospital.label}; name one of its units")
                if group.model not in models:
                    self.refuse(f"{key}.model", f"{group.model!r} is no model of this plan; add it under [[models]]")
                if group.host_names and group.count != 1:
                    self.refuse(f"{key}.host_names", f"{group.count} devices cannot share host names; count = 1")
                ranges.append((key, group.model, group.first, group.count))
                unit = UnitName(hospital.label, group.unit)
                names = tuple(group.host_names)
                found.append(PlannedDevices(unit, group.model, group.first, group.count, group.place, names))
        self.check_ranges(ranges)
        if (total := sum(group.count for group in found)) > _MOST_DEVICES:
            self.refuse("hospitals", f"{total} devices exceed the {_MOST_DEVICES} of one plan; split it")
        return tuple(found)


class _MakerReader(_Reader):
    def read(self, file: MakerFile, digest: bytes) -> MakerPlan:
        self.check_distinct((one.name for one in file.models), "models")
        self.check_distinct((one.serial_prefix for one in file.models), "models")
        self.check_distinct((one.name for one in file.batches), "batches")
        self.check_distinct((one.name for one in file.listeners), "listeners")
        prefixes = {one.name: one.serial_prefix for one in file.models}
        for index, batch in enumerate(file.batches):
            if batch.model not in prefixes:
                self.refuse(f"batches[{index}].model", f"{batch.model!r} is no model of this plan; add it")
        self.check_ranges([(f"batches[{at}]", b.model, b.first, b.count) for at, b in enumerate(file.batches)])
        for index, listener in enumerate(file.listeners):
            if listener.kind != "status":
                self.refuse(f"listeners[{index}].kind", f"a maker serves status alone, not {listener.kind}; delete it")
        return MakerPlan(
            sha256=digest,
            title=file.maker.title,
            country=file.maker.country,
            status_url=file.maker.status_url,
            models=tuple(
                PlannedModel(one.name, file.maker.title, one.category, one.serial_prefix, None) for one in file.models
            ),
            batches=tuple(
                PlannedBatch(
                    one.name,
                    one.model,
                    one.first,
                    one.count,
                    tuple(maker_serial(prefixes[one.model], one.first + step) for step in range(one.count)),
                )
                for one in file.batches
            ),
            listeners=tuple(self.listener(one, index, {}) for index, one in enumerate(file.listeners)),
        )


def split_address(text: str) -> tuple[str, int]:
    """The host and port of a checked `host:port`; brackets of IPv6 are taken off."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
