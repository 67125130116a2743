"""A day of revocations on two servers that are killed: a simulated clock, real processes, and an oracle.

The oracle knows what every certificate is and since when. After each step it asks both servers what they serve: lists
may be a minute behind, answers not at all, numbers never fall, and nobody good is refused.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulator.installation import new_installation
from tests.simulator.publishing import first_publication
from tests.soak.revocation_server import UNIT, Killed, ServerProcess
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.records.authorities import slug_of
from vagus.testing import NOON, FrozenClock
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crls.decoding import decode_crl, verify_crl
from vagus.x509.ocsp.checks import check_response
from vagus.x509.signatures import SignatureVerdicts

LATE = 60
"""Seconds after which a revocation must be in the served list (policy: publish_within)."""
KILLS = (
    "before-commit",
    "after-commit",
    "any-instant",  # between the order and its answer
    "told",  # behind the answer
    "row-without-file",  # the new list is in the database, its file is not written
    "publishing",  # at any instant of a turn
    "starting",  # twice: behind an answer, and again at any instant of the start that follows
)
_AT_POINTS = ("before-commit", "after-commit")
_STATES = {"revoke": "revoked", "hold": "held", "release": "good"}


@dataclass
class Fate:
    """What one certificate is, and when that last changed (simulated seconds)."""

    certificate: PathCertificate
    serial: int
    state: str = "good"
    since: float = float("-inf")


@dataclass
class Days:
    """One run: `acts` acts over `hours` of simulated time, `kills` of them with a SIGKILL."""

    folder: Path
    url: str
    seed: int
    acts: int
    hours: float
    kills: int
    clock: FrozenClock = field(default_factory=FrozenClock)
    fates: dict[int, Fate] = field(default_factory=dict)
    killed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KILLS, 0))
    done: dict[str, int] = field(default_factory=lambda: {"revoke": 0, "hold": 0, "release": 0})
    undone: int = 0
    """Acts of which a kill left nothing."""
    lists_read: int = 0
    answers_read: int = 0
    worst_delay: float = 0.0

    def run(self) -> None:
        """The whole time, checked at every step."""
        self._draw = random.Random(self.seed)
        self._verdicts = SignatureVerdicts()
        self._known = {"0": b"", "complete": b""}  # SHA-256 of each list as it was last seen
        self._numbers: dict[str, int] = {}
        self._shown: dict[tuple[str, bytes], frozenset[int]] = {}
        self._bad: set[int] = set()
        self._changes: deque[tuple[float, int]] = deque()
        self._lives = 0
        with new_installation(self.folder, self.url) as built:
            first_publication(built)
        self.servers: list[ServerProcess] = []
        try:
            for _ in range(2):
                self.servers.append(self._begin_life())
            for server in self.servers:
                server.wait_ready()
            self._issuer = decode_certificate(self.servers[0].ask(self.clock.now(), "issuer"))
            self._issue(min(400, self.acts))
            self._live()
        finally:
            for server in self.servers:
                server.close()

    def _live(self) -> None:
        pause = self.hours * 3600 / self.acts
        kill_at = dict.fromkeys(self._draw.sample(range(self.acts), self.kills), "")
        for number, at in enumerate(sorted(kill_at)):
            kill_at[at] = KILLS[number % len(KILLS)]
        for number in range(self.acts):
            self._let_time_pass(self._draw.expovariate(1 / pause))
            self._act(kill_at.get(number))
        self._let_time_pass(LATE + 5)
        self._check_everything()

    # what happens

    def _begin_life(self) -> ServerProcess:
        self._lives += 1
        name = f"server-{self._lives}"
        return ServerProcess(self.folder, self.url, name, self.seed + self._lives, self.clock.now())

    def _issue(self, count: int) -> None:
        for serial, der in self._draw.choice(self.servers).ask(self.clock.now(), "issue", count):
            self.fates[serial] = Fate(decode_certificate(der), serial)

    def _act(self, kill: str | None) -> None:
        """One random act on one server, and perhaps its end."""
        at = self._draw.randrange(2)
        fate, act = self._choose()
        happened = self._try(self.servers[at], fate, act, kill)
        if kill is not None:
            self._end_life(at, kill)
            self.killed[kill] += 1
        if happened is None:  # nobody was told: the oracle looks where the servers look
            happened = self.servers[at].ask(self.clock.now(), "state", fate.serial) == _STATES[act]
            assert kill not in _AT_POINTS or happened is (kill == "after-commit")
        if happened:
            self.done[act] += 1
            fate.state, fate.since = _STATES[act], self._now
            (self._bad.discard if act == "release" else self._bad.add)(fate.serial)
            self._changes.append((fate.since, fate.serial))
        else:
            self.undone += 1
        self._ask_both("follow")
        self._check()

    def _choose(self) -> tuple[Fate, str]:
        good = [one for one in self.fates.values() if one.state == "good"]
        held = [one for one in self.fates.values() if one.state == "held"]
        if len(good) < 40:
            self._issue(200)
            return self._choose()
        act = self._draw.choices(("revoke", "hold", "release"), (5, 3, 3))[0]
        if act == "release":
            return (self._draw.choice(held), act) if held else self._choose()
        return self._draw.choice(held if act == "revoke" and held and self._draw.random() < 0.2 else good), act

    def _try(self, server: ServerProcess, fate: Fate, act: str, kill: str | None) -> bool | None:
        """Give the order; True once the server said that it is done, None where it was killed before it could."""
        server.tell(self.clock.now(), "act", act, fate.serial, kill if kill in _AT_POINTS else None)
        if kill == "any-instant":
            server.kill_within(self._draw.uniform(0, 0.02))
            return True if server.has_answered() else None
        try:
            server.answer()
        except Killed:
            assert kill in _AT_POINTS, "the server died by itself"
            return None
        assert kill not in _AT_POINTS, f"{kill} was never passed"
        return True

    def _end_life(self, at: int, kill: str) -> None:
        """Whatever is left of the process goes, and the next one stands in its place."""
        server, now = self.servers[at], self.clock.now()
        if kill == "row-without-file":
            with suppress(Killed):  # there may be nothing to publish
                server.ask(now, "turn", "after-commit")
        if kill == "publishing":
            server.tell(now, "turn")
            server.kill_within(self._draw.uniform(0, 0.03))
        server.close()
        if kill == "starting":
            begun = self._begin_life()
            begun.kill_within(self._draw.uniform(0, 2))
            begun.close()
        self.servers[at] = self._begin_life()
        self.servers[at].wait_ready()

    def _let_time_pass(self, seconds: float) -> None:
        """A second behind each change, when lists are due, and then in longer steps."""
        left = seconds
        while left > 0:
            step = min(left, 1.0 if self._recent(1) else 12.0)
            left -= step
            self.clock.advance(seconds=step)
            self._ask_both("turn")
            self._check()

    def _ask_both(self, order: str) -> None:
        """Both at once, as they would."""
        for server in self._draw.sample(self.servers, 2):
            server.tell(self.clock.now(), order)
        for server in self.servers:
            server.answer()

    # what must hold

    @property
    def _now(self) -> float:
        return (self.clock.now() - NOON).total_seconds()

    def _recent(self, seconds: float = LATE) -> frozenset[int]:
        """The serials that changed at most so long ago."""
        while self._changes and self._now - self._changes[0][0] > LATE:
            self._changes.popleft()
        return frozenset(serial for since, serial in self._changes if self._now - since <= seconds)

    def _check(self) -> None:
        chosen = [self.fates[serial] for serial in self._recent(5)]
        chosen.append(self._draw.choice(list(self.fates.values())))
        for server in self.servers:
            self._check_server(server, ("0", "complete") if self._draw.random() < 0.25 else ("0",), chosen)
        if self._draw.random() < 0.002:
            self._check_everything()

    def _check_server(self, server: ServerProcess, names: Collection[str], fates: Collection[Fate]) -> None:
        """What it hands out, against what the oracle knows."""
        known = {name: self._known[name] for name in names}
        lists, answers = server.ask(self.clock.now(), "look", known, [fate.serial for fate in fates])
        for name in names:
            if name in lists:
                self._take_list(name, lists[name])
            self._check_list(name)
        for fate, answer in zip(fates, answers, strict=True):
            self._check_answer(fate, answer)

    def _take_list(self, name: str, crl_der: bytes) -> None:
        """A list that was not the last one seen must be a newer one."""
        crl = decode_crl(crl_der)
        verify_crl(crl, self._issuer, self._verdicts)
        assert crl.number is not None
        assert crl.number > self._numbers.get(name, 0), f"the number of {name} fell to {crl.number}"
        self._numbers[name] = crl.number
        self._known[name] = hashlib.sha256(crl_der).digest()
        listed = crl.entries.get(crl.issuer.relative_names, {})
        self._shown = {each: shown for each, shown in self._shown.items() if each[0] != name}
        self._shown[name, self._known[name]] = frozenset(int.from_bytes(octets, "big") for octets in listed)
        self.lists_read += 1

    def _check_list(self, name: str) -> None:
        shown, recent = self._shown[name, self._known[name]], self._recent()
        late = self._bad - shown - recent
        assert not late, f"not listed after a minute: {[f'{one:x}' for one in late]}"
        wronged = shown - self._bad - recent
        assert not wronged, f"good and listed: {[f'{one:x}' for one in wronged]}"
        for serial in (self._bad & recent) - shown:
            self.worst_delay = max(self.worst_delay, self._now - self.fates[serial].since)

    def _check_answer(self, fate: Fate, response_der: bytes) -> None:
        """Exact to the moment: whoever is good is never refused, whoever is not never passes."""
        self.answers_read += 1
        try:
            check_response(response_der, fate.certificate, self._issuer, self.clock.now(), self._verdicts)
            said = "good"
        except NotTrusted as refusal:
            said = {Reason.REVOKED: "revoked", Reason.ON_HOLD: "held"}.get(refusal.reason, refusal.reason.value)
        assert said == fate.state, f"{fate.serial:x} is {fate.state}, OCSP says {said}"

    def _check_everything(self) -> None:
        """Every certificate at both servers, their files, and the prober's opinion of the whole."""
        for server in self.servers:
            self._check_server(server, ("0", "complete"), list(self.fates.values()))
            assert server.ask(self.clock.now(), "probe") == []
        for name, known in self._known.items():
            place = self.folder / "published" / "crl" / slug_of(UNIT) / "1" / f"{name}.crl"
            held = hashlib.sha256(place.read_bytes()).digest()
            assert held == known, "a static server would hand out another list"


@contextmanager
def told(days: Days) -> Iterator[None]:
    """Say what was done, also when it ended badly: the seed repeats it."""
    try:
        yield
    finally:
        print(  # noqa: T201  what a soak is for
            f"seed {days.seed}: {days.done}, killed {days.killed} ({days.undone} acts left nothing); "
            f"{days.lists_read} lists and {days.answers_read} answers read; "
            f"longest wait for a list {days.worst_delay:.0f} s"
        )
