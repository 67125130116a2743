"""Seals bytes under a passphrase: one key derivation per salt, AES-256-GCM per piece; knows no keys and no files.

From passphrase to piece:

1. scrypt or PBKDF2 turns the passphrase and a salt into 64 bytes, once for each salt: 32 for the AES-256-GCM key, 32
   for the nonce key. The cost (0.3 s) is what an attacker pays for each guess. Folders that one passphrase opens may
   have one salt: their headers differ in the folder's id (docs/adr/0017-one-derivation-per-passphrase.md).
2. A probe, a sealed constant beside the derivation's parameters, distinguishes a wrong passphrase from a damaged file.
3. A piece is sealed with its header as associated data: folder, key id, purposes, owner, format. A file that is copied
   over another one, or whose header was edited, does not open.

The nonce of a piece is HMAC-SHA256 under the nonce key over length of header, header, content, cut to 96 bits (the
idea of SIV, RFC 5297). GCM fails completely when a nonce repeats with other content. Here it repeats only when header
and content repeat, and then the result is the same ciphertext, which shows no more than that. No random source is
needed, so a bad one cannot break it. Two pieces with different contents share a nonce with probability 2^-96; even
after 2^32 pieces the chance of any such pair is below 2^-32 (NIST SP 800-38D, 8.3 asks for that bound).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from vagus.errors import IntegrityFailure, Malformed, NotAuthorised
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vagus.clock import Entropy
    from vagus.keystore.passphrases import Passphrase

Kdf = Literal["scrypt", "pbkdf2"]
Header = dict[str, "str | int | list[str]"]

_SCRYPT_COST = 2**17
_UNSAFE_SCRYPT_COST = 2**10
_PBKDF2_ROUNDS = 600_000
_UNSAFE_PBKDF2_ROUNDS = 1_000
_SALT_BYTES = 16
_MOST_AT_ONCE = 4
"""Derivations that run at the same time; each takes 128 MB."""
_PROBE = b"vagus keystore probe"


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a passphrase becomes a wrapping key: `cost` is scrypt's n (r = 8, p = 1) or PBKDF2-HMAC-SHA256's rounds."""

    kdf: Kdf
    cost: int
    salt: bytes

    @classmethod
    def choose(cls, kdf: Kdf, entropy: Entropy, *, unsafe_fast: bool) -> Derivation:
        """A new derivation with a fresh salt; `unsafe_fast` is for tests alone."""
        costs = {
            "scrypt": (_SCRYPT_COST, _UNSAFE_SCRYPT_COST),
            "pbkdf2": (_PBKDF2_ROUNDS, _UNSAFE_PBKDF2_ROUNDS),
        }
        return cls(kdf, costs[kdf][unsafe_fast], entropy(_SALT_BYTES))

    def __post_init__(self) -> None:
        # These bounds keep a manipulated file from making the derivation take gigabytes of memory, or no work at all.
        within = {
            "scrypt": self.cost in {2**power for power in range(10, 21)},
            "pbkdf2": _UNSAFE_PBKDF2_ROUNDS <= self.cost <= 100_000_000,
        }
        if not within.get(self.kdf, False) or not 8 <= len(self.salt) <= 64:
            msg = f"key derivation {self.kdf!r} with cost {self.cost} and {len(self.salt)} bytes of salt is unknown"
            raise Malformed(Reason.BAD_ENCODING, msg)

    def is_like(self, kdf: Kdf, *, unsafe_fast: bool) -> bool:
        """Whether `choose` would give the same but for the salt."""
        return (self.kdf, self.is_strong) == (kdf, not unsafe_fast)

    @property
    def is_strong(self) -> bool:
        """Whether the cost is that of production, or more."""
        return self.cost >= {"scrypt": _SCRYPT_COST, "pbkdf2": _PBKDF2_ROUNDS}[self.kdf]

    def derive(self, passphrase: Passphrase) -> Wrapping:
        """The wrapping key; takes about 0.3 s and 128 MB at full cost."""
        secret = passphrase.unsafe_reveal()
        if self.kdf == "scrypt":
            return Wrapping(Scrypt(salt=self.salt, length=64, n=self.cost, r=8, p=1).derive(secret))
        return Wrapping(PBKDF2HMAC(hashes.SHA256(), 64, self.salt, self.cost).derive(secret))


class Wrapping:
    """A key that seals and opens pieces; never shows itself."""

    __slots__ = ("_cipher", "_nonce_key")

    def __init__(self, material: bytes) -> None:
        self._cipher = AESGCM(material[:32])
        self._nonce_key = material[32:]

    def __repr__(self) -> str:
        return "Wrapping(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a wrapping key object cannot be pickled, so that it never leaves this process")

    def seal(self, header: Mapping[str, object], content: bytes) -> bytes:
        """Nonce and ciphertext of `content`, bound to every field of `header` (associated data)."""
        bound = canonical(header)
        nonce = hmac.digest(self._nonce_key, len(bound).to_bytes(8, "big") + bound + content, "sha256")[:12]
        return nonce + self._cipher.encrypt(nonce, content, bound)

    def open(self, header: Mapping[str, object], sealed: bytes) -> bytes:
        """What `seal` was given. Raises IntegrityFailure(KEYSTORE_DAMAGED) when either is not as sealed."""
        try:
            return self._cipher.decrypt(sealed[:12], sealed[12:], canonical(header))
        except (InvalidTag, ValueError):
            msg = f"sealed piece {header.get('id', '')!s} does not decrypt: altered, or from elsewhere; restore it"
            raise IntegrityFailure(Reason.KEYSTORE_DAMAGED, msg) from None

    def vary(self, label: bytes, content: bytes) -> bytes:
        """32 bytes for salts of exports: the same for the same content, unpredictable without this key."""
        return hmac.digest(self._nonce_key, label + b"\0" + content, "sha256")

    def probe(self, header: Mapping[str, object]) -> bytes:
        """A sealed constant that distinguishes a wrong passphrase from a damaged file."""
        return self.seal(header, _PROBE)

    def check_probe(self, header: Mapping[str, object], sealed: bytes, what: str) -> None:
        """Raises NotAuthorised(PASSPHRASE_WRONG) when this key did not seal the probe."""
        try:
            content = self.open(header, sealed)
        except IntegrityFailure:
            content = b""
        if not hmac.compare_digest(content, _PROBE):
            raise NotAuthorised(
                Reason.PASSPHRASE_WRONG, f"the passphrase does not open {what}; check the passphrase source"
            )


class Derivations:
    """The wrapping keys of one process: each pair of derivation and passphrase is computed once."""

    def __init__(self) -> None:
        self._made: dict[tuple[Derivation, bytes], Wrapping] = {}

    def derive(self, derivation: Derivation, passphrase: Passphrase) -> Wrapping:
        """As `Derivation.derive`; takes its time for a pair that is new."""
        pair = derivation, passphrase.unsafe_reveal()
        if pair not in self._made:
            self._made[pair] = derivation.derive(passphrase)
        return self._made[pair]

    def derive_all(self, wanted: Iterable[tuple[Derivation, Passphrase]], advance: Callable[[int, int], None]) -> None:
        """Derive several keys at a time; after each, `advance` gets how many are done, of how many."""
        new = {(derivation, secret.unsafe_reveal()): (derivation, secret) for derivation, secret in wanted}
        todo = [pair for key, pair in new.items() if key not in self._made]
        # the library releases the interpreter while it derives
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_AT_ONCE)) as pool:
            for done, _ in enumerate(as_completed([pool.submit(self.derive, *pair) for pair in todo]), 1):
                advance(done, len(todo))


def canonical(header: Mapping[str, object]) -> bytes:
    """The one byte form of a header: JSON, keys sorted, no spaces, ASCII."""
    return json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def checksum(header: Mapping[str, object]) -> str:
    """SHA-256 of a header in hex: detects accidental damage before the passphrase is blamed."""
    return hashlib.sha256(canonical(header)).hexdigest()
