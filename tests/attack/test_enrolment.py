"""Who might get a certificate that is not theirs: every credential bent, borrowed, replayed or raced."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.simulator.attacked import Credential, Hospital, est, request
from tests.simulator.orders import common_name, new_key
from vagus.authority.revocation import hold_device, release_device
from vagus.fleet.lifecycle import DeviceState
from vagus.identifiers import UnitName
from vagus.operations.devices import find_named
from vagus.records.certificates import list_of_device
from vagus.records.devices import set_device_host_names

BY = "operator:test"


def _alive(hospital: Hospital, device: object) -> list[str]:
    with hospital.installation.database.reading() as connection:
        return [row.state for row in list_of_device(connection, str(device))]


def test_a_held_device_gets_no_way_around_its_hold(hospital: Hospital) -> None:
    device, _ = hospital.enrolled()
    token = hospital.token(device)
    hospital.installation.writer.submit(lambda batch: hold_device(batch, str(device.id), by=BY)).result()
    assert hospital.enrol(request(new_key()), who=hospital.aorta.idevid(device.maker_serial)).reason == "ON_HOLD"
    assert hospital.enrol(request(new_key()), token=token).reason == "ON_HOLD"
    hospital.installation.writer.submit(lambda batch: release_device(batch, str(device.id), by=BY)).result()
    assert hospital.enrol(request(new_key()), token=token).status == 200
    assert _alive(hospital, device.id).count("held") == 0


@pytest.mark.parametrize("is_enrolled", [True, False])
def test_a_revoked_device_is_locked_out_by_every_road(hospital: Hospital, is_enrolled: bool) -> None:
    device, credential = hospital.enrolled() if is_enrolled else (hospital.device(), None)
    token = hospital.token(device)
    hospital.revoke(device)
    idevid = hospital.aorta.idevid(device.maker_serial)
    assert hospital.enrol(request(new_key()), who=idevid).reason == "DEVICE_STATE"
    assert hospital.enrol(request(new_key()), token=token).reason in {"TOKEN_EXPIRED", "DEVICE_STATE"}
    if credential is not None:
        for operation in ("simpleenroll", "simplereenroll"):
            again = request(new_key(), credential.leaf)
            assert hospital.enrol(again, who=credential, operation=operation).status == 403


def test_a_token_makes_one_certificate(hospital: Hospital) -> None:
    device = find_named(hospital.installation.database, "Aorta IP3:AIP3-009001")
    token, key = hospital.token(device), new_key()
    first = hospital.enrol(request(key), token=token)
    assert hospital.enrol(request(key), token=token).certificate == first.certificate
    assert hospital.enrol(request(key), token=token, operation="server/simpleenroll").reason == "TOKEN_SPENT"
    hospital.installation.inventory.transfer(device.id, UnitName.parse("h1/er"), by=BY).result()
    assert hospital.enrol(request(key), token=token).reason == "TOKEN_SPENT"


def test_a_hundred_keys_race_for_one_token_and_one_wins(hospital: Hospital) -> None:
    device = hospital.device()
    token = hospital.token(device)
    wishes = [request(new_key()) for _ in range(100)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda wish: hospital.enrol(wish, token=token), wishes))
    won = [answer for answer in answers if answer.status == 200]
    assert len(won) == 1
    assert {answer.reason for answer in answers if answer.status != 200} == {"TOKEN_REUSED"}
    assert len(_alive(hospital, device.id)) == 1


def test_one_key_races_with_itself_and_gets_one_certificate(hospital: Hospital) -> None:
    device, wish = hospital.device(), request(new_key())
    token = hospital.token(device)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: hospital.enrol(wish, token=token), range(32)))
    assert len({answer.certificate.serial_number for answer in answers}) == 1


def test_quarantine_races_with_renewals_and_nothing_is_issued_behind_it(hospital: Hospital) -> None:
    device, credential = hospital.enrolled()
    over, wins = threading.Event(), []

    def renew() -> None:
        while not over.is_set():
            wish = est(request(new_key(), credential.leaf), operation="simplereenroll")
            try:
                with hospital.connect("enrol-h1", credential) as wire:
                    answer = wire.say(wish).hear()
            except OSError:  # cut in the middle of its handshake
                continue
            if answer is not None and answer.status == 200:
                wins.append(answer.certificate)

    threads = [threading.Thread(target=renew) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(wins) < 4:
        over.wait(0.01)
    hospital.revoke(device)
    over.wait(0.5)
    over.set()
    for thread in threads:
        thread.join()
    assert set(_alive(hospital, device.id)) == {"revoked"}


# Whose credential is it


def test_a_token_beside_another_devices_certificate_is_refused(hospital: Hospital) -> None:
    _, credential = hospital.enrolled()
    victim = hospital.device()
    answer = hospital.enrol(request(new_key()), token=hospital.token(victim), who=credential)
    assert (answer.status, answer.reason) == (403, "IDENTITY_AMBIGUOUS")
    assert hospital.enrol(request(new_key()), token=hospital.token(victim), user="a" * 26).status in {200, 403}


def test_a_token_does_not_help_a_renewal(hospital: Hospital) -> None:
    device, credential = hospital.enrolled()
    wish = request(new_key(), credential.leaf)
    answer = hospital.enrol(wish, token=hospital.token(device), operation="simplereenroll")
    assert answer.reason == "NOT_RENEWABLE"


def test_names_of_another_device_are_refused_in_a_renewal_and_ignored_in_an_enrolment(hospital: Hospital) -> None:
    _, victim = hospital.enrolled()
    _, credential = hospital.enrolled()
    wish = request(new_key(), victim.leaf)
    answer = hospital.enrol(wish, who=credential, operation="simplereenroll")
    assert (answer.status, answer.reason) == (400, "NAMES_CHANGED")
    assert hospital.enrol(wish, who=credential).certificate.subject == credential.leaf.subject


def test_anothers_key_cannot_be_certified_by_replaying_its_request(hospital: Hospital) -> None:
    device, key = hospital.device(), new_key()
    wish = request(key)
    assert hospital.enrol(wish, token=hospital.token(device)).status == 200
    _, credential = hospital.enrolled()
    assert hospital.enrol(wish, who=credential).reason == "KEY_REUSE"


def test_a_registration_authority_without_a_token_enrols_nobody(hospital: Hospital) -> None:
    own = find_named(hospital.installation.database, "Aorta IP3:AIP3-000090")
    key = new_key()
    first = hospital.enrol(request(key), token=hospital.token(own))
    authority = Credential(key, [first.certificate, *hospital.above("h1/icu")])
    assert hospital.enrol(request(new_key()), who=authority).reason == "CREDENTIAL_MISSING"
    victim = hospital.device()
    assert hospital.enrol(request(new_key()), who=authority, user=str(victim.id), token="").status == 401
    wish = request(new_key())
    assert hospital.enrol(wish, who=authority, user=str(own.id), token=hospital.token(victim)).status == 403
    assert hospital.enrol(wish, who=authority, token=hospital.token(victim)).status == 200
    # another hospital's token at this listener
    foreign = hospital.device("h2/icu")
    answer = hospital.enrol(request(new_key()), who=authority, token=hospital.token(foreign))
    assert answer.reason == "WRONG_COMPARTMENT"


# Birth certificates


def test_a_maker_speaks_for_its_own_models_alone(hospital: Hospital) -> None:
    pump, monitor = hospital.device(), hospital.device(model="Borea M1")
    assert hospital.enrol(request(new_key()), who=hospital.borea.idevid(pump.maker_serial)).status == 403
    spoofed = hospital.borea.idevid(pump.maker_serial, unit="Aorta IP3")
    assert hospital.enrol(request(new_key()), who=spoofed).reason == "NOT_IN_INVENTORY"
    assert hospital.enrol(request(new_key()), who=hospital.borea.idevid(monitor.maker_serial)).status == 200
    assert hospital.enrol(request(new_key()), who=hospital.aorta.idevid(pump.maker_serial)).status == 200


def test_a_birth_certificate_with_two_serials_is_refused(hospital: Hospital) -> None:
    first, second = hospital.device(), hospital.device()
    both = hospital.aorta.idevid(first.maker_serial, second.maker_serial)
    assert hospital.enrol(request(new_key()), who=both).reason == "IDENTITY_AMBIGUOUS"


@pytest.mark.parametrize(
    "bend",
    [
        str.lower,
        lambda text: text + " ",
        lambda text: text + "\0",
        lambda text: text[:-1] + "%",
        lambda text: text[:-1] + "_",
    ],
    ids=["case", "space", "nul", "percent", "underscore"],
)
def test_a_bent_serial_finds_nobody(hospital: Hospital, bend: object) -> None:
    victim = hospital.stock["h1/icu:Aorta IP3"][-1]
    odd = x509.NameAttribute(NameOID.SERIAL_NUMBER, bend(victim.maker_serial), _ASN1Type.UTF8String)  # type: ignore[operator]
    who = hospital.aorta.idevid(attributes=[odd])
    assert hospital.enrol(request(new_key()), who=who).status in {400, 403}


def test_a_birth_certificate_opens_nothing_but_enrolment(hospital: Hospital) -> None:
    who = hospital.aorta.idevid(hospital.device().maker_serial)
    assert hospital.enrol(request(new_key()), who=who, operation="simplereenroll").status == 403
    for listener in ("control-h1-icu", "telemetry-h1-icu"):
        with hospital.connect(listener, who) as wire:
            assert wire.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 403
    who = hospital.aorta.idevid(hospital.device("h2/icu").maker_serial)
    assert hospital.enrol(request(new_key()), who=who).reason == "WRONG_COMPARTMENT"


def test_a_server_certificate_renews_itself_and_opens_nothing_else(hospital: Hospital) -> None:
    device, key = hospital.device(), new_key()
    names = (f"server-{device.maker_serial.lower()}.h1.group.example",)
    hospital.installation.writer.submit(
        lambda batch: set_device_host_names(batch.connection, device.id, names, at=batch.at)
    ).result()
    answer = hospital.enrol(request(key), token=hospital.token(device), operation="server/simpleenroll")
    leaf = answer.certificate
    who, alone = Credential(key, [leaf, hospital.authority("h1/infra")]), Credential(key, [leaf])
    for shown in (who, alone):
        renewed = hospital.enrol(request(new_key(), leaf), who=shown, operation="server/simplereenroll")
        assert renewed.certificate.subject == leaf.subject
    assert hospital.enrol(request(new_key(), leaf), who=who, operation="simplereenroll").reason == "NOT_RENEWABLE"
    for operation in ("simpleenroll", "server/simpleenroll"):
        assert hospital.enrol(request(new_key(), leaf), who=who, operation=operation).reason == "CREDENTIAL_MISSING"
    for listener in ("control-h1-icu", "telemetry-h1-icu"):
        with hospital.connect(listener, who) as wire:
            assert wire.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 403
    elsewhere = hospital.enrol(
        request(new_key(), leaf), who=who, operation="server/simplereenroll", listener="enrol-h3"
    )
    assert elsewhere.status == 403
    hospital.revoke(device)
    assert hospital.enrol(request(new_key(), leaf), who=who, operation="server/simplereenroll").status == 403


def test_a_decommissioned_device_comes_back_by_no_road(hospital: Hospital) -> None:
    device, credential = hospital.enrolled()
    token = hospital.token(device)
    hospital.installation.inventory.change_state(device.id, DeviceState.DECOMMISSIONED, by=BY).result()
    assert hospital.enrol(request(new_key()), token=token).status in {401, 403}
    assert hospital.enrol(request(new_key()), who=hospital.aorta.idevid(device.maker_serial)).reason == "DEVICE_STATE"
    assert hospital.enrol(request(new_key(), credential.leaf), who=credential).status == 403


# Paths, headers, bodies


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/est/Server/simpleenroll",
        "/.well-known/est/server%2fsimpleenroll",
        "/.well-known/est/server/../simpleenroll",
        "/.well-known/est/server;x/simpleenroll",
        "/.well-known/est/h1%2Ficu/simpleenroll",
        "/.well-known/est//simpleenroll",
        "/.well-known/est/simpleenroll/",
        "/.well-known/EST/simpleenroll",
        "/.well-known/est/%00/simpleenroll",
        "/.well-known/est/serverkeygen",
        "/.well-known/est/fullcmc",
        "/log/../vagus.toml",
        "/log/%2e%2e/vagus.sqlite3",
        "/log/tile/entries/000",
        "//.well-known/est/simpleenroll",
    ],
)
def test_a_bent_path_leads_nowhere(hospital: Hospital, path: str) -> None:
    raw = est(request(new_key()), token="x").replace(b"/.well-known/est/simpleenroll", path.encode())
    with hospital.connect("enrol-h1") as wire:
        answer = wire.ask(raw)
    # a label that stands percent-encoded is decoded once, by the server, and still needs its credential
    assert answer.status in {401, 404}, answer


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Basic",
        "Authorization: Basic ====",
        "Authorization: Basic " + base64.b64encode(b"no colon").decode(),
        "Authorization: Basic " + "QQ" * 3000,
        "Authorization: Bearer abc",
        "Authorization: Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        "Authorization: basic " + base64.b64encode(b":" + b"-" * 32).decode(),
        "Authorization: Basic " + base64.b64encode(b":" + "\u0131".encode() * 16).decode(),
        "Proxy-Authorization: Basic YTpi",
        "X-Forwarded-Client-Cert: Hash=abc",
        "Client-Cert: :AAAA:",
        "SSL-Client-Verify: SUCCESS",
    ],
)
def test_a_bent_credential_is_none(hospital: Hospital, header: str) -> None:
    answer = hospital.enrol(request(new_key()), headers=[header])
    assert answer.status in {400, 401}, answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"A",
        b"\x30",
        b"\x30\x84\xff\xff\xff\xff",
        b"MA==",
        b"\x30\x80" * 3000,
        b"M" + b"A" * 60000,
        b"\x30" * 65000,
    ],
)
def test_a_bad_body_is_the_clients_fault(hospital: Hospital, body: bytes) -> None:
    answer = hospital.enrol(body, token=hospital.token(hospital.stock["h1/icu:Aorta IP3"][-1]))
    assert answer.status in {400, 413}, answer


def test_a_megabyte_is_refused_before_it_is_read(hospital: Hospital) -> None:
    device = hospital.stock["h1/icu:Aorta IP3"][-1]
    assert hospital.enrol(b"A" * 1_000_000, token=hospital.token(device)).status == 413


def test_what_the_request_asks_for_is_not_in_the_certificate(hospital: Hospital) -> None:
    device, key = hospital.device(), new_key()
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(common_name("root"))
        .add_extension(x509.BasicConstraints(True, 9), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("enrol.attacked.example")]), critical=False)
    )
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    got = hospital.enrol(base64.b64encode(der), token=hospital.token(device)).certificate
    names = got.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"{device.id}.icu.h1.attacked.example"]
    assert not got.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
