"""Passphrases from a descriptor, a file or the environment; never from a command line, never into text."""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path
from typing import NoReturn

from vagus.durable_files import check_private_file
from vagus.errors import Malformed, Misconfigured
from vagus.reasons import Reason

_LONGEST = 4096
_SHORTEST = 8
_FORMS = "fd:NUMBER, file:PATH or env:NAME"


class Passphrase:
    """A secret that opens a keystore. Shows itself in no repr, format, pickle or traceback of ours."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes | str) -> None:
        raw = secret.encode("utf-8") if isinstance(secret, str) else bytes(secret)
        if not raw:
            raise Misconfigured(
                Reason.BAD_SETTINGS, "a passphrase source gave an empty first line; write the passphrase on it"
            )
        if len(raw) > _LONGEST:
            msg = f"a passphrase of {len(raw)} bytes exceeds {_LONGEST} bytes; check that its source is the right file"
            raise Misconfigured(Reason.BAD_SETTINGS, msg)
        self._secret = raw

    def unsafe_reveal(self) -> bytes:
        """The secret itself, for a key derivation and nothing else."""
        return self._secret

    def is_same(self, other: Passphrase | None) -> bool:
        """Whether `other` is the same secret."""
        return other is not None and hmac.compare_digest(self._secret, other.unsafe_reveal())

    def check_length(self) -> None:
        """Refuse to seal something new under fewer than eight bytes. Raises Misconfigured(BAD_SETTINGS)."""
        if len(self._secret) < _SHORTEST:
            msg = f"a passphrase for a new keystore has fewer than {_SHORTEST} bytes; take a longer one"
            raise Misconfigured(Reason.BAD_SETTINGS, msg)

    def __repr__(self) -> str:
        return "Passphrase(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a passphrase object cannot be pickled, so that it never leaves this process")


def read_passphrase(source: str) -> Passphrase:
    """The passphrase that `source` leads to: `fd:3`, `file:/path` or `env:NAME`; one line end is cut off.

    A descriptor is read to its end and closed, so that no child inherits it. A file must belong to this user (or root)
    and be closed to group and others, or be a credential of systemd. Raises Malformed(BAD_ARGUMENT) for another form,
    without repeating it (people paste the passphrase itself there), Misconfigured(BAD_SETTINGS) when the source gives
    nothing and Misconfigured(PERMISSIONS_TOO_OPEN) for an open file.
    """
    form, colon, place = source.partition(":")
    if not colon or form not in {"fd", "file", "env"} or not place:
        raise Malformed(Reason.BAD_ARGUMENT, f"a passphrase source is not written {_FORMS}; correct it")
    raw = {"fd": _from_descriptor, "file": _from_file, "env": _from_environment}[form](place)
    return Passphrase(raw.removesuffix(b"\n").removesuffix(b"\r"))


def _from_descriptor(number: str) -> bytes:
    if not (number.isascii() and number.isdigit() and len(number) < 6):
        raise Malformed(Reason.BAD_ARGUMENT, "a passphrase descriptor is a number, as in fd:3")
    try:
        with os.fdopen(int(number), "rb") as stream:
            return stream.read(_LONGEST + 2)
    except OSError as failure:
        msg = f"passphrase descriptor {number} cannot be read ({failure.strerror}); pass it open to this process"
        raise Misconfigured(Reason.BAD_SETTINGS, msg, descriptor=number) from None


def _from_file(place: str) -> bytes:
    path = Path(place)
    try:
        if not _is_credential(path):
            check_private_file(path)
        with path.open("rb") as stream:
            return stream.read(_LONGEST + 2)
    except OSError as failure:
        msg = f"passphrase file {place} cannot be read ({failure.strerror}); check its path and permissions"
        raise Misconfigured(Reason.BAD_SETTINGS, msg, path=place) from None


def _is_credential(path: Path) -> bool:
    """Whether systemd gave `path` to this service (LoadCredential=, systemd.exec(5)).

    Such a file belongs to root, and an access list lets the service read it. stat(2) shows the mask of that list as the
    group's bits: 0440, although the group root may not read it.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or path.parent != Path(folder):
        return False
    facts = path.lstat()
    is_roots = facts.st_uid == 0 and facts.st_gid == 0
    return stat.S_ISREG(facts.st_mode) and is_roots and not facts.st_mode & 0o337


def _from_environment(name: str) -> bytes:
    value = os.environb.get(os.fsencode(name))
    if value is None:
        msg = f"environment variable {name} is not set; set it or take another passphrase source ({_FORMS})"
        raise Misconfigured(Reason.BAD_SETTINGS, msg, name=name)
    return value
