"""Which fields cross the gateway, as values."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.certificates import authority
from tests.simulator.listeners import admitted
from vagus.endpoints.gateway.fields import identity_fields, request_fields, response_fields
from vagus.tls import Peer
from vagus.x509.certificates import decode_certificate

DERS = (b"leaf", b"issuing", b"middle")
PEER = Peer(0x0304, "", None, None, None, resumed=False, leaf_der=b"leaf", chain_der=(b"what the client sent",))
_ISSUING = decode_certificate(authority().issuing.der)
ADMITTED = admitted("pump", *(replace(_ISSUING, der=der, serial=serial) for serial, der in enumerate(DERS, 1)))


class TestIdentity:
    def test_the_chain_is_the_validated_one_and_not_what_was_sent(self) -> None:
        assert identity_fields(PEER, ADMITTED) == [
            (b"client-cert", b":bGVhZg==:"),
            (b"client-cert-chain", b":aXNzdWluZw==:, :bWlkZGxl:"),
        ]

    def test_without_a_verdict_nothing_is_said(self) -> None:
        assert identity_fields(PEER, None) == []
        assert identity_fields(None, None) == []


names = st.text("clientcrtha-_", min_size=1, max_size=20).map(str.encode)


@given(names)
def test_no_spelling_of_a_name_of_ours_crosses(name: bytes) -> None:
    kept = request_fields([(name, b"forged")], [], "10.0.0.1", [])
    is_ours = name.replace(b"_", b"-") in {b"client-cert", b"client-cert-chain"}
    assert ((name, b"forged") in kept) == (not is_ours and name != b"te")


def test_answers_lose_what_is_for_one_connection_only() -> None:
    headers = [
        (b"connection", b"keep-alive, X-Mine"),
        (b"x-mine", b"1"),
        (b"keep-alive", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"etag", b'"a"'),
    ]
    assert response_fields(headers) == [(b"etag", b'"a"')]
