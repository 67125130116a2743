"""Plans: the shipped examples hold what they promise, and a bad file is refused with its key and the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Misconfigured
from vagus.policy.plans import AuthorityKind, HospitalPlan, MakerPlan, decode_plan, load_plan, maker_serial
from vagus.reasons import Reason

EXAMPLES = Path(__file__).parents[2] / "examples"

SMALL = """
kind = "hospital"
format = 1
[group]
title = "Test Group"
domain = "test.example"
status_url = "http://status.test.example:8080/pki"
[[hospitals]]
label = "h1"
title = "First"
units = [{label = "icu", title = "Intensive Care"}, {label = "er", title = "Emergency"}]
devices = [{unit = "icu", model = "Pump", first = 1, count = 3}]
[[models]]
name = "Pump"
maker = "Maker"
category = "infusion-pump"
serial_prefix = "P"
[[listeners]]
name = "enrol"
kind = "enrolment"
address = "127.0.0.1:0"
hospital = "h1"
host_names = ["enrol.test.example"]
"""


def decode(text: str) -> HospitalPlan | MakerPlan:
    return decode_plan(text.encode(), "plan.toml")


def small() -> HospitalPlan:
    plan = decode(SMALL)
    assert isinstance(plan, HospitalPlan)
    return plan


def test_the_five_hospitals_have_39_units_and_2000_devices() -> None:
    plan = load_plan(EXAMPLES / "five-hospitals.toml")
    assert isinstance(plan, HospitalPlan)
    assert len(plan.hospitals) == 5
    assert len(plan.units) == 39
    devices = list(plan.each_device())
    assert len(devices) == 2000
    assert len({(one.model, one.maker_serial) for one in devices}) == 2000
    assert len(plan.authorities()) == 1 + 5 * 3 + 39


def test_the_makers_batches_cover_the_devices_that_the_hospitals_expect_of_it() -> None:
    hospital, maker = load_plan(EXAMPLES / "five-hospitals.toml"), load_plan(EXAMPLES / "maker.toml")
    assert isinstance(hospital, HospitalPlan)
    assert isinstance(maker, MakerPlan)
    made = {(batch.model, serial) for batch in maker.batches for serial in maker.serials(batch)}
    of_this_maker = {model.name for model in maker.models}
    expected = {(one.model, one.maker_serial) for one in hospital.each_device() if one.model in of_this_maker}
    assert expected == made


def test_the_hierarchy_has_three_branches_per_hospital_parents_first() -> None:
    names = [(one.name, one.kind, one.parent, one.domain) for one in small().authorities()]
    assert names == [
        ("root", AuthorityKind.ROOT, None, None),
        ("h1", AuthorityKind.DEVICE_CA, "root", "h1.test.example"),
        ("h1/sdc", AuthorityKind.SDC_CA, "root", "h1.test.example"),
        ("h1/infra", AuthorityKind.INFRASTRUCTURE_CA, "root", None),
        ("h1/icu", AuthorityKind.ISSUING_CA, "h1", "icu.h1.test.example"),
        ("h1/er", AuthorityKind.ISSUING_CA, "h1", "er.h1.test.example"),
    ]


def test_a_root_elsewhere_is_no_authority_of_ours() -> None:
    plan = decode(SMALL.replace('domain = "test.example"', 'domain = "test.example"\nroot = "elsewhere"'))
    parents = {one.name: one.parent for one in plan.authorities()}
    assert parents == {"h1": None, "h1/sdc": None, "h1/infra": None, "h1/icu": "h1", "h1/er": "h1"}


def test_only_enrolment_listeners_have_registration_authorities() -> None:
    named = 'hospital = "h1"\nregistration_authorities = ["Pump:P-000001"]'
    assert decode(SMALL.replace('hospital = "h1"', named)).listeners[0].registration_authorities == (
        ("Pump", "P-000001"),
    )
    with pytest.raises(Misconfigured) as caught:
        decode(SMALL.replace('hospital = "h1"', 'registration_authorities = ["P"]\nhospital = "h1"'))
    assert caught.value.facts["key"] == "listeners[0].registration_authorities[0]"


def test_only_enrolment_listeners_have_base64() -> None:
    assert [one.base64 for one in small().listeners] == ["line"]
    wrapped = SMALL.replace('hospital = "h1"', 'hospital = "h1"\nbase64 = "wrapped"')
    assert [one.base64 for one in decode(wrapped).listeners] == ["wrapped"]
    relay = wrapped.replace('kind = "enrolment"', 'kind = "relay-tcp"\nupstream = "127.0.0.1:9"')
    with refuses(Reason.BAD_PLAN, Misconfigured, match="only an enrolment listener has it; delete the key"):
        decode(relay)
    assert decode(relay.replace('base64 = "wrapped"\n', ""))


def test_only_raw_relays_have_a_proxy_header() -> None:
    assert [one.proxy_protocol for one in small().listeners] == ["off"]
    wanted = SMALL.replace('hospital = "h1"', 'hospital = "h1"\nproxy_protocol = "v2"')
    relay = as_relay(wanted, "relay-tcp")
    assert [one.proxy_protocol for one in decode(relay).listeners] == ["v2"]
    for other in (wanted, as_relay(wanted, "relay-http")):
        with refuses(Reason.BAD_PLAN, Misconfigured, match="only a relay-tcp listener has it; delete the key"):
            decode(other)
        assert decode(other.replace('"v2"', '"off"'))


def as_relay(plan: str, kind: str) -> str:
    """The plan with a relay instead of its enrolment listener."""
    return plan.replace('kind = "enrolment"', f'kind = "{kind}"\nupstream = "127.0.0.1:9"')


def test_offline_are_roots_and_device_cas() -> None:
    offline = {kind for kind in AuthorityKind if kind.is_offline}
    assert offline == {AuthorityKind.ROOT, AuthorityKind.DEVICE_CA}


def test_a_listener_without_units_accepts_all_units_of_its_hospital() -> None:
    assert small().listeners[0].units == frozenset({"h1/icu", "h1/er"})


def test_serials_follow_from_model_and_counter() -> None:
    assert maker_serial("AIP3", 42) == "AIP3-000042"
    assert [one.maker_serial for one in small().each_device()] == ["P-000001", "P-000002", "P-000003"]


@pytest.mark.parametrize(
    ("old", "new", "key", "remedy"),
    [
        ('kind = "hospital"', 'kind = "clinic"', "kind", "say which plan this is"),
        ("format = 1", "format = 2", "format", "input should be 1"),
        ('label = "icu"', 'label = "sdc"', "hospitals[0].units[0].label", "rename the unit"),
        ('label = "icu"', 'label = "infra"', "hospitals[0].units[0].label", "reserved"),
        ('label = "icu"', 'label = "er"', "hospitals[0].units[1]", "rename or delete one"),
        ('label = "icu"', 'label = "ICU"', "hospitals[0].units[0].label", "rename it"),
        ('label = "h1"\n', 'label = "root"\n', "hospitals[0].label", "rename it"),
        ('unit = "icu"', 'unit = "or"', "hospitals[0].devices[0].unit", "name one of its units"),
        ('model = "Pump"', 'model = "Bed"', "hospitals[0].devices[0].model", "add it under [[models]]"),
        ("count = 3", "count = 0", "hospitals[0].devices[0].count", "greater than or equal to 1"),
        ("count = 3", 'count = "3"', "hospitals[0].devices[0].count", "valid integer"),
        ("count = 3", 'count = 3, host_names = ["a.b"]', "hospitals[0].devices[0].host_names", "count = 1"),
        ("count = 3", 'host_names = ["enrol.test.example"]', "hospitals[0].devices[0].host_names", "name of listener"),
        (
            "count = 3}",
            'host_names = ["a.b"]}, {unit = "icu", model = "Pump", first = 9, host_names = ["a.b"]}',
            "hospitals[0].devices[1].host_names",
            "name of hospitals[0].devices[0] already",
        ),
        (
            "count = 3}",
            'count = 3}, {unit = "er", model = "Pump", first = 3, count = 1}',
            "hospitals[0].devices[1].first",
            "begin at 4",
        ),
        ('title = "Test Group"', 'titel = "Test Group"', "group.title", "missing"),
        ('"test.example"', '"Test.Example"', "group.domain", "lower-case"),
        ('"test.example"', '"' + "a" * 60 + "." + "b" * 60 + '"', "hospitals[0].units[0].label", "shorten"),
        ("http://status", "https://status", "group.status_url", "http://"),
        ('serial_prefix = "P"', 'serial_prefix = "p q"', "models[0].serial_prefix", "A-Z"),
        ('hospital = "h1"', 'hospital = "h9"', "listeners[0].hospital", "name one"),
        ('hospital = "h1"', 'hospital = "h1"\nunits = ["or"]', "listeners[0].units", "no unit of h1"),
        ('hospital = "h1"', 'hospital = "h1"\nupstream = "a:1"', "listeners[0].upstream", "correct it"),
        ('hospital = "h1"', 'hospital = "h1"\nbase64 = "yes"', "listeners[0].base64", "'line' or 'wrapped'"),
        ('hospital = "h1"', 'hospital = "h1"\nproxy_protocol = "v1"', "listeners[0].proxy_protocol", "'off' or 'v2'"),
        ('"127.0.0.1:0"', '"127.0.0.1:65536"', "listeners[0].address", "host:port"),
        ('host_names = ["enrol.test.example"]', "", "listeners[0].host_names", "add host_names to it"),
    ],
)
def test_a_bad_plan_is_refused_with_file_key_and_remedy(old: str, new: str, key: str, remedy: str) -> None:
    assert old in SMALL
    with refuses(Reason.BAD_PLAN, Misconfigured) as caught:
        decode(SMALL.replace(old, new, 1))
    assert caught.value.facts["key"] == key
    assert str(caught.value).startswith("plan.toml: ")
    assert remedy in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert reason_of(load_plan, tmp_path / "none.toml", error=Misconfigured, match="cannot be read") is Reason.BAD_PLAN


def test_many_findings_are_counted() -> None:
    with pytest.raises(Misconfigured, match="and 2 more") as caught:
        decode(SMALL + "".join(f"x{index} = 1\n" for index in range(7)))
    assert caught.value.facts["findings"] == 7


@given(st.binary(max_size=300))
@settings(max_examples=60)
def test_any_bytes_are_a_plan_or_a_named_refusal(raw: bytes) -> None:
    assert reason_of(decode_plan, raw, "plan.toml", error=Misconfigured) is Reason.BAD_PLAN


@given(st.integers(0, len(SMALL)), st.text(max_size=4))
@settings(max_examples=60)
def test_a_plan_with_any_scratch_is_read_or_refused_by_name(at: int, scratch: str) -> None:
    try:
        decode(SMALL[:at] + scratch + SMALL[at:])
    except Misconfigured as refusal:
        assert refusal.reason is Reason.BAD_PLAN


def test_a_maker_plan_serves_status_alone() -> None:
    text = (EXAMPLES / "maker.toml").read_text().replace('kind = "status"', 'kind = "enrolment"')
    with pytest.raises(Misconfigured, match="status alone"):
        decode(text)


@pytest.mark.parametrize("key", ['"Test Group"', '"First"', '"Emergency"', '"Maker"'])
@pytest.mark.parametrize("unseen", [r"\u202e", r"\u200f", r"\u00ad", r"\u00a0", r"\u0085", r"\u3164", r"\u2028"])
def test_a_title_with_a_character_that_is_not_visible_is_refused_unless_it_is_in_force(key: str, unseen: str) -> None:
    text = SMALL.replace(key, f'{key[:-1]}{unseen}x"')
    with refuses(Reason.BAD_PLAN, match=re.escape(f"U+{unseen[2:].upper()}")):
        decode(text)
    decode_plan(text.encode(), "plan.toml", is_adopted=True)
    decode(SMALL.replace(key, f'{key[:-1]} é 病院 مستشفى"'))


@pytest.mark.parametrize("title", [" First", "First ", "", "x" * 65])
def test_a_title_that_no_subject_can_have_is_refused(title: str) -> None:
    with refuses(Reason.BAD_PLAN, match=r"hospitals\[0\]\.title"):
        decode(SMALL.replace('"First"', f'"{title}"'))


def test_a_byte_order_mark_is_passed_over_and_utf_16_is_named() -> None:
    plan = decode_plan(b"\xef\xbb\xbf" + SMALL.encode(), "plan.toml")
    assert plan.listeners == small().listeners
    with refuses(Reason.BAD_PLAN, match="it is UTF-16; save the file as UTF-8"):
        decode_plan(SMALL.encode("utf-16"), "plan.toml")


def test_a_status_url_may_name_an_ipv6_address_in_brackets() -> None:
    named = "http://status.test.example:8080/pki"
    assert decode(SMALL.replace(named, "http://[2001:db8::1]:8080/pki")).status_url == "http://[2001:db8::1]:8080/pki"
    for odd in ("http://[2001:db8:::1]", "http://2001:db8::1", "http://[status]", "http://[::1"):
        assert reason_of(decode, SMALL.replace(named, odd), error=Misconfigured) is Reason.BAD_PLAN
