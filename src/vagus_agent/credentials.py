"""The device's key and certificate chain on disk, replaced so that a crash leaves a working pair.

    STATE/pending/key.pem [chain.pem]      a key whose certificate is on its way
    STATE/credentials/000001/{key,chain}.pem [proven] [refused]
    STATE/current -> credentials/000001

A key is durable before its request leaves, so a lost response is requested again with the same key. A new
generation becomes `current` by one rename. The old one stays until the new one has worked once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.x509 import Certificate

from vagus import durable_files
from vagus.errors import IntegrityFailure, VagusError
from vagus.reasons import Reason
from vagus_agent import keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY, CHAIN, PROVEN, REFUSED = "key.pem", "chain.pem", "proven", "refused"


@dataclass(frozen=True, slots=True)
class Credential:
    """A private key and the chain that certifies it, leaf first."""

    generation: int
    key_pem: bytes
    chain: tuple[Certificate, ...]
    is_proven: bool

    @property
    def leaf(self) -> Certificate:
        """The device's own certificate."""
        return self.chain[0]

    @property
    def chain_pem(self) -> bytes:
        """The chain as a TLS stack reads it."""
        return keys.encode_certificates(self.chain)


@dataclass(frozen=True, slots=True)
class PendingKey:
    """A key that waits for its certificate."""

    key_pem: bytes
    key: keys.PrivateKey


class CredentialStore:
    """Key and chain of one device. One process at a time (the agent holds a lock on the state folder)."""

    def __init__(self, state: Path, crash_point: Callable[[str], None] = lambda _name: None) -> None:
        self._state = state
        self._folder = state / "credentials"
        self._pending = state / "pending"
        self._current = state / "current"
        self._crash_point = crash_point

    def open(self) -> None:
        """Make the folders and finish what a crash left half done."""
        self._state.mkdir(mode=durable_files.PRIVATE_FOLDER, parents=True, exist_ok=True)
        self._folder.mkdir(mode=durable_files.PRIVATE_FOLDER, exist_ok=True)
        if (self._pending / CHAIN).exists():
            self._adopt_pending()
        newest = max((n for n in self._generations() if self._is_wanted(n)), default=None)
        if newest is not None and newest != self._pointed_at():
            self._point_at(newest)

    def find_current(self) -> Credential | None:
        """The pair in use, or None before the first enrolment.

        A damaged pair is passed over for the generation before it. Raises IntegrityFailure(KEYSTORE_DAMAGED) when
        pairs are there and none is whole.
        """
        first = self._pointed_at()
        others = sorted((n for n in self._generations() if n != first and self._is_wanted(n)), reverse=True)
        problem: VagusError | None = None
        for generation in [first, *others] if first is not None else others:
            try:
                return self._load(generation)
            except IntegrityFailure as error:
                problem = problem or error
        if problem is not None:
            raise problem
        return None

    def find_previous(self) -> Credential | None:
        """The generation before the one in use, kept until that one has worked once."""
        first = self._pointed_at()
        for generation in sorted(self._generations(), reverse=True):
            if first is None or generation >= first:
                continue
            try:
                return self._load(generation)
            except IntegrityFailure:
                continue
        return None

    def begin(self, algorithm: keys.DeviceKeyAlgorithm) -> PendingKey:
        """The key to ask a certificate for: the one that waits already, else a new one, durable before it returns."""
        if (self._pending / KEY).exists():
            try:
                pem = keys.load_private(self._pending / KEY)
                key = keys.decode_key(pem)
            except IntegrityFailure:
                self.abandon()
            else:
                if keys.algorithm_of(key) is algorithm:
                    return PendingKey(pem, key)
                self.abandon()
        pem = keys.make_key(algorithm)
        self._crash_point("key made")
        durable_files.remove_folder(self._pending)
        durable_files.write_folder(self._pending, {KEY: pem})
        self._crash_point("key kept")
        return PendingKey(pem, keys.decode_key(pem))

    def complete(self, pending: PendingKey, chain: tuple[Certificate, ...]) -> Credential:
        """Put the certified pair in use and keep the one before it.

        Raises IntegrityFailure(KEY_MISMATCH) when the chain certifies another key; nothing has changed then.
        """
        _check_pair(pending.key, chain[0])
        durable_files.replace_durably(self._pending / CHAIN, keys.encode_certificates(chain))
        self._crash_point("chain kept")
        return self._load(self._adopt_pending())

    def abandon(self) -> None:
        """Forget the key that waits (the server refused it for good)."""
        durable_files.remove_folder(self._pending)

    def prove(self, credential: Credential) -> None:
        """The pair has worked with a server: remember it, and let the generations before it go."""
        folder = self._path(credential.generation)
        if not (folder / PROVEN).exists():
            durable_files.replace_durably(folder / PROVEN, b"")
            self._crash_point("proven")
        for generation in self._generations():
            if generation < credential.generation:
                durable_files.remove_folder(self._path(generation))
                self._crash_point("old removed")

    def step_back(self, credential: Credential) -> Credential | None:
        """Take the pair before `credential` into use again, which no server accepted; None where there is none."""
        previous = self.find_previous()
        if credential.is_proven or previous is None:
            return None
        durable_files.replace_durably(self._path(credential.generation) / REFUSED, b"")
        self._crash_point("marked refused")
        self._point_at(previous.generation)
        return previous

    def _adopt_pending(self) -> int:
        """Move the certified pending pair among the generations and point at it."""
        generation = max([0, *self._generations()]) + 1
        self._pending.rename(self._path(generation))
        durable_files.sync_folder(self._folder)
        durable_files.sync_folder(self._state)
        self._crash_point("generation in place")
        self._point_at(generation)
        self._crash_point("current swung")
        return generation

    def _point_at(self, generation: int) -> None:
        durable_files.replace_link(self._current, f"credentials/{generation:06d}")

    def _pointed_at(self) -> int | None:
        if not self._current.is_symlink():
            return None
        name = self._current.readlink().name
        return int(name) if name.isdigit() and (self._folder / name).is_dir() else None

    def _generations(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def _is_wanted(self, generation: int) -> bool:
        folder = self._path(generation)
        return not (folder / REFUSED).exists() and (folder / KEY).exists() and (folder / CHAIN).exists()

    def _path(self, generation: int) -> Path:
        return self._folder / f"{generation:06d}"

    def _load(self, generation: int) -> Credential:
        folder = self._path(generation)
        try:
            key_pem = keys.load_private(folder / KEY)
            chain = keys.decode_certificates((folder / CHAIN).read_bytes(), str(folder / CHAIN))
        except FileNotFoundError as error:
            msg = f"credential folder {folder} lacks {error.filename}; restore the file from a copy or enrol again"
            raise IntegrityFailure(Reason.KEYSTORE_DAMAGED, msg) from None
        except VagusError as error:
            if error.reason is Reason.PERMISSIONS_TOO_OPEN:
                raise
            raise IntegrityFailure(Reason.KEYSTORE_DAMAGED, error.message) from None
        _check_pair(keys.decode_key(key_pem), chain[0])
        return Credential(generation, key_pem, chain, (folder / PROVEN).exists())


def _check_pair(key: keys.PrivateKey, leaf: Certificate) -> None:
    if keys.certified_key_der(leaf) != keys.public_key_der(key):
        msg = "the new certificate has another public key than ours, so the old pair stays; ask the operator"
        raise IntegrityFailure(Reason.KEY_MISMATCH, msg)
