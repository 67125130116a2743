"""Plans applied: once, again, after a crash in the middle, and refused where certificates live."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.simulator import plans
from tests.simulator.databases import created_database
from tests.simulator.presence import present
from tests.simulator.queries import count_devices_by_state
from tests.simulator.refusals import reason_of
from tests.simulator.stock import ER, ICU, OVERLAP
from vagus.errors import Conflict, Misconfigured
from vagus.fleet.devices import Inventory, NewDevice
from vagus.fleet.lifecycle import DeviceState
from vagus.fleet.plans.differences import Act
from vagus.fleet.plans.planning import Applied, Comparison, Planning
from vagus.identifiers import UnitName
from vagus.ledger.entries import PlanApplied, decode_entry
from vagus.ledger.rights_check import RightsCheck
from vagus.policy.plans import PlannedAuthority
from vagus.reasons import Reason
from vagus.records.authorities import AuthorityRow, certify_authority, find_newest, insert_authority
from vagus.records.certificates import CertificateRow, insert_intent
from vagus.records.devices import DeviceFilter, DeviceRow, list_devices, set_device_unit
from vagus.records.engine.database import Database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import InstallationRow, insert_installation, load_installation
from vagus.records.log import iterate_leaves
from vagus.records.models import find_model
from vagus.records.plan_rows import export_rows
from vagus.records.units import find_unit
from vagus.testing import FrozenClock, SeededEntropy

EXAMPLES = Path(__file__).parents[3] / "examples"
PROFILES = {"infusion-pump": "bedside", "pacemaker": "implant", "device-gateway": "gateway"}

_ICU, _ER = plans.devices("icu", 1, 300, "Pump"), plans.devices("er", 301, 2, "Pump", place="Bay 1")
_PUMP = plans.model("Pump", "Maker", prefix="P")
PLAN = plans.hospital_plan(plans.hospital(_ICU, _ER, units=("icu", "er")), models=[_PUMP], listeners=())
BEFORE_ER = plans.hospital_plan(plans.hospital(_ICU), models=[_PUMP], listeners=())


class PowerCutError(BaseException):
    """Ends an apply where a kill -9 could."""


@dataclass
class Site:
    """An installation in memory whose authorities get rows without keys; the tests of authority make keys."""

    folder: Path
    database: Database
    writer: Writer
    planning: Planning = field(init=False)
    inventory: Inventory = field(init=False)
    cut_after: int = 1_000_000

    def __post_init__(self) -> None:
        self.inventory = Inventory(self.writer, SeededEntropy(5), overlap=OVERLAP)
        self.planning = Planning(
            self.database,
            lambda: self.writer,
            FrozenClock(),
            SeededEntropy(),
            kind="hospital",
            profile_of=PROFILES.get,
            request_authority=self.request,
            adopted=self.folder / "plan.toml",
        )

    def request(self, planned: PlannedAuthority, _by: str) -> None:
        def act(batch: Batch) -> None:
            newest = find_newest(batch.connection, planned.name, state=None)
            row = AuthorityRow(
                name=planned.name,
                generation=1 if newest is None else newest.generation + 1,
                kind=planned.kind.value,
                parent_id=None,
                is_offline=planned.kind.is_offline,
                key_id="ca",
                keystore=planned.name,
                spki_sha256=hashlib.sha256(planned.name.encode()).digest(),
                request_der=b"",
            )
            authority = insert_authority(batch.connection, row)
            certify_authority(batch.connection, authority, b"", not_before=0, not_after=2_000_000_000, parent_id=None)

        self.writer.submit(act).result()

    def step(self, _count: int) -> None:
        self.cut_after -= 1
        if self.cut_after < 0:
            raise PowerCutError

    def compare(self, text: str) -> Comparison:
        file = self.folder / "given.toml"
        file.write_text(text)
        return self.planning.compare(file)

    def apply_compared(self, found: Comparison) -> Applied:
        return self.planning.apply(found, by="operator:test", advance=self.step)

    def apply(self, text: str) -> Applied:
        return self.apply_compared(self.compare(text))

    def changes(self, text: str) -> list[tuple[Act, str, str]]:
        return [(change.act, change.what, change.name) for change in self.compare(text).difference.changes]

    def add_beside(self, serial: str, **more: Any) -> DeviceRow:
        """A device of the plan's model that the plan does not name."""
        new = NewDevice(unit=ER, model="Pump", maker_serial=serial, **more)
        return self.inventory.add(new, by="operator:test").result(10)

    def export(self) -> object:
        with self.database.reading() as connection:
            return export_rows(connection), [leaf.entry for leaf in iterate_leaves(connection)]

    def certify_device(self, authority: str, profile: str) -> None:
        def act(batch: Batch) -> None:
            row = present(find_newest(batch.connection, authority))
            leaf = batch.append(b"{}")
            certificate = CertificateRow(
                leaf_index=leaf,
                authority_id=row.id,
                serial=leaf + 1,
                owner="device:x",
                device_id=None,
                profile=profile,
                spki_sha256=bytes(32),
                request_id=str(leaf),
                not_before=0,
                not_after=4_000_000_000,
                shard=0,
            )
            insert_intent(batch.connection, certificate, b"")

        self.writer.submit(act).result()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with created_database(f"sqlite:///{tmp_path}/vagus.sqlite3") as database, Writer(database, FrozenClock()) as writer:
        row = InstallationRow("log.test", 0, bytes(32))
        writer.submit(lambda batch: insert_installation(batch.connection, row)).result()
        yield Site(tmp_path, database, writer)


def test_a_plan_becomes_units_models_authorities_and_devices(site: Site) -> None:
    assert site.apply(PLAN) == Applied(authorities=6, units=2, models=1, devices=302, retired=0)
    with site.database.reading() as connection:
        assert load_installation(connection).group_domain == "test.example"
        assert find_unit(connection, ICU) is not None
        assert present(find_model(connection, "Pump")).profile == "bedside"
        assert count_devices_by_state(connection, "h1") == {"received": 302}
        (one, other) = list_devices(connection, DeviceFilter(unit=ER))
        assert {one.place, other.place} == {"Bay 1"}
        last = decode_entry(list(iterate_leaves(connection))[-1].entry).entry
    assert isinstance(last, PlanApplied)
    assert last.plan_sha256 == hashlib.sha256(PLAN.encode()).digest()


def test_a_second_apply_changes_nothing(site: Site) -> None:
    site.apply(PLAN)
    before = site.export()
    assert site.changes(PLAN) == []
    assert site.apply(PLAN) == Applied(0, 0, 0, 0, 0)
    assert site.export() == before


@pytest.mark.parametrize("cut_after", range(10))
def test_an_apply_that_is_cut_off_converges_when_repeated(site: Site, cut_after: int) -> None:
    site.cut_after = cut_after
    with pytest.raises(PowerCutError):
        site.apply(PLAN)
    site.cut_after = 1_000_000
    site.apply(PLAN)
    assert site.changes(PLAN) == []
    with site.database.reading() as connection:
        assert count_devices_by_state(connection) == {"received": 302}


def test_a_change_of_words_alone_is_adopted_with_an_entry(site: Site) -> None:
    site.apply(PLAN)
    assert site.changes(PLAN + "\n# a remark\n") == [(Act.CHANGE, "plan", "adopted plan")]
    site.apply(PLAN + "\n# a remark\n")
    assert site.changes(PLAN + "\n# a remark\n") == []


def test_more_devices_of_a_model_are_added_and_no_known_one_again(site: Site) -> None:
    site.apply(PLAN)
    assert site.apply(PLAN.replace("count = 2", "count = 5")).devices == 3
    with site.database.reading() as connection:
        assert count_devices_by_state(connection) == {"received": 305}


def test_a_new_title_and_a_new_place_are_changes(site: Site) -> None:
    site.apply(PLAN)
    changed = PLAN.replace('"Emergency"', '"Emergency Care"').replace("Bay 1", "Bay 2")
    acts = site.changes(changed)
    assert (Act.CHANGE, "unit", "h1/er") in acts
    assert sum(1 for act, what, _ in acts if (act, what) == (Act.CHANGE, "device")) == 2
    site.apply(changed)
    assert site.changes(changed) == []


NAMED = PLAN.replace('first = 301, count = 2, place = "Bay 1"', 'first = 301, count = 1, host_names = ["old.h1.test"]')


def _devices(site: Site, unit: str) -> tuple[DeviceRow, ...]:
    with site.database.reading() as connection:
        return list_devices(connection, DeviceFilter(unit=UnitName("h1", unit)), limit=1_000)


@pytest.mark.parametrize("names", [("new.h1.test",), ()])
def test_other_host_names_are_a_change_with_an_entry(site: Site, names: tuple[str, ...]) -> None:
    site.apply(NAMED)
    changed = NAMED.replace('["old.h1.test"]', str(list(names)).replace("'", '"'))
    (device,) = _devices(site, "er")
    assert (Act.CHANGE, "device", str(device.id)) in site.changes(changed)
    site.apply(changed)
    (device,) = _devices(site, "er")
    assert device.host_names == names
    assert site.changes(changed) == []
    check_rows(site)


def test_another_category_is_a_change_of_every_device_that_follows_its_model(site: Site) -> None:
    site.apply(NAMED)
    site.add_beside("X-1")
    site.add_beside("X-2", profile="wearable")
    changed = NAMED.replace('category = "infusion-pump"', 'category = "pacemaker"')
    assert (Act.CHANGE, "devices", "Pump") in site.changes(changed)
    site.apply(changed)
    profiles = {device.maker_serial: device.profile for device in (*_devices(site, "icu"), *_devices(site, "er"))}
    assert profiles.pop("X-2") == "wearable", "given to it alone"
    assert set(profiles.values()) == {"implant"}
    assert len(profiles) == 302
    assert site.changes(changed) == []
    check_rows(site)


@pytest.mark.parametrize("cut_after", range(6))
def test_a_change_of_category_that_is_cut_off_converges_when_repeated(site: Site, cut_after: int) -> None:
    site.apply(NAMED)
    site.add_beside("X-1")
    changed = NAMED.replace('category = "infusion-pump"', 'category = "pacemaker"')
    site.cut_after = cut_after
    try:
        site.apply(changed)
    except PowerCutError:
        site.cut_after = 1_000_000
        site.apply(changed)
    assert {device.profile for device in (*_devices(site, "icu"), *_devices(site, "er"))} == {"implant"}
    assert site.changes(changed) == []


def test_a_host_name_of_a_living_device_beside_the_plan_is_refused(site: Site) -> None:
    site.apply(PLAN)
    device = site.add_beside("X-1", host_names=("old.h1.test",))
    listener = '[[listeners]]\nname = "enrol"\nkind = "enrolment"\naddress = "127.0.0.1:0"\nhospital = "h1"\n'
    for changed in (NAMED, PLAN + listener + 'host_names = ["old.h1.test"]\n'):
        assert reason_of(site.changes, changed, error=Misconfigured, match="belongs to Pump X-1") is Reason.BAD_PLAN
    site.inventory.change_state(device.id, DeviceState.DECOMMISSIONED, by="operator:test").result(10)
    assert site.changes(NAMED), "a successor may have its name"


def check_rows(site: Site) -> None:
    """The rows of the devices are what the ledger makes of them; authorities without keys have no entries here."""
    with site.database.reading() as connection:
        rows = RightsCheck(connection, bytes(32))
        for leaf in iterate_leaves(connection):
            rows.take(leaf.index, decode_entry(leaf.entry))
        rows.check_devices()
        rows.close()


def test_an_authority_without_live_certificates_is_retired(site: Site) -> None:
    site.apply(PLAN)
    assert (Act.REMOVE, "authority", "h1/er") in site.changes(BEFORE_ER)
    assert site.apply(BEFORE_ER).retired == 1
    assert site.changes(BEFORE_ER) == []


def test_a_unit_that_comes_back_gets_a_new_generation(site: Site) -> None:
    site.apply(PLAN)
    site.apply(BEFORE_ER)
    site.apply(PLAN)
    with site.database.reading() as connection:
        assert present(find_newest(connection, "h1/er")).generation == 2


def test_an_authority_with_live_certificates_is_not_removed(site: Site) -> None:
    site.apply(PLAN)
    site.certify_device("h1/er", "bedside")
    assert reason_of(site.apply, BEFORE_ER, error=Conflict, match="1 live certificates") is Reason.AUTHORITY_IN_USE


def test_its_own_responder_does_not_keep_an_authority_alive(site: Site) -> None:
    site.apply(PLAN)
    site.certify_device("h1/er", "ocsp")
    assert site.apply(BEFORE_ER).retired == 1


def test_a_certificate_issued_between_check_and_apply_is_seen(site: Site) -> None:
    site.apply(PLAN)
    found = site.compare(BEFORE_ER)
    site.certify_device("h1/er", "bedside")
    assert reason_of(site.apply_compared, found, error=Conflict) is Reason.AUTHORITY_IN_USE


def test_the_group_domain_never_changes(site: Site) -> None:
    site.apply(PLAN)
    other = PLAN.replace('"test.example"', '"other.example"')
    assert reason_of(site.apply, other, error=Conflict) is Reason.AUTHORITY_IN_USE


def test_a_device_that_was_transferred_is_noted_and_left(site: Site) -> None:
    site.apply(PLAN)
    with site.database.reading() as connection:
        (device, _) = list_devices(connection, DeviceFilter(unit=ER))
    site.writer.submit(lambda batch: set_device_unit(batch.connection, device.id, ICU, at=batch.at)).result()
    found = site.planning.compare(site.folder / "given.toml").difference
    assert found.is_empty
    assert any("another unit" in remark for remark in found.remarks)


def test_a_device_beside_the_plan_is_noted_and_left(site: Site) -> None:
    site.apply(PLAN)
    assert site.changes(PLAN.replace("count = 2", "count = 1")) == [(Act.CHANGE, "plan", "adopted plan")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAN.replace("infusion-pump", "toaster"), "no rule"),
        ((EXAMPLES / "maker.toml").read_text(), "another folder"),
        (PLAN.replace('serial_prefix = "P"', 'serial_prefix = "P"\nanchor = "none.pem"'), r"none\.pem"),
    ],
    ids=["category without a rule", "a maker's plan in a hospital", "anchor that cannot be read"],
)
def test_a_plan_that_does_not_fit_is_refused(site: Site, text: str, words: str) -> None:
    assert reason_of(site.apply, text, error=Misconfigured, match=words) is Reason.BAD_PLAN


def test_without_an_applied_plan_the_command_to_run_is_named(site: Site) -> None:
    with pytest.raises(Conflict, match="plan apply"):
        site.planning.load_adopted()
