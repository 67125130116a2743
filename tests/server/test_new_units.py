"""A new unit in a running hospital: its listeners take it by themselves, and no other listener or process does."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from tests.simulator import plans
from tests.simulator.attacked import Wire, est, request
from tests.simulator.listeners import Response
from tests.simulator.orders import new_key
from tests.simulator.processes import Served, serving
from tests.simulator.running import done
from tests.simulator.waiting import wait_until
from vagus.identifiers import DeviceId
from vagus.wiring import Installation

SOURCE = ("--passphrase-source", "env:TEST_PASSPHRASE")


def plan(*units: str, enrol: str = "enrol.h1.test.example") -> str:
    rows = [plans.devices(unit, first, 3) for unit, first in zip(units, (1, 101), strict=False)]
    listeners = [
        plans.STATUS,
        plans.listener("enrol", "enrolment", enrol, hospital="h1"),
        plans.listener("narrow", "enrolment", "narrow.h1.test.example", hospital="h1", units=["icu"]),
    ]
    return plans.hospital_plan(plans.hospital(*rows, units=units), status_url="http://127.0.0.1:1", listeners=listeners)


def apply(folder: Path, text: str) -> str:
    file = folder.parent / "next.toml"
    file.write_text(text)
    return done(folder, "plan", "apply", str(file), "--yes", "--ceremony").out


def token_of(folder: Path, unit: str) -> str:
    listed = json.loads(done(folder, "device", "list", "--unit", unit, "--json").out)
    with Installation.open(folder, passphrase_sources=["env:TEST_PASSPHRASE"]) as opened:
        return opened.tokens.make(DeviceId(listed[0]["id"]), by="operator:test").result().text


def post(served: Served, listener: str, token: str) -> Response:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Wire(context.wrap_socket(Wire(served.port(listener)).socket)) as wire:
        return wire.ask(est(request(new_key()), token=token))


@pytest.mark.process
@pytest.mark.parametrize("issue_for", ["h1", "all"])
def test_listeners_and_issuers_of_a_named_hospital_take_a_new_unit_without_a_signal(
    hospital: Path, issue_for: str
) -> None:
    apply(hospital, plan("icu"))
    with serving(hospital, "--issue-for", issue_for, *SOURCE) as served:
        said = apply(hospital, plan("icu", "er"))
        assert "with --issue-for h1 it takes them by itself" in said
        assert "SIGHUP" not in said
        wait_until(lambda: "with its new units" in served.log() and "h1/er#1 came" in served.log(), "the new unit")
        token = token_of(hospital, "h1/er")
        refused = post(served, "narrow", token)
        assert refused.status == 403, "a listener that names its units takes no other"
        assert post(served, "enrol", token).status == 200
        assert post(served, "narrow", token_of(hospital, "h1/icu")).status == 200


@pytest.mark.process
def test_a_process_with_a_list_of_names_issues_for_no_other_unit(hospital: Path) -> None:
    apply(hospital, plan("icu"))
    with serving(hospital, "--issue-for", "h1/icu,h1/infra", *SOURCE) as served:
        said = apply(hospital, plan("icu", "er", enrol="other.h1.test.example"))
        assert "restart it with --issue-for ...,h1/er;" in said
        assert "systemctl reload vagus (SIGHUP), for listeners that changed: enrol" in said
        wait_until(lambda: "send SIGHUP" in served.log(), "the note")
        token = token_of(hospital, "h1/er")
        assert post(served, "enrol", token).status == 403, "a listener that changes otherwise waits for the signal"
        served.reload()
        late = post(served, "enrol", token)
        assert (late.status, b"--issue-for" in late.body) == (503, True)
