"""Opens and begins installations: parts and operations together, closed together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vagus.keystore.sources import PassphraseSources
from vagus.operations.installation import LOG_KEYSTORE, take_back
from vagus.operations.local_account import local_actor
from vagus.settings import load_settings, write_settings
from vagus.wiring.operations import Operations
from vagus.wiring.parts import Parts

if TYPE_CHECKING:
    from types import TracebackType

    from vagus.keystore.sealing import Kdf
    from vagus.operations.actor import Actor


class Installation(Parts):
    """One installation, its parts made on demand and closed together; a context manager."""

    @classmethod
    def open(cls, folder: Path, *, passphrase_sources: Sequence[str] = ()) -> Self:
        """The installation in `folder`. Raises Misconfigured(BAD_SETTINGS), Malformed(BAD_ARGUMENT)."""
        settings = load_settings(folder)
        settings.check_database_file()
        return cls(settings, PassphraseSources(passphrase_sources))

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        kind: str,
        origin: str,
        database: str,
        kdf: Kdf = "scrypt",
        unsafe_fast_kdf: bool = False,
        passphrase_sources: Sequence[str] = (),
    ) -> Self:
        """Begin an installation in `folder`: settings, database, the ledger's key and its first entry.

        Raises Unavailable(KEY_NOT_OPEN) before anything is written when no passphrase came for the ledger's key, and
        what `write_settings` and keystores raise.
        """
        sources = PassphraseSources(passphrase_sources)
        sources.get(LOG_KEYSTORE).check_length()
        written = write_settings(
            folder, kind=kind, origin=origin, database=database, kdf=kdf, unsafe_fast_kdf=unsafe_fast_kdf
        )
        installation = cls(written, sources)
        try:
            installation.operations.installation.begin(installation.actor)
        except BaseException:
            installation.close()
            take_back(written)
            raise
        return installation

    def close(self) -> None:
        """Close what was opened, the newest first."""
        while self._closers:
            self._closers.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def actor(self) -> Actor:
        """The local account, to which the installation's files belong."""
        return local_actor()

    @cached_property
    def operations(self) -> Operations:
        """What an operator may do here."""
        return Operations(self)
