"""Lists are built byte for byte as RFC 5280 section 5 has them; what a library reads back is what went in."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of
from tests.x509.chains import spki
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509.algorithms import ECDSA_SHA256
from vagus.x509.crls import building
from vagus.x509.crls.building import RevocationReason, build_crl_tbs, split_crl
from vagus.x509.keys import decode_public_key
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.templates import self_issuer

AT = datetime(2027, 3, 1, 12, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = self_issuer(encode_subject(SubjectFields("Hospital 1", None, "CA")), decode_public_key(spki(KEY)), None)
URL = "http://status.example/crl/h1.icu/1/0.crl"
CHOSEN = [reason for reason in RevocationReason if reason is not RevocationReason.REMOVE_FROM_CRL]


contents = partial(building.CrlContents, number=7, this_update=AT, next_update=AT + timedelta(days=7), entries=())


def signed(made: building.CrlContents) -> x509.CertificateRevocationList:
    tbs = build_crl_tbs(made, ISSUER)
    der = building.assemble_crl(tbs, ECDSA_SHA256, KEY.sign(tbs, ec.ECDSA(hashes.SHA256())))
    assert split_crl(der)[0] == tbs
    return x509.load_der_x509_crl(der)


@settings(max_examples=60, deadline=None)
@given(
    entries=st.lists(
        st.tuples(
            st.integers(1, (1 << 159) - 1),
            st.datetimes(datetime(1999, 1, 1), datetime(2060, 1, 1)),  # noqa: DTZ001
            st.sampled_from(CHOSEN),
        ),
        max_size=6,
        unique_by=lambda one: one[0],
    ),
    number=st.integers(1, (1 << 159) - 1),
    has_scope=st.booleans(),
)
def test_what_goes_in_is_what_a_library_reads(
    entries: list[tuple[int, datetime, RevocationReason]], number: int, has_scope: bool
) -> None:
    encoded = [building.encode_crl_entry(serial, at.replace(tzinfo=UTC), reason) for serial, at, reason in entries]
    crl = signed(contents(number=number, entries=encoded, shard_url=URL if has_scope else None))
    assert crl.is_signature_valid(KEY.public_key())
    assert crl.issuer.public_bytes() == ISSUER.subject_der
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number
    assert [one.serial_number for one in crl] == [serial for serial, _, _ in entries]
    for found, (_, at, reason) in zip(crl, entries, strict=True):
        assert found.revocation_date_utc == at.replace(microsecond=0, tzinfo=UTC)
        if reason is RevocationReason.UNSPECIFIED:
            assert not list(found.extensions), "RFC 5280 5.3.1: absent rather than unspecified"
        else:
            assert found.extensions.get_extension_for_class(x509.CRLReason).value.reason.value == reason.spelling
    assert len(list(crl.extensions)) == 2 + has_scope


def test_an_empty_crl_has_no_empty_sequence() -> None:
    crl = signed(contents())
    assert len(crl) == 0
    assert b"\x30\x00" not in build_crl_tbs(contents(), ISSUER)


def test_a_delta_names_its_base_critically() -> None:
    crl = signed(contents(base_number=5, shard_url=URL, freshest_url="http://x.example/d.crl"))
    delta = crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
    assert (delta.critical, delta.value.crl_number) == (True, 5)
    with pytest.raises(x509.ExtensionNotFound):  # RFC 5280 5.2.6: never in a delta itself
        crl.extensions.get_extension_for_class(x509.FreshestCRL)


def test_a_complete_crl_points_to_its_delta() -> None:
    crl = signed(contents(shard_url=URL, freshest_url="http://x.example/d.crl"))
    (point,) = crl.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert [name.value for name in point.full_name or []] == ["http://x.example/d.crl"]


@pytest.mark.parametrize(
    "changes", [{"number": 0}, {"number": 1 << 159}, {"next_update": AT}, {"shard_url": "http://é.example/"}]
)
def test_what_no_crl_may_say_is_refused(changes: dict[str, Any]) -> None:
    reason = reason_of(build_crl_tbs, contents(**changes), ISSUER, error=Malformed)
    assert reason in {Reason.BAD_ARGUMENT, Reason.NON_CANONICAL}


def test_numbers_follow_the_clock_and_never_fall() -> None:
    assert building.next_crl_number(0, AT) == int(AT.timestamp()) * 1000
    assert building.next_crl_number(10**15, AT) == 10**15 + 1


@pytest.mark.parametrize("reason", list(RevocationReason))
def test_reasons_are_read_as_they_are_spelt(reason: RevocationReason) -> None:
    assert RevocationReason.parse(reason.spelling) is reason
    assert RevocationReason.parse(reason.spelling.upper()) is reason


def test_an_unknown_reason_is_refused_with_the_known_ones() -> None:
    assert reason_of(RevocationReason.parse, "stolen", error=Malformed, match="keyCompromise") is Reason.BAD_ARGUMENT


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"\x30\x03\x02\x01\x00", b"\x30\x80"])
def test_what_is_no_list_does_not_split(der: bytes) -> None:
    assert reason_of(split_crl, der, error=Malformed) is Reason.NON_DER


def test_a_hundred_thousand_entries_are_joined_in_well_under_a_second() -> None:
    entry = building.encode_crl_entry(1 << 158, AT, RevocationReason.KEY_COMPROMISE)
    begin = time.process_time()
    tbs = build_crl_tbs(contents(entries=[entry] * 100_000), ISSUER)
    assert time.process_time() - begin < 0.5
    assert len(tbs) > 5_000_000
