"""The TLS listeners of a founded hospital: renewed while they serve, and changed only where another plan differs."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.simulator.enrolment import wish
from tests.simulator.listeners import serving
from tests.simulator.refusals import reason_of, refuses
from tests.x509.chains import Made, crl, root
from vagus.authority.crls.publisher import forget_future_dates
from vagus.authority.issuers import OpenIssuers
from vagus.errors import Conflict, Misconfigured, NotTrusted, Unavailable
from vagus.fleet.admission import ListenerRules
from vagus.fleet.devices import NewDevice
from vagus.fleet.enrolment.enrol import Enrolment
from vagus.fleet.lifecycle import DeviceState
from vagus.identifiers import UnitName
from vagus.operations.doctor.findings import Finding, State
from vagus.policy.plans import HospitalPlan, decode_plan
from vagus.policy.values import ServiceKeys
from vagus.reasons import Reason
from vagus.records.authorities import list_authorities
from vagus.records.certificates import list_of_key
from vagus.records.devices import DeviceRow
from vagus.records.models import MakerAnchorRow, put_maker_anchor
from vagus.records.publications import list_publications, put_publication
from vagus.server.listeners.building import BuiltListeners, ListenerBuilder
from vagus.tls import Peer
from vagus.wiring import Installation, RealClock
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.keys import read_key_algorithm

BY = "operator:test"
SOURCE = "env:TEST_PASSPHRASE"


class LateClock(RealClock):
    """The system's clock, so much later."""

    def __init__(self) -> None:
        self.later = timedelta()

    def now(self) -> datetime:
        return super().now() + self.later


def builder_of(installation: Installation, plan: HospitalPlan, issuers: OpenIssuers) -> ListenerBuilder:
    """A builder whose listeners staple nothing."""
    return ListenerBuilder(
        installation,
        plan,
        issuers,
        record=print,
        note_seen=lambda _listener, _admitted: None,
        staple_of=lambda _certificate: lambda: b"",
    )


def adopted_plan(installation: Installation) -> HospitalPlan:
    plan = installation.planning.load_adopted()
    assert isinstance(plan, HospitalPlan)
    return plan


class Built:
    """A hospital's listeners, built and not yet open."""

    def __init__(self, folder: Path) -> None:
        self.installation = Installation.open(folder, passphrase_sources=[SOURCE])
        self.clock = self.installation.clock = LateClock()
        self.plan = adopted_plan(self.installation)
        self.issuers = self.installation.open_issuers(["h1/icu", "h1/infra"])
        self.builder = builder_of(self.installation, self.plan, self.issuers)
        self.listeners: BuiltListeners = self.builder.build()

    def changed(self, before: str, after: str) -> HospitalPlan:
        """The plan with other words."""
        text = self.installation.settings.plan.read_text()
        assert before in text
        plan = decode_plan(text.replace(before, after, 1).encode(), "plan.toml")
        assert isinstance(plan, HospitalPlan)
        return plan


@pytest.fixture
def built(hospital: Path) -> Iterator[Built]:
    made = Built(hospital)
    with closing(made.installation):
        yield made


def add_device(built: Built, serial: str, **more: Any) -> Future[DeviceRow]:
    new = NewDevice(unit=UnitName("h1", "icu"), model="Aorta IP3", maker_serial=serial, **more)
    return built.installation.inventory.add(new, by=BY)


def connect(port: int) -> ssl.SSLSocket:
    """A client that verifies nothing: what is shown is what counts here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(
        socket.create_connection(("127.0.0.1", port), 10), server_hostname="enrol.h1.test.example"
    )


def shown_by(port: int) -> x509.Certificate:
    with connect(port) as client:
        der = client.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def until_window(built: Built, shown: x509.Certificate) -> timedelta:
    """How long it is until that certificate should be renewed."""
    window = built.installation.pack.renewal.window_of(shown.not_valid_after_utc - shown.not_valid_before_utc)
    return shown.not_valid_after_utc - window - built.clock.now()


def test_another_policy_pack_gives_listeners_another_kind_of_key(built: Built) -> None:
    before = built.listeners.tls[0].certificate.certificate_der
    pack = built.installation.pack
    keys = ServiceKeys(listener=KeyAlgorithm.MLDSA65)
    for service_keys, kind in ((keys, KeyAlgorithm.MLDSA65), (pack.service_keys, KeyAlgorithm.P256)):
        built.installation.pack = replace(pack, service_keys=service_keys)
        issuance = built.installation.open_issuers(["h1/icu", "h1/infra"])
        again = builder_of(built.installation, built.plan, issuance).build().tls[0].certificate.certificate_der
        assert read_key_algorithm(decode_certificate(again).spki_der) is kind
        assert (again == before) is (kind is KeyAlgorithm.P256), "the earlier key and its certificate serve again"


def test_a_listener_gets_a_new_certificate_in_its_window_without_a_restart(built: Built) -> None:
    (listener,) = built.listeners.tls
    with serving(*built.listeners.specs) as served, connect(served.port("enrol")) as open_before:
        first = shown_by(served.port("enrol"))
        assert not built.builder.renew(listener)
        built.clock.later = until_window(built, first) - timedelta(hours=1)
        assert not built.builder.renew(listener), "an hour before its window"
        built.clock.later += timedelta(hours=2)
        assert built.builder.renew(listener)
        second = shown_by(served.port("enrol"))
        assert second.serial_number != first.serial_number
        assert second.not_valid_after_utc > first.not_valid_after_utc
        assert not built.builder.renew(listener), "once is enough"
        open_before.sendall(b"GET /nothing HTTP/1.1\r\nhost: enrol.h1.test.example\r\n\r\n")
        assert open_before.recv(20).startswith(b"HTTP/1.1 ")


def test_a_listener_shows_no_certificate_from_a_clock_that_was_ahead(built: Built) -> None:
    """It begins in months; once the clock is right, the one before it holds again, or a new one does."""
    (listener,) = built.listeners.tls
    first = x509.load_der_x509_certificate(listener.certificate.certificate_der)
    built.clock.later = until_window(built, first) + timedelta(hours=2)
    assert built.builder.renew(listener)
    built.clock.later = timedelta()
    assert built.builder.renew(listener)
    assert listener.certificate.serial == first.serial_number
    revoke_shown(built, RevocationReason.SUPERSEDED)
    assert built.builder.renew(listener)
    third = x509.load_der_x509_certificate(listener.certificate.certificate_der)
    assert third.not_valid_before_utc <= built.clock.now() < third.not_valid_after_utc


def test_a_listener_whose_certificate_was_revoked_gets_another(built: Built) -> None:
    (listener,) = built.listeners.tls
    before = listener.certificate.serial
    key = revoke_shown(built, RevocationReason.SUPERSEDED)
    assert built.builder.renew(listener)
    assert listener.certificate.serial != before
    assert decode_certificate(listener.certificate.certificate_der).spki_sha256 == key


def test_a_listener_whose_key_was_compromised_gets_another_key_each_time(built: Built) -> None:
    (listener,) = built.listeners.tls
    with serving(*built.listeners.specs) as served:
        keys = {revoke_shown(built, RevocationReason.KEY_COMPROMISE)}
        assert built.builder.renew(listener)
        keys.add(revoke_shown(built, RevocationReason.KEY_COMPROMISE))
        assert built.builder.renew(listener)
        newest = decode_certificate(listener.certificate.certificate_der)
        assert len({*keys, newest.spki_sha256}) == 3
        assert shown_by(served.port("enrol")).serial_number == newest.serial
    assert not built.builder.renew(listener), "and keeps the one that is good"
    again = built.builder.build()
    assert again.tls[0].certificate.serial == newest.serial, "after a restart too"


def revoke_shown(built: Built, reason: RevocationReason) -> bytes:
    """Revoke the certificate that the listener shows; returns the hash of its key."""
    (listener,) = built.listeners.tls
    shown = decode_certificate(listener.certificate.certificate_der)
    with built.installation.database.reading() as connection:
        rows = list_of_key(connection, shown.spki_sha256)
    (row,) = [row for row in rows if row.serial == shown.serial]
    built.installation.revocations.revoke(row.authority_id, row.serial, reason, by="operator:test").result(10)
    return shown.spki_sha256


def test_a_renewal_without_an_open_key_names_the_authority(hospital: Path) -> None:
    with Installation.open(hospital, passphrase_sources=[SOURCE]) as installation:
        builder = builder_of(installation, adopted_plan(installation), installation.open_issuers(["h1/icu"]))
        with refuses(Reason.KEY_NOT_OPEN, Unavailable, match="add it to --issue-for"):
            builder.build()


def test_another_plan_touches_only_the_listeners_that_it_changes(built: Built) -> None:
    more = built.changed(
        '[[listeners]]\nname = "enrol"',
        '[[listeners]]\nname = "second"\nkind = "enrolment"\naddress = "127.0.0.1:0"\nhospital = "h1"\n'
        'host_names = ["second.h1.test.example", "127.0.0.1"]\n[[listeners]]\nname = "enrol"',
    )
    ready = built.builder.prepare(more, built.listeners)
    assert ([one.name for one in ready.opened], ready.closed) == (["second"], ())
    assert [one.name for one in built.listeners.specs] == ["enrol"], "not in force yet"
    listeners = built.builder.adopt(ready)
    assert [one.name for one in listeners.specs] == ["enrol", "second"]
    assert listeners.tls[0] is built.listeners.tls[0]

    other_address = built.changed('host_names = ["enrol.h1.test.example"]', 'host_names = ["127.0.0.2"]')
    ready = built.builder.prepare(other_address, listeners)
    assert ([one.name for one in ready.opened], set(ready.closed)) == (["enrol"], {"enrol", "second"})


def test_a_plan_that_cannot_be_served_leaves_everything_as_it_was(built: Built) -> None:
    strange = built.changed(
        'host_names = ["enrol.h1.test.example"]',
        'host_names = ["enrol.h1.test.example"]\nregistration_authorities = ["Aorta IP3:AIP3-999999"]',
    )
    with refuses(Reason.BAD_PLAN, Misconfigured):
        built.builder.prepare(strange, built.listeners)
    again = built.builder.prepare(built.plan, built.listeners)
    assert (again.opened, again.closed) == ((), ())


def test_a_listener_of_old_tls_is_not_opened_to_devices_that_no_plan_names(built: Built) -> None:
    old = built.changed('host_names = ["enrol.h1.test.example"]', 'host_names = ["127.0.0.2"]\ntls_minimum = "1.2"')
    assert [one.name for one in built.builder.prepare(old, built.listeners).opened] == ["enrol"]
    worn = add_device(built, "WORN-1", profile="wearable").result(10)
    with refuses(Reason.BAD_PLAN, Misconfigured, match="devices of profile wearable, whose cert"):
        built.builder.prepare(old, built.listeners)
    started = builder_of(built.installation, old, built.issuers)
    assert [one.name for one in started.build().specs] == ["enrol"], "one device keeps no hospital from starting"
    assert "wearable" in started.warnings["listener enrol"]
    built.installation.inventory.change_state(worn.id, DeviceState.DECOMMISSIONED, by="operator:test").result(10)
    assert built.builder.prepare(old, built.listeners), "what has ended shows no certificate any more"


def finding_of(built: Built, check: str) -> Finding:
    """What the doctor finds in one of its checks."""
    every = built.installation.operations.doctor.diagnose(built.installation.actor)
    (found,) = [one for one in every if one.check == check]
    return found


def add_maker(built: Built) -> Made:
    """A maker whose root is an anchor here."""
    maker = root("O=Maker,CN=Root")
    with built.installation.database.writing() as connection:
        put_maker_anchor(connection, MakerAnchorRow(hashlib.sha256(maker.der).digest(), "Maker", maker.der, 0))
    return maker


def write_crl(built: Built, maker: Made) -> Path:
    """A CRL of the maker that is current; returns the folder of such CRLs."""
    folder, now = built.installation.settings.folder / "makers", built.installation.clock.now()
    folder.mkdir()
    (folder / "maker.crl").write_bytes(crl(maker, this_update=now, next_update=now + timedelta(days=1)))
    return folder


def test_a_makers_new_crl_is_taken_without_a_restart_and_a_bad_one_is_reported(built: Built) -> None:
    maker = add_maker(built)
    assert built.builder.refresh(built.listeners)
    assert not built.builder.refresh(built.listeners)
    folder = write_crl(built, maker)
    assert built.builder.refresh(built.listeners)
    assert built.builder.anchors.crl_notes() == {}
    (folder / "other.crl").write_bytes(b"no list")
    assert built.builder.refresh(built.listeners)
    assert set(built.builder.anchors.crl_notes()) == {"makers/other.crl"}
    assert not built.builder.refresh(built.listeners)
    built.builder.anchors.reload_crls()
    assert built.builder.refresh(built.listeners), "an operator said so"
    found = finding_of(built, "makers' lists")
    assert (found.state, found.finding.partition(":")[0]) == (State.WARNING, "makers/other.crl")
    Built(built.installation.settings.folder).installation.close()  # nor does it stop a start
    (folder / "other.crl").unlink()
    assert built.builder.refresh(built.listeners)
    assert built.builder.anchors.crl_notes() == {}


@pytest.mark.parametrize(("name", "parent"), [("h1/icu", "h1"), ("h1", "root")])
def test_an_admitted_peer_fails_the_quick_check_once_an_authority_above_is_revoked(
    built: Built, name: str, parent: str
) -> None:
    """Also after the anchors were read again, without the revoked one."""
    installation = built.installation
    device = add_device(built, "D-1").result(10)
    parts = (installation.database, installation.writer, installation.issuance, built.issuers)
    token = installation.tokens.make(device.id, by=BY).result().text
    issued = Enrolment(*parts, group_domain="test.example").enrol(wish(token), installation.clock.now())
    (spec,) = built.listeners.specs
    assert spec.admit is not None
    peer = Peer(0x0304, "", None, None, None, resumed=False, leaf_der=issued.der, chain_der=())
    assert spec.quick_check is not None
    admitted = spec.admit(peer, "127.0.0.1")
    spec.quick_check(admitted)
    with installation.database.reading() as connection:
        rows = {row.name: row for row in list_authorities(connection)}
    serial = decode_certificate(rows[name].certificate_der or b"").serial
    installation.revocations.revoke(rows[parent].id, serial, RevocationReason.CA_COMPROMISE, by=BY).result()
    for _ in range(2):
        with refuses(Reason.REVOKED_CA, NotTrusted):
            spec.quick_check(admitted)
        built.builder.refresh(built.listeners)


def why_refused(built: Built, chain_der: tuple[bytes, ...] = ()) -> Reason:
    """Why a peer is refused that shows one byte in place of a certificate: the clock is checked first."""
    ((_, admission),) = built.listeners.admissions
    peer = Peer(0x0304, "", None, None, None, resumed=False, leaf_der=b"0", chain_der=chain_der)
    rules = ListenerRules(function=None, group_domain="test.example", units=frozenset())
    return reason_of(admission.admit, peer, rules)


def date_ahead(built: Built) -> datetime:
    """Date the CRLs of a hospital as by a clock that was 40 minutes ahead and is right again."""
    ahead = built.installation.clock.now().replace(microsecond=0) + timedelta(minutes=40)
    with built.installation.database.writing() as connection:
        for row in list_authorities(connection):
            for one in list_publications(connection, row.id):
                put_publication(connection, replace(one, this_update=int(ahead.timestamp())))
    built.builder.refresh(built.listeners)
    return ahead


def test_listeners_closed_by_the_clock_say_until_when_and_then_open_by_themselves(built: Built) -> None:
    waits: dict[str, str] = {}
    built.builder.anchors.note(waits)
    assert (waits, why_refused(built)) == ({}, Reason.NON_DER)
    ahead = date_ahead(built)
    opens_at = ahead - timedelta(minutes=5)
    built.builder.anchors.note(waits)
    assert why_refused(built) is Reason.CLOCK_ROLLBACK
    assert f"until {opens_at:%Y-%m-%d %H:%M:%S} UTC" in waits["clock"]
    found = finding_of(built, "clock")
    assert (found.state, f"until {opens_at:%Y-%m-%d %H:%M:%S}Z" in found.finding) == (State.FAILING, True)
    built.clock.later = opens_at - RealClock().now()
    built.builder.refresh(built.listeners)
    built.builder.anchors.note(waits)
    assert (waits, why_refused(built)) == ({}, Reason.NON_DER)
    assert finding_of(built, "clock").state is State.WELL


def test_a_listener_reads_no_more_certificates_than_the_longest_chain_has(built: Built) -> None:
    assert why_refused(built, (b"0",) * 32) is Reason.NON_DER
    assert why_refused(built, (b"0",) * 33) is Reason.TOO_MANY


def test_after_forget_dates_the_listeners_admit_without_a_restart(built: Built) -> None:
    date_ahead(built)
    assert why_refused(built) is Reason.CLOCK_ROLLBACK
    assert forget_future_dates(built.installation.writer, by="operator:test")
    built.builder.refresh(built.listeners)
    assert why_refused(built) is Reason.NON_DER


def test_a_makers_crl_date_closes_the_listeners_whatever_an_operator_forgets(built: Built) -> None:
    """A clock that shows less than the date of a maker's CRL is wrong, by the maker's clock."""
    write_crl(built, add_maker(built))
    assert built.builder.refresh(built.listeners)
    built.clock.later = -timedelta(minutes=10)
    forget_future_dates(built.installation.writer, by="operator:test")
    built.builder.refresh(built.listeners)
    assert why_refused(built) is Reason.CLOCK_ROLLBACK


def test_no_device_is_added_under_the_name_of_a_listener_of_the_plan_in_force(built: Built) -> None:
    with pytest.raises(Conflict, match="belongs to a listener here"):
        add_device(built, "D-1", host_names=("enrol.h1.test.example",))
