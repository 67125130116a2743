"""Subjects are written canonically; names of others are only ever described."""

from __future__ import annotations

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of
from tests.x509.chains import attribute, name
from vagus.errors import Malformed, VagusError
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.names.distinguished import COMMON_NAME, SubjectFields, decode_name, encode_subject, fold_text

PRINTABLE, UTF8, BMP, UNIVERSAL, TELETEX = 0x13, 0x0C, 0x1E, 0x1C, 0x14
FULL = SubjectFields("Krankenhaus Zürich", "Intensive Care", "pump", country="CH", serial_number="AIP3-1")


def test_a_subject_reads_back_in_its_order() -> None:
    decoded = decode_name(encode_subject(FULL))
    assert decoded.describe() == "C=CH, O=Krankenhaus Zürich, OU=Intensive Care, serialNumber=AIP3-1, CN=pump"
    assert [one.tag for (one,) in decoded.attributes] == [0x13, 0x0C, 0x0C, 0x13, 0x0C]


def test_a_subject_is_what_the_library_reads() -> None:
    name = x509.Name.from_rfc4514_string("CN=pump,OU=Intensive Care,O=Harbour")
    assert encode_subject(SubjectFields("Harbour", "Intensive Care", "pump")) == name.public_bytes()


@pytest.mark.parametrize(
    "fields",
    [
        SubjectFields(""),
        SubjectFields(" Harbour"),
        SubjectFields("Harbour\n"),
        SubjectFields("x" * 65),
        SubjectFields("Harbour", ""),
        SubjectFields("Harbour", "ICU", "a\x00b"),
        SubjectFields("Harbour", country="ch"),
        SubjectFields("Harbour", country="CHE"),
        SubjectFields("Harbour", country="ÄÖ"),
        SubjectFields("Harbour", serial_number="SN_1"),
        SubjectFields("\ud800"),
    ],
)
def test_fields_that_are_empty_long_or_unprintable_are_refused(fields: SubjectFields) -> None:
    assert reason_of(encode_subject, fields, error=Malformed) is Reason.NON_CANONICAL


@given(st.text(min_size=1, max_size=64), st.one_of(st.none(), st.text(min_size=1, max_size=64)))
def test_any_field_is_refused_or_comes_back(organisation: str, common_name: str | None) -> None:
    try:
        encoded = encode_subject(SubjectFields(organisation, None, common_name))
    except Malformed:
        return
    texts = [one.value.decode() for (one,) in decode_name(encoded).attributes]
    assert texts == [organisation, *([common_name] if common_name is not None else [])]


def test_odd_strings_of_others_are_described_and_never_fail() -> None:
    odd = der.sequence(
        der.set_of(
            [
                der.sequence(der.object_identifier("2.5.4.3"), der.encode_tlv(0x14, "Zürich".encode("latin-1"))),
                der.sequence(der.object_identifier("2.5.4.10"), der.encode_tlv(0x1E, "日本".encode("utf-16-be"))),
            ]
        ),
        der.set_of([der.sequence(der.object_identifier("1.2.3.4"), der.encode_tlv(0x0C, b"\xff\xfe"))]),
        der.set_of([der.sequence(der.object_identifier("2.5.4.11"), der.integer(7))]),
    )
    assert decode_name(odd).describe() == "O=日本+CN=Zürich, 1.2.3.4=#fffe, OU=#07"


def test_a_line_feed_cannot_break_a_record() -> None:
    line_feed = der.sequence(
        der.set_of([der.sequence(der.object_identifier("2.5.4.3"), der.encode_tlv(0x0C, b"a\nb"))])
    )
    assert decode_name(line_feed).describe() == "CN=#610a62"


@pytest.mark.parametrize(
    "data",
    [
        der.sequence(der.integer(1)),
        der.sequence(der.set_of([])),
        der.sequence(der.set_of([der.integer(1)])),
        b"\x31\x00",
    ],
)
def test_what_is_no_name_is_refused(data: bytes) -> None:
    assert reason_of(decode_name, data, error=Malformed) is Reason.NON_DER


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_our_errors(data: bytes) -> None:
    try:
        decode_name(data).describe()
    except VagusError as fault:
        assert fault.reason is Reason.NON_DER


def test_an_attribute_type_that_is_too_long_to_spell_compares_and_is_not_described() -> None:
    def typed(size: int) -> bytes:
        kind = der.encode_tlv(der.OBJECT_IDENTIFIER, b"\x2a" * size)
        return der.sequence(der.set_of([der.sequence(kind, der.encode_tlv(der.UTF8_STRING, b"x"))]))

    assert decode_name(typed(64)).describe().endswith("=x")
    assert decode_name(typed(128)).matches(decode_name(typed(128)))
    for act in (decode_name(typed(65)).describe, lambda: decode_name(typed(129))):
        assert reason_of(act, error=Malformed) is Reason.NON_DER


# --- comparison, RFC 5280 7.1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (name("O=Harbour,CN=Root"), name("O=HARBOUR,CN=root")),
        (name("CN=Issuing  CA"), name("CN= issuing CA ")),
        (name("CN=Root", PRINTABLE), name("CN=Root", UTF8)),
        (name("CN=Root", BMP), name("CN=Root", UTF8)),
        (name("CN=Root", UNIVERSAL), name("CN=ROOT", PRINTABLE)),
        (name("CN=Hôpital"), name("CN=HÔPITAL")),
        (name("CN=Strasse"), name("CN=Straße")),
        (name("CN=ﬁne"), name("CN=fine")),
    ],
    ids=["case", "spaces", "printable-utf8", "bmp-utf8", "universal", "accents", "sharp-s", "ligature"],
)
def test_the_same_name_written_otherwise_matches(one: bytes, other: bytes) -> None:
    assert decode_name(one).matches(decode_name(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (name("CN=Root"), name("O=Root")),
        (name("CN=Root"), name("CN=Root,CN=Root")),
        (name("O=A,CN=B"), name("CN=B,O=A")),
        (name("CN=Root\0"), name("CN=Root")),
        (name("CN=Root"), name("CN=R\u043e\u043et")),
        (name("CN=Root", TELETEX), name("CN=Root", UTF8)),
        (name("CN=Ro ot"), name("CN=Root")),
    ],
    ids=["type", "count", "order", "nul", "cyrillic", "teletex", "inner-space"],
)
def test_another_name_does_not_match(one: bytes, other: bytes) -> None:
    assert not decode_name(one).matches(decode_name(other))


def test_the_order_inside_a_multi_valued_rdn_does_not_matter() -> None:
    first, second = attribute("CN", "a"), attribute("O", "b")
    one = der.sequence(der.encode_tlv(der.SET, first + second))
    other = der.sequence(der.encode_tlv(der.SET, second + first))
    assert decode_name(one).matches(decode_name(other))


def test_a_subtree_is_an_initial_part_of_whole_rdns() -> None:
    base = decode_name(name("O=Harbour"))
    assert decode_name(name("O=harbour,OU=ICU")).is_within(base)
    assert decode_name(name("")).relative_names == ()
    assert not decode_name(name("O=Harbour General")).is_within(base)
    assert decode_name(name("O=Other")).is_within(decode_name(name("")))


def test_mail_addresses_and_common_names_are_found() -> None:
    decoded = decode_name(name("CN=one,E=a@b.example,CN=two"))
    assert decoded.emails == ("a@b.example",)
    assert decoded.texts(COMMON_NAME) == ["one", "two"]


@pytest.mark.parametrize(
    "broken",
    [
        der.sequence(der.encode_tlv(der.SET, b"")),
        der.sequence(der.sequence(attribute("CN", "a"))),
        der.sequence(der.encode_tlv(der.SET, der.sequence(der.object_identifier("2.5.4.3")))),
        der.sequence(der.encode_tlv(der.SET, der.sequence(der.NULL_DER, der.NULL_DER))),
        name("CN=a") + b"\0",
        b"\x30\x80\x00\x00",
    ],
)
def test_a_broken_name_is_refused(broken: bytes) -> None:
    assert reason_of(decode_name, broken, error=Malformed) is Reason.NON_DER


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold_text(fold_text(text)) == fold_text(text)


@settings(max_examples=100)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=",="), min_size=1, max_size=2000))
def test_every_name_matches_itself(text: str) -> None:
    """Also beyond the size up to which decoded names are remembered."""
    whole = der.sequence(der.encode_tlv(der.SET, attribute("CN", text)))
    assert decode_name(whole).matches(decode_name(whole))


def test_thirty_marks_on_a_character_are_sorted_and_more_compare_byte_by_byte() -> None:
    """UAX #15 section 13: marks of several classes may come in any order, up to the bound."""
    above, below = "\u0301", "\u0316"
    few = (name(f"CN=e{above * 15}{below * 15}"), name(f"CN=e{below * 15}{above * 15}"))
    assert decode_name(few[0]).matches(decode_name(few[1]))
    many = (name(f"CN=e{above * 16}{below * 15}"), name(f"CN=e{below * 15}{above * 16}"))
    assert not decode_name(many[0]).matches(decode_name(many[1]))
    assert decode_name(many[0]).matches(decode_name(bytes(bytearray(many[0]))))
    assert decode_name(many[0]).texts(COMMON_NAME) == [f"e{above * 16}{below * 15}"]
