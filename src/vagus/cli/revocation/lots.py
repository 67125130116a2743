"""What `vagus device state|hold|release` do to many devices: the options that name them, one question, the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.output import Output, Row, check_confirmed
from vagus.cli.revocation.arguments import read_act, read_stages
from vagus.cli.revocation.commands import DEFAULT_STAGES, preview_and_propose
from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vagus.fleet.lot_moves import LotMove
    from vagus.fleet.revocation_targets import RevocationTarget
    from vagus.wiring import Installation

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would change and stop; nothing is written.")]


def read_named(
    device: str | None,
    unit: Sequence[str] | None,
    hospital: str | None,
    model: str | None,
    batch: str | None,
    *,
    is_dry: bool = False,
) -> str | RevocationTarget:
    """The one device that is named, or the selection of many. Raises Malformed(BAD_ARGUMENT) for both and for none.

    Also for a dry run of one device, for commands that act on one at once.
    """
    from vagus.fleet.revocation_targets import RevocationTarget

    target = RevocationTarget(units=tuple(unit or ()), hospital=hospital, model=model, batch=batch)
    if (target == RevocationTarget()) is (device is None):
        msg = "name one device, or many by --unit, --hospital, --model or --batch, and not both"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    if device is not None and is_dry:
        msg = "--dry-run counts many devices, and one is named; leave it out, or see `vagus device show`"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    return target if device is None else device


def change_by_plan(
    installation: Installation,
    target: RevocationTarget,
    output: Output,
    *,
    is_hold: bool,
    is_dry: bool,
    is_assumed: bool,
) -> None:
    """Hold or release many, by a plan as `vagus revoke --hold` and `--release` make one, with its approvals."""
    from vagus.operations.revocation import RevocationRequest

    act, reason = read_act(None, is_hold=is_hold, is_release=not is_hold)
    request = RevocationRequest(act=act, reason=reason, target=target, stages=read_stages(DEFAULT_STAGES))
    preview_and_propose(installation, request, output, is_dry=is_dry, is_assumed=is_assumed, ignores_late_crls=False)


def move_many(
    installation: Installation, target: RevocationTarget, state: str, output: Output, *, is_dry: bool, is_assumed: bool
) -> None:
    """Show what changes, ask, and move the devices."""
    lots, actor = installation.operations.device_lots, installation.actor
    move = lots.preview_state(actor, target, state)
    if is_dry or not output.is_json:
        output.facts(_facts(move))
    if is_dry:
        return
    check_confirmed(_question(move), is_assumed=is_assumed)
    with output.progress("Moving", sum(move.changes.values())) as advance:
        moved = lots.change_state(actor, move, advance=advance)
    output.facts({**(_facts(move) if output.is_json else {}), "changed": moved})


def _facts(move: LotMove) -> Row:
    return {
        "state": move.after.value,
        "changes": sum(move.changes.values()),
        "changes_from": _spell(move.changes),
        "stays": _spell(move.stays),
        "locks_lot": move.locks_lot,
        "ends_recall": move.ends_recall,
    }


def _question(move: LotMove) -> str:
    """What a yes does, with what is not seen in the number alone: who may enrol again, and what comes later."""
    from vagus.operations.revocation import count_of

    number = sum(move.changes.values())
    asked = f"Change {count_of(number, 'device')} to {move.after}?" if number else "No device changes now. Go on?"
    if move.unlocked:
        asked = f"{asked} {move.unlocked:,} of them are locked out now and may enrol again."
    if move.locks_lot:
        asked = f"{asked} Devices of the lot that are added later come in recalled."
    if move.ends_recall:
        asked = f"{asked} The recall of the lot ends: devices that are added later may enrol."
    return asked


def _spell(counts: Mapping[str, int]) -> list[str]:
    return [f"{several} {state}" for state, several in counts.items()]
