"""A decision is one frozen value with all that is known."""

from __future__ import annotations

import dataclasses
from hashlib import sha256

import pytest

from tests.endpoints.gateway.test_fields import ADMITTED, PEER
from vagus.endpoints.gateway.decisions import Outcome, decide, path_serials
from vagus.errors import NotTrusted
from vagus.reasons import Reason


def test_a_refusal_carries_the_reason_and_the_leaf_but_no_unchecked_name() -> None:
    decision = decide("gate", "10.0.0.1", Outcome.REFUSED, peer=PEER, error=NotTrusted(Reason.NO_PATH, "no path"))
    assert (decision.reason, decision.detail, decision.device) == (Reason.NO_PATH, "no path", None)
    assert decision.leaf_sha256 == sha256(b"leaf").digest()
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.device = "forged"  # type: ignore[misc]


def test_an_admission_names_the_device() -> None:
    decision = decide("gate", "10.0.0.1", Outcome.ADMITTED, peer=PEER, admitted=ADMITTED)
    assert (decision.device, decision.serial, decision.tls_version) == ("pump", 1, 0x0304)
    assert path_serials(ADMITTED) == {1, 2, 3}
