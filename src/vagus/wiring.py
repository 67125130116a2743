"""The only place that constructs: real clock, real entropy, and an installation's parts made from its settings.

A Installation opens things when they are first asked for, so that a short command pays for what it uses alone.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vagus.durable_files import GROUP_FILE, replace_durably
from vagus.errors import Conflict, IntegrityFailure, Unavailable, VagusError
from vagus.keystore.signing import Purpose
from vagus.keystore.software import SoftwareKeystore
from vagus.keystore.sources import PassphraseSources
from vagus.ledger.append import append
from vagus.ledger.entries import PolicyAdopted
from vagus.ledger.publish import holds_more
from vagus.operations.local_account import local_actor
from vagus.policy.packs import load_pack
from vagus.policy.values import PolicyPack
from vagus.reasons import Reason
from vagus.records.authorities import slug_of
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import (
    InstallationRow,
    insert_installation,
    load_installation,
    mark_set_back,
    set_policy,
)
from vagus.records.log import load_head
from vagus.settings import FILE_NAME, Settings, load_settings, write_settings
from vagus.tlog.checkpoint import NoteKey
from vagus.tlog.tiles import CHECKPOINT
from vagus.x509.algorithms import KeyAlgorithm

if TYPE_CHECKING:
    from types import TracebackType

    from vagus.authority.clock_bound import ClockBound
    from vagus.authority.hierarchy import Hierarchy, OpenIssuers
    from vagus.authority.issuance import Issuance
    from vagus.authority.mass_revocation import MassRevocation
    from vagus.authority.revocation import Revocations
    from vagus.events.devices import DeviceFollower
    from vagus.events.revocations import RevocationFollower
    from vagus.fleet.devices import Inventory
    from vagus.fleet.plans.planning import Planning
    from vagus.fleet.tokens import TokenIssuer
    from vagus.keystore.private_keys import SoftwareSigningKey
    from vagus.keystore.sealing import Kdf
    from vagus.operations.actor import Actor
    from vagus.operations.certificates import Certificates
    from vagus.operations.devices import Devices
    from vagus.operations.tokens import Tokens
    from vagus.policy.plans import PlannedAuthority

CHECKPOINT_KEY = "checkpoint"
LOG_KEYSTORE = "log"


class RealClock:
    """The system's clock."""

    def now(self) -> datetime:
        """The present moment in UTC."""
        return datetime.now(UTC)


def real_entropy(count: int) -> bytes:
    """Bytes from the operating system's generator."""
    return secrets.token_bytes(count)


class Installation:
    """One installation, its parts made on demand and closed together; a context manager."""

    def __init__(self, settings: Settings, sources: PassphraseSources) -> None:
        self.settings = settings
        self.sources = sources
        self.clock = RealClock()
        self.entropy = real_entropy
        self.kill_points: Callable[[str], None] | None = None  # durability tests end the process there
        self._closers: list[Callable[[], None]] = []
        self._keystores: dict[str, SoftwareKeystore] = {}

    # life

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
            installation._begin()
        except BaseException:
            installation.close()
            _take_back(written)
            raise
        return installation

    def _begin(self) -> None:
        self.database.create()
        first = InstallationRow(self.settings.origin, int(self.clock.now().timestamp()), self.entropy(32))
        keystore = self.keystore_or_new(LOG_KEYSTORE)
        keystore.generate(CHECKPOINT_KEY, KeyAlgorithm.ED25519, {Purpose.CHECKPOINT}, f"log:{self.settings.origin}")
        self.writer.submit(lambda batch: insert_installation(batch.connection, first)).result()
        self.adopt_policy()
        key = NoteKey.of_spki(self.settings.origin, keystore.load(CHECKPOINT_KEY).spki_der)
        replace_durably(self.settings.log_key, (key.encode() + "\n").encode(), GROUP_FILE)

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

    # what everything stands on

    @cached_property
    def pack(self) -> PolicyPack:
        """The policy pack that the settings name, or the shipped one."""
        return load_pack(self.settings.policy_pack)

    @cached_property
    def database(self) -> Database:
        """The database, its schema checked unless it is being created."""
        database = open_database(self.settings.database_url)
        self._closers.append(database.close)
        return database

    @cached_property
    def writer(self) -> Writer:
        """The one writer of this process; refuses to work where a commit could be lost.

        A database that was set back is marked before anything else is done: an entry in it would fork the log.
        """
        self.database.check_schema()
        self.database.check_durability()
        writer = Writer(self.database, self.clock, kill_points=self.kill_points)
        self._closers.append(writer.close)
        if self._is_set_back():
            writer.submit(lambda batch: mark_set_back(batch.connection, batch.at)).result()
        return writer

    def _is_set_back(self) -> bool:
        """As `is_behind` says of our own folder; what stands there of another installation tells nothing."""
        try:
            return self.is_behind(self.settings.log)
        except VagusError as error:
            if error.reason is Reason.DATABASE_UNAVAILABLE:
                raise
            return False

    @cached_property
    def follower(self) -> RevocationFollower:
        """What is revoked or held, in step with this process's writer."""
        from vagus.events.revocations import RevocationFollower

        follower = RevocationFollower(self.database, self.clock)
        follower.follow(self.writer)
        self._closers.append(follower.close)
        return follower

    @cached_property
    def device_follower(self) -> DeviceFollower:
        """Which devices changed, in step with this process's writer."""
        from vagus.events.devices import DeviceFollower

        follower = DeviceFollower(self.database)
        follower.follow(self.writer)
        self._closers.append(follower.close)
        return follower

    @property
    def row(self) -> InstallationRow:
        """What the database says of itself, as of now."""
        with self.database.reading() as connection:
            return load_installation(connection)

    @cached_property
    def actor(self) -> Actor:
        """Who runs this command; under sudo, who called it.

        The files belong to one account that several people act through: what their system says of them is all there is.
        """
        return local_actor()

    @cached_property
    def operations(self) -> Operations:
        """What an operator may do here."""
        return Operations(self)

    def check_settled(self) -> None:
        """Raises Conflict(RESTORE_UNSETTLED) while the gap behind a restore is open: then nothing is issued.

        Also where a database server's own tools brought an older state back, and the published log tells.
        """
        _ = self.writer  # it marks what was set back
        if self.row.restored_at is not None:
            msg = (
                "this system was restored, or its database set back behind what was published, and does not know what "
                "was issued since; close the gap with `vagus restore-gap` before it issues anything"
            )
            raise Conflict(Reason.RESTORE_UNSETTLED, msg)

    def is_behind(self, published: Path) -> bool:
        """Whether the published log has what the database's has not. Raises IntegrityFailure(CHECKPOINT_INVALID)."""
        if not (published / CHECKPOINT).exists():
            return False
        key = NoteKey(self.row.origin, NoteKey.decode(self.log_verifier).public_key)
        return holds_more(published, key, self.database)

    def mark_set_back(self) -> None:
        """Let no process append anything to this database before the gap behind it is closed."""
        with suppress(IntegrityFailure):  # this process has lost entries of its own and appends nothing as it is
            self.writer.submit(lambda batch: mark_set_back(batch.connection, batch.at)).result()

    def adopt_policy(self) -> bool:
        """Write into the ledger which policy pack is in force, where it is another than before; whether it was."""
        pack, operator = self.pack, self.actor.id
        digest = bytes.fromhex(pack.sha256)
        if self.row.policy_sha256 == digest:
            return False

        def act(batch: Batch) -> None:
            set_policy(batch.connection, digest)
            append(batch, PolicyAdopted(pack.name, pack.version, digest, operator))

        self.writer.submit(act).result()
        return True

    # keystores

    def keystore(self, name: str) -> SoftwareKeystore:
        """The opened keystore `name` ("h1/icu", "log"). Raises Unavailable(KEY_NOT_OPEN) and what opening raises."""
        if name not in self._keystores:
            folder = self.settings.keystores / slug_of(name)
            self._keystores[name] = SoftwareKeystore.open(folder, self.sources.get(name))
        return self._keystores[name]

    def keystore_or_new(self, name: str) -> SoftwareKeystore:
        """The keystore `name`, made now if there is none."""
        folder = self.settings.keystores / slug_of(name)
        if (folder / "keystore.toml").exists():
            return self.keystore(name)
        self.settings.keystores.mkdir(mode=0o700, exist_ok=True)
        made = SoftwareKeystore.create(
            folder,
            self.sources.get(name),
            entropy=self.entropy,
            kdf=self.settings.kdf,
            unsafe_fast=self.settings.unsafe_fast_kdf,
        )
        self._keystores[name] = made
        return made

    @property
    def log_verifier(self) -> str:
        """The ledger's verifier key as C2SP vkey. Raises Unavailable(CHECKPOINT_INVALID) when its file is gone."""
        try:
            return self.settings.log_key.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as fault:
            msg = f"{self.settings.log_key}: the ledger's public key cannot be read; restore it from a backup"
            raise Unavailable(Reason.CHECKPOINT_INVALID, msg) from fault

    def checkpoint_key(self) -> SoftwareSigningKey:
        """The key that signs the ledger's checkpoints."""
        return self.keystore(LOG_KEYSTORE).load(CHECKPOINT_KEY)

    # authorities

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """The acts that change which authorities there are. Raises Conflict(RESTORE_UNSETTLED) as `issuance`."""
        from vagus.authority.hierarchy import Hierarchy

        self.check_settled()
        return Hierarchy(
            self.pack,
            self.writer,
            keystore_or_new=self.keystore_or_new,
            requests=self.settings.requests,
            is_maker=self.settings.kind == "maker",
        )

    @cached_property
    def issuance(self) -> Issuance:
        """The one road to a signature. Raises Conflict(RESTORE_UNSETTLED) while the gap behind a restore is open."""
        from vagus.authority.issuance import Issuance

        self.check_settled()
        return Issuance(self.pack, self.writer, self.clock, self.entropy, kill_points=self.kill_points)

    @cached_property
    def revocations(self) -> Revocations:
        """The acts of revocation."""
        from vagus.authority.revocation import Revocations

        return Revocations(self.writer)

    @cached_property
    def mass_revocation(self) -> MassRevocation:
        """Revocation of many certificates by plan, with approvals and stages."""
        from vagus.authority.mass_revocation import MassRevocation
        from vagus.fleet.devices import bar_device
        from vagus.identifiers import DeviceId

        def lock_out(batch: Batch, device_id: str, by: str) -> None:
            bar_device(batch, DeviceId(device_id), by=by)

        return MassRevocation(self.pack, self.database, self.writer, self.clock, lock_out=lock_out)

    @cached_property
    def planning(self) -> Planning:
        """Compares plans with this installation and applies them."""
        from vagus.fleet.plans.planning import Planning

        return Planning(
            self.database,
            lambda: self.writer,
            self.clock,
            self.entropy,
            kind=self.settings.kind,
            profile_of=self.profile_of,
            request_authority=self.request_authority,
            adopted=self.settings.plan,
        )

    def request_authority(self, planned: PlannedAuthority, by: str) -> None:
        """Make key and request of a planned authority; the next generation where the last one has retired."""
        from vagus.records.authorities import REQUESTED, find_newest

        with self.database.reading() as connection:
            newest = find_newest(connection, planned.name, state=None)
        self.hierarchy.request(planned, by=by, is_rekey=newest is not None and newest.state != REQUESTED)

    @property
    def status_url(self) -> str:
        """Where this installation's CRLs and OCSP answers are, as the plan in force says. Raises as `load_served`."""
        return self.planning.load_served().status_url

    def make_clock_bound(self) -> ClockBound:
        """What keeps lists from being dated by a clock that is ahead, counting from now."""
        from vagus.authority.clock_bound import ClockBound

        return ClockBound(self.database, self.clock, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))

    def open_issuers(self, names: Iterable[str]) -> OpenIssuers:
        """The named online authorities with their keys, every live generation; each name's passphrase is asked for.

        Raises as `authority.issuers.open_issuers`.
        """
        from vagus.authority.hierarchy import open_issuers

        with self.database.reading() as connection:
            at = int(self.clock.now().timestamp())
            return open_issuers(connection, self.keystore, names, status_url=self.status_url, at=at)

    # the fleet

    @cached_property
    def inventory(self) -> Inventory:
        """The acts that change the inventory; a device's end revokes its certificates in the same act."""
        from vagus.fleet.devices import Inventory

        overlap = self.pack.renewal.transfer_overlap
        return Inventory(self.writer, self.entropy, overlap=overlap, listener_names=self._listener_names)

    def _listener_names(self) -> frozenset[str]:
        """The host names of the doors of the plan in force; none before there is one."""
        from vagus.policy.plans import HospitalPlan

        plan = self.planning.load_adopted() if self.settings.plan.exists() else None
        return plan.listener_names if isinstance(plan, HospitalPlan) else frozenset()

    @cached_property
    def tokens(self) -> TokenIssuer:
        """Makes enrolment tokens."""
        from vagus.fleet.tokens import TokenIssuer

        return TokenIssuer(self.writer, self.entropy, life=self.pack.enrolment.token_lifetime)

    def authority_names(self) -> dict[int, str]:
        """The reference (`h1/icu#2`) of every authority, by its row's id."""
        from vagus.records.authorities import list_authorities

        with self.database.reading() as connection:
            return {row.id: row.reference for row in list_authorities(connection)}

    def export(self) -> dict[str, object]:
        """Everything that a plan speaks of, and the ledger's size and root, as plain values."""
        from vagus.records.plan_rows import export_rows

        with self.database.reading() as connection:
            head = load_head(connection)
            rows: dict[str, object] = dict(export_rows(connection))
        return {**rows, "ledger": {"size": head.size, "root": head.root.hex()}}

    def profile_of(self, category: str) -> str | None:
        """The profile of a device category; None where the pack has no rule for it."""
        found = (profile for profile, rule in self.pack.rules.items() if category in rule.categories)
        return next(found, None)


class Operations:
    """What an operator may do with one installation, by noun; each is made when it is first asked for."""

    def __init__(self, installation: Installation) -> None:
        self._parts = installation

    @cached_property
    def certificates(self) -> Certificates:
        """Certificates that were issued here."""
        from vagus.operations.certificates import Certificates

        return Certificates(self._parts.database)

    @cached_property
    def devices(self) -> Devices:
        """The inventory."""
        from vagus.operations.devices import Devices

        parts = self._parts
        return Devices(
            parts.database,
            writer=lambda: parts.writer,
            inventory=lambda: parts.inventory,
            revocations=lambda: parts.revocations,
            entropy=parts.entropy,
            profile_of=parts.profile_of,
        )

    @cached_property
    def tokens(self) -> Tokens:
        """Enrolment tokens."""
        from vagus.operations.tokens import Tokens

        return Tokens(self._parts.database, lambda: self._parts.tokens)


def _take_back(settings: Settings) -> None:
    """Remove what `create` made before it failed, so that the same command can be given again; foreign files stay."""
    shutil.rmtree(settings.keystores, ignore_errors=True)
    made = [settings.folder / FILE_NAME, settings.log_key]
    if (file := settings.database_file) is not None and file.parent == settings.folder.absolute():
        made += [file, *(file.with_name(file.name + suffix) for suffix in ("-wal", "-shm"))]
    for path in made:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        settings.folder.rmdir()
