"""Opens and begins installations: components and the operations on them; it only constructs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vagus.components import LOG_KEYSTORE, Components, RealClock, real_entropy
from vagus.keystore.sources import PassphraseSources
from vagus.operations.installation import take_back
from vagus.operations.local_account import local_actor
from vagus.settings import load_settings, write_settings

if TYPE_CHECKING:
    from types import TracebackType

    from vagus.keystore.sealing import Kdf
    from vagus.operations.actor import Actor
    from vagus.operations.audit import Audit
    from vagus.operations.authorities import Authorities
    from vagus.operations.ceremonies import Ceremonies
    from vagus.operations.certificates import Certificates
    from vagus.operations.devices import Devices
    from vagus.operations.doctor.diagnosis import Doctor
    from vagus.operations.installation import InstallationActs
    from vagus.operations.maker_line import MakerLine
    from vagus.operations.plans import Plans
    from vagus.operations.revocation import RevocationPlans
    from vagus.operations.snapshots import Snapshots
    from vagus.operations.tokens import Tokens

__all__ = ["Installation", "Operations", "RealClock", "real_entropy"]


class Operations:
    """What an operator may do with one installation, by noun; each is imported when it is first asked for."""

    def __init__(self, components: Components) -> None:
        self._components = components

    @cached_property
    def audit(self) -> Audit:
        """The ledger."""
        from vagus.operations.audit import Audit

        return Audit(self._components)

    @cached_property
    def authorities(self) -> Authorities:
        """Authorities and their generations."""
        from vagus.operations.authorities import Authorities

        return Authorities(self._components)

    @cached_property
    def ceremonies(self) -> Ceremonies:
        """Ceremonies, which open offline keys."""
        from vagus.operations.ceremonies import Ceremonies

        return Ceremonies(self._components)

    @cached_property
    def certificates(self) -> Certificates:
        """Certificates that were issued here."""
        from vagus.operations.certificates import Certificates

        return Certificates(self._components)

    @cached_property
    def devices(self) -> Devices:
        """The inventory."""
        from vagus.operations.devices import Devices

        return Devices(self._components)

    @cached_property
    def doctor(self) -> Doctor:
        """Whether the installation is healthy."""
        from vagus.operations.doctor.diagnosis import Doctor

        return Doctor(self._components)

    @cached_property
    def installation(self) -> InstallationActs:
        """The installation itself."""
        from vagus.operations.installation import InstallationActs

        return InstallationActs(self._components)

    @cached_property
    def maker_line(self) -> MakerLine:
        """Birth certificates and the manifest of a maker."""
        from vagus.operations.maker_line import MakerLine

        return MakerLine(self._components)

    @cached_property
    def plans(self) -> Plans:
        """Plans, compared and applied."""
        from vagus.operations.plans import Plans

        return Plans(self._components)

    @cached_property
    def revocation(self) -> RevocationPlans:
        """Revocation of many certificates by plan."""
        from vagus.operations.revocation import RevocationPlans

        return RevocationPlans(self._components)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Offline snapshots of what is revoked."""
        from vagus.operations.snapshots import Snapshots

        return Snapshots(self._components)

    @cached_property
    def tokens(self) -> Tokens:
        """Enrolment tokens."""
        from vagus.operations.tokens import Tokens

        return Tokens(self._components)


class Installation(Components):
    """One installation, its components made on demand and closed together; a context manager."""

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
