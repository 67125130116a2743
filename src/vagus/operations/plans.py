"""Plans: an operator compares a plan with the installation and applies it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vagus.operations.acts import Acts
from vagus.operations.installation import adopt_policy, describe_adoption
from vagus.operations.roles import Act, check_may

if TYPE_CHECKING:
    from pathlib import Path

    from vagus.fleet.plans.planning import Advance, Applied, Comparison
    from vagus.operations.actor import Actor


class Plans(Acts):
    """What an operator may do with plans."""

    def compare(self, actor: Actor, file: Path) -> Comparison:
        """What applying the plan in `file` would change, its policy pack included. Raises as `Planning.compare`."""
        check_may(actor, Act.READ_PLAN)
        found = self.components.planning.compare(file)
        remarks = (*found.difference.remarks, *describe_adoption(self.components))
        return replace(found, difference=replace(found.difference, remarks=remarks))

    def count_steps(self, actor: Actor, found: Comparison) -> int:
        """How many steps `apply` will report."""
        check_may(actor, Act.READ_PLAN)
        return self.components.planning.steps(found)

    def apply(self, actor: Actor, found: Comparison, *, advance: Advance, with_offline: bool) -> Applied:
        """Make a compared plan true, under the policy pack in use; `advance` is called after each step.

        Without `with_offline` the keys of offline authorities are left to the ceremony. Raises as `Planning.apply`.
        """
        check_may(actor, Act.APPLY_PLAN)
        adopt_policy(self.components, actor)
        return self.components.planning.apply(found, by=actor.id, advance=advance, with_offline=with_offline)
