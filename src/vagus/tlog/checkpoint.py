"""Tree heads as signed notes with Ed25519 (C2SP tlog-checkpoint, signed-note); holds no private key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vagus.errors import IntegrityFailure, Malformed
from vagus.reasons import Reason
from vagus.tlog.merkle import HASH_BYTES

MAX_NOTE_BYTES = 100_000  # a signed note must accept at least 16 signatures, and post-quantum ones are large
_MAX_SIGNATURES = 64
_ED25519 = b"\x01"
_KEY_BYTES = 32
# the bytes of an Ed25519 SubjectPublicKeyInfo before the key (RFC 8410)
_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}\Z")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's tree head: which log, how many leaves, their root."""

    origin: str
    size: int
    root: bytes

    def encode(self) -> str:
        """The note text that is signed: three lines, each with its newline."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key that may sign notes: its name (a log's is its origin) and 32 bytes of Ed25519."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != _KEY_BYTES:
            msg = f"an Ed25519 public key has {_KEY_BYTES} bytes, this one has {len(self.public_key)}"
            raise Malformed(Reason.BAD_ENCODING, msg)

    @classmethod
    def of_spki(cls, name: str, spki_der: bytes) -> NoteKey:
        """The key in a DER SubjectPublicKeyInfo. Raises Malformed(UNSUPPORTED_ALGORITHM) unless it is Ed25519."""
        if not spki_der.startswith(_SPKI_PREFIX) or len(spki_der) != len(_SPKI_PREFIX) + _KEY_BYTES:
            msg = "a checkpoint is signed with an Ed25519 key only; make the key of the log of that kind"
            raise Malformed(Reason.UNSUPPORTED_ALGORITHM, msg)
        return cls(name, spki_der[len(_SPKI_PREFIX) :])

    @classmethod
    def decode(cls, verifier_key: str) -> NoteKey:
        """The key written `<name>+<key id in hexadecimal>+<base64 of type and key>`, as note tools exchange it.

        Raises Malformed(BAD_ENCODING).
        """
        parts = verifier_key.strip().split("+", 2)
        try:
            raw = base64.b64decode(parts[2], validate=True)
        except (IndexError, ValueError) as error:
            raise Malformed(Reason.BAD_ENCODING, "a log verifier key is not written name+id+base64") from error
        if raw[:1] != _ED25519:
            raise Malformed(
                Reason.UNSUPPORTED_ALGORITHM, "a log verifier key is not of type 1 (Ed25519), the only type read here"
            )
        key = cls(parts[0], raw[1:])
        if key.key_id.hex() != parts[1]:
            msg = f"the id {parts[1]!r} of a verifier key does not fit its name and key ({key.key_id.hex()})"
            raise Malformed(Reason.BAD_ENCODING, msg)
        return key

    def encode(self) -> str:
        """The verifier key as one line of text."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public_key).decode()}"

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name || LF || 0x01 || key) (C2SP signed-note, Signatures)."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:4]


def check_key_name(name: str) -> None:
    """Raises Malformed(BAD_ENCODING) for a name with spaces, '+' or control characters (C2SP signed-note, Format)."""
    if not name or any(c.isspace() or c == "+" or not c.isprintable() for c in name):
        msg = f"key name {name!r} is empty or has spaces or '+'; write it like log.example.org/vagus"
        raise Malformed(Reason.BAD_ENCODING, msg)


def encode_note(checkpoint: Checkpoint, key: NoteKey, signature: bytes) -> bytes:
    """The signed note: `signature` is the Ed25519 signature of `key` over `checkpoint.encode()`."""
    line = base64.b64encode(key.key_id + signature).decode()
    return f"{checkpoint.encode()}\n— {key.name} {line}\n".encode()


def decode_checkpoint(note: bytes) -> Checkpoint:
    """The tree head in a note, by any signer: verify before use.

    Raises Malformed(TOO_LARGE), Malformed(BAD_ENCODING).
    """
    return _decode_text(_split_note(note)[0])


def verify_checkpoint(note: bytes, key: NoteKey) -> Checkpoint:
    """The tree head in `note`, signed by `key` and about the log that the key is named after.

    Raises IntegrityFailure(CHECKPOINT_INVALID), Malformed(TOO_LARGE), Malformed(BAD_ENCODING).
    """
    # 1. Split the signed note at its last empty line (C2SP signed-note, Format).
    text, lines = _split_note(note)
    # 2. Ignore signatures of unknown keys, also those that share only the key's name or only its id.
    signatures = [raw[4:] for name, raw in lines if name == key.name and raw[:4] == key.key_id]
    if not signatures:
        msg = f"the checkpoint has no signature of {key.name} (key id {key.key_id.hex()}); is it of another log or key?"
        raise IntegrityFailure(Reason.CHECKPOINT_INVALID, msg, key=key.name)
    # 3. Require every signature of the known key to verify: one bad signature rejects the note.
    for signature in signatures:
        try:
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, text.encode())
        except InvalidSignature as error:
            msg = f"the signature of {key.name} on the checkpoint does not verify; the checkpoint was changed or forged"
            raise IntegrityFailure(Reason.CHECKPOINT_INVALID, msg, key=key.name) from error
    # 4. Require the text to be a tree head of this log: the key's name is the log's origin.
    checkpoint = _decode_text(text)
    if checkpoint.origin != key.name:
        msg = f"the checkpoint has origin {checkpoint.origin!r}, and the key is for log {key.name!r}"
        raise IntegrityFailure(Reason.CHECKPOINT_INVALID, msg, origin=checkpoint.origin)
    return checkpoint


def _split_note(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """The text with its final newline, and (key name, key id || signature) of each line."""
    if len(note) > MAX_NOTE_BYTES:
        msg = f"a signed note of {len(note)} bytes exceeds {MAX_NOTE_BYTES} bytes"
        raise Malformed(Reason.TOO_LARGE, msg, size=len(note), limit=MAX_NOTE_BYTES)
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad("a signed note is not UTF-8") from error
    if any(c < " " and c != "\n" for c in whole):
        raise _bad("a signed note has control characters")
    text, gap, tail = whole.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise _bad("a signed note has no signatures after an empty line, or no newline at its end")
    lines = tail[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise Malformed(
            Reason.TOO_MANY, f"a signed note has {len(lines)} signatures, at most {_MAX_SIGNATURES} are read"
        )
    signatures = []
    for line in lines:
        match = _SIGNATURE_LINE.match(line)
        if match is None:
            raise _bad("a signature line of a signed note is not written: em dash, key name, base64")
        try:
            raw = base64.b64decode(match[2], validate=True)
        except binascii.Error as error:
            raise _bad("a signature line of a signed note is not base64") from error
        if len(raw) < 5 or base64.b64encode(raw).decode() != match[2]:
            raise _bad("a signature line of a signed note is too short or not canonical base64")
        signatures.append((match[1], raw))
    return text + "\n", signatures


def _decode_text(text: str) -> Checkpoint:
    origin, *rest = text[:-1].split("\n")
    if len(rest) < 2 or not origin or not all(rest):
        raise _bad("a checkpoint has at least three lines (origin, size, root) and no empty one")
    if not _SIZE.fullmatch(rest[0]):
        raise _bad(f"the tree size {rest[0][:20]!r} of a checkpoint is not a decimal number without leading zeroes")
    try:
        root = base64.b64decode(rest[1], validate=True)
    except ValueError as error:
        raise _bad("the root hash of a checkpoint is not base64") from error
    if len(root) != HASH_BYTES or base64.b64encode(root).decode() != rest[1]:
        raise _bad(f"the root hash of a checkpoint is not {HASH_BYTES} bytes of canonical base64")
    return Checkpoint(origin, int(rest[0]), root)


def _bad(message: str) -> Malformed:
    return Malformed(Reason.BAD_ENCODING, message)
