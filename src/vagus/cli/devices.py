"""`vagus device add|list|show|state|transfer|revoke|hold|release|import`: the inventory from the outside."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.files import naming, read_blocks
from vagus.cli.options import REASONS, example, open_installation
from vagus.cli.output import JsonOption, Output, YesOption, check_confirmed

if TYPE_CHECKING:
    from vagus.cli.output import Row
    from vagus.records.devices import DeviceRow
    from vagus.records.engine.database import Connection

DeviceArgument = Annotated[
    str, typer.Argument(metavar="DEVICE", help='A device id, or MODEL:SERIAL as in "Aorta IP3:AIP3-000001".')
]

_STATES = (
    "manufactured, shipped, received, commissioned, in_service, quarantined, on_loan, in_repair, recalled, "
    "decommissioned, sanitised or disposed."
)
_EXAMPLES = {
    "add": 'vagus device add --unit h1/icu --model "Aorta IP3" --serial AIP3-000123',
    "list": "vagus device list --unit h1/icu --state quarantined",
    "show": 'vagus device show "Aorta IP3:AIP3-000123"',
    "state": 'vagus device state "Aorta IP3:AIP3-000123" commissioned',
    "transfer": 'vagus device transfer "Aorta IP3:AIP3-000123" h1/er',
    "revoke": 'vagus device revoke "Aorta IP3:AIP3-000123" --reason keyCompromise',
    "hold": 'vagus device hold "Aorta IP3:AIP3-000123"',
    "release": 'vagus device release "Aorta IP3:AIP3-000123"',
    "import": "vagus device import manifest.json --anchor maker-root.pem --unit h1/pool",
}


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(
        help="The inventory: devices, their states and certificates.", no_args_is_help=True, rich_markup_mode=None
    )
    for name, command in (
        ("add", add),
        ("list", list_devices),
        ("show", show),
        ("state", state),
        ("transfer", transfer),
        ("revoke", revoke),
        ("hold", hold),
        ("release", release),
        ("import", import_manifest),
    ):
        group.command(name, epilog=example(_EXAMPLES[name]))(command)
    application.add_typer(group, name="device")


def add(
    context: typer.Context,
    *,
    unit: Annotated[str, typer.Option(metavar="HOSPITAL/UNIT", help="The compartment that owns it.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="A model of the plan.")],
    serial: Annotated[str, typer.Option(metavar="SERIAL", help="The maker's serial number.")],
    udi: Annotated[str | None, typer.Option(metavar="UDI", help="Unique device identifier.")] = None,
    place: Annotated[str | None, typer.Option(metavar="PLACE", help="Where it stands.")] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host name that its certificates carry, where it is a server. Repeatable."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Add one device to the inventory; its identifier is drawn here. It may enrol from then on.

    No certificate is made: a token (`vagus token make`) or the maker's certificate lets it enrol. Many devices belong
    into the plan or a maker's manifest (`vagus device import`).
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
        Output(json).facts(_row(installation.inventory.add(new, by=installation.operator).result()))


def list_devices(
    context: typer.Context,
    *,
    unit: Annotated[str | None, typer.Option(metavar="HOSPITAL/UNIT", help="Only of this compartment.")] = None,
    hospital: Annotated[str | None, typer.Option(metavar="LABEL", help="Only of this hospital, as in h1.")] = None,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only in this state.")] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only of this model.")] = None,
    after: Annotated[str | None, typer.Option(metavar="DEVICE", help="Begin behind this device id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    json: JsonOption = False,
) -> None:
    """List devices by id, a page at a time: --after the last id of a page gives the next one."""
    from vagus.fleet.lifecycle import decode_state
    from vagus.identifiers import DeviceId, UnitName, check_label
    from vagus.records.devices import DeviceFilter
    from vagus.records.devices import list_devices as page

    narrow = DeviceFilter(
        unit=UnitName.parse(unit) if unit else None,
        hospital=check_label(hospital, "hospital") if hospital else None,
        state=decode_state(state).value if state else None,
        model=model,
    )
    start = DeviceId(after) if after else None
    with open_installation(context) as installation, installation.database.reading() as connection:
        check_known(connection, unit=unit, hospital=hospital, model=model)
        found = page(connection, narrow, after=start, limit=limit)
    columns = ("id", "unit", "model", "serial", "profile", "state")
    output = Output(json)
    output.rows("Devices", columns, [_row(device) for device in found])
    if len(found) == limit:
        output.say(f"More may follow: --after {found[-1].id}, or --limit.")


def show(context: typer.Context, device: DeviceArgument, *, json: JsonOption = False) -> None:
    """Show one device with every certificate that it ever had, their serial numbers, states and ends."""
    from vagus.records.certificates import list_of_device

    output = Output(json)
    with open_installation(context) as installation:
        found = installation.find_device(device)
        with installation.database.reading() as connection:
            certificates = list_of_device(connection, str(found.id))
        names = installation.authority_names()
    rows: list[Row] = [
        {
            "authority": names.get(one.authority_id, "?"),
            "serial": f"{one.serial:x}",
            "state": one.state,
            "not_after": spell_time(one.not_after),
            "profile": one.profile,
        }
        for one in certificates
    ]
    if json:
        import json as encoder

        typer.echo(encoder.dumps({"device": _row(found), "certificates": rows}, indent=2, sort_keys=True))
        return
    output.facts(_row(found))
    output.rows("Certificates", ("authority", "serial", "state", "not_after", "profile"), rows)


def state(
    context: typer.Context,
    device: DeviceArgument,
    new_state: Annotated[str, typer.Argument(metavar="STATE", help=_STATES)],
    *,
    json: JsonOption = False,
) -> None:
    """Move a device on in its life: out of quarantine, into service, to its end.

    Decommissioning revokes its certificates for good, and nothing comes back from there. A move that is not allowed
    names those that are.
    """
    from vagus.fleet.lifecycle import decode_state

    wanted = decode_state(new_state)
    with open_installation(context) as installation:
        found = installation.find_device(device)
        changed = installation.inventory.change_state(found.id, wanted, by=installation.operator).result()
        Output(json).facts(_row(changed))


def transfer(
    context: typer.Context,
    device: DeviceArgument,
    unit: Annotated[str, typer.Argument(metavar="HOSPITAL/UNIT", help="The new compartment.")],
    *,
    json: JsonOption = False,
) -> None:
    """Give a device to another compartment: it must enrol there anew, within a day; then its old certificates end."""
    from vagus.identifiers import UnitName

    target = UnitName.parse(unit)
    with open_installation(context) as installation:
        found = installation.find_device(device)
        Output(json).facts(_row(installation.inventory.transfer(found.id, target, by=installation.operator).result()))


def revoke(
    context: typer.Context,
    device: DeviceArgument,
    *,
    reason: Annotated[str, typer.Option(metavar="REASON", help=f"{REASONS}.")] = "unspecified",
    keep_enrolling: Annotated[
        bool, typer.Option("--keep-enrolling", help="Only revoke: with its evidence it may enrol anew at once.")
    ] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Revoke every live certificate of a device, at once and for good, and lock it out.

    It is quarantined (recalled, if it was never commissioned) and its tokens expire, so that it enrols again only
    after `vagus device state`. A device whose certificates are superseded goes on enrolling.
    """
    with open_installation(context) as installation:
        found = installation.find_device(device)
        locks = "" if keep_enrolling or reason == "superseded" else ", and lock it out"
        which = f"{found.model} {found.maker_serial} of {found.unit} (device {found.id})"
        check_confirmed(f"Revoke every certificate of {which} now, for good{locks}?", is_assumed=yes)
        revoked = installation.revoke_device(found.id, reason, by=installation.operator, keeps_enrolling=keep_enrolling)
        state_now = installation.find_device(str(found.id)).state
    output = Output(json)
    output.facts(
        {
            "device": str(found.id),
            "revoked": revoked.count,
            "revoked_before": revoked.before,
            "sequence": revoked.sequence,
            "state": state_now,
        }
    )
    if revoked.before and not revoked.count:
        output.say("Its certificates were revoked before: nothing became of them now.")


def hold(context: typer.Context, device: DeviceArgument, *, json: JsonOption = False) -> None:
    """Suspend every certificate of a device at once, until it is released or revoked; it gets no other meanwhile.

    Gates refuse it within seconds (ON_HOLD); lists say certificateHold. Its state stays as it is.
    """
    with open_installation(context) as installation:
        found = installation.find_device(device)
        held = installation.revocations.hold_device(str(found.id), by=installation.operator).result()
    output = Output(json)
    facts = {"held": held.count, "held_before": held.before, "sequence": held.sequence}
    output.facts({"device": str(found.id), **facts})
    if held.before and not held.count:
        output.say("Its certificates were on hold before: nothing became of them now.")
    elif not held.count:
        output.say(_nothing_held(found.state))


def _nothing_held(state: str) -> str:
    """What there is to know where no certificate was suspended."""
    from vagus.fleet.lifecycle import MAY_ENROL

    if state not in MAY_ENROL:
        return f"It has no live certificate, so nothing was held; it is {state}, so it gets none."
    how = "To keep it from enrolling: `vagus device state DEVICE quarantined` or recalled."
    return f"It has no live certificate, so nothing was held, and it may still enrol. {how}"


def release(context: typer.Context, device: DeviceArgument, *, json: JsonOption = False) -> None:
    """End every hold on a device's certificates: they are good again. What was revoked stays revoked."""
    with open_installation(context) as installation:
        found = installation.find_device(device)
        released = installation.revocations.release_device(str(found.id), by=installation.operator).result()
    output = Output(json)
    output.facts({"device": str(found.id), "released": released.count, "sequence": released.sequence})
    if not released.count:
        output.say("No certificate of it is on hold.")


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

    Needs the models in the plan, and the anchor from a way that you trust: whoever it certifies may enrol as one of
    these devices. Prints the anchor's SHA-256 to compare by telephone.
    """
    from vagus.identifiers import UnitName

    into = UnitName.parse(unit) if unit else None
    with open_installation(context) as installation:
        read_blocks(anchor, "CERTIFICATE")  # what is wrong with it is told under its own name
        with naming(file, "BAD_ENCODING", "NON_DER", "TOO_LARGE"):
            done = installation.import_manifest(file, anchor, into, by=installation.operator)
    output = Output(json)
    output.facts(
        {
            "maker": done.maker,
            "anchor_sha256": done.anchor_sha256.hex(),
            "models": list(done.models),
            "known": done.known,
            "added": done.added,
            "unknown": done.unknown,
        }
    )
    if done.unknown:
        output.say(f"{done.unknown} devices of the manifest are not in the inventory; give --unit to add them.")


def check_known(
    connection: Connection, *, unit: str | None = None, hospital: str | None = None, model: str | None = None
) -> None:
    """A misspelt unit, hospital or model must not look like one without devices. Raises Malformed(BAD_ARGUMENT)."""
    from vagus.errors import Malformed
    from vagus.reasons import Reason
    from vagus.records.models import list_models
    from vagus.records.units import list_units

    units = [one.name for one in list_units(connection)]
    for what, value, known in (
        ("unit", unit, {str(one) for one in units}),
        ("hospital", hospital, {one.hospital for one in units}),
        ("model", model, {one.name for one in list_models(connection)}),
    ):
        if value is not None and value not in known:
            msg = f"{what} {value!r} is not in the inventory; there are {', '.join(sorted(known)) or 'none'}"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=value)


def spell_time(seconds: int) -> str:
    """Seconds since 1970 as people read them; 9999-12-31 where no end is meant."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _row(device: DeviceRow) -> Row:
    return {
        "id": str(device.id),
        "unit": str(device.unit),
        "model": device.model,
        "serial": device.maker_serial,
        "profile": device.profile,
        "state": device.state,
        "udi": device.udi,
        "place": device.place,
        "host_names": list(device.host_names),
        "added_at": spell_time(device.added_at),
    }
