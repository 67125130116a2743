"""`vagus maker make-idevids|list|show|revoke|manifest`: a maker's line, from the outside."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.failures import REFUSED
from vagus.cli.files import check_new, decode_file, write_public
from vagus.cli.options import REASONS, PassphraseOption, ReplaceOption, add_group, open_installation
from vagus.cli.output import (
    CsvOption,
    JsonOption,
    Output,
    Row,
    YesOption,
    check_one_format,
    csv_lines,
    facts_of,
    spell_time,
)
from vagus.cli.revocation.arguments import read_act, read_stages
from vagus.cli.revocation.commands import LateOption, StagesOption, preview_and_propose
from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vagus.fleet.line.selection import ChosenSerials, LineSelection
    from vagus.fleet.line.signing import LineFile, LineOutcome
    from vagus.operations.maker_line import LineDevice
    from vagus.x509.keys import PublicKey

LotOption = Annotated[
    list[str] | None, typer.Option("--lot", "--batch", metavar="NAME", help="A batch of the plan. Repeatable.")
]
SerialOption = Annotated[
    list[str] | None, typer.Option("--serial", metavar="SERIAL", help="A device by its serial number. Repeatable.")
]
ListOption = Annotated[
    Path | None,
    typer.Option("--serials", metavar="FILE.csv", help="A list of serial numbers, in a column 'serial' or alone."),
]
_FILES = ("file", "serial", "state", "reason", "message", "certificate")
_DEVICES = ("serial", "model", "lot", "state", "certificates", "certificate", "issued", "reason", "revoked_at")
_BIRTHS = ("serial", "model", "lot", "state", "certificate", "issued", "reason", "revoked_at", "revoked_by", "issuer")
_LOTS = ("lot", "model", "first", "last", "devices", "certified", "revoked", "held", "without_certificate")


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "maker",
        "A maker's line: birth certificates for its devices, and the manifest for hospitals.",
        (
            "make-idevids",
            make_idevids,
            "vagus --dir maker maker make-idevids --requests requests --out idevids",
            "vagus --dir maker maker make-idevids --requests requests --serials lot-7.csv --out idevids --csv",
        ),
        ("list", list_devices, "vagus --dir maker maker list --lot lot-7 --csv"),
        ("show", show, "vagus --dir maker maker show --serial AIP3-000002", "vagus --dir maker maker show --lot lot-7"),
        ("revoke", revoke, "vagus --dir maker maker revoke --lot lot-7 --reason keyCompromise"),
        ("manifest", write_manifest, "vagus --dir maker maker manifest --out manifest.json"),
    )


def make_idevids(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Certificates go to FOLDER/SERIAL/certificate.pem.")],
    lot: LotOption = None,
    serial: SerialOption = None,
    serials: ListOption = None,
    requests: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The devices' requests, SERIAL.csr, DER or PEM.")
    ] = None,
    unsafe_make_keys: Annotated[
        bool, typer.Option("--unsafe-make-keys", help="Make the keys here, in clear: demonstrations only.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also devices that have one for another key: a new board. In the ledger.")
    ] = False,
    ignore_names: Annotated[
        bool, typer.Option("--ignore-names", help="Accept text that is no serial number of the line in requests.")
    ] = False,
    passphrase_source: PassphraseOption = None,
    csv: CsvOption = False,
    json: JsonOption = False,
) -> None:
    """Issue birth certificates (802.1AR IDevIDs) for the devices whose requests lie in a folder.

    Needs the plan's ceremony, the passphrase of `line`, and a request (PKCS#10; the key never leaves the device) as
    SERIAL.csr. Every file is reported as signed, known (certified before with this key) or refused, with the reason. A
    refused file stops no other; exit code 1. A request that names another device than its file is refused, as is text
    that is no serial number, unless --ignore-names says that all devices have it.
    """
    if (requests is None) is not unsafe_make_keys:
        msg = "no key source for birth certificates: give --requests FOLDER, or --unsafe-make-keys for a demonstration"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    check_one_format(csv=csv, json=json)
    output, selection = Output(json), _selection(lot, serial, serials)
    with open_installation(context, passphrase_source) as installation:
        line, actor = installation.operations.maker_line, installation.actor
        chosen = line.choose(actor, selection)
        files = _find_files(requests, selection, chosen) if requests is not None else _make_files(out, chosen)
        rows: list[Row] = []
        with output.progress("Issuing", len(files)) as advance:
            for one in line.sign(actor, files, selection, is_again=again, ignores_names=ignore_names):
                rows.append(_take(one, out))
                advance(1)
    rows.sort(key=lambda row: str(row["file"]))
    states = [row["state"] for row in rows]
    facts: Row = {
        "issued": states.count("signed"),
        **{state: states.count(state) for state in ("known", "refused")},
        "without_request": len(chosen) - len({row["serial"] for row in rows if chosen.find(str(row["serial"]))}),
        "left_alone": 0 if requests is None else len(_list_names(requests) - {row["file"] for row in rows}),
        "folder": str(out),
    }
    _report(rows, facts, is_csv=csv, is_json=json)
    if "refused" in states:
        raise typer.Exit(REFUSED)


def list_devices(
    context: typer.Context,
    *,
    lot: LotOption = None,
    serial: SerialOption = None,
    serials: ListOption = None,
    after: Annotated[str | None, typer.Option(metavar="SERIAL", help="Begin after this device.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    csv: CsvOption = False,
    json: JsonOption = False,
) -> None:
    """List the devices of lots, serial numbers or a list, with or without a birth certificate.

    Without any of these, all that the line certified, by serial number. `state` is that of the newest certificate;
    `none` before the first. The end of a page shows the option for the next one.
    """
    check_one_format(csv=csv, json=json)
    output, selection = Output(json), _selection(lot, serial, serials)
    with open_installation(context) as installation:
        line, actor = installation.operations.maker_line, installation.actor
        found = line.list_devices(actor, selection, after=after, limit=limit + 1)
    rows = [_device_row(one) for one in found[:limit]]
    if csv:
        typer.echo("".join(csv_lines(_DEVICES, rows)), nl=False)
    else:
        output.rows("Devices", _DEVICES, rows)
    if len(found) > limit:
        typer.echo(f"More follow: --after {found[limit - 1].serial}, or --limit.", err=csv or json)


def show(
    context: typer.Context, *, lot: LotOption = None, serial: SerialOption = None, json: JsonOption = False
) -> None:
    """Show every birth certificate of a device by its serial number, or how far lots are; without options, all lots."""
    from vagus.fleet.line.selection import LineSelection

    with open_installation(context) as installation:
        line, actor = installation.operations.maker_line, installation.actor
        selection = LineSelection(serials=serial or ())
        devices = line.list_devices(actor, selection, limit=len(serial)) if serial else ()
        lots = line.count_lots(actor, lot or ()) if lot or not serial else ()
    births = [row for one in devices for row in _birth_rows(one)]
    counts = [facts_of(one, *_LOTS) for one in lots]
    output = Output(json)
    if json:
        output.facts({"certificates": births, "lots": counts})
        return
    if devices:
        output.rows("Birth certificates", _BIRTHS, births)
    if lots or not devices:
        output.rows("Lots", _LOTS, counts)


def revoke(
    context: typer.Context,
    *,
    lot: LotOption = None,
    serial: SerialOption = None,
    serials: ListOption = None,
    reason: Annotated[str | None, typer.Option(metavar="REASON", help=f"{REASONS}. Left out: unspecified.")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Suspend them instead; --release takes it back.")] = False,
    release: Annotated[bool, typer.Option("--release", help="End their holds instead.")] = False,
    stages: StagesOption = "1,10,50",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the counts and stop; nothing is written.")] = False,
    ignore_late_lists: LateOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Revoke, hold or release the birth certificates of lots, serial numbers or a list, by a plan as `vagus revoke`.

    They are in the line's next CRL, which `vagus serve` publishes: send it to the hospitals. From the moment when the
    revocation of a lot is proposed for keyCompromise, cessationOfOperation or privilegeWithdrawn, the line certifies
    the devices of the lot that have no certificate yet with --again alone.
    """
    from vagus.operations.revocation import RevocationRequest

    (act, why), percents, output = read_act(reason, is_hold=hold, is_release=release), read_stages(stages), Output(json)
    selection = _selection(lot, serial, serials)
    with open_installation(context) as installation:
        target, without = installation.operations.maker_line.find_targets(installation.actor, selection)
        if without:
            note = f"{without} of the devices have no birth certificate yet"
            typer.echo(f"vagus: {note}", err=True)
        request = RevocationRequest(act=act, reason=why, target=target, stages=percents)
        preview_and_propose(
            installation, request, output, is_dry=dry_run, is_assumed=yes, ignores_late_crls=ignore_late_lists
        )


def write_manifest(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the manifest goes.")],
    replace: ReplaceOption = False,
    lot: LotOption = None,
    serials: ListOption = None,
    json: JsonOption = False,
) -> None:
    """Write the manifest for hospitals: which devices were made, and under which anchor.

    It is not signed: hospitals get the root's certificate (`vagus ca export root`) by a way that they trust.
    A file that exists is left as it is and refused, unless --replace is given.
    """
    from vagus.fleet.manifests import encode_manifest

    check_new(out, may_replace=replace)
    selection = _selection(lot, None, serials)
    with open_installation(context) as installation:
        manifest, certified = installation.operations.maker_line.make_manifest(installation.actor, selection)
    write_public(encode_manifest(manifest), out, may_replace=replace)
    output = Output(json)
    output.facts(
        {
            "file": str(out),
            "anchor_sha256": manifest.anchor_sha256.hex(),
            "devices": len(manifest.devices),
            "certified": certified,
        }
    )


def _selection(lots: Sequence[str] | None, serials: Sequence[str] | None, listed: Path | None) -> LineSelection:
    from vagus.fleet.line.selection import LineSelection, decode_serials

    found = () if listed is None else decode_file(listed, decode_serials)
    return LineSelection(lots=lots or (), serials=serials or (), listed=found)


def _find_files(folder: Path, selection: LineSelection, chosen: ChosenSerials) -> list[LineFile]:
    """The requests of a folder that are meant: all of it, where nothing is selected.

    A serial number that is named one by one has its row, also without a file. Raises Malformed(BAD_ARGUMENT) where
    there is none, and OSError.
    """
    from vagus.fleet.line.signing import LineFile

    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".csr"]
    meant = [path for path in paths if selection.is_empty or chosen.find(path.stem) is not None]
    if not meant:
        msg = f"{folder}: no request SERIAL.csr of the devices that are meant; put them there (DER or PEM)"
        raise Malformed(Reason.BAD_ARGUMENT, f"{msg}, or select others by --lot or --serial")
    missing = set(selection.serials) - {path.stem for path in meant}
    meant += [folder / f"{one}.csr" for one in sorted(missing)]
    return [LineFile(path.name, path.stem, partial(_load_request, path)) for path in meant]


def _list_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def _load_request(path: Path) -> bytes:
    """The request in a file, DER. Raises Malformed without the file's name, which the caller puts before it."""
    from vagus.x509.pem import REQUEST, decode_one
    from vagus.x509.requests import LARGEST_REQUEST

    if not path.is_file():
        raise Malformed(Reason.BAD_ARGUMENT, "there is no regular file of this name; put the device's request there")
    try:
        with path.open("rb") as stream:
            raw = stream.read(2 * LARGEST_REQUEST + 1)
    except OSError as fault:
        msg = f"the file cannot be read ({fault.strerror}); check its owner"
        raise Malformed(Reason.BAD_ARGUMENT, msg) from fault
    if len(raw) > 2 * LARGEST_REQUEST:
        msg = f"the file exceeds {2 * LARGEST_REQUEST} bytes; is it a certificate request?"
        raise Malformed(Reason.TOO_LARGE, msg)
    return decode_one(raw, REQUEST)


def _make_files(out: Path, chosen: ChosenSerials) -> list[LineFile]:
    from vagus.fleet.line.signing import LineFile

    return [LineFile(f"{one.serial}/key.pem", one.serial, partial(_make_key, out / one.serial)) for one in chosen]


def _make_key(folder: Path) -> PublicKey:
    """A key in clear beside its certificate, kept when it is there already."""
    import os

    from vagus.keystore import private_keys
    from vagus.x509.algorithms import KeyAlgorithm
    from vagus.x509.keys import decode_public_key

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "key.pem"
    if path.exists():
        private = private_keys.decode_pem(path.read_bytes(), None)
    else:
        private = private_keys.generate(KeyAlgorithm.P256)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(private_keys.encode_clear_pem(private))
    return decode_public_key(private_keys.spki_of(private))


def _take(one: LineOutcome, out: Path) -> Row:
    """Write the certificate of a device beside the line CA's, whole or not at all; gives its row."""
    from vagus.durable_files import PUBLIC_FILE, replace_file
    from vagus.x509.pem import encode_certificates

    path = out / one.serial / "certificate.pem"
    if one.chain:
        content = encode_certificates(one.chain)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != content:
            replace_file(path, content, PUBLIC_FILE)
    return {
        **facts_of(one, "file", "serial", "state", "reason", "message"),
        "certificate": str(path) if one.chain else None,
    }


def _report(rows: Sequence[Row], facts: Row, *, is_csv: bool, is_json: bool) -> None:
    if is_csv:
        typer.echo("".join(csv_lines(_FILES, rows)), nl=False)
    elif is_json:
        Output(is_json).facts({**facts, "files": rows})
    else:
        Output(is_json).rows("Requests", _FILES[:-1], rows)
        Output(is_json).facts(facts)


def _device_row(one: LineDevice) -> Row:
    rows = _birth_rows(one)
    return {**rows[-1], "certificates": len(one.births)}


def _birth_rows(one: LineDevice) -> list[Row]:
    """A row for each certificate of a device, or one that says that it has none."""
    named: Row = facts_of(one, "serial", "model", "lot")
    rows: list[Row] = [
        {
            **named,
            **facts_of(birth.described, "state", "reason", "revoked_by"),
            "certificate": f"{birth.described.serial:x}",
            "issuer": birth.described.authority,
            "issued": spell_time(birth.row.not_before),
            "revoked_at": spell_time(birth.described.revoked_at),
            "fingerprint": birth.row.fingerprint.hex() if birth.row.fingerprint else None,
            "key_sha256": birth.row.spki_sha256.hex(),
        }
        for birth in one.births
    ]
    return rows or [{**named, "state": "none"}]
