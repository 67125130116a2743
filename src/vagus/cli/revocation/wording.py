"""A revocation plan in words for people and in facts for programs; asks nothing and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.cli.output import Row, facts_of, plain, spell_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vagus.operations.named_selections import NamedSelection
    from vagus.operations.revocation import RevocationPlan, RevocationPreview

_MOST_SPELT = 5


def preview_facts(preview: RevocationPreview) -> Row:
    """What `--dry-run` shows."""
    forecast = preview.forecast
    return {
        "act": preview.request.act.value,
        "reason": preview.request.reason.spelling,
        **facts_of(forecast, "certificates", "devices", "devices_without_certificate"),
        "lists_grow_by_octets": forecast.list_octets,
        "largest_list_octets": forecast.largest_list_octets,
        "ocsp_answers_signed_anew": forecast.ocsp_answers,
        "approvals_needed": forecast.approvals_needed,
        "waits_for_ceremony": list(forecast.offline),
        "locks_devices_out": preview.locks_out,
        "locks_lot": preview.locks_lot,
        "key_is_blocked": preview.key_block,
    }


def spell_wait(offline: Sequence[str]) -> str:
    """How far a revocation by an offline authority is known before its next CRL: only to the gateways here."""
    signs = "is offline and signs" if len(offline) == 1 else "are offline and sign"
    return (
        f"in no CRL before `vagus ceremony`, for {_some(offline)} {signs} none before it (or `vagus ca emergency "
        "ENVELOPE` publishes the one that the last ceremony sealed); only gateways of this installation know"
    )


def plan_facts(plan: RevocationPlan) -> Row:
    """A plan as it is now, for programs; `selection` has what the options named."""
    from vagus.x509.crls.building import RevocationReason

    row = plan.row
    reason = RevocationReason(row.reason)
    return {
        **facts_of(row, "id", "act"),
        "reason": reason.spelling,
        **facts_of(row, "state", "stopped_because"),
        "certificates": row.counts["certificates"],
        "devices": row.counts["devices"],
        **facts_of(plan, "devices_without_certificate"),
        "locks_devices_out": row.locks_out,
        "blocks_key": row.selection.spki_sha256 is not None and reason.is_compromise,
        "lists_grow_by_octets": row.counts["list_octets"],
        "largest_list_octets": row.counts["largest_list_octets"],
        "ocsp_answers_signed_anew": row.counts["ocsp_answers"],
        "done": row.done,
        "devices_without_certificate_done": row.devices_done,
        "locks_lot": plan.locks_lot,
        "stages": list(row.stages),
        "stage": min(row.stage + 1, len(row.stages)),
        **facts_of(row, "approvals", "approvals_needed", "made_by"),
        "made_at": spell_time(row.made_at),
        "selection": _selection_facts(plan.selected),
    }


def spell_plan(plan: RevocationPlan) -> Row:
    """A plan as it is now, for people: what is selected in words."""
    facts = dict(plan_facts(plan))
    del facts["selection"]
    return {"plan": facts.pop("id"), "selected": spell_selection(plan.selected), **facts}


def spell_selection(named: NamedSelection) -> str:
    """Which certificates: everything that is named holds for each of them."""
    selection = named.selection
    return "; ".join(
        [
            *_spell_ways(serial=_some(named.serials), device=_some(named.devices)),
            *_spell_ways(birth_certificates_of=_some(named.births)),
            *_spell_devices(named),
            *_spell_ways(
                issued_by=_some(named.authorities),
                profile=selection.profile,
                key=plain(selection.spki_sha256),
                issued_from=spell_time(selection.issued_from),
                issued_until=spell_time(selection.issued_until),
            ),
        ]
    )


def _spell_ways(**ways: object) -> list[str]:
    """Each way of naming with what it names, without those that name nothing."""
    return [f"{way.replace('_', ' ')} {named}" for way, named in ways.items() if named]


def _spell_devices(named: NamedSelection) -> list[str]:
    selection, units = named.selection, _spell_ways(unit=_some(named.units))
    if selection.model is not None:
        ends = f", serials {selection.first_serial} to {selection.last_serial}" if selection.first_serial else ""
        return [f"devices of model {selection.model}{ends}", *units]
    return [f"devices of {units[0]}" if units else "devices"] if selection.of_devices else []


def _selection_facts(named: NamedSelection) -> Row:
    """Each way of naming by itself, with names as the options take them; what was not given is empty or null."""
    return {
        **facts_of(named, "serials", "devices", "births", "units", "authorities"),
        **facts_of(named.selection, "model", "first_serial", "last_serial", "profile"),
        "key_sha256": plain(named.selection.spki_sha256),
        "issued_from": spell_time(named.selection.issued_from),
        "issued_until": spell_time(named.selection.issued_until),
    }


def _some(texts: Sequence[str]) -> str:
    shown, more = ", ".join(texts[:_MOST_SPELT]), len(texts) - _MOST_SPELT
    return shown if more <= 0 else f"{shown} and {more:,} more"


def question(preview: RevocationPreview) -> str:
    """What happens after a yes: an act at once where one approval is enough, otherwise a proposal."""
    from vagus.operations.revocation import KeyBlock, RevocationAct

    forecast, act, blocks_key = preview.forecast, preview.request.act, preview.key_block is KeyBlock.BY_THIS
    if preview.is_empty:
        return "Block the key for good? No certificate that lives is for it."
    what = _spell_acts(preview)
    wait = f" Then it is {spell_wait(forecast.offline)}." if forecast.offline else ""
    if forecast.approvals_needed > 1:
        begins, rest = ("Block the key at once and propose", "else ") if blocks_key else ("Propose", "")
        return (
            f"{begins} to {what}? Nothing {rest}happens before {forecast.approvals_needed} persons "
            f"have approved, you among them.{wait}"
        )
    what += " and block the key" if blocks_key else ""
    how = ", for good" if act is RevocationAct.REVOKE and forecast.certificates else ""
    if preview.request.stages and forecast.certificates > 1:
        how += f", in stages up to {', '.join(str(one) for one in preview.request.stages)} and 100 %"
    return f"{what[0].upper()}{what[1:]} now{how}?{wait}"


def _spell_acts(preview: RevocationPreview) -> str:
    """As in `revoke 2 certificates of 2 devices and lock the devices out, with 498 without a certificate`."""
    from vagus.operations.revocation import RevocationAct, count_of

    forecast, act = preview.forecast, preview.request.act
    more = count_of(forecast.devices_without_certificate or 0, "device")
    if not forecast.certificates:
        acts = {RevocationAct.HOLD: "put on hold", RevocationAct.RELEASE: "end the holds on"}
        return f"{acts.get(act, 'lock out')} {more} without a certificate"
    of_devices = f" of {count_of(forecast.devices, 'device')}" if forecast.devices else ""
    verb = {RevocationAct.HOLD: "suspend", RevocationAct.RELEASE: "end the holds on"}.get(act, "revoke")
    lock = " and lock the devices out" if preview.locks_out else ""
    with_more = f", with {more} without one" if forecast.devices_without_certificate else ""
    return f"{verb} {count_of(forecast.certificates, 'certificate')}{of_devices}{lock}{with_more}"


def spell_state(plan: RevocationPlan) -> str:
    """How far a plan is, and the command that goes on from there."""
    from vagus.operations.revocation import PlanState

    row, number = plan.row, plan.row.id
    if row.state == PlanState.DONE:
        return f"Plan {number} is done: {plan.result}."
    if row.state == PlanState.STOPPED:
        rest = max(0, row.counts["certificates"] - row.done)
        return (
            f"Plan {number} is stopped for good{plan.why_stopped}: {plan.result}, which stays so; {rest:,} are left as "
            "they are."
        )
    if plan.missing_approvals > 0:
        return (
            f"Plan {number} is {row.state}, approvals are missing: {plan.missing_approvals}; another operator gives "
            f"`vagus revoke approve {number}`, then `vagus revoke run {number}`."
        )
    on = f"go on with `vagus revoke run {number}`, or end it with `vagus revoke stop {number}`"
    return f"Plan {number} is {row.state} with {plan.progress}; {on}."
