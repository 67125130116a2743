"""`vagus ceremony`: the only command that opens offline keys."""

from __future__ import annotations

from typing import Annotated

import typer

from vagus.cli.options import PassphraseOption, example, open_installation
from vagus.cli.output import JsonOption, Output, Row, YesOption, check_confirmed, facts_of, spell_time


def register(application: typer.Typer) -> None:
    """Add the command of this file."""
    application.command("ceremony", epilog=example("vagus ceremony --dry-run", "vagus ceremony"))(ceremony)


def spell_crl(name: str) -> str:
    """A CRL's name as in its URL: shard -1 is the complete CRL."""
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
    """Make offline keys, certify every waiting request, sign CRLs of offline authorities and seal emergency CRLs.

    Needs the passphrases of every offline keystore (root, device CAs) and, to seal CRLs, of `emergency`. Held again
    without anything waiting it renews the CRLs of the offline authorities: hold one every 90 days. Each step is in the
    ledger.
    """
    output = Output(json)
    with open_installation(context, passphrase_source) as installation:
        ceremonies, actor = installation.operations.ceremonies, installation.actor
        waiting = ceremonies.find_waiting(actor)
        if dry_run:
            rows: list[Row] = [{"authority": name, "waits_for": "its certificate"} for name in waiting.authorities]
            lacks = "its CRLs, which lack what was revoked since"
            rows += [
                {"authority": one.authority, "waits_for": f"{lacks} {spell_time(one.since)}"}
                for one in waiting.unpublished
            ]
            output.rows("Waiting", ("authority", "waits_for"), rows)
            return
        count = len(waiting.authorities)
        what = f"certify {count} requests and sign" if count else "sign"
        check_confirmed(f"Open the offline keys, {what} new CRLs of the offline authorities?", is_assumed=yes)
        with output.progress("Ceremony", count) as advance:
            report = ceremonies.hold(actor, advance=lambda _step: advance(1))
    crls = [spell_crl(name) for name in report.crls]
    output.facts({**facts_of(report, "ceremony", "certified"), "lists": crls, "sealed": len(report.sealed)})
