"""`vagus device certify|pkcs12`: certificates for devices that cannot run the agent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vagus.cli.certificate_text import spell_serial
from vagus.cli.files import check_new, decode_file, is_replaceable, write_public
from vagus.cli.options import DeviceArgument, PassphraseOption, ReplaceOption, open_installation
from vagus.cli.output import JsonOption, Output, Row, spell_time
from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.operations.certification.device_certificates import ApprovedCertificate
    from vagus.x509.requests import CertificateRequest

_Form = Literal["pem", "der", "chain", "fullchain", "p7b"]
_FILES: dict[_Form, str] = {
    "pem": "certificate.pem",
    "der": "certificate.der",
    "chain": "chain.pem",
    "fullchain": "fullchain.pem",
    "p7b": "chain.p7b",
}
_LabelOption = Annotated[
    Literal["server", "sdc"] | None,
    typer.Option(
        "--label",
        help="server: with its host names in the inventory; sdc: what it shows to SDC peers; left out: its own.",
    ),
]
_ReasonOption = Annotated[
    str | None,
    typer.Option(
        "--reason-for-weak-key",
        metavar="TEXT",
        help="Why a key of RSA-2048 must be used: one line, stored in the ledger for ever. Name no person.",
    ),
]


def certify(
    context: typer.Context,
    device: DeviceArgument,
    *,
    request: Annotated[
        Path, typer.Option("--request", metavar="FILE", help="The device's PKCS#10 request: PEM, DER or base64.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER|FILE", help="An existing folder for all forms, or a file for one of them.")
    ],
    form: Annotated[
        _Form | None,
        typer.Option(help="The form of FILE, as `cert export` has it; chain if left out: the certificate and its CAs."),
    ] = None,
    label: _LabelOption = None,
    reason_for_weak_key: _ReasonOption = None,
    replace: ReplaceOption = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Certify a request that a device made itself, for example in its web page; you vouch that it is the device's.

    No agent and no token is needed: the ledger records you. Names come from the inventory, the key alone from the
    request. The state of the device, holds and the policy count as when it enrols. The same request gets the same
    certificate again, until its time to renew comes. Such a device does not renew by itself: `vagus report expiry`.
    """
    from vagus.operations.certification.device_certificates import CertificateWish

    is_folder = out.is_dir()
    if is_folder and form is not None:
        msg = f"{out} is a folder, which gets all forms; leave --form out, or name a file in it"
        raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(out))
    forms: tuple[_Form, ...] = tuple(_FILES) if is_folder else (form or "chain",)
    files = {one: out / _FILES[one] if is_folder else out for one in forms}
    for path in files.values():
        _check_place(path, may_replace=replace)
    wish = CertificateWish(device=device, label=label, weak_key_reason=reason_for_weak_key)
    with open_installation(context, passphrase_source) as installation:
        read = _read_request(request)
        made = installation.operations.device_certificates.certify(installation.actor, wish, read)
    for one, path in files.items():
        write_public(_encode(made, one), path, may_replace=replace)
    output = Output(json)
    output.facts({**_row(made), "is_repeat": made.is_repeat, "files": [str(path) for path in files.values()]})
    if made.is_repeat:
        output.say("This key was certified before: the files hold that certificate, and no new one was made.")


def pkcs12(
    context: typer.Context,
    device: DeviceArgument,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The PKCS#12 file to make, with mode 0600.")],
    password_source: Annotated[
        str,
        typer.Option(
            metavar="fd:N|file:PATH|env:NAME",
            help="Where the file's password is read from: 8 or more printable ASCII characters.",
        ),
    ],
    key: Annotated[Literal["p256", "p384", "rsa2048", "rsa3072", "rsa4096"], typer.Option(help="The key to make.")] = (
        "p256"
    ),
    legacy: Annotated[
        bool, typer.Option("--legacy", help="Triple DES and SHA-1, for devices that cannot read AES-256 and SHA-256.")
    ] = False,
    label: _LabelOption = None,
    reason_for_weak_key: _ReasonOption = None,
    replace: ReplaceOption = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key and a certificate for a device that can make none, as one PKCS#12 file to import there.

    The key is in that file alone: it is not stored here, and the ledger records that it was made here. Each call makes
    a new key and certificate; the one before stays valid until it ends or is revoked. Prefer `vagus device certify`,
    where the device can make a request: then its key never leaves it. Delete FILE when the device has it.
    """
    from vagus.keystore.passphrases import read_passphrase
    from vagus.operations.certification.device_certificates import CertificateWish
    from vagus.x509.algorithms import KeyAlgorithm

    _check_place(out, may_replace=replace)
    password = read_passphrase(password_source).unsafe_reveal()
    wish = CertificateWish(device=device, label=label, weak_key_reason=reason_for_weak_key)
    with open_installation(context, passphrase_source) as installation:
        made = installation.operations.device_certificates.make_pkcs12(
            installation.actor,
            wish,
            KeyAlgorithm(key),
            password,
            lambda content: _write_secret(out, content, may_replace=replace),
            is_legacy=legacy,
        )
    if legacy:
        typer.echo(
            "warning: triple DES and SHA-1 protect this file badly; carry it by hand and delete it at once", err=True
        )
    output = Output(json)
    output.facts({**_row(made), "key": key, "is_legacy": legacy, "file": str(out)})
    output.say("The key is in this file alone. A repeat makes another key and certificate, and this one stays valid.")


def _read_request(path: Path) -> CertificateRequest:
    from vagus.x509.pem import REQUEST, decode_one_or_base64
    from vagus.x509.requests import decode_request

    return decode_file(path, lambda raw: decode_request(decode_one_or_base64(raw, REQUEST)))


def _check_place(path: Path, *, may_replace: bool) -> None:
    """Check that the file can be written, before a certificate is made for it. Raises as `check_new`."""
    check_new(path, may_replace=may_replace)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        msg = f"folder {path.parent} cannot be written, so nothing was certified; name a file in another folder"
        raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(path))


def _write_secret(path: Path, content: bytes, *, may_replace: bool) -> None:
    """Write a file with mode 0600, whole or not at all; also to a medium without hard links, as USB sticks are."""
    from vagus.durable_files import replace_durably

    check_new(path, may_replace=may_replace)
    if not is_replaceable(path):
        msg = f"{path} is a device or a pipe, and the key would be lost with it; name a file"
        raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(path))
    replace_durably(path, content, has_rivals=True)


def _encode(made: ApprovedCertificate, form: _Form) -> bytes:
    """The forms of `vagus cert export`."""
    from vagus.cli.certificates.commands import encode_form

    return encode_form(made.leaf, made.above, made.root, form)


def _row(made: ApprovedCertificate) -> Row:
    return {
        "device": str(made.device.id),
        "serial": spell_serial(made.serial),
        "issuer": made.issuer,
        "not_after": spell_time(made.not_after),
    }
