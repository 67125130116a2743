"""The example plan as it stands: 2,000 devices of 39 units enrol over the EST road, in process, on little CPU."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.endpoints.calls import Answer, ask
from tests.simulator.commands import PASSPHRASE, SOURCE, found_hospital
from tests.simulator.enrolment import request_der
from tests.simulator.orders import new_key
from vagus.endpoints.est import est_app
from vagus.fleet.enrolment.enrol import Enrolment
from vagus.identifiers import DeviceId, DeviceName
from vagus.policy.plans import HospitalPlan
from vagus.records.devices import DeviceFilter, DeviceRow, list_devices
from vagus.wire import est
from vagus.wire.cms import decode_certs_only
from vagus.wiring import Installation

PLAN = Path(__file__).parents[1] / "examples" / "five-hospitals.toml"
ENROL = "/.well-known/est/simpleenroll"
CPU_SECONDS = 20


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setenv("VAGUS_TEST_PASSPHRASE", PASSPHRASE)
    folder = tmp_path / "hospital"
    found_hospital(folder, PLAN.read_text())
    with Installation.open(folder, passphrase_sources=[SOURCE]) as opened:
        yield opened


def test_two_thousand_devices_of_the_plan_enrol_in_seconds(installation: Installation) -> None:
    plan = installation.planning.load_adopted()
    assert isinstance(plan, HospitalPlan)
    devices = _devices(installation)
    assert len(devices) == 2_000
    makings = [installation.tokens.make(device.id, by="operator:test") for device in devices]
    tokens = [making.result(60).text for making in makings]
    bodies = [est.encode_body(request_der(new_key())) for _device in devices]
    issuers = installation.open_issuers(sorted({str(device.unit) for device in devices}))
    enrolment = Enrolment(
        installation.database, installation.writer, installation.issuance, issuers, group_domain=plan.domain
    )
    app = est_app(enrolment=enrolment, ca_certificates=lambda _label, _peer: (), clock=installation.clock)

    async def enrol_all() -> list[Answer]:
        gate = asyncio.Semaphore(100)

        async def one(device: DeviceRow, token: str, body: bytes) -> Answer:
            basic = est.encode_basic(est.BasicCredential(str(device.id), token))
            async with gate:
                headers = {"Content-Type": "application/pkcs10", "Authorization": basic}
                return await ask(app, "POST", ENROL, body, headers=headers)

        return await asyncio.gather(*(one(*wish) for wish in zip(devices, tokens, bodies, strict=True)))

    started = time.process_time()
    answers = asyncio.run(enrol_all())
    spent = time.process_time() - started

    issuers_of = {_check_names(device, answer) for device, answer in zip(devices, answers, strict=True)}
    assert len(issuers_of) == len({device.unit for device in devices})
    states = Counter(device.state for device in _devices(installation))
    assert states == {"commissioned": 2_000}
    assert spent < CPU_SECONDS, f"2,000 enrolments took {spent:.1f} s of CPU"


def _devices(installation: Installation) -> list[DeviceRow]:
    with installation.database.reading() as connection:
        return list(list_devices(connection, DeviceFilter(), limit=5_000))


def _check_names(device: DeviceRow, answer: Answer) -> str:
    """The certificate says who the inventory says it is, and nothing else; gives its issuer."""
    assert answer.status == 200, answer.body
    certificate = x509.load_der_x509_certificate(decode_certs_only(est.decode_body(answer.body))[0])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    domain = "five-hospitals.example"
    assert list(names) == [x509.DNSName(str(DeviceName(DeviceId(str(device.id)), device.unit, domain)))]
    return certificate.issuer.rfc4514_string()
