"""`vagus maker make-idevids|manifest`: a maker's line, from the outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.files import check_new, naming, read_blocks, write_public
from vagus.cli.options import PassphraseOption, ReplaceOption, add_group, open_installation
from vagus.cli.output import JsonOption, Output
from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.x509.keys import PublicKey

BatchOption = Annotated[
    list[str] | None, typer.Option("--batch", metavar="NAME", help="A batch of the plan; all if left out. Repeatable.")
]


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "maker",
        "A maker's line: birth certificates for its devices, and the manifest for hospitals.",
        ("make-idevids", make_idevids, "vagus --dir maker maker make-idevids --requests requests --out idevids"),
        ("manifest", write_manifest, "vagus --dir maker maker manifest --out manifest.json"),
    )


def make_idevids(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Certificates go to FOLDER/SERIAL/certificate.pem.")],
    batch: BatchOption = None,
    serial: Annotated[
        list[str] | None, typer.Option(metavar="SERIAL", help="Only these of the batches. Repeatable.")
    ] = None,
    requests: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The devices' requests, SERIAL.csr, DER or PEM.")
    ] = None,
    unsafe_make_keys: Annotated[
        bool, typer.Option("--unsafe-make-keys", help="Make the keys here, in clear: demonstrations only.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also devices that have one for another key: a new board. In the ledger.")
    ] = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Issue birth certificates (802.1AR IDevIDs) for devices of the plan's batches, one for each device.

    Needs the plan's ceremony, the passphrase of `line`, and each device's request (PKCS#10; the key never leaves the
    device). Repeated for the same keys it writes the same certificates.
    """
    from vagus.fleet.idevid_issuance import LineDevice
    from vagus.x509.pem import encode_certificates

    if (requests is None) is not unsafe_make_keys:
        msg = "no key source for birth certificates: give --requests FOLDER, or --unsafe-make-keys for a demonstration"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    output = Output(json)
    with open_installation(context, passphrase_source) as installation:
        line, actor = installation.operations.maker_line, installation.actor
        wanted = line.choose(actor, batches=batch, serials=serial)
        births: list[LineDevice] = []
        with output.progress("Reading requests" if requests else "Making keys", len(wanted)) as advance:
            for model, number in wanted:
                key = _request_key(requests, number) if requests is not None else _make_key(out / number)
                births.append(LineDevice(model, number, key))
                advance(1)
        with output.progress("Issuing", len(births)) as advance:
            issued = line.issue_idevids(actor, births, is_again=again, advance=advance)
        for birth, made in zip(births, issued, strict=True):
            folder = out / birth.serial
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            chain = (made.der, made.issuer.certificate_der)
            (folder / "certificate.pem").write_bytes(encode_certificates(chain))
    output.facts({"issued": len(issued), "folder": str(out)})


def write_manifest(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the manifest goes.")],
    replace: ReplaceOption = False,
    batch: BatchOption = None,
    json: JsonOption = False,
) -> None:
    """Write the manifest for hospitals: which devices were made, and under which anchor.

    It is not signed: hospitals get the root's certificate (`vagus ca export root`) by a way that they trust.
    A file that exists is left as it is and refused, unless --replace is given.
    """
    from vagus.fleet.manifests import encode_manifest

    check_new(out, may_replace=replace)
    with open_installation(context) as installation:
        manifest, certified = installation.operations.maker_line.make_manifest(installation.actor, batches=batch)
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


def _request_key(folder: Path, serial: str) -> PublicKey:
    from vagus.x509.requests import decode_request

    path = folder / f"{serial}.csr"
    if not path.is_file():
        msg = f"{path}: no certificate request for this device; put it there (DER or PEM), or select others by --serial"
        raise Malformed(Reason.BAD_ARGUMENT, msg, serial=serial)
    found = read_blocks(path, "CERTIFICATE REQUEST")
    with naming(path):
        return decode_request(found[0]).public_key


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
