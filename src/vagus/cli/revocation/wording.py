"""A revocation plan in words for people and in facts for programs; asks nothing and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vagus.cli.devices import spell_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vagus.authority.mass_revocation import Forecast
    from vagus.cli.output import Row
    from vagus.records.engine.database import Connection
    from vagus.records.revocation.plans import RevocationPlanRow
    from vagus.records.revocation.selections import Selection
    from vagus.wiring import Installation
    from vagus.x509.crls.building import RevocationReason

BY_THIS, ALREADY = "by this", "already"
"""Whether the key that is named with a compromise gets blocked or was so before."""
_MOST_SPELT = 5
_BECAME = {"revoke": "revoked", "hold": "on hold", "release": "released"}


def forecast_facts(act: str, reason: RevocationReason, forecast: Forecast) -> Row:
    """What `--dry-run` shows."""
    return {
        "act": act,
        "reason": reason.spelling,
        "certificates": forecast.certificates,
        "devices": forecast.devices,
        "lists_grow_by_octets": forecast.list_octets,
        "largest_list_octets": forecast.largest_list_octets,
        "ocsp_answers_signed_anew": forecast.ocsp_answers,
        "approvals_needed": forecast.approvals_needed,
        "waits_for_ceremony": list(forecast.offline),
    }


def spell_wait(offline: Sequence[str]) -> str:
    """What a revocation by an offline authority is worth before its next list: gates here alone know of it."""
    signs = "is offline and signs" if len(offline) == 1 else "are offline and sign"
    return (
        f"in no list before `vagus ceremony`, for {_some(offline, len(offline))} {signs} none before it (or `vagus ca "
        "emergency ENVELOPE` publishes the one that the last ceremony sealed); only gates of this installation know"
    )


def spell_block(connection: Connection, selection: Selection, reason: RevocationReason) -> str | None:
    """What becomes of the key that is named, None where none is blocked: only a compromise is one of the key."""
    from vagus.records.keys import find_key

    if selection.spki_sha256 is None or not reason.is_compromise:
        return None
    known = find_key(connection, selection.spki_sha256)
    return ALREADY if known is not None and known.is_blocked else BY_THIS


def plan_facts(installation: Installation, row: RevocationPlanRow) -> Row:
    """A plan as it stands, for programs; `selection` says what the options said."""
    from vagus.x509.crls.building import RevocationReason

    reason = RevocationReason(row.reason)
    return {
        "id": row.id,
        "act": row.act,
        "reason": reason.spelling,
        "state": row.state,
        "stopped_because": row.stopped_because,
        "certificates": row.counts["certificates"],
        "devices": row.counts["devices"],
        "locks_devices_out": row.locks_out,
        "blocks_key": row.selection.spki_sha256 is not None and reason.is_compromise,
        "lists_grow_by_octets": row.counts["list_octets"],
        "largest_list_octets": row.counts["largest_list_octets"],
        "ocsp_answers_signed_anew": row.counts["ocsp_answers"],
        "done": row.done,
        "stages": list(row.stages),
        "stage": min(row.stage + 1, len(row.stages)),
        "approvals": list(row.approvals),
        "approvals_needed": row.approvals_needed,
        "made_by": row.made_by,
        "made_at": spell_time(row.made_at),
        "selection": _selection_facts(installation, row.selection),
    }


def spell_plan(installation: Installation, row: RevocationPlanRow) -> Row:
    """A plan as it stands, for people: what is selected in words."""
    facts = dict(plan_facts(installation, row))
    del facts["selection"]
    return {"plan": facts.pop("id"), "selected": spell_selection(installation, row.selection), **facts}


def spell_selection(installation: Installation, selection: Selection) -> str:
    """Which certificates: everything that is said holds for each of them."""
    named = _names(installation, selection, most=_MOST_SPELT)
    parts: list[str] = []
    if selection.leaves:
        parts.append(f"serial {_some(named.serials, len(selection.leaves))}")
    if selection.owners:
        parts.append(f"device {_some(named.devices, len(selection.owners))}")
    parts += _spell_devices(selection, named.units)
    if selection.authority_ids:
        parts.append(f"issued by {_some(named.authorities, len(named.authorities))}")
    if selection.profile is not None:
        parts.append(f"profile {selection.profile}")
    if selection.spki_sha256 is not None:
        parts.append(f"key {selection.spki_sha256.hex()}")
    if selection.issued_from is not None:
        parts.append(f"issued from {spell_time(selection.issued_from)}")
    if selection.issued_until is not None:
        parts.append(f"issued until {spell_time(selection.issued_until)}")
    return "; ".join(parts)


def _spell_devices(selection: Selection, units: Sequence[str]) -> list[str]:
    unit = f"unit {_some(units, len(units))}"
    if selection.model is not None:
        ends = f", serials {selection.first_serial} to {selection.last_serial}" if selection.first_serial else ""
        return [f"devices of model {selection.model}{ends}", *([unit] if units else [])]
    return [f"devices of {unit}" if units else "devices"] if selection.of_devices else []


def _selection_facts(installation: Installation, selection: Selection) -> Row:
    """Each way of naming by itself, with names as the options take them; what was not given is empty or null."""
    named = _names(installation, selection, most=len(selection.leaves))
    key, since, until = selection.spki_sha256, selection.issued_from, selection.issued_until
    return {
        "serials": named.serials,
        "devices": named.devices,
        "units": named.units,
        "authorities": named.authorities,
        "model": selection.model,
        "first_serial": selection.first_serial,
        "last_serial": selection.last_serial,
        "key_sha256": None if key is None else key.hex(),
        "profile": selection.profile,
        "issued_from": None if since is None else spell_time(since),
        "issued_until": None if until is None else spell_time(until),
    }


class _Names(NamedTuple):
    serials: list[str]
    devices: list[str]
    units: list[str]
    authorities: list[str]


def _names(installation: Installation, selection: Selection, *, most: int) -> _Names:
    """What a selection keeps as numbers, as people write it; of serials only the first, each is a look."""
    from vagus.records.authorities import list_authorities
    from vagus.records.certificates import find_by_leaf

    with installation.database.reading() as connection:
        known = {one.id: one for one in list_authorities(connection)}
        found = [find_by_leaf(connection, leaf) for leaf in selection.leaves[:most]]
    issuers = [known[one] for one in selection.authority_ids if one in known]
    units = {one.name for one in issuers if one.kind == "issuing_ca"} if selection.of_devices else set()
    return _Names(
        serials=[f"{known[one.authority_id].reference}:{one.serial:x}" for one in found if one is not None],
        devices=[one.removeprefix("device:") for one in selection.owners],
        units=sorted(units),
        authorities=[one.reference for one in issuers],
    )


def _some(texts: Sequence[str], count: int) -> str:
    shown = ", ".join(texts[:_MOST_SPELT])
    return shown if count <= _MOST_SPELT else f"{shown} and {count - _MOST_SPELT:,} more"


def question(act: str, forecast: Forecast, percents: Sequence[int], *, locks_out: bool, blocks_key: bool) -> str:
    """What happens after a yes: an act at once where one approval is enough, otherwise a proposal."""
    from vagus.records.revocation.revocations import HOLD, RELEASE

    if not forecast.certificates:
        return "Block the key for good? No certificate that lives is for it."
    what = _count(forecast.certificates, "certificate")
    if forecast.devices:
        what += f" of {_count(forecast.devices, 'device')}"
    verb = {HOLD: "suspend", RELEASE: "end the holds on"}.get(act, "revoke")
    more = " and lock the devices out" if locks_out else ""
    wait = f" Then it is {spell_wait(forecast.offline)}." if forecast.offline else ""
    if forecast.approvals_needed > 1:
        begins, rest = ("Block the key at once and propose", "else ") if blocks_key else ("Propose", "")
        return (
            f"{begins} to {verb} {what}{more}? Nothing {rest}happens before {forecast.approvals_needed} persons "
            f"have approved, you among them.{wait}"
        )
    more += " and block the key" if blocks_key else ""
    how = ", for good" if act not in {HOLD, RELEASE} else ""
    if percents and forecast.certificates > 1:
        how += f", in stages up to {', '.join(str(one) for one in percents)} and 100 %"
    return f"{verb.capitalize()} {what}{more} now{how}?{wait}"


def end_of(row: RevocationPlanRow) -> str:
    """Why a plan that is done or stopped goes no further, and what to do instead."""
    from vagus.records.revocation.plans import DONE

    if row.state == DONE:
        return (
            f"plan {row.id} is done: {_count(row.done, 'certificate')} {_became(row)}, and nothing is left of it; "
            "propose a new plan for what was issued since"
        )
    why = f" ({row.stopped_because})" if row.stopped_because else ""
    return (
        f"plan {row.id} was stopped for good{why}, with {_progress(row)}; propose a new plan for the rest with "
        "`vagus revoke` and the same options"
    )


def spell_state(row: RevocationPlanRow) -> str:
    """How far a plan has come, and the command that goes on from there."""
    from vagus.records.revocation.plans import DONE, PAUSED, STOPPED

    plan = row.id
    if row.state == DONE:
        return f"Plan {plan} is done: {_count(row.done, 'certificate')} {_became(row)}."
    if row.state == STOPPED:
        rest = max(0, row.counts["certificates"] - row.done)
        why = f" ({row.stopped_because})" if row.stopped_because else ""
        return (
            f"Plan {plan} is stopped for good{why}: {_count(row.done, 'certificate')} {_became(row)}, which stays so; "
            f"{rest:,} are left as they are."
        )
    missing = row.approvals_needed - len(row.approvals)
    if missing > 0:
        return (
            f"Plan {plan} is {row.state}, approvals are missing: {missing}; another operator gives "
            f"`vagus revoke approve {plan}`, then `vagus revoke run {plan}`."
        )
    on = f"go on with `vagus revoke run {plan}`, or end it with `vagus revoke stop {plan}`"
    if row.state == PAUSED:
        return f"Plan {plan} is paused with {_progress(row)}; {on}."
    return f"Plan {plan} is {row.state} with {_progress(row)}; {on}."


def _progress(row: RevocationPlanRow) -> str:
    return f"{row.done:,} of {_count(row.counts['certificates'], 'certificate')} done"


def _became(row: RevocationPlanRow) -> str:
    return f"{'is' if row.done == 1 else 'are'} {_BECAME[row.act]}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
