"""`vagus ceremony`: the only command that opens offline keys."""

from __future__ import annotations

from typing import Annotated

import typer

from vagus.cli.devices import spell_time
from vagus.cli.options import PassphraseOption, example, open_installation
from vagus.cli.output import JsonOption, Output, Row, YesOption, check_confirmed


def register(application: typer.Typer) -> None:
    """Add the command of this file."""
    application.command("ceremony", epilog=example("vagus ceremony --dry-run", "vagus ceremony"))(ceremony)


def spell_list(name: str) -> str:
    """A list's name as its URL has it: shard -1 is the complete list."""
    return f"{name.removesuffix('/-1')}/complete" if name.endswith("/-1") else name


def ceremony(
    context: typer.Context,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which authorities wait for it, and for what.")
    ] = False,
    yes: YesOption = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Make offline keys, certify every waiting request, sign the offline lists and seal emergency lists.

    Needs the passphrases of every offline keystore (root, device CAs) and, to seal lists, of `emergency`. Held again
    without anything waiting it renews the lists of the offline authorities: hold one every 90 days. Each step is in the
    ledger.
    """
    from vagus.maintenance.ceremonies import find_unpublished_offline, find_waiting, hold_ceremony

    output = Output(json)
    with open_installation(context, passphrase_source) as installation:
        waiting = find_waiting(installation)
        if dry_run:
            rows: list[Row] = [{"authority": name, "waits_for": "its certificate"} for name in waiting]
            rows += [
                {
                    "authority": one.authority,
                    "waits_for": f"its lists, which lack what was revoked since {spell_time(one.since)}",
                }
                for one in find_unpublished_offline(installation)
            ]
            output.rows("Waiting", ("authority", "waits_for"), rows)
            return
        what = f"certify {len(waiting)} requests and sign" if waiting else "sign"
        check_confirmed(f"Open the offline keys, {what} the offline lists anew?", is_assumed=yes)
        with output.progress("Ceremony", len(waiting)) as advance:
            report = hold_ceremony(installation, by=installation.actor.id, advance=lambda _step: advance(1))
    output.facts(
        {
            "ceremony": report.ceremony,
            "certified": list(report.certified),
            "lists": [spell_list(name) for name in report.crls],
            "sealed": len(report.sealed),
        }
    )
