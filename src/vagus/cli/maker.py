"""`vagus maker make-idevids|manifest`: a maker's line, from the outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.files import naming, read_blocks
from vagus.cli.options import PassphraseOption, example, open_installation
from vagus.cli.output import JsonOption, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vagus.fleet.idevid_issuance import Birth
    from vagus.policy.plans import MakerPlan, PlannedBatch
    from vagus.records.engine.writer import Batch
    from vagus.wiring import Installation
    from vagus.x509.keys import PublicKey

BatchOption = Annotated[
    list[str] | None, typer.Option("--batch", metavar="NAME", help="A batch of the plan; all if left out. Repeatable.")
]


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(
        help="A maker's line: birth certificates for its devices, and the manifest for hospitals.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    lines = ("vagus --dir maker maker make-idevids --requests requests --out idevids",)
    group.command("make-idevids", epilog=example(*lines))(make_idevids)
    group.command("manifest", epilog=example("vagus --dir maker maker manifest --out manifest.json"))(write_manifest)
    application.add_typer(group, name="maker")


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
    from vagus.errors import Malformed
    from vagus.fleet.idevid_issuance import Birth, Line
    from vagus.reasons import Reason
    from vagus.x509.pem import encode_certificates

    if (requests is None) is not unsafe_make_keys:
        msg = "give the folder of the devices' requests with --requests, or --unsafe-make-keys for a demonstration"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    output = Output(json)
    with open_installation(context, passphrase_source) as installation:
        plan = _plan(installation)
        wanted = _chosen(plan, batch, serial)
        births: list[Birth] = []
        with output.progress("Reading requests" if requests else "Making keys", len(wanted)) as advance:
            for model, number in wanted:
                key = _request_key(requests, number) if requests is not None else _make_key(out / number)
                births.append(Birth(model, number, key))
                advance(1)
        _check_first(installation, births, is_again=again)
        line = Line(
            installation.issuance,
            installation.open_issuers(["line"])["line"],
            maker=plan.title,
            country=plan.country,
            hardware_type=f"{installation.pack.arc}.4",
        )
        with output.progress("Issuing", len(births)) as advance:
            issued = line.issue(births, advance)
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
    batch: BatchOption = None,
    json: JsonOption = False,
) -> None:
    """Write the manifest for hospitals: which devices were made, and under which anchor.

    It is not signed: hospitals get the root's certificate (`vagus ca export root`) by a way that they trust.
    """
    import hashlib

    from vagus.errors import Conflict
    from vagus.fleet.idevid_issuance import owner_of
    from vagus.fleet.manifests import MadeDevice, MadeModel, Manifest, encode_manifest
    from vagus.reasons import Reason
    from vagus.records.authorities import find_newest
    from vagus.records.plan_rows import list_fingerprints

    with open_installation(context) as installation:
        plan = _plan(installation)
        wanted = _chosen(plan, batch, None)
        with installation.database.reading() as connection:
            root = find_newest(connection, "root")
            born = list_fingerprints(connection, [owner_of(number) for _, number in wanted])
    if root is None or root.certificate_der is None:
        raise Conflict(Reason.CEREMONY_NEEDED, "the maker's root has no certificate yet; run: vagus ceremony")
    made = {model for model, _ in wanted}
    manifest = Manifest(
        plan.title,
        hashlib.sha256(root.certificate_der).digest(),
        tuple(MadeModel(one.name, one.category) for one in plan.models if one.name in made),
        tuple(
            MadeDevice(model, number, fingerprint.hex() if fingerprint else None)
            for model, number in wanted
            for fingerprint in [born.get(owner_of(number))]
        ),
    )
    out.write_bytes(encode_manifest(manifest))
    output = Output(json)
    output.facts(
        {
            "file": str(out),
            "anchor_sha256": manifest.anchor_sha256.hex(),
            "devices": len(manifest.devices),
            "certified": len(born),
        }
    )


def _plan(installation: Installation) -> MakerPlan:
    from vagus.errors import Conflict
    from vagus.policy.plans import MakerPlan
    from vagus.reasons import Reason

    plan = installation.planning.load_adopted()
    if not isinstance(plan, MakerPlan):
        msg = "this is a hospital's installation; birth certificates are made in the maker's own"
        raise Conflict(Reason.AUTHORITY_UNKNOWN, msg)
    return plan


def _chosen(plan: MakerPlan, names: Sequence[str] | None, serials: Sequence[str] | None) -> list[tuple[str, str]]:
    """(model, serial) of every device that was asked for, in the order of the plan."""
    from vagus.errors import Malformed
    from vagus.reasons import Reason

    batches: dict[str, PlannedBatch] = {one.name: one for one in plan.batches}
    for name in names or ():
        if name not in batches:
            msg = f"the plan has no batch {name!r}; there are {', '.join(batches) or 'none'}"
            raise Malformed(Reason.BAD_ARGUMENT, msg, batch=name)
    every = [(one.model, number) for one in plan.batches if not names or one.name in names for number in one.serials]
    if serials is None:
        return every
    unknown = set(serials) - {number for _, number in every}
    if unknown:
        msg = f"serial {min(unknown)} is in none of these batches; see the plan"
        raise Malformed(Reason.BAD_ARGUMENT, msg, serial=min(unknown))
    return [(model, number) for model, number in every if number in set(serials)]


def _check_first(installation: Installation, births: Sequence[Birth], *, is_again: bool) -> None:
    """A second identity of one serial number is either a new board or a clone: somebody has to say which."""
    from vagus.errors import Conflict
    from vagus.fleet.idevid_issuance import owner_of
    from vagus.ledger.append import append
    from vagus.ledger.entries import OperatorAct
    from vagus.reasons import Reason
    from vagus.records.plan_rows import list_other_births

    keys = {owner_of(one.serial): one.public_key.spki_sha256 for one in births}
    with installation.database.reading() as connection:
        born = list_other_births(connection, keys)
    if not born:
        return
    if not is_again:
        serial = born[0].partition(":")[2]
        msg = (
            f"{len(born)} of these devices have a birth certificate for another key, {serial} among them; leave them "
            "out, or give --again where the board was replaced"
        )
        raise Conflict(Reason.ALREADY_EXISTS, msg, serial=serial)
    by = installation.actor.id

    def note(batch: Batch) -> None:
        for owner in born:
            append(batch, OperatorAct("idevid-again", by, subject=owner, detail_sha256=keys[owner]))

    installation.writer.submit(note).result()


def _request_key(folder: Path, serial: str) -> PublicKey:
    from vagus.errors import Malformed
    from vagus.reasons import Reason
    from vagus.x509.requests import decode_request

    path = folder / f"{serial}.csr"
    if not path.is_file():
        msg = f"{path}: there is no request of this device; put it there (DER or PEM), or choose others with --serial"
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
