"""Responds to OCSP requests for the authorities of this process, from its cache or newly signed; revokes nothing.

The values a response goes through:

- `SingleStatus` (x509/ocsp/building.py): the status of one certificate, before it is signed.
- `CachedResponse`: signed, without the responder's certificate, which a million responses share.
- `SignedResponse`: the whole OCSPResponse in DER, as a client gets it.

Why a cached response never contradicts a revocation. The follower of the revocation sequence knows a revocation before
its future resolves in this process, and within half a second in others. Three checks use it:

1. `_store` caches a response only if the follower's position is still the one from before its status was read.
2. `_forget` drops the responses of a revoked certificate, on the thread that feeds the follower.
3. `find_cached` compares a response with the follower once more, for the time before `_forget` has run.

Threads: any thread may call. `_turn` protects `_cached` together with its index `_requests_of`. `find_cached` reads
`_cached` without it: one dictionary access, and a response never changes. `_by_hash` is replaced as a whole. `_known`
is a cache that may lose entries. `_place` and `_swept` belong to the one thread that calls `presign_slice`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
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
    from vagus.records.engine.commit_facts import RevocationEvent
    from vagus.records.engine.database import Connection, Database

# thisUpdate of a cached response may lie ahead of the clock by this much: small corrections set a clock back
_AHEAD = timedelta(seconds=5)
_MOST_CACHED = 1_000_000
_MOST_KNOWN = 2_000_000
_LONGEST_CACHED_REQUEST = 300
_UNKNOWN_LASTS = timedelta(minutes=1)
"""The lifetime of "unknown": the certificate may be issued in the next second. RFC 5019 2.2.4 asks for a nextUpdate in
every response, so there is one."""
_START = (-1, -1)
"""The place before every authority and leaf index, where a sweep begins."""

SEQUENCE_BOUND = timedelta(seconds=2)
"""For how long a process may not know the newest revocation before it responds tryLater."""


@dataclass(frozen=True, slots=True)
class SignedResponse:
    """A whole OCSPResponse. `next_update` None: it must not be cached, for it has a nonce or says "unknown"."""

    response_der: bytes
    this_update: datetime
    next_update: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class CachedResponse:
    """A signed response without the responder's certificate, which all responses of an authority share.

    As long as it is valid the same object is found again, so a caller may cache what it made of it, keyed by identity.
    """

    signed: bytes = field(repr=False)
    responder: Responder
    serial: int
    entry: RevokedEntry | None
    """The certificate's entry in the revocation sequence when this was signed; None: not revoked."""
    this_update: datetime
    next_update: datetime
    renew_at: datetime

    def unfold(self) -> SignedResponse:
        """The whole response."""
        return SignedResponse(
            wrap_signed(self.signed, self.responder.certificate_der), self.this_update, self.next_update
        )


def _holds(cached: CachedResponse, at: datetime) -> bool:
    """Whether it is not due again, and not from the future: clients refuse a response that a clock ahead has dated."""
    return cached.this_update <= at + _AHEAD and at < cached.renew_at


@dataclass(eq=False, repr=False)
class OcspResponses:
    """The OCSP responses of the authorities whose responders it was given. Safe to use from several threads.

    `most_cached` bounds the cache. `sequence_bound`: after so long without the sequence it responds tryLater.
    """

    database: Database
    follower: RevocationFollower
    rules: OcspRules
    responders: InitVar[Iterable[Responder]]
    _: KW_ONLY
    most_cached: int = _MOST_CACHED
    sequence_bound: timedelta = SEQUENCE_BOUND

    def __post_init__(self, responders: Iterable[Responder]) -> None:
        self._decoder = RequestDecoder()
        self._turn = threading.Lock()
        self._cached: OrderedDict[bytes, CachedResponse] = OrderedDict()
        self._requests_of: dict[tuple[int, int], set[bytes]] = {}
        self._known: dict[tuple[int, int], None] = {}
        self._by_hash: dict[tuple[str, bytes, bytes], Responder] = {}
        # The state of the presigning sweep, for its one thread: the last (authority, leaf) done, and how many
        # certificates it has passed.
        self._place, self._swept = _START, 0
        self.take_over(responders)
        self.follower.subscribe(self._forget)

    def take_over(self, responders: Iterable[Responder], *, missing: Collection[str] = ()) -> None:
        """Use these responders from now on; called again after a responder was renewed.

        An authority whose new responder is `missing` here (by reference) keeps its present one, unless that was
        revoked: what it signs is valid as long as its certificate is.
        """
        present = {one.authority_id: one for one in self._responders()}
        chosen: dict[int, Responder] = {}
        for one in responders:
            # Keep the same Responder object where the certificate did not change: `_presign_page` compares identities,
            # so the cached responses stay current.
            same = present.get(one.authority_id)
            is_same = same is not None and same.certificate_der == one.certificate_der
            chosen[one.authority_id] = same if same is not None and is_same else one
        for authority_id, one in present.items():
            if authority_id not in chosen and one.reference in missing and not self._is_revoked(one):
                chosen[authority_id] = one
        self._by_hash = {named: one for one in chosen.values() for named in one.asked_as}

    def _is_revoked(self, responder: Responder) -> bool:
        serial = decode_certificate(responder.certificate_der).serial_number
        return self.follower.find(responder.authority_id, serial) is not None

    def is_current(self, connection: Connection) -> bool:
        """Whether each responder here is the one in the database; another process may have renewed it."""
        here = {one.authority_id: one.certificate_der for one in self._responders()}
        return here == publication_rows.list_responder_certificates(connection)

    def respond(self, request_der: bytes, at: datetime) -> SignedResponse:
        """The response to an OCSPRequest at `at`.

        Raises Malformed and LimitExceeded for what is no request, Refused(AUTHORITY_UNKNOWN) for another issuer's
        certificates, Unavailable(UNSETTLED) for an intent that is not signed yet, and Unavailable(SEQUENCE_LOST) if
        this process does not know what is revoked.
        """
        # 1. Look for a cached response to the same request, byte for byte.
        cached = self.find_cached(request_der, at)
        if cached is not None:
            return cached.unfold()
        if self.follower.is_lost(at, self.sequence_bound):
            msg = "this OCSP responder cannot read the revocation sequence, so it gives no status; ask again later"
            raise Unavailable(Reason.SEQUENCE_LOST, msg)
        # 2. Decode the OCSP request and find the responder of the issuer that it names.
        asked, nonce = self._decoder.decode(request_der)
        responder = self._find_responder(asked)
        # 3. Find the status of each certificate. The position in the revocation sequence is read before the statuses:
        # `_store` compares it with the position after signing, so a revocation in between is never hidden by a cached
        # "good".
        position = self.follower.position
        this_update = at.astimezone(UTC).replace(microsecond=0)
        next_update = self._end(responder, this_update)
        entries = [self.follower.find(responder.authority_id, one.serial) for one in asked]
        statuses = [
            self._status(responder, one, entry, this_update, next_update)
            for one, entry in zip(asked, entries, strict=True)
        ]
        # 4. Sign the response with the responder's key.
        signed = _sign(responder, statuses, this_update, nonce)
        is_new = nonce is not None or not all(one.is_known for one in statuses)
        if is_new or len(statuses) > 1:
            whole = wrap_signed(signed, responder.certificate_der)
            return SignedResponse(whole, this_update, None if is_new else next_update)
        # 5. Cache the response, unless its request is too long to be one that clients repeat.
        made = self._make(signed, responder, asked[0].serial, entries[0], this_update)
        if len(request_der) <= _LONGEST_CACHED_REQUEST:
            self._store(request_der, made, position)
        return made.unfold()

    def find_cached(self, request_der: bytes, at: datetime) -> CachedResponse | None:
        """The cached response for this request, byte for byte, if it is valid at `at`; None: call `respond`.

        It is also compared with the revocation sequence: a revocation may be known before `_forget` has run.
        """
        cached = self._cached.get(request_der)
        if cached is None or not _holds(cached, at) or self.follower.is_lost(at, self.sequence_bound):
            return None
        if self.follower.find(cached.responder.authority_id, cached.serial) != cached.entry:
            return None
        return cached

    def presign_slice(self, at: datetime) -> bool:
        """Sign and cache responses for one page of live certificates, about 0.05 s of work; whether there is more.

        Called again and again. Each certificate without a response gets one, as common clients ask for it.
        The sweep goes through the authorities by id, and through the certificates of each by leaf index. `_place` is
        the last certificate of the page before, so each call goes on after it. Between two calls the thread publishes
        CRLs and renews responders. Nothing is left out by a stop: what a slice does not reach is signed on request.
        """
        authority_id, after = self._place
        # The responders whose certificates are in date; monitoring reports the others.
        for responder in (one for one in self._responders() if one.not_before <= at.timestamp() < one.not_after):
            # Authorities before the sweep's place are done. In those after it, the sweep begins with the first
            # certificate.
            if responder.authority_id < authority_id:
                continue
            if responder.authority_id > authority_id:
                after = -1
            page = self._alive(responder, at, after)
            if page:
                self._presign_page(responder, page, at)
                self._swept += len(page)
                self._place = (responder.authority_id, page[-1].leaf_index)
                if self._swept < self.most_cached:
                    return True
                break  # stop: the cache is full, and more responses would push out those that this sweep signed
            # An empty page means that this authority is done, so the loop goes on with the next authority.
        self._place, self._swept = _START, 0
        return False

    def _responders(self) -> tuple[Responder, ...]:
        by_id = {one.authority_id: one for one in self._by_hash.values()}
        return tuple(by_id[one] for one in sorted(by_id))

    def _presign_page(
        self, responder: Responder, page: Sequence[certificate_rows.CertificateRow], at: datetime
    ) -> None:
        for row in page:
            self._know((responder.authority_id, row.serial))
            identifier = cert_id(responder.issuer_subject_der, responder.issuer_spki_der, row.serial)
            # Common clients send this request: one CertID with SHA-1 and no nonce. A response that is still current is
            # kept; one by another responder object is signed anew, because the old responder was renewed or revoked.
            cached = self._cached.get(_common_request(identifier))
            if cached is None or not _holds(cached, at) or cached.responder is not responder:
                self._presign_one(responder, row.serial, identifier, at)

    def _alive(self, responder: Responder, at: datetime, after: int) -> tuple[certificate_rows.CertificateRow, ...]:
        """One page of live certificates, read at once: no database snapshot stays open while they are signed."""
        with self.database.reading() as connection:
            return certificate_rows.list_alive(
                connection, responder.authority_id, alive_at=int(at.timestamp()), after=after
            )

    def _presign_one(self, responder: Responder, serial: int, identifier: bytes, at: datetime) -> None:
        # Read the position before the status, as in `respond`: if a revocation comes in between, `_store` drops the
        # response.
        position = self.follower.position
        this_update = at.astimezone(UTC).replace(microsecond=0)
        next_update = self._end(responder, this_update)
        entry = self.follower.find(responder.authority_id, serial)
        status = _single(identifier, entry, this_update, next_update)
        signed = _sign(responder, [status], this_update, None)
        self._store(_common_request(identifier), self._make(signed, responder, serial, entry, this_update), position)

    def _make(
        self, signed: bytes, responder: Responder, serial: int, entry: RevokedEntry | None, this_update: datetime
    ) -> CachedResponse:
        next_update = self._end(responder, this_update)
        renew_at = min(this_update + self.rules.renew_after, next_update)
        return CachedResponse(signed, responder, serial, entry, this_update, next_update, renew_at)

    def _end(self, responder: Responder, this_update: datetime) -> datetime:
        """The nextUpdate: at the latest the end of the responder's certificate, for clients accept nothing after it."""
        return min(this_update + self.rules.presigned_lifetime, _moment(responder.not_after))

    def _find_responder(self, asked: Sequence[CertId]) -> Responder:
        found = {self._by_hash.get((one.hash_name, one.name_hash, one.key_hash)) for one in asked}
        responder = found.pop()
        if responder is None or found:
            msg = "this OCSP responder does not serve the issuer in the request; ask at the OCSP URL in the certificate"
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
            soon = min(this_update + _UNKNOWN_LASTS, next_update)
            return _single(asked.der, None, this_update, soon, is_known=False)
        return _single(asked.der, entry, this_update, next_update)

    def _is_issued(self, responder: Responder, serial: int) -> bool:
        """Whether the authority issued it. Read from the database once: an issued certificate stays issued."""
        named = (responder.authority_id, serial)
        if named in self._known:
            return True
        if serial <= 0 or serial.bit_length() > 160:
            return False
        with self.database.bounded_reading() as connection:
            row = certificate_rows.find_certificate(connection, responder.authority_id, serial)
        if row is None:
            return False
        if row.state == certificate_rows.INTENDED:
            msg = f"certificate {serial:x} of {responder.reference} is being issued, so it has no status yet; ask later"
            raise Unavailable(Reason.UNSETTLED, msg)
        self._know(named)
        return True

    def _know(self, named: tuple[int, int]) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[named] = None

    def _store(self, request_der: bytes, made: CachedResponse, position: int) -> None:
        with self._turn:
            # If a revocation was committed after the status was read, the response may contradict it: it is not cached.
            # The lock makes the comparison and the insertion one step against `_forget`.
            if self.follower.position != position:
                return
            self._cached[request_der] = made
            self._cached.move_to_end(request_der)
            self._requests_of.setdefault((made.responder.authority_id, made.serial), set()).add(request_der)
            # The oldest response goes first. The index from certificate to requests shrinks with it, so that it never
            # outgrows the cache.
            while len(self._cached) > self.most_cached:
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
                # This runs on the writing thread or the poller, before the caller of a revocation gets its result. From
                # here on no cached response calls the certificate good.
                for request_der in self._requests_of.pop((event.authority_id, event.serial), ()):
                    self._cached.pop(request_der, None)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _single(
    cert_id_der: bytes,
    entry: RevokedEntry | None,
    this_update: datetime,
    next_update: datetime,
    *,
    is_known: bool = True,
) -> SingleStatus:
    return SingleStatus(
        cert_id_der=cert_id_der,
        is_known=is_known,
        revoked_at=None if entry is None else _moment(entry.at),
        reason=None if entry is None else RevocationReason(entry.reason),
        this_update=this_update,
        next_update=next_update,
    )


def _sign(responder: Responder, statuses: Sequence[SingleStatus], produced_at: datetime, nonce: bytes | None) -> bytes:
    if produced_at.timestamp() >= responder.not_after:
        msg = f"the OCSP responder certificate of {responder.reference} has expired; renew it at the authority's key"
        raise Conflict(Reason.OCSP_STALE, msg, authority=responder.reference)
    if produced_at.timestamp() < responder.not_before:
        msg = f"the OCSP responder certificate of {responder.reference} is dated by a clock that ran ahead; ask later"
        raise Unavailable(Reason.STATUS_UNAVAILABLE, msg, authority=responder.reference)
    tbs_der = build_response_tbs(statuses, responder.key_hash, produced_at, nonce)
    signature = responder.key.sign(Purpose.OCSP, tbs_der)
    return tbs_der + responder.key.algorithm.identifier_der + der.bit_string(signature)


def _common_request(identifier: bytes) -> bytes:
    """The OCSPRequest for one certificate as common clients encode it: SHA-1, no nonce, no optional field."""
    return der.sequence(der.sequence(der.sequence(der.sequence(identifier))))
