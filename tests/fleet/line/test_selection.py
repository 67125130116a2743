"""Which devices of the line are meant: lots, serial numbers and lists that people and their spreadsheets write."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator import plans
from tests.simulator.refusals import refuses
from vagus.errors import Malformed
from vagus.fleet.line.selection import ChosenSerials, LineSelection, ListedSerial, PlannedSerial, decode_serials
from vagus.policy.plans import MakerPlan, decode_plan
from vagus.reasons import Reason

PUMP, HUB = plans.PUMP, "Aorta Hub"
MODELS = [plans.model(maker=""), plans.model(HUB, maker="", category="home-hub", prefix="AHU-2")]
LOTS = [plans.batch(3), plans.batch(2, first=10, name="lot-2"), plans.batch(2, name="hubs", model=HUB)]


def plan(*, models: object = None, batches: object = None) -> MakerPlan:
    found = decode_plan(plans.maker_plan(models=models or MODELS, batches=batches or LOTS).encode(), "maker.toml")
    assert isinstance(found, MakerPlan)
    return found


def serials(raw: bytes) -> list[str]:
    return [one.serial for one in decode_serials(raw)]


# lists

TAKEN = {
    "a serial number a line": b"X-1\nX-2\n",
    "a header": b"serial\nX-1\nX-2\n",
    "a header in capital letters": b"Serial Number\r\nX-1\r\nX-2\r\n",
    "S/N as header": b"S/N\nX-1\nX-2",
    "a byte order mark": b"\xef\xbb\xbfserial\nX-1\nX-2\n",
    "a byte order mark without header": b"\xef\xbb\xbfX-1\nX-2\n",
    "semicolons": b"no;serial;date\n1;X-1;2026\n2;X-2;2026\n",
    "tabs": b"no\tserial\n1\tX-1\n2\tX-2\n",
    "commas and quotes": b'"serial","note"\n"X-1","a, b"\n"X-2",""\n',
    "blanks around": b" serial , note\n  X-1  , a\n X-2 ,\n",
    "empty lines": b"\n\nserial\n\nX-1\n , \n  \nX-2\n\n",
    "a trailing semicolon": b"X-1;\nX-2;\n",
    "old line ends": b"serial\rX-1\rX-2\r",
    "a short last line": b"serial,note\nX-1,a\nX-2",
    "serial numbers that begin as the header": b"X-1\nX-2",
}


@pytest.mark.parametrize("how", TAKEN)
def test_a_list_is_read_as_spreadsheets_and_people_write_it(how: str) -> None:
    assert serials(TAKEN[how]) == ["X-1", "X-2"]


def test_a_first_serial_number_is_not_taken_for_a_header() -> None:
    assert serials(b"SN-000123\nSN-000124\n") == ["SN-000123", "SN-000124"]


def test_a_list_may_name_models() -> None:
    assert decode_serials(b"model;serial\nAorta Hub;X-1\n;X-2\n") == (
        ListedSerial("X-1", HUB, 2),
        ListedSerial("X-2", None, 3),
    )


REFUSED = {
    "nothing": (b"", "no serial number"),
    "blank lines": (b"\n \n;;\n", "no serial number"),
    "a header alone": (b"serial,model\n", "no serial number"),
    "no serial in a line": (b"serial,note\nX-1,a\n,b\n", "line 3 of the list: ''"),
    "a line that is too short": (b"note,serial\na,X-1\nb\n", "line 3 of the list: ''"),
    "the same one twice": (b"X-1\nX-2\nX-1\n", "line 3 of the list has serial X-1 again, first in line 1"),
    "the same one in small letters": (
        b"serial\nX-1\nx-1\n",
        "line 3 of the list has serial x-1 again, first in line 2",
    ),
    "the same one after blanks": (b"X-1\n  X-1 \n", "line 2 of the list has serial X-1 again"),
    "a long one": (b"X-1\n" + b"7" * 65 + b"\n", "line 2 of the list: '7777.*1-64 letters"),
    "another header": (b"Seriennummer\nX-1\n", "line 1 of the list: 'Seriennummer'.*name the column 'serial'"),
    "columns without a header": (b"X-1,Aorta IP3\nX-2,Aorta IP3\n", "line 1 of the list has more cells"),
    "a path": (b"X-1\n../X-2\n", "line 2 of the list: '../X-2'"),
    "an absolute path": (b"/etc/x1\n", "line 1"),
    "two points": (b"serial\n..\n", "line 2"),
    "a point at the end": (b"X1.\n", "line 1"),
    "a blank inside": (b"X 1\n", "line 1"),
    "a line with more cells": (b"serial,note\nX-1,a\nX-2,a,b\n", "line 3 of the list has more cells"),
    "a number of a spreadsheet": (b"serial\n1,23E+05\n", "line 2"),
    "no digit": (b"serial\nPUMP\n", "line 2 of the list: 'PUMP'"),
    "letters of another script": ("serial\nX-\u0661\n".encode(), "line 2"),
    "a control character": (b"serial\nX-1\x07\n", "line 2"),
    "a zero byte": (b"serial\nX-1\x00\n", "line 2"),
    "UTF-16": ("serial\nX-1\n".encode("utf-16"), "UTF-16"),
    "another encoding": (b"serial\nX-1\nX-\xfc2\n", "line 3 of the list is not UTF-8"),
    "a quote that does not end": (b'serial\n"X-1\nX-2\n', "no CSV"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_list_with_a_fault_is_refused_with_its_line(how: str) -> None:
    raw, finding = REFUSED[how]
    with refuses(Reason.BAD_ENCODING, Malformed, match=finding):
        decode_serials(raw)


@settings(max_examples=30)
@given(st.lists(st.from_regex(r"\A[A-Z][0-9]{1,8}\Z"), min_size=1, unique=True), st.sampled_from([",", ";", "\t"]))
def test_every_serial_number_of_a_list_is_read_in_order(named: list[str], separator: str) -> None:
    text = "".join(f"{at}{separator}{one}\r\n" for at, one in enumerate(named))
    assert serials(f"no{separator}serial\r\n{text}".encode()) == named
    assert serials("\n".join(named).encode()) == named


# what is chosen


def test_nothing_named_means_the_whole_plan() -> None:
    chosen = ChosenSerials(plan(), LineSelection())
    assert len(chosen) == len(list(chosen)) == 7
    assert list(chosen)[-1] == PlannedSerial("AHU-2-000002", HUB, "hubs")
    assert chosen.find("AIP3-000011") == PlannedSerial("AIP3-000011", PUMP, "lot-2")
    assert (chosen.find("AIP3-000012"), chosen.find("AHU-000001"), chosen.is_named) == (None, None, False)


def test_lots_and_serial_numbers_narrow_each_other() -> None:
    one = ChosenSerials(plan(), LineSelection(lots=["lot-2"]))
    assert [each.serial for each in one] == ["AIP3-000010", "AIP3-000011"]
    assert (len(one), one.find("AIP3-000001")) == (2, None)
    two = ChosenSerials(plan(), LineSelection(lots=["lot-2"], serials=["AIP3-000011"]))
    assert (list(two), len(two), two.is_named) == ([PlannedSerial("AIP3-000011", PUMP, "lot-2")], 1, True)
    with refuses(Reason.BAD_ARGUMENT, Malformed, match="AIP3-000001 is of batch lot-1, which is not selected"):
        ChosenSerials(plan(), LineSelection(lots=["lot-2"], serials=["AIP3-000001"]))


@pytest.mark.parametrize(
    "serial", ["AIP3-000012", "AIP3-12", "aip3-000001", "AHU-000001", "X-1", "", "AIP3-" + "1" * 99]
)
def test_a_serial_number_of_no_batch_is_refused_unless_it_was_certified(serial: str) -> None:
    with refuses(Reason.BAD_ARGUMENT, Malformed, match="is in no batch of the plan"):
        ChosenSerials(plan(), LineSelection(serials=[serial]))
    made = ChosenSerials(plan(), LineSelection(serials=[serial]), made=frozenset({serial}))
    assert list(made) == [PlannedSerial(serial, "", None)]


def test_an_unknown_lot_is_refused_with_those_there_are() -> None:
    with refuses(Reason.BAD_ARGUMENT, Malformed, match="no batch 'lot-9'; its batches are lot-1, lot-2, hubs"):
        ChosenSerials(plan(), LineSelection(lots=["lot-9"]))


def listed(*lines: tuple[str, str | None]) -> LineSelection:
    return LineSelection(listed=[ListedSerial(serial, model, at) for at, (serial, model) in enumerate(lines, 1)])


def test_a_list_may_have_serial_numbers_of_the_makers_own() -> None:
    single = plan(models=MODELS[:1], batches=LOTS[:1])
    assert list(ChosenSerials(single, listed(("X-1", None), ("AIP3-000002", None)))) == [
        PlannedSerial("X-1", PUMP, None),
        PlannedSerial("AIP3-000002", PUMP, "lot-1"),
    ]
    assert list(ChosenSerials(plan(), listed(("X-1", HUB)))) == [PlannedSerial("X-1", HUB, None)]


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        (("X-1", None), "X-1 has no model; give it one in a column 'model': Aorta IP3, Aorta Hub"),
        (("X-1", "Toaster"), "'Toaster', which the plan lacks"),
        (("AIP3-000002", HUB), "is of model Aorta IP3 in the plan, and the list says 'Aorta Hub'"),
        (("AIP3-000099", PUMP), "has the form of the plan"),
        (("AHU-2-000099", None), "has the form of the plan"),
        (("aip3-000001", PUMP), "has the form of the plan"),
        (("AIP3-0000001", PUMP), "has the form of the plan"),
    ],
)
def test_a_line_that_contradicts_the_plan_is_refused(line: tuple[str, str | None], finding: str) -> None:
    with refuses(Reason.BAD_ARGUMENT, Malformed, match=f"line 1 of the list: serial .*{finding}"):
        ChosenSerials(plan(), listed(line))


def test_a_list_within_a_lot_has_serial_numbers_of_that_lot_alone() -> None:
    within = LineSelection(lots=["lot-1"], listed=listed(("AIP3-000002", None)).listed)
    assert [one.lot for one in ChosenSerials(plan(), within)] == ["lot-1"]
    with refuses(Reason.BAD_ARGUMENT, Malformed):
        ChosenSerials(plan(), LineSelection(lots=["lot-1"], listed=listed(("X-1", PUMP)).listed))


@given(st.integers(1, 1_000_000), st.integers(1, 1_000_000))
def test_the_ranges_of_a_lot_hold_its_serial_numbers_and_no_other(first: int, count: int) -> None:
    found = plan(batches=[plans.batch(count, first=first)])
    ranges, (lot,) = ChosenSerials(found, LineSelection(lots=["lot-1"])).ranges, found.batches
    assert all(len(low) == len(high) and low <= high for low, high in ranges)
    last = first + count - 1
    for counter in (first - 1, first, min(first + 1, last), 999_999, 1_000_000, last, last + 1):
        serial = found.serial(lot, counter)
        is_within = any(len(serial) == len(low) and low <= serial <= high for low, high in ranges)
        assert is_within is (first <= counter <= last) is (found.batch_of(serial) is not None)
