"""Enrolment tokens: an operator makes one for a device; its text is shown once and stored nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.operations.acts import Acts
from vagus.operations.devices import find_named
from vagus.operations.roles import Act, check_may, check_scope

if TYPE_CHECKING:
    from datetime import timedelta

    from vagus.fleet.tokens import MadeToken
    from vagus.operations.actor import Actor


class Tokens(Acts):
    """What an operator may do with enrolment tokens."""

    def make(self, actor: Actor, device: str, *, life: timedelta | None = None, is_for_both: bool = False) -> MadeToken:
        """A token with which `device` (its id, or MODEL:SERIAL) may enrol once; `life` is the policy's if left out.

        A token `is_for_both` also gets a device with host names its server certificate, once.
        Raises as `find_named`, Malformed(BAD_ARGUMENT) for a life above 90 days, or for both uses without host names,
        Conflict(DEVICE_STATE) for a device that may not enrol.
        """
        check_may(actor, Act.MAKE_TOKEN)
        found = find_named(self.components.database, device)
        check_scope(actor, found.unit)
        return self.components.tokens.make(found.id, by=actor.id, life=life, is_for_both=is_for_both).result()
