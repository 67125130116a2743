"""The sweep leaves turns to other tasks, renewed responders are taken over, and delta CRLs carry revocations."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from tests.endpoints.calls import call
from tests.simulator.installation import BY, SECRET
from tests.simulator.publishing import PublishingHouse
from tests.simulator.refusals import refuses
from tests.simulator.status_listeners import question
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal, open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.endpoints.revocation_status import OcspReplies, status_app
from vagus.errors import Refused
from vagus.events.revocations import RevocationFollower
from vagus.keystore.software import SoftwareKeystore
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.server import ocsp_supply
from vagus.server.ocsp_supply import OcspSupply
from vagus.x509.crls.building import RevocationReason


@pytest.fixture
def supply(house: PublishingHouse) -> OcspSupply:
    built = house.built
    return OcspSupply(house.desk, built.database, built.keystore(OCSP_KEYSTORE), built.clock)


def ask(house: PublishingHouse, issued: IssuedCertificate) -> ocsp.OCSPResponse:
    return ocsp.load_der_ocsp_response(house.desk.respond(question(issued), house.built.clock.now()).response_der)


def test_the_sweep_goes_page_by_page_from_where_it_was(
    house: PublishingHouse, supply: OcspSupply, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        house.issue()
    whole = rows.list_alive
    monkeypatch.setattr(rows, "list_alive", partial(whole, count=2))
    kept: list[int] = []
    while supply.presign() < 60.0:
        kept.append(house.desk.cached_count)
    assert kept == [2, 4, 6], "five devices and the responder's own"
    house.issue()
    while supply.presign() < 60.0:
        pass
    assert house.desk.cached_count == 7


def test_a_sweep_rests_as_long_as_it_worked_and_a_long_one_far_longer(
    house: PublishingHouse, supply: OcspSupply, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        house.issue()
    monkeypatch.setattr(rows, "list_alive", partial(rows.list_alive, count=2))
    spent = iter((0.0, 3.0, 3.0, 5.0, 5.0, 7.0, 7.0, 7.5))
    monkeypatch.setattr(ocsp_supply, "time", SimpleNamespace(thread_time=lambda: next(spent)))
    assert [supply.presign() for _ in range(4)] == [3.0, 2.0, 2.0, 7.5 * 20]
    spent = iter((0.0, 0.1) * 4)
    assert [supply.presign() for _ in range(4)] == [0.1, 0.1, 0.1, 60.0]


def test_a_sweep_of_more_than_the_cache_holds_ends(house: PublishingHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        house.issue()
    monkeypatch.setattr(rows, "list_alive", partial(rows.list_alive, count=2))
    monkeypatch.setattr(house.desk, "_most_cached", 4)
    assert [house.desk.presign_slice(house.built.clock.now()) for _ in range(4)] == [True, False, True, False]


def test_a_response_within_a_sweep_is_replaced_at_once(house: PublishingHouse, supply: OcspSupply) -> None:
    issued = house.issue()
    supply.presign()
    assert ask(house, issued).certificate_status is ocsp.OCSPCertStatus.GOOD
    house.revoke(issued)
    assert ask(house, issued).certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_a_responder_that_another_process_renewed_is_taken_over(house: PublishingHouse, supply: OcspSupply) -> None:
    issued, built = house.issue(), house.built
    (before,) = ask(house, issued).certificates
    supply.take_over()
    assert ask(house, issued).certificates == [before]
    house.advance(days=7, hours=1)
    keystore = built.keystore(OCSP_KEYSTORE)
    assert ResponderRenewal(built.database, built.writer, built.clock, built.issuance(), keystore).renew_due(house.icu)
    supply.take_over()
    (after,) = ask(house, issued).certificates
    assert after.not_valid_after_utc > before.not_valid_after_utc
    house.advance(days=7)
    assert ask(house, issued).certificate_status is ocsp.OCSPCertStatus.GOOD, "the first one has ended"


@dataclass
class Node:
    """A status node with a copy of the responders' keystore, which is brought up to date by `synchronise`."""

    house: PublishingHouse
    folder: Path

    def __post_init__(self) -> None:
        self.follower = RevocationFollower(self.house.built.database, self.house.built.clock)
        self.synchronise()
        self.start()

    def synchronise(self) -> None:
        source = self.house.built.folder / "keystores" / OCSP_KEYSTORE
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(source, self.folder)

    def start(self) -> None:
        built = self.house.built
        keystore = SoftwareKeystore.open(self.folder, SECRET)
        responders = built.read(open_responders, keystore)
        self.responses = OcspResponses(built.database, self.follower, built.pack.ocsp, responders)
        self.supply = OcspSupply(self.responses, built.database, keystore, built.clock)

    def ask(self, issued: IssuedCertificate) -> ocsp.OCSPResponse:
        self.follower.catch_up()
        self.supply.take_over()
        answer = self.responses.respond(question(issued), self.house.built.clock.now())
        return ocsp.load_der_ocsp_response(answer.response_der)

    def shown(self) -> x509.Certificate:
        """The responder's certificate in an answer that was not asked for before."""
        (certificate,) = self.ask(self.house.issue()).certificates
        return certificate


@pytest.fixture
def node(house: PublishingHouse, tmp_path: Path) -> Node:
    return Node(house, tmp_path / "copied")


def renew(house: PublishingHouse) -> None:
    built = house.built
    keystore = built.keystore(OCSP_KEYSTORE)
    assert ResponderRenewal(built.database, built.writer, built.clock, built.issuance(), keystore).renew_due(house.icu)


def test_a_node_without_the_new_key_goes_on_with_the_one_before(house: PublishingHouse, node: Node) -> None:
    before = node.shown()
    house.advance(days=7, hours=1)
    renew(house)
    assert node.shown() == before
    node.synchronise()
    after = node.shown()
    assert after.not_valid_after_utc > before.not_valid_after_utc


def test_a_node_that_starts_before_the_new_key_has_come_goes_on_with_the_one_before(
    house: PublishingHouse, node: Node
) -> None:
    before = node.shown()
    house.advance(days=7, hours=1)
    renew(house)
    node.start()
    assert node.shown() == before
    house.advance(days=7, hours=1)
    renew(house)
    node.start()
    with pytest.raises(Refused) as refusal:
        node.shown()
    assert refusal.value.reason is Reason.AUTHORITY_UNKNOWN, "two terms behind"
    node.synchronise()
    assert node.shown().not_valid_after_utc > before.not_valid_after_utc


def test_cached_responses_stay_current_while_the_new_key_is_awaited(house: PublishingHouse, node: Node) -> None:
    house.issue()
    house.advance(days=7, hours=1)
    renew(house)
    node.ask(house.issue())
    while node.supply.presign() < 60.0:
        pass
    signed = list(node.responses._cached.values())
    node.supply.take_over()
    while node.supply.presign() < 60.0:
        pass
    assert list(node.responses._cached.values()) == signed


def test_no_node_goes_on_with_a_responder_that_was_revoked(house: PublishingHouse, node: Node) -> None:
    stolen = node.shown()
    house.built.revocations.revoke(
        house.icu.authority_id, stolen.serial_number, RevocationReason.KEY_COMPROMISE, by=BY
    ).result()
    renew(house)
    for _ in range(2):
        with refuses(Refused, Reason.AUTHORITY_UNKNOWN):
            node.shown()
        node.start()
    node.synchronise()
    assert node.shown() != stolen


def test_a_revocation_reaches_the_listener_in_a_delta_crl(house: PublishingHouse) -> None:
    app = status_app(publications=house.lists, ocsp=OcspReplies(house.desk, house.built.clock, timedelta(seconds=60)))
    delta_path = "/crl/h1.icu/1/0.delta.crl"
    assert call(app, "GET", delta_path).status == 404, "no base to count from yet"
    base = x509.load_der_x509_crl(call(app, "GET", "/crl/h1.icu/1/0.crl").body)
    issued = house.issue()
    house.revoke(issued)
    house.advance(seconds=2)
    house.publish()
    full = x509.load_der_x509_crl(call(app, "GET", "/crl/h1.icu/1/0.crl").body)
    answer = call(app, "GET", delta_path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-crl")
    delta = x509.load_der_x509_crl(answer.body)
    assert [entry.serial_number for entry in delta] == [issued.serial]
    assert delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number == number(base)
    assert number(delta) == number(full)
    (point,) = full.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert [name.value.endswith(delta_path) for name in point.full_name or ()] == [True]
    again = call(app, "GET", delta_path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
