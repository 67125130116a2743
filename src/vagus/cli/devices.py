"""`vagus device add|list|show|state|transfer|revoke|hold|release|import`: commands of the inventory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.certificates import of_devices
from vagus.cli.files import naming, read_block, read_certificates
from vagus.cli.options import REASONS, DeviceArgument, add_group, decode_period, open_installation
from vagus.cli.output import JsonOption, Output, Row, YesOption, check_confirmed, facts_of, spell_time
from vagus.cli.revocation.arguments import BatchOption, HospitalOption, ModelOption, UnitsOption
from vagus.cli.revocation.lots import DryRunOption, change_by_plan, move_many, read_named
from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.operations.devices import Device, DeviceContact, ListedDevice, StateChange

OptionalDevice = Annotated[
    str | None, typer.Argument(metavar="[DEVICE]", help="A device id, or MODEL:SERIAL; or many, by the options.")
]

_STATES = (
    "manufactured, shipped, received, commissioned, in_service, quarantined, on_loan, in_repair, recalled, "
    "decommissioned, sanitised or disposed."
)
_LOCKED_LOT = (
    "what belongs to a recalled lot came in recalled, and to a held one on hold; it gets no certificate before `vagus "
    "device state received` or `vagus device release`"
)


def register(application: typer.Typer) -> None:
    """Add the commands of this file, and those that certify a device."""
    add_group(
        application,
        "device",
        "The inventory: devices, their states and certificates.",
        ("add", add, 'vagus device add --unit h1/icu --model "Aorta IP3" --serial AIP3-000123'),
        ("list", list_devices, "vagus device list --unit h1/icu --category ventilator --expires-within 60d"),
        ("show", show, 'vagus device show "Aorta IP3:AIP3-000123"'),
        (
            "state",
            state,
            'vagus device state "Aorta IP3:AIP3-000123" commissioned',
            'vagus device state recalled --batch "Aorta IP3:AIP3-000100..AIP3-000199"',
        ),
        ("transfer", transfer, 'vagus device transfer "Aorta IP3:AIP3-000123" h1/er'),
        (
            "certify",
            of_devices.certify,
            'vagus device certify "Aorta IP3:AIP3-000123" --request pump.csr --out pump-files',
            'vagus device certify "Aorta IP3:AIP3-000123" --request pump.csr --form fullchain --out pump.pem',
        ),
        (
            "pkcs12",
            of_devices.pkcs12,
            'vagus device pkcs12 "Aorta IP3:AIP3-000123" --out pump.p12 --password-source file:pump-password',
        ),
        ("revoke", revoke, 'vagus device revoke "Aorta IP3:AIP3-000123" --reason keyCompromise'),
        ("hold", hold, 'vagus device hold "Aorta IP3:AIP3-000123"'),
        ("release", release, 'vagus device release "Aorta IP3:AIP3-000123"'),
        ("import", import_manifest, "vagus device import manifest.json --anchor maker-root.pem --unit h1/pool"),
    )


def add(
    context: typer.Context,
    *,
    unit: Annotated[str, typer.Option(metavar="HOSPITAL/UNIT", help="The compartment that owns it.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="A model of the plan.")],
    serial: Annotated[str, typer.Option(metavar="SERIAL", help="The maker's serial number.")],
    udi: Annotated[str | None, typer.Option(metavar="UDI", help="Unique device identifier.")] = None,
    place: Annotated[str | None, typer.Option(metavar="PLACE", help="Where it is.")] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host name that its certificates carry, where it is a server. Repeatable."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Add one device to the inventory; its identifier is drawn here. It may enrol from then on.

    No certificate is made: a token (`vagus token make`) or the maker's certificate lets it enrol. Many devices belong
    in the plan or in a maker's manifest (`vagus device import`).
    """
    from vagus.fleet.devices import NewDevice
    from vagus.identifiers import UnitName

    new = NewDevice(
        unit=UnitName.parse(unit),
        model=model,
        maker_serial=serial,
        udi=udi,
        place=place,
        host_names=tuple(host_name or ()),
    )
    with open_installation(context) as installation:
        added = installation.operations.devices.add(installation.actor, new)
    Output(json).facts(_row(added))
    if added.held_at is not None or added.state == "recalled":
        typer.echo(f"vagus: {_LOCKED_LOT}", err=True)


def list_devices(
    context: typer.Context,
    *,
    unit: Annotated[str | None, typer.Option(metavar="HOSPITAL/UNIT", help="Only of this compartment.")] = None,
    hospital: Annotated[str | None, typer.Option(metavar="LABEL", help="Only of this hospital, as in h1.")] = None,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only in this state.")] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only of this model.")] = None,
    category: Annotated[
        str | None, typer.Option(metavar="CATEGORY", help="Only of this category, as in ventilator.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this certificate profile, as in bedside.")
    ] = None,
    expires_within: Annotated[
        str | None,
        typer.Option(metavar="PERIOD", help="Only those whose certificate has ended or ends within this time: 60d."),
    ] = None,
    not_seen_for: Annotated[
        str | None,
        typer.Option(metavar="PERIOD", help="Only those that no listener has admitted for so long, or ever: 7d."),
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="DEVICE", help="Begin after this device.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    json: JsonOption = False,
) -> None:
    """List devices by hospital, unit, model and serial, a page at a time.

    `certificate` and `days left` are of the certificate that ends last among those that live; without one, of the last
    that the device had. --after the last device of a page gives the next one. `vagus report expiry` says who does what.
    """
    from vagus.operations.devices import DeviceQuery

    query = DeviceQuery(unit=unit, hospital=hospital, state=state, model=model, category=category, profile=profile)
    period = None if expires_within is None else decode_period(expires_within, "--expires-within")
    unseen = None if not_seen_for is None else decode_period(not_seen_for, "--not-seen-for")
    with open_installation(context) as installation:
        devices, actor = installation.operations.devices, installation.actor
        found = devices.list_page(actor, query, expires_within=period, not_seen_for=unseen, after=after, limit=limit)
    columns = ("serial", "model", "unit", "place", "state", "certificate", "days_left", "last_seen", "id")
    output = Output(json)
    output.rows("Devices", columns, [_listed_row(one) for one in found])
    if len(found) == limit:
        output.say(f"More may follow: --after {found[-1].device.id}, or --limit.")


def show(context: typer.Context, device: DeviceArgument, *, json: JsonOption = False) -> None:
    """Show one device with every certificate that it ever had: state, end, days left, and how it was revoked."""
    output = Output(json)
    with open_installation(context) as installation:
        found, certificates = installation.operations.certificates.list_of_device(installation.actor, device)
        contact = _contact_row(installation.operations.devices.find_contact(installation.actor, device))
    columns: tuple[str, ...] = ("authority", "serial", "state", "not_after", "days_left", "profile")
    rows: list[Row] = [
        {
            **facts_of(one, "authority", "state", "profile", "days_left", "reason", "revoked_by"),
            "serial": f"{one.serial:x}",
            "not_after": spell_time(one.not_after),
            "revoked_at": spell_time(one.revoked_at),
        }
        for one in certificates
    ]
    if json:
        output.facts({"device": {**_row(found), **contact}, "certificates": rows})
        return
    output.facts({**_row(found), **contact})
    if any(one.revoked_at is not None for one in certificates):
        columns += ("reason", "revoked_at", "revoked_by")
    output.rows("Certificates", columns, rows)


def state(
    context: typer.Context,
    named: Annotated[list[str], typer.Argument(metavar="[DEVICE] STATE", help=_STATES)],
    *,
    unit: UnitsOption = None,
    hospital: HospitalOption = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Change the state of a device in its life, or of many: out of quarantine, into service, to its end.

    It asks before a device that is quarantined or recalled may enrol again, and before an end: decommissioning revokes
    its certificates for good, and nothing comes back from there. A move that is not allowed names those that are.

    Many devices (named by the options, which narrow each other) are counted first; those that cannot move stay.
    `recalled` and `quarantined` also lock a batch or model: its devices that are added later come in recalled, until
    `received` names the same or more. An end takes one device at a time.
    """
    *first, new_state = named
    if len(first) > 1:
        msg = f"{len(named)} arguments are given; name one device (quoted, if its model has spaces) and its state"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    device, output = read_named(first[0] if first else None, unit, hospital, model, batch), Output(json)
    with open_installation(context) as installation:
        if not isinstance(device, str):
            move_many(installation, device, new_state, output, is_dry=dry_run, is_assumed=yes)
            return
        devices, actor = installation.operations.devices, installation.actor
        change = devices.preview_state(actor, device, new_state)
        if dry_run:
            output.facts({**_row(change.device), "state": change.after.value})
            return
        if change.ends or change.unlocks:
            check_confirmed(_state_question(change), is_assumed=yes)
        output.facts(_row(devices.change_state(actor, device, new_state)))


def _state_question(change: StateChange) -> str:
    which = f"{change.device.model} {change.device.maker_serial} of {change.device.unit} (device {change.device.id})"
    if change.ends:
        return f"End the life of {which} for good? Its certificates are revoked, and no state leads back."
    lost = spell_time(change.compromised_at)
    why = f" A certificate of it was revoked on {lost} because its key was compromised." if lost else ""
    return f"Take {which} out of {change.device.state}, so that it may enrol again?{why}"


def transfer(
    context: typer.Context,
    device: DeviceArgument,
    unit: Annotated[str, typer.Argument(metavar="HOSPITAL/UNIT", help="The new compartment.")],
    *,
    json: JsonOption = False,
) -> None:
    """Give a device to another compartment: it must enrol there again within a day; then its old certificates end."""
    with open_installation(context) as installation:
        moved = installation.operations.devices.transfer(installation.actor, device, unit)
    Output(json).facts(_row(moved))


def revoke(
    context: typer.Context,
    device: DeviceArgument,
    *,
    reason: Annotated[str, typer.Option(metavar="REASON", help=f"{REASONS}.")] = "unspecified",
    keep_enrolling: Annotated[
        bool, typer.Option("--keep-enrolling", help="Only revoke: with its evidence it may enrol again at once.")
    ] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Revoke every live certificate of a device, at once and for good, and lock it out.

    It is quarantined (recalled, if it was never commissioned) and its tokens expire, so that it enrols again only
    after `vagus device state`. A device whose certificates are superseded goes on enrolling.
    """
    with open_installation(context) as installation:
        devices, actor = installation.operations.devices, installation.actor
        preview = devices.preview_revocation(actor, device, reason, keeps_enrolling=keep_enrolling)
        found, locks = preview.device, ", and lock it out" if preview.locks_out else ""
        which = f"{found.model} {found.maker_serial} of {found.unit} (device {found.id})"
        check_confirmed(f"Revoke every certificate of {which} now, for good{locks}?", is_assumed=yes)
        done = devices.revoke(actor, device, reason, keeps_enrolling=keep_enrolling)
    output = Output(json)
    facts = {"revoked": done.changed, "revoked_before": done.before, "sequence": done.sequence}
    output.facts({"device": str(done.device.id), **facts, "state": done.device.state})
    if done.before and not done.changed:
        output.say("Its certificates were revoked before: nothing was changed now.")


def hold(
    context: typer.Context,
    device: OptionalDevice = None,
    *,
    unit: UnitsOption = None,
    hospital: HospitalOption = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Suspend every certificate of a device at once, until it is released or revoked; it gets none meanwhile.

    Gateways refuse it within seconds (ON_HOLD); CRLs say certificateHold. Its state stays as it is. Many devices, named
    by the options, are held by a plan, with a question and the approvals of the policy, as by `vagus revoke --hold`.
    """
    named = read_named(device, unit, hospital, model, batch, is_dry=dry_run)
    with open_installation(context) as installation:
        if not isinstance(named, str):
            change_by_plan(installation, named, Output(json), is_hold=True, is_dry=dry_run, is_assumed=yes)
            return
        done = installation.operations.devices.hold(installation.actor, named)
    output = Output(json)
    facts = {"held": done.changed, "held_before": done.before, "sequence": done.sequence}
    output.facts({"device": str(done.device.id), **facts})
    if not done.is_news:
        what = "Its certificates were" if done.before else "It was"
        output.say(f"{what} on hold before: nothing was changed now.")
    elif not done.changed:
        output.say("It has no live certificate; it gets none before `vagus device release`.")


def release(
    context: typer.Context,
    device: OptionalDevice = None,
    *,
    unit: UnitsOption = None,
    hospital: HospitalOption = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """End every hold on a device and its certificates: they are good again. What was revoked stays revoked.

    Many devices, named by the options, are released by a plan, as by `vagus revoke --release`. Devices of a lot on hold
    that are added later then come in free.
    """
    named = read_named(device, unit, hospital, model, batch, is_dry=dry_run)
    with open_installation(context) as installation:
        if not isinstance(named, str):
            change_by_plan(installation, named, Output(json), is_hold=False, is_dry=dry_run, is_assumed=yes)
            return
        done = installation.operations.devices.release(installation.actor, named)
    output = Output(json)
    output.facts({"device": str(done.device.id), "released": done.changed, "sequence": done.sequence})
    if not done.is_news:
        output.say("No certificate of it is on hold, nor is the device: nothing was changed now.")


def import_manifest(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="MANIFEST", help="The file that `vagus maker manifest` wrote.")],
    *,
    anchor: Annotated[Path, typer.Option(metavar="FILE", help="The maker's root certificate, PEM or DER.")],
    unit: Annotated[
        str | None, typer.Option(metavar="HOSPITAL/UNIT", help="Add devices that are not in the inventory here.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Bind a maker's anchor to its models, and take its devices into the inventory.

    Needs the models in the plan, and the anchor from a source that you trust: a device that it certifies may enrol as
    one of these. Prints the anchor's SHA-256 to compare by telephone.
    """
    from vagus.identifiers import UnitName

    into = UnitName.parse(unit) if unit else None
    with open_installation(context) as installation:
        anchor_der = read_block(anchor, "CERTIFICATE")
        read_certificates(anchor)
        devices, manifest = installation.operations.devices, file.read_bytes()
        with naming(file, "BAD_ENCODING", "NON_DER", "TOO_LARGE"):
            done = devices.import_manifest(installation.actor, manifest, anchor_der, into)
    output = Output(json)
    output.facts(facts_of(done, "maker", "anchor_sha256", "models", "known", "added", "recalled", "held", "unknown"))
    if done.recalled or done.held:
        typer.echo(f"vagus: {_LOCKED_LOT}", err=True)
    if done.unknown:
        output.say(f"{done.unknown} devices of the manifest are not in the inventory; give --unit to add them.")


def _listed_row(listed: ListedDevice) -> Row:
    return {
        **_row(listed.device),
        **facts_of(listed, "category", "certificate", "days_left"),
        "not_after": spell_time(listed.not_after),
        **_contact_row(listed.contact),
    }


def _contact_row(contact: DeviceContact) -> Row:
    """When and at which listener it was last admitted and last refused."""
    seen_at, seen_by = contact.seen or (None, None)
    refused_at, refused_by, reason = contact.refused or (None, None, None)
    return {
        "last_seen": spell_time(seen_at),
        "seen_by": seen_by,
        "last_refused": spell_time(refused_at),
        "refused_by": refused_by,
        "refusal_reason": reason,
    }


def _row(device: Device) -> Row:
    return {
        **facts_of(device, "id", "unit", "model"),
        "serial": device.maker_serial,
        **facts_of(device, "profile", "state", "udi", "place", "host_names"),
        "held_since": spell_time(device.held_at),
        "added_at": spell_time(device.added_at),
    }
