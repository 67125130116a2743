"""A day of revocations on two servers that crash: a simulated clock, real writers, lists and answers, and an oracle.

The oracle knows what every certificate is and since when. After each step it asks both servers what they serve: lists
may be a minute behind, answers not at all, numbers never fall, and nobody good is refused.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.authority.installation import H1, ICU, ROOT, SECRET, STATUS_URL, new_installation
from tests.server.publishing_house import question_der
from vagus.authority.answers import OcspDesk
from vagus.authority.issuance import Issuance, IssuanceOrder, IssuanceToken
from vagus.authority.issuers import open_issuers
from vagus.authority.published import PublishedLists
from vagus.authority.publishing import CrlPublisher
from vagus.authority.responders import OCSP_KEYSTORE, ResponderOffice, open_responders
from vagus.authority.revocation import Revocations
from vagus.errors import NotTrusted, Unavailable
from vagus.identifiers import DeviceId
from vagus.keystore import private_keys
from vagus.keystore.software import SoftwareKeystore
from vagus.policy.packs import load_pack
from vagus.reasons import Reason
from vagus.records import revocations as revocation_rows
from vagus.records.authorities import slug_of
from vagus.records.database import open_database
from vagus.records.publications import COMPLETE
from vagus.records.sequence import RevocationFollower
from vagus.records.writer import Writer
from vagus.server.prober import Prober
from vagus.testing import NOON, FrozenClock, SeededEntropy
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crl_building import RevocationReason
from vagus.x509.crls import decode_crl, verify_crl
from vagus.x509.keys import decode_public_key
from vagus.x509.names import SubjectFields
from vagus.x509.ocsp_checks import check_response
from vagus.x509.signatures import SignatureVerdicts

LATE = 60
"""Seconds after which a revocation must be in the served list (policy: publish_within)."""
UNIT = "h1/icu"
CRASHES = ("before-commit", "after-commit", "committed", "row-without-file")
_REASONS = (RevocationReason.KEY_COMPROMISE, RevocationReason.SUPERSEDED, RevocationReason.UNSPECIFIED)


@dataclass
class Fate:
    """What one certificate is, and when that last changed (simulated seconds)."""

    certificate: PathCertificate
    serial: int
    state: str = "good"
    since: float = float("-inf")


class Server:
    """One server's objects between two crashes."""

    def __init__(self, folder: Path, url: str, clock: FrozenClock, name: str, seed: int) -> None:
        self.kill_at: str | None = None
        self.clock = clock
        self.database = open_database(url)
        self.writer = Writer(self.database, clock, kill_points=self._pass)
        pack = load_pack()
        entropy = SeededEntropy(seed)
        with self.database.reading() as connection:
            at = int(clock.now().timestamp())
            self.issuers = open_issuers(
                connection, lambda of: _keystore(folder, of), [UNIT], status_url=STATUS_URL, at=at
            )
            responders = open_responders(connection, _keystore(folder, OCSP_KEYSTORE))
        self.issuer = self.issuers[UNIT]
        self.issuance = Issuance(pack, self.writer, clock, entropy)
        self.issuance.settle(self.issuers)
        self.revocations = Revocations(self.writer)
        self.publisher = CrlPublisher(
            pack, self.database, self.writer, clock, folder=folder / "published", holder=f"{name}-{seed}"
        )
        self.publisher.write_files(self.issuer)
        self.follower = RevocationFollower(self.database, clock)
        self.follower.follow(self.writer)
        self.desk = OcspDesk(self.database, self.follower, pack.ocsp, responders)
        self.lists = PublishedLists(self.database, self.clock)
        self.prober = Prober(
            pack, self.database, clock, entropy, self.fetch, status_url=STATUS_URL, writer=None, through_caches=False
        )

    def _pass(self, point: str) -> None:
        if point == self.kill_at:
            self.kill_at = None
            raise SystemExit  # ends the writing thread where it stands, as a kill would

    def turn(self) -> None:
        """What a serving process does by itself in a moment: follow, publish."""
        self.follower.catch_up()
        self.publisher.publish_due(self.issuer)

    def fetch(self, url: str, body: bytes | None = None) -> bytes:
        """What this server hands out."""
        if body is not None:
            return self.desk.answer(body, self.clock.now()).response_der
        slug, generation, name = url.removeprefix(f"{STATUS_URL}/crl/").split("/")
        stem, is_delta = name.removesuffix(".crl").removesuffix(".delta"), ".delta." in name
        shard = COMPLETE if stem == "complete" else int(stem)
        found = self.lists.find_list(slug.replace(".", "/"), int(generation), shard, is_delta=is_delta)
        if found is None:
            raise Unavailable(Reason.STATUS_UNAVAILABLE, f"{url}: it answers with HTTP status 404", status=404)
        return found.crl_der

    def drop(self) -> None:
        """Let go of everything; nothing is tidied up that a dead process could not tidy up."""
        self.writer.close()
        self.database.close()


@dataclass
class Days:
    """One run: `acts` acts over `hours` of simulated time, `crashes` of them with a crash."""

    folder: Path
    url: str
    seed: int
    acts: int
    hours: float
    crashes: int
    clock: FrozenClock = field(default_factory=FrozenClock)
    fates: dict[int, Fate] = field(default_factory=dict)
    crashed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CRASHES, 0))
    done: dict[str, int] = field(default_factory=lambda: {"revoke": 0, "hold": 0, "release": 0})
    lists_read: int = 0
    answers_read: int = 0
    worst_delay: float = 0.0

    def run(self) -> None:
        """The whole time, checked at every step."""
        self._draw = random.Random(self.seed)
        self._verdicts = SignatureVerdicts()
        self._numbers: dict[str, int] = {}
        self._shown: dict[tuple[str, int], frozenset[int]] = {}
        self._bad: set[int] = set()
        self._changes: deque[tuple[float, int]] = deque()
        self._lives = 0
        found_house(self.folder, self.url)
        self.servers = [self._open(name) for name in ("one", "two")]
        self._issuer = decode_certificate(self.servers[0].issuer.certificate_der)
        self._issue(min(400, self.acts))
        pause = self.hours * 3600 / self.acts
        crash_at = set(self._draw.sample(range(self.acts), self.crashes))
        try:
            for number in range(self.acts):
                self._let_time_pass(self._draw.expovariate(1 / pause))
                self._act(self._draw.choice(CRASHES) if number in crash_at else None)
            self._let_time_pass(LATE + 5)
            self._check_everything()
        finally:
            for server in self.servers:
                server.drop()

    # what happens

    def _open(self, name: str) -> Server:
        self._lives += 1
        return Server(self.folder, self.url, self.clock, name, self.seed + self._lives)

    def _issue(self, count: int) -> None:
        server = self._draw.choice(self.servers)
        orders = [order(self._draw) for _ in range(count)]
        committing = [server.issuance.commit(server.issuance.prepare(one, server.issuer)) for one in orders]
        for one in committing:
            token = one.result()
            assert isinstance(token, IssuanceToken)
            issued = server.issuance.issue(token)
            self.fates[issued.serial] = Fate(decode_certificate(issued.der), issued.serial)
        server.writer.submit(lambda _: None).result()

    def _act(self, crash: str | None) -> None:
        """One random act on one server, and perhaps its end."""
        at = self._draw.randrange(2)
        server = self.servers[at]
        fate, act = self._choose()
        if crash in {"before-commit", "after-commit"}:
            server.kill_at = crash
        told = self._try(server, fate, act)
        if crash == "row-without-file":
            server.kill_at = "after-commit"
            self._expect_death(lambda: server.publisher.publish_due(server.issuer))
        if crash is not None:
            assert told is (crash not in {"before-commit", "after-commit"})
            server.drop()
            self.servers[at] = self._open(("one", "two")[at])
            self.crashed[crash] += 1
        happened = told or self._is_done(fate, act)
        if crash == "before-commit":
            assert not happened
        if happened:
            self.done[act] += 1
            fate.state = {"revoke": "revoked", "hold": "held", "release": "good"}[act]
            fate.since = self._now
            (self._bad.discard if act == "release" else self._bad.add)(fate.serial)
            self._changes.append((fate.since, fate.serial))
        for each in self.servers:
            each.follower.catch_up()
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

    def _try(self, server: Server, fate: Fate, act: str) -> bool:
        """Whether the server said that it is done."""
        name = (server.issuer.authority_id, fate.serial)
        by = "operator:soak"
        if act == "revoke":
            future = server.revocations.revoke(*name, self._draw.choice(_REASONS), by=by)
        else:
            future = (server.revocations.hold if act == "hold" else server.revocations.release)(*name, by=by)
        try:
            future.result(60)
        except Unavailable:
            return False
        return True

    @staticmethod
    def _expect_death(act: Callable[[], object]) -> None:
        """The act may find its writer dead, or have had nothing to do."""
        with suppress(Unavailable):
            act()

    def _is_done(self, fate: Fate, act: str) -> bool:
        """What became of an act that nobody answered: the oracle looks where the next server looks."""
        server = self.servers[0]
        with server.database.reading() as connection:
            row = revocation_rows.find_revoked_serial(connection, server.issuer.authority_id, fate.serial)
        state = "good" if row is None else "held" if row.reason == RevocationReason.CERTIFICATE_HOLD else "revoked"
        return state == {"revoke": "revoked", "hold": "held", "release": "good"}[act]

    def _let_time_pass(self, seconds: float) -> None:
        """A second behind each change, when lists are due, and then in longer steps."""
        left = seconds
        while left > 0:
            step = min(left, 1.0 if self._recent(1) else 7.0)
            left -= step
            self.clock.advance(seconds=step)
            for server in self._draw.sample(self.servers, 2):
                server.turn()
            self._check()

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
            self._check_list(server, "0")
            if self._draw.random() < 0.25:
                self._check_list(server, "complete")
            for fate in chosen:
                self._check_answer(server, fate)
        if self._draw.random() < 0.002:
            self._check_everything()

    def _check_list(self, server: Server, name: str) -> None:
        crl_der = server.fetch(f"{STATUS_URL}/crl/{slug_of(UNIT)}/1/{name}.crl")
        key = (name, hash(crl_der))
        if key not in self._shown:
            crl = decode_crl(crl_der)
            verify_crl(crl, self._issuer, self._verdicts)
            assert crl.number is not None
            assert crl.number > self._numbers.get(name, 0), f"the number of {name} fell to {crl.number}"
            self._numbers[name] = crl.number
            listed = crl.entries.get(crl.issuer.relative_names, {})
            self._shown = {each: shown for each, shown in self._shown.items() if each[0] != name}
            self._shown[key] = frozenset(int.from_bytes(octets, "big") for octets in listed)
            self.lists_read += 1
        shown, recent = self._shown[key], self._recent()
        late = self._bad - shown - recent
        assert not late, f"not listed after a minute: {[f'{one:x}' for one in late]}"
        wronged = shown - self._bad - recent
        assert not wronged, f"good and listed: {[f'{one:x}' for one in wronged]}"
        for serial in (self._bad & recent) - shown:
            self.worst_delay = max(self.worst_delay, self._now - self.fates[serial].since)

    def _check_answer(self, server: Server, fate: Fate) -> None:
        """Exact to the moment: whoever is good is never refused, whoever is not never passes."""
        self.answers_read += 1
        now = self.clock.now()
        body = server.desk.answer(question_der(self._issuer, fate.serial), now).response_der
        try:
            check_response(body, fate.certificate, self._issuer, now, self._verdicts)
            said = "good"
        except NotTrusted as refusal:
            said = {Reason.REVOKED: "revoked", Reason.ON_HOLD: "held"}.get(refusal.reason, refusal.reason.value)
        assert said == fate.state, f"{fate.serial:x} is {fate.state}, OCSP says {said}"

    def _check_everything(self) -> None:
        """Every certificate at both servers, and the prober's opinion of the whole."""
        for server in self.servers:
            for fate in self.fates.values():
                self._check_answer(server, fate)
            report = server.prober.probe()
            assert report.defects == (), report.defects
        for name in ("0", "complete"):
            place = self.folder / "published" / "crl" / slug_of(UNIT) / "1" / f"{name}.crl"
            served = self.servers[0].fetch(f"{STATUS_URL}/crl/{slug_of(UNIT)}/1/{name}.crl")
            assert place.read_bytes() == served, "a static server would hand out another list"


def order(draw: random.Random) -> IssuanceOrder:
    """An order for a bedside device."""
    device = str(DeviceId.draw(draw.randbytes))
    return IssuanceOrder(
        request_id=f"soak-{draw.getrandbits(64):x}",
        profile="bedside",
        owner=f"device:{device}",
        device_id=device,
        public_key=decode_public_key(private_keys.spki_of(private_keys.generate(KeyAlgorithm.P256))),
        subject=SubjectFields("Hospital 1", "ICU", device),
        dns_names=(f"{device}.icu.h1.group.example",),
    )


def found_house(folder: Path, url: str) -> None:
    """Root, hospital and unit certified, the responder made, the first lists out."""
    with new_installation(folder, url) as built:
        built.build(ROOT, H1, ICU)
        issuer = built.issuers(UNIT)[UNIT]
        keystore = built.keystore(OCSP_KEYSTORE)
        ResponderOffice(built.database, built.writer, built.clock, built.issuance(), keystore).renew_due(issuer)
        built.publisher.publish_due(issuer)


def _keystore(folder: Path, name: str) -> SoftwareKeystore:
    return SoftwareKeystore.open(folder / "keystores" / slug_of(name), SECRET)


@contextmanager
def told(days: Days) -> Iterator[None]:
    """Say what was done, also when it ended badly: the seed repeats it."""
    try:
        yield
    finally:
        print(  # noqa: T201  what a soak is for
            f"seed {days.seed}: {days.done} with crashes {days.crashed}; {days.lists_read} lists and "
            f"{days.answers_read} answers read; longest wait for a list {days.worst_delay:.0f} s"
        )
