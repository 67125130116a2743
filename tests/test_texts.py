"""Text that people write: UTF-8 with or without a byte order mark, and no character that is not visible."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus.texts import decode_text, find_unseen


@given(st.text())
def test_a_byte_order_mark_changes_nothing(text: str) -> None:
    raw = text.encode()
    assert decode_text(b"\xef\xbb\xbf" + raw) == text
    assert decode_text(raw) == text.removeprefix("\ufeff")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("a".encode("utf-16"), "it is UTF-16; save"),
        ("aé".encode("utf-16-be"), "byte 3 is not UTF-8; save"),
        (b"\xfe\xff\x00a", "it is UTF-16; save"),
        ("a".encode("utf-32"), "it is UTF-32; save"),
        (b"\xef\xbb\xbfab\xff", "byte 5 is not UTF-8; save"),
        ("Hôpital".encode("latin-1"), "byte 1 is not UTF-8; save"),
    ],
)
def test_another_encoding_is_named(raw: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode_text(raw)


@given(st.characters(categories=["Cf", "Cc", "Zl", "Zp"]))
def test_a_format_character_is_found_wherever_it_stands(character: str) -> None:
    assert find_unseen(f"First {character}Hospital") == f"U+{ord(character):04X}"


@given(st.text(st.characters(categories=["L", "Nd", "P", "Sc"], exclude_characters="\u115f\u1160\u3164\uffa0")))
def test_letters_digits_and_punctuation_of_every_script_are_taken(text: str) -> None:
    assert find_unseen(text) is None


@pytest.mark.parametrize(
    "name",
    ["HANGUL FILLER", "BRAILLE PATTERN BLANK", "VARIATION SELECTOR-16", "NO-BREAK SPACE", "COMBINING GRAPHEME JOINER"],
)
def test_blanks_that_pass_for_letters_are_found(name: str) -> None:
    assert find_unseen(f"ICU{unicodedata.lookup(name)}") is not None
    assert find_unseen("ICU 3") is None
