"""Offline snapshots: everything that is revoked, signed and small, for gateways that decide without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.authority.crls.files import CrlFiles
from vagus.authority.snapshots import MadeSnapshot, SnapshotMaker
from vagus.errors import Conflict
from vagus.operations.roles import Act, check_may
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from pathlib import Path

    from vagus.clock import Clock, Entropy
    from vagus.keystore.signing import SigningKey
    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Database
    from vagus.records.engine.writer import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    """What an operator may do with snapshots."""

    database: Database
    writer: Callable[[], Writer]
    clock: Clock
    entropy: Entropy
    open_key: Callable[[], SigningKey]
    """The key that signs snapshots, made when it is first asked for."""
    published: Path
    check_settled: Callable[[], None]

    def make(self, actor: Actor, *, one_in: int, lifetime: timedelta) -> MadeSnapshot:
        """A snapshot of what is revoked now: of good certificates one in `one_in` looks revoked by chance.

        A certificate that is not in it counts as good, so it must lack no revocation. Raises
        Conflict(RESTORE_UNSETTLED) over a database that was brought back: the published log shows it, and a newer CRL
        does where the log is not at hand or comes late.
        """
        check_may(actor, Act.MAKE_SNAPSHOT)
        self.check_settled()
        newer = CrlFiles(self.database, self.published).find_newer()
        if newer:
            msg = f"{newer[0].stem}.crl is newer than the database says, which was brought back from an older state"
            raise Conflict(Reason.RESTORE_UNSETTLED, f"{msg}; close the gap with `vagus restore-gap` first")
        maker = SnapshotMaker(self.database, self.writer(), self.clock, self.entropy, self.open_key())
        return maker.make(one_in=one_in, lifetime=lifetime, by=actor.id)

    def read_key(self, actor: Actor) -> bytes:
        """The public key that signs snapshots, as SubjectPublicKeyInfo (DER)."""
        check_may(actor, Act.MAKE_SNAPSHOT)
        return self.open_key().spki_der
