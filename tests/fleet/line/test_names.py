"""A request may say what it likes about its device, as long as it names no other one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator import plans
from tests.simulator.refusals import refuses
from vagus.errors import PolicyRefusal
from vagus.fleet.line.names import LineNames, Named
from vagus.policy.plans import decode_plan
from vagus.reasons import Reason
from vagus.x509.names.requested import RequestedNames

if TYPE_CHECKING:
    from vagus.policy.plans import MakerPlan

MODELS = [
    plans.model(maker=""),
    plans.model("Aorta IP30", maker="", prefix="AIP30"),
    plans.model("Aorta Hub 2", maker="", category="home-hub", prefix="AHU-2"),
]
PLAN = cast(
    "MakerPlan", decode_plan(plans.maker_plan(models=MODELS, batches=[plans.batch(500)]).encode(), "maker.toml")
)
LINE = LineNames(PLAN)
PUMP = Named("AIP3-000401", "Aorta IP3", "Aorta Devices")


def requested(
    *, serials: tuple[str, ...] = (), names: tuple[str, ...] = (), others: tuple[str, ...] = ()
) -> RequestedNames:
    return RequestedNames(list(serials), list(names), list(others))


AGREES = {
    "nothing": requested(),
    "the serial number": requested(serials=("AIP3-000401",)),
    "the serial number as common name": requested(names=("AIP3-000401",)),
    "in small letters": requested(serials=("aip3-000401",)),
    "with blanks": requested(serials=(" AIP3 000401 ",)),
    "without its hyphen": requested(serials=("AIP3000401",)),
    "with a dash of another kind": requested(serials=("AIP3\u2013000401",)),
    "in full-width letters": requested(serials=("\uff21\uff29\uff30\uff13-000401",)),
    "within a longer text": requested(serials=("PID:IP3 SN:AIP3-000401",), names=("Aorta IP3 AIP3-000401",)),
    "after SN": requested(names=("SNAIP3-000401",)),
    "as a host name": requested(names=("aip3-000401.devices.example",)),
    "as a URI": requested(names=("urn:dev:ser:AIP3-000401",)),
    "beside the model": requested(serials=("AIP3-000401",), names=("Aorta IP3",)),
    "beside a fixed text": requested(serials=("AIP3-000401",), names=("device", "pump.local")),
    "twice": requested(serials=("AIP3-000401", "AIP3-000401"), names=("AIP3-000401",)),
    "model and maker alone": requested(names=("AORTA IP3", "Aorta Devices")),
    "organisation and unit": requested(others=("Aorta Devices", "Aorta IP3", "Line 7", "CH")),
    "an empty name": requested(serials=("",), names=("-",)),
    "digits in an address": requested(others=("Aorta Road 000400",)),
}

NAMES_ANOTHER = {
    "another serial number": (requested(serials=("AIP3-000400",)), "'AIP3-000400'"),
    "another one as common name": (requested(names=("AIP3-000400",)), "'AIP3-000400'"),
    "in small letters": (requested(names=("aip3-000400",)), "'aip3-000400'"),
    "with blanks": (requested(names=("AIP3 000400",)), "'AIP3 000400'"),
    "without its hyphen": (requested(names=("AIP3000400",)), "'AIP3000400'"),
    "within a longer text": (requested(serials=("PID:IP3 SN:AIP3-000400",)), "AIP3-000400"),
    "beside the right one": (requested(serials=("AIP3-000401", "AIP3-000400")), "'AIP3-000400'"),
    "beside the right one in a name": (requested(serials=("AIP3-000401",), names=("AIP3-000400",)), "'AIP3-000400'"),
    "beside the right one in one text": (requested(names=("AIP3-000401 AIP3-000400",)), "AIP3-000400"),
    "one digit more": (requested(serials=("AIP3-0004011",)), "'AIP3-0004011'"),
    "of another model": (requested(serials=("AIP30-000401",)), "'AIP30-000401'"),
    "of a model with a hyphen": (requested(serials=("AHU-2-000401",)), "'AHU-2-000401'"),
    "in no batch": (requested(serials=("AIP3-900000",)), "'AIP3-900000'"),
    "as a unit": (requested(others=("AIP3-000400",)), "'AIP3-000400'"),
    "as a host name": (requested(names=("aip3-000400.devices.example",)), "aip3-000400"),
    "another model": (requested(names=("Aorta Hub 2",)), "model 'Aorta Hub 2'"),
    "another model as unit": (requested(serials=("AIP3-000401",), others=("aorta hub 2",)), "model 'aorta hub 2'"),
}

FIXED_TEXT = {
    "a fixed common name": (requested(names=("device",)), ("device",)),
    "a fixed serial number": (requested(serials=("0",)), ("0",)),
    "an unknown serial number": (requested(serials=("B7-000400",)), ("B7-000400",)),
    "an unknown one beside the right one": (requested(serials=("AIP3-000401", "X9")), ("X9",)),
    "a hardware module's bytes": (requested(serials=("01ff",)), ("01ff",)),
    "a shorter counter": (requested(serials=("AIP3-401",)), ("AIP3-401",)),
    "a part of the serial number": (requested(names=("000401",)), ("000401",)),
    "host names": (requested(names=("pump.local", "10.0.0.1.example")), ("pump.local", "10.0.0.1.example")),
}


@pytest.mark.parametrize("case", AGREES)
def test_a_request_that_names_its_device_or_none_is_accepted(case: str) -> None:
    assert LINE.check(AGREES[case], PUMP, ignores_text=False) == ()


@pytest.mark.parametrize("ignores_text", [False, True])
@pytest.mark.parametrize("case", NAMES_ANOTHER)
def test_a_request_that_names_another_device_is_refused_with_both_names(case: str, ignores_text: bool) -> None:
    found, named = NAMES_ANOTHER[case]
    with refuses(Reason.NAME_MISMATCH, PolicyRefusal, match="and the file is for AIP3-000401") as refusal:
        LINE.check(found, PUMP, ignores_text=ignores_text)
    assert named in refusal.value.message


@pytest.mark.parametrize("case", FIXED_TEXT)
def test_text_that_is_no_serial_number_of_the_line_needs_the_option(case: str) -> None:
    found, ignored = FIXED_TEXT[case]
    with refuses(Reason.NAME_MISMATCH, PolicyRefusal, match="--ignore-names") as refusal:
        LINE.check(found, PUMP, ignores_text=False)
    assert ignored[0] in refusal.value.message
    assert "AIP3-000401" in refusal.value.message
    assert LINE.check(found, PUMP, ignores_text=True) == ignored


def test_serial_numbers_of_a_list_are_known_as_those_of_other_devices() -> None:
    line, device = LineNames(PLAN, ["X-1", "x-2", "7"]), Named("X-1", "Aorta IP3", "Aorta Devices")
    assert line.check(requested(serials=("x 1",), others=("7th floor",)), device, ignores_text=False) == ()
    for other in (requested(serials=("X-2",)), requested(names=("CN=X-2",)), requested(others=("7",))):
        with refuses(Reason.NAME_MISMATCH, PolicyRefusal):
            line.check(other, device, ignores_text=True)


@given(st.integers(1, 1_999_999), st.integers(1, 1_999_999), st.sampled_from(["", "-", " ", "_", " - ", "."]))
def test_two_counters_agree_only_if_they_are_equal(one: int, other: int, between: str) -> None:
    device = Named(f"AIP3-{one:06d}", "Aorta IP3", "Aorta Devices")
    found = requested(names=(f"AIP3{between}{other:06d}",))
    if one == other:
        assert LINE.check(found, device, ignores_text=False) == ()
    else:
        with refuses(Reason.NAME_MISMATCH, PolicyRefusal):
            LINE.check(found, device, ignores_text=True)


@pytest.mark.parametrize("piece", ["aip3", "aip3-", "ahu-", "-", "sn", "0", "a "])
def test_a_long_text_costs_no_more_than_its_length(piece: str) -> None:
    found = requested(names=(piece * (60_000 // len(piece)),))
    LINE.check(found, PUMP, ignores_text=True)
