"""Which device a birth certificate belongs to."""

from __future__ import annotations

from dataclasses import replace

from tests.simulator.enrolment import HARDWARE_TYPE, Site
from tests.simulator.installation import STATUS_URL, pack
from tests.simulator.orders import new_key, spki
from tests.simulator.presence import present
from tests.simulator.refusals import reason_of
from vagus.errors import NotAuthorised
from vagus.fleet.idevid import find_idevid_device, maker_serials
from vagus.identifiers import DeviceId, draw_serial
from vagus.reasons import Reason
from vagus.records.devices import insert_devices
from vagus.records.models import ModelRow, find_model, put_model
from vagus.testing import NOON
from vagus.trust.validation import AcceptedIdentity
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.keys import decode_public_key
from vagus.x509.names.distinguished import ORGANISATION, SubjectFields, encode_subject
from vagus.x509.names.hardware_module import HardwareModule
from vagus.x509.templates import Contents


def _birth(
    hospital: Site, *, in_subject: str | None = None, in_module: str | None = None, model: str | None = None
) -> PathCertificate:
    contents = Contents(
        profile=pack().profiles["idevid"],
        public_key=decode_public_key(spki(new_key())),
        subject_der=encode_subject(SubjectFields("Acme", model, serial_number=in_subject)),
        serial=draw_serial(hospital.forge.entropy),
        not_before=NOON,
        not_after=None,
        hardware_module=None if in_module is None else HardwareModule(HARDWARE_TYPE, in_module.encode()),
        crl_url=f"{STATUS_URL}/crl/line/1/0.crl",
    )
    return decode_certificate(hospital.forge.sign(contents, hospital.line.facts, hospital.line.key))


def _identity(hospital: Site, leaf: PathCertificate) -> AcceptedIdentity:
    """What the validator says of a birth certificate whose chain holds."""
    return AcceptedIdentity(
        device_name=None,
        leaf_sha256=leaf.sha256,
        issuer_der=leaf.issuer.der,
        serial=leaf.serial,
        not_after=leaf.not_after,
        path=(leaf,),
        anchor_sha256=decode_certificate(hospital.maker_root.der).sha256,
    )


def _refused(hospital: Site, leaf: PathCertificate) -> Reason:
    return reason_of(_found, hospital, leaf, error=NotAuthorised)


def _found(hospital: Site, leaf: PathCertificate) -> DeviceId:
    with hospital.stock.database.reading() as connection:
        return find_idevid_device(connection, _identity(hospital, leaf)).id


def test_the_serial_is_read_from_the_subject_and_from_the_module(hospital: Site) -> None:
    assert maker_serials(_birth(hospital, in_subject="A1")) == {"A1"}
    assert maker_serials(_birth(hospital, in_module="A1")) == {"A1"}
    assert maker_serials(_birth(hospital, in_subject="A1", in_module="A1")) == {"A1"}
    assert _birth(hospital, in_subject="A1").subject.texts(ORGANISATION) == ["Acme"]


def test_no_serial_or_two_of_them_belong_to_no_device(hospital: Site) -> None:
    assert _refused(hospital, _birth(hospital)) is Reason.IDENTITY_MISSING
    assert _refused(hospital, _birth(hospital, in_subject="A1", in_module="A2")) is Reason.IDENTITY_AMBIGUOUS


def test_a_serial_that_two_models_share_needs_the_model_in_the_certificate(hospital: Site) -> None:
    device = hospital.stock.add("TWIN-1")
    with hospital.stock.database.writing() as connection:
        pump = present(find_model(connection, "pump"))
        put_model(connection, ModelRow("pump-2", "Acme", "infusion-pump", "bedside", pump.anchor_sha256))
        other = replace(device, model="pump-2", id=type(device.id).draw(hospital.forge.entropy))
        insert_devices(connection, [other])
    assert _refused(hospital, _birth(hospital, in_subject="TWIN-1")) is Reason.NOT_IN_INVENTORY
    assert _refused(hospital, _birth(hospital, in_subject="TWIN-1", model="scale")) is Reason.NOT_IN_INVENTORY
    assert _found(hospital, _birth(hospital, in_subject="TWIN-1", model="pump-2")) == other.id


def test_a_serial_of_another_model_of_the_same_maker_belongs_to_no_device(hospital: Site) -> None:
    """Makers number each model from one: a scale's birth certificate must not enrol as the pump of that number."""
    device = hospital.stock.add("ONE-1")
    with hospital.stock.database.writing() as connection:
        pump = present(find_model(connection, "pump"))
        put_model(connection, ModelRow("smart-scale", "Acme", "wearable", "wearable", pump.anchor_sha256))
    assert _refused(hospital, _birth(hospital, in_subject="ONE-1", model="smart-scale")) is Reason.NOT_IN_INVENTORY
    for model in ("pump", None, "Infusion division"):  # a unit that names no model of this maker says nothing
        assert _found(hospital, _birth(hospital, in_subject="ONE-1", model=model)) == device.id
