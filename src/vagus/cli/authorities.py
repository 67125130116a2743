"""`vagus ca …`: commands of authorities, from their first request to an emergency CRL."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vagus.cli.ceremony import spell_crl
from vagus.cli.failures import REFUSED, STATE
from vagus.cli.files import decode_file, naming, read_blocks, read_certificates, read_crls, write_public
from vagus.cli.options import REASONS, OutOption, PassphraseOption, ReplaceOption, add_group, open_installation
from vagus.cli.output import (
    CsvOption,
    JsonOption,
    Output,
    Row,
    YesOption,
    check_confirmed,
    check_one_format,
    csv_lines,
    facts_of,
    print_table,
    spell_time,
)
from vagus.errors import Malformed
from vagus.identifiers import decode_serial
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vagus.operations.authorities import Authority, EarlierCertificate, EarlierCertificates, ImportedAuthority

NameArgument = Annotated[str, typer.Argument(metavar="AUTHORITY", help="h1/icu, or h1/icu#2 for one generation.")]
GenerationArgument = Annotated[
    str, typer.Argument(metavar="AUTHORITY#GENERATION", help="The generation, as in h1/icu#1.")
]


_CERTIFICATE_FILES = frozenset({".pem", ".crt", ".cer", ".der"})
CertificatesOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="Certificates that it issued: files, or folders of them. Repeatable."),
]
IndexOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The index.txt of `openssl ca`: what it issued and revoked.")
]


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    add_group(
        application,
        "ca",
        "Authorities: root, device CAs, the issuing CAs of units.",
        ("list", list_all),
        ("show", show),
        (
            "export",
            export,
            "vagus ca export h1/icu --chain --out icu.pem",
            "vagus ca export --roots --form truststore --out roots.p12",
            "vagus ca export --hospital h1 --form p7b --out h1.p7b",
        ),
        ("crls", crls, "vagus ca crls h1/icu h1/er --out crls.pem --replace", "nginx -s reload"),
        ("request", request, "vagus ca request h1 --out h1.csr", "openssl req -in h1.csr -noout -text"),
        ("accept", accept, "cat h1.pem their-root.pem > chain.pem", "vagus ca accept h1 chain.pem"),
        (
            "import",
            import_existing,
            "cat ca.pem root.pem > chain.pem",
            "openssl pkcs8 -topk8 -in ca.key -out ca.p8",
            "vagus ca import h1/icu chain.pem ca.p8 --key-password fd:3 --crl newest.crl 3< password",
        ),
        ("take-in", take_in, "vagus ca take-in h1/icu#1 newcerts --index index.txt --csv > taken.csv"),
        ("revoke-earlier", revoke_earlier, "vagus ca revoke-earlier h1/icu#1 0x4A01BC --reason keyCompromise"),
        ("roll", roll, "vagus ca roll h1/icu", "vagus ceremony"),
        ("retire", retire, "vagus ca retire h1/icu#1"),
        ("emergency", emergency, "vagus ca emergency hospital/keystores/h1/emergency/h1.icu.1.sealed"),
        ("forget-dates", forget_dates),
    )


def list_all(context: typer.Context, *, json: JsonOption = False) -> None:
    """List every generation of every authority: its kind, state, custody and end."""
    with open_installation(context) as installation:
        found = installation.operations.authorities.list_all(installation.actor)
    rows = [{**_facts(one), "not_after": spell_time(one.not_after)} for one in found]
    Output(json).rows("Authorities", ("authority", "kind", "state", "custody", "not_after"), rows)


def show(context: typer.Context, authority: NameArgument, *, json: JsonOption = False) -> None:
    """Show one authority: its parent, dates, key, fingerprint and how many of its certificates live."""
    with open_installation(context) as installation:
        found = installation.operations.authorities.show(installation.actor, authority)
    shown, certificate = found.authority, found.authority.certificate_der
    Output(json).facts(
        {
            **_facts(shown),
            "parent": found.parent,
            "not_before": spell_time(shown.not_before),
            "not_after": spell_time(shown.not_after),
            "key_sha256": shown.spki_sha256.hex(),
            "certificate_sha256": None if certificate is None else hashlib.sha256(certificate).hexdigest(),
            "live_certificates": found.live_certificates,
        }
    )


def export(
    context: typer.Context,
    authority: Annotated[
        str | None, typer.Argument(metavar="[AUTHORITY]", help="h1/icu, or h1/icu#2 for one generation.")
    ] = None,
    *,
    roots: Annotated[bool, typer.Option("--roots", help="All roots in place of one authority.")] = False,
    hospital: Annotated[
        str | None, typer.Option(metavar="LABEL", help="All authorities of a hospital and those above them.")
    ] = None,
    chain: Annotated[bool, typer.Option("--chain", help="With the certificates above it.")] = False,
    no_root: Annotated[bool, typer.Option("--no-root", help="Without the root.")] = False,
    form: Annotated[
        Literal["pem", "der", "p7b", "truststore"],
        typer.Option(help="truststore is PKCS #12 for Java (keytool, -Djavax.net.ssl.trustStore)."),
    ] = "pem",
    store_password: Annotated[
        str | None,
        typer.Option(
            metavar="fd:N|file:PATH|env:NAME",
            help="Where the password of a truststore is read from; changeit, as Java has it, if left out: it protects "
            "no secret.",
        ),
    ] = None,
    out: OutOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Write certificates of authorities as a file: an anchor, a chain, all of a hospital. Never a key.

    A file that exists is left as it is and refused, unless --replace is given.
    """
    from vagus.keystore.passphrases import read_passphrase
    from vagus.wire.bundles import BundleForm, encode_bundle

    if [authority is not None, roots, hospital is not None].count(True) != 1:
        raise Malformed(Reason.BAD_ARGUMENT, "name one of: an AUTHORITY, --roots, or --hospital LABEL")
    if (chain and authority is None) or (no_root and roots):
        msg = "--chain belongs to one AUTHORITY, and --no-root does not go with --roots; leave it out"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    password = b"changeit" if store_password is None else read_passphrase(store_password).unsafe_reveal()
    with open_installation(context) as installation:
        authorities, actor = installation.operations.authorities, installation.actor
        if authority is not None:
            found = authorities.export(actor, authority, with_chain=chain, with_root=not no_root)
        elif hospital is not None:
            found = authorities.export_hospital(actor, hospital, with_root=not no_root)
        else:
            found = authorities.export_roots(actor)
    named = [(one.name, one.certificate_der) for one in found]
    write_public(encode_bundle(named, BundleForm(form), password=password), out, may_replace=replace)


def crls(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="AUTHORITY...", help="h1/icu, or h1/icu#2 for one generation.")],
    *,
    out: OutOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Write the newest complete CRL of each AUTHORITY and of all above it as one PEM file, as nginx reads it.

    A name without a generation means all generations whose certificates are still valid. Reload the program afterwards.
    A file that exists is left as it is and refused, unless --replace is given.
    """
    from vagus.x509.pem import encode_block

    with open_installation(context) as installation:
        found = installation.operations.authorities.export_crls(installation.actor, names)
    write_public(b"".join(encode_block(one.crl_der, "X509 CRL") for one in found.crls), out, may_replace=replace)
    for one in found.crls:
        if one.is_expired:
            text = (
                f"the CRL of {one.authority} ended at {spell_time(one.next_update)}: programs that check it refuse all"
            )
            typer.echo(f"vagus: {text}", err=True)
    for name in found.issued_elsewhere:
        typer.echo(f"vagus: {name} was certified elsewhere: add the CRLs of the authorities above it", err=True)


def request(
    context: typer.Context, authority: NameArgument, *, out: OutOption = None, replace: ReplaceOption = False
) -> None:
    """Write the request (PKCS#10 PEM) of an authority that waits, for a CA elsewhere.

    Needs `root = "elsewhere"` in the plan, so that no ceremony here certifies it. What the other CA makes of it comes
    back with `vagus ca accept`. A file that exists is left as it is and refused, unless --replace is given.
    """
    from vagus.x509.pem import encode_block

    with open_installation(context) as installation:
        der = installation.operations.authorities.read_request(installation.actor, authority)
    write_public(encode_block(der, "CERTIFICATE REQUEST"), out, may_replace=replace)


def accept(
    context: typer.Context,
    authority: NameArgument,
    chain: Annotated[Path, typer.Argument(metavar="CHAIN", help="Its certificate and those above it, PEM.")],
    *,
    json: JsonOption = False,
) -> None:
    """Take in the certificate that a CA elsewhere made of our request; the authority is active from then on.

    Refused when it is for another key than the request's, or no CA certificate of the kind that the plan asks for.
    """
    with open_installation(context) as installation, naming(chain):
        reference = installation.operations.authorities.accept(installation.actor, authority, chain.read_bytes())
    Output(json).facts({"authority": reference, "state": "active"})


def import_existing(
    context: typer.Context,
    authority: Annotated[str, typer.Argument(metavar="AUTHORITY", help="Its name in the plan, as in h1/icu.")],
    chain: Annotated[Path, typer.Argument(metavar="CHAIN", help="Its certificate and those above it, PEM.")],
    key: Annotated[Path, typer.Argument(metavar="KEY", help="Its private key, PKCS#8 PEM, in clear or encrypted.")],
    *,
    key_password: Annotated[
        str | None,
        typer.Option(metavar="fd:N|file:PATH|env:NAME", help="Where the password of an encrypted KEY is read from."),
    ] = None,
    crl: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="The newest CRL of its old operator, PEM or DER; what it names stays revoked. Repeatable.",
        ),
    ] = None,
    unsafe_no_list: Annotated[
        bool, typer.Option("--unsafe-no-list", help="It never published a CRL: nothing was ever revoked.")
    ] = False,
    certificates: CertificatesOption = None,
    index: IndexOption = None,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Take over an existing CA with its key and its revocations; its name and extensions stay byte for byte.

    Needs its name in the applied plan, its certificate and those above it, its key, the newest CRL of its old operator
    and a passphrase for its keystore here. The key is copied into the keystore: destroy KEY afterwards. It becomes the
    next generation of AUTHORITY and issues from then on. What it issued before and did not revoke is unknown here:
    gateways refuse it until the device enrols again, or until --certificates takes it in (see `vagus ca take-in`).
    `vagus ca revoke-earlier` revokes it by its number. A CA whose devices our gateways would refuse is not taken.
    """
    from vagus.keystore.passphrases import read_passphrase

    if not crl and not unsafe_no_list:
        msg = "an imported authority needs its last CRL, or its revoked certificates count as good; give --crl FILE, or"
        raise Malformed(Reason.BAD_ARGUMENT, f"{msg} --unsafe-no-list if no CRL ever existed")
    crls = [der for path in crl or () for der in read_crls(path)]
    read_certificates(chain)
    password = None if key_password is None else read_passphrase(key_password)
    files, lines = _read_earlier(certificates, index)
    with open_installation(context, passphrase_source) as installation:
        found = installation.operations.authorities.import_existing(
            installation.actor,
            authority,
            chain.read_bytes(),
            key.read_bytes(),
            password,
            crls=crls,
            files=files,
            index=lines,
        )
    _print_imported(found, json=json)


def _print_imported(found: ImportedAuthority, *, json: bool) -> None:
    report = found.earlier
    facts: Row = {"authority": found.reference, "state": "active", "revoked": found.revoked}
    if report is not None:
        facts = {**facts, **_counts(report), "revoked": found.revoked + report.revoked}
    Output(json).facts(facts if report is None or not json else {**facts, "refused": _refused_rows(report)})
    if report is not None and not json:
        _print_refused(report)
    if found.outlived:
        text = f"{found.reference} ends too soon for certificates of {', '.join(found.outlived)}: begin its successor"
        typer.echo(f"vagus: {text} with vagus ca roll {found.reference.partition('#')[0]}", err=True)


def take_in(
    context: typer.Context,
    authority: GenerationArgument,
    certificates: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files of certificates, PEM or DER, or folders of them.")
    ],
    *,
    index: IndexOption = None,
    csv: CsvOption = False,
    json: JsonOption = False,
) -> None:
    """Take in living certificates that an imported unit CA issued before it came here: their devices go on.

    A certificate's device is the one of the unit whose id, maker's serial number or host name is in its subject or
    subjectAltName. Each is judged as a gateway judges it. Ends with exit code 1 where one was not taken in; repeat it
    after the cause is gone. --csv and --json have a line for each certificate.
    """
    check_one_format(csv=csv, json=json)
    files, lines = _read_earlier(certificates, index)
    with open_installation(context) as installation:
        report = installation.operations.authorities.take_in(installation.actor, authority, files, lines)
    rows = [_taken_row(one) for one in report.certificates]
    if csv:
        typer.echo("".join(csv_lines(_TAKEN, rows)), nl=False)
    elif json:
        Output(json).facts({**_counts(report), "certificates": rows})
    else:
        Output(json).facts(_counts(report))
        _print_refused(report)
    if report.refused:
        raise typer.Exit(REFUSED)


_TAKEN = ("file", "serial", "device", "reason", "message")


def _read_earlier(paths: Sequence[Path] | None, index: Path | None) -> tuple[list[tuple[str, bytes]], bytes | None]:
    """(file, DER) of each certificate in these files and in the files of these folders; the index as it is."""
    files: list[tuple[str, bytes]] = []
    for path in paths or ():
        if not path.is_dir():
            files += [(str(path), der) for der in read_blocks(path, "CERTIFICATE")]
            continue
        for one in sorted(each for each in path.iterdir() if each.suffix in _CERTIFICATE_FILES):
            try:
                files += [(str(one), der) for der in read_blocks(one, "CERTIFICATE")]
            except Malformed:
                files.append((str(one), b""))  # is refused among the others, and keeps none of them out
    return files, None if index is None else decode_file(index, bytes)


def _counts(report: EarlierCertificates) -> dict[str, int]:
    taken = len(report.certificates) - len(report.refused)
    return {"revoked": report.revoked, "certificates_taken_in": taken, "certificates_refused": len(report.refused)}


def _taken_row(one: EarlierCertificate) -> Row:
    serial = None if one.serial is None else f"{one.serial:x}"
    return {"file": one.file, "serial": serial, "device": one.device, **facts_of(one, "reason", "message")}


def _refused_rows(report: EarlierCertificates) -> list[Row]:
    return [_taken_row(one) for one in report.refused]


def _print_refused(report: EarlierCertificates) -> None:
    if report.refused:
        print_table("Not taken in", _TAKEN, _refused_rows(report), sys.stdout)


def revoke_earlier(
    context: typer.Context,
    authority: GenerationArgument,
    serial: Annotated[
        str | None,
        typer.Argument(metavar="[SERIAL]", help="Its serial number: 0x4A01 or 4A:01 hexadecimal, dec:18945 decimal."),
    ] = None,
    *,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate itself in place of SERIAL, PEM or DER.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="REASON", help=f"{REASONS}.")] = "unspecified",
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Revoke a certificate that an imported CA issued before it came here, at once and for good.

    It is in no inventory: only its number is written, into the CA's next CRL. Certificates that were issued here are
    revoked with `vagus revoke --serial` or `vagus device revoke`. Digits alone are refused where they can be read as
    hexadecimal and as decimal.
    """
    from vagus.x509.crls.building import RevocationReason

    if (serial is None) is (certificate is None):
        raise Malformed(Reason.BAD_ARGUMENT, "name the certificate by SERIAL or by --certificate FILE, one of them")
    blocks = None if certificate is None else read_certificates(certificate)
    with open_installation(context) as installation:
        authorities, actor = installation.operations.authorities, installation.actor
        if blocks is not None:
            found, number = authorities.find_earlier(actor, authority, blocks, file=str(certificate))
        else:
            found, number = authorities.find(actor, authority), decode_serial(serial or "")
        RevocationReason.parse(reason)  # check the reason before the operator is asked to confirm
        named = f"0x{number:x} (decimal {number})"
        question = f"Revoke the certificate {named} that {found.reference} issued before it came here, for good?"
        # Ask to confirm only for an imported authority: any other is refused by the act itself.
        if found.request_der is None:
            check_confirmed(question, is_assumed=yes)
        revoked = authorities.revoke_earlier(actor, authority, number, reason)
    serials: Row = {"serial": f"{number:x}", "serial_decimal": str(number)}
    Output(json).facts({"authority": found.reference, **serials, "revoked": revoked})


def roll(
    context: typer.Context,
    authority: Annotated[str, typer.Argument(metavar="AUTHORITY", help="Its name, as in h1/icu.")],
    *,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Begin the next generation: a new key and a request that waits for its ceremony; the old one goes on.

    Needs the passphrase of its keystore. Ends with exit code 3, because `vagus ceremony` comes next; then the new
    generation issues, and `vagus ca retire` ends the old one.
    """
    with open_installation(context, passphrase_source) as installation:
        reference = installation.operations.authorities.roll(installation.actor, authority)
    Output(json).facts({"authority": reference, "state": "requested"})
    typer.echo("vagus: ceremony needed: 1 request", err=True)
    raise typer.Exit(STATE)


def retire(
    context: typer.Context, authority: GenerationArgument, *, yes: YesOption = False, json: JsonOption = False
) -> None:
    """End new certificates from one generation, for good; its CRLs and OCSP responses go on to its end."""
    with open_installation(context) as installation:
        authorities, actor = installation.operations.authorities, installation.actor
        found = authorities.find(actor, authority) if "#" in authority else None
        # Ask to confirm only for an active authority: any other is refused by the act itself.
        if found is not None and found.state == "active":
            question = (
                f"Retire {found.reference} for good? It issues nothing any more; its CRLs and OCSP responses go on."
            )
            check_confirmed(question, is_assumed=yes)
        reference = authorities.retire(actor, authority)
    Output(json).facts({"authority": reference, "state": "retired"})


def emergency(
    context: typer.Context,
    envelope: Annotated[
        Path, typer.Argument(metavar="ENVELOPE", help="A sealed CRL: keystores/AUTHORITY/emergency/*.sealed.")
    ],
    *,
    yes: YesOption = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Revoke a subordinate authority now, with the CRL that the last ceremony sealed; no offline key is opened.

    Needs the passphrase `emergency`, and asks. Everything beneath the authority is refused from then on, everywhere and
    for good; its devices enrol again under the next generation (`vagus ca roll`, `vagus ceremony`).
    """
    content = envelope.read_bytes()
    with open_installation(context, passphrase_source) as installation:
        authorities, actor = installation.operations.authorities, installation.actor
        named = authorities.read_envelope(actor, content, file=str(envelope))
        check_confirmed(f"Revoke {named} with everything beneath it, for good?", is_assumed=yes)
        revoked, *crls = authorities.revoke_by_envelope(actor, content)
    Output(json).facts({"revoked": revoked, "lists": [spell_crl(name) for name in crls]})
    typer.echo("vagus: hold a ceremony soon: the sealed CRLs of the others do not contain this", err=True)


def forget_dates(context: typer.Context, *, yes: YesOption = False, json: JsonOption = False) -> None:
    """Let CRLs be signed again that a clock which ran ahead has dated into the future; set the clock first.

    Jobs that it put off, such as the end of a transferred device's old certificates, run when they should.
    """
    with open_installation(context) as installation:
        authorities, actor = installation.operations.authorities, installation.actor
        now = authorities.check_clock(actor)
        question = f"It is {now:%Y-%m-%d %H:%M} UTC? CRLs that are dated later get earlier successors."
        check_confirmed(question, is_assumed=yes)
        crls, jobs = authorities.forget_dates(actor)
    Output(json).facts({"lists": [spell_crl(name) for name in crls], "jobs": jobs})


def _facts(authority: Authority) -> Row:
    custody = "offline" if authority.is_offline else "online"
    return {"authority": authority.reference, **facts_of(authority, "kind", "state"), "custody": custody}
