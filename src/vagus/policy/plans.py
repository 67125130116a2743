"""A plan (units, models, devices, listeners, batches) as a checked, frozen value; `fleet.plans` applies it.

A plan has the words of people (hospitals, units, models, counts). Device identifiers are drawn when it is applied, and
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
from vagus.policy.plan_files import (
    GroupTable,
    HospitalFile,
    ListenerKind,
    MakerFile,
    MakerModel,
    MakerTable,
    PlannedBatch,
    PlannedDevices,
    PlannedHospital,
    PlannedListener,
    PlannedModel,
)
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_FEWEST_DIGITS = 6
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
        """Whether its key is opened in a ceremony only."""
        return self in {AuthorityKind.ROOT, AuthorityKind.DEVICE_CA}

    @property
    def profile(self) -> str:
        """The name of its profile in a policy pack."""
        return self.value.replace("_", "-")


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
    domain: str | None = None
    constrain_dn: bool = False


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """An issuing compartment with the words of its devices' subjects."""

    name: UnitName
    organisation: str
    title: str


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """One device before it has an identifier."""

    unit: str
    model: str
    maker_serial: str
    place: str | None
    host_names: tuple[str, ...]


class HospitalPlan(GroupTable):
    """What a group of hospitals wants to have: the group, and what the plan says of its hospitals.

    Where `root` is "elsewhere", a root elsewhere certifies the three branches.
    """

    sha256: bytes
    hospitals: tuple[PlannedHospital, ...]
    models: tuple[PlannedModel, ...]
    devices: tuple[PlannedDevices, ...]
    listeners: tuple[PlannedListener, ...]

    @property
    def listener_names(self) -> frozenset[str]:
        """The host names of every listener: no device may show them."""
        return frozenset(name for one in self.listeners for name in one.host_names)

    @property
    def units(self) -> tuple[PlannedUnit, ...]:
        """Every compartment, hospital by hospital."""
        return tuple(unit for hospital in self.hospitals for unit in _units_of(hospital))

    def authorities(self) -> tuple[PlannedAuthority, ...]:
        """The three branches per hospital under one root, parents before children."""
        root = [_root(self.title, self.country)] if self.root == "here" else []
        return (*root, *(one for hospital in self.hospitals for one in self._branches(hospital)))

    def _branches(self, hospital: PlannedHospital) -> Iterator[PlannedAuthority]:
        domain = f"{hospital.label}.{self.domain}"

        def planned(
            name: str, kind: AuthorityKind, parent: str | None, title: str, subtree: str | None
        ) -> PlannedAuthority:
            unit = None if kind is AuthorityKind.DEVICE_CA else title
            common_name = f"{title} {_TITLES[kind]}"
            constrain_dn = self.constrain_dn and kind in {AuthorityKind.DEVICE_CA, AuthorityKind.ISSUING_CA}
            return PlannedAuthority(
                name, kind, parent, hospital.title, unit, common_name, self.country, subtree, constrain_dn
            )

        label, above = hospital.label, "root" if self.root == "here" else None
        yield planned(label, AuthorityKind.DEVICE_CA, above, hospital.title, domain)
        yield planned(f"{label}/sdc", AuthorityKind.SDC_CA, above, hospital.title, domain)
        yield planned(f"{label}/infra", AuthorityKind.INFRASTRUCTURE_CA, above, hospital.title, None)
        for unit in _units_of(hospital):
            yield planned(str(unit.name), AuthorityKind.ISSUING_CA, label, unit.title, unit.name.domain(self.domain))

    def each_device(self) -> Iterator[PlannedDevice]:
        """Every device of the plan, one by one, in the order of the file."""
        prefixes = {model.name: model.serial_prefix for model in self.models}
        for group in self.devices:
            for counter in range(group.first, group.first + group.count):
                serial = maker_serial(prefixes[group.model], counter)
                yield PlannedDevice(group.unit, group.model, serial, group.place, group.host_names)


class MakerPlan(MakerTable):
    """What a maker wants to have: a root, a line CA, products and batches."""

    sha256: bytes
    models: tuple[MakerModel, ...]
    batches: tuple[PlannedBatch, ...]
    listeners: tuple[PlannedListener, ...]

    def authorities(self) -> tuple[PlannedAuthority, ...]:
        """The root and the line CA beneath it."""
        name, kind = f"{self.title} Line CA", AuthorityKind.LINE_CA
        line = PlannedAuthority("line", kind, "root", self.title, None, name, self.country)
        return _root(self.title, self.country), line

    def serials(self, batch: PlannedBatch) -> Iterator[str]:
        """The serial numbers of a batch, in the order of the maker's counter."""
        return (self.serial(batch, batch.first + step) for step in range(batch.count))

    def serial(self, batch: PlannedBatch, counter: int) -> str:
        """The serial number of a device of a batch."""
        (prefix,) = (model.serial_prefix for model in self.models if model.name == batch.model)
        return maker_serial(prefix, counter)

    def batch_of(self, serial: str) -> PlannedBatch | None:
        """The batch that counts this serial number, if one does."""
        counter = _counter_of(serial)
        for one in self.batches:
            if one.first <= counter < one.first + one.count and self.serial(one, counter) == serial:
                return one
        return None

    def is_counter(self, serial: str) -> bool:
        """Whether a serial number is one of the plan's models by its form, whatever batch has it or none.

        Another case or more zeros are another spelling of it, which no batch counts and no recall of a lot reaches.
        """
        prefix, _, digits = serial.rpartition("-")
        is_known = any(one.serial_prefix.casefold() == prefix.casefold() for one in self.models)
        return is_known and len(digits) >= _FEWEST_DIGITS and _counter_of(serial) >= 0


Plan = HospitalPlan | MakerPlan

_TITLES = {
    AuthorityKind.DEVICE_CA: "Device CA",
    AuthorityKind.ISSUING_CA: "Issuing CA",
    AuthorityKind.SDC_CA: "SDC CA",
    AuthorityKind.INFRASTRUCTURE_CA: "Infrastructure CA",
}


def _root(title: str, country: str | None) -> PlannedAuthority:
    return PlannedAuthority("root", AuthorityKind.ROOT, None, title, None, f"{title} Root", country)


def maker_serial(prefix: str, counter: int) -> str:
    """The serial number that a maker gives to its device number `counter`: PREFIX-000042."""
    return f"{prefix}-{counter:0{_FEWEST_DIGITS}d}"


def _counter_of(serial: str) -> int:
    """The counter at the end of a serial number that has the form of a plan; -1 of another."""
    digits = serial.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else -1


def load_plan(path: Path, *, is_adopted: bool = False) -> Plan:
    """The plan in a TOML file. Raises Misconfigured(BAD_PLAN) naming file, key and remedy."""
    return decode_plan(read_document(path, Reason.BAD_PLAN), str(path), is_adopted=is_adopted)


def decode_plan(raw: bytes, file: str, *, is_adopted: bool = False) -> Plan:
    """The plan in the bytes of a TOML file, which messages call `file`. Raises Misconfigured(BAD_PLAN).

    `is_adopted`: it is in force, maybe since an earlier release. Its words are not judged again, because a process must
    start with it.
    """
    tables = decode_tables(raw, file, Reason.BAD_PLAN)
    digest = hashlib.sha256(raw).digest()
    match tables.get("kind"):
        case "hospital":
            found = check_tables(tables, file, HospitalFile, Reason.BAD_PLAN, is_adopted=is_adopted)
            return _HospitalReader(file).read(found, digest)
        case "maker":
            made = check_tables(tables, file, MakerFile, Reason.BAD_PLAN, is_adopted=is_adopted)
            return _MakerReader(file).read(made, digest)
        case other:
            msg = f"{file}: kind: {other!r} is not 'hospital' or 'maker'; say which plan this is"
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
                self.refuse(f"{key}[{index}]", f"{name!r} exists already at {key}[{seen[name]}]; rename or delete one")
            seen[name] = index

    def check_names(self, file: HospitalFile | MakerFile) -> None:
        self.check_distinct((one.name for one in file.models), "models")
        self.check_distinct((one.serial_prefix for one in file.models), "models")
        self.check_distinct((one.name for one in file.listeners), "listeners")

    def check_ranges(self, ranges: Sequence[tuple[str, str, int, int]]) -> None:
        """No two (key, model, first, count) may count the same device of a model."""
        ordered = sorted(ranges, key=lambda one: (one[1], one[2]))
        for before, after in itertools.pairwise(ordered):
            end = before[2] + before[3]
            if before[1] == after[1] and after[2] < end:
                counted = f"{after[1]} number {after[2]} is counted at {before[0]} too"
                self.refuse(f"{after[0]}.first", f"{counted}; begin at {end} or later")

    def listener(self, one: PlannedListener, index: int, units: Mapping[str, frozenset[str]]) -> PlannedListener:
        """One listener, checked against the hospitals of the plan (`units`: hospital -> its compartments)."""
        key, kind = f"listeners[{index}]", one.kind
        accepted: frozenset[str] = frozenset()
        if kind is not ListenerKind.STATUS:
            if one.hospital is None or one.hospital not in units:
                self.refuse(f"{key}.hospital", f"{one.hospital!r} is no hospital of this plan; name one")
            unknown = [label for label in sorted(one.units) if f"{one.hospital}/{label}" not in units[one.hospital]]
            if unknown:
                self.refuse(f"{key}.units", f"{unknown[0]!r} is no unit of {one.hospital}; name its own units")
            accepted = frozenset(f"{one.hospital}/{label}" for label in one.units) or units[one.hospital]
            if not one.host_names:
                msg = "a TLS listener needs at least one host name for its certificate; add host_names to it"
                self.refuse(f"{key}.host_names", msg)
        if (one.upstream is not None) is not (kind in {ListenerKind.RELAY_HTTP, ListenerKind.RELAY_TCP}):
            msg = "a relay listener needs an upstream host:port, and no other listener has one; correct it"
            self.refuse(f"{key}.upstream", msg)
        if one.registration_authorities and kind is not ListenerKind.ENROLMENT:
            self.refuse(f"{key}.registration_authorities", "only an enrolment listener has them; delete the key")
        if one.base64 != "line" and kind is not ListenerKind.ENROLMENT:
            self.refuse(f"{key}.base64", "only an enrolment listener has it; delete the key")
        if one.proxy_protocol != "off" and kind is not ListenerKind.RELAY_TCP:
            self.refuse(f"{key}.proxy_protocol", "only a relay-tcp listener has it; delete the key")
        return one.model_copy(update={"units": accepted})


class _HospitalReader(_Reader):
    def read(self, file: HospitalFile, digest: bytes) -> HospitalPlan:
        self._check_names(file)
        units = {one.label: frozenset(str(unit.name) for unit in _units_of(one)) for one in file.hospitals}
        self._check_host_names(file)
        return HospitalPlan(
            **dict(file.group),
            sha256=digest,
            hospitals=tuple(file.hospitals),
            models=tuple(file.models),
            devices=self._devices(file),
            listeners=tuple(self.listener(one, index, units) for index, one in enumerate(file.listeners)),
        )

    def _check_names(self, file: HospitalFile) -> None:
        self.check_distinct((one.label for one in file.hospitals), "hospitals")
        self.check_names(file)
        for place, hospital in enumerate(file.hospitals):
            key = f"hospitals[{place}]"
            if hospital.label in RESERVED_HOSPITALS:
                self.refuse(
                    f"{key}.label", f"{hospital.label!r} is the name of a keystore of the installation; rename it"
                )
            self.check_distinct((one.label for one in hospital.units), f"{key}.units")
            for index, unit in enumerate(hospital.units):
                self._check_unit(f"{key}.units[{index}].label", hospital.label, unit.label, file.group.domain)

    def _check_host_names(self, file: HospitalFile) -> None:
        """A device with a listener's name in its certificate could pose as the listener. Listeners may share names."""
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
                found.append(group.model_copy(update={"unit": f"{hospital.label}/{group.unit}"}))
        self.check_ranges(ranges)
        if (total := sum(group.count for group in found)) > _MOST_DEVICES:
            self.refuse("hospitals", f"{total} devices exceed the {_MOST_DEVICES} of one plan; split it")
        return tuple(found)


class _MakerReader(_Reader):
    def read(self, file: MakerFile, digest: bytes) -> MakerPlan:
        self.check_names(file)
        self.check_distinct((one.name for one in file.batches), "batches")
        names = {one.name for one in file.models}
        for index, batch in enumerate(file.batches):
            if batch.model not in names:
                self.refuse(f"batches[{index}].model", f"{batch.model!r} is no model of this plan; add it")
        self.check_ranges([(f"batches[{at}]", b.model, b.first, b.count) for at, b in enumerate(file.batches)])
        for index, listener in enumerate(file.listeners):
            if listener.kind is not ListenerKind.STATUS:
                self.refuse(f"listeners[{index}].kind", f"a maker serves status alone, not {listener.kind}; delete it")
        return MakerPlan(
            **dict(file.maker),
            sha256=digest,
            models=tuple(file.models),
            batches=tuple(file.batches),
            listeners=tuple(self.listener(one, index, {}) for index, one in enumerate(file.listeners)),
        )


def _units_of(hospital: PlannedHospital) -> tuple[PlannedUnit, ...]:
    return tuple(
        PlannedUnit(UnitName(hospital.label, unit.label), hospital.title, unit.title) for unit in hospital.units
    )
