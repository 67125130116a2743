"""What the ledger says: one frozen value per kind of entry, as canonical JSON; writes and judges nothing.

An entry is `{"at":…,"kind":…,"v":1,…}`: keys sorted, no spaces, ASCII. It holds codes, numbers, digests and names that
this installation gave, and reasons that an operator wrote; never text that a peer sent. What could be a person or a
patient's device (`Owner` fields) is written as a salted hash: HMAC-SHA256 under the salt of the installation.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeAlias, Union, get_args, get_origin, get_type_hints

from vagus.errors import Malformed
from vagus.reasons import Reason

VERSION = 1

Word: TypeAlias = Annotated[str, "word"]
"""A code or a name that this installation itself gave: printable ASCII without quotes, at most 120 characters."""
Owner: TypeAlias = Annotated[str, "owner"]
"""Who owns or acted, as `class:name`; hashed unless the class is one that names no person and no device."""
Text: TypeAlias = Annotated[str, "text"]
"""A reason in an operator's own words: one line of at most 200 printable characters."""
Digest: TypeAlias = Annotated[bytes, "digest"]
"""32 bytes."""
Serial: TypeAlias = Annotated[int, "serial"]
"""A certificate's serial number; written in hexadecimal, since JSON readers round large numbers."""

_OPEN_OWNERS = frozenset({"authority", "ocsp", "server", "gate", "log", "job", "rule", "plan", "maker", "profile"})
_HASHED = re.compile(r"sha256:[0-9a-f]{64}\Z")
_WORD = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/#@+=*-]{0,119}\Z")
_DIGEST_BYTES, _LONGEST_TEXT, _MAX_SERIAL_DIGITS = 32, 200, 42
_MAX_NUMBER = (1 << 53) - 1  # 2^53 - 1 is the largest integer that every JSON reader keeps exact (RFC 8259 section 6)


@dataclass(frozen=True, slots=True)
class IssuanceRecorded:
    """A certificate is about to be signed: commits to every byte of its TBS before the key is used."""

    kind: ClassVar[str] = "issuance"
    authority: Word  # an authority, as name#generation
    serial: Serial
    tbs_sha256: Digest
    spki_sha256: Digest
    profile: Word
    owner: Owner
    request_id_hash: Digest
    shard: int | None = None  # the shard of the CRL that the certificate's CDP names; None: unknown


@dataclass(frozen=True, slots=True)
class Revocation:
    """A certificate is revoked for good; `sequence` is its place in the revocation sequence."""

    kind: ClassVar[str] = "revocation"
    authority: Word
    serial: Serial
    reason: int  # revocation reason code of RFC 5280 5.3.1
    sequence: int
    by: Owner
    dated_at: int | None = None  # the revocation date that a CRL from elsewhere gives; None: the time of the entry


@dataclass(frozen=True, slots=True)
class Hold:
    """A certificate is suspended (certificateHold)."""

    kind: ClassVar[str] = "hold"
    authority: Word
    serial: Serial
    sequence: int
    by: Owner
    dated_at: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A suspended certificate counts again."""

    kind: ClassVar[str] = "release"
    authority: Word
    serial: Serial
    sequence: int
    by: Owner


@dataclass(frozen=True, slots=True)
class AuthorityCreated:
    """An authority has a key."""

    kind: ClassVar[str] = "authority-created"
    authority: Word
    authority_kind: Word
    spki_sha256: Digest
    parent: Word | None
    is_offline: bool


@dataclass(frozen=True, slots=True)
class AuthorityCertified:
    """An authority has a certificate; `issuer` is None for a self-signed one and one that was signed elsewhere."""

    kind: ClassVar[str] = "authority-certified"
    authority: Word
    serial: Serial
    certificate_sha256: Digest
    issuer: Word | None
    # SHA-256 of the certificates above the authority that are stored with it, concatenated
    chain_sha256: Digest | None = None


@dataclass(frozen=True, slots=True)
class PlanApplied:
    """A plan was applied; the numbers are what it added."""

    kind: ClassVar[str] = "plan-applied"
    plan_sha256: Digest
    authorities: int
    units: int
    models: int
    devices: int
    by: Owner


@dataclass(frozen=True, slots=True)
class PolicyAdopted:
    """A policy pack is in force from here on."""

    kind: ClassVar[str] = "policy-adopted"
    name: Word
    version: Word
    sha256: Digest
    by: Owner


@dataclass(frozen=True, slots=True)
class OperatorAct:
    """Someone with rights did something that has no kind of its own; `detail_sha256` commits to what exactly."""

    kind: ClassVar[str] = "operator-act"
    act: Word
    by: Owner
    subject: Owner | None = None
    detail_sha256: Digest | None = None
    reason: Text | None = None


@dataclass(frozen=True, slots=True)
class CeremonyStep:
    """One step of a ceremony with offline keys."""

    kind: ClassVar[str] = "ceremony-step"
    ceremony: Word
    step: int
    act: Word
    by: Owner
    authority: Word | None = None
    detail_sha256: Digest | None = None


@dataclass(frozen=True, slots=True)
class DeviceAdded:
    """A device is in the inventory."""

    kind: ClassVar[str] = "device-added"
    device: Owner
    unit: Word
    profile: Word
    state: Word
    by: Owner
    numbered: Owner | None = None  # number:MODEL:SERIAL, how the maker numbers this device; stored hashed
    host_names_sha256: Digest | None = None  # host names that the device may show as a server; None: none


@dataclass(frozen=True, slots=True)
class DeviceStateChanged:
    """A device moved on in its life."""

    kind: ClassVar[str] = "device-state-changed"
    device: Owner
    before: Word
    state: Word
    by: Owner


@dataclass(frozen=True, slots=True)
class TokenMade:
    """A one-time enrolment token exists."""

    kind: ClassVar[str] = "token-made"
    token_sha256: Digest
    device: Owner
    expires_at: int
    by: Owner


@dataclass(frozen=True, slots=True)
class TokenSpent:
    """A token was bound to a key at its first use."""

    kind: ClassVar[str] = "token-spent"
    token_sha256: Digest
    device: Owner
    spki_sha256: Digest


@dataclass(frozen=True, slots=True)
class TokensExpired:
    """Every unused token of a device ended."""

    kind: ClassVar[str] = "tokens-expired"
    device: Owner
    by: Owner


@dataclass(frozen=True, slots=True)
class KeyBlocked:
    """No certificate is issued for a key any more; a revocation for compromise implies this and adds no such entry."""

    kind: ClassVar[str] = "key-blocked"
    spki_sha256: Digest
    owner: Owner
    by: Owner


@dataclass(frozen=True, slots=True)
class ModelRecorded:
    """A device model is known, or changed; `facts_sha256` commits to all of it, the anchor vouches for its IDevIDs."""

    kind: ClassVar[str] = "model-recorded"
    model_sha256: Digest  # SHA-256 of the model's name
    facts_sha256: Digest
    anchor_sha256: Digest | None
    by: Owner


@dataclass(frozen=True, slots=True)
class AuthenticatedRefusal:
    """An authenticated peer was refused; `road` names the listener, `reason` is one of vagus.reasons."""

    kind: ClassVar[str] = "refusal"
    who: Owner
    road: Word
    reason: Word
    subject: Owner | None = None


@dataclass(frozen=True, slots=True)
class GatewayMinute:
    """A minute of a gateway's connection decisions: the head of its hash chain and the counts."""

    kind: ClassVar[str] = "gate-minute"
    gate: Word
    minute: int  # the minute of the gateway's records, in minutes since 1970 UTC
    root: Digest
    admitted: int
    refused: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The database came back from a backup whose log had `size` leaves; nothing is issued until it is settled."""

    kind: ClassVar[str] = "restored"
    backup_sha256: Digest
    size: int
    by: Owner


@dataclass(frozen=True, slots=True)
class GapAccepted:
    """An operator settled the leaves [start, end) that a restore had lost."""

    kind: ClassVar[str] = "gap-accepted"
    start: int
    end: int
    act: Word  # revoked or accepted: what the operator decided on the gap
    by: Owner


@dataclass(frozen=True, slots=True)
class IntentSettled:
    """An intent left open by a crash was signed after all, or revoked."""

    kind: ClassVar[str] = "intent-settled"
    authority: Word
    serial: Serial
    outcome: Word  # signed or revoked: how the open intent was settled


@dataclass(frozen=True, slots=True)
class CrlPublished:
    """A revocation list was signed; it covers the revocation sequence up to `sequence`."""

    kind: ClassVar[str] = "crl-published"
    authority: Word
    shard: int
    number: Serial  # a CRL number may have 20 bytes (RFC 5280 5.2.3), more than JSON numbers keep exact
    this_update: int
    next_update: int
    sequence: int
    crl_sha256: Digest


Entry: TypeAlias = (
    IssuanceRecorded | Revocation | Hold | Release | AuthorityCreated | AuthorityCertified | PlanApplied
    | PolicyAdopted | OperatorAct | CeremonyStep | DeviceAdded | DeviceStateChanged | TokenMade | TokenSpent
    | TokensExpired | KeyBlocked | ModelRecorded | AuthenticatedRefusal | GatewayMinute | Restored | GapAccepted
    | IntentSettled | CrlPublished
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry with the time of its batch, seconds since 1970 UTC."""

    at: int
    entry: Entry


@lru_cache(maxsize=1024)  # cached: the entries of one act usually hash the same owner
def conceal(salt: bytes, owner: str) -> str:
    """`owner` as the ledger writes it: open classes (`authority:h1/icu#1`) as they are, all else as a salted hash.

    The same owner has the same hash throughout one installation, so an auditor who has a name and the salt can find its
    entries; without the salt no one can test names.
    """
    if _HASHED.match(owner) or owner.partition(":")[0] in _OPEN_OWNERS:
        return owner
    return "sha256:" + hmac.digest(salt, owner.encode(), "sha256").hex()


def encode_entry(entry: Entry, *, at: int, salt: bytes) -> bytes:
    """The bytes of `entry` in the log, written at `at` (seconds since 1970 UTC).

    Raises Malformed(BAD_ENCODING) for a value that its field does not allow, such as text from outside.
    """
    document: dict[str, object] = {"at": at, "kind": entry.kind, "v": VERSION}
    for name, codec in _CODECS[type(entry)].items():
        value = getattr(entry, name)
        if value is not None:
            document[name] = codec.encode(name, value, salt)
        elif not codec.is_optional:
            raise _bad(f"the value for the ledger entry field {entry.kind}.{name} is missing")
    return _dump(document)


def decode_entry(encoded: bytes) -> LoggedEntry:
    """The entry that `encode_entry` wrote, byte for byte: every other spelling of it is refused.

    Raises Malformed(BAD_ENCODING), Malformed(BAD_VERSION).
    """
    try:
        document = json.loads(encoded, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        raise _bad("a ledger entry is not JSON") from error
    if not isinstance(document, dict) or _dump_or_none(document) != encoded:
        raise _bad("a ledger entry is not canonical JSON: sorted keys, no spaces, ASCII")
    if document.pop("v", None) != VERSION:
        raise Malformed(Reason.BAD_VERSION, f"a ledger entry is not of version {VERSION}; read it with a newer program")
    at, form = document.pop("at", None), _KINDS.get(str(document.pop("kind", None)))
    if form is None or type(at) is not int:
        raise _bad("a ledger entry lacks a known kind or a time")
    values: dict[str, Any] = {}
    for name, codec in _CODECS[form].items():
        if name in document:
            values[name] = codec.decode(name, document.pop(name))
        elif codec.is_optional:
            values[name] = None
        else:
            raise _bad(f"a ledger entry of kind {form.kind} lacks the field {name}")
    if document:
        raise _bad(f"a ledger entry of kind {form.kind} has the unknown field {min(document)!r}")
    return LoggedEntry(at, form(**values))


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one field is written and read."""

    encode: Callable[[str, Any, bytes], object]
    decode: Callable[[str, Any], object]
    is_optional: bool


def _check_word(name: str, value: object) -> str:
    if not isinstance(value, str) or not _WORD.match(value):
        msg = (
            f"ledger field {name} is not a word of at most 120 letters, digits and ._:/#@+=*-; refer to text by digest"
        )
        raise _bad(msg)
    return value


def check_text(name: str, value: object) -> str:
    """The text of an entry, or of what will be one. Raises Malformed(BAD_ENCODING)."""
    if isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable() and value.strip():
        return value
    raise _bad(f"{name} is not one line of 1 to {_LONGEST_TEXT} printable characters; correct it")


def _check_owner(name: str, value: object) -> str:
    word = _check_word(name, value)
    if not (_HASHED.match(word) or word.partition(":")[0] in _OPEN_OWNERS):
        raise _bad(f"ledger field {name} names a device or person in clear; it must be hashed")
    return word


def _check_number(name: str, value: object) -> int:
    if type(value) is not int or not -_MAX_NUMBER <= value <= _MAX_NUMBER:
        raise _bad(f"ledger field {name} is not a whole number below 2^53")
    return value


def _check_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _bad(f"ledger field {name} is not true or false")
    return value


def _encode_digest(name: str, value: object, _salt: bytes) -> str:
    if not isinstance(value, bytes) or len(value) != _DIGEST_BYTES:
        raise _bad(f"ledger field {name} is not a digest of {_DIGEST_BYTES} bytes")
    return value.hex()


def _decode_digest(name: str, value: object) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise _bad(f"ledger field {name} is not a digest of {_DIGEST_BYTES} bytes in hexadecimal")
    return bytes.fromhex(value)


def _encode_serial(name: str, value: object, _salt: bytes) -> str:
    if type(value) is not int or value < 0 or len(text := f"{value:x}") > _MAX_SERIAL_DIGITS:
        raise _bad(f"ledger field {name} is not a positive number of at most 21 bytes")
    return text


def _decode_serial(name: str, value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0|[1-9a-f][0-9a-f]{0,41}", value):
        raise _bad(f"ledger field {name} is not a number in hexadecimal")
    return int(value, 16)


_FORMS: Mapping[object, tuple[Callable[[str, Any, bytes], object], Callable[[str, Any], object]]] = {
    "word": (lambda name, value, _: _check_word(name, value), _check_word),
    "text": (lambda name, value, _: check_text(name, value), check_text),
    "owner": (lambda name, value, salt: _check_owner(name, conceal(salt, str(value))), _check_owner),
    "digest": (_encode_digest, _decode_digest),
    "serial": (_encode_serial, _decode_serial),
    int: (lambda name, value, _: _check_number(name, value), _check_number),
    bool: (lambda name, value, _: _check_flag(name, value), _check_flag),
}


def _codec(hint: object) -> _Codec:
    is_optional = False
    if get_origin(hint) in {Union, UnionType}:
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
        is_optional = True
    form = get_args(hint)[1] if get_origin(hint) is Annotated else hint
    return _Codec(*_FORMS[form], is_optional)


_KINDS: Mapping[str, type[Entry]] = {form.kind: form for form in get_args(Entry)}
_CODECS: Mapping[type[Entry], Mapping[str, _Codec]] = {
    form: {field.name: _codec(get_type_hints(form, include_extras=True)[field.name]) for field in fields(form)}
    for form in _KINDS.values()
}


_JSON = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True
)  # one encoder for all entries: `json.dumps` would make one for each call


def _dump(document: Mapping[str, object]) -> bytes:
    return _JSON.encode(document).encode("ascii")


def _dump_or_none(document: Mapping[str, object]) -> bytes | None:
    try:
        return _dump(document)
    except (ValueError, RecursionError):  # the text has a lone surrogate, or is nested too deeply
        return None


def _no_float(_text: str) -> object:
    raise ValueError


def _bad(message: str) -> Malformed:
    return Malformed(Reason.BAD_ENCODING, message)
