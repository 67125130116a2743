"""Reads a TOML file that people wrote into a pydantic model; a fault names file, key, remedy and is never repaired."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vagus.errors import Misconfigured
from vagus.reasons import Reason
from vagus.texts import decode_text

if TYPE_CHECKING:
    from collections.abc import Sequence

Model = TypeVar("Model", bound="Document")

_LARGEST = 4 * 1024 * 1024
_MOST_PARTS = 16
_ENDS = re.compile(rb"[=,{\[\n]")  # a TOML key ends before one of these characters
_OPAQUE = re.compile(  # TOML 1.0 strings of the four kinds, and comments: dots inside them separate no parts of a key
    rb""""{3}[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3}|\'{3}.*?\'{3}|"(?:[^"\\\n]|\\[^\n])*"|\'[^\'\n]*\'|#[^\n]*""",
    re.DOTALL,
)
_SHOWN = 5


class Document(BaseModel):
    """A table of a file that people write: no unknown key, no silent conversion, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def read_document(path: Path, reason: Reason) -> bytes:
    """The bytes of a file that people wrote, at most one more than is allowed. Raises Misconfigured(reason)."""
    try:
        with path.open("rb") as stream:
            return stream.read(_LARGEST + 1)
    except OSError as fault:
        msg = f"{path}: cannot be read ({fault.strerror}); name a readable TOML file"
        raise Misconfigured(reason, msg, file=str(path)) from fault


def decode_document(raw: bytes, file: str, model: type[Model], reason: Reason) -> Model:
    """The bytes of a TOML file as a checked model; `file` is what the messages call it.

    Raises Misconfigured(reason).
    """
    return check_tables(decode_tables(raw, file, reason), file, model, reason)


def decode_tables(raw: bytes, file: str, reason: Reason) -> dict[str, object]:
    """The bytes of a TOML file as plain tables, unchecked beyond their form. Raises Misconfigured(reason)."""
    if len(raw) > _LARGEST:
        msg = f"{file}: larger than the {_LARGEST} bytes allowed; split it"
        raise Misconfigured(reason, msg, file=file)
    # tomllib needs time proportional to the square of a key's parts. A small file has room for 200,000 parts, which
    # would take hours.
    if any(part.count(b".") >= _MOST_PARTS for part in _ENDS.split(_OPAQUE.sub(b"", raw))):
        msg = f"{file}: a key has more than {_MOST_PARTS} parts with dots between; no file here needs more than three"
        raise Misconfigured(reason, msg, file=file)
    try:
        text = decode_text(raw)
    except ValueError as fault:
        raise Misconfigured(reason, f"{file}: {fault}", file=file) from fault
    try:
        return tomllib.loads(text)
    # tomllib raises a plain ValueError for an integer of more than 4,300 digits.
    except (ValueError, RecursionError) as fault:
        msg = f"{file}: not TOML: {fault or 'nested too deeply'}; correct the line"
        raise Misconfigured(reason, msg, file=file) from fault


def check_tables(
    tables: dict[str, object], file: str, model: type[Model], reason: Reason, *, is_adopted: bool = False
) -> Model:
    """Plain tables as a checked model. Raises Misconfigured(reason) with every finding.

    `is_adopted`: an earlier release may have accepted the file, so its words are not judged again.
    """
    try:
        return model.model_validate(tables, context=not is_adopted)
    except ValidationError as fault:
        raise _misconfigured(fault, file, reason) from fault


def _misconfigured(fault: ValidationError, file: str, reason: Reason) -> Misconfigured:
    found = fault.errors(include_url=False, include_context=False, include_input=False)
    return refusal(file, [(spell_key(one["loc"]), _remedy(one["type"], one["msg"])) for one in found], reason)


def refusal(file: str, findings: Sequence[tuple[str, str]], reason: Reason) -> Misconfigured:
    """All findings (key and remedy) in one error, the first ones spelt out."""
    lines = [f"{file}: {key}: {text}" for key, text in findings[:_SHOWN]]
    if len(findings) > _SHOWN:
        lines.append(f"{file}: and {len(findings) - _SHOWN} more")
    return Misconfigured(reason, "\n".join(lines), file=file, key=findings[0][0], findings=len(findings))


def spell_key(location: Sequence[int | str]) -> str:
    """A place in a TOML file as people write it: `hospitals[2].units[0].label`, counted from 0."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the whole file"


def _remedy(kind: str, message: str) -> str:
    said = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return "this key is unknown here; correct its spelling or delete it"
    if kind == "missing":
        return "this key is missing; add it"
    return said[:1].lower() + said[1:]
