"""A maker's line: birth certificates (IEEE 802.1AR IDevIDs) for devices of the plan, and the manifest for hospitals."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from vagus.errors import Conflict, Malformed
from vagus.fleet.idevid_issuance import IDevIDIssuance, LineDevice, owner_of
from vagus.fleet.manifests import MadeDevice, MadeModel, Manifest
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.operations.acts import Acts
from vagus.operations.roles import Act, check_may
from vagus.policy.plan_files import PlannedBatch
from vagus.policy.plans import MakerPlan
from vagus.reasons import Reason
from vagus.records.authorities import find_newest
from vagus.records.plan_rows import list_fingerprints, list_other_births

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vagus.authority.issuance import IssuedCertificate
    from vagus.operations.actor import Actor
    from vagus.records.engine.writer import Batch


class MakerLine(Acts):
    """What an operator may do on a maker's line."""

    def choose(
        self, actor: Actor, *, batches: Sequence[str] | None = None, serials: Sequence[str] | None = None
    ) -> list[tuple[str, str]]:
        """(model, serial) of every planned device in these batches, or of those named, in the order of the plan.

        Raises Malformed(BAD_ARGUMENT) for an unknown batch or serial, Conflict(AUTHORITY_UNKNOWN) at a hospital.
        """
        check_may(actor, Act.ISSUE_IDEVIDS)
        return _chosen(self._plan(), batches, serials)

    def issue_idevids(
        self, actor: Actor, births: Sequence[LineDevice], *, is_again: bool, advance: Callable[[int], None]
    ) -> list[IssuedCertificate]:
        """One birth certificate for each device, in order; repeated for the same keys they are the same certificates.

        A second certificate for another key is either a new board or a clone: `is_again` says that it is a new board,
        and the ledger notes it. `advance` is called with the number of new ones. Raises Conflict(ALREADY_EXISTS) and
        as `IDevIDIssuance.issue`.
        """
        check_may(actor, Act.ISSUE_IDEVIDS)
        self._check_first(births, is_again=is_again, by=actor.id)
        plan = self._plan()
        line = IDevIDIssuance(
            self.components.issuance,
            self.components.open_issuers(["line"])["line"],
            maker=plan.title,
            country=plan.country,
            hardware_type=f"{self.components.pack.arc}.4",
        )
        return line.issue(births, advance)

    def make_manifest(self, actor: Actor, *, batches: Sequence[str] | None = None) -> tuple[Manifest, int]:
        """The manifest of these batches, and how many of its devices have a birth certificate.

        Raises as `choose`, and Conflict(CEREMONY_NEEDED) before the maker's root is certified.
        """
        check_may(actor, Act.ISSUE_IDEVIDS)
        plan = self._plan()
        wanted = _chosen(plan, batches, None)
        with self.components.database.reading() as connection:
            root = find_newest(connection, "root")
            born = list_fingerprints(connection, [owner_of(number) for _, number in wanted])
        if root is None or root.certificate_der is None:
            raise Conflict(Reason.CEREMONY_NEEDED, "the maker's root has no certificate yet; run: vagus ceremony")
        made = {model for model, _ in wanted}
        manifest = Manifest(
            plan.title,
            hashlib.sha256(root.certificate_der).digest(),
            tuple(MadeModel(one.name, one.category) for one in plan.models if one.name in made),
            tuple(
                MadeDevice(model, number, fingerprint.hex() if fingerprint else None)
                for model, number in wanted
                for fingerprint in [born.get(owner_of(number))]
            ),
        )
        return manifest, len(born)

    def _plan(self) -> MakerPlan:
        plan = self.components.planning.load_adopted()
        if not isinstance(plan, MakerPlan):
            msg = "birth certificates are made in a maker's installation, not in a hospital's; use the maker's"
            raise Conflict(Reason.AUTHORITY_UNKNOWN, msg)
        return plan

    def _check_first(self, births: Sequence[LineDevice], *, is_again: bool, by: str) -> None:
        keys = {owner_of(one.serial): one.public_key.spki_sha256 for one in births}
        with self.components.database.reading() as connection:
            born = list_other_births(connection, keys)
        if not born:
            return
        if not is_again:
            serial = born[0].partition(":")[2]
            msg = (
                f"{len(born)} of these devices have a birth certificate for another key (serial {serial} among "
                "them); leave them out, or give --again where the board was replaced"
            )
            raise Conflict(Reason.ALREADY_EXISTS, msg, serial=serial)

        def note(batch: Batch) -> None:
            for owner in born:
                append(batch, OperatorAct("idevid-again", by, subject=owner, detail_sha256=keys[owner]))

        self.components.writer.submit(note).result()


def _chosen(plan: MakerPlan, names: Sequence[str] | None, serials: Sequence[str] | None) -> list[tuple[str, str]]:
    batches: dict[str, PlannedBatch] = {one.name: one for one in plan.batches}
    for name in names or ():
        if name not in batches:
            msg = f"the plan has no batch {name!r}; its batches are {', '.join(batches) or 'none'}"
            raise Malformed(Reason.BAD_ARGUMENT, msg, batch=name)
    every = [
        (one.model, number) for one in plan.batches if not names or one.name in names for number in plan.serials(one)
    ]
    if serials is None:
        return every
    unknown = set(serials) - {number for _, number in every}
    if unknown:
        msg = f"serial {min(unknown)} is in no batch of the plan; correct --serial or the plan"
        raise Malformed(Reason.BAD_ARGUMENT, msg, serial=min(unknown))
    return [(model, number) for model, number in every if number in set(serials)]
