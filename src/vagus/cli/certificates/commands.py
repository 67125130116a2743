"""`vagus cert find|show|export`: certificates of every kind that this installation holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vagus.cli.certificate_text import spell_serial
from vagus.cli.certificates import options
from vagus.cli.files import write_public
from vagus.cli.options import OutOption, ReplaceOption, add_group, decode_moment, decode_period, open_installation
from vagus.cli.output import CsvOption, JsonOption, Output, Row, check_one_format, csv_lines, facts_of, spell_time

if TYPE_CHECKING:
    from vagus.operations.certificates import Certificate, CertificatePage

CertificateArgument = Annotated[
    str,
    typer.Argument(
        metavar="CERTIFICATE",
        help="Its serial (as `cert find` takes it), h1/icu#1:SERIAL, SHA-256 or the first 8 digits of it, or its id.",
    ),
]
_COLUMNS = ("serial", "issuer", "profile", "state", "not_after", "unit", "subject", "id")
_ALL = (
    *("id", "serial", "issuer", "profile", "state", "not_before", "not_after", "device", "unit", "category"),
    *("key_algorithm", "key_sha256", "fingerprint", "subject", "names"),
)


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "cert",
        "Certificates of every kind: of devices, servers, makers' lines, authorities and OCSP responders.",
        ("find", find, "vagus cert find --unit h1/icu --expires-within 60d", "vagus cert find --san gw.h1.example.org"),
        ("show", show, "vagus cert show 4A:01:9F:3C"),
        ("export", export, "vagus cert export 4A:01:9F:3C --form fullchain --out pump.pem"),
    )


def find(
    context: typer.Context,
    *,
    serial: options.Serial = None,
    subject: options.Subject = None,
    san: options.San = None,
    device: options.Device = None,
    unit: options.Unit = None,
    category: options.Category = None,
    profile: options.ProfileName = None,
    algorithm: options.Algorithm = None,
    issuer: options.Issuer = None,
    fingerprint: options.Fingerprint = None,
    issued_after: options.IssuedAfter = None,
    issued_before: options.IssuedBefore = None,
    expires_after: options.ExpiresAfter = None,
    expires_before: options.ExpiresBefore = None,
    expires_within: options.ExpiresWithin = None,
    state: options.State = None,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Begin after the certificate of this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    csv: CsvOption = False,
    json: JsonOption = False,
) -> None:
    """Find certificates by anything that is known of them; what is given together narrows.

    They are sorted by their end, with --issued-after or --issued-before by their begin. The end of a page shows the
    option for the next one. Whole values are compared, without case; there are no wildcards.
    """
    from vagus.operations.certificate_queries import CertificateSearch

    check_one_format(csv=csv, json=json)
    who = (serial, subject, san, device, unit, category, profile, algorithm, issuer, fingerprint)
    when = (
        None if issued_after is None else decode_moment(issued_after, "--issued-after"),
        None if issued_before is None else decode_moment(issued_before, "--issued-before"),
        None if expires_after is None else decode_moment(expires_after, "--expires-after"),
        None if expires_before is None else decode_moment(expires_before, "--expires-before"),
    )
    within = None if expires_within is None else decode_period(expires_within, "--expires-within")
    with open_installation(context) as installation:
        page = installation.operations.certificates.find_page(
            installation.actor, CertificateSearch(*who, *when, within, state), after=after, limit=limit
        )
    _print_page(page, is_csv=csv, is_json=json)


def _print_page(page: CertificatePage, *, is_csv: bool, is_json: bool) -> None:
    rows = [_row(one) for one in page.certificates]
    if is_csv:
        typer.echo("".join(csv_lines(_ALL, rows)), nl=False)
    elif rows or is_json:
        Output(is_json).rows("Certificates", _COLUMNS, rows)
    else:
        typer.echo("no certificates")
    if page.after is not None:
        typer.echo(f"More follow: --after {page.after}, or --limit.", err=is_csv or is_json)


def show(context: typer.Context, certificate: CertificateArgument, *, json: JsonOption = False) -> None:
    """Show one certificate: names, dates, device and place, and if it is revoked why, when, by whom and where noted."""
    with open_installation(context) as installation:
        found = installation.operations.certificates.show(installation.actor, certificate)
    device, revoked = found.device, found.revocation
    facts: Row = {
        **_row(found.certificate),
        "days_left": "no end" if found.days_left is None else found.days_left,
        "model": None if device is None else device.model,
        "device_serial": None if device is None else device.maker_serial,
        "device_state": None if device is None else device.state,
        "place": None if device is None else device.place,
        "revocation_reason": None if revoked is None else revoked.reason,
        "revoked_at": None if revoked is None else spell_time(revoked.at),
        "revoked_by": None if revoked is None else revoked.by,
        "ledger_entry": None if revoked is None else revoked.ledger_entry,
    }
    Output(json).facts({name: value for name, value in facts.items() if json or value is not None})


def export(
    context: typer.Context,
    certificate: CertificateArgument,
    *,
    form: Annotated[
        Literal["pem", "der", "chain", "fullchain", "p7b"],
        typer.Option(help="PEM or DER of it alone; with the CAs above it, without or with the root; all as PKCS #7."),
    ] = "pem",
    out: OutOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Write a certificate to a file, alone or with the CAs above it. Never a key.

    `chain` is what a TLS server sends: the certificate and its CAs without the root. `fullchain` and `p7b` have the
    root too, where it is known here. A file that exists is left as it is and refused, unless --replace is given.
    """
    with open_installation(context) as installation:
        found = installation.operations.certificates.export(installation.actor, certificate)
    write_public(encode_form(found.leaf, found.above, found.root, form), out, may_replace=replace)


def encode_form(leaf: bytes, above: tuple[bytes, ...], root: tuple[bytes, ...], form: str) -> bytes:
    """A certificate (DER) in one of the forms of `export`; `above` are the CAs without the root, nearest first."""
    from vagus.wire.bundles import BundleForm, encode_bundle

    shown = () if form in {"pem", "der"} else above if form == "chain" else (*above, *root)
    written = BundleForm.PEM if form in {"chain", "fullchain"} else BundleForm(form)
    return encode_bundle([("", der) for der in (leaf, *shown)], written, password=b"")


def _row(one: Certificate) -> Row:
    row, facts = one.row, one.facts
    return {
        **facts_of(one, "id", "issuer", "state", "unit", "category"),
        "serial": spell_serial(row.serial),
        "not_before": spell_time(row.not_before),
        "not_after": spell_time(row.not_after),
        "device": row.device_id,
        **facts_of(row, "profile", "key_algorithm"),
        "fingerprint": row.fingerprint.hex() if row.fingerprint else None,
        "key_sha256": row.spki_sha256.hex(),
        "subject": facts.subject or None,
        "names": list(facts.alternative_names),
    }
