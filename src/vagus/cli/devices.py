"""`vagus device add|list|show|state|transfer|revoke|hold|release|import`: the inventory from the outside."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.options import REASONS, open_house
from vagus.cli.output import JsonOption, Output, YesOption, check_confirmed

if TYPE_CHECKING:
    from vagus.cli.output import Row
    from vagus.records.devices import DeviceRow

DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="A device id, or MODEL:SERIAL.")]


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="The inventory.", no_args_is_help=True, rich_markup_mode=None)
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
        group.command(name)(command)
    application.add_typer(group, name="device")


def add(
    context: typer.Context,
    *,
    unit: Annotated[str, typer.Option(metavar="HOSPITAL/UNIT", help="The compartment that owns it.")],
    model: Annotated[str, typer.Option(help="A model of the plan.")],
    serial: Annotated[str, typer.Option(help="The maker's serial number.")],
    udi: Annotated[str | None, typer.Option(help="Unique device identifier.")] = None,
    place: Annotated[str | None, typer.Option(help="Where it stands.")] = None,
    host_name: Annotated[
        list[str] | None, typer.Option(help="A name that it may show as a server. Repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Add one device; its identifier is drawn here."""
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
    with open_house(context) as house:
        Output(json).facts(_row(house.inventory.add(new, by=house.operator).result()))


def list_devices(
    context: typer.Context,
    *,
    unit: Annotated[str | None, typer.Option(metavar="HOSPITAL/UNIT", help="Only of this compartment.")] = None,
    hospital: Annotated[str | None, typer.Option(help="Only of this hospital.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    after: Annotated[str | None, typer.Option(metavar="DEVICE", help="Begin behind this device id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    json: JsonOption = False,
) -> None:
    """List devices by id, a page at a time."""
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
    with open_house(context) as house, house.database.reading() as connection:
        found = page(connection, narrow, after=start, limit=limit)
    columns = ("id", "unit", "model", "serial", "profile", "state")
    Output(json).rows("Devices", columns, [_row(device) for device in found])


def show(context: typer.Context, device: DeviceArgument, *, json: JsonOption = False) -> None:
    """Show one device with its certificates."""
    from vagus.records.certificates import list_of_device

    output = Output(json)
    with open_house(context) as house:
        found = house.find_device(device)
        with house.database.reading() as connection:
            certificates = list_of_device(connection, str(found.id))
        names = house.authority_names()
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
    new_state: Annotated[str, typer.Argument(metavar="STATE", help="in_service, quarantined, recalled ...")],
    *,
    json: JsonOption = False,
) -> None:
    """Move a device on in its life; at its end its certificates are revoked."""
    from vagus.fleet.lifecycle import decode_state

    wanted = decode_state(new_state)
    with open_house(context) as house:
        found = house.find_device(device)
        changed = house.inventory.change_state(found.id, wanted, by=house.operator).result()
        Output(json).facts(_row(changed))


def transfer(
    context: typer.Context,
    device: DeviceArgument,
    unit: Annotated[str, typer.Argument(metavar="HOSPITAL/UNIT", help="The new compartment.")],
    *,
    json: JsonOption = False,
) -> None:
    """Give a device to another compartment; it enrols there anew."""
    from vagus.identifiers import UnitName

    target = UnitName.parse(unit)
    with open_house(context) as house:
        found = house.find_device(device)
        Output(json).facts(_row(house.inventory.transfer(found.id, target, by=house.operator).result()))


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
    with open_house(context) as house:
        found = house.find_device(device)
        check_confirmed(f"Revoke every certificate of device {found.id} for good?", is_assumed=yes)
        revoked = house.revoke_device(found.id, reason, by=house.operator, keeps_enrolling=keep_enrolling)
        Output(json).facts(
            {
                "device": str(found.id),
                "revoked": revoked.count,
                "sequence": revoked.sequence,
                "state": house.find_device(str(found.id)).state,
            }
        )


def hold(context: typer.Context, device: DeviceArgument, *, json: JsonOption = False) -> None:
    """Suspend every certificate of a device until it is released or revoked."""
    with open_house(context) as house:
        found = house.find_device(device)
        held = house.revocations.hold_device(str(found.id), by=house.operator).result()
    Output(json).facts({"device": str(found.id), "held": held.count, "sequence": held.sequence})


def release(context: typer.Context, device: DeviceArgument, *, json: JsonOption = False) -> None:
    """End every hold on a device's certificates."""
    with open_house(context) as house:
        found = house.find_device(device)
        released = house.revocations.release_device(str(found.id), by=house.operator).result()
    Output(json).facts({"device": str(found.id), "released": released.count, "sequence": released.sequence})


def import_manifest(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="MANIFEST", help="The maker's manifest.")],
    *,
    anchor: Annotated[Path, typer.Option(help="The maker's root certificate, PEM or DER.")],
    unit: Annotated[
        str | None, typer.Option(metavar="HOSPITAL/UNIT", help="Add devices that are not in the inventory here.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Bind a maker's anchor to its models, and take its devices into the inventory."""
    from vagus.identifiers import UnitName

    into = UnitName.parse(unit) if unit else None
    with open_house(context) as house:
        done = house.import_manifest(file, anchor, into, by=house.operator)
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
