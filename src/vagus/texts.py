"""Text that people write: its encoding in files, and characters that are not visible; pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

_OTHER: Final = (  # the longest first: the mark of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# Default_Ignorable_Code_Point of Unicode that `str.isprintable` takes, and the blank braille pattern. All format
# characters (Cf: bidirectional controls, joiners, soft hyphens, tags) are not printable.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def without_mark(raw: bytes) -> bytes:
    """The bytes of a text file after a UTF-8 byte order mark, which editors on Windows write."""
    return raw.removeprefix(codecs.BOM_UTF8)


def decode_text(raw: bytes) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises ValueError that names what was found."""
    try:
        return without_mark(raw).decode("utf-8")
    except UnicodeDecodeError as fault:
        for mark, name in _OTHER:
            if raw.startswith(mark):
                raise ValueError(f"it is {name}; save the file as UTF-8") from fault
        at = len(raw) - len(without_mark(raw)) + fault.start
        raise ValueError(f"byte {at} is not UTF-8; save the file as UTF-8") from fault


def find_unseen(text: str) -> str | None:
    """The first character that is not visible as what it is, a wide or narrow space too, as `U+202E`; else None.

    Two names that differ in such a character look the same; one that changes the direction makes a name look like
    another (Unicode TR 36, section 2).
    """
    found = next((one for one in text if not one.isprintable() or _UNSEEN.match(one)), None)
    return None if found is None else f"U+{ord(found):04X}"
