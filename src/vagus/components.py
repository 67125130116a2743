"""An installation's components, made from its settings when they are first asked for; real clock and entropy.

So a short command pays only for what it uses. Nothing below this file constructs them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from vagus.errors import Unavailable, VagusError
from vagus.keystore.sealing import Derivations
from vagus.keystore.software import SoftwareKeystore, read_derivation
from vagus.ledger.set_back import SetBacks
from vagus.policy.packs import load_pack
from vagus.policy.values import PolicyPack
from vagus.reasons import Reason
from vagus.records.authorities import slug_of
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.moving import check_not_empty
from vagus.records.engine.writer import Writer
from vagus.records.installation import InstallationRow, load_installation

if TYPE_CHECKING:
    from pathlib import Path

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
    from vagus.keystore.passphrases import Passphrase
    from vagus.keystore.private_keys import SoftwareSigningKey
    from vagus.keystore.sealing import Derivation
    from vagus.keystore.sources import PassphraseSources
    from vagus.policy.plans import Plan
    from vagus.settings import Settings

LOG_KEYSTORE = "log"
EMERGENCY = "emergency"
"""The name under which the passphrase for sealed emergency CRLs is given."""
CHECKPOINT_KEY = "checkpoint"
"""The key that signs the ledger's checkpoints, in the keystore `log`."""


class RealClock:
    """The system's clock."""

    def now(self) -> datetime:
        """The present moment in UTC."""
        return datetime.now(UTC)


def real_entropy(count: int) -> bytes:
    """Bytes from the operating system's generator."""
    return secrets.token_bytes(count)


class Components:
    """The components of one installation, each made once."""

    def __init__(self, settings: Settings, sources: PassphraseSources) -> None:
        self.settings = settings
        self.sources = sources
        self.clock = RealClock()
        self.entropy = real_entropy
        self.may_begin = False  # `create` begins an installation in an empty database
        self.reads_database_url: Callable[[], str] | None = None  # what `vagus.toml` names now
        self.kill_points: Callable[[str], None] | None = None  # durability tests end the process at the named points
        self._closers: list[Callable[[], None]] = []
        self._keystores: dict[str, SoftwareKeystore] = {}
        self._derivations = Derivations()

    @cached_property
    def pack(self) -> PolicyPack:
        """The policy pack that the settings name, or the shipped one."""
        return load_pack(self.settings.policy_pack)

    @cached_property
    def database(self) -> Database:
        """The database; its schema is checked by the writer, and not while it is being created.

        Raises Misconfigured(SCHEMA_MISMATCH) for an empty one: settings name it by mistake.
        """
        database = open_database(self.settings.database_url)
        self._closers.append(database.close)
        if not self.may_begin:
            check_not_empty(database)
        return database

    @cached_property
    def writer(self) -> Writer:
        """The one writer of this process; refuses to work where a commit could be lost, and marks a set-back."""
        self.database.check_schema()
        self._check_not_moved()
        self.database.check_durability()
        writer = Writer(self.database, self.clock, kill_points=self.kill_points)
        self._closers.append(writer.close)
        self.set_backs.mark_at_start(writer)
        return writer

    def _check_not_moved(self) -> None:
        """Refuse to write the old database where a move of it ended while this process waited for it.

        A connection is open by now, and no move begins beside one. Raises Unavailable(DATABASE_UNAVAILABLE).
        """
        if self.reads_database_url is not None and self.reads_database_url() != self.settings.database_url:
            msg = "the installation has moved to another database meanwhile; nothing was written: run the command again"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg)

    @cached_property
    def set_backs(self) -> SetBacks:
        """Whether the database is in a state before what was published."""
        return SetBacks(self.database, lambda: self.writer, self.settings.log, lambda: self.log_verifier)

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

    # keystores: one for each authority, for listeners and for the log

    def keystore(self, name: str) -> SoftwareKeystore:
        """The opened keystore `name` ("h1/icu", "log"). Raises Unavailable(KEY_NOT_OPEN) and what opening raises."""
        if name not in self._keystores:
            derive = self._derivations.derive
            self._keystores[name] = SoftwareKeystore.open(self._folder(name), self.sources.get(name), derive=derive)
        return self._keystores[name]

    def keystore_or_new(self, name: str) -> SoftwareKeystore:
        """The keystore `name`, made now if there is none."""
        if (self._folder(name) / "keystore.toml").exists():
            return self.keystore(name)
        self.settings.keystores.mkdir(mode=0o700, exist_ok=True)
        passphrase = self.sources.get(name)
        self._keystores[name] = SoftwareKeystore.create(
            self._folder(name),
            passphrase,
            entropy=self.entropy,
            kdf=self.settings.kdf,
            unsafe_fast=self.settings.unsafe_fast_kdf,
            shared=self._find_shared(name, passphrase),
            derive=self._derivations.derive,
        )
        return self._keystores[name]

    def derive_keys(self, names: Iterable[str], advance: Callable[[int, int], None]) -> None:
        """Derive beforehand what opening these keystores needs, several at a time; `advance` reports it.

        Raises nothing: a fault of a keystore is raised when it is opened.
        """
        wanted: list[tuple[Derivation, Passphrase]] = []
        for name in names:
            if name not in self._keystores:
                with suppress(VagusError):
                    wanted.append((read_derivation(self._folder(name)), self.sources.get(name)))
        self._derivations.derive_all(wanted, advance)

    def _folder(self, name: str) -> Path:
        return self.settings.keystores / slug_of(name)

    def _find_shared(self, name: str, passphrase: Passphrase) -> Derivation | None:
        """The derivation of a keystore that the same passphrase opens: the new keystore `name` then needs no other.

        Only an opened keystore proves the passphrase. The ledger's is asked first of all: every installation has it.
        """
        if name != LOG_KEYSTORE and passphrase.is_same(self.sources.find(LOG_KEYSTORE)):
            with suppress(VagusError):
                self.keystore(LOG_KEYSTORE)
        kdf, unsafe_fast = self.settings.kdf, self.settings.unsafe_fast_kdf
        opened = (
            one.derivation for known, one in self._keystores.items() if passphrase.is_same(self.sources.find(known))
        )
        return next((one for one in opened if one.is_like(kdf, unsafe_fast=unsafe_fast)), None)

    @property
    def log_verifier(self) -> str:
        """The ledger's verifier key as C2SP vkey. Raises Unavailable(CHECKPOINT_INVALID) when its file is gone."""
        try:
            return self.settings.log_key.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as fault:
            msg = f"the ledger's public key {self.settings.log_key} cannot be read; restore the file from a backup"
            raise Unavailable(Reason.CHECKPOINT_INVALID, msg) from fault

    def checkpoint_key(self) -> SoftwareSigningKey:
        """The key that signs the ledger's checkpoints."""
        return self.keystore(LOG_KEYSTORE).load(CHECKPOINT_KEY)

    # authorities: hierarchy, issuance, revocation and publication

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """The acts that change which authorities exist. Raises Conflict(RESTORE_UNSETTLED) as `issuance`."""
        from vagus.authority.hierarchy import Hierarchy
        from vagus.fleet.ca_trial import CaTrial

        self.set_backs.check_settled()
        is_maker = self.settings.kind == "maker"
        return Hierarchy(
            self.pack,
            self.writer,
            keystore_or_new=self.keystore_or_new,
            requests=self.settings.requests,
            judge=CaTrial(self.pack, self.database, self.clock, self.planning.host_names_of, is_maker=is_maker).judge,
            is_maker=is_maker,
        )

    @cached_property
    def issuance(self) -> Issuance:
        """The one path to a signature. Raises Conflict(RESTORE_UNSETTLED) while the gap after a restore is open."""
        from vagus.authority.issuance import Issuance

        self.set_backs.check_settled()
        made = Issuance(self.pack, self.writer, self.clock, self.entropy, kill_points=self.kill_points)
        self._closers.append(made.write_rows)  # before the writer ends: rows of a batch that failed get a last attempt
        return made

    @cached_property
    def revocations(self) -> Revocations:
        """The acts of revocation."""
        from vagus.authority.revocation import Revocations

        return Revocations(self.writer)

    @cached_property
    def mass_revocation(self) -> MassRevocation:
        """Revocation of many certificates by plan, with approvals and stages."""
        from vagus.authority.mass_revocation import MassRevocation
        from vagus.fleet.devices import ACTS_OF_PLANS

        return MassRevocation(self.pack, self.database, self.writer, self.clock, inventory=ACTS_OF_PLANS)

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
            profile_of=self.pack.profile_of_category,
            request_authority=lambda planned, by: self.hierarchy.request_planned(planned, by=by),
            adopted=self.settings.plan,
            check_served=self.check_served,
        )

    def find_listener_faults(self, plan: Plan, *, asks_inventory: bool = True) -> dict[str, str]:
        """The listeners of a plan that cannot be served here, each with the reason and the remedy."""
        from vagus.fleet.plans.listener_faults import find_faults

        return find_faults(plan, self.pack, self.database, self._addresses(), asks_inventory=asks_inventory)

    def check_served(self, plan: Plan) -> None:
        """Raises Misconfigured(BAD_PLAN) with every listener of the plan that cannot be served here."""
        from vagus.fleet.plans.listener_faults import check_served

        check_served(plan, self.pack, self.database, self._addresses())

    def _addresses(self) -> dict[str, str]:
        serve = self.settings.serve
        return {**serve.addresses, **({"health": serve.health} if serve.health is not None else {})}

    @property
    def status_url(self) -> str:
        """Where this installation's CRLs and OCSP responses are, by the plan in force. Raises as `load_served`."""
        return self.planning.load_served().status_url

    def make_clock_bound(self) -> ClockBound:
        """What keeps CRLs from being dated by a clock that is ahead, counting from now."""
        from vagus.authority.clock_bound import ClockBound

        return ClockBound(self.database, self.clock, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))

    def open_issuers(
        self, names: Iterable[str], advance: Callable[[int, int], None] = lambda _done, _all: None
    ) -> OpenIssuers:
        """The named online authorities with their keys, every live generation; each name's passphrase is asked for.

        `advance` gets how many key derivations are done, of how many. Raises as `authority.issuers.open_issuers`.
        """
        from vagus.authority.hierarchy import open_issuers

        with self.database.reading() as connection:
            at = int(self.clock.now().timestamp())
            return open_issuers(
                connection,
                self.keystore,
                names,
                status_url=self.status_url,
                at=at,
                prepare=lambda every: self.derive_keys(every, advance),
            )

    # the fleet: inventory, enrolment, admission, plans

    @cached_property
    def inventory(self) -> Inventory:
        """The acts that change the inventory; a device's end revokes its certificates in the same act."""
        from vagus.fleet.devices import Inventory

        return Inventory(
            self.writer,
            self.entropy,
            overlap=self.pack.renewal.transfer_overlap,
            listener_names=self.planning.listener_names,
        )

    @cached_property
    def tokens(self) -> TokenIssuer:
        """Makes enrolment tokens."""
        from vagus.fleet.tokens import TokenIssuer

        return TokenIssuer(self.writer, self.entropy, life=self.pack.enrolment.token_lifetime)
