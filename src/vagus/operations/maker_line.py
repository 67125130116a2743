"""A maker's line: birth certificates (IEEE 802.1AR IDevIDs) for devices of the plan, and the manifest for hospitals."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from itertools import dropwhile, islice
from typing import TYPE_CHECKING

from vagus.errors import Conflict, LimitExceeded, Malformed
from vagus.fleet.line.selection import ChosenSerials, LineSelection, PlannedSerial, owner_of, serial_of
from vagus.fleet.line.signing import IDevIDLine, model_in
from vagus.fleet.manifests import MadeDevice, MadeModel, Manifest
from vagus.fleet.revocation_targets import MOST_NAMED, RevocationTarget
from vagus.operations.acts import Acts
from vagus.operations.certificates import DeviceCertificate, describe_row
from vagus.operations.roles import Act, check_may
from vagus.policy.plans import MakerPlan
from vagus.reasons import Reason
from vagus.records.authorities import find_newest, list_authorities
from vagus.records.certificates import HELD, REVOKED, CertificateRow, list_births, list_born, load_bytes
from vagus.records.plan_rows import list_fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vagus.fleet.line.signing import LineFile, LineOutcome
    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Connection


@dataclass(frozen=True, slots=True)
class BirthCertificate:
    """A birth certificate of a device, as it is now."""

    described: DeviceCertificate
    row: CertificateRow


@dataclass(frozen=True, slots=True)
class LineDevice:
    """A device of the line with its birth certificates, oldest first: a new board has another.

    `lot` is None where no batch of the plan counts it; `model` is None where neither plan nor certificate has it.
    """

    serial: str
    model: str | None
    lot: str | None
    births: tuple[BirthCertificate, ...]

    @property
    def newest(self) -> BirthCertificate | None:
        """The certificate that was made last; None before the first."""
        return self.births[-1] if self.births else None


@dataclass(frozen=True, slots=True)
class LotCount:
    """A batch of the plan: how many of its devices are certified, and of how many the newest one is revoked or held."""

    lot: str
    model: str
    first: str
    last: str
    devices: int
    certified: int
    revoked: int
    held: int
    without_certificate: int


class MakerLine(Acts):
    """What an operator may do on a maker's line."""

    def choose(self, actor: Actor, selection: LineSelection) -> ChosenSerials:
        """The devices of the plan that are meant.

        Raises Malformed(BAD_ARGUMENT) for an unknown batch or serial, Conflict(AUTHORITY_UNKNOWN) at a hospital.
        """
        check_may(actor, Act.READ_IDEVIDS)
        return ChosenSerials(self._plan(), selection)

    def sign(
        self,
        actor: Actor,
        files: Sequence[LineFile],
        selection: LineSelection,
        *,
        is_again: bool,
        ignores_names: bool,
    ) -> Iterator[LineOutcome]:
        """Certify the devices of these files, each for itself; the outcomes come as they are made.

        A second certificate for another key is either a new board or a clone: `is_again` says that it is a new board,
        and the ledger notes it. Raises as `choose` and `IDevIDLine.sign`.
        """
        check_may(actor, Act.ISSUE_IDEVIDS)
        plan, components = self._plan(), self.components
        line = IDevIDLine(
            components.database,
            components.writer,
            components.issuance,
            components.open_issuers(["line"])["line"],
            plan,
            hardware_type=f"{components.pack.arc}.4",
        )
        chosen = ChosenSerials(plan, selection)
        return line.sign(files, chosen, is_again=is_again, ignores_names=ignores_names, by=actor.id)

    def list_devices(
        self, actor: Actor, selection: LineSelection, *, after: str | None = None, limit: int
    ) -> tuple[LineDevice, ...]:
        """The next devices after a serial number: those that are named, with or without a certificate.

        Where nothing is named, every device that the line certified. Raises as `choose`, and Malformed(BAD_ARGUMENT)
        for an `after` that is not among those named.
        """
        check_may(actor, Act.READ_IDEVIDS)
        plan = self._plan()
        with self.components.database.reading() as connection:
            if selection.is_empty:
                owners = list_born(connection, after=owner_of(after or ""), limit=limit)
                selection, after = LineSelection(serials=tuple(map(serial_of, owners))), None
            chosen = () if selection.is_empty else _choose_made(connection, plan, selection)
            named = _page(chosen, after, limit)
            return tuple(self._read(connection, named, actor))

    def count_lots(self, actor: Actor, lots: Sequence[str]) -> tuple[LotCount, ...]:
        """How far these batches of the plan are, all of them where none is named. Raises as `choose`."""
        check_may(actor, Act.READ_IDEVIDS)
        plan = self._plan()
        chosen, found = ChosenSerials(plan, LineSelection(lots=lots)), []
        with self.components.database.reading() as connection:
            for lot in chosen.lots:
                births = list_births(connection, [owner_of(one) for one in plan.serials(lot)])
                states = Counter(rows[-1].state for rows in births.values())
                first, last = plan.serial(lot, lot.first), plan.serial(lot, lot.first + lot.count - 1)
                counts = (len(births), states[REVOKED], states[HELD], lot.count - len(births))
                found.append(LotCount(lot.name, lot.model, first, last, lot.count, *counts))
        return tuple(found)

    def find_targets(self, actor: Actor, selection: LineSelection) -> tuple[RevocationTarget, int]:
        """The birth certificates of a selection as the target of a revocation plan, and how many devices have none.

        Raises as `choose`, Malformed(BAD_ARGUMENT) where nothing is named, LimitExceeded(TOO_MANY) for more than a
        thousand serial numbers that no lot names, Conflict(NOT_ISSUED) where no device has a certificate.
        """
        check_may(actor, Act.PROPOSE_REVOCATION)
        plan = self._plan()
        if selection.is_empty:
            msg = "no device is named; give --lot, --serial or --serials, or all by `vagus revoke --authority line`"
            raise Malformed(Reason.BAD_ARGUMENT, msg)
        with self.components.database.reading() as connection:
            chosen = _choose_made(connection, plan, selection)
            born = list_births(connection, [owner_of(one.serial) for one in chosen])
        without = len(chosen) - len(born)
        if not born:
            msg = "none of the devices that are named has a birth certificate, so nothing is recalled and the line goes"
            msg = f"{msg} on; take their batch out of the plan, or see `vagus maker list`"
            raise Conflict(Reason.NOT_ISSUED, msg)
        if not chosen.is_named:
            return RevocationTarget(birth_ranges=chosen.ranges), without
        if len(born) > MOST_NAMED:
            msg = f"{len(born)} devices are named, {MOST_NAMED} are allowed in one plan; name a lot, or split the list"
            raise LimitExceeded(Reason.TOO_MANY, msg, limit=MOST_NAMED, value=len(born))
        return RevocationTarget(birth_serials=tuple(map(serial_of, sorted(born)))), without

    def make_manifest(self, actor: Actor, selection: LineSelection) -> tuple[Manifest, int]:
        """The manifest of these devices, and how many of them have a birth certificate.

        Raises as `choose`, and Conflict(CEREMONY_NEEDED) before the maker's root is certified.
        """
        check_may(actor, Act.ISSUE_IDEVIDS)
        plan = self._plan()
        wanted = tuple(ChosenSerials(plan, selection))
        with self.components.database.reading() as connection:
            root = find_newest(connection, "root")
            born = list_fingerprints(connection, [owner_of(one.serial) for one in wanted])
        if root is None or root.certificate_der is None:
            raise Conflict(Reason.CEREMONY_NEEDED, "the maker's root has no certificate yet; run: vagus ceremony")
        made = {one.model for one in wanted}
        manifest = Manifest(
            plan.title,
            hashlib.sha256(root.certificate_der).digest(),
            tuple(MadeModel(one.name, one.category) for one in plan.models if one.name in made),
            tuple(
                MadeDevice(one.model, one.serial, fingerprint.hex() if fingerprint else None)
                for one in wanted
                for fingerprint in [born.get(owner_of(one.serial))]
            ),
        )
        return manifest, len(born)

    def _plan(self) -> MakerPlan:
        plan = self.components.planning.load_adopted()
        if not isinstance(plan, MakerPlan):
            msg = "birth certificates are made in a maker's installation, not in a hospital's; use the maker's"
            raise Conflict(Reason.AUTHORITY_UNKNOWN, msg)
        return plan

    def _read(self, connection: Connection, named: Sequence[PlannedSerial], actor: Actor) -> Iterable[LineDevice]:
        references = {one.id: one.reference for one in list_authorities(connection)}
        at = int(self.components.clock.now().timestamp())
        births = list_births(connection, [owner_of(one.serial) for one in named])
        for one in named:
            found = tuple(
                BirthCertificate(describe_row(connection, row, references.get(row.authority_id, "?"), actor, at), row)
                for row in births.get(owner_of(one.serial), ())
            )
            newest = found[-1].row.leaf_index if found else None
            model = one.model or (None if newest is None else model_in(load_bytes(connection, newest)[0]))
            yield LineDevice(one.serial, model, one.lot, found)


def _choose_made(connection: Connection, plan: MakerPlan, selection: LineSelection) -> ChosenSerials:
    """The devices that are meant: of the plan, or certified at some time, whatever the plan counts now."""
    named = (*selection.serials, *(one.serial for one in selection.listed))
    made = list_births(connection, [owner_of(one) for one in named])
    return ChosenSerials(plan, selection, made=frozenset(map(serial_of, made)))


def _page(chosen: Iterable[PlannedSerial], after: str | None, limit: int) -> tuple[PlannedSerial, ...]:
    every = iter(chosen)
    if after is not None:
        every = dropwhile(lambda one: one.serial != after, every)
        if next(every, None) is None:
            msg = f"--after {after[:80]!r} is none of the devices that are named; copy it from the page before"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=after[:80])
    return tuple(islice(every, limit))
