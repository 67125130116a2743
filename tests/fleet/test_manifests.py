"""Manifests: what a maker wrote is read back; anything else is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Conflict, Malformed
from vagus.fleet.manifests import MadeDevice, MadeModel, Manifest, ManifestImport, decode_manifest, encode_manifest
from vagus.reasons import Reason

MANIFEST = Manifest(
    "Maker",
    bytes(32),
    (MadeModel("Pump", "infusion-pump"),),
    (MadeDevice("Pump", "P-1", "00"), MadeDevice("Pump", "P-2")),
)


def changed(**keys: object) -> bytes:
    document = {**json.loads(encode_manifest(MANIFEST)), **keys}
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def test_a_manifest_is_read_back() -> None:
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.BAD_ENCODING),
        (b"[" * 100_000, Reason.BAD_ENCODING),
        (changed(kind="other"), Reason.BAD_ENCODING),
        (changed(format=2), Reason.BAD_VERSION),
        (changed(maker=None), Reason.BAD_ENCODING),
        (changed(maker=""), Reason.BAD_ENCODING),
        (changed(maker="line\nbreak"), Reason.BAD_ENCODING),
        (changed(anchor_sha256="00"), Reason.BAD_ENCODING),
        (changed(anchor_sha256="zz"), Reason.BAD_ENCODING),
        (changed(models={}), Reason.BAD_ENCODING),
        (changed(models=[1]), Reason.BAD_ENCODING),
        (changed(devices=[{"model": "Bed", "serial": "1"}]), Reason.BAD_ENCODING),
        (changed(devices=[{"model": "Pump", "serial": "1"}] * 2), Reason.BAD_ENCODING),
        (changed(devices=None), Reason.BAD_ENCODING),
    ],
)
def test_what_is_no_manifest_is_refused(raw: bytes, reason: Reason) -> None:
    assert reason_of(decode_manifest, raw, error=Malformed) is reason


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(max_size=5), st.lists, max_leaves=5).map(json.dumps).map(str.encode)
)
@settings(max_examples=60)
def test_any_bytes_are_refused_by_name(raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode_manifest(raw)


def test_a_manifest_belongs_to_its_anchor() -> None:
    with refuses(Reason.KEY_MISMATCH, Conflict):
        ManifestImport(MANIFEST, b"another certificate", lambda _: "bedside")
