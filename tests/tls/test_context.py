"""What a listener's TLS side lets through again, and how certificate, staple and epoch change while it serves."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from OpenSSL import SSL

from tests.simulator.certificates import Issued, authority, pump, server_credential
from tests.simulator.refusals import reason_of, refuses
from tests.tls.test_stream import client_context, connected, server_context, shake
from vagus.errors import Misconfigured
from vagus.reasons import Reason
from vagus.testing import NOON
from vagus.tls import ClientContext, Credential, Peer, ServerContext, ServerTls, Session


def session_of(server: ServerContext, client: ClientContext) -> Session:
    """Connect once and keep what the server's ticket allows."""
    near, far = connected(server, client)
    far.peer()
    far.write(b"hello")
    near.feed(far.take())
    assert near.read() == b"hello"
    near.close()
    session = near.session()
    assert session is not None
    return session


def resume(server: ServerContext, client: ClientContext, session: Session) -> Peer:
    near, far = client.new_stream("localhost", session), server.new_stream()
    shake(near, far)
    assert near.peer().resumed is far.peer().resumed
    return far.peer()


class TestResumption:
    def test_a_ticket_resumes_with_the_leaf_and_the_stored_chain(self) -> None:
        server, client = server_context(), client_context(pump().credential)
        peer = resume(server, client, session_of(server, client))
        assert peer.resumed
        assert peer.leaf_der == pump().der
        assert peer.chain_der == (authority().issuing.der,)

    def test_without_a_client_certificate_resumption_is_still_seen(self) -> None:
        server, client = server_context(client_auth="none"), client_context()
        assert resume(server, client, session_of(server, client)).resumed

    def test_a_listener_without_tickets_never_resumes(self) -> None:
        server, client = server_context(tickets=False), client_context(pump().credential)
        assert not resume(server, client, session_of(server, client)).resumed

    def test_a_new_epoch_refuses_every_old_ticket(self) -> None:
        server, client = server_context(), client_context(pump().credential)
        session = session_of(server, client)
        server.swap(epoch=b"2")
        assert server.epoch == b"2"
        assert not resume(server, client, session).resumed
        assert resume(server, client, session_of(server, client)).resumed

    def test_a_ticket_of_one_listener_is_not_accepted_by_another(self) -> None:
        client = client_context(pump().credential)
        session = session_of(server_context(), client)
        assert not resume(server_context(), client, session).resumed


class TestSwap:
    def test_new_handshakes_see_the_new_certificate_and_old_sessions_still_resume(self) -> None:
        server, client = server_context(), client_context(pump().credential)
        near, far = connected(server, client)
        session = session_of(server, client)
        new = authority().issue("localhost")
        server.swap(credential=new.credential)
        fresh, _ = connected(server, client)
        assert fresh.peer().leaf_der == new.der
        assert resume(server, client, session).resumed
        far.write(b"an open connection goes on")
        near.feed(far.take())
        assert near.read() == b"an open connection goes on"

    def test_a_key_of_another_certificate_is_refused_and_nothing_changes(self) -> None:
        server = server_context()
        mixed = Credential(authority().issue("localhost").credential.chain_pem, server_credential().key_pem)
        for bad in (mixed, Credential(b"no PEM", b"no PEM"), Credential(server_credential().chain_pem, b"")):
            assert reason_of(server.swap, credential=bad, epoch=b"9", error=Misconfigured) is Reason.BAD_SETTINGS
        assert server.epoch == b"1"
        connected(server, client_context(pump().credential))

    def test_settings_out_of_bounds_are_refused(self) -> None:
        for epoch, version in ((b"", 0x0304), (b"x" * 33, 0x0304), (b"1", 0x0301)):
            with refuses(Reason.BAD_SETTINGS, Misconfigured):
                ServerContext(server_credential(), ServerTls(minimum_version=version), epoch=epoch)

    def test_a_key_is_never_in_a_repr(self) -> None:
        assert "PRIVATE" not in repr(server_credential())


def _ocsp_response(subject: Issued) -> bytes:
    issuer = authority().issuing
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    return (
        ocsp.OCSPResponseBuilder()
        .add_response(
            subject.certificate, issuer.certificate, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, NOON, None, None, None
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
        .sign(issuer.key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def test_a_staple_reaches_the_client_that_asks_and_can_be_replaced() -> None:
    localhost = authority().issue("localhost")
    first, second = _ocsp_response(localhost), _ocsp_response(localhost)
    assert first != second  # ECDSA: two signatures differ
    server = ServerContext(localhost.credential, ServerTls(client_auth="none"), staple=lambda: first)
    assert _stapled(server) == first
    server.swap(staple=lambda: second)
    assert _stapled(server) == second
    server.swap(staple=lambda: b"")
    assert _stapled(server) == b""


def _stapled(server: ServerContext) -> bytes:
    got: list[bytes] = []

    def keep(_connection: SSL.Connection, staple: bytes, _data: object) -> bool:
        got.append(staple)
        return True

    client = client_context()
    client._context.set_ocsp_client_callback(keep)
    near, far = client.new_stream("localhost"), server.new_stream()
    near._connection.request_ocsp()
    shake(near, far)
    return got[0]


def test_client_authorities_are_announced() -> None:
    server = ServerContext(server_credential(), ServerTls(client_authorities_der=(authority().root.der,)))
    near, _ = connected(server, client_context(pump().credential))
    names = near._connection.get_client_ca_list(as_cryptography=True)
    assert names == [x509.load_der_x509_certificate(authority().root.der).subject]
