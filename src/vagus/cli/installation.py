"""`vagus init|export|upgrade|sbom`: an installation begins, shows what it has and what it is made of, and moves on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from vagus.cli.files import check_new, decode_file, write_public
from vagus.cli.options import OutOption, PassphraseOption, ReplaceOption, example, folder_of, open_installation
from vagus.cli.output import JsonOption, Output
from vagus.errors import Malformed
from vagus.reasons import Reason

PolicyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The policy pack: iob-2026 (if left out), iob-2026-pq with post-quantum signatures, or a file in --dir.",
    ),
]


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    application.command("init", epilog=example("vagus --dir hospital init --passphrase-source file:passphrase"))(init)
    application.command("export", epilog=example("vagus --dir hospital export > hospital.json"))(export)
    application.command("upgrade", epilog=example("vagus --dir hospital upgrade"))(upgrade)
    application.command("sbom", epilog=example("vagus sbom --lock requirements/vagus.txt --out vagus.cdx.json"))(sbom)


def init(
    context: typer.Context,
    *,
    kind: Annotated[
        Literal["hospital", "maker"], typer.Option(help="Whose installation this is; chosen once.")
    ] = "hospital",
    origin: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The ledger's name in its checkpoints; chosen once. FOLDER.vagus.internal if left out."
        ),
    ] = None,
    database: Annotated[
        str, typer.Option(metavar="URL", help="sqlite:///file in the folder, or postgresql+psycopg://...")
    ] = "sqlite:///vagus.sqlite3",
    policy: PolicyOption = None,
    kdf: Annotated[
        Literal["scrypt", "pbkdf2"], typer.Option(help="Key derivation of keystores; pbkdf2 for FIPS sites.")
    ] = "scrypt",
    unsafe_fast_kdf: Annotated[
        bool, typer.Option("--unsafe-fast-kdf", help="Weak derivation, for tests and demonstrations only.")
    ] = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Begin an installation in --dir: settings, database, ledger and its checkpoint key.

    Needs a folder without one and a passphrase for the ledger's key. No authority is made: `vagus plan apply` is next.
    """
    from vagus.wiring import Installation

    folder = folder_of(context)
    name = origin or re.sub(r"[^a-z0-9.-]+", "-", folder.absolute().name.lower()).strip("-.") + ".vagus.internal"
    with Installation.create(
        folder,
        kind=kind,
        origin=name,
        database=database,
        policy_pack=policy,
        kdf=kdf,
        unsafe_fast_kdf=unsafe_fast_kdf,
        passphrase_sources=passphrase_source or (),
    ) as installation:
        output = Output(json)
        output.facts(
            {
                "folder": str(folder),
                "kind": kind,
                "origin": name,
                "policy_pack": f"{installation.pack.name} {installation.pack.version}",
                "log_key": installation.log_verifier,
                "oid_arc": installation.pack.arc,
            }
        )
        if not installation.pack.is_production_arc:
            output.say("The OID arc is for documentation: name a policy pack with your own arc before production.")


def export(context: typer.Context) -> None:
    """Print everything that a plan speaks of, and the ledger's size and root, as canonical JSON.

    Authorities with their certificates, units, models and devices; no key, no device's certificate, no token. Changes
    nothing.
    """
    import json as encoder

    with open_installation(context) as installation:
        exported = installation.operations.installation.export(installation.actor)
    typer.echo(encoder.dumps(exported, indent=1, sort_keys=True, ensure_ascii=True))


def upgrade(context: typer.Context) -> None:
    """Bring the database of an older release to this one.

    Take a backup and stop `vagus serve` before; run `vagus doctor` after. Nothing to do is no error.
    """
    with open_installation(context) as installation:
        schema = installation.operations.installation.upgrade(installation.actor)
    typer.echo(f"The database has schema {schema}.")


def sbom(
    *,
    lock: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The lock file that Vagus was installed from, for hashes. Repeatable."),
    ] = None,
    date: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            envvar="SOURCE_DATE_EPOCH",
            min=0,
            max=253_402_300_799,
            help="The time in it, in seconds since 1970; none if left out.",
        ),
    ] = None,
    out: OutOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Write the bill of materials (SBOM) of this program: CycloneDX 1.6, JSON.

    It has each installed package that Vagus needs, the libraries compiled into them, and the Python runtime. The same
    installation gives the same bytes. Needs no installation folder and no network. A file that exists is left as it is
    and refused, unless --replace is given.
    """
    from vagus.maintenance.bill_of_materials import decode_lock, make_bill

    if out is not None:
        check_new(out, may_replace=replace)
    for file in lock or ():
        if file.is_dir() or not file.exists():
            msg = f"{file}: there is no such lock file; name the one that Vagus was installed from, or leave --lock out"
            raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(file))
    bill = make_bill([decode_file(file, decode_lock) for file in lock or ()], date)
    if out is None:
        typer.echo(bill.decode(), nl=False)
    else:
        write_public(bill, out, may_replace=replace)
