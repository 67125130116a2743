from __future__ import annotations

import base64
import json
import socket
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.simulator.certificates import CLIENT_AUTH
from tests.simulator.est_server import DEVICE_NAME, HOST, Behaviour, Hierarchy, Server, problem
from tests.simulator.refusals import reason_of, refuses
from tests.vagus_agent.conftest import Ward
from vagus.errors import Conflict, IntegrityFailure, NotAuthorised, NotTrusted, Unavailable, VagusError
from vagus.reasons import Reason
from vagus.testing import NOON
from vagus.tlog.checkpoint import Checkpoint, NoteKey, encode_note
from vagus_agent.credentials import Credential
from vagus_agent.device import Device
from vagus_agent.est import Token
from vagus_agent.keys import DeviceKeyAlgorithm, certified_key_der
from vagus_agent.routes import Route
from vagus_agent.verification import identity_of


def current(device: Device) -> Credential:
    found = device.store.find_current()
    assert found is not None
    return found


def key_der(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class TestEnrolment:
    def test_with_the_makers_certificate_gives_a_pair_that_connects(self, ward: Ward) -> None:
        device = ward.device()
        credential = device.enrol()
        assert identity_of(credential.leaf) == DEVICE_NAME
        sent, _ = device.connect(3)
        assert sent.lines == 3
        telemetry = ward.server.requests[-1]
        assert telemetry.path == "/telemetry"
        lines = [json.loads(line) for line in telemetry.body.splitlines()]
        assert [line["sequence"] for line in lines] == [1, 2, 3]
        assert lines[0]["category"] == "infusion-pump"
        assert telemetry.peer.leaf_der is not None
        assert len(telemetry.peer.chain_der) == 2  # unit CA and device CA, without the root

    def test_with_a_token_needs_no_certificate(self, ward: Ward) -> None:
        ward.behaviour.token = "once-only-0123456789"
        device = ward.device(has_idevid=False)
        assert device.enrol(Token("once-only-0123456789")).generation == 1
        assert all(peer.leaf_der is None for peer in ward.server.peers)

    def test_without_any_proof_says_what_to_give(self, ward: Ward) -> None:
        with refuses(Reason.CREDENTIAL_MISSING, Conflict, match="--token"):
            ward.device(has_idevid=False).enrol()

    def test_twice_keeps_the_first_certificate(self, ward: Ward) -> None:
        first = ward.device().enrol()
        asked = len(ward.server.requests)
        assert ward.device().enrol().leaf == first.leaf
        assert len(ward.server.requests) == asked

    @pytest.mark.parametrize("algorithm", list(DeviceKeyAlgorithm))
    def test_makes_every_kind_of_key(self, ward: Ward, algorithm: DeviceKeyAlgorithm) -> None:
        assert ward.enrolled(key_algorithm=algorithm).connect(1)[0].lines == 1

    def test_a_lost_answer_is_asked_for_again_with_the_same_key(self, ward: Ward) -> None:
        ward.behaviour.drops_before_answer = 1
        with pytest.raises(VagusError):
            ward.enrolled()
        ward.enrolled()
        posts = [request.body for request in ward.server.requests if request.method == "POST"]
        assert len(posts) == 2
        requested = {key_der(x509.load_der_x509_csr(base64.b64decode(body)).public_key()) for body in posts}
        assert requested == {certified_key_der(current(ward.device()).leaf)}

    @pytest.mark.parametrize(
        ("bend", "reason"),
        [
            ({"wrong_key": True}, Reason.KEY_MISMATCH),
            ({"name": ""}, Reason.IDENTITY_MISSING),
            ({"not_before": timedelta(days=2)}, Reason.NOT_YET_VALID),
            ({"not_before": timedelta(days=-20), "lifetime": timedelta(days=3)}, Reason.EXPIRED),
        ],
    )
    def test_a_certificate_that_is_not_ours_replaces_nothing(
        self, ward: Ward, bend: dict[str, object], reason: Reason
    ) -> None:
        for name, value in bend.items():
            setattr(ward.behaviour, name, value)
        device = ward.device()
        assert reason_of(device.enrol, error=NotTrusted) is reason
        assert device.store.find_current() is None

    @pytest.mark.parametrize("reason", [Reason.NOT_IN_INVENTORY, Reason.DEVICE_STATE, Reason.TOKEN_REUSED])
    def test_a_refusal_carries_the_servers_reason_and_a_remedy(self, ward: Ward, reason: Reason) -> None:
        ward.behaviour.refuse["simpleenroll"] = problem(403, reason)
        assert reason_of(ward.enrolled, error=NotAuthorised, match=";") is reason

    @pytest.mark.parametrize(
        ("detail", "said"),
        [
            ("the certificate is revoked", "; the device was locked out on purpose; hand it to biomedical engineering"),
            ("the certificate is revoked; ask Ward 3", "; ask Ward 3"),
        ],
    )
    def test_a_refusal_with_a_remedy_gets_no_second_one(self, ward: Ward, detail: str, said: str) -> None:
        ward.behaviour.refuse["simpleenroll"] = problem(403, Reason.REVOKED, detail)
        with pytest.raises(NotAuthorised) as refusal:
            ward.enrolled()
        assert refusal.value.message.endswith(f"403 REVOKED: the certificate is revoked{said}")

    def test_a_refused_key_is_dropped_and_another_made(self, ward: Ward) -> None:
        ward.behaviour.refuse["simpleenroll"] = problem(403, Reason.KEY_BLOCKED)
        device = ward.device()
        assert reason_of(device.enrol, error=NotAuthorised) is Reason.KEY_BLOCKED
        assert not (device.store._state / "pending").exists()

    @pytest.mark.parametrize("status", [202, 429, 500, 503])
    def test_what_may_pass_later_is_unavailable(self, ward: Ward, status: int) -> None:
        ward.behaviour.refuse["simpleenroll"] = (status, b"busy")
        with pytest.raises(Unavailable):
            ward.enrolled()

    def test_an_answer_cut_short_leaves_the_pending_key(self, ward: Ward) -> None:
        ward.behaviour.cut_answer = 40
        device = ward.device()
        assert reason_of(device.enrol) is Reason.BAD_ENCODING
        assert (device.store._state / "pending" / "key.pem").exists()


class TestRenewal:
    def test_waits_for_its_window(self, ward: Ward) -> None:
        ward.enrolled()
        ward.clock.set(NOON + timedelta(days=300))
        assert ward.device().renew() is None

    def test_inside_the_window_swaps_key_and_certificate_and_keeps_the_name(self, ward: Ward) -> None:
        old = ward.device().enrol()
        ward.pass_time(days=310)
        renewed = ward.device().renew()
        assert renewed is not None
        assert renewed.generation == 2
        assert certified_key_der(renewed.leaf) != certified_key_der(old.leaf)
        assert ward.server.requests[-3].path.endswith("cacerts") or any(
            request.path.endswith("simplereenroll") for request in ward.server.requests
        )

    def test_keeps_the_old_pair_until_the_new_one_has_worked(self, ward: Ward) -> None:
        device = ward.enrolled()
        device.connect(1)
        ward.pass_time(days=310)
        device.renew()
        assert device.store.find_previous() is not None
        device.connect(1)
        assert device.store.find_previous() is None

    def test_a_new_pair_that_the_gate_refuses_gives_way_to_the_old_one(self, ward: Ward) -> None:
        device = ward.device()
        first = device.enrol()
        device.connect(1)
        ward.pass_time(days=310)
        renewed = device.renew()
        assert renewed is not None
        refused = renewed.leaf.public_bytes(Encoding.DER)
        answer = ward.server._answer
        ward.server._answer = lambda request: (  # type: ignore[method-assign]
            b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n" if request.peer.leaf_der == refused else answer(request)
        )
        assert device.connect(1)[0].lines == 1
        assert current(device).leaf == first.leaf

    def test_a_refusal_of_the_device_itself_is_not_blamed_on_the_new_pair(self, ward: Ward) -> None:
        device = ward.enrolled()
        device.connect(1)
        ward.pass_time(days=310)
        device.renew()
        ward.behaviour.refuse["/telemetry"] = problem(403, Reason.WRONG_COMPARTMENT)
        assert reason_of(device.connect, 1, error=NotAuthorised) is Reason.WRONG_COMPARTMENT
        assert current(device).generation == 2

    def test_of_an_expired_certificate_says_so_and_asks_nobody(self, ward: Ward) -> None:
        ward.enrolled()
        asked = len(ward.server.peers)
        ward.clock.advance(days=400)
        assert reason_of(ward.device().renew, error=NotTrusted, match="enrol again") is Reason.EXPIRED
        assert len(ward.server.peers) == asked

    def test_refuses_another_name(self, ward: Ward) -> None:
        before = ward.device().enrol()
        ward.pass_time(days=310)
        ward.behaviour.name = DEVICE_NAME.replace("icu", "er")
        assert reason_of(ward.device().renew, error=NotTrusted) is Reason.NAMES_CHANGED
        assert current(ward.device()).leaf == before.leaf


class TestRogues:
    """Each beside its benign twin in TestEnrolment and below: only the server differs."""

    @pytest.mark.parametrize(
        "kind", ["look-alike", "other hospital", "expired", "not yet valid", "no role", "critical"]
    )
    def test_get_no_application_byte_and_not_even_our_certificate(self, ward: Ward, kind: str) -> None:
        device = ward.enrolled()
        rogue, reason = ward.hierarchy, Reason.UNTRUSTED_ANCHOR
        changes: dict[str, object] = {}
        match kind:
            case "look-alike":
                rogue = Hierarchy()  # the same names, other keys
            case "other hospital":
                rogue = Hierarchy("h2")
                rogue.root = ward.hierarchy.root
            case "expired":
                changes, reason = {"lifetime": timedelta(minutes=1)}, Reason.EXPIRED
            case "not yet valid":
                changes, reason = {"not_before": NOON + timedelta(days=1)}, Reason.NOT_YET_VALID
            case "no role":
                changes, reason = {"roles": (CLIENT_AUTH,)}, Reason.ROLE_MISSING
            case _:
                odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")
                changes, reason = {"critical": odd}, Reason.UNKNOWN_CRITICAL
        with Server(rogue, rogue.server_credential(changes=changes)) as station:
            assert reason_of(ward.device(relay=station.route()).connect, 2, error=NotTrusted) is reason
        assert station.application_bytes == 0
        assert station.peers == []  # the handshake never ended, so our certificate never left
        assert device.connect(2)[0].lines == 2  # the twin

    def test_under_another_name_are_refused(self, ward: Ward) -> None:
        ward.enrolled()
        with refuses(Reason.NAME_MISMATCH, NotTrusted):
            ward.device(relay=ward.server.route("gate.h1.group.example")).connect(1)

    def test_that_speak_no_tls_or_hang_up_are_unreachable_or_broken(self, ward: Ward) -> None:
        ward.enrolled()
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def greet() -> None:
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(b"220 mail.example ESMTP\r\n")
                    peer.recv(4096)

            thread = threading.Thread(target=greet)
            thread.start()
            route = Route(HOST, "127.0.0.1", listener.getsockname()[1])
            assert reason_of(ward.device(relay=route).connect, 1) in {Reason.TLS_HANDSHAKE, Reason.UPSTREAM_UNREACHABLE}
            thread.join(10)

    def test_an_absent_server_is_unavailable(self, ward: Ward) -> None:
        ward.enrolled()
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        with refuses(Reason.UPSTREAM_UNREACHABLE, Unavailable, match="check the address"):
            ward.device(relay=Route(HOST, "127.0.0.1", port)).connect(1)


class TestRevokedServers:
    def test_are_refused_once_the_list_is_known_and_get_no_byte(self, ward: Ward) -> None:
        ward.enrolled()
        with Server(ward.hierarchy) as stolen:
            astray = ward.device(relay=stolen.route())
            assert astray.connect(1)[0].lines == 1
            before = stolen.application_bytes
            ward.pass_time(hours=7)
            ward.behaviour.revoked = (stolen.serial,)
            astray.refresh()
            with pytest.raises(NotTrusted, match="do not use this server") as error:
                astray.connect(1)
            assert stolen.application_bytes == before
        assert error.value.reason is Reason.REVOKED
        assert ward.device().connect(1)[0].lines == 1

    def test_stay_revoked_when_an_older_list_is_replayed(self, ward: Ward) -> None:
        ward.enrolled()
        with Server(ward.hierarchy) as stolen:
            astray = ward.device(relay=stolen.route())
            ward.pass_time(hours=7)
            ward.behaviour.revoked = (stolen.serial,)
            astray.refresh()
            ward.behaviour.now, ward.behaviour.revoked = NOON, ()
            astray.refresh()
            assert reason_of(astray.connect, 1, error=NotTrusted) is Reason.REVOKED


class TestConnections:
    def test_resume_with_the_ticket_of_the_last_one(self, ward: Ward) -> None:
        device = ward.enrolled()
        first, ticket = device.connect(1)
        second, _ = device.connect(1, ticket)
        assert (first.resumed, second.resumed) == (False, True)

    def test_a_stream_stays_on_one_connection(self, ward: Ward) -> None:
        device = ward.enrolled()
        before = len(ward.server.peers)
        for _ in range(4):
            device.stream(1)
        device.hang_up()
        assert len(ward.server.peers) == before + 1

    def test_a_stream_comes_back_after_the_server_closed(self, ward: Ward) -> None:
        device = ward.enrolled()
        ward.behaviour.closes_after_answer = True
        assert [device.stream(1).lines for _ in range(3)] == [1, 1, 1]
        device.hang_up()

    def test_a_403_names_the_gates_reason(self, ward: Ward) -> None:
        device = ward.enrolled()
        ward.behaviour.refuse["/telemetry"] = problem(403, Reason.REVOKED)
        assert reason_of(device.connect, 1, error=NotAuthorised, match="biomedical engineering") is Reason.REVOKED

    def test_raw_lines_are_acknowledged_one_by_one(self, ward: Ward) -> None:
        ward.enrolled()
        with Server(ward.hierarchy, is_raw=True) as relay:
            assert ward.device(relay=relay.route()).connect(7)[0].lines == 7

    def test_a_raw_relay_that_closes_does_not_admit_us(self, ward: Ward) -> None:
        ward.enrolled()
        with Server(ward.hierarchy, behaviour=Behaviour(admits=False), is_raw=True) as relay:
            device = ward.device(relay=relay.route())
            assert reason_of(device.connect, 1, error=NotTrusted, match="refuses us") is Reason.TLS_HANDSHAKE


class TestClock:
    def test_below_the_floor_with_a_reachable_server_takes_signed_time(self, ward: Ward) -> None:
        ward.enrolled()
        ward.clock.set(NOON.replace(year=1970))
        device = ward.device()
        device.settle_clock()
        assert device.clock.is_corrected()
        assert device.clock.now() == NOON
        assert device.connect(1)[0].lines == 1
        assert ward.server.peers[-2].leaf_der is None  # asked without showing who we are

    def test_below_the_floor_without_signed_time_believes_no_date(self, ward: Ward) -> None:
        ward.enrolled()
        ward.behaviour.serves_crl = False
        ward.clock.set(NOON.replace(year=1970))
        relayed = len([r for r in ward.server.requests if r.path == "/telemetry"])
        acts = (Device.settle_clock, lambda device: device.connect(1), Device.enrol, Device.renew)
        for act in acts:
            assert reason_of(act, ward.device(), error=NotTrusted, match="set the clock") is Reason.CLOCK_ROLLBACK
        assert len([r for r in ward.server.requests if r.path == "/telemetry"]) == relayed

    def test_below_the_floor_a_rogues_time_is_worth_nothing(self, ward: Ward) -> None:
        ward.enrolled()
        ward.clock.set(NOON.replace(year=1970))
        with Server(Hierarchy()) as rogue:
            device = ward.device(server=rogue.route())
            assert reason_of(device.settle_clock, error=NotTrusted) is Reason.CLOCK_ROLLBACK
            assert rogue.application_bytes == 0

    def test_the_floor_survives_restarts_and_never_sinks(self, ward: Ward) -> None:
        ward.pass_time(days=100)
        ward.enrolled()
        ward.clock.set(NOON + timedelta(days=10))
        assert reason_of(ward.device().check_clock, error=NotTrusted) is Reason.CLOCK_ROLLBACK


class TestLogMemory:
    @staticmethod
    def note(key: Ed25519PrivateKey, size: int, root: bytes = b"r" * 32) -> tuple[str, bytes]:
        name = NoteKey("log.example/h", key.public_key().public_bytes_raw())
        head = Checkpoint("log.example/h", size, root)
        return name.encode(), encode_note(head, name, key.sign(head.encode().encode()))

    def test_keeps_the_newest_and_refuses_to_go_back(self, ward: Ward, tmp_path: Path) -> None:
        key = Ed25519PrivateKey.generate()
        verifier, ward.behaviour.checkpoint = self.note(key, 10)
        device = ward.enrolled(log_key=verifier)
        ward.behaviour.checkpoint = self.note(key, 12)[1]
        device.refresh()
        for size, root, reason in ((11, b"r" * 32, Reason.LOG_TRUNCATED), (12, b"x" * 32, Reason.LOG_TAMPERED)):
            ward.behaviour.checkpoint = self.note(key, size, root)[1]
            assert reason_of(device.refresh, error=IntegrityFailure) is reason
        kept = device.log.load()
        assert kept is not None
        assert kept.size == 12

    def test_a_strangers_signature_is_refused(self, ward: Ward) -> None:
        verifier, _ = self.note(Ed25519PrivateKey.generate(), 10)
        device = ward.enrolled(log_key=verifier)
        ward.behaviour.checkpoint = self.note(Ed25519PrivateKey.generate(), 10)[1]
        assert reason_of(device.refresh, error=IntegrityFailure) is Reason.CHECKPOINT_INVALID

    def test_the_status_server_gives_what_the_enrolment_server_does_not(self, ward: Ward) -> None:
        key = Ed25519PrivateKey.generate()
        verifier, note = self.note(key, 7)
        pages = {"/crl/h1.infra/1/0.crl": ward.hierarchy.infrastructure.crl(NOON), "/log/checkpoint": note}

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(pages[self.path])

            def log_message(self, *_: object) -> None:
                pass

        ward.enrolled()
        ward.behaviour.serves_crl = False
        ward.clock.set(NOON.replace(year=1970))
        with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as status:
            thread = threading.Thread(target=status.serve_forever)
            thread.start()
            route = Route("status.example", "127.0.0.1", status.server_port)
            device = ward.device(status=route, log_key=verifier)
            device.settle_clock()
            status.shutdown()
            thread.join(10)
        assert device.clock.now() == NOON
        kept = device.log.load()
        assert kept is not None
        assert kept.size == 7
