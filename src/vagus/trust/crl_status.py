"""The StatusSource over CRLs in memory: complete, partitioned, indirect and delta CRLs (RFC 5280 6.3); fetches none.

This is RFC 5280 6.3.3, whose steps (a) to (l) are named beside the code. Words used here:

- *Kind* of a CRL: issuer name, scope, complete or delta, and the key that signed it. One CRL of each kind is in use.
- *Scope*: the certificates that a CRL may speak of, from its issuingDistributionPoint. Without one, all of its issuer.
- *Covered reasons*: a CRL may leave out some revocation reasons. "Good" needs CRLs that together cover all of them.
- *Stale*: past nextUpdate, or older than `CrlRules.longest_life`.
- *Permanent*: a revocation that is not a hold. Only a hold can be taken back (RFC 5280 5.3.1).

Rules:

1. A CRL is loaded only if a CA that leads to an anchor signed it and it is not dated in the future.
2. Within a kind, number and thisUpdate only grow, also over a restart (`CrlMemory`).
3. A permanent revocation counts whatever the age of the CRL that says so, and before anything else is looked for.
4. "Good" needs CRLs in date. A hold counts as ON_HOLD if its CRL is in date, else as STATUS_STALE.
5. What is not known to be good is refused, except a certificate that excuses missing status (RFC 9608).

Example: a shard's CRL ended an hour ago and names certificates A (keyCompromise) and B (certificateHold), and not C.
A is REVOKED. B is STATUS_STALE without an age: the hold may have been lifted. C is STATUS_STALE, 3,600 seconds old.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from vagus.errors import Malformed, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.trust import crl_rules
from vagus.trust.anchors import ClockFloor
from vagus.trust.crl_memory import CrlMark, CrlMemory, VolatileCrlMemory
from vagus.trust.crl_rules import CrlRules
from vagus.trust.crl_signers import find_signers
from vagus.trust.status import DEFINITE, check_every, excuses_missing_status, issuer_in
from vagus.x509 import extensions as ext
from vagus.x509.certificates import PathCertificate
from vagus.x509.crls.decoding import ALL_REASONS, CERTIFICATE_HOLD, EVERYTHING, REMOVE_FROM_CRL, Crl, Name, decode_crl
from vagus.x509.crls.scope import covered_reasons, covers, distribution_points, updates
from vagus.x509.paths.checks import PathInputs
from vagus.x509.paths.search import PathAnchor, Pool, Search, ValidPath, find_path
from vagus.x509.signatures import SignatureVerdicts

_NOT_PERMANENT = frozenset({None, CERTIFICATE_HOLD, REMOVE_FROM_CRL})
_DEEPEST = 3  # how many levels of CRL signers may each need a status from CRLs of other signers


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A verified CRL, the key that signed it and the certificates of that key."""

    crl: Crl
    spki_sha256: bytes
    signers: tuple[PathCertificate, ...]

    @property
    def kind(self) -> tuple[Name, bytes, bool, bytes]:
        return self.crl.issuer.relative_names, self.crl.scope_der, self.crl.is_delta, self.spki_sha256


@dataclass(slots=True)
class _Question:
    """Whether `certificate`, issued by `issuer`, is good at `at`.

    `anchor` is that of the path; None where the caller has no path. `pending` are the hashes of the CRLs whose signers
    are being checked at this moment: with them a circle ends.
    """

    certificate: PathCertificate
    issuer: PathCertificate
    anchor: PathAnchor | None
    at: datetime
    pending: tuple[bytes, ...]


_ByIssuer = Mapping[Name, tuple[_Loaded, ...]]


class CrlStatus:
    """A `PathStatusSource` over CRLs. Safe to use from several threads.

    `pool` holds the anchors and the CA certificates that may sign CRLs. `memory` keeps the newest number of each kind
    over restarts. `floor` learns that each verified thisUpdate has passed.

    Threads: `load` replaces `_by_issuer` as a whole, under `_lock`, which also makes check and mark in `_memory` one
    step. Checks read `_by_issuer` once per use and take no lock: each mapping that they see is complete.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        rules: CrlRules = crl_rules.DEFAULT_CRL_RULES,
        memory: CrlMemory | None = None,
        verdicts: SignatureVerdicts | None = None,
        floor: ClockFloor | None = None,
    ) -> None:
        self._pool = pool
        self._rules = rules
        self._memory = memory or VolatileCrlMemory()
        self._verdicts = verdicts or SignatureVerdicts()
        self._floor = floor
        self._lock = threading.Lock()
        self._by_issuer: _ByIssuer = MappingProxyType({})

    # --- loading CRLs
    # ---------------------------------------------------------------------------------------------------

    def load(self, crl_der: bytes, at: datetime) -> Crl:
        """Take a CRL into use in place of the older one of its issuer, scope and key.

        Raises NotTrusted(CRL_INVALID|BAD_SIGNATURE|KEY_USAGE|…) when no CA known here signed it, or when it is dated
        in the future: its number and date would refuse the proper CRLs that follow. Raises NotTrusted(CRL_ROLLBACK) if
        a newer one was seen. Raises Malformed and LimitExceeded for what does not decode.
        """
        loaded = self._verify(crl_der, at)
        with self._lock:
            self._take(loaded)
        return self._learn(loaded.crl, at)

    def load_unless_older(self, crl_der: bytes, at: datetime) -> Crl | None:
        """As `load`, for CRLs that were given at once, newest first (`newest_first`): the newest of each kind counts.

        None for a CRL that is verified and passed over, because one in use is as new in number and date.
        """
        loaded = self._verify(crl_der, at)
        with self._lock:
            mark = _mark_of(loaded.crl)
            for other in self._by_issuer.get(loaded.crl.issuer.relative_names, ()):
                newer = _mark_of(other.crl)
                if other.kind == loaded.kind and newer.number >= mark.number and newer.at >= mark.at:
                    return None
            self._take(loaded)
        return self._learn(loaded.crl, at)

    def _verify(self, crl_der: bytes, at: datetime) -> _Loaded:
        crl = decode_crl(crl_der)
        signers = find_signers(crl, self._search(at))
        loaded = _Loaded(crl, signers[0].spki_sha256, signers)
        crl_rules.check_not_from_the_future(crl, at, self._rules)
        return loaded

    def _take(self, loaded: _Loaded) -> None:
        """Under the lock."""
        self._check_newest(loaded)
        issuer = loaded.crl.issuer.relative_names
        same_name = [other for other in self._by_issuer.get(issuer, ()) if other.kind != loaded.kind]
        self._by_issuer = MappingProxyType({**self._by_issuer, issuer: (loaded, *same_name)})

    def _learn(self, crl: Crl, at: datetime) -> Crl:
        if self._floor is not None:
            self._floor.raise_to(min(crl.this_update, at))
        return crl

    def _search(self, at: datetime) -> Search:
        """How paths of CRL signers are searched for; they must be valid at `at`, the moment of the question."""
        return Search(
            pool=self._pool,
            extra=Pool(()),
            rules=self._rules.path,
            inputs=PathInputs(at=at),
            verdicts=self._verdicts,
        )

    def _check_newest(self, loaded: _Loaded) -> None:
        """Numbers and dates of a kind of CRL only grow, also over a restart.

        RFC 5280 5.2.3 lets a verifier tell an older CRL by its number. A replayed older CRL would clear a revocation.
        """
        crl = loaded.crl
        kind = hashlib.sha256(b"\0".join((crl.issuer.der, crl.scope_der, bytes([crl.is_delta]), loaded.spki_sha256)))
        name = f"crl:{kind.hexdigest()}"
        mark = _mark_of(crl)
        newest = self._memory.find(name)
        if newest is not None:
            if mark.number < newest.number or mark.at < newest.at:
                msg = (
                    f"CRL {crl.label} (number {crl.number}, {crl.this_update:%Y-%m-%d %H:%M:%S} UTC) is older "
                    "than a CRL"
                )
                msg = f"{msg} already seen (number {newest.number}); fetch the newest CRL"
                raise NotTrusted(Reason.CRL_ROLLBACK, msg, crl=crl.label)
            if mark == newest:
                return
        self._memory.remember(name, mark)

    # --- checking certificates against the CRLs
    # -------------------------------------------------------------------------

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """As `StatusSource.check_status`. CRL signers other than the issuer may lead to any anchor of the pool."""
        self._check(_Question(certificate, issuer, None, at, ()))

    def check_path_status(self, path: ValidPath, at: datetime) -> None:
        """Every certificate of the path; CRL signers must lead to the anchor of the path (6.3.3 (f))."""
        check_every(self.check_status_in, path, at)

    def check_path_where_loaded(self, path: ValidPath, at: datetime) -> None:
        """As `check_path_status`, but a certificate passes if no CRL at all of its issuer is loaded.

        For issuers that may publish no CRL, such as makers of birth certificates. Every certificate is checked by
        itself: a missing CRL for the leaf hides nothing about the CA above it. A CRL that is loaded but does not
        suffice (reasons left out, another partition, stale) refuses.
        """
        check_every(self._check_where_loaded, path, at)

    def _check_where_loaded(self, path: ValidPath, index: int, at: datetime) -> None:
        if self.has_crl_for(path.certificates[index]):
            self.check_status_in(path, index, at)

    def has_crl_for(self, certificate: PathCertificate) -> bool:
        """Whether any CRL is loaded from the certificate's issuer, or from an indirect issuer that speaks for it."""
        return bool(self._by_issuer.get(certificate.issuer.relative_names)) or any(self._partial(certificate))

    def check_status_in(self, path: ValidPath, index: int, at: datetime) -> None:
        """As `check_path_status` for `path.certificates[index]` alone."""
        self._check(_Question(path.certificates[index], issuer_in(path, index), path.anchor, at, ()))

    def _check(self, asked: _Question) -> None:
        """RFC 5280 6.3.3 for one certificate: returns if it is good, else raises."""
        certificate = asked.certificate
        self._refuse_revoked(asked)
        reasons = 0
        stale: list[tuple[int, NotTrusted]] = []
        held: NotTrusted | None = None
        fault: VagusError | None = None
        # First ask the complete CRLs, of an old and a new key of the issuer alike: both count. Where these leave
        # revocation reasons open, ask the partitioned CRLs. An unusable CRL does not end the search: another one may
        # still say "revoked" or "good".
        for candidates in (self._complete, self._partial):
            for loaded, covered in candidates(certificate):
                try:
                    staleness = self._find_staleness(loaded, asked)
                except VagusError as refusal:
                    fault = refusal
                    continue
                # RFC 5280 6.3.3 (i), (j), (k): what this CRL and its delta CRLs say of the certificate
                reason = self._find_reason(loaded, asked)
                if reason is not None:
                    held = _refuse_named(certificate, reason, staleness)
                # RFC 5280 6.3.3 (l): this CRL does not refuse the certificate for the reasons that it covers
                if staleness is None:
                    reasons |= covered
                else:
                    stale.append((covered, staleness))
            if reasons == ALL_REASONS:
                return
        if held is not None:
            raise held
        if not (self._rules.honours_no_rev_avail and excuses_missing_status(certificate)):
            raise _no_status(certificate, reasons, stale, fault)

    def _refuse_revoked(self, asked: _Question) -> None:
        """Raises NotTrusted(REVOKED) if a CRL with the certificate in its scope names it as permanently revoked.

        The CRL may be of any kind and age, and a delta may build on any base. Date, base and covered reasons matter
        only for CRLs that are to say that a certificate is good.
        """
        certificate = asked.certificate
        for loaded in self._crls_by_its_issuers(certificate):
            reason = loaded.crl.find_reason(certificate.issuer, certificate.serial_bytes)
            if reason is None or reason in _NOT_PERMANENT or not self._is_in_scope(loaded.crl, certificate):
                continue
            try:
                self._check_signer(loaded, asked)
            except VagusError as refusal:
                if refusal.reason is not Reason.STATUS_STALE:
                    continue
            raise _revoked(certificate, reason)

    def _crls_by_its_issuers(self, certificate: PathCertificate) -> Iterator[_Loaded]:
        """The CRLs of its issuer and of the issuers that its distribution points name, whatever their scope."""
        issuers = {certificate.issuer.relative_names: None}
        with suppress(Malformed):  # distribution points that do not decode name no issuer
            for point in distribution_points(certificate):
                if point.crl_issuer is not None:
                    issuers |= dict.fromkeys(name.relative_names for name in point.crl_issuer.directories)
        for issuer in issuers:
            for loaded in self._by_issuer.get(issuer, ()):
                if self._rules.uses_deltas or not loaded.crl.is_delta:
                    yield loaded

    def _is_in_scope(self, crl: Crl, certificate: PathCertificate) -> bool:
        """Whether the certificate lies in the CRL's scope, by any of its distribution points, whatever the reasons."""
        if crl.scope is EVERYTHING:
            return crl.issuer.matches(certificate.issuer)
        if crl.scope.is_indirect and not self._rules.accepts_indirect:
            return False
        return any(covers(crl, point, certificate) for point in distribution_points(certificate))

    def _complete(self, certificate: PathCertificate) -> list[tuple[_Loaded, int]]:
        """The CRLs that cover all that the issuer issues; they need no distribution point (see `ANYWHERE`)."""
        of_issuer = self._by_issuer.get(certificate.issuer.relative_names, ())
        return [
            (loaded, ALL_REASONS)
            for loaded in of_issuer
            if loaded.crl.scope is EVERYTHING and loaded.crl.base_number is None
        ]

    def _partial(self, certificate: PathCertificate) -> Iterator[tuple[_Loaded, int]]:
        """(a) to (e): partitions and indirect CRLs with the certificate in scope, and the reasons that each covers."""
        for point in distribution_points(certificate):
            issuers = point.crl_issuer.directories if point.crl_issuer is not None else (certificate.issuer,)
            for issuer in issuers:
                for loaded in self._by_issuer.get(issuer.relative_names, ()):
                    crl = loaded.crl
                    if crl.is_delta or crl.scope is EVERYTHING:
                        continue
                    if crl.scope.is_indirect and not self._rules.accepts_indirect:
                        continue
                    if covers(crl, point, certificate):
                        yield loaded, covered_reasons(crl, point)

    def _check_signer(self, loaded: _Loaded, asked: _Question) -> None:
        """(f): check that the key that signed this CRL may speak for the certificate.

        It may if it is the key of the issuer, the key of the anchor, or a key with a valid path to the same anchor.
        Raises NotTrusted(KEY_USAGE|CRL_INVALID|STATUS_UNAVAILABLE|…) if it may not.
        """
        issuer, anchor = asked.issuer, asked.anchor
        if issuer.spki_sha256 == loaded.spki_sha256 and issuer.subject.matches(loaded.crl.issuer):
            # The caller has just validated the path of the CRL's issuer, so only its key usage is left to check.
            if issuer.key_usage is not None and not issuer.key_usage & ext.UsageBit.CRL_SIGN:
                msg = f"certificate {issuer.label} signed CRL {loaded.crl.label}, but its keyUsage lacks cRLSign"
                raise NotTrusted(Reason.KEY_USAGE, msg, certificate=issuer.label)
            return
        if anchor is not None and anchor.spki_sha256 == loaded.spki_sha256:
            return
        fault: VagusError | None = None
        for signer in loaded.signers:
            try:
                self._check_separate_signer(signer, loaded.crl, asked)
            except VagusError as refusal:
                fault = refusal
            else:
                return
        if fault is not None:
            raise fault

    def _check_separate_signer(self, signer: PathCertificate, crl: Crl, asked: _Question) -> None:
        anchor, at, pending = asked.anchor, asked.at, asked.pending
        is_anchor = any(other.certificate == signer for other in self._pool.anchors_named(signer.subject))
        path = None if is_anchor else find_path(signer, self._search(at))
        led_to = signer.spki_sha256 if path is None else path.anchor.spki_sha256
        if anchor is not None and led_to != anchor.spki_sha256:
            msg = f"CRL {crl.label} has a path to another anchor than the certificate has; load the right CRL"
            raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)
        if path is None:
            return
        if crl.sha256 in pending:
            # A circle: the status of this CRL signer depends on the CRL that it signed. PKITS 4.5 allows this for a new
            # key.
            if self._rules.lets_keys_vouch:
                return
            msg = f"CRL {crl.label} is signed with the key that it should vouch for; load a CRL by the key that"
            msg = f"{msg} certified its signer"
            raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, crl=crl.label)
        if len(pending) >= _DEEPEST:
            msg = f"CRL {crl.label} needs a chain of more than {_DEEPEST} CRL signers; publish simpler CRLs"
            raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, crl=crl.label)
        for index, certificate in enumerate(path.certificates):
            try:
                issuer = issuer_in(path, index)
                self._check(_Question(certificate, issuer, path.anchor, at, (*pending, crl.sha256)))
            except NotTrusted as refusal:
                if refusal.reason not in DEFINITE:
                    raise
                # The CRL's signer is revoked, so the CRL is not used, and the status of the certificate in question is
                # unknown.
                msg = f"CRL {crl.label} cannot be used, because of its signer: {refusal.message}"
                raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label, cause=refusal.reason) from refusal

    def _find_staleness(self, loaded: _Loaded, asked: _Question) -> NotTrusted | None:
        """None if CRL and signer are valid; STATUS_STALE, as a value, if one is only out of date.

        Of two it is the one that is out of date for longer. Every other fault is raised.
        """
        staleness = crl_rules.find_staleness(loaded.crl, asked.at, self._rules)
        try:
            self._check_signer(loaded, asked)
        except NotTrusted as refusal:
            if refusal.reason is not Reason.STATUS_STALE:
                raise
            if staleness is None or crl_rules.stale_seconds(staleness) < crl_rules.stale_seconds(refusal):
                return refusal
        return staleness

    def _find_reason(self, loaded: _Loaded, asked: _Question) -> int | None:
        """The reason code under which a CRL with its deltas names the certificate; None if they do not name it."""
        certificate = asked.certificate
        reason = loaded.crl.find_reason(certificate.issuer, certificate.serial_bytes)
        # RFC 5280 6.3.3 (c), (h): the newest delta CRL in date brings the base CRL up to date.
        fresh = [delta for delta in self._deltas_of(loaded) if crl_rules.is_in_date(delta, asked.at, self._rules)]
        if not fresh:
            return reason
        newest = max(fresh, key=lambda delta: delta.number or 0)
        change = newest.find_reason(certificate.issuer, certificate.serial_bytes)
        if change == REMOVE_FROM_CRL:
            # RFC 5280 5.3.1: only a hold (or an expired entry) is ever removed from a CRL.
            return None if reason in _NOT_PERMANENT else reason
        return reason if change is None else change

    def _deltas_of(self, base: _Loaded) -> list[Crl]:
        """The deltas of this base by the same key, of any age (RFC 5280 5.2.4)."""
        if not self._rules.uses_deltas or base.crl.number is None:
            return []
        return [
            other.crl
            for other in self._by_issuer.get(base.crl.issuer.relative_names, ())
            if other.spki_sha256 == base.spki_sha256 and updates(other.crl, base.crl)
        ]

    @property
    def loaded(self) -> Sequence[Crl]:
        """The CRLs in use, for health reports."""
        return [entry.crl for entries in self._by_issuer.values() for entry in entries]


def newest_first(crl: Crl) -> tuple[float, int, int, bytes]:
    """A key to sort CRLs by, newest first; of two with one date and number the one with more entries comes first."""
    return -crl.this_update.timestamp(), -_mark_of(crl).number, -sum(map(len, crl.entries.values())), crl.sha256


def _mark_of(crl: Crl) -> CrlMark:
    at = int(crl.this_update.timestamp())
    return CrlMark(at if crl.number is None else crl.number, at)


def _revoked(certificate: PathCertificate, reason: int) -> NotTrusted:
    msg = f"certificate {certificate.label} is revoked (CRL reason code {reason}); replace the certificate"
    return NotTrusted(Reason.REVOKED, msg, certificate=certificate.label, code=reason)


def _refuse_named(certificate: PathCertificate, reason: int, staleness: NotTrusted | None) -> NotTrusted:
    """Raises NotTrusted(REVOKED), which is permanent whatever the age of the CRL, or NotTrusted(ON_HOLD).

    A hold in a stale CRL may have been lifted since. It is returned as STATUS_STALE, for use if no CRL in date decides.
    """
    if reason != CERTIFICATE_HOLD:
        raise _revoked(certificate, reason)
    if staleness is None:
        msg = f"certificate {certificate.label} is on hold; have it released, or replace it"
        raise NotTrusted(Reason.ON_HOLD, msg, certificate=certificate.label, code=reason)
    # The fact `stale_seconds` is left out: a caller that accepts a status of a bounded age must not accept this stale
    # hold.
    msg = f"certificate {certificate.label} was on hold in the newest CRL, which is out of date; fetch the newest CRL"
    return NotTrusted(Reason.STATUS_STALE, msg, certificate=certificate.label)


def _no_status(
    certificate: PathCertificate, reasons: int, stale: Sequence[tuple[int, NotTrusted]], fault: VagusError | None
) -> VagusError:
    """Why the CRLs do not suffice.

    `reasons` are covered by CRLs in date, `stale` are those out of date. STATUS_STALE only if both together cover every
    reason: then its age is that of the oldest CRL that is needed. Otherwise `fault`, or STATUS_UNAVAILABLE.
    """
    together = reasons
    for covered, staleness in sorted(stale, key=lambda one: crl_rules.stale_seconds(one[1])):
        together |= covered
        if together == ALL_REASONS:
            return staleness
    if fault is not None:
        return fault
    what = "leave out some revocation reasons of" if together else "do not cover"
    msg = f"the loaded CRLs {what} certificate {certificate.label}; load the newest CRL of its issuer"
    return NotTrusted(Reason.STATUS_UNAVAILABLE, msg, certificate=certificate.label)
