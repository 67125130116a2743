"""Status from CRLs held in memory: complete, partitioned, indirect and delta lists (RFC 5280 6.3.3); fetches none.

A CRL enters only when a CA that leads to an anchor has signed it, and never when a newer one of its kind was seen.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from vagus.errors import Malformed, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.trust.anchors import ClockFloor
from vagus.trust.crl_memory import CrlMark, CrlMemory, VolatileCrlMemory
from vagus.trust.crl_signers import find_signers
from vagus.trust.status import DEFINITE, check_every, excuses_missing_status, issuer_in
from vagus.x509 import extensions as ext
from vagus.x509.certificates import PathCertificate
from vagus.x509.crls.decoding import ALL_REASONS, CERTIFICATE_HOLD, EVERYTHING, REMOVE_FROM_CRL, Crl, Name, decode_crl
from vagus.x509.crls.scope import covered_reasons, distribution_points, speaks_for, updates
from vagus.x509.dates import later
from vagus.x509.paths.checks import PathInputs
from vagus.x509.paths.rules import PKIX, PathRules
from vagus.x509.paths.search import PathAnchor, Pool, Search, ValidPath, find_path
from vagus.x509.signatures import SignatureVerdicts

_PASSING = frozenset({None, CERTIFICATE_HOLD, REMOVE_FROM_CRL})  # codes of an entry that is no revocation for ever
_DEEPEST = 3  # CRL signers whose own status needs CRLs of other signers, and so on


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlRules:
    """What is asked of CRLs beyond RFC 5280.

    `longest_life` bounds the age of a CRL whatever its nextUpdate says, and is what makes one without nextUpdate usable
    at all (5.1.2.5 requires the field). `slack`: how far an issuer's clock may run ahead of ours.
    """

    longest_life: timedelta | None = None
    slack: timedelta = timedelta(minutes=5)
    uses_deltas: bool = True
    accepts_indirect: bool = True
    honours_no_rev_avail: bool = True  # RFC 9608 4: silence about an end entity that says noRevAvail is no fault
    lets_keys_vouch: bool = True
    """Whether a new key's list alone may say that the new key's own certificate is good, as PKITS 4.5 has it. A thief
    of that key could write such a list, so whoever decides about devices asks for a list by another key."""
    path: PathRules = PKIX  # for the paths of CRL signers


DEFAULT_CRL_RULES = CrlRules()
STRICT_CRL_RULES = CrlRules(lets_keys_vouch=False)
"""For decisions about devices."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A verified CRL, the key that signed it and the certificates of that key."""

    crl: Crl
    spki_sha256: bytes
    signers: tuple[PathCertificate, ...]

    @property
    def kind(self) -> tuple[Name, bytes, bool, bytes]:
        return self.crl.issuer.relative_names, self.crl.scope_der, self.crl.is_delta, self.spki_sha256


_ByIssuer = Mapping[Name, tuple[_Loaded, ...]]


class CrlStatus:
    """A `PathStatusSource` over CRLs. Safe to use from several threads: loading swaps the whole set at once.

    `pool` holds the anchors and the CA certificates that may sign CRLs. `certificates` are asked about in full; the
    leaf alone suffices nowhere, since a revoked CA must be seen.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        rules: CrlRules = DEFAULT_CRL_RULES,
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

    # --- loading

    def load(self, crl_der: bytes, at: datetime) -> Crl:
        """Take a CRL into use in place of the older one of its issuer, scope and key.

        Raises NotTrusted(CRL_INVALID|BAD_SIGNATURE|KEY_USAGE|…) when no CA known here signed it or it is dated in the
        future (its mark would shut out the proper lists that follow), NotTrusted(CRL_ROLLBACK) when a newer one was
        seen, Malformed and LimitExceeded for what does not decode.
        """
        crl = decode_crl(crl_der)
        signers = find_signers(crl, self._search(at))
        loaded = _Loaded(crl, signers[0].spki_sha256, signers)
        self._check_dated(crl, at)
        with self._lock:
            self._check_newest(loaded)
            same_name = [
                other for other in self._by_issuer.get(crl.issuer.relative_names, ()) if other.kind != loaded.kind
            ]
            self._by_issuer = MappingProxyType({**self._by_issuer, crl.issuer.relative_names: (loaded, *same_name)})
        if self._floor is not None:
            self._floor.raise_to(min(crl.this_update, at))
        return crl

    def _search(self, at: datetime) -> Search:
        """How paths of CRL signers are looked for.

        The bounds are longer than needed for CRLs of the past: the caller gives the moment at which it asks.
        """
        return Search(
            pool=self._pool,
            extra=Pool(()),
            rules=self._rules.path,
            inputs=PathInputs(at=at),
            verdicts=self._verdicts,
        )

    def _check_newest(self, loaded: _Loaded) -> None:
        """Experiments C23 and section 0 item 6: numbers and dates of a kind of CRL only grow, also over a restart."""
        crl = loaded.crl
        kind = hashlib.sha256(b"\0".join((crl.issuer.der, crl.scope_der, bytes([crl.is_delta]), loaded.spki_sha256)))
        name = f"crl:{kind.hexdigest()}"
        at = int(crl.this_update.timestamp())
        mark = CrlMark(at if crl.number is None else crl.number, at)
        newest = self._memory.find(name)
        if newest is not None:
            if mark.number < newest.number or mark.at < newest.at:
                msg = (
                    f"CRL {crl.label} (number {crl.number}, {crl.this_update:%Y-%m-%d %H:%M:%S} UTC) is older than one"
                )
                msg = f"{msg} already seen (number {newest.number}); fetch the newest"
                raise NotTrusted(Reason.CRL_ROLLBACK, msg, crl=crl.label)
            if mark == newest:
                return
        self._memory.remember(name, mark)

    # --- asking

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """As `StatusSource.check_status`. CRL signers other than the issuer may lead to any anchor of the pool."""
        self._check(certificate, issuer, None, at, ())

    def check_path_status(self, path: ValidPath, at: datetime) -> None:
        """Every certificate of the path; CRL signers must lead to the anchor of the path (6.3.3 (f))."""
        check_every(self.check_status_in, path, at)

    def check_path_where_loaded(self, path: ValidPath, at: datetime) -> None:
        """As `check_path_status`, but a certificate of whose issuer no list at all is here passes.

        For issuers who may have nothing to say, as makers of birth certificates. Every certificate is asked about by
        itself: silence about the leaf hides nothing of the CA above it. A list that is here and does not suffice
        (reasons left out, another partition, a stale one) is no silence and refuses.
        """
        check_every(self._check_listed_in, path, at)

    def _check_listed_in(self, path: ValidPath, index: int, at: datetime) -> None:
        if self.has_crl_for(path.certificates[index]):
            self.check_status_in(path, index, at)

    def has_crl_for(self, certificate: PathCertificate) -> bool:
        """Whether any list is here by the certificate's issuer, or by another one that speaks for it."""
        return bool(self._by_issuer.get(certificate.issuer.relative_names)) or any(self._partial(certificate))

    def check_status_in(self, path: ValidPath, index: int, at: datetime) -> None:
        """As `check_path_status` for `path.certificates[index]` alone."""
        self._check(path.certificates[index], issuer_in(path, index), path.anchor, at, ())

    def _check(
        self,
        certificate: PathCertificate,
        issuer: PathCertificate,
        anchor: PathAnchor | None,
        at: datetime,
        asking: tuple[bytes, ...],
    ) -> None:
        """6.3.3 for one certificate. `asking`: the CRLs whose signers are being asked about, against circles."""
        self._refuse_revoked(certificate, issuer, anchor, at, asking)
        reasons = 0
        late: list[tuple[int, NotTrusted]] = []
        held: NotTrusted | None = None
        fault: VagusError | None = None
        # first the lists of everything, by an old and a new key alike, so that a silent one hides nothing; then,
        # where they leave reasons open, the partitions
        for candidates in (self._complete, self._partial):
            for loaded, covered in candidates(certificate):
                try:
                    lateness = self._find_lateness(loaded, issuer, anchor, at, asking)
                except VagusError as refusal:
                    fault = refusal
                    continue
                # (i), (j), (k)
                reason = self._find_reason(loaded, certificate, at)
                if reason is not None:
                    held = _refuse_listed(certificate, reason, lateness)
                # (l)
                if lateness is None:
                    reasons |= covered
                else:
                    late.append((covered, lateness))
            if reasons == ALL_REASONS:
                return
        if held is not None:
            raise held
        if not (self._rules.honours_no_rev_avail and excuses_missing_status(certificate)):
            raise _silence(certificate, reasons, late, fault)

    def _refuse_revoked(
        self,
        certificate: PathCertificate,
        issuer: PathCertificate,
        anchor: PathAnchor | None,
        at: datetime,
        asking: tuple[bytes, ...],
    ) -> None:
        """Raises NotTrusted(REVOKED) where a list that speaks for the certificate names it as revoked for ever.

        Of any kind and age, and of a delta whatever base it builds on: date, base and covered reasons are asked of
        lists that are to say that a certificate is good.
        """
        for loaded in self._near(certificate):
            reason = loaded.crl.find_reason(certificate.issuer, certificate.serial_octets)
            if reason is None or reason in _PASSING or not self._speaks(loaded.crl, certificate):
                continue
            try:
                self._check_signer(loaded, issuer, anchor, at, asking)
            except VagusError as refusal:
                if refusal.reason is not Reason.STATUS_STALE:
                    continue
            raise _revoked(certificate, reason)

    def _near(self, certificate: PathCertificate) -> Iterator[_Loaded]:
        """The lists of its issuer and of those whom its distribution points name, whatever their scope."""
        issuers = {certificate.issuer.relative_names: None}
        with suppress(Malformed):  # what cannot be read names nobody
            for point in distribution_points(certificate):
                if point.crl_issuer is not None:
                    issuers |= dict.fromkeys(name.relative_names for name in point.crl_issuer.directories)
        for issuer in issuers:
            for loaded in self._by_issuer.get(issuer, ()):
                if self._rules.uses_deltas or not loaded.crl.is_delta:
                    yield loaded

    def _speaks(self, crl: Crl, certificate: PathCertificate) -> bool:
        """Whether the certificate lies in the list's scope, by way of any of its points, whatever the reasons."""
        if crl.scope is EVERYTHING:
            return crl.issuer.matches(certificate.issuer)
        if crl.scope.is_indirect and not self._rules.accepts_indirect:
            return False
        return any(speaks_for(crl, point, certificate) for point in distribution_points(certificate))

    def _complete(self, certificate: PathCertificate) -> list[tuple[_Loaded, int]]:
        """The lists that cover all that the issuer issues; they need no distribution point (see `ANYWHERE`)."""
        of_issuer = self._by_issuer.get(certificate.issuer.relative_names, ())
        return [
            (loaded, ALL_REASONS)
            for loaded in of_issuer
            if loaded.crl.scope is EVERYTHING and loaded.crl.base_number is None
        ]

    def _partial(self, certificate: PathCertificate) -> Iterator[tuple[_Loaded, int]]:
        """(a) to (e): the partitions and indirect lists that speak for the certificate, with the reasons they cover."""
        for point in distribution_points(certificate):
            issuers = point.crl_issuer.directories if point.crl_issuer is not None else (certificate.issuer,)
            for issuer in issuers:
                for loaded in self._by_issuer.get(issuer.relative_names, ()):
                    crl = loaded.crl
                    if crl.is_delta or crl.scope is EVERYTHING:
                        continue
                    if crl.scope.is_indirect and not self._rules.accepts_indirect:
                        continue
                    if speaks_for(crl, point, certificate):
                        yield loaded, covered_reasons(crl, point)

    def _check_signer(
        self,
        loaded: _Loaded,
        issuer: PathCertificate,
        anchor: PathAnchor | None,
        at: datetime,
        asking: tuple[bytes, ...],
    ) -> None:
        """(f): the key of the issuer itself, the anchor's, or one whose own path holds and leads to the same anchor."""
        if issuer.spki_sha256 == loaded.spki_sha256 and issuer.subject.matches(loaded.crl.issuer):
            # the path of the issuer is what the caller has just validated
            if issuer.key_usage is not None and not issuer.key_usage & ext.UsageBit.CRL_SIGN:
                msg = f"certificate {issuer.label} signed CRL {loaded.crl.label}, but its keyUsage lacks cRLSign"
                raise NotTrusted(Reason.KEY_USAGE, msg, certificate=issuer.label)
            return
        if anchor is not None and anchor.spki_sha256 == loaded.spki_sha256:
            return
        fault: VagusError | None = None
        for signer in loaded.signers:
            try:
                self._check_separate_signer(signer, loaded.crl, anchor, at, asking)
            except VagusError as refusal:
                fault = refusal
            else:
                return
        if fault is not None:
            raise fault

    def _check_separate_signer(
        self, signer: PathCertificate, crl: Crl, anchor: PathAnchor | None, at: datetime, asking: tuple[bytes, ...]
    ) -> None:
        is_anchor = any(other.certificate == signer for other in self._pool.anchors_named(signer.subject))
        path = None if is_anchor else find_path(signer, self._search(at))
        led_to = signer.spki_sha256 if path is None else path.anchor.spki_sha256
        if anchor is not None and led_to != anchor.spki_sha256:
            msg = f"CRL {crl.label} leads to another anchor than the certificate it speaks for; load the right one"
            raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)
        if path is None:
            return
        if crl.sha256 in asking:
            # a list signed by this very key is where a new key's status stands (PKITS 4.5): it closes the circle
            if self._rules.lets_keys_vouch:
                return
            msg = f"CRL {crl.label} is signed with the key that it is to vouch for; load a list by the key that"
            msg = f"{msg} certified it"
            raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, crl=crl.label)
        if len(asking) >= _DEEPEST:
            msg = f"CRL {crl.label} needs a chain of more than {_DEEPEST} CRL signers; publish simpler lists"
            raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg, crl=crl.label)
        for index, certificate in enumerate(path.certificates):
            try:
                self._check(certificate, issuer_in(path, index), path.anchor, at, (*asking, crl.sha256))
            except NotTrusted as refusal:
                if refusal.reason not in DEFINITE:
                    raise
                # said of the list: of the certificate that was asked about nothing is known
                msg = f"CRL {crl.label} does not count: its signer's {refusal.message}"
                raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label, cause=refusal.reason) from refusal

    def _find_lateness(
        self,
        loaded: _Loaded,
        issuer: PathCertificate,
        anchor: PathAnchor | None,
        at: datetime,
        asking: tuple[bytes, ...],
    ) -> NotTrusted | None:
        """None where list and signer hold, STATUS_STALE where one is only out of date; every other fault is raised."""
        lateness = self._staleness(loaded.crl, at)
        try:
            self._check_signer(loaded, issuer, anchor, at, asking)
        except NotTrusted as refusal:
            if refusal.reason is not Reason.STATUS_STALE:
                raise
            if lateness is None or _stale_seconds(lateness) < _stale_seconds(refusal):
                return refusal
        return lateness

    def _check_dated(self, crl: Crl, at: datetime) -> None:
        if crl.this_update > later(at, self._rules.slack):
            msg = f"CRL {crl.label} is dated {crl.this_update:%Y-%m-%d %H:%M:%S} UTC, in the future; check the clocks"
            raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)

    def _staleness(self, crl: Crl, at: datetime) -> NotTrusted | None:
        """STATUS_STALE if the list should have been replaced. Raises NotTrusted(CRL_INVALID): its age has no bound."""
        self._check_dated(crl, at)
        ends: list[datetime] = [] if crl.next_update is None else [crl.next_update]
        if self._rules.longest_life is not None:
            ends.append(later(crl.this_update, self._rules.longest_life))
        if not ends:
            msg = f"CRL {crl.label} has no nextUpdate (RFC 5280 5.1.2.5), so its age has no bound; have one set"
            raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)
        end = min(ends)
        if at <= end:
            return None
        stale = int((at - end).total_seconds())
        msg = f"CRL {crl.label} was to be replaced by {end:%Y-%m-%d %H:%M:%S} UTC; fetch the newest"
        return NotTrusted(Reason.STATUS_STALE, msg, crl=crl.label, stale_seconds=stale)

    def _find_reason(self, loaded: _Loaded, certificate: PathCertificate, at: datetime) -> int | None:
        """The reason code under which a list and its deltas name the certificate, None if they do not."""
        reason = loaded.crl.find_reason(certificate.issuer, certificate.serial_octets)
        # (c), (h): the newest that is in date brings the list forward
        fresh = (delta for delta in self._deltas_of(loaded) if self._is_fresh(delta, at))
        newest = max(fresh, key=_number, default=None)
        change = None if newest is None else newest.find_reason(certificate.issuer, certificate.serial_octets)
        if change == REMOVE_FROM_CRL:
            # 5.3.1: only a hold (or an expired entry) is ever taken back
            return None if reason in _PASSING else reason
        return reason if change is None else change

    def _deltas_of(self, base: _Loaded) -> list[Crl]:
        """The deltas of this base by the same key, of any age."""
        if not self._rules.uses_deltas or base.crl.number is None:
            return []
        return [
            other.crl
            for other in self._by_issuer.get(base.crl.issuer.relative_names, ())
            if other.spki_sha256 == base.spki_sha256 and updates(other.crl, base.crl)
        ]

    def _is_fresh(self, crl: Crl, at: datetime) -> bool:
        try:
            return self._staleness(crl, at) is None
        except NotTrusted:
            return False

    @property
    def loaded(self) -> Sequence[Crl]:
        """The CRLs in use, for health reports."""
        return [entry.crl for entries in self._by_issuer.values() for entry in entries]


def _number(crl: Crl) -> int:
    return crl.number or 0


def _revoked(certificate: PathCertificate, reason: int) -> NotTrusted:
    msg = f"certificate {certificate.label} is revoked (reason code {reason}); replace it"
    return NotTrusted(Reason.REVOKED, msg, certificate=certificate.label, code=reason)


def _refuse_listed(certificate: PathCertificate, reason: int, lateness: NotTrusted | None) -> NotTrusted:
    """Raises NotTrusted(REVOKED), which is for ever however old the list that says so, or NotTrusted(ON_HOLD).

    A hold of a list past its date may have been lifted since: what comes back is the refusal where nobody knows better.
    """
    if reason != CERTIFICATE_HOLD:
        raise _revoked(certificate, reason)
    if lateness is None:
        msg = f"certificate {certificate.label} is on hold; release it or replace it"
        raise NotTrusted(Reason.ON_HOLD, msg, certificate=certificate.label, code=reason)
    # without `stale_seconds`, so that no grace covers it
    msg = f"certificate {certificate.label} was on hold when its issuer last spoke; fetch the newest CRL"
    return NotTrusted(Reason.STATUS_STALE, msg, certificate=certificate.label)


def _stale_seconds(refusal: NotTrusted) -> int:
    seconds = refusal.facts.get("stale_seconds")
    return seconds if isinstance(seconds, int) else 0


def _silence(
    certificate: PathCertificate, reasons: int, late: Sequence[tuple[int, NotTrusted]], fault: VagusError | None
) -> VagusError:
    """Why the lists do not suffice: stale only where those past their date would cover every reason with the rest."""
    together = reasons
    for covered, lateness in sorted(late, key=lambda one: _stale_seconds(one[1])):
        together |= covered
        if together == ALL_REASONS:
            return lateness
    if fault is not None:
        return fault
    what = "leave out some revocation reasons" if together else "do not speak of it"
    msg = f"the CRLs here {what}: certificate {certificate.label}; load its issuer's newest"
    return NotTrusted(Reason.STATUS_UNAVAILABLE, msg, certificate=certificate.label)
