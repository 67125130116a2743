"""`vagus keystore check|change-passphrase`: which passphrase opens which keystore, and another one for it."""

from __future__ import annotations

from typing import Annotated

import typer

from vagus.cli.options import PassphraseOption, add_group, open_installation
from vagus.cli.output import JsonOption, Output, YesOption, check_confirmed


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    check_lines = ("vagus --dir hospital keystore check --passphrase-source file:passphrase",)
    change_lines = (
        "vagus keystore change-passphrase all --passphrase-source file:old --new-passphrase-source file:new",
        "vagus keystore change-passphrase root h1 --new-passphrase-source fd:4",
    )
    add_group(
        application,
        "keystore",
        "The sealed folders of private keys.",
        ("check", check, *check_lines),
        ("change-passphrase", change_passphrase, *change_lines),
    )


def check(context: typer.Context, *, passphrase_source: PassphraseOption = None, json: JsonOption = False) -> None:
    """Show each keystore: whether its passphrase opens it and every key in it, and how the passphrase is derived.

    Changes nothing. Ends with 1 if a keystore or a key does not open; one that no source speaks for is not tried.
    """
    from vagus.maintenance.keystore_passphrases import check_keystores

    with open_installation(context, passphrase_source) as installation:
        found = check_keystores(installation, installation.actor)
    columns = ("keystore", "opens", "keys", "kdf", "cost", "strength", "salt", "problem")
    rows = [
        {
            "keystore": one.name,
            "opens": {True: "yes", False: "no", None: "not tried"}[one.opens],
            "keys": one.keys,
            "kdf": None if one.derivation is None else one.derivation.kdf,
            "cost": None if one.derivation is None else one.derivation.cost,
            "strength": None if one.derivation is None else ("production" if one.derivation.is_strong else "weak"),
            "salt": None if one.derivation is None else one.derivation.salt.hex()[:8],
            "problem": one.problem or None,
        }
        for one in found
    ]
    Output(json).rows("Keystores; equal salts: one passphrase, one derivation", columns, rows)
    if any(one.opens is False for one in found):
        raise typer.Exit(1)


def change_passphrase(
    context: typer.Context,
    keystore: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Keystores (root, h1/icu, log, ocsp, gate), or all.")
    ],
    *,
    new_passphrase_source: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]fd:N|file:PATH|env:NAME",
            help="Where the new passphrase is read from; with NAME= that of one keystore. Repeatable.",
        ),
    ],
    passphrase_source: PassphraseOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Seal the keys of keystores under a new passphrase; the key derivation is the one that vagus.toml names.

    Nothing is changed unless every named keystore opens. After a crash each has the old passphrase or the new one: the
    same command finishes. A server that runs goes on with the keys it has; restart it with the new passphrase. Backups
    and copies keep the old one.
    """
    from vagus.keystore.sources import PassphraseSources
    from vagus.maintenance.keystore_passphrases import change_passphrases

    new, output = PassphraseSources(new_passphrase_source), Output(json)
    names = ", ".join(keystore)
    check_confirmed(f"Change the passphrase of {names}? The old one then opens only backups.", is_assumed=yes)
    with open_installation(context, passphrase_source) as installation:
        changed = change_passphrases(installation, installation.actor, keystore, new)
    rows = [
        {"keystore": one.name, "keys": one.keys, "passphrase": "changed" if one.was_changed else "was changed before"}
        for one in changed
    ]
    output.rows("Keystores", ("keystore", "keys", "passphrase"), rows)
    output.say("Give the new passphrase to each server at its next start; one that runs keeps the keys it has opened.")
    output.say("Backups and other copies of these folders still open with the old passphrase: take a backup, then end")
    output.say("the old ones. A person with the old passphrase and a copy has the keys: roll those authorities.")
