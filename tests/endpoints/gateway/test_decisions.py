"""A decision is one frozen value with all that is known."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.endpoints.gateway.test_fields import ADMITTED, PEER
from tests.simulator.certificates import stranger
from tests.simulator.orders import new_key
from vagus.endpoints.gateway.decisions import ConnectionDecision, Outcome, decide, path_serials
from vagus.errors import NotTrusted
from vagus.reasons import Reason


def test_a_refusal_carries_the_reason_and_the_leaf_but_no_unchecked_name() -> None:
    decision = decide("gate", "10.0.0.1", Outcome.REFUSED, peer=PEER, error=NotTrusted(Reason.NO_PATH, "no path"))
    assert (decision.reason, decision.detail, decision.device) == (Reason.NO_PATH, "no path", None)
    assert decision.leaf_sha256 == sha256(b"leaf").digest()
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.device = "forged"  # type: ignore[misc]


DEVICE = "abcdefghijklmnopqrstuvwxya.icu.h1.group.example"


def refusal(name: str, *, is_proved: bool, reason: Reason = Reason.NO_PATH) -> tuple[ConnectionDecision, int]:
    """The decision on a peer whose certificate has this dNSName, and the serial of the certificate."""
    leaf = stranger().issuing.certify(new_key(), dns_names=(name,))
    error = NotTrusted(reason, "refused")
    error.is_peer_proved = is_proved
    peer = replace(PEER, leaf_der=leaf.public_bytes(Encoding.DER))
    return decide("gate", "10.0.0.1", Outcome.REFUSED, peer=peer, error=error), leaf.serial_number


def test_what_a_certificate_without_a_path_says_is_a_claim_and_no_fact() -> None:
    decision, serial = refusal(DEVICE, is_proved=False)
    assert (decision.device, decision.serial) == (None, None)
    assert (decision.claimed_device, decision.claimed_serial) == (DEVICE, serial)


def test_a_refusal_of_a_proved_peer_names_its_device_and_serial() -> None:
    decision, serial = refusal(DEVICE, is_proved=True, reason=Reason.REVOKED)
    assert (decision.device, decision.serial) == (DEVICE, serial)
    assert (decision.claimed_device, decision.claimed_serial) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "john.smith.born.1960",
        DEVICE.upper(),
        DEVICE.replace("icu", "ICU"),
        f"{DEVICE}.",
        f"x{DEVICE}",
        DEVICE.replace("group", "g" * 63) + ".a" * 30,
        DEVICE.partition(".")[0],
        "=cmd.icu.h1.group",
    ],
)
def test_a_stranger_writes_no_text_of_his_own_into_the_log(name: str) -> None:
    decision, serial = refusal(name, is_proved=False)
    assert (decision.device, decision.claimed_device, decision.claimed_serial) == (None, None, serial)


def test_a_stranger_makes_no_gateway_read_a_long_certificate_twice() -> None:
    leaf = stranger().issuing.certify(new_key(), dns_names=tuple(f"{number}.{'a' * 60}.test" for number in range(200)))
    peer = replace(PEER, leaf_der=leaf.public_bytes(Encoding.DER))
    decision = decide("gate", "10.0.0.1", Outcome.REFUSED, peer=peer, error=NotTrusted(Reason.NO_PATH, "no path"))
    assert (decision.claimed_device, decision.claimed_serial) == (None, None)
    assert decision.leaf_sha256 is not None


def test_an_admission_names_the_device() -> None:
    decision = decide("gate", "10.0.0.1", Outcome.ADMITTED, peer=PEER, admitted=ADMITTED)
    assert (decision.device, decision.serial, decision.tls_version) == ("pump", 1, 0x0304)
    assert path_serials(ADMITTED) == {1, 2, 3}
