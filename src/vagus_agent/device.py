"""The device's acts over its servers: enrol, renew, send telemetry, correct the clock, refresh CRL and checkpoint.

Every act leaves the state folder working, whatever happens in the middle of it.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509

from vagus.errors import Conflict, Malformed, Misconfigured, NotAuthorised, NotTrusted, Refused, Unavailable, VagusError
from vagus.reasons import Reason
from vagus.tls import Credential as TlsCredential
from vagus.tls import Session
from vagus_agent import est
from vagus_agent.clock_floor import ClockFloor, CorrectedClock
from vagus_agent.connection import Caller, Channel
from vagus_agent.credentials import Credential, CredentialStore
from vagus_agent.crl_memory import CrlMemory, find_crl_path
from vagus_agent.est import Exchange, Token, check_answer
from vagus_agent.keys import build_request, public_key_der
from vagus_agent.log_memory import LogMemory
from vagus_agent.plain_http import PlainExchange
from vagus_agent.renewal import RenewalWindow, renewal_window
from vagus_agent.routes import Patience, Route
from vagus_agent.telemetry import TelemetrySource
from vagus_agent.verification import decode_chain, identity_of, verify_issued

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from vagus.clock import Clock, Entropy
    from vagus_agent.state import Orders, StateFolder

_HOPELESS: Final = frozenset(
    {Reason.WEAK_KEY, Reason.KEY_REUSE, Reason.KEY_BLOCKED, Reason.POP_FAILED, Reason.KEY_MISMATCH, Reason.EC_PARAMS}
)
"""Refusals of the key itself: asking again with it is useless, so it is dropped."""

_REFRESH: Final = timedelta(hours=6)
"""How old the device's knowledge of the log and of revoked servers may grow."""

TELEMETRY_PATH: Final = "/telemetry"
_NDJSON: Final = "application/x-ndjson"
_ACK_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Sent:
    """What one connection carried."""

    lines: int
    resumed: bool
    group: str | None
    version: int


class Device:
    """One device and its folder."""

    def __init__(
        self,
        folder: StateFolder,
        orders: Orders,
        *,
        system_clock: Clock,
        entropy: Entropy,
        patience: Patience | None = None,
        crash_point: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._folder = folder
        self._orders = orders
        self._relay = orders.relay
        self._entropy = entropy
        self._patience = patience or Patience()
        self._floor = ClockFloor(folder.path / "clock-floor.json")
        self.clock = CorrectedClock(system_clock)
        self.store = CredentialStore(folder.path, crash_point)
        self.log = LogMemory(folder.path / "checkpoint", orders.log_key)
        self.crls = CrlMemory(folder.path / "infrastructure.crl")
        self._callers: dict[int | None, Caller] = {}
        self._source: TelemetrySource | None = None
        self._held: Channel | None = None
        self._learned_at: datetime | None = None
        self.side_problem: str | None = None
        """What was wrong with the log or the CRL while something else succeeded."""

    # the clock of the device ------------------------------------------------------------------------------------

    def check_clock(self) -> None:
        """Raises NotTrusted(CLOCK_ROLLBACK) below the floor."""
        self._floor.check(self.clock.now())

    def settle_clock(self) -> None:
        """Make sure that dates mean something: at the floor or above, else from signed time.

        Below the floor only the enrolment listener is called, without our certificate, under the pinned anchors and
        with dates left out. Raises NotTrusted(CLOCK_ROLLBACK) where no signed time is to be had.
        """
        try:
            self.check_clock()
        except NotTrusted as wrong:
            caller = self._new_caller(None, now=lambda: None)
            try:
                with closing(caller.open(self._server())) as channel:
                    self._learn(channel)
            except (Unavailable, Refused, Malformed, Misconfigured) as error:
                msg = f"{wrong.message}. Signed time was asked for: {error.message}"
                raise NotTrusted(Reason.CLOCK_ROLLBACK, msg) from None
            self.check_clock()

    def _learn(self, channel: Channel) -> None:
        """Remember the newest checkpoint and the newest CRL; signed times lift the clock floor and correct the clock.

        Both are signed in themselves, so the status server may give what the enrolment server does not.
        """
        self._learned_at = self.clock.now()
        sources: list[Exchange] = [channel]
        if self._orders.status is not None:
            sources.append(PlainExchange(self._orders.status, self._patience))
        any(self.log.refresh(source) is not None for source in sources)
        path = find_crl_path(channel.server)
        anchors = self._folder.load_anchors()
        for source in sources if path is not None else ():
            signed_at = self.crls.refresh(source, path or "", anchors)
            if signed_at is not None:
                self._floor.raise_to(signed_at, "the newest CRL of the hospital's infrastructure authority")
                self.clock.learn(signed_at)
                break

    def _learn_on_the_way(self, channel: Channel) -> None:
        """As `_learn`, but a fault there stops no enrolment: a device must not fall silent because of a log."""
        try:
            self._learn(channel)
        except VagusError as error:
            self.side_problem = f"{error.reason}: {error.message}"

    # enrolment and renewal --------------------------------------------------------------------------------------

    def enrol(self, token: Token | None = None, *, is_forced: bool = False) -> Credential:
        """A first certificate, by the maker's certificate or a one-time token; the present one if it still holds.

        Raises Conflict(CREDENTIAL_MISSING) with neither, and what settle_clock, Caller.open, est and verify_issued
        raise. On any error the pair on disk stays as it was.
        """
        self.settle_clock()
        self.store.open()
        current = self.store.find_current()
        if current is not None and not is_forced and self.clock.now() <= current.leaf.not_valid_after_utc:
            return current
        idevid = self._folder.find_idevid()
        if token is None and idevid is None:
            msg = "this device has no enrolment credential; give --idevid-cert and --idevid-key, or --token"
            raise Conflict(Reason.CREDENTIAL_MISSING, msg)
        # A token is a credential by itself. If both are given, the maker's certificate still opens the connection.
        return self._obtain(self._caller(idevid, None), lambda ch, req: est.enrol(ch, req, token), current=None)

    def renew(self, *, is_forced: bool = False) -> Credential | None:
        """A new certificate and key by the current ones, inside the window; None outside it.

        Raises NotTrusted(EXPIRED) when it is too late, Conflict(CREDENTIAL_MISSING) before the first enrolment.
        """
        self.settle_clock()
        self.store.open()
        current = self._current()
        if not is_forced and not self.window_of(current).is_open(self.clock.now()):
            return None
        return self._obtain(self._caller_for(current), est.reenrol, current=current.leaf)

    def window_of(self, credential: Credential) -> RenewalWindow:
        """When the credential may be renewed."""
        leaf = credential.leaf
        return renewal_window(leaf.not_valid_before_utc, leaf.not_valid_after_utc)

    def _obtain(
        self,
        caller: Caller,
        ask: Callable[[Channel, bytes], tuple[bytes, ...]],
        *,
        current: x509.Certificate | None,
    ) -> Credential:
        # 1. Store the new key durably before the request leaves: if the response is lost, the same key requests again.
        pending = self.store.begin(self._orders.key_algorithm)
        request = build_request(pending.key, current)
        # 2. Over a connection whose server is verified, fetch the authorities, then send the request (RFC 7030 4.1,
        # 4.2).
        try:
            with closing(caller.open(self._server())) as channel:
                authorities = decode_chain(est.load_cacerts(channel), limit=est.MAX_AUTHORITIES)
                issued = decode_chain(ask(channel, request))
                self._learn_on_the_way(channel)
        except NotAuthorised as error:
            if error.reason in _HOPELESS:
                self.store.abandon()
            raise
        # 3. Check that the certificate is for our key, from this hospital, and valid now; only then does it replace the
        # old one.
        chain = verify_issued(
            issued,
            our_key_der=public_key_der(pending.key),
            authorities=authorities,
            current=current,
            at=self.clock.now(),
        )
        credential = self.store.complete(pending, chain)
        self.hang_up()  # close the open connection, which still uses the old certificate
        self._floor.raise_to(credential.leaf.not_valid_before_utc, "our own certificate")
        return credential

    # connections to servers -------------------------------------------------------------------------------------

    def open_relay(self, session: Session | None = None) -> tuple[Channel, Credential]:
        """A connection to the relay with our certificate.

        Raises NotTrusted(CLOCK_ROLLBACK, EXPIRED, NOT_YET_VALID) before anything is dialled, and what Caller.open does.
        """
        self.check_clock()
        self.store.open()
        current = self._current()
        if self._relay is None:
            raise Misconfigured(Reason.BAD_ARGUMENT, "no relay server is configured; give --relay name:port")
        return self._caller_for(current).open(self._relay, session), current

    def send(self, channel: Channel, lines: int) -> int:
        """Send telemetry over an open connection; the number of lines that the other side took.

        Raises NotAuthorised with the gateway's reason (HTTP), NotTrusted(TLS_HANDSHAKE) where it closes instead.
        """
        source = self._telemetry()
        body = source.lines(lines, self.clock.now())
        if channel.route.is_raw:
            return _send_raw(channel, body, lines)
        response = channel.ask("POST", TELEMETRY_PATH, headers={"Content-Type": _NDJSON}, body=body)
        if not 200 <= response.status < 300:
            check_answer(response)
        return lines

    def connect(self, lines: int, session: Session | None = None) -> tuple[Sent, Session | None]:
        """One connection that sends `lines` and ends; its success proves the certificate in use.

        A certificate that no server ever took falls back to the one before it, once.
        """
        self.hang_up()
        try:
            sent = self._begin(lines, session)
            return sent, None if self._held is None else self._held.session()
        finally:
            self.hang_up()

    def stream(self, lines: int) -> Sent:
        """Send over the connection that is held from before, else over a new one, which is held from then on."""
        held = self._held
        if held is not None and held.is_reusable:
            try:
                return _tell_sent(self.send(held, lines), held)
            except NotAuthorised:
                self.hang_up()
                raise
            except VagusError:
                pass  # the server may have closed the idle connection; a new one shows what is wrong
        self.hang_up()
        return self._begin(lines, None)

    def hang_up(self) -> None:
        """Close the connection that is held, if any."""
        if self._held is not None:
            self._held.close()
        self._held = None

    def _begin(self, lines: int, session: Session | None) -> Sent:
        try:
            return self._begin_once(lines, session)
        except Refused as refusal:
            self.hang_up()
            sent = self._begin_with_previous(lines) if self._may_blame(refusal) else None
            if sent is None:
                raise
            return sent

    def _begin_once(self, lines: int, session: Session | None) -> Sent:
        self._held, credential = self.open_relay(session)
        sent = self.send(self._held, lines)
        self.store.prove(credential)
        return _tell_sent(sent, self._held)

    def _begin_with_previous(self, lines: int) -> Sent | None:
        """Where the pair in use never worked, the one before it; it comes into use again only if it does work."""
        current, previous = self.store.find_current(), self.store.find_previous()
        if current is None or current.is_proven or previous is None or self._relay is None:
            return None
        if self.clock.now() > previous.leaf.not_valid_after_utc:
            return None
        try:
            self._held = self._caller_for(previous).open(self._relay)
            sent = self.send(self._held, lines)
        except VagusError:
            self.hang_up()
            return None
        self.store.step_back(current)
        return _tell_sent(sent, self._held)

    @staticmethod
    def _may_blame(refusal: Refused) -> bool:
        """Whether the refusal may be about our new certificate rather than about the server or the clock."""
        return isinstance(refusal, NotAuthorised) or refusal.reason is Reason.TLS_HANDSHAKE

    def refresh(self) -> None:
        """Fetch the newest checkpoint and CRL and store them. Raises IntegrityFailure where the log went back."""
        self.store.open()
        with closing(self._caller_for(self._current()).open(self._server())) as channel:
            self._learn(channel)

    def refresh_if_due(self) -> None:
        """As `refresh`, when the last time is over six hours ago; a fault is kept for the next report, not raised."""
        if self._learned_at is not None and self.clock.now() < self._learned_at + _REFRESH:
            return
        self._learned_at = self.clock.now()
        try:
            self.refresh()
        except VagusError as error:
            self.side_problem = f"{error.reason}: {error.message}"

    # parts of the commands above --------------------------------------------------------------------------------

    def _current(self) -> Credential:
        """The pair in use, valid now."""
        current = self.store.find_current()
        if current is None:
            msg = "this device has no certificate yet; run vagus-agent enrol"
            raise Conflict(Reason.CREDENTIAL_MISSING, msg)
        now = self.clock.now()
        if now > current.leaf.not_valid_after_utc:
            end = current.leaf.not_valid_after_utc.isoformat()
            msg = f"the device certificate expired on {end}; check the clock ({now.isoformat()}), then enrol again"
            raise NotTrusted(Reason.EXPIRED, msg, not_after=end)
        if now + timedelta(minutes=5) < current.leaf.not_valid_before_utc:
            begin = current.leaf.not_valid_before_utc.isoformat()
            msg = f"the device certificate is valid from {begin}, and the clock shows {now.isoformat()}; set the clock"
            raise NotTrusted(Reason.NOT_YET_VALID, msg, not_before=begin)
        return current

    def _server(self) -> Route:
        if self._orders.server is None:
            raise Misconfigured(Reason.BAD_ARGUMENT, "no enrolment server is configured; give --server name:port")
        return self._orders.server

    def _caller_for(self, credential: Credential) -> Caller:
        return self._caller(TlsCredential(credential.chain_pem, credential.key_pem), credential.generation)

    def _caller(self, credential: TlsCredential | None, generation: int | None) -> Caller:
        """The caller of a generation is reused: sessions resume within it."""
        caller = self._callers.get(generation)
        if caller is None or generation is None:
            caller = self._new_caller(credential, now=self.clock.now)
            self._callers = {generation: caller}
        return caller

    def _new_caller(self, credential: TlsCredential | None, *, now: Callable[[], datetime | None]) -> Caller:
        anchors = self._folder.load_anchors()
        return Caller(
            anchors, credential, now, self._patience, check=lambda server: self.crls.check_server(server, anchors)
        )

    def _telemetry(self) -> TelemetrySource:
        if self._source is None:
            name = identity_of(self._current().leaf).partition(".")[0]
            self._source = TelemetrySource(name, self._orders.category, self._entropy)
        return self._source


def _tell_sent(lines: int, channel: Channel) -> Sent:
    peer = channel.peer
    return Sent(lines, peer.resumed, peer.group, peer.version)


def _send_raw(channel: Channel, body: bytes, lines: int) -> int:
    """Lines over a raw relay: the upstream sends one line for each, which distinguishes a refusal from a success."""
    channel.send(body)
    acknowledged, read = 0, 0
    while acknowledged < lines:
        data = channel.receive()
        if not data:
            msg = f"relay {channel.route} closed the connection after {acknowledged} of {lines} lines, so it refuses us"
            raise NotTrusted(Reason.TLS_HANDSHAKE, msg, acknowledged=acknowledged)
        acknowledged += data.count(b"\n")
        read += len(data)
        if read > _ACK_BYTES:
            raise Malformed(
                Reason.TOO_LARGE,
                f"the relay's upstream sent over {_ACK_BYTES} bytes of acknowledgement; it is not the expected server",
            )
    return acknowledged
