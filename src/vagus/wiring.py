"""Opens and begins installations: components and the operations on them; it only constructs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from vagus.components import LOG_KEYSTORE, Components, RealClock, real_entropy
from vagus.keystore.sources import PassphraseSources
from vagus.operations.installation import take_back
from vagus.operations.local_account import local_actor
from vagus.policy.packs import choose_pack, load_pack
from vagus.settings import load_settings, write_settings

if TYPE_CHECKING:
    from types import TracebackType

    from vagus.keystore.sealing import Kdf
    from vagus.operations.actor import Actor
    from vagus.operations.audit import Audit
    from vagus.operations.authorities import Authorities
    from vagus.operations.ceremonies import Ceremonies
    from vagus.operations.certificates import Certificates
    from vagus.operations.certification.device_certificates import DeviceCertificates
    from vagus.operations.device_lots import DeviceLots
    from vagus.operations.devices import Devices
    from vagus.operations.doctor.diagnosis import Doctor
    from vagus.operations.gateway_log import GatewayLog
    from vagus.operations.installation import InstallationActs
    from vagus.operations.maker_line import MakerLine
    from vagus.operations.plans import Plans
    from vagus.operations.reports import Reports
    from vagus.operations.revocation import RevocationPlans
    from vagus.operations.snapshots import Snapshots
    from vagus.operations.tokens import Tokens

_Class = TypeVar("_Class")

__all__ = ["Installation", "Operations", "RealClock", "real_entropy"]


class _Lazy(Generic[_Class]):
    """An attribute of `Operations`: its class is imported, and its one object made, when it is first read."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __set_name__(self, owner: type[Operations], attribute: str) -> None:
        self._attribute = attribute

    def __get__(self, operations: Operations, owner: type[Operations]) -> _Class:
        made: _Class = getattr(import_module(f"vagus.operations.{self._module}"), self._name)(operations.components)
        # cache the object on the instance, where it is found before this descriptor (which has no __set__)
        vars(operations)[self._attribute] = made
        return made


class Operations:
    """What an operator may do with one installation, by noun; each is imported when it is first asked for."""

    def __init__(self, components: Components) -> None:
        self.components = components

    audit: _Lazy[Audit] = _Lazy("audit", "Audit")
    """The ledger."""
    authorities: _Lazy[Authorities] = _Lazy("authorities", "Authorities")
    """Authorities and their generations."""
    ceremonies: _Lazy[Ceremonies] = _Lazy("ceremonies", "Ceremonies")
    """Ceremonies, which open offline keys."""
    certificates: _Lazy[Certificates] = _Lazy("certificates", "Certificates")
    """Certificates that were issued here."""
    device_certificates: _Lazy[DeviceCertificates] = _Lazy("certification.device_certificates", "DeviceCertificates")
    """Certificates that an operator has made for devices without an agent."""
    device_lots: _Lazy[DeviceLots] = _Lazy("device_lots", "DeviceLots")
    """Many devices of the inventory at once."""
    devices: _Lazy[Devices] = _Lazy("devices", "Devices")
    """The inventory."""
    doctor: _Lazy[Doctor] = _Lazy("doctor.diagnosis", "Doctor")
    """Whether the installation is healthy."""
    gateway_log: _Lazy[GatewayLog] = _Lazy("gateway_log", "GatewayLog")
    """The decisions of the gateways."""
    installation: _Lazy[InstallationActs] = _Lazy("installation", "InstallationActs")
    """The installation itself."""
    maker_line: _Lazy[MakerLine] = _Lazy("maker_line", "MakerLine")
    """Birth certificates and the manifest of a maker."""
    plans: _Lazy[Plans] = _Lazy("plans", "Plans")
    """Plans, compared and applied."""
    reports: _Lazy[Reports] = _Lazy("reports", "Reports")
    """Reports over the whole inventory."""
    revocation: _Lazy[RevocationPlans] = _Lazy("revocation", "RevocationPlans")
    """Revocation of many certificates by plan."""
    snapshots: _Lazy[Snapshots] = _Lazy("snapshots", "Snapshots")
    """Offline snapshots of what is revoked."""
    tokens: _Lazy[Tokens] = _Lazy("tokens", "Tokens")
    """Enrolment tokens."""


class Installation(Components):
    """One installation, its components made on demand and closed together; a context manager."""

    @classmethod
    def open(cls, folder: Path, *, passphrase_sources: Sequence[str] = ()) -> Self:
        """The installation in `folder`. Raises Misconfigured(BAD_SETTINGS), Malformed(BAD_ARGUMENT)."""
        settings = load_settings(folder)
        settings.check_database_file()
        opened = cls(settings, PassphraseSources(passphrase_sources))
        opened.reads_database_url = lambda: load_settings(folder).database_url
        return opened

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        kind: str,
        origin: str,
        database: str,
        policy_pack: str | None = None,
        kdf: Kdf = "scrypt",
        unsafe_fast_kdf: bool = False,
        passphrase_sources: Sequence[str] = (),
    ) -> Self:
        """Begin an installation in `folder`: settings, database, the ledger's key and its first entry.

        `policy_pack` is the name of a shipped pack or of a file in `folder`; None is iob-2026. Raises, before anything
        is written, Unavailable(KEY_NOT_OPEN) when no passphrase came for the ledger's key and Misconfigured(BAD_PACK)
        for a pack that cannot be used; then what `write_settings` and keystores raise.
        """
        sources = PassphraseSources(passphrase_sources)
        sources.get(LOG_KEYSTORE).check_length()
        if policy_pack is not None:
            load_pack(choose_pack(policy_pack, folder))
        written = write_settings(
            folder,
            kind=kind,
            origin=origin,
            database=database,
            policy_pack=policy_pack,
            kdf=kdf,
            unsafe_fast_kdf=unsafe_fast_kdf,
        )
        installation = cls(written, sources)
        installation.may_begin = True
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
