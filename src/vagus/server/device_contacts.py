"""Notes when devices were last admitted and refused, and stores that once a minute; decides nothing.

Only proved devices are noted: those that a listener admitted, and those whose refusal names a certificate that our
anchors vouch for. A stranger proves none, so what he sends fills neither the memory here nor the table.

Threads: listeners note on the event loop, which holds `_turn` for one entry of a dict. The part's own thread takes the
whole dict in one step and waits for the database without the lock. What the database could not take is noted again,
and later contacts of the meantime stay. A process that is killed loses a minute of contacts, never a line of the
gateways' log.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from vagus.endpoints.gateway.decisions import ConnectionDecision, Outcome
from vagus.errors import VagusError
from vagus.jobs.part import Part
from vagus.jobs.periodic import Task
from vagus.records.device_contacts import Contact, save_contacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vagus.clock import Clock
    from vagus.fleet.admission import Admitted
    from vagus.records.engine.writer import Batch, Writer

_LOG = logging.getLogger(__name__)
_SECONDS: Final = 60.0
_AT_ONCE: Final = 500
"""Devices of one act: the writer commits enrolments and revocations between two of them."""
_MOST: Final = 200_000
"""Devices that are noted while the database is away; further ones are left to the gateways' log."""
_REFUSALS: Final = frozenset({Outcome.REFUSED, Outcome.CLOSED})


@dataclass(slots=True)
class DeviceContacts:
    """The contacts of this process that are not stored yet. Safe to call from several threads."""

    clock: Clock
    writer: Writer
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _noted: dict[str, Contact] = field(default_factory=dict)

    def part(self) -> Part:
        """As the server runs it, on a thread of its own: a database that is slow delays nothing else."""
        return Part("contacts", [Task("contacts", _SECONDS, self.flush, runs_first=False)], close=self.close)

    def note_seen(self, listener: str, admitted: Admitted) -> None:
        """Called for each verdict that admits, so again and again while a connection is open."""
        if admitted.device is not None:
            self._note(str(admitted.device.id), Contact(seen=(self._now(), listener)))

    def note_decision(self, decision: ConnectionDecision) -> None:
        """Note the refusal of a proved device, and that an open connection was cut off."""
        if decision.device is not None and decision.outcome in _REFUSALS and decision.reason is not None:
            refused = self._now(), decision.listener, decision.reason.value
            self._note(decision.device.partition(".")[0], Contact(refused=refused))

    def flush(self) -> float | None:
        """Store what was noted; for a periodic task. Raises what the database raises."""
        with self._turn:
            noted, self._noted = self._noted, {}
        waiting = iter(noted.items())
        while part := dict(islice(waiting, _AT_ONCE)):
            try:
                self.writer.submit(partial(_save, contacts=part)).result()
            except Exception:
                for device, contact in (*part.items(), *waiting):
                    self._note(device, contact)
                raise
        return None

    def close(self) -> None:
        """Store the last ones; without the database they are lost, and the parts that close next must not be."""
        try:
            self.flush()
        except VagusError as error:
            _LOG.error("the last contacts of devices were not stored: %s", error)

    def _now(self) -> int:
        return int(self.clock.now().timestamp())

    def _note(self, device: str, contact: Contact) -> None:
        with self._turn:
            known = self._noted.get(device)
            if known is not None:
                self._noted[device] = known.merged(contact)
            elif len(self._noted) < _MOST:
                self._noted[device] = contact


def _save(batch: Batch, contacts: Mapping[str, Contact]) -> None:
    save_contacts(batch.connection, contacts)
