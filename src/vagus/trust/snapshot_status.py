"""The StatusSource over a signed snapshot of revocations, for gateways that decide offline; fetches nothing.

A certificate that is not in the snapshot was not revoked when the snapshot was made. The snapshot is a compressed set
with false positives: one good certificate in `one_in` looks revoked. Such a hit is checked with another source
(`on_hit`), and refused if there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.trust.crl_memory import CrlMark, CrlMemory, VolatileCrlMemory
from vagus.trust.status import DEFINITE, StatusSource, check_in_path, excuses_missing_status, issuer_in
from vagus.wire.snapshots import Snapshot, decode_snapshot, verify_snapshot
from vagus.x509.certificates import PathCertificate
from vagus.x509.dates import later
from vagus.x509.paths.search import ValidPath

_SLACK = timedelta(minutes=5)


class SnapshotStatus:
    """A `StatusSource` over the newest snapshot of one installation.

    Safe to use from several threads: loading replaces the snapshot as a whole.

    `spki_der` is the public key that the installation signs snapshots with, taken from it by hand as its anchors are.
    `longest_age` bounds how old a snapshot may be whatever its nextUpdate says (policy: `status_max_age` of the
    function). `on_hit` is asked about certificates that look revoked (an OCSP client, CRLs, an operator's allow-list);
    None refuses them with STATUS_DOUBTFUL. `memory` remembers the highest number over a restart.
    """

    def __init__(
        self,
        spki_der: bytes,
        *,
        longest_age: timedelta | None = None,
        on_hit: StatusSource | None = None,
        memory: CrlMemory | None = None,
        honours_no_rev_avail: bool = True,
    ) -> None:
        self._spki_der = spki_der
        self._longest_age = longest_age
        self._on_hit = on_hit
        self._memory = memory or VolatileCrlMemory()
        self._honours_no_rev_avail = honours_no_rev_avail
        self._turn = threading.Lock()
        self.snapshot: Snapshot | None = None

    def load(self, snapshot_der: bytes, at: datetime) -> Snapshot:
        """Take a snapshot into use in place of the older one.

        Raises NotTrusted(SNAPSHOT_INVALID) for a foreign key, a broken signature or a date in the future,
        NotTrusted(SNAPSHOT_ROLLBACK) for one older than what was seen, Malformed and LimitExceeded for other bytes.
        """
        snapshot = decode_snapshot(snapshot_der)
        verify_snapshot(snapshot, self._spki_der)
        facts = snapshot.facts
        if facts.made_at > later(at, _SLACK):
            msg = f"the snapshot is dated {facts.made_at:%Y-%m-%d %H:%M:%S} UTC, in the future; check the clocks"
            raise NotTrusted(Reason.SNAPSHOT_INVALID, msg)
        name = f"snapshot:{facts.key_sha256.hex()}"
        mark = CrlMark(facts.number, int(facts.made_at.timestamp()))
        with self._turn:
            newest = self._memory.find(name)
            if newest is not None and (mark.number < newest.number or mark.at < newest.at):
                msg = f"snapshot number {mark.number} is older than snapshot number {newest.number}, loaded before"
                raise NotTrusted(Reason.SNAPSHOT_ROLLBACK, f"{msg}; fetch the newest snapshot")
            if mark != newest:
                self._memory.remember(name, mark)
            self.snapshot = snapshot
        return snapshot

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Return if `certificate` was not revoked as of the snapshot, or `on_hit` says that it is good.

        Raises NotTrusted: STATUS_UNAVAILABLE (no snapshot, or none of this issuer), STATUS_STALE, CLOCK_ROLLBACK,
        STATUS_DOUBTFUL (it looks revoked and `on_hit` does not know), and what `on_hit` knows.
        """
        on_hit = self._on_hit
        self._check(
            certificate, issuer, at, None if on_hit is None else partial(on_hit.check_status, certificate, issuer, at)
        )

    def check_status_in(self, path: ValidPath, index: int, at: datetime) -> None:
        """As `check_status`; `on_hit` is asked with the path."""
        on_hit = self._on_hit
        ask = None if on_hit is None else partial(check_in_path(on_hit), path, index, at)
        self._check(path.certificates[index], issuer_in(path, index), at, ask)

    def _check(
        self, certificate: PathCertificate, issuer: PathCertificate, at: datetime, on_hit: Callable[[], None] | None
    ) -> None:
        # 1. RFC 9608 4: by policy, missing status is accepted if the issuer says that it publishes none (noRevAvail).
        is_excused = self._honours_no_rev_avail and excuses_missing_status(certificate)
        # 2. Missing status refuses: no snapshot is loaded, or it does not cover the issuer.
        snapshot = self.snapshot
        if snapshot is None or issuer.spki_sha256 not in snapshot.facts.issuers:
            if is_excused:
                return
            what = "no snapshot is loaded" if snapshot is None else "the snapshot does not cover its issuer"
            msg = f"no status for certificate {certificate.label}: {what}; load the snapshot of its installation"
            raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, certificate=certificate.label)
        # 3. A serial that is absent from the set is certainly not revoked, as long as the snapshot is not too old.
        if not snapshot.may_be_revoked(issuer.spki_sha256, certificate.serial_bytes):
            if not is_excused:
                self._check_made(snapshot, at)
                self._check_fresh(snapshot, at)
            return
        # 4. A serial in the set is not certainly revoked: one good certificate in `one_in` looks the same. Neither the
        # snapshot's age nor the clock makes a revoked certificate good, so neither is checked here. If `on_hit` does
        # not know the certificate either, the result is STATUS_DOUBTFUL and not missing status: no other source may
        # make up for it.
        missing: NotTrusted | None = None
        try:
            if on_hit is not None:
                on_hit()
                # Without an excuse `on_hit` knows the certificate; otherwise it may have returned without knowing it.
                if not is_excused:
                    return
        except NotTrusted as refusal:
            if refusal.reason in DEFINITE:
                raise
            missing = refusal
        one_in = snapshot.facts.one_in
        msg = f"certificate {certificate.label} looks revoked in the snapshot, as 1 good one in {one_in} does by chance"
        msg = f"{msg}; ask its issuer (OCSP, CRL), or take the next snapshot"
        raise NotTrusted(Reason.STATUS_DOUBTFUL, msg, certificate=certificate.label, one_in=one_in) from missing

    @staticmethod
    def _check_made(snapshot: Snapshot, at: datetime) -> None:
        if snapshot.facts.made_at > later(at, _SLACK):
            msg = f"the clock shows {at:%Y-%m-%d %H:%M:%S} UTC, before the snapshot was made; set the clock"
            raise NotTrusted(Reason.CLOCK_ROLLBACK, msg)

    def _check_fresh(self, snapshot: Snapshot, at: datetime) -> None:
        facts = snapshot.facts
        end = facts.next_update
        if self._longest_age is not None:
            end = min(end, later(facts.made_at, self._longest_age))
        if at > end:
            stale = int((at - end).total_seconds())
            msg = f"the snapshot expired at {end:%Y-%m-%d %H:%M:%S} UTC; bring the newest snapshot"
            raise NotTrusted(Reason.STATUS_STALE, msg, stale_seconds=stale)
