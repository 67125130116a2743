"""The sweep leaves turns to other tasks, renewed responders are taken over, and delta CRLs carry revocations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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
from tests.simulator.publishing import PublishedHospital
from tests.simulator.refusals import refuses
from tests.simulator.status_listeners import question
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, open_responders
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
def supply(clinic: PublishedHospital) -> OcspSupply:
    built = clinic.built
    return OcspSupply(clinic.responses, built.database, built.keystore(OCSP_KEYSTORE), built.clock)


@pytest.fixture
def small_pages(clinic: PublishedHospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five devices, of which the sweep reads two at a time."""
    for _ in range(5):
        clinic.issue()
    monkeypatch.setattr(rows, "list_alive", partial(rows.list_alive, count=2))


def sweep(supply: OcspSupply) -> Iterator[None]:
    """Turn after turn until the sweep is through; yields after each turn but the last."""
    while supply.presign() < 60.0:
        yield


def ask(
    clinic: PublishedHospital, issued: IssuedCertificate, responses: OcspResponses | None = None
) -> ocsp.OCSPResponse:
    answer = (responses or clinic.responses).respond(question(issued), clinic.built.clock.now())
    return ocsp.load_der_ocsp_response(answer.response_der)


@pytest.mark.usefixtures("small_pages")
def test_the_sweep_goes_page_by_page_from_where_it_was(clinic: PublishedHospital, supply: OcspSupply) -> None:
    kept = [len(clinic.responses._cached) for _ in sweep(supply)]
    assert kept == [2, 4, 6], "five devices and the responder's own"
    clinic.issue()
    list(sweep(supply))
    assert len(clinic.responses._cached) == 7


@pytest.mark.usefixtures("small_pages")
def test_a_sweep_rests_as_long_as_it_worked_and_a_long_one_far_longer(
    supply: OcspSupply, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = iter((0.0, 3.0, 3.0, 5.0, 5.0, 7.0, 7.0, 7.5))
    monkeypatch.setattr(ocsp_supply, "time", SimpleNamespace(thread_time=lambda: next(spent)))
    assert [supply.presign() for _ in range(4)] == [3.0, 2.0, 2.0, 7.5 * 20]
    spent = iter((0.0, 0.1) * 4)
    assert [supply.presign() for _ in range(4)] == [0.1, 0.1, 0.1, 60.0]


@pytest.mark.usefixtures("small_pages")
def test_a_sweep_of_more_than_the_cache_holds_ends(clinic: PublishedHospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clinic.responses, "most_cached", 4)
    assert [clinic.responses.presign_slice(clinic.built.clock.now()) for _ in range(4)] == [True, False, True, False]


def test_a_response_within_a_sweep_is_replaced_at_once(clinic: PublishedHospital, supply: OcspSupply) -> None:
    issued = clinic.issue()
    supply.presign()
    assert ask(clinic, issued).certificate_status is ocsp.OCSPCertStatus.GOOD
    clinic.revoke(issued)
    assert ask(clinic, issued).certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_a_responder_that_another_process_renewed_is_taken_over(clinic: PublishedHospital, supply: OcspSupply) -> None:
    issued = clinic.issue()
    (before,) = ask(clinic, issued).certificates
    supply.take_over()
    assert ask(clinic, issued).certificates == [before]
    renew_a_week_later(clinic)
    supply.take_over()
    (after,) = ask(clinic, issued).certificates
    assert after.not_valid_after_utc > before.not_valid_after_utc
    clinic.advance(days=7)
    assert ask(clinic, issued).certificate_status is ocsp.OCSPCertStatus.GOOD, "the first one has ended"


@dataclass
class Node:
    """A status node with a copy of the responders' keystore, which is brought up to date by `synchronise`."""

    clinic: PublishedHospital
    folder: Path

    def __post_init__(self) -> None:
        self.follower = RevocationFollower(self.clinic.built.database, self.clinic.built.clock)
        self.synchronise()
        self.start()

    def synchronise(self) -> None:
        source = self.clinic.built.folder / "keystores" / OCSP_KEYSTORE
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(source, self.folder)

    def start(self) -> None:
        built = self.clinic.built
        keystore = SoftwareKeystore.open(self.folder, SECRET)
        responders = built.read(open_responders, keystore)
        self.responses = OcspResponses(built.database, self.follower, built.pack.ocsp, responders)
        self.supply = OcspSupply(self.responses, built.database, keystore, built.clock)

    def ask(self, issued: IssuedCertificate) -> ocsp.OCSPResponse:
        self.follower.catch_up()
        self.supply.take_over()
        return ask(self.clinic, issued, self.responses)

    def shown(self) -> x509.Certificate:
        """The responder's certificate in an answer that was not asked for before."""
        (certificate,) = self.ask(self.clinic.issue()).certificates
        return certificate


@pytest.fixture
def node(clinic: PublishedHospital, tmp_path: Path) -> Node:
    return Node(clinic, tmp_path / "copied")


def renew_a_week_later(clinic: PublishedHospital) -> None:
    clinic.advance(days=7, hours=1)
    assert clinic.built.renew_responder(clinic.icu)


def test_a_node_without_the_new_key_goes_on_with_the_one_before(clinic: PublishedHospital, node: Node) -> None:
    before = node.shown()
    renew_a_week_later(clinic)
    assert node.shown() == before
    node.synchronise()
    after = node.shown()
    assert after.not_valid_after_utc > before.not_valid_after_utc


def test_a_node_that_starts_before_the_new_key_has_come_goes_on_with_the_one_before(
    clinic: PublishedHospital, node: Node
) -> None:
    before = node.shown()
    renew_a_week_later(clinic)
    node.start()
    assert node.shown() == before
    renew_a_week_later(clinic)
    node.start()
    with refuses(Reason.AUTHORITY_UNKNOWN, Refused):  # two terms behind
        node.shown()
    node.synchronise()
    assert node.shown().not_valid_after_utc > before.not_valid_after_utc


def test_cached_responses_stay_current_while_the_new_key_is_awaited(clinic: PublishedHospital, node: Node) -> None:
    clinic.issue()
    renew_a_week_later(clinic)
    node.ask(clinic.issue())
    list(sweep(node.supply))
    signed = list(node.responses._cached.values())
    node.supply.take_over()
    list(sweep(node.supply))
    assert list(node.responses._cached.values()) == signed


def test_no_node_goes_on_with_a_responder_that_was_revoked(clinic: PublishedHospital, node: Node) -> None:
    stolen = node.shown()
    stolen_id = clinic.icu.authority_id, stolen.serial_number
    clinic.built.revocations.revoke(*stolen_id, RevocationReason.KEY_COMPROMISE, by=BY).result()
    assert clinic.built.renew_responder(clinic.icu)
    for _ in range(2):
        with refuses(Reason.AUTHORITY_UNKNOWN, Refused):
            node.shown()
        node.start()
    node.synchronise()
    assert node.shown() != stolen


def test_a_revocation_reaches_the_listener_in_a_delta_crl(clinic: PublishedHospital) -> None:
    replies = OcspReplies(clinic.responses, clinic.built.clock, timedelta(seconds=60))
    app = status_app(publications=clinic.crls, ocsp=replies)
    delta_path = "/crl/h1.icu/1/0.delta.crl"
    assert call(app, "GET", delta_path).status == 404, "no base to count from yet"
    base = x509.load_der_x509_crl(call(app, "GET", "/crl/h1.icu/1/0.crl").body)
    issued = clinic.issue()
    clinic.revoke(issued)
    clinic.advance(seconds=2)
    clinic.publish()
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
