"""A listener that cannot be served: plan check and apply refuse it, and at a start it alone stays shut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.simulator import plans
from tests.simulator.processes import serving
from tests.simulator.running import denied, done, findings, run

ENROL = plans.listener("enrol", "enrolment", "enrol.h1.test.example", hospital="h1")
HOME = {"models": [plans.model(), plans.model(plans.GATEWAY, category="device-gateway", prefix="KGW")]}
KNOWN = f"{plans.PUMP}:AIP3-000003"
ISSUE = ("--issue-for", "h1/icu,h1/infra", "--passphrase-source", "env:TEST_PASSPHRASE")


def plan(*listeners: object, **more: Any) -> str:
    rows = [plans.devices("icu", 1, 3), *([plans.devices("icu", 1, 1, plans.GATEWAY)] if more else [])]
    return plans.hospital_plan(
        plans.hospital(*rows), status_url="http://127.0.0.1:1", listeners=[plans.STATUS, *listeners], **more
    )


def listener(name: str, **more: object) -> dict[str, object]:
    return {**ENROL, "name": name, **more}


SHUT = {
    "TLS 1.2 with gateways": (plan(listener("old", tls_minimum="1.2"), **HOME), "listeners.old.tls_minimum"),
    "the same address": (
        plan(listener("one", address="127.0.0.1:18443"), listener("two", address="0.0.0.0:18443")),
        "is the address of listener one too",
    ),
    "a label that no certificate has": (plan(listener("odd", host_names=["ab--c.test.example"])), "is no A-label"),
    "an unknown registration authority": (
        plan(listener("ra", registration_authorities=[f"{plans.PUMP}:AIP3-000009"])),
        "neither in the plan nor in the inventory",
    ),
}
GOOD = {
    "TLS 1.2 without gateways": plan(listener("old", tls_minimum="1.2")),
    "two ports, and a free one twice": plan(
        listener("one", address="127.0.0.1:18443"), listener("two", address="127.0.0.1:18444"), ENROL, listener("three")
    ),
    "the same port of two protocols": plan(
        listener("one", address="127.0.0.1:18443"), listener("two", address="[::1]:18443")
    ),
    "an A-label": plan(listener("odd", host_names=["xn--bcher-kva.test.example"])),
    "a registration authority of the plan": plan(
        listener("ra", registration_authorities=[f"{plans.PUMP}:AIP3-000003"])
    ),
}


@pytest.mark.parametrize("case", SHUT)
def test_check_and_apply_refuse_a_plan_that_serve_would_not_open(hospital: Path, tmp_path: Path, case: str) -> None:
    text, says = SHUT[case]
    file, before = tmp_path / "next.toml", (hospital / "plan.toml").read_bytes()
    file.write_text(text)
    denied(hospital, 2, "BAD_PLAN", "plan", "check", str(file), says=(says,))
    denied(hospital, 2, "BAD_PLAN", "plan", "apply", str(file), "--yes", says=(says,))
    assert (hospital / "plan.toml").read_bytes() == before


@pytest.mark.parametrize("case", GOOD)
def test_check_takes_the_twin_that_serve_opens(hospital: Path, tmp_path: Path, case: str) -> None:
    file = tmp_path / "next.toml"
    file.write_text(GOOD[case])
    done(hospital, "plan", "check", str(file))


def test_a_title_that_no_authority_can_carry_is_found_before_anything_is_made(fresh: Path, tmp_path: Path) -> None:
    file = tmp_path / "next.toml"
    for length, code in ((64 - len(" Infrastructure CA"), 0), (60, 2)):
        file.write_text(plan(ENROL).replace("First Hospital", "F" * length))
        assert run(fresh, "plan", "check", str(file)).code == code


def adopt(folder: Path, text: str) -> None:
    """As an earlier release did, which checked less."""
    (folder / "plan.toml").write_text(text)


def test_the_doctor_names_the_listener_that_is_not_served(hospital: Path) -> None:
    assert [one["state"] for one in findings(hospital, "plan")] == ["well"]
    adopt(hospital, SHUT["a label that no certificate has"][0])
    (found,) = findings(hospital, "plan", fails=True)
    assert (found["state"], "listener odd is not served" in found["finding"]) == ("failing", True)


@pytest.mark.process
def test_at_a_start_healthy_listeners_open_and_the_others_are_named_until_they_are_mended(hospital: Path) -> None:
    with (hospital / "vagus.toml").open("a") as settings:
        settings.write('health = "[::1]:0"\nprobe = "off"\n')
    away = listener("away", address="192.0.2.1:18443", host_names=["away.test.example"])
    adopt(hospital, plan(ENROL, listener("odd", host_names=["ab--c.test.example"]), away))
    with serving(hospital, *ISSUE) as served:
        assert set(served.addresses) == {"status", "enrol", "health"}
        assert served.ready["listeners"]["health"].startswith("[::1]:")
        status, body = served.request("GET", "/health", listener="health")
        health = json.loads(body)
        assert (status, health["status"]) == (200, "degraded")
        assert "is no A-label" in health["lacks"]["listener odd"]
        assert "cannot listen on 192.0.2.1:18443" in health["lacks"]["listener away"]
        metrics = served.request("GET", "/metrics", listener="health")[1].decode()
        assert 'vagus_lacks{what="listener odd"} 1.0' in metrics
        assert "listener odd is not opened: listeners.odd.host_names" in served.log()
        adopt(hospital, plan(ENROL, listener("odd", host_names=["odd.test.example"])))
        assert set(served.reload()["listeners"]) == {"status", "enrol", "odd", "health"}
        assert json.loads(served.request("GET", "/health", listener="health")[1])["status"] == "well"
