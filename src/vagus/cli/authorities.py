"""`vagus ca …`: authorities from the outside, from their first request to an emergency list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.ceremony import spell_list
from vagus.cli.devices import spell_time
from vagus.cli.failures import STATE
from vagus.cli.files import naming, read_blocks
from vagus.cli.options import REASONS, PassphraseOption, example, open_installation
from vagus.cli.output import JsonOption, Output, YesOption, check_confirmed

if TYPE_CHECKING:
    from vagus.cli.output import Row
    from vagus.policy.plans import PlannedAuthority
    from vagus.records.authorities import AuthorityRow
    from vagus.wiring import Installation

NameArgument = Annotated[str, typer.Argument(metavar="AUTHORITY", help="h1/icu, or h1/icu#2 for one generation.")]
GenerationArgument = Annotated[
    str, typer.Argument(metavar="AUTHORITY#GENERATION", help="The generation, as in h1/icu#1.")
]

_EXAMPLES = {
    "export": ("vagus ca export h1/icu --chain --out icu.pem",),
    "request": ("vagus ca request h1 --out h1.csr", "openssl req -in h1.csr -noout -text"),
    "accept": ("cat h1.pem their-root.pem > chain.pem", "vagus ca accept h1 chain.pem"),
    "import": (
        "cat ca.pem root.pem > chain.pem",
        "openssl pkcs8 -topk8 -in ca.key -out ca.p8",
        "vagus ca import h1/icu chain.pem ca.p8 --key-password fd:3 --crl newest.crl 3< password",
    ),
    "revoke-earlier": ("vagus ca revoke-earlier h1/icu#1 4A01BC --reason keyCompromise",),
    "roll": ("vagus ca roll h1/icu", "vagus ceremony"),
    "retire": ("vagus ca retire h1/icu#1",),
    "emergency": ("vagus ca emergency hospital/keystores/h1/emergency/h1.icu.1.sealed",),
}


def register(application: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(
        help="Authorities: root, device CAs, the issuing CAs of units.", no_args_is_help=True, rich_markup_mode=None
    )
    for name, command in (
        ("list", list_all),
        ("show", show),
        ("export", export),
        ("request", request),
        ("accept", accept),
        ("import", import_existing),
        ("revoke-earlier", revoke_earlier),
        ("roll", roll),
        ("retire", retire),
        ("emergency", emergency),
        ("forget-dates", forget_dates),
    ):
        group.command(name, epilog=example(*_EXAMPLES[name]) if name in _EXAMPLES else None)(command)
    application.add_typer(group, name="ca")


def list_all(context: typer.Context, *, json: JsonOption = False) -> None:
    """List every generation of every authority: its kind, state, custody and end."""
    from vagus.records.authorities import list_authorities

    with open_installation(context) as installation, installation.database.reading() as connection:
        found = list_authorities(connection)
    rows: list[Row] = [
        {
            "authority": row.reference,
            "kind": row.kind,
            "state": row.state,
            "custody": "offline" if row.is_offline else "online",
            "not_after": None if row.not_after is None else spell_time(row.not_after),
        }
        for row in sorted(found, key=lambda row: (row.name, row.generation))
    ]
    Output(json).rows("Authorities", ("authority", "kind", "state", "custody", "not_after"), rows)


def show(context: typer.Context, authority: NameArgument, *, json: JsonOption = False) -> None:
    """Show one authority: its parent, dates, key, fingerprint and how many of its certificates live."""
    import hashlib

    from vagus.records.authorities import find_by_id
    from vagus.records.certificates import count_alive

    with open_installation(context) as installation:
        row = _find(installation, authority)
        now = int(installation.clock.now().timestamp())
        with installation.database.reading() as connection:
            above = None if row.parent_id is None else find_by_id(connection, row.parent_id)
            alive = count_alive(connection, row.id, alive_at=now)
    Output(json).facts(
        {
            "authority": row.reference,
            "kind": row.kind,
            "state": row.state,
            "custody": "offline" if row.is_offline else "online",
            "parent": None if above is None else above.reference,
            "not_before": None if row.not_before is None else spell_time(row.not_before),
            "not_after": None if row.not_after is None else spell_time(row.not_after),
            "key_sha256": row.spki_sha256.hex(),
            "certificate_sha256": None
            if row.certificate_der is None
            else hashlib.sha256(row.certificate_der).hexdigest(),
            "live_certificates": alive,
        }
    )


def export(
    context: typer.Context,
    authority: NameArgument,
    *,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; standard output if left out.")] = None,
    chain: Annotated[bool, typer.Option("--chain", help="With the certificates above it.")] = False,
) -> None:
    """Write an authority's certificate as PEM: an anchor for others, a bundle with --chain. Never a key."""
    from vagus.errors import Conflict
    from vagus.reasons import Reason
    from vagus.records.authorities import load_chain
    from vagus.x509.pem import encode_certificates

    with open_installation(context) as installation:
        row = _find(installation, authority)
        if row.certificate_der is None:
            msg = f"{row.reference} has no certificate yet; run: vagus ceremony"
            raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=row.reference)
        with installation.database.reading() as connection:
            above = load_chain(connection, row) if chain else ()
    _write(encode_certificates((row.certificate_der, *above)), out)


def request(
    context: typer.Context,
    authority: NameArgument,
    *,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; standard output if left out.")] = None,
) -> None:
    """Write the request (PKCS#10 PEM) of an authority that waits, for a CA that lives elsewhere.

    Needs `root = "elsewhere"` in the plan, so that no ceremony here certifies it. What the other CA makes of it comes
    back with `vagus ca accept`.
    """
    from vagus.errors import Conflict
    from vagus.reasons import Reason
    from vagus.x509.pem import encode_block

    with open_installation(context) as installation:
        row = _find(installation, authority)
    if row.request_der is None or row.state != "requested":
        msg = f"{row.reference} does not wait for a certificate; `vagus ca roll` makes a new generation"
        raise Conflict(Reason.ALREADY_EXISTS, msg, authority=row.reference)
    _write(encode_block(row.request_der, "CERTIFICATE REQUEST"), out)


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
        reference = installation.hierarchy.accept_certificate(authority, chain.read_bytes(), by=installation.actor.id)
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
            help="The newest list of its old operator, PEM or DER; what it names stays revoked. Repeatable.",
        ),
    ] = None,
    unsafe_no_list: Annotated[
        bool, typer.Option("--unsafe-no-list", help="It never published a list: nothing was ever revoked.")
    ] = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Take over an existing CA with its key and its revocations; its name and extensions stay byte for byte.

    Needs its name in the applied plan, its certificate and those above it, its key, the newest list of its old operator
    and a passphrase for its keystore here. The key is copied into the keystore: destroy KEY afterwards. It becomes the
    next generation of AUTHORITY and issues from then on. What it issued before and did not revoke is unknown here:
    gates refuse it until the device enrols anew, and `vagus ca revoke-earlier` revokes it by its number.
    """
    from vagus.errors import Malformed
    from vagus.keystore.passphrases import read_passphrase
    from vagus.reasons import Reason

    if not crl and not unsafe_no_list:
        msg = "without its old operator's newest list, all that was revoked would be good again; give --crl FILE, or"
        raise Malformed(Reason.BAD_ARGUMENT, f"{msg} --unsafe-no-list where there never was one")
    lists = [der for path in crl or () for der in read_blocks(path, "X509 CRL")]
    read_blocks(chain, "CERTIFICATE")
    password = None if key_password is None else read_passphrase(key_password)
    with open_installation(context, passphrase_source) as installation:
        reference = installation.hierarchy.import_authority(
            _planned(installation, authority),
            chain.read_bytes(),
            key.read_bytes(),
            password,
            crls=lists,
            by=installation.actor.id,
        )
    Output(json).facts({"authority": reference, "state": "active"})


def revoke_earlier(
    context: typer.Context,
    authority: GenerationArgument,
    serial: Annotated[
        str,
        typer.Argument(metavar="SERIAL", help="Its serial number in hexadecimal, as `openssl x509 -serial` shows it."),
    ],
    *,
    reason: Annotated[str, typer.Option(metavar="REASON", help=f"{REASONS}.")] = "unspecified",
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Revoke a certificate that an imported CA issued before it came here, at once and for good.

    It is in no inventory: only its number is written, into the CA's next list. Certificates that were issued here are
    revoked with `vagus revoke --serial` or `vagus device revoke`.
    """
    from vagus.authority import earlier_revocations
    from vagus.errors import Malformed
    from vagus.reasons import Reason
    from vagus.x509.crls.building import RevocationReason

    digits = serial.replace(":", "")
    number = int(digits, 16) if re.fullmatch("[0-9A-Fa-f]{1,40}", digits) else 0
    if not number:
        msg = f"{serial!r} is no serial number of 1 to 40 hexadecimal digits, as `openssl x509 -serial` shows it"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=serial)
    with open_installation(context) as installation:
        row = _find(installation, authority)
        parsed = RevocationReason.parse(reason)
        question = f"Revoke the certificate {number:x} that {row.reference} issued before it came here, for good?"
        if row.request_der is None:  # else it was born here, and is refused without a question
            check_confirmed(question, is_assumed=yes)
        news = earlier_revocations.revoke_earlier(
            installation.writer, row.name, row.generation, number, parsed, by=installation.actor.id
        )
    Output(json).facts({"authority": row.reference, "serial": f"{number:x}", "revoked": news})


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
        made = installation.hierarchy.request(
            _planned(installation, authority), by=installation.actor.id, is_rekey=True
        )
    Output(json).facts({"authority": made.reference, "state": "requested"})
    typer.echo("vagus: ceremony needed: 1 request", err=True)
    raise typer.Exit(STATE)


def retire(
    context: typer.Context,
    authority: GenerationArgument,
    *,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """End new certificates from one generation, for good; its lists and answers go on to its end."""
    from vagus.errors import Malformed
    from vagus.reasons import Reason
    from vagus.records.authorities import ACTIVE

    if "#" not in authority:  # the newest is never meant without a word: it is the one that issues
        msg = f"{authority!r} names no generation; write it as in {authority}#1, see `vagus ca list`"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=authority)
    with open_installation(context) as installation:
        row = _find(installation, authority)
        question = f"Retire {row.reference} for good? It issues nothing any more; its lists and answers go on."
        if row.state == ACTIVE:  # else there is nothing to retire, and it is refused without a question
            check_confirmed(question, is_assumed=yes)
        installation.hierarchy.retire(row.name, row.generation, by=installation.actor.id)
    Output(json).facts({"authority": row.reference, "state": "retired"})


def emergency(
    context: typer.Context,
    envelope: Annotated[
        Path, typer.Argument(metavar="ENVELOPE", help="A sealed list: keystores/AUTHORITY/emergency/*.sealed.")
    ],
    *,
    yes: YesOption = False,
    passphrase_source: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Revoke a subordinate authority now, with the list that the last ceremony sealed; no offline key is opened.

    Needs the passphrase `emergency`, and asks. Everything beneath the authority is refused from then on, by everybody,
    for good; its devices enrol anew under the next generation (`vagus ca roll`, `vagus ceremony`).
    """
    from vagus.authority.crls.emergency import publish_sealed
    from vagus.errors import IntegrityFailure, Malformed
    from vagus.keystore.envelopes import read_label
    from vagus.reasons import Reason

    content = envelope.read_bytes()
    try:
        label = read_label(content)
    except IntegrityFailure as error:
        msg = f"{envelope}: it is no sealed list, or a damaged one; name one of keystores/AUTHORITY/emergency/*.sealed"
        raise Malformed(Reason.BAD_ARGUMENT, msg, path=str(envelope)) from error
    with open_installation(context, passphrase_source) as installation:
        question = f"Revoke {label.get('revokes')} with everything beneath it, for good?"
        check_confirmed(question, is_assumed=yes)
        revoked, *lists = publish_sealed(
            content,
            installation.sources.get("emergency"),
            installation.writer,
            folder=installation.settings.published,
            by=installation.actor.id,
        )
    Output(json).facts({"revoked": revoked, "lists": [spell_list(name) for name in lists]})
    typer.echo("vagus: hold a ceremony soon: the sealed lists of the others know nothing of this", err=True)


def forget_dates(context: typer.Context, *, yes: YesOption = False, json: JsonOption = False) -> None:
    """Let lists be signed again that a clock which ran ahead has dated into the future; set the clock first.

    Jobs that it put off, such as the end of a transferred device's old certificates, come when they should.
    """
    from vagus.authority.crls.publisher import forget_future_dates
    from vagus.records.work import bring_forward

    with open_installation(context) as installation:
        installation.make_clock_bound().check()
        question = (
            f"It is {installation.clock.now():%Y-%m-%d %H:%M} UTC? Lists that are dated later get earlier successors."
        )
        check_confirmed(question, is_assumed=yes)
        lists = forget_future_dates(installation.writer, by=installation.actor.id)
        wait = int(installation.pack.renewal.transfer_overlap.total_seconds())
        jobs = installation.writer.submit(
            lambda batch: bring_forward(batch.connection, at=batch.at, longest_wait=wait)
        ).result()
    Output(json).facts({"lists": [spell_list(name) for name in lists], "jobs": jobs})


def _find(installation: Installation, text: str) -> AuthorityRow:
    """The generation that `text` names, or the newest active one, or the newest of all."""
    from vagus.errors import Conflict
    from vagus.reasons import Reason
    from vagus.records.authorities import find_generation, find_newest

    name, mark, generation = text.partition("#")
    with installation.database.reading() as connection:
        if mark:
            found = (
                find_generation(connection, name, int(generation))
                if generation.isascii() and generation.isdigit()
                else None
            )
        else:
            found = find_newest(connection, name) or find_newest(connection, name, state=None)
    if found is None:
        msg = f"there is no authority {text!r}; `vagus ca list` names those that there are"
        raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=text)
    return found


def _planned(installation: Installation, name: str) -> PlannedAuthority:
    """The authority as the plan in force has it."""
    from vagus.errors import Conflict
    from vagus.reasons import Reason

    for one in installation.planning.load_adopted().authorities():
        if one.name == name:
            return one
    msg = f"the plan has no authority {name!r}; add its unit to the plan and apply it"
    raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=name)


def _write(pem: bytes, out: Path | None) -> None:
    if out is None:
        typer.echo(pem.decode("ascii"), nl=False)
    else:
        out.write_bytes(pem)
