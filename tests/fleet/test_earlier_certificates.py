"""Certificates that an imported unit CA issued before: their devices go on at gateways, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.simulator.enrolment import Site, new_site, peer, request
from tests.simulator.installation import BY, GROUP
from tests.simulator.installation import ICU as PLANNED
from tests.simulator.refusals import refuses
from tests.simulator.stock import ER
from tests.x509 import chains
from tests.x509.chains import AT, CA_USAGE, CLIENT_AUTH, DAY, Ext, Listed, Made, basic, purposes, san
from vagus.errors import Conflict, Malformed, VagusError
from vagus.fleet.admission import Admission, Admitted, ListenerRules, Validators
from vagus.fleet.database_status import DatabaseStatus
from vagus.fleet.device_anchors import device_anchors
from vagus.fleet.earlier_certificates import TakeInReport, take_in
from vagus.fleet.enrolment.enrol import EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import CurrentCertificate
from vagus.fleet.lifecycle import DeviceState
from vagus.policy.values import Function
from vagus.reasons import Reason
from vagus.records.authorities import find_generation, list_authorities
from vagus.records.devices import DeviceRow, find_device
from vagus.trust.validation import Validator
from vagus.wire.openssl_index import IndexLine, decode_index
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.pem import encode_certificates

OLD_ROOT = chains.root("O=Old Clinic,CN=Root", private=chains.key("p384", 1))
RULES = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP, units=frozenset({"h1/icu"}))
_numbers = iter(range(1, 1000))


class OldUnit:
    """A hospital that took over the CA of h1/icu, and what that CA had issued."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.stock.clock.set(AT)
        self.ca = chains.make(
            "O=Old Clinic,CN=CA", [basic(path_length=0), CA_USAGE], issuer=OLD_ROOT, private=chains.key("p384", 2),
            not_after=AT + 3000 * DAY,
        )  # fmt: skip

    def import_ca(self, *revoked: Listed) -> None:
        pkcs8 = self.ca.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        crl = chains.crl(self.ca, revoked, number=7)
        pem = encode_certificates([self.ca.der, OLD_ROOT.der])
        found = self.site.stock.hierarchy.import_authority(PLANNED, pem, pkcs8, None, crls=[crl], by=BY)
        assert found == ("h1/icu#2", len(revoked))

    def issue(self, subject: str, *names: str, extensions: Sequence[Ext] = (), **changes: Any) -> Made:
        """A client certificate of the old CA."""
        wanted = [chains.LEAF_USAGE, purposes(CLIENT_AUTH)]
        wanted += [san(*(("dns", name) for name in names))] if names else []
        given: dict[str, Any] = {"issuer": self.ca, "private": chains.key("p256", 900 + next(_numbers)), **changes}
        return chains.make(subject, list(extensions) or wanted, **given)

    def take(self, *made: Made, index: Sequence[IndexLine] | None = None) -> TakeInReport:
        row = self.site.stock.read(find_generation, "h1/icu", 2)
        assert row is not None
        files = [(f"{number}.pem", one.der) for number, one in enumerate(made)]
        return take_in(self.site.stock.writer, row, files, index, at=self.site.stock.clock.now(), by=BY)

    def admitted(self, made: Made, rules: ListenerRules = RULES) -> Admitted:
        """The verdict of a listener with the anchors that listeners have."""
        stock = self.site.stock
        status = DatabaseStatus(stock.database, self.site.follower, bound=timedelta(hours=24))
        anchors, known = device_anchors(stock.read(list_authorities), "h1", sorted(rules.units or ()), GROUP)
        validators = Validators(Validator(anchors, status, known=known))
        admission = Admission(stock.database, stock.pack, stock.clock, validators, find_earlier=status.find_earlier)
        return admission.admit(peer(made.der, self.ca.der, OLD_ROOT.der), rules)

    def admit(self, made: Made, rules: ListenerRules = RULES) -> str | Reason:
        """The device that a gateway admits, or why it refuses."""
        try:
            device = self.admitted(made, rules).device
        except VagusError as refusal:
            return refusal.reason
        assert device is not None
        return device.maker_serial

    def add(self, serial: str, **more: Any) -> DeviceRow:
        return self.site.stock.add(serial, **more)

    def state(self, device: DeviceRow) -> str:
        found = self.site.stock.read(find_device, device.id)
        assert found is not None
        return found.state


@pytest.fixture
def old() -> Iterator[OldUnit]:
    with new_site() as site:
        yield OldUnit(site)


@pytest.mark.parametrize("way", ["common name", "serial number", "host name", "first label", "identity", "other case"])
def test_a_device_goes_on_by_its_earlier_certificate(old: OldUnit, way: str) -> None:
    pump = old.add("SN-1", host_names=("pump.old.example",))
    old.add("SN-2")
    made = {
        "common name": lambda: old.issue("O=Old Clinic,CN=SN-1"),
        "serial number": lambda: old.issue("CN=an old pump,SERIAL=SN-1"),
        "host name": lambda: old.issue("CN=a pump", "pump.old.example"),
        "first label": lambda: old.issue("CN=a pump", "sn-1.icu.old.example", "also.old.example"),
        "identity": lambda: old.issue("CN=a pump", old.site.name(pump)),
        "other case": lambda: old.issue("CN=sn-1"),
    }[way]()
    old.import_ca()
    assert old.admit(made) is Reason.NOT_ISSUED
    report = old.take(made)
    assert [(one.device, one.reason) for one in report.certificates] == [(pump.id.text, None)]
    assert old.admit(made) == "SN-1"
    assert old.state(pump) == DeviceState.COMMISSIONED
    assert old.take(made) == report, "a repetition changes nothing"
    twin = old.issue("CN=SN-1", serial=made.parsed.serial)
    assert old.admit(twin) is Reason.NOT_ISSUED, "these bytes alone"
    other = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP, units=frozenset({"h1/er"}))
    assert old.admit(made, other) in {Reason.NO_PATH, Reason.WRONG_COMPARTMENT}


def test_with_an_earlier_certificate_a_device_enrols_anew_and_does_not_renew(old: OldUnit) -> None:
    """Its next certificate has other names, and a renewal keeps the names (RFC 7030 4.2.2)."""
    pump = old.add("SN-1")
    made = old.issue("CN=SN-1", "pump.old.example")
    old.import_ca()
    assert not old.take(made).refused
    rules = ListenerRules(function=None, group_domain=GROUP, units=frozenset({"h1/icu"}), needs_certificate=False)
    evidence, at = CurrentCertificate(old.admitted(made, rules)), old.site.stock.clock.now()
    same = request(subject=made.der, dns_names=("pump.old.example",))
    with refuses(Reason.NAMES_CHANGED, Conflict):
        old.site.enrolment.enrol(EnrolmentRequest(csr=same, kind=Kind.RENEW, evidence=evidence, protocol="est"), at)
    asked = EnrolmentRequest(csr=request(), kind=Kind.ENROL, evidence=evidence, protocol="est")
    issued = old.site.enrolment.enrol(asked, at)
    assert decode_certificate(issued.der).names.dns == (old.site.name(pump),)


def test_a_revoked_one_is_refused_with_its_reason_and_later_revocations_count(old: OldUnit) -> None:
    old.add("SN-1")
    old.add("SN-2")
    stolen, good = old.issue("CN=SN-1"), old.issue("CN=SN-2")
    old.import_ca(Listed(stolen.parsed.serial, 1))
    report = old.take(stolen, good)
    assert [one.reason for one in report.certificates] == [Reason.REVOKED, None]
    assert (old.admit(stolen), old.admit(good)) == (Reason.REVOKED, "SN-2")
    assert [one.file for one in report.refused] == ["0.pem"]
    authority = old.site.stock.read(find_generation, "h1/icu", 2)
    assert authority is not None
    old.site.revocations.revoke(authority.id, good.parsed.serial, RevocationReason.SUPERSEDED, by=BY).result()
    assert old.admit(good) is Reason.REVOKED


@pytest.mark.parametrize(("code", "second"), [(1, Reason.KEY_REUSE), (4, None)])
def test_a_second_certificate_for_a_key_that_was_lost_is_not_taken_in(
    old: OldUnit, code: int, second: Reason | None
) -> None:
    """`openssl ca` certifies the same request again, and its operators revoke by serial."""
    old.add("SN-1")
    key = chains.key("p256", 5001)
    later, lost = old.issue("CN=SN-1", private=key), old.issue("CN=SN-1", private=key)
    old.import_ca(Listed(lost.parsed.serial, code))
    report = old.take(later, lost)
    assert [one.reason for one in report.certificates] == [second, Reason.REVOKED]
    assert old.admit(later) == ("SN-1" if second is None else Reason.NOT_ISSUED)


def test_a_device_with_a_certificate_on_hold_goes_on_by_no_earlier_one(old: OldUnit) -> None:
    old.add("SN-1")
    old.import_ca()
    first, later = old.issue("CN=SN-1"), old.issue("CN=SN-1")
    assert not old.take(first).refused
    authority = old.site.stock.read(find_generation, "h1/icu", 2)
    assert authority is not None
    old.site.revocations.hold(authority.id, first.parsed.serial, by=BY).result()
    assert [one.reason for one in old.take(later).certificates] == [Reason.ON_HOLD]
    old.site.revocations.release(authority.id, first.parsed.serial, by=BY).result()
    assert not old.take(later).refused


REFUSED: dict[str, Reason] = {
    "no device": Reason.NOT_IN_INVENTORY,
    "a device of another unit": Reason.NOT_IN_INVENTORY,
    "two devices": Reason.IDENTITY_AMBIGUOUS,
    "expired": Reason.EXPIRED,
    "a CA": Reason.PROFILE_VIOLATION,
    "for servers": Reason.ROLE_FORBIDDEN,
    "of another CA": Reason.NO_PATH,
    "a serial of 0": Reason.PROFILE_VIOLATION,
    "a key of another device": Reason.KEY_REUSE,
    "a device on hold": Reason.DEVICE_STATE,
    "a recalled device": Reason.DEVICE_STATE,
    "an identity in another unit": Reason.WRONG_COMPARTMENT,
}


def _refused(old: OldUnit, kind: str, pump: DeviceRow) -> Made:
    """A certificate of a kind that is not taken in, with the state of the inventory that goes with it."""
    inventory, key = old.site.stock.inventory, chains.key("p256", 5000)
    client = (chains.LEAF_USAGE, purposes(CLIENT_AUTH))
    made: dict[str, Callable[[], Made]] = {
        "no device": lambda: old.issue("CN=SN-9"),
        "two devices": lambda: old.issue("CN=SN-1", "SN-2"),
        "expired": lambda: old.issue("CN=SN-1", not_after=AT - DAY),
        "a CA": lambda: old.issue("CN=SN-1", extensions=[basic(), chains.usage(0, 5, 6), purposes(CLIENT_AUTH)]),
        "for servers": lambda: old.issue("CN=SN-1", extensions=[chains.LEAF_USAGE, purposes(chains.SERVER_AUTH)]),
        "of another CA": lambda: chains.make("CN=SN-1", client, issuer=OLD_ROOT),
        "a serial of 0": lambda: old.issue("CN=SN-1", serial=0),
        "a key of another device": lambda: old.issue("CN=SN-1", private=key),
        "an identity in another unit": lambda: old.issue("CN=SN-1", old.site.name(pump, ER)),
    }
    if kind == "a device of another unit":
        inventory.transfer(pump.id, ER, by=BY).result()
    elif kind == "a device on hold":
        inventory.hold(pump.id, by=BY).result()
    elif kind == "a recalled device":
        inventory.lock_out(pump.id, RevocationReason.KEY_COMPROMISE, by=BY).result()
    elif kind == "a key of another device":
        assert not old.take(old.issue("CN=SN-2", private=key)).refused
    return made.get(kind, lambda: old.issue("CN=SN-1"))()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_gateway_may_admit_is_not_taken_in_and_its_neighbour_is(old: OldUnit, kind: str) -> None:
    pump = old.add("SN-1")
    old.add("SN-2")
    old.import_ca()
    made = _refused(old, kind, pump)
    report = old.take(made, old.issue("CN=SN-2"))
    (refused,) = report.refused
    assert (refused.file, refused.reason) == ("0.pem", REFUSED[kind])
    assert refused.message
    assert old.admit(made) != "SN-1"


def test_a_file_that_is_no_certificate_keeps_none_out(old: OldUnit) -> None:
    old.add("SN-1")
    old.import_ca()
    row = old.site.stock.read(find_generation, "h1/icu", 2)
    assert row is not None
    files = [("junk.pem", b"junk"), ("good.pem", old.issue("CN=SN-1").der)]
    report = take_in(old.site.stock.writer, row, files, None, at=AT, by=BY)
    assert [(one.file, one.reason) for one in report.refused] == [("junk.pem", Reason.NON_DER)]


def test_an_index_revokes_what_it_revokes_and_names_what_has_no_file(old: OldUnit) -> None:
    for serial in ("SN-1", "SN-2", "SN-3"):
        old.add(serial)
    known, unknown, gone = (old.issue(f"CN=SN-{number}") for number in (1, 2, 3))
    index = (
        f"V\t290101000000Z\t\t{known.parsed.serial:X}\tunknown\t/CN=SN-1\n"
        f"R\t290101000000Z\t260102030405Z,keyCompromise\t{gone.parsed.serial:X}\tunknown\t/CN=SN-3\n"
        "V\t290101000000Z\t\tABCD\tunknown\t/CN=SN-9\n"
        "E\t250101000000Z\t\tABCE\tunknown\t/CN=SN-10\nV\t250101000000Z\t\tABCF\tunknown\t/CN=SN-11\n"
    )
    old.import_ca()
    report = old.take(known, unknown, gone, index=decode_index(index.encode()))
    assert report.revoked == 1
    assert [one.reason for one in report.certificates if one.file == ""] == [Reason.NOT_FOUND]
    assert {one.file: one.reason for one in report.certificates if one.file} == {
        "0.pem": None,
        "1.pem": Reason.NOT_ISSUED,
        "2.pem": Reason.REVOKED,
    }
    assert [old.admit(one) for one in (known, unknown, gone)] == ["SN-1", Reason.NOT_ISSUED, Reason.REVOKED]


def test_an_authority_that_was_made_here_takes_in_nothing(old: OldUnit) -> None:
    row = old.site.stock.read(find_generation, "h1/icu", 1)
    assert row is not None
    with refuses(Reason.NOT_ISSUED, Conflict):
        take_in(old.site.stock.writer, row, [], None, at=AT, by=BY)


@pytest.mark.parametrize(
    "line",
    [
        "V\t290101000000Z\t\t01\tunknown",
        "X\t290101000000Z\t\t01\tunknown\t/CN=a",
        "V\t290101000000Z\t\t\tunknown\t/CN=a",
        "V\t290101000000Z\t\t-1\tunknown\t/CN=a",
        "R\t290101000000Z\t\t01\tunknown\t/CN=a",
        "R\t290101000000Z\tsoon\t01\tunknown\t/CN=a",
        "R\t290101000000Z\t260101000000Z,boredom\t01\tunknown\t/CN=a",
        "V\t290101000000Z\t260101000000Z\t01\tunknown\t/CN=a",
        "V 290101000000Z 01 unknown /CN=a",
        "V\tsome day\t\t01\tunknown\t/CN=a",
    ],
)
def test_an_index_with_a_line_that_may_hide_a_revocation_is_refused_whole(line: str) -> None:
    good = "V\t290101000000Z\t\t01\tunknown\t/CN=a\n"
    with pytest.raises(Malformed, match="line 2 of the index"):
        decode_index((good + line).encode())


def test_openssl_words_for_reasons_are_read() -> None:
    lines = "".join(
        f"R\t290101000000Z\t{date}\t{number:02X}\tunknown\t/CN=a\r\n"
        for number, date in enumerate(
            ("260102030405Z", "260102030405Z,holdInstruction,holdInstructionReject", "20260102030405Z,CAkeyTime,x"), 1
        )
    )
    at, end = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2029, 1, 1, tzinfo=UTC)
    expected = (RevocationReason.UNSPECIFIED, RevocationReason.CERTIFICATE_HOLD, RevocationReason.CA_COMPROMISE)
    assert decode_index(lines.encode()) == tuple(IndexLine(n, end, at, reason) for n, reason in enumerate(expected, 1))
