"""A small installation in memory: one hospital with two units, its keys on a scratch disk, its clock frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tests.simulator.databases import created_database
from tests.simulator.orders import order_for
from vagus.authority.ceremony import Ceremony, CeremonyReport
from vagus.authority.crls.publisher import CrlPublisher
from vagus.authority.hierarchy import Hierarchy
from vagus.authority.issuance import Issuance, IssuanceOrder, IssuedCertificate
from vagus.authority.issuers import Issuer, OpenIssuers, open_issuers
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal
from vagus.authority.revocation import Revocations
from vagus.events.revocations import RevocationFollower
from vagus.fleet.ca_trial import CaTrial
from vagus.identifiers import DeviceId
from vagus.keystore.envelopes import EnvelopeSealer
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.software import SoftwareKeystore
from vagus.ledger.entries import decode_entry
from vagus.policy.packs import load_pack
from vagus.policy.plans import AuthorityKind, PlannedAuthority
from vagus.policy.values import PolicyPack
from vagus.records.authorities import slug_of
from vagus.records.engine.database import Connection, Database, open_database
from vagus.records.engine.writer import Writer
from vagus.records.installation import InstallationRow, insert_installation
from vagus.records.log import iterate_leaves
from vagus.testing import FrozenClock, SeededEntropy
from vagus.x509.crls.building import RevocationReason
from vagus.x509.names.distinguished import SubjectFields

GROUP = "group.example"
STATUS_URL = "http://status.group.example"
SECRET = Passphrase("correct horse battery")
BY = "operator:tests"

ROOT = PlannedAuthority("root", AuthorityKind.ROOT, None, "Group", None, "Group Root", None, None, constrain_dn=False)
H1 = PlannedAuthority(
    "h1", AuthorityKind.DEVICE_CA, "root", "Hospital 1", None, "Hospital 1 Devices", None, f"h1.{GROUP}", False
)
ICU = PlannedAuthority(
    "h1/icu", AuthorityKind.ISSUING_CA, "h1", "Hospital 1", "ICU", "ICU Issuing CA", None, f"icu.h1.{GROUP}", False
)
ER = PlannedAuthority(
    "h1/er", AuthorityKind.ISSUING_CA, "h1", "Hospital 1", "ER", "ER Issuing CA", None, f"er.h1.{GROUP}", False
)
SDC = PlannedAuthority(
    "h1/sdc", AuthorityKind.SDC_CA, "root", "Hospital 1", "SDC", "SDC CA", None, f"h1.{GROUP}", constrain_dn=False
)
INFRA = PlannedAuthority(
    "h1/infra", AuthorityKind.INFRASTRUCTURE_CA, "root", "Hospital 1", "Infra", "Infra CA", None, None, False
)
EVERY = (ROOT, H1, ICU, ER, SDC, INFRA)

_Arguments = ParamSpec("_Arguments")
_Found = TypeVar("_Found")


@cache
def pack() -> PolicyPack:
    """The shipped policy."""
    return load_pack()


class Installation:
    """Every part of the signing side over one database."""

    def __init__(
        self, folder: Path, database: Database, clock: FrozenClock, entropy: SeededEntropy, **writer: Any
    ) -> None:
        self.folder = folder
        self.database = database
        self.clock = clock
        self.entropy = entropy
        self.pack = pack()
        self.writer = Writer(database, clock, **writer)
        self.keystores: dict[str, SoftwareKeystore] = {}
        self.opened: list[str] = []

    @classmethod
    @contextmanager
    def new(cls, folder: Path, url: str = "sqlite://") -> Iterator[Self]:
        """An installation without any authority."""
        database = open_database(url)
        database.create()
        clock, entropy = FrozenClock(), SeededEntropy(1)
        with database.writing() as connection:
            row = InstallationRow("log.group.example", int(clock.now().timestamp()), entropy(32), group_domain=GROUP)
            insert_installation(connection, row)
        new = cls(folder, database, clock, entropy)
        with new.writer:
            yield new
        database.close()

    def __repr__(self) -> str:
        return f"Installation({self.folder})"

    def keystore(self, name: str) -> SoftwareKeystore:
        """The keystore of an authority, made when there is none."""
        self.opened.append(name)
        if name not in self.keystores:
            place = self.folder / "keystores" / slug_of(name)
            if (place / "keystore.toml").exists():
                self.keystores[name] = SoftwareKeystore.open(place, SECRET)
            else:
                self.keystores[name] = SoftwareKeystore.create(place, SECRET, entropy=self.entropy, unsafe_fast=True)
        return self.keystores[name]

    @property
    def hierarchy(self) -> Hierarchy:
        trial = CaTrial(self.pack, self.database, self.clock)
        return Hierarchy(
            self.pack, self.writer, keystore_or_new=self.keystore, requests=self.folder / "requests", judge=trial.judge
        )

    def issuance(self, **extra: Any) -> Issuance:
        return Issuance(self.pack, self.writer, self.clock, self.entropy, **extra)

    @property
    def publisher(self) -> CrlPublisher:
        return self.publisher_of(None)

    def publisher_of(self, holder: str | None) -> CrlPublisher:
        """A publisher that takes leases under this name; without a name, no leases."""
        folder = self.folder / "published"
        return CrlPublisher(self.pack, self.database, self.writer, self.clock, folder=folder, holder=holder)

    def renew_responder(self, issuer: Issuer) -> bool:
        """Give the issuer a responder for OCSP, or a new one where it is due; returns whether it was."""
        keystore = self.keystore(OCSP_KEYSTORE)
        return ResponderRenewal(self.database, self.writer, self.clock, self.issuance(), keystore).renew_due(issuer)

    @property
    def revocations(self) -> Revocations:
        return Revocations(self.writer)

    def ceremony(self, *, sealed: bool = False) -> Ceremony:
        sealer = EnvelopeSealer(SECRET, entropy=self.entropy, unsafe_fast=True) if sealed else None
        return Ceremony(
            self.pack,
            self.database,
            self.writer,
            self.entropy,
            issuance=self.issuance(),
            publisher=self.publisher,
            keystore_of=self.keystore,
            status_url=STATUS_URL,
            by=BY,
            sealer=sealer,
        )

    def build(self, *planned: PlannedAuthority, sealed: bool = False) -> CeremonyReport:
        """Request every authority and hold one ceremony."""
        for one in planned or EVERY:
            self.hierarchy.request(one, by=BY)
        return self.ceremony(sealed=sealed).hold()

    def issuers(self, *names: str) -> OpenIssuers:
        at = int(self.clock.now().timestamp())
        with self.database.reading() as connection:
            return open_issuers(connection, self.keystore, names, status_url=STATUS_URL, at=at)

    @cached_property
    def units(self) -> OpenIssuers:
        """The authorities of both units, opened once."""
        return self.issuers(ICU.name, ER.name)

    @property
    def icu(self) -> Issuer:
        return self.units[ICU.name]

    @property
    def er(self) -> Issuer:
        return self.units[ER.name]

    def order(self, *, unit: str = "icu", request_id: str = "r1", **changes: Any) -> IssuanceOrder:
        """An order for a bedside device of that unit."""
        device = str(changes.pop("device", None) or DeviceId.draw(self.entropy))
        fields = {
            "subject": SubjectFields("Hospital 1", unit.upper(), device),
            "dns_names": (f"{device}.{unit}.h1.{GROUP}",),
        }
        return order_for(device, request_id, **{**fields, **changes})

    def issue(self, issuers: OpenIssuers | None = None, *, unit: str = "icu", **changes: Any) -> IssuedCertificate:
        """A certificate of a new device."""
        order = self.order(unit=unit, **{"request_id": f"r{self.entropy(6).hex()}", **changes})
        return self.issuance().issue_now(order, (issuers or self.units)[f"h1/{unit}"])

    def read(
        self,
        query: Callable[Concatenate[Connection, _Arguments], _Found],
        *args: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Found:
        """What a query of the records finds, in a reading of its own."""
        with self.database.reading() as connection:
            return query(connection, *args, **named)

    def find(
        self,
        query: Callable[Concatenate[Connection, _Arguments], _Found | None],
        *args: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Found:
        """The same for a query that must find something."""
        found = self.read(query, *args, **named)
        assert found is not None
        return found

    def revoke(self, issued: IssuedCertificate, reason: RevocationReason, by: str = BY) -> int:
        """Revoke and give the place in the sequence."""
        return self.revocations.revoke(issued.issuer.authority_id, issued.serial, reason, by=by).result()

    def hold(self, issued: IssuedCertificate, by: str = BY) -> int:
        return self.revocations.hold(issued.issuer.authority_id, issued.serial, by=by).result()

    def release(self, issued: IssuedCertificate, by: str = BY) -> int:
        return self.revocations.release(issued.issuer.authority_id, issued.serial, by=by).result()

    def entries(self, *kinds: type) -> list[Any]:
        """The entries of these kinds, or all, in the ledger, in their order."""
        with self.database.reading() as connection:
            found = [decode_entry(leaf.entry).entry for leaf in iterate_leaves(connection)]
        return [entry for entry in found if isinstance(entry, kinds or object)]

    def settle(self) -> None:
        """Wait until every act submitted so far is on the disk."""
        self.writer.submit(lambda _: None).result()

    def follower(self) -> RevocationFollower:
        """What is revoked, in step with the writer."""
        made = RevocationFollower(self.database, self.clock)
        made.follow(self.writer)
        return made

    def advance(self, **by: float) -> None:
        self.clock.advance(**by)


@contextmanager
def memory_database(**row: Any) -> Iterator[Database]:
    """A database in memory with the row of an installation and nothing else; `row` are other fields of it."""
    with created_database() as database:
        with database.writing() as connection:
            insert_installation(connection, InstallationRow("log.test", 0, bytes(32), **row))
        yield database


new_installation = Installation.new
