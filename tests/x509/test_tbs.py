"""A TBS reads back field by field, or is refused whole."""

from __future__ import annotations

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of
from tests.x509.hierarchy import chain, contents
from vagus.errors import Malformed, VagusError
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.lints import find_findings
from vagus.x509.tbs import decode_tbs
from vagus.x509.templates import build_tbs

UNIT = chain()[2]
GOOD = build_tbs(contents("bedside"), UNIT.facts)


def test_the_fields_are_those_that_the_library_reads() -> None:
    loaded = x509.load_der_x509_certificate(UNIT.issue(contents("bedside")))
    fields = decode_tbs(loaded.tbs_certificate_bytes)
    assert fields.version == 2
    assert fields.serial == loaded.serial_number
    assert (fields.not_before, fields.not_after) == (loaded.not_valid_before_utc, loaded.not_valid_after_utc)
    assert [one.oid for one in fields.extensions] == [one.oid.dotted_string for one in loaded.extensions]
    assert [one.is_critical for one in fields.extensions] == [one.critical for one in loaded.extensions]
    assert fields.subject_der == loaded.subject.public_bytes()


def test_the_first_of_repeated_extensions_counts() -> None:
    elements = [whole for _, _, whole in der.split_elements(der.content_of(GOOD, der.SEQUENCE))]
    listed = der.content_of(der.content_of(elements[7], 0xA3), der.SEQUENCE)
    doubled = listed + der.sequence(der.object_identifier("2.5.29.15"), der.octet_string(b"second"))
    elements[7] = der.explicit(3, der.sequence(doubled))
    fields = decode_tbs(der.sequence(*elements))
    assert len(fields.extensions) == len(fields.by_oid) + 1
    assert fields.by_oid["2.5.29.15"].value != b"second"


def test_an_oversized_tbs_is_refused_unread() -> None:
    assert reason_of(decode_tbs, bytes(100_000), error=Malformed) is Reason.TOO_LARGE


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_not_der(data: bytes) -> None:
    assert reason_of(decode_tbs, data, error=Malformed) is Reason.NON_DER


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_a_changed_tbs_never_breaks_decoder_or_lints(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    profile = contents("bedside").profile
    try:
        findings = find_findings(bytes(data), profile, UNIT.facts)
    except VagusError as fault:  # pragma: no cover
        pytest.fail(f"lints report findings, they do not raise: {fault}")
    assert all(one.text for one in findings)
