"""Counts what a mass revocation would do, before anyone approves it; writes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vagus.records import authorities as authority_rows
from vagus.records import publications
from vagus.records.revocation import revocations as revocation_rows
from vagus.records.revocation import selections

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Connection
    from vagus.records.revocation.selections import Selection

_ENTRY_BYTES = 53
"""One entry of a CRL: a serial number of 20 bytes, the time and a reason code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a plan would do.

    `list_octets`: by how many bytes all CRLs together grow. `largest_list_octets`: the size of the largest one after
    it. `ocsp_answers`: how many cached OCSP responses become invalid and are signed again when they are asked for.
    `offline`: the issuers that sign no CRL before the next ceremony, and never an OCSP response.
    `devices_without_certificate`: devices that are named, changed by the act, and none of `devices`; None where no
    devices are named. All but `approvals_needed` and `offline` are stored with the plan under these names.
    """

    certificates: int
    devices: int
    list_octets: int
    largest_list_octets: int
    ocsp_answers: int
    approvals_needed: int
    offline: tuple[str, ...] = ()
    devices_without_certificate: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """What is stored with the plan, by name."""
        found = asdict(self)
        del found["approvals_needed"], found["offline"]
        return {name: count for name, count in found.items() if count is not None}


def make_forecast(
    connection: Connection,
    pack: PolicyPack,
    selection: Selection,
    act: str,
    *,
    states: tuple[str, ...],
    at: int,
    without: Mapping[str, int] | None = None,
) -> Forecast:
    """The counts of `selection` at `at` (seconds since 1970 UTC), for certificates in one of `states`.

    `without` are the devices without a certificate, by profile.
    """
    counts = selections.count_selected(connection, selection, alive_at=at, states=states)
    approvable = counts
    # Certificates on hold now are counted too: they may be released before the plan runs, and the plan holds them then.
    if act == revocation_rows.HOLD:
        approvable = selections.count_selected(connection, selection, alive_at=at)
    entry_bytes = 0 if act == revocation_rows.RELEASE else _ENTRY_BYTES
    added: dict[tuple[int, int], int] = {}
    for one in counts:
        key = (one.authority_id, one.shard)
        added[key] = added.get(key, 0) + one.certificates * entry_bytes
    sizes = [publications.find_size(connection, *key) + more for key, more in added.items()]
    offline = {one.id: one.reference for one in authority_rows.list_authorities(connection) if one.is_offline}
    profiles = {one.profile for one in approvable} | set(without or ())
    return Forecast(
        certificates=sum(one.certificates for one in counts),
        devices=selections.count_devices(connection, selection, alive_at=at, states=states),
        list_octets=sum(added.values()),
        largest_list_octets=max(sizes, default=0),
        ocsp_answers=sum(one.certificates for one in counts if one.authority_id not in offline),
        approvals_needed=max((count_approvals(pack, one) for one in profiles), default=1),
        offline=tuple(sorted({offline[one.authority_id] for one in counts if one.authority_id in offline})),
        devices_without_certificate=None if without is None else sum(without.values()),
    )


def count_approvals(pack: PolicyPack, profile: str) -> int:
    """How many approvals the policy asks for certificates of `profile`; two for those of authorities and servers."""
    rule = pack.rules.get(profile)
    return 2 if rule is None else max(1, rule.review_approvals)
