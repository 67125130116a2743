"""The keystore folder of one authority: sealed key files, made, opened, moved, destroyed; decides no purpose.

    keystore.toml    how the passphrase becomes the wrapping key, and a probe that detects a wrong passphrase
    <key id>.key     AES-256-GCM over PKCS#8 DER; folder, key id, purposes, owner and format are associated data
    <key id>.key.next  the same under another passphrase, while it is being changed (resealing.py)

Python cannot wipe memory: an opened key lives in this process until it ends. Custody rests on who opens what.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import tomllib
from typing import TYPE_CHECKING, TypeAlias, cast

from vagus.durable_files import check_private_file, check_private_folder, make_private_folder, sync_folder, write_new
from vagus.errors import Conflict, IntegrityFailure, Malformed, Misconfigured, NotAuthorised, Unavailable
from vagus.keystore import private_keys
from vagus.keystore.sealing import Derivation, Kdf, Wrapping, canonical, checksum
from vagus.keystore.signing import Purpose
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from vagus.clock import Entropy
    from vagus.keystore.passphrases import Passphrase
    from vagus.keystore.private_keys import SoftwareSigningKey
    from vagus.x509.algorithms import KeyAlgorithm

_FORMAT = 1
_SETTINGS = "keystore.toml"
_SUFFIX = ".key"
NEXT = ".next"
"""Ends the name of a key file that waits to take the place of the one before it."""
_KEY_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9])?\Z")
_LARGEST_SETTINGS = 2_048
_LARGEST_FILE = 64 * 1024
_AUTHORITY_PURPOSES = frozenset({Purpose.CERTIFICATE, Purpose.CRL})

Derive: TypeAlias = "Callable[[Derivation, Passphrase], Wrapping]"
"""`Derivation.derive`, or that of `Derivations`, which remembers."""


class SoftwareKeystore:
    """An opened keystore folder. Keys are read from it one by one; the passphrase is derived once."""

    __slots__ = ("_derivation", "_folder", "_id", "_wrapping")

    def __init__(self, folder: Path, keystore_id: str, derivation: Derivation, wrapping: Wrapping) -> None:
        self._folder = folder
        self._id = keystore_id
        self._derivation = derivation
        self._wrapping = wrapping

    def __repr__(self) -> str:
        return f"SoftwareKeystore({str(self._folder)!r})"

    @property
    def folder(self) -> Path:
        """Where it rests."""
        return self._folder

    @property
    def derivation(self) -> Derivation:
        """How its passphrase becomes its wrapping key."""
        return self._derivation

    @classmethod
    def create(
        cls,
        folder: Path,
        passphrase: Passphrase,
        *,
        entropy: Entropy,
        kdf: Kdf = "scrypt",
        unsafe_fast: bool = False,
        shared: Derivation | None = None,
        derive: Derive = Derivation.derive,
    ) -> SoftwareKeystore:
        """Make a keystore in `folder` (mode 0700), which may exist but may hold none yet.

        `kdf` is scrypt, or pbkdf2 for FIPS sites; `unsafe_fast` weakens it for tests. `shared` is the derivation of a
        keystore that this very passphrase opens: both then cost one derivation. Raises
        Conflict(ALREADY_EXISTS), Misconfigured(PERMISSIONS_TOO_OPEN), Misconfigured(BAD_SETTINGS: passphrase short).
        """
        passphrase.check_length()
        make_private_folder(folder)
        if (folder / _SETTINGS).exists():
            raise Conflict(
                Reason.ALREADY_EXISTS,
                f"folder {folder} holds a keystore already; choose another folder",
                path=str(folder),
            )
        derivation = shared or Derivation.choose(kdf, entropy, unsafe_fast=unsafe_fast)
        keystore_id = entropy(16).hex()
        wrapping = derive(derivation, passphrase)
        write_new(folder / _SETTINGS, _encode_settings(keystore_id, derivation, wrapping))
        return cls(folder, keystore_id, derivation, wrapping)

    @classmethod
    def open(cls, folder: Path, passphrase: Passphrase, *, derive: Derive = Derivation.derive) -> SoftwareKeystore:
        """The keystore in `folder`, opened.

        Raises Unavailable(KEY_NOT_OPEN: there is none), Misconfigured(PERMISSIONS_TOO_OPEN),
        IntegrityFailure(KEYSTORE_DAMAGED), NotAuthorised(PASSPHRASE_WRONG).
        """
        keystore_id, derivation, probe = _read_settings(folder)
        wrapping = derive(derivation, passphrase)
        wrapping.check_probe(_header(keystore_id, derivation), probe, f"keystore {folder}")
        return cls(folder, keystore_id, derivation, wrapping)

    def generate(
        self, key_id: str, algorithm: KeyAlgorithm, purposes: Iterable[Purpose], owner: str
    ) -> SoftwareSigningKey:
        """A new key, on the disk before this returns. `owner` says whose it is, as in the `keys` table.

        Raises Conflict(ALREADY_EXISTS), Misconfigured(PURPOSE_FORBIDDEN: a set of purposes that no key may have,
        or Edwards curves for anything but checkpoints).
        """
        return self._keep(key_id, private_keys.generate(algorithm), algorithm, purposes, owner)

    def load_or_generate(
        self, key_id: str, algorithm: KeyAlgorithm, purposes: Iterable[Purpose], owner: str
    ) -> SoftwareSigningKey:
        """The key `key_id` that an interrupted act left, or a new one. Raises as `load` and `generate`."""
        return self.load(key_id) if self.has(key_id) else self.generate(key_id, algorithm, purposes, owner)

    def import_pkcs8(
        self, key_id: str, pem: bytes, password: Passphrase | None, purposes: Iterable[Purpose], owner: str
    ) -> SoftwareSigningKey:
        """A key made elsewhere, from PKCS#8 PEM, encrypted or (password None) in clear. Raises as `generate`.

        Also NotAuthorised(PASSPHRASE_WRONG), Malformed(BAD_ENCODING), Refused(UNSUPPORTED_ALGORITHM).
        """
        secret = password.unsafe_reveal() if password else None
        private = private_keys.decode_pem(pem, secret)
        return self._keep(key_id, private, private_keys.algorithm_of(private), purposes, owner)

    def export_pkcs8(self, key_id: str, password: Passphrase) -> bytes:
        """The key as standard encrypted PKCS#8 PEM (PBES2: AES-256-CBC, PBKDF2-HMAC-SHA256 600,000 rounds)."""
        password.check_length()
        _, private = self._load(key_id)
        salts = self._wrapping.vary(b"pkcs8 export", private_keys.encode_pkcs8(private))
        return private_keys.encode_encrypted_pem(private, password.unsafe_reveal(), salts[:16], salts[16:])

    def load(self, key_id: str) -> SoftwareSigningKey:
        """The key `key_id`, ready to sign.

        Raises Unavailable(KEY_NOT_OPEN: no such key here), IntegrityFailure(KEYSTORE_DAMAGED),
        Misconfigured(PERMISSIONS_TOO_OPEN).
        """
        purposes, private = self._load(key_id)
        return private_keys.SoftwareSigningKey(key_id, purposes, private_keys.algorithm_of(private), private)

    def tls_key_pem(self, key_id: str) -> bytes:
        """The key in clear as PKCS#8 PEM, for the TLS stack, which signs by itself.

        Raises NotAuthorised(PURPOSE_FORBIDDEN) unless its only purpose is tls, and as `load`.
        """
        purposes, private = self._load(key_id)
        private_keys.check_purpose(key_id, purposes, Purpose.TLS)
        return private_keys.encode_clear_pem(private)

    def destroy(self, key_id: str) -> None:
        """Unlink the file of a key; nothing happens where there is none. Copies and backups are not reached."""
        path = self._path(key_id)
        path.with_name(path.name + NEXT).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        sync_folder(self._folder)

    def has(self, key_id: str) -> bool:
        """Whether there is a file of that key."""
        return self._path(key_id).exists()

    def key_ids(self) -> tuple[str, ...]:
        """Every key that rests here, in order."""
        return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}")))

    def check_unchanged(self) -> None:
        """Raises Unavailable(KEY_NOT_OPEN) when the passphrase was changed since this keystore was opened."""
        keystore_id, derivation, probe = _read_settings(self._folder)
        try:
            self._wrapping.check_probe(_header(keystore_id, derivation), probe, "")
        except NotAuthorised:
            msg = f"the passphrase of keystore {self._folder} was changed since this process opened it; restart with it"
            raise Unavailable(Reason.KEY_NOT_OPEN, msg, path=str(self._folder)) from None

    # for resealing.py, which changes the passphrase

    def encode_settings(self) -> bytes:
        """The content of `keystore.toml` for this passphrase."""
        return _encode_settings(self._id, self._derivation, self._wrapping)

    def resealed(self, derivation: Derivation, wrapping: Wrapping) -> SoftwareKeystore:
        """The same keystore under another passphrase, as it will be; writes nothing."""
        return SoftwareKeystore(self._folder, self._id, derivation, wrapping)

    def transcribe(self, path: Path, other: SoftwareKeystore) -> bytes:
        """The content of key file `path`, sealed for `other`. Raises IntegrityFailure(KEYSTORE_DAMAGED)."""
        key_id = path.name.removesuffix(NEXT).removesuffix(_SUFFIX)
        header, content = self._open(key_id, path)
        return other._seal(header, content)

    def _path(self, key_id: str) -> Path:
        if not _KEY_ID.match(key_id):
            msg = f"key id {key_id!r} is not 1-80 characters of a-z, 0-9 and inner . _ -"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=key_id)
        return self._folder / f"{key_id}{_SUFFIX}"

    def _keep(
        self,
        key_id: str,
        private: private_keys.PrivateKey,
        algorithm: KeyAlgorithm,
        purposes: Iterable[Purpose],
        owner: str,
    ) -> SoftwareSigningKey:
        granted = _check_purposes(frozenset(purposes))
        private_keys.check_algorithm_purposes(algorithm, granted)
        header: dict[str, object] = {
            "format": _FORMAT,
            "keystore": self._id,
            "id": key_id,
            "purposes": sorted(granted),
            "owner": owner,
            "algorithm": algorithm,
        }
        path = self._path(key_id)
        self.check_unchanged()
        write_new(path, self._seal(header, private_keys.encode_pkcs8(private)))
        try:
            self.check_unchanged()  # a change of the passphrase that began meanwhile may not have seen the new file
        except Unavailable:
            path.unlink(missing_ok=True)
            raise
        return private_keys.SoftwareSigningKey(key_id, granted, algorithm, private)

    def _seal(self, header: dict[str, object], content: bytes) -> bytes:
        sealed = self._wrapping.seal(header, content)
        return canonical({"header": header, "sealed": base64.b64encode(sealed).decode("ascii")})

    def _load(self, key_id: str) -> tuple[frozenset[Purpose], private_keys.PrivateKey]:
        path = self._path(key_id)
        try:
            header, content = self._open(key_id, path)
        except IntegrityFailure:
            # A change of the passphrase was cut off after it took effect: this file is still under the old one.
            if not (left := path.with_name(path.name + NEXT)).exists():
                self.check_unchanged()
                raise
            header, content = self._open(key_id, left)
        try:
            private = private_keys.decode_pkcs8(content)
            return frozenset(Purpose(str(one)) for one in cast("list[str]", header["purposes"])), private
        except (ValueError, KeyError, TypeError):
            raise _damaged(path) from None

    def _open(self, key_id: str, path: Path) -> tuple[dict[str, object], bytes]:
        """Header and content of a key file."""
        raw = _read_private(self._folder, path)
        try:
            found = json.loads(raw)
            header = cast("dict[str, object]", found["header"])
            sealed = base64.b64decode(found["sealed"], validate=True)
            # A key file copied over another one decrypts, but its key is not the requested one: compare the key ids.
            if (header["id"], header["keystore"], header["format"]) != (key_id, self._id, _FORMAT):
                raise _damaged(path)
            return header, self._wrapping.open(header, sealed)
        except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
            raise _damaged(path) from None


def read_derivation(folder: Path) -> Derivation:
    """How a passphrase becomes the wrapping key of the keystore in `folder`; needs no passphrase.

    Raises as `SoftwareKeystore.open`, but for the passphrase.
    """
    return _read_settings(folder)[1]


def _read_settings(folder: Path) -> tuple[str, Derivation, bytes]:
    """A keystore's id, its derivation, and the probe that detects a wrong passphrase."""
    path = folder / _SETTINGS
    raw = _read_private(folder, path)
    if len(raw) > _LARGEST_SETTINGS:  # a manipulated file of this size could keep the TOML parser busy for minutes
        raise _damaged(path)
    try:
        found = tomllib.loads(raw.decode("ascii"))
        probe = bytes.fromhex(found.pop("probe"))
        expected = found.pop("checksum")
        if expected != checksum(found) or found["format"] != _FORMAT:
            raise _damaged(path)
        return str(found["id"]), Derivation(found["kdf"], found["cost"], bytes.fromhex(found["salt"])), probe
    except (ValueError, KeyError, TypeError, AttributeError, Malformed):
        raise _damaged(path) from None


def _check_purposes(purposes: frozenset[Purpose]) -> frozenset[Purpose]:
    """A CA key has the purposes certificate and crl, every other key exactly one other purpose."""
    if purposes == _AUTHORITY_PURPOSES or (len(purposes) == 1 and not purposes & _AUTHORITY_PURPOSES):
        return purposes
    named = ", ".join(sorted(purposes)) or "none"
    msg = f"a key may have the purposes certificate and crl, or one of ocsp, checkpoint, tls, data; asked: {named}"
    raise Misconfigured(Reason.PURPOSE_FORBIDDEN, msg)


def _encode_settings(keystore_id: str, derivation: Derivation, wrapping: Wrapping) -> bytes:
    header = _header(keystore_id, derivation)
    values = {**header, "probe": wrapping.probe(header).hex(), "checksum": checksum(header)}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()).encode("ascii")


def _header(keystore_id: str, derivation: Derivation) -> dict[str, str | int]:
    return {
        "format": _FORMAT,
        "id": keystore_id,
        "kdf": derivation.kdf,
        "cost": derivation.cost,
        "salt": derivation.salt.hex(),
    }


def _read_private(folder: Path, path: Path) -> bytes:
    try:
        check_private_folder(folder)
        check_private_file(path)
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        msg = f"keystore file {path} does not exist; create the keystore or key, or name its folder"
        raise Unavailable(Reason.KEY_NOT_OPEN, msg, path=str(path)) from None
    except OSError as failure:
        msg = f"keystore file {path} cannot be read ({failure.strerror}); check its permissions"
        raise Unavailable(Reason.KEY_NOT_OPEN, msg, path=str(path)) from None
    if len(raw) > _LARGEST_FILE:
        raise _damaged(path)
    return raw


def _damaged(path: Path) -> IntegrityFailure:
    msg = f"keystore file {path} is damaged or belongs elsewhere; restore it from a backup"
    return IntegrityFailure(Reason.KEYSTORE_DAMAGED, msg, path=str(path))
