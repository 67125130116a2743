"""The certificates of one unit and the plans that change them, for the tests of mass revocation."""

from __future__ import annotations

from typing import Any

from tests.simulator.installation import Installation
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.mass_revocation import MassRevocation
from vagus.records import certificates as rows
from vagus.records.revocation.plans import RevocationPlanRow
from vagus.records.revocation.revocations import HOLD, RELEASE, REVOKE, list_events
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

ALICE, BOB = "operator:alice", "operator:bob"


class Fleet(list[IssuedCertificate]):
    """New certificates of the ICU; its plans revoke them for `reason`."""

    def __init__(self, built: Installation, count: int, reason: RevocationReason) -> None:
        super().__init__(built.issue() for _ in range(count))
        self.built = built
        self.reasons = {
            REVOKE: reason,
            HOLD: RevocationReason.CERTIFICATE_HOLD,
            RELEASE: RevocationReason.REMOVE_FROM_CRL,
        }
        built.settle()

    @property
    def unit(self) -> Selection:
        """All that the ICU's authority issued."""
        return Selection(authority_ids=(self.built.icu.authority_id,))

    def plans(self, **extra: Any) -> MassRevocation:
        built = self.built
        return MassRevocation(built.pack, built.database, built.writer, built.clock, **extra)

    def propose(self, act: str = REVOKE, selection: Selection | None = None, **how: Any) -> RevocationPlanRow:
        """A plan of Alice for the whole unit, in one stage, unless `how` says otherwise."""
        return self.plans().propose(selection or self.unit, act, self.reasons[act], by=ALICE, **{"stages": (), **how})

    def run(self, plan: RevocationPlanRow, **how: Any) -> RevocationPlanRow:
        """Alice runs a plan's next stage."""
        return self.plans().run(plan.id, by=ALICE, **how)

    def states(self, *chosen: IssuedCertificate) -> list[str]:
        """The states of the chosen certificates, of all without a choice."""
        return [self.built.find(rows.find_by_leaf, one.leaf_index).state for one in chosen or self]

    def serials_of(self, act: str) -> list[int]:
        """The serials in the order in which the revocation sequence has them."""
        events = self.built.read(list_events, self.built.icu.authority_id, after=0)
        return [one.serial for one in events if one.act == act]
