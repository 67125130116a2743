"""Which fields cross the gateway, as values."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from tests.simulator.certificates import authority
from tests.simulator.listeners import admitted
from vagus.endpoints.gateway.fields import identity_fields, request_fields, response_fields
from vagus.identifiers import DeviceId, UnitName
from vagus.records.devices import DeviceRow
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

    def test_the_device_its_unit_and_its_serial_number_come_from_the_inventory(self) -> None:
        device = DeviceRow(
            id=DeviceId.draw(bytes),
            unit=UnitName("h1", "icu"),
            model="Pump",
            profile="bedside",
            maker_serial="P 1,ü%",
            state="active",
            added_at=0,
            changed_at=0,
        )
        fields = dict(identity_fields(PEER, replace(ADMITTED, device=device)))
        assert {name: value for name, value in fields.items() if name.startswith(b"x-vagus")} == {
            b"x-vagus-device": str(device.id).encode(),
            b"x-vagus-unit": b"h1/icu",
            b"x-vagus-serial": b"P%201%2C%C3%BC%25",
        }
        plain = dict(identity_fields(PEER, replace(ADMITTED, device=replace(device, maker_serial="AIP3-000001"))))
        assert plain[b"x-vagus-serial"] == b"AIP3-000001"


separators = st.sampled_from("-_.")
names = st.text("clientcrtha-_", min_size=1, max_size=20).map(str.encode)
names_of_ours = st.builds(
    lambda one, other, what: f"x{one}vagus{other}{what}".encode(),
    separators,
    separators,
    st.sampled_from(["device", "unit", "serial", "anything", ""]),
)


@given(names | names_of_ours)
@example(b"x-vagus-device")
@example(b"x-vagusdevice")
@example(b"x-vagu-device")
def test_no_spelling_of_a_name_of_ours_crosses(name: bytes) -> None:
    kept = request_fields([(name, b"forged")], [], "10.0.0.1", [])
    plain = name.replace(b"_", b"-").replace(b".", b"-")
    is_ours = plain in {b"client-cert", b"client-cert-chain"} or plain.startswith(b"x-vagus-")
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
