"""What relying parties ask of us in OCSP: answers, signed now or kept; revokes nothing, knows no list.

A kept answer dies with the revocation that contradicts it: the follower of the sequence speaks first, within the
process before the revocation's own future resolves, elsewhere within half a second.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vagus.authority.ocsp.requests import RequestDecoder
from vagus.authority.ocsp.responders import Responder
from vagus.errors import Conflict, Refused, Unavailable
from vagus.keystore.signing import Purpose
from vagus.reasons import Reason
from vagus.records import certificates as certificate_rows
from vagus.records import publications as publication_rows
from vagus.x509 import der
from vagus.x509.crls.building import RevocationReason
from vagus.x509.library_certificates import decode_certificate
from vagus.x509.ocsp.building import SingleStatus, build_response_tbs, cert_id, wrap_signed
from vagus.x509.ocsp.messages import CertId

if TYPE_CHECKING:
    from vagus.events.revocations import RevocationFollower, RevokedEntry
    from vagus.policy.values import OcspRules
    from vagus.records.engine.database import Connection, Database
    from vagus.records.revocation.revocations import RevocationEvent

_AHEAD = timedelta(seconds=5)  # what a clock may be set back without anybody noticing
_MOST_CACHED = 1_000_000
_MOST_KNOWN = 2_000_000
_LONGEST_CACHED_REQUEST = 300
_UNKNOWN_LASTS = timedelta(minutes=1)
"""How long a client may believe that a certificate was never issued: the next second it may be. Profiles of RFC 5019
want a nextUpdate in every answer, so there is one."""
_START = (-1, -1)
"""Where a sweep begins: before every authority and leaf."""

SEQUENCE_BOUND = timedelta(seconds=2)
"""How long a process may not know the newest revocation before it answers tryLater."""


@dataclass(frozen=True, slots=True)
class SignedResponse:
    """A whole OCSPResponse. `next_update` None: nobody may keep it, it answers a nonce or tells of one not issued."""

    response_der: bytes
    this_update: datetime
    next_update: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class CachedResponse:
    """An answer without the responder's certificate, which all answers of an authority share.

    The same object is found again for as long as it holds: who makes something of it may keep that beside it.
    """

    signed: bytes = field(repr=False)
    responder: Responder
    serial: int
    entry: RevokedEntry | None
    """What the sequence said of the certificate when this was signed."""
    this_update: datetime
    next_update: datetime
    renew_at: datetime

    def unfold(self) -> SignedResponse:
        """The whole response."""
        return SignedResponse(
            wrap_signed(self.signed, self.responder.certificate_der), self.this_update, self.next_update
        )


def _holds(cached: CachedResponse, at: datetime) -> bool:
    """Not yet due again, and not signed while the clock ran ahead: clients refuse an answer from the future."""
    return cached.this_update <= at + _AHEAD and at < cached.renew_at


class OcspResponses:
    """CachedResponses for the authorities whose responders it was given. Safe to ask from several threads."""

    def __init__(
        self,
        database: Database,
        follower: RevocationFollower,
        rules: OcspRules,
        responders: Iterable[Responder],
        *,
        most_cached: int = _MOST_CACHED,
        sequence_bound: timedelta = SEQUENCE_BOUND,
    ) -> None:
        self._database = database
        self._follower = follower
        self._rules = rules
        self._most_cached = most_cached
        self._sequence_bound = sequence_bound
        self._decoder = RequestDecoder()
        self._turn = threading.Lock()
        self._cached: OrderedDict[bytes, CachedResponse] = OrderedDict()
        self._requests_of: dict[tuple[int, int], set[bytes]] = {}
        self._known: dict[tuple[int, int], None] = {}
        self._by_hash: dict[tuple[str, bytes, bytes], Responder] = {}
        self._place, self._swept = _START, 0  # of the sweep in slices
        self.take_over(responders)
        follower.subscribe(self._forget)

    def take_over(self, responders: Iterable[Responder], *, missing: Collection[str] = ()) -> None:
        """Answer with these from now on; called again after a responder was renewed.

        An authority whose new responder is `missing` here (by reference) keeps the one that it has, unless that was
        revoked: what it signs is good for as long as its certificate holds.
        """
        present = {one.authority_id: one for one in self._responders()}
        chosen: dict[int, Responder] = {}
        for one in responders:
            same = present.get(one.authority_id)  # the same object: answers that are kept go on being found as current
            is_same = same is not None and same.certificate_der == one.certificate_der
            chosen[one.authority_id] = same if same is not None and is_same else one
        for authority_id, one in present.items():
            if authority_id not in chosen and one.reference in missing and not self._is_revoked(one):
                chosen[authority_id] = one
        self._by_hash = {named: one for one in chosen.values() for named in one.asked_as}

    def _is_revoked(self, responder: Responder) -> bool:
        serial = decode_certificate(responder.certificate_der).serial_number
        return self._follower.find(responder.authority_id, serial) is not None

    def is_current(self, connection: Connection) -> bool:
        """Whether each authority's responder here is the one on record; another process may have renewed it."""
        here = {one.authority_id: one.certificate_der for one in self._responders()}
        return here == publication_rows.list_responder_certificates(connection)

    def respond(self, request_der: bytes, at: datetime) -> SignedResponse:
        """The response to an OCSPRequest at `at`.

        Raises Malformed and LimitExceeded for what is no request, Refused(AUTHORITY_UNKNOWN) for another's
        certificates, Unavailable(UNSETTLED) for an intent that is not signed yet, and Unavailable(SEQUENCE_LOST) when
        this process does not know what is revoked.
        """
        # 1. an answer that is kept, for the same question octet for octet
        cached = self.find_cached(request_der, at)
        if cached is not None:
            return cached.unfold()
        if self._follower.is_lost(at, self._sequence_bound):
            msg = "this responder lost the revocation sequence, so it answers nothing; try later"
            raise Unavailable(Reason.SEQUENCE_LOST, msg)
        # 2. the question, and who answers it
        asked, nonce = self._decoder.decode(request_der)
        responder = self._find_responder(asked)
        # 3. status of each; what the sequence says is noted before, so that nothing outlives what contradicts it
        position = self._follower.position
        this_update = at.astimezone(UTC).replace(microsecond=0)
        next_update = self._end(responder, this_update)
        entries = [self._follower.find(responder.authority_id, one.serial) for one in asked]
        answers = [
            self._status(responder, one, entry, this_update, next_update)
            for one, entry in zip(asked, entries, strict=True)
        ]
        # 4. sign
        signed = _sign(responder, answers, this_update, nonce)
        is_new = nonce is not None or not all(one.is_known for one in answers)
        if is_new or len(answers) > 1:
            whole = wrap_signed(signed, responder.certificate_der)
            return SignedResponse(whole, this_update, None if is_new else next_update)
        # 5. keep it
        made = self._make(signed, responder, asked[0].serial, entries[0], this_update)
        if len(request_der) <= _LONGEST_CACHED_REQUEST:
            self._store(request_der, made, position)
        return made.unfold()

    def find_cached(self, request_der: bytes, at: datetime) -> CachedResponse | None:
        """The answer that is kept for this question, octet for octet, and holds at `at`; None: ask `respond`.

        Besides being dropped with a revocation, each is compared with what the sequence says at this moment, so that
        none goes out between the moment when the sequence knows and the moment when whoever drops them was told.
        """
        cached = self._cached.get(request_der)
        if cached is None or not _holds(cached, at) or self._follower.is_lost(at, self._sequence_bound):
            return None
        if self._follower.find(cached.responder.authority_id, cached.serial) != cached.entry:
            return None
        return cached

    def presign(self, at: datetime, *, most: int | None = None) -> int:
        """Sign and keep an answer for every live certificate that has none, as common clients ask; how many.

        The sweep that runs in the background: about 25,000 a second on one core. `most` bounds one run.
        """
        count = 0
        limit = self._most_cached if most is None else most
        for responder in self._able(at):
            after = -1
            while count < limit and (page := self._alive(responder, at, after)):
                count += self._presign_page(responder, page, at, limit - count)
                after = page[-1].leaf_index
        return count

    def presign_slice(self, at: datetime) -> bool:
        """One page of the sweep, from where the last slice ended: about 0.05 s; whether there is more of it.

        Lists and responders get their turn in between. With more certificates than answers are kept it starts over.
        """
        authority_id, after = self._place
        for responder in self._able(at):
            if responder.authority_id < authority_id:
                continue
            if responder.authority_id > authority_id:
                after = -1
            page = self._alive(responder, at, after)
            if page:
                self._presign_page(responder, page, at, len(page))
                self._swept += len(page)
                self._place = (responder.authority_id, page[-1].leaf_index)
                if self._swept < self._most_cached:
                    return True
                break
        self._place, self._swept = _START, 0
        return False

    def _responders(self) -> tuple[Responder, ...]:
        return tuple(sorted({one.authority_id: one for one in self._by_hash.values()}.values(), key=_authority_of))

    def _able(self, at: datetime) -> Iterable[Responder]:
        """Those whose certificates are in date: the sweep goes past the others, of which whoever watches tells."""
        return (one for one in self._responders() if one.not_before <= at.timestamp() < one.not_after)

    def _presign_page(
        self, responder: Responder, page: Sequence[certificate_rows.CertificateRow], at: datetime, most: int
    ) -> int:
        count = 0
        for row in page:
            if count >= most:
                break
            self._know((responder.authority_id, row.serial))
            identifier = cert_id(responder.issuer_subject_der, responder.issuer_spki_der, row.serial)
            cached = self._cached.get(_common_request(identifier))
            if cached is None or not _holds(cached, at) or cached.responder is not responder:
                self._presign_one(responder, row.serial, identifier, at)
                count += 1
        return count

    def _alive(self, responder: Responder, at: datetime, after: int) -> tuple[certificate_rows.CertificateRow, ...]:
        """A page read at once: no snapshot stays open while answers are signed."""
        with self._database.reading() as connection:
            return certificate_rows.list_alive(
                connection, responder.authority_id, alive_at=int(at.timestamp()), after=after
            )

    def _presign_one(self, responder: Responder, serial: int, identifier: bytes, at: datetime) -> None:
        position = self._follower.position
        this_update = at.astimezone(UTC).replace(microsecond=0)
        next_update = self._end(responder, this_update)
        entry = self._follower.find(responder.authority_id, serial)
        answer = _single(identifier, entry, this_update, next_update)
        signed = _sign(responder, [answer], this_update, None)
        self._store(_common_request(identifier), self._make(signed, responder, serial, entry, this_update), position)

    def _make(
        self, signed: bytes, responder: Responder, serial: int, entry: RevokedEntry | None, this_update: datetime
    ) -> CachedResponse:
        next_update = self._end(responder, this_update)
        renew_at = min(this_update + self._rules.renew_after, next_update)
        return CachedResponse(signed, responder, serial, entry, this_update, next_update, renew_at)

    def _end(self, responder: Responder, this_update: datetime) -> datetime:
        """When an answer is no longer served: clients believe none whose responder's certificate has ended."""
        return min(this_update + self._rules.presigned_lifetime, _moment(responder.not_after))

    @property
    def cached_count(self) -> int:
        """How many answers are cached."""
        return len(self._cached)

    def _find_responder(self, asked: Sequence[CertId]) -> Responder:
        found = {self._by_hash.get((one.hash_name, one.name_hash, one.key_hash)) for one in asked}
        responder = found.pop()
        if responder is None or found:
            msg = "this responder does not speak for the issuer that was asked for; ask at the certificate's own URL"
            raise Refused(Reason.AUTHORITY_UNKNOWN, msg)
        return responder

    def _status(
        self,
        responder: Responder,
        asked: CertId,
        entry: RevokedEntry | None,
        this_update: datetime,
        next_update: datetime,
    ) -> SingleStatus:
        if entry is None and not self._is_issued(responder, asked.serial):
            return SingleStatus(
                cert_id_der=asked.der,
                is_known=False,
                revoked_at=None,
                reason=None,
                this_update=this_update,
                next_update=min(this_update + _UNKNOWN_LASTS, next_update),
            )
        return _single(asked.der, entry, this_update, next_update)

    def _is_issued(self, responder: Responder, serial: int) -> bool:
        """Whether the authority issued it: asked of the database once, for an issued certificate stays one."""
        named = (responder.authority_id, serial)
        if named in self._known:
            return True
        if serial <= 0 or serial.bit_length() > 160:
            return False
        with self._database.asking() as connection:
            row = certificate_rows.find_certificate(connection, responder.authority_id, serial)
        if row is None:
            return False
        if row.state == certificate_rows.INTENDED:
            msg = f"certificate {serial:x} of {responder.reference} is being issued; try later"
            raise Unavailable(Reason.UNSETTLED, msg)
        self._know(named)
        return True

    def _know(self, named: tuple[int, int]) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[named] = None

    def _store(self, request_der: bytes, made: CachedResponse, position: int) -> None:
        with self._turn:
            # An event that came after the status was looked up may contradict it: then nothing is cached.
            if self._follower.position != position:
                return
            self._cached[request_der] = made
            self._cached.move_to_end(request_der)
            self._requests_of.setdefault((made.responder.authority_id, made.serial), set()).add(request_der)
            while len(self._cached) > self._most_cached:
                oldest, gone = self._cached.popitem(last=False)
                self._drop_index(oldest, gone)

    def _drop_index(self, request_der: bytes, gone: CachedResponse) -> None:
        named = (gone.responder.authority_id, gone.serial)
        requests = self._requests_of.get(named)
        if requests is not None:
            requests.discard(request_der)
            if not requests:
                del self._requests_of[named]

    def _forget(self, events: Sequence[RevocationEvent]) -> None:
        with self._turn:
            for event in events:
                for request_der in self._requests_of.pop((event.authority_id, event.serial), ()):
                    self._cached.pop(request_der, None)


def _authority_of(responder: Responder) -> int:
    return responder.authority_id


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _single(
    cert_id_der: bytes, entry: RevokedEntry | None, this_update: datetime, next_update: datetime
) -> SingleStatus:
    return SingleStatus(
        cert_id_der=cert_id_der,
        is_known=True,
        revoked_at=None if entry is None else _moment(entry.at),
        reason=None if entry is None else RevocationReason(entry.reason),
        this_update=this_update,
        next_update=next_update,
    )


def _sign(responder: Responder, answers: Sequence[SingleStatus], produced_at: datetime, nonce: bytes | None) -> bytes:
    if produced_at.timestamp() >= responder.not_after:
        msg = f"the responder certificate of {responder.reference} has expired; renew it where the authority's key is"
        raise Conflict(Reason.OCSP_STALE, msg, authority=responder.reference)
    if produced_at.timestamp() < responder.not_before:
        msg = f"a clock that ran ahead made the responder certificate of {responder.reference}; another is made soon"
        raise Unavailable(Reason.STATUS_UNAVAILABLE, msg, authority=responder.reference)
    tbs_der = build_response_tbs(answers, responder.key_hash, produced_at, nonce)
    signature = responder.key.sign(Purpose.OCSP, tbs_der)
    return tbs_der + responder.key.algorithm.identifier_der + der.bit_string(signature)


def _common_request(identifier: bytes) -> bytes:
    """The OCSPRequest for one certificate as common clients encode it: SHA-1, no nonce, nothing optional."""
    return der.sequence(der.sequence(der.sequence(der.sequence(identifier))))
