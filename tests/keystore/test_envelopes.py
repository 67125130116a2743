"""Envelopes open for their passphrase alone, and their labels cannot be changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import IntegrityFailure, Misconfigured, NotAuthorised, VagusError
from vagus.keystore.envelopes import EnvelopeSealer, open_envelope, read_label
from vagus.keystore.passphrases import Passphrase
from vagus.reasons import Reason
from vagus.testing import SeededEntropy

SECRET = Passphrase("correct horse battery")
SEALER = EnvelopeSealer(SECRET, entropy=SeededEntropy(), unsafe_fast=True)
SEALED = SEALER.seal({"issuer": "h1#1", "number": 7}, b"content")


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=300), text=st.text(max_size=20))
def test_what_was_sealed_opens(content: bytes, text: str) -> None:
    envelope = SEALER.seal({"text": text}, content)
    assert read_label(envelope) == {"text": text}
    assert open_envelope(envelope, SECRET) == ({"text": text}, content)


def test_another_passphrase_does_not_open_it() -> None:
    with refuses(Reason.PASSPHRASE_WRONG, NotAuthorised):
        open_envelope(SEALED, Passphrase("staple correct horse"))


def test_a_changed_label_does_not_open() -> None:
    doctored = json.loads(SEALED)
    doctored["header"]["label"]["number"] = 8
    with refuses(Reason.PASSPHRASE_WRONG, NotAuthorised):
        open_envelope(json.dumps(doctored).encode(), SECRET)
    foreign = json.loads(SEALER.seal({"issuer": "h1#1", "number": 7}, b"other"))
    doctored = json.loads(SEALED)
    doctored["sealed"] = foreign["sealed"]
    assert open_envelope(json.dumps(doctored).encode(), SECRET)[1] == b"other", "same label: the same envelope"
    doctored["sealed"] = doctored["sealed"][:-8] + "AAAAAAA="
    with refuses(Reason.KEYSTORE_DAMAGED, IntegrityFailure):
        open_envelope(json.dumps(doctored).encode(), SECRET)


@settings(max_examples=80, deadline=None)
@given(at=st.integers(0, len(SEALED) - 1), flip=st.integers(1, 255))
def test_one_changed_byte_is_an_error_of_ours(at: int, flip: int) -> None:
    broken = SEALED[:at] + bytes([SEALED[at] ^ flip]) + SEALED[at + 1 :]
    try:
        found = open_envelope(broken, SECRET)
    except VagusError as failure:
        assert failure.reason in {Reason.KEYSTORE_DAMAGED, Reason.PASSPHRASE_WRONG}
    else:
        assert found == ({"issuer": "h1#1", "number": 7}, b"content")


@pytest.mark.parametrize("junk", [b"", b"[]", b"{}", b"\xff", b'{"header":[]}', b"[" * 5000])
def test_what_is_no_envelope_is_refused(junk: bytes) -> None:
    for act in (lambda: read_label(junk), lambda: open_envelope(junk, SECRET)):
        assert reason_of(act, error=IntegrityFailure) is Reason.KEYSTORE_DAMAGED


def test_a_short_passphrase_seals_nothing() -> None:
    with pytest.raises(Misconfigured):
        EnvelopeSealer(Passphrase("short"), entropy=SeededEntropy(), unsafe_fast=True)
