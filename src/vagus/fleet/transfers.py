"""The second half of a transfer: a day later the old unit's certificates are revoked as superseded."""

from __future__ import annotations

from typing import Final

from vagus.authority.revocation import revoke_row
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.recover import SUPERSEDE
from vagus.records.authorities import find_by_id
from vagus.records.certificates import REVOKED, list_of_device
from vagus.records.devices import find_device
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch
from vagus.records.work import Job, add_work
from vagus.x509.crls.building import RevocationReason

KIND: Final = SUPERSEDE


def plan_superseding(connection: Connection, device_id: DeviceId, unit: UnitName, *, at: int, run_after: int) -> None:
    """Add, in the transaction of a transfer to `unit` at `at`, the job that ends certificates of other compartments.

    Each transfer has its own job: a device that comes back to the same unit must not lose its certificates to the
    first job.
    """
    add_work(connection, KIND, f"{device_id}:{unit}:{at}", run_after=run_after)


def supersede(job: Job, batch: Batch) -> int:
    """Revoke what a transfer superseded, as the last act of its job. Returns how many certificates were revoked."""
    device_text, unit_text, *moment = job.key.split(":")  # keys of jobs from older releases have no time
    device = find_device(batch.connection, DeviceId(device_text))
    count = 0
    # A device that was transferred again meanwhile has a second job with a day of its own, so this job leaves it alone.
    is_last = device is not None and (not moment or (device.transferred_at or 0) <= int(moment[0]))
    if device is not None and is_last and str(device.unit) == unit_text:
        for row in list_of_device(batch.connection, device_text, alive_at=batch.at):
            authority = find_by_id(batch.connection, row.authority_id)
            if row.state == REVOKED or authority is None or _is_present(authority.name, authority.kind, device.unit):
                continue
            revoke_row(batch, row, RevocationReason.SUPERSEDED, by="rule:transfer")
            count += 1
    return count


def _is_present(authority: str, kind: str, unit: UnitName) -> bool:
    """Whether a certificate of this authority stays valid: of the present unit, its hospital, or no compartment.

    A host name or a role in the network of another hospital would let the new owner speak for the old one.
    """
    if kind in {"sdc_ca", "infrastructure_ca"}:
        return authority.partition("/")[0] == unit.hospital
    return kind != "issuing_ca" or authority == str(unit)
