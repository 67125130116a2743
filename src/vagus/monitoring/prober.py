"""Probes published CRLs and OCSP responses: fetches them as a relying party does, and compares them with the rows.

A round fetches the certificate, each CRL and delta CRL, and sampled OCSP responses of every live authority. They are
decoded, verified with the issuer's certificate, and compared with the rows. Each defect has a reason and a URL.

The table and what is published differ for good reasons: a revocation may take `allowance` to reach a CRL and the caches
on the way. So each comparison has two moments. `settled_at` is read before the fetch and lies `allowance` in the past:
what changed before it must show, what changed after it may be shown either way. The table itself is read after the
fetch (`_Truth`): the published copy is then never newer than the table, unless the database was set back. `latest` lies
five minutes in the future: what is dated later was dated by a clock that ran ahead, at an unknown time, so it counts as
settled.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from vagus.authority.clock_bound import SLACK
from vagus.authority.crls.deltas import MOST_CHANGES
from vagus.errors import NotTrusted, VagusError
from vagus.monitoring import ocsp_probes
from vagus.monitoring.defects import Defect, as_defect
from vagus.policy.plans import AuthorityKind
from vagus.reasons import Reason
from vagus.records import certificates as certificate_rows
from vagus.records import publications as rows
from vagus.records import verifier_memory
from vagus.records.authorities import AuthorityRow, list_authorities, list_living, slug_of
from vagus.records.publications import COMPLETE, Publication
from vagus.records.revocation import revocations as revocation_rows
from vagus.records.revocation import status_facts
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crls.decoding import REMOVE_FROM_CRL, Crl, decode_crl, verify_crl
from vagus.x509.crls.scope import covers, distribution_points
from vagus.x509.signatures import SignatureVerdicts

if TYPE_CHECKING:
    from vagus.clock import Clock, Entropy
    from vagus.monitoring.http_fetch import Fetch
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Writer

_SCHEDULE_SLACK = timedelta(minutes=10)
"""A CRL is overdue this long after its schedule: a large installation signs many, one after another."""
_MOST_NAMED = 3  # how many serials one sentence of a defect names

Finding = tuple[Reason, str]
"""What is wrong at a URL that the caller knows: as `Defect`, without the place."""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """One round: how many CRLs and OCSP responses it fetched, and every defect."""

    at: datetime
    seconds: float
    crls: int
    responses: int
    defects: tuple[Defect, ...]


@dataclass(frozen=True, slots=True)
class _Truth:
    """The table right after a CRL was fetched: the serials that may be in the CRL, and those that must be.

    Sets of numbers, since a garbage collection that walks a million objects stops every thread of the process.
    """

    settled_at: int
    listed: set[int]
    expected: set[int]
    newest: Publication | rows.DeltaRow | None
    released: set[int] = field(default_factory=set)
    """What a delta CRL must take back, for relying parties that have its base."""
    is_comparable: bool = True
    """False for a delta CRL whose base is another one than the table's."""


@dataclass(slots=True)
class _Round:
    """The running counts of one round."""

    crls: int = 0
    responses: int = 0
    defects: list[Defect] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Prober:
    """Probes every authority of an installation through `fetch`, which decides what is reached: any URL, or one host.

    A revocation or a release may be missing from what is published for `allowance`: the policy's 60 s, and with
    `through_caches` the age that HTTP caches may have. With `writer` the highest number seen of each CRL is remembered,
    so that a number that falls is noticed after a restart too. Used by one thread; `stop` by another.
    """

    pack: PolicyPack
    database: Database
    clock: Clock
    entropy: Entropy
    fetch: Fetch
    _: KW_ONLY
    status_url: str
    writer: Writer | None
    through_caches: bool = True
    responses_per_authority: int = 4
    _verdicts: SignatureVerdicts = field(default_factory=SignatureVerdicts)
    _is_stopping: bool = False

    @property
    def allowance(self) -> timedelta:
        """How long a change may take until every relying party can see it."""
        return self.pack.crl.publish_within + (self.pack.ocsp.http_max_age if self.through_caches else timedelta())

    def probe(self) -> ProbeReport:
        """One round over all live authorities. Raises what the database raises; all else that is wrong is a defect."""
        begun, at = time.monotonic(), self.clock.now()
        found = _Round()
        with self.database.reading() as connection:
            authorities = list_living(connection, int(at.timestamp()))
        for row in authorities:
            if row.certificate_der is not None:
                self._probe_authority(row, decode_certificate(row.certificate_der), found)
        if self.writer is not None and found.numbers:
            self.writer.submit(
                lambda batch: verifier_memory.remember_all(batch.connection, found.numbers, batch.at)
            ).result()
        return ProbeReport(at, time.monotonic() - begun, found.crls, found.responses, tuple(found.defects))

    def is_reachable(self) -> bool:
        """Whether an HTTP server responds at the status URL, asked for the first CRL that should be there."""
        with self.database.reading() as connection:
            authorities = list_authorities(connection)
            published = next((row for row in authorities if rows.list_facts(connection, row.id)), None)
        if published is None:
            return False
        try:
            self.fetch(self.place_of(published, COMPLETE), None)
        except VagusError as error:
            return "status" in error.facts
        return True

    def stop(self) -> None:
        """End the round that runs, after the fetch that runs; from another thread."""
        self._is_stopping = True

    def place_of(self, row: AuthorityRow, shard: int, *, is_delta: bool = False) -> str:
        """The URL of a CRL, as the authority's certificates name it."""
        name = "complete" if shard == COMPLETE else str(shard)
        return f"{self.status_url}/crl/{slug_of(row.name)}/{row.generation}/{name}{'.delta' if is_delta else ''}.crl"

    def _probe_authority(self, row: AuthorityRow, issuer: PathCertificate, found: _Round) -> None:
        with self.database.reading() as connection:
            published = {one.shard: one for one in rows.list_facts(connection, row.id)}
            shards = certificate_rows.list_shards(connection, row.id)
            has_issued = status_facts.find_newest_leaf(connection, row.id) is not None
        if not published and not has_issued:
            # This authority has no live certificate whose OCSP status could be requested.
            return
        if not published:
            sentence = f"{row.reference} has never published a CRL; relying parties that need one refuse its "
            found.defects.append(Defect(Reason.STATUS_UNAVAILABLE, self.place_of(row, 0), f"{sentence}certificates"))
            return
        found.defects += self._probe_certificate(row, issuer)
        for shard in (*shards, COMPLETE):
            if self._is_stopping:
                return
            found.defects += self._probe_crl(row, issuer, shard, found, is_delta=False)
            if self._has_delta(row, shard):
                found.defects += self._probe_crl(row, issuer, shard, found, is_delta=True)
        if not AuthorityKind(row.kind).is_offline:
            found.defects += self._probe_responses(row, issuer, found)

    def _probe_certificate(self, row: AuthorityRow, issuer: PathCertificate) -> Iterator[Defect]:
        """RFC 5280 4.2.2.1: clients that lack the issuer fetch it here, and build no path without it."""
        place = f"{self.status_url}/ca/{slug_of(row.name)}/{row.generation}.cer"
        try:
            shown = self.fetch(place, None)
        except VagusError as error:
            yield as_defect(error, place)
            return
        if hashlib.sha256(shown).digest() != issuer.sha256:
            sentence = f"it is not the certificate of {row.reference}; the path or the file was mixed up"
            yield Defect(Reason.NO_PATH, place, sentence)

    # The probes of CRLs.

    def _probe_crl(
        self, row: AuthorityRow, issuer: PathCertificate, shard: int, found: _Round, *, is_delta: bool
    ) -> Iterator[Defect]:
        place, settled_at = self.place_of(row, shard, is_delta=is_delta), self._settled_at()
        try:
            crl = self._get_crl(place, issuer)
        except VagusError as error:
            yield as_defect(error, place)
            return
        found.crls += 1
        if is_delta and not crl.is_delta:
            yield Defect(Reason.CRL_SCOPE, place, "it is a complete CRL where a delta CRL is promised (RFC 5280 5.2.4)")
            return
        truth = self._read_truth(row, shard, crl, settled_at)
        has_scope = is_delta or not (shard == COMPLETE or row.is_offline)
        findings = [
            self._check_number(place, crl, truth, found),
            self._check_fresh(crl, is_offline=AuthorityKind(row.kind).is_offline and not is_delta),
            _check_scope(crl, self.place_of(row, shard) if has_scope else None),
        ]
        if truth.is_comparable or not is_delta:
            findings.append(self._check_listed(row, crl, truth))
        for reason, sentence in chain(*findings):
            yield Defect(reason, place, sentence)

    def _has_delta(self, row: AuthorityRow, shard: int) -> bool:
        with self.database.reading() as connection:
            cached = rows.find_delta(connection, row.id, shard)
        return cached is not None and cached.crl_der is not None

    def _get_crl(self, place: str, issuer: PathCertificate) -> Crl:
        crl = decode_crl(self.fetch(place, None))
        if not crl.issuer.matches(issuer.subject):
            raise NotTrusted(Reason.CRL_INVALID, "the fetched CRL is another issuer's; correct its path or file")
        verify_crl(crl, issuer, self._verdicts)
        return crl

    def _settled_at(self) -> int:
        return int((self.clock.now() - self.allowance).timestamp())

    def _latest(self) -> int:
        """A clock that ran ahead dated what is later than this: at an unknown time, so it counts as long ago."""
        return int((self.clock.now() + SLACK).timestamp())

    def _read_truth(self, row: AuthorityRow, shard: int, crl: Crl, settled_at: int) -> _Truth:
        """What must be in `crl`: revoked before, and not expired when it was made (RFC 5280 3.3)."""
        made_at, after, is_comparable = int(crl.this_update.timestamp()), 0, True
        latest = self._latest()
        listed, expected, released = set(), set(), set()
        newest: Publication | rows.DeltaRow | None
        with self.database.reading() as connection:
            newest = rows.find_facts(connection, row.id, shard)
            if crl.is_delta:
                newest = delta = rows.find_delta(connection, row.id, shard)
                is_comparable = delta is not None and delta.base_number == crl.base_number
                after = 0 if delta is None else delta.base_sequence
                changes = revocation_rows.list_changes(connection, row.id, shard, after=after, most=MOST_CHANGES)
                released = {
                    one.serial for one in changes if one.entry_der is None and not settled_at < one.at <= latest
                }
            for one in status_facts.iterate_revoked(connection, row.id, None if shard == COMPLETE else shard):
                listed.add(one.serial)
                is_settled = not settled_at < one.revoked_at <= latest
                if is_settled and one.not_after > made_at and one.sequence > after:
                    expected.add(one.serial)
        return _Truth(settled_at, listed, expected, newest, released, is_comparable)

    def _check_listed(self, row: AuthorityRow, crl: Crl, truth: _Truth) -> Iterator[Finding]:
        entries = crl.entries.get(crl.issuer.relative_names, {})
        shown = {int.from_bytes(encoded, "big") for encoded, reason in entries.items() if reason != REMOVE_FROM_CRL}
        overdue = f"older than {self.allowance} are missing from it"
        if missing := truth.expected - shown:
            yield Reason.STATUS_INCOMPLETE, f"{len(missing)} revocations {overdue}: {_some(missing)}"
        if held := truth.released - {int.from_bytes(encoded, "big") for encoded in entries}:
            effect = "relying parties with its base refuse good certificates"
            yield Reason.STATUS_UNTRUE, f"{len(held)} releases {overdue}: {_some(held)}; {effect}"
        if wrong := shown - truth.listed:
            with self.database.reading() as connection:
                wrong -= status_facts.list_released(connection, row.id, since=truth.settled_at)
        if wrong:
            yield Reason.STATUS_UNTRUE, f"{len(wrong)} certificates are in it that are not revoked: {_some(wrong)}"

    def _check_number(self, place: str, crl: Crl, truth: _Truth, found: _Round) -> Iterator[Finding]:
        """Numbers never fall, and what is handed out is what was published last."""
        if crl.number is None:
            yield Reason.CRL_INVALID, "it has no CRL number (RFC 5280 5.2.3)"
            return
        number, newest = crl.number, truth.newest
        name = f"probe:{place.removeprefix(self.status_url)}"[:120]
        with self.database.reading() as connection:
            seen = verifier_memory.find_remembered(connection, name)
        # Until this time HTTP caches may have either CRL, and another process may have remembered the newer CRL number.
        is_late = newest is None or not truth.settled_at < newest.this_update <= self._latest()
        if seen is None or seen.number <= number:
            found.numbers[name] = number
        elif is_late or newest is None or seen.number > newest.number:
            yield Reason.CRL_ROLLBACK, f"its number {number} is lower than {seen.number}, which was seen here before"
        if newest is None:
            return
        if number > newest.number:
            sentence = f"its number {number} is above {newest.number}, the newest in the table; was it restored?"
            yield Reason.CRL_ROLLBACK, sentence
        elif number < newest.number and is_late:
            sentence = f"an old CRL (number {number}) is handed out, {newest.number} was published since"
            yield Reason.STATUS_BEHIND, f"{sentence} at {_moment(newest.this_update):%Y-%m-%d %H:%M}Z"

    def _check_fresh(self, crl: Crl, *, is_offline: bool) -> Iterator[Finding]:
        now, rules = self.clock.now(), self.pack.crl
        if crl.next_update is None:
            yield Reason.CRL_INVALID, "it has no nextUpdate (RFC 5280 5.1.2.5)"
        elif now > crl.next_update:
            sentence = f"it ended at {crl.next_update:%Y-%m-%d %H:%M}Z; every certificate that it covers is refused"
            yield Reason.STATUS_STALE, sentence
        elif is_offline:
            if (left := crl.next_update - now) < rules.offline_alert:
                yield Reason.STATUS_OVERDUE, f"it ends in {left.days} days; hold a ceremony: vagus ceremony"
        elif now - crl.this_update > rules.resign_every + _SCHEDULE_SLACK:
            sentence = f"it was signed at {crl.this_update:%Y-%m-%d %H:%M}Z, policy asks for one every "
            yield Reason.STATUS_OVERDUE, f"{sentence}{rules.resign_every}; is the signing side running?"

    # The probes of OCSP responses.

    def _probe_responses(self, row: AuthorityRow, issuer: PathCertificate, found: _Round) -> Iterator[Defect]:
        place = f"{self.status_url}/ocsp"
        with self.database.reading() as connection:
            responder = rows.find_responder(connection, row.id)
            if responder is None:
                yield Defect(Reason.OCSP_RESPONDER, place, f"{row.reference} has no OCSP responder; serve it once")
                return
            sample = self._sample(connection, row)
        left = _moment(responder.not_after) - self.clock.now()
        # No OCSP responder outlives its authority, so a shorter validity than usual is right near the end.
        is_last = row.not_after is not None and responder.not_after >= row.not_after
        if left < self.pack.ocsp.responder_renew_before and not is_last:
            sentence = f"the responder of {row.reference} ends in {left}; its authority must be served to renew it"
            yield Defect(Reason.STATUS_OVERDUE, place, sentence)
        oldest = self.pack.ocsp.renew_after + self.pack.ocsp.http_max_age + _SCHEDULE_SLACK
        questions = [ocsp_probes.Question(place, issuer, one, nonce=None, oldest=oldest) for one in sample]
        questions += [replace(one, nonce=self.entropy(32)) for one in questions[:1]]
        for question in questions:
            found.responses += 1
            judge = partial(self._expect, row.id, question.certificate.serial, self._settled_at())
            defect = ocsp_probes.probe_response(question, self.fetch, judge, self.clock, self._verdicts)
            yield from () if defect is None else (defect,)
        for one in sample:
            yield from self._check_pointer(row, issuer, one)

    def _sample(self, connection: Connection, row: AuthorityRow) -> Sequence[PathCertificate]:
        """Half are the newest revocations, half are live certificates that chance picks."""
        half = max(1, self.responses_per_authority // 2)
        at = int(self.clock.now().timestamp())
        leaves = {one.leaf_index: None for one in status_facts.list_newest_revoked(connection, row.id, half)}
        newest = status_facts.find_newest_leaf(connection, row.id)
        # Choose a random place in the log, then the next live certificate from there on: one indexed query for each.
        for _ in range(half if newest is not None else 0):
            drawn = int.from_bytes(self.entropy(8), "big") % ((newest or 0) + 1)
            leaf = status_facts.find_alive_from(connection, row.id, drawn, alive_at=at)
            if leaf is not None:
                leaves[leaf] = None
        ders = (certificate_rows.load_bytes(connection, leaf)[1] for leaf in leaves)
        return [decode_certificate(der) for der in ders if der is not None]

    def _expect(self, authority_id: int, serial: int, settled_at: int) -> ocsp_probes.Expected:
        """Reads the table after the response has come, so that the table is never older than the response."""
        with self.database.reading() as connection:
            return ocsp_probes.expect(connection, authority_id, serial, settled_at=settled_at, latest=self._latest())

    def _check_pointer(
        self, row: AuthorityRow, issuer: PathCertificate, certificate: PathCertificate
    ) -> Iterator[Defect]:
        """A certificate names the URL of its CRL, and that CRL covers it, for as long as the certificate is valid."""
        with self.database.reading() as connection:
            found = certificate_rows.find_certificate(connection, row.id, certificate.serial)
        if found is None:
            return
        place = self.place_of(row, found.shard)
        named = ocsp_probes.crl_urls(certificate)
        if not named or place in named:
            return
        for url in named:
            try:
                crl = self._get_crl(url, issuer)
            except VagusError as error:
                sentence = f"certificate {certificate.label} names a CRL that cannot be had: {error.message}"
                yield Defect(Reason.CRL_SCOPE, url, sentence)
                continue
            if not any(covers(crl, point, certificate) for point in distribution_points(certificate)):
                others = " and ".join(_places(crl)) or "none"
                sentence = f"certificate {certificate.label} names this CRL, whose IssuingDistributionPoint names "
                sentence += f"{others}: it covers no such certificate, and all are refused"
                yield Defect(Reason.CRL_SCOPE, url, sentence)


def _places(crl: Crl) -> tuple[str, ...]:
    return () if crl.scope.full_name is None else crl.scope.full_name.uris


def _check_scope(crl: Crl, expected: str | None) -> Iterator[Finding]:
    """RFC 5280 5.2.5: the CRL of a shard names its URL as the certificates do; one without a scope covers all."""
    if expected is None and crl.scope_der:
        yield Reason.CRL_SCOPE, "it has an IssuingDistributionPoint and must cover everything"
    elif expected is not None and _places(crl) != (expected,):
        yield Reason.CRL_SCOPE, "its IssuingDistributionPoint does not name this URL, so it covers no certificate"


def _some(serials: set[int]) -> str:
    named = ", ".join(f"{serial:x}" for serial in sorted(serials)[:_MOST_NAMED])
    return named if len(serials) <= _MOST_NAMED else f"{named} …"


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
