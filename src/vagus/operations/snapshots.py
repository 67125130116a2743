"""Offline snapshots: everything that is revoked, signed and small, for gateways that decide without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.authority.crls.files import CrlFiles
from vagus.authority.snapshots import SNAPSHOT_KEYSTORE, MadeSnapshot, SnapshotMaker, open_snapshot_key
from vagus.errors import Conflict
from vagus.operations.acts import Acts
from vagus.operations.roles import Act, check_may
from vagus.reasons import Reason

if TYPE_CHECKING:
    from datetime import timedelta

    from vagus.keystore.signing import SigningKey
    from vagus.operations.actor import Actor


class Snapshots(Acts):
    """What an operator may do with snapshots."""

    def make(self, actor: Actor, *, one_in: int, lifetime: timedelta) -> MadeSnapshot:
        """A snapshot of what is revoked now: of good certificates one in `one_in` looks revoked by chance.

        A certificate that is not in it counts as good, so it must lack no revocation. Raises
        Conflict(RESTORE_UNSETTLED) over a database that was brought back: the published log shows it, and a newer CRL
        does where the log is not at hand or comes late.
        """
        check_may(actor, Act.MAKE_SNAPSHOT)
        self.components.set_backs.check_settled()
        newer = CrlFiles(self.components.database, self.components.settings.published).find_newer()
        if newer:
            msg = f"published CRL {newer[0].stem}.crl is newer than the database, so the database was set back"
            raise Conflict(Reason.RESTORE_UNSETTLED, f"{msg}; close the gap with `vagus restore-gap` first")
        maker = SnapshotMaker(
            self.components.database,
            self.components.writer,
            self.components.clock,
            self.components.entropy,
            self._open_key(),
        )
        return maker.make(one_in=one_in, lifetime=lifetime, by=actor.id)

    def read_key(self, actor: Actor) -> bytes:
        """The public key that signs snapshots, as SubjectPublicKeyInfo (DER)."""
        check_may(actor, Act.MAKE_SNAPSHOT)
        return self._open_key().spki_der

    def _open_key(self) -> SigningKey:
        """The key that signs snapshots, made when it is first asked for."""
        return open_snapshot_key(self.components.keystore_or_new(SNAPSHOT_KEYSTORE), self.components.settings.origin)
