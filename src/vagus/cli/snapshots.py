"""`vagus snapshot write|key|show`: what is revoked, signed and small, for gateways that decide offline."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.files import check_place, decode_file, read_block, write_public
from vagus.cli.options import OutOption, PassphraseOption, ReplaceOption, add_group, open_installation
from vagus.cli.output import JsonOption, Output

if TYPE_CHECKING:
    from vagus.wire.snapshots import SnapshotFacts


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "snapshot",
        "Offline snapshots of what is revoked.",
        ("write", write, "vagus snapshot write --out revoked.snapshot --hours 24"),
        ("key", key, "vagus snapshot key --out snapshot-key.pem"),
        ("show", show, "vagus snapshot show revoked.snapshot --key snapshot-key.pem"),
    )


def write(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to; replaced at once as a whole.")],
    one_in: Annotated[
        int, typer.Option(min=2, max=1 << 24, help="Of good certificates, one in this many looks revoked by chance.")
    ] = 100,
    hours: Annotated[int, typer.Option(min=1, max=168, help="How long verifiers may use it.")] = 24,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Write everything that is revoked now into one small signed file, for gateways that decide offline.

    Needs the passphrase of the keystore `snapshot`, whose key is made at the first time. `vagus validate --snapshot`
    reads it. Refused over a database that was brought back until its gap is closed.
    """
    from vagus.durable_files import GROUP_FILE, replace_durably

    check_place(out)  # check the output file before a snapshot number is used for it
    with open_installation(context, passphrase_source) as installation:
        snapshots, actor = installation.operations.snapshots, installation.actor
        made = snapshots.make(actor, one_in=one_in, lifetime=timedelta(hours=hours))
        replace_durably(out, made.snapshot_der, GROUP_FILE)
    size = len(made.snapshot_der)
    per = None if not made.revoked else round(8 * size / made.revoked, 1)
    Output(json).facts(
        {"file": str(out), "bytes": size, "bits_per_revoked": per, **_shown(made.facts), "revoked": made.revoked}
    )


def key(
    context: typer.Context,
    *,
    out: OutOption = None,
    replace: ReplaceOption = False,
    passphrase_source: PassphraseOption = None,
) -> None:
    """Write the public key that signs snapshots as PEM: what verifiers are given by hand, beside their anchors.

    A file that exists is left as it is and refused, unless --replace is given.
    """
    from vagus.x509.pem import encode_block

    with open_installation(context, passphrase_source) as installation:
        spki_der = installation.operations.snapshots.read_key(installation.actor)
    write_public(encode_block(spki_der, "PUBLIC KEY"), out, may_replace=replace)


def show(
    snapshot: Annotated[Path, typer.Argument(metavar="FILE", help="A snapshot.")],
    *,
    signer: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Verify it with this key, PEM.")] = None,
    json: JsonOption = False,
) -> None:
    """Show what a snapshot says of itself; with --key, only if that key signed it."""
    from vagus.wire.snapshots import decode_snapshot, verify_snapshot

    found = decode_file(snapshot, decode_snapshot)
    if signer is not None:
        verify_snapshot(found, read_block(signer, "PUBLIC KEY"))
    Output(json).facts({**_shown(found.facts), "revoked": found.count, "is_verified": signer is not None})


def _shown(facts: SnapshotFacts) -> dict[str, str | int]:
    return {
        "number": facts.number,
        "made_at": f"{facts.made_at:%Y-%m-%dT%H:%M:%SZ}",
        "next_update": f"{facts.next_update:%Y-%m-%dT%H:%M:%SZ}",
        "one_in": facts.one_in,
        "issuers": len(facts.issuers),
        "key_sha256": facts.key_sha256.hex(),
    }
