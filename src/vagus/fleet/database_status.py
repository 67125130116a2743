"""The StatusSource of this installation's certificates: the revocation sequence and the rows of issuance.

It validates no chain. Foreign issuers (an imported authority's root, makers) have their own status source.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from vagus.errors import NotTrusted, VagusError
from vagus.events.revocations import RevocationFollower
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.entries import IssuanceRecorded, decode_entry
from vagus.policy.values import Function, PolicyPack
from vagus.reasons import Reason
from vagus.records.authorities import find_by_id, find_by_key
from vagus.records.certificates import EARLIER, load_bytes, query_certificate
from vagus.records.engine.database import Connection, Database
from vagus.records.log import iterate_leaves
from vagus.records.lost_certificates import LOST
from vagus.trust.status import StatusSource, as_of_authority
from vagus.trust.validation import AcceptedIdentity
from vagus.x509.certificates import PathCertificate

_MOST_REMEMBERED: Final = 200_000  # each hash has 32 bytes, so this many take about 20 MB


class DatabaseStatus:
    """A StatusSource over the follower of the revocation sequence. Safe to ask from several threads.

    `bound` is how long the sequence may be unread. `grace` is how much longer connections may go on; `find_lapse`
    reports each of them. After both, no certificate is trusted. `elsewhere` decides for certificates whose issuer is no
    authority of this installation.
    """

    def __init__(
        self,
        database: Database,
        follower: RevocationFollower,
        *,
        bound: timedelta,
        grace: timedelta = timedelta(),
        elsewhere: StatusSource | None = None,
    ) -> None:
        self._database = database
        self._follower = follower
        self._bound = bound
        self._grace = grace
        self._elsewhere = elsewhere
        self._turn = threading.Lock()
        self._authorities: Mapping[bytes, int] = {}  # authority ids by the SHA-256 of the issuer's public key
        # SHA-256 of certificates that the database has confirmed as issued here, oldest first
        self._issued: dict[bytes, None] = {}
        # the devices of earlier certificates that were taken in, by the SHA-256 of the certificate
        self._earlier: dict[bytes, tuple[DeviceId, UnitName]] = {}

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Raises NotTrusted unless `certificate`, whose signature by `issuer` is verified, is valid at `at`.

        REVOKED, ON_HOLD; NOT_ISSUED for one that this installation never issued, although its key signed it;
        SEQUENCE_LOST when the sequence could not be read for too long; STATUS_UNAVAILABLE for a foreign issuer.
        """
        # 1. Find the authority that issued the certificate.
        authority_id = self._authorities.get(issuer.spki_sha256)
        if authority_id is None:
            authority_id = self._find_authority(issuer)
        if authority_id is None:
            if self._elsewhere is None:
                msg = "the certificate's issuer is no authority of this installation, so no status is known"
                raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg)
            self._elsewhere.check_status(certificate, issuer, at)
            return
        # 2. Ask whether the certificate is revoked or on hold: a dictionary in memory, as new as the last commit or
        # poll.
        try:
            self._check_sequence(authority_id, certificate.serial)
        except NotTrusted as refusal:
            refusal.is_peer_proved = self._has_issued(authority_id, certificate)
            raise
        # 3. Refuse if the revocation sequence could not be read lately: then a missing revocation proves nothing.
        if self._follower.is_lost(at, self._bound + self._grace):
            raise self._lapse(self._bound + self._grace)
        # 4. Require a row of issuance. A valid signature is not enough: a thief of the issuer's key signs without a
        # row.
        if certificate.sha256 not in self._issued:
            self._check_issued(authority_id, certificate)

    def find_earlier(self, leaf: PathCertificate, issuer: PathCertificate) -> tuple[DeviceId, UnitName] | None:
        """The device and the compartment of a certificate that was taken in with its issuer, for these very bytes."""
        known = self._earlier.get(leaf.sha256)
        authority_id = self._authorities.get(issuer.spki_sha256) or self._find_authority(issuer)
        if known is not None or authority_id is None:
            return known
        row = query_certificate(self._database, authority_id, leaf.serial)
        is_it = row is not None and row.fingerprint == leaf.sha256 and row.request_id.startswith(EARLIER)
        if row is None or row.device_id is None or not is_it:
            return None
        with self._database.reading() as connection:
            authority = find_by_id(connection, authority_id)
        if authority is not None:
            # It never changes: the compartment is the issuer's, whatever unit owns the device now.
            self._earlier[leaf.sha256] = DeviceId(row.device_id), UnitName.parse(authority.name)
        return self._earlier.get(leaf.sha256)

    def check_accepted(self, identity: AcceptedIdentity) -> None:
        """Raises NotTrusted(REVOKED|ON_HOLD|REVOKED_CA) when a certificate of a path that was accepted is revoked now.

        It costs a few look-ups in memory. Without an error it proves nothing: `check_status` decides, with everything
        else that a verdict needs.
        """
        issuers = identity.path[1:] if identity.anchor is None else (*identity.path[1:], identity.anchor)
        for index, (certificate, issuer) in enumerate(zip(identity.path, issuers, strict=False)):
            authority_id = self._authorities.get(issuer.spki_sha256)
            if authority_id is None:
                continue
            try:
                self._check_sequence(authority_id, certificate.serial)
            except NotTrusted as refusal:
                if index == 0:
                    raise
                raise as_of_authority(refusal) from refusal

    def _check_sequence(self, authority_id: int, serial: int) -> None:
        entry = self._follower.find(authority_id, serial)
        if entry is None:
            return
        if entry.is_hold:
            raise NotTrusted(Reason.ON_HOLD, "the certificate is on hold; ask the operators to release it")
        msg = "the certificate is revoked; hand the device to biomedical engineering"
        raise NotTrusted(Reason.REVOKED, msg, crl_reason=entry.reason)

    def find_lapse(self, at: datetime) -> NotTrusted | None:
        """The refusal that only the grace prevents; None while the sequence can be read."""
        return self._lapse(self._bound) if self._follower.is_lost(at, self._bound) else None

    def _lapse(self, bound: timedelta) -> NotTrusted:
        msg = f"the revocation sequence was last read more than {bound} ago, so no status is known; check the database"
        return NotTrusted(Reason.SEQUENCE_LOST, msg, bound=int(bound.total_seconds()))

    def _has_issued(self, authority_id: int, certificate: PathCertificate) -> bool:
        """Whether these very bytes are known to be ours; False too where the database cannot be asked."""
        if certificate.sha256 in self._issued:
            return True
        try:
            return _is_ours(self._database, authority_id, certificate) is True
        except VagusError:
            return False

    def _check_issued(self, authority_id: int, certificate: PathCertificate) -> None:
        is_settled = _is_ours(self._database, authority_id, certificate)
        if is_settled is None:
            msg = "the issuer's signature is valid, but no row records the certificate; its issuer's key may be stolen"
            raise NotTrusted(Reason.NOT_ISSUED, msg, authority=authority_id)
        if is_settled:
            with self._turn:
                # Only a certificate whose signature row is committed is cached; until then its bytes are compared each
                # time. The cache never says that a certificate is good, only that this installation issued it: the
                # revocation sequence is asked each time.
                self._issued[certificate.sha256] = None
                # remove the oldest alone: while the database is down, the others are still needed
                if len(self._issued) > _MOST_REMEMBERED:
                    del self._issued[next(iter(self._issued))]

    def _find_authority(self, issuer: PathCertificate) -> int | None:
        with self._database.reading() as connection:
            row = find_by_key(connection, issuer.spki_sha256)
        if row is None:
            return None
        with self._turn:
            # Replace the mapping as a whole: readers use it without a lock and see the old or the new one.
            self._authorities = {**self._authorities, issuer.spki_sha256: row.id}
        return row.id


def _is_ours(database: Database, authority_id: int, certificate: PathCertificate) -> bool | None:
    """None: never issued. True: these very bytes. False: the row of its signature is not committed yet.

    An intent commits to the TBS before the key is used, so the same TBS under a good signature is what was intended.
    """
    row = query_certificate(database, authority_id, certificate.serial)
    if row is None:
        return None
    if row.fingerprint == LOST:
        # A restore has lost the certificate's bytes, but the ledger entry still commits to their hash.
        tbs_sha256 = hashlib.sha256(certificate.tbs_der).digest()
        with database.reading() as connection:
            return True if _find_tbs_digest(connection, row.leaf_index) == tbs_sha256 else None
    # The fingerprint is the SHA-256 of the whole certificate. A second certificate with the same serial, signed by a
    # thief of the key, has another one.
    if row.fingerprint is not None:
        return True if row.fingerprint == certificate.sha256 else None
    with database.reading() as connection:
        tbs_der, _ = load_bytes(connection, row.leaf_index)
    return False if tbs_der == certificate.tbs_der else None


def _find_tbs_digest(connection: Connection, leaf_index: int) -> bytes | None:
    leaf = next(iterate_leaves(connection, leaf_index, leaf_index + 1))
    entry = decode_entry(leaf.entry).entry
    return entry.tbs_sha256 if isinstance(entry, IssuanceRecorded) else None


def bounds_for(pack: PolicyPack, function: Function | None) -> tuple[timedelta, timedelta]:
    """How long the sequence may be unread for connections of `function`, and the grace after that.

    Enrolment (None) has the bound of control. Only functions that fail operational have a grace.
    """
    rule = pack.functions[Function.CONTROL if function is None else function]
    return rule.status_max_age, rule.grace
