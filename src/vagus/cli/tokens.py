"""`vagus token make`: one-time enrolment tokens, shown once and stored nowhere."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from vagus.cli.options import DeviceArgument, add_group, open_installation
from vagus.cli.output import JsonOption, Output, spell_time
from vagus.errors import Conflict, Malformed
from vagus.reasons import Reason


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    lines = (
        'vagus token make "Aorta IP3:AIP3-000001" --out token',
        'vagus token make "Aorta IP3:AIP3-000001" --hours 8',
        'vagus token make "Keystone Gate:KG-000001" --both --out token',
    )
    add_group(application, "token", "One-time enrolment tokens.", ("make", make, *lines))


def make(
    context: typer.Context,
    device: DeviceArgument,
    *,
    hours: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS",
            min=0.02,
            max=2160,
            help="How long it may be used, 0.02 to 2160 (90 days). Left out: what the policy pack says under "
            "token_lifetime, 7 days as shipped.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to this new file with mode 0600 and do not show it.")
    ] = None,
    both: Annotated[
        bool,
        typer.Option(
            "--both",
            help="For a device with host names: one use for its own certificate and one for its server certificate "
            "(EST label server), each bound to the first key that comes.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a token with which one device may enrol once; it is shown here and never again.

    Needs a device of the inventory that may enrol (received, commissioned, in_service, on_loan or in_repair), and no
    passphrase. The bearer of the token gets the device's certificate: give it to the installer by a safe way
    (`vagus-agent enrol --token file:token`). A revoked device's tokens end.
    """
    import os

    from vagus.durable_files import write_new

    if out is not None and out.exists():  # check the output file first: a token that cannot be written is lost
        msg = f"file {out} exists already, and a token file is never overwritten; choose another name with --out"
        raise Conflict(Reason.ALREADY_EXISTS, msg, path=str(out))
    if out is not None and not os.access(out.parent, os.W_OK | os.X_OK):
        msg = f"folder {out.parent} cannot be written, so no token was made; name another file with --out"
        raise Malformed(Reason.BAD_ARGUMENT, msg, path=str(out))
    with open_installation(context) as installation:
        life = None if hours is None else timedelta(hours=hours)
        made = installation.operations.tokens.make(installation.actor, device, life=life, is_for_both=both)
    if out is not None:
        write_new(out, f"{made.text}\n".encode("ascii"))
    shown = {"token": made.text} if out is None else {"file": str(out)}
    Output(json).facts({"device": str(made.device_id), **shown, "expires_at": spell_time(made.expires_at)})
