"""`vagus validate`: the verifier by itself, over files; needs no installation and no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.certificate_text import certificate_facts, find_labelled
from vagus.cli.failures import REFUSED
from vagus.cli.files import decode_file, naming, read_block, read_blocks
from vagus.cli.options import decode_moment, example
from vagus.cli.output import JsonOption, Output, Row, facts_of
from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from vagus.trust.anchors import AnchorSet
    from vagus.trust.snapshot_status import SnapshotStatus
    from vagus.trust.status import PathStatusSource, StatusSource
    from vagus.trust.validation import AcceptedIdentity, Role
    from vagus.x509.crls.decoding import Crl

_ROLES = (
    "What the certificate is shown as: client, server, idevid, sdc-provider, sdc-consumer, network-access, safety, "
    "configuration-signer, firmware-signer or ocsp-responder."
)
LeafArgument = Annotated[
    Path,
    typer.Argument(
        metavar="LEAF", help="The certificate to judge, PEM or DER; those after it in the same file are its chain."
    ),
]
ChainArgument = Annotated[
    list[Path] | None, typer.Argument(metavar="CHAIN", help="Certificates that may lead to an anchor, PEM or DER.")
]
TimeOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="ISO 8601, as in 2027-03-01T12:00:00Z; now if left out.")
]
CrlsOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="CRLs, PEM or DER, of each issuer on the path; the newest counts. Repeatable."),
]
ResponsesOption = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="OCSP responses, stapled ones for example. Repeatable.")
]
SnapshotKeyOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The public key that its installation signs snapshots with, PEM.")
]
DomainOption = Annotated[
    str | None, typer.Option(metavar="DOMAIN", help="It must name exactly one device under this domain.")
]
UnitOption = Annotated[
    list[str] | None,
    typer.Option(metavar="HOSPITAL/UNIT", help="Accepted compartments; with --group-domain. Repeatable."),
]
HostNameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The certificate must carry this host name or address (RFC 9525).")
]

_NO_DEVICES = frozenset({"idevid", "server", "ocsp-responder"})
"""Roles whose certificates name no device of a domain, or need not."""


def register(application: typer.Typer) -> None:
    """Add the command of this file."""
    line = "vagus validate pump.pem icu.pem --anchors root.pem --role client --crl icu.crl --crl h1.crl --crl root.crl"
    application.command("validate", epilog=example(line))(validate)


def validate(
    leaf: LeafArgument,
    chain: ChainArgument = None,
    *,
    anchors: Annotated[list[Path], typer.Option(metavar="FILE", help="Trust anchors, PEM or DER. Repeatable.")],
    role: Annotated[str, typer.Option(metavar="ROLE", help=_ROLES)],
    at: TimeOption = None,
    crl: CrlsOption = None,
    ocsp: ResponsesOption = None,
    snapshot: Annotated[Path | None, typer.Option(metavar="FILE", help="A signed snapshot of what is revoked.")] = None,
    snapshot_key: SnapshotKeyOption = None,
    unsafe_no_status: Annotated[
        bool, typer.Option("--unsafe-no-status", help="Do not check whether anything is revoked.")
    ] = False,
    group_domain: DomainOption = None,
    unit: UnitOption = None,
    host_name: HostNameOption = None,
    json: JsonOption = False,
) -> None:
    """Judge a certificate in files as the gateways do: exit code 0 accepted, 1 refused with a stable reason.

    Path (RFC 5280 6.1), purpose, revocation of the leaf and of every CA above it, and the names that are asked for.
    Needs no installation and no network: anchors, CRLs and OCSP responses are files. Unlike `openssl verify` it refuses
    where nothing is known about revocation, unless --unsafe-no-status is given.
    """
    from vagus.trust.status import UnsafeNoStatus
    from vagus.trust.validation import Expectation, Validator
    from vagus.wiring import RealClock
    from vagus.x509.certificates import decode_certificate

    # the unit is a label of the device name, which only the group's domain identifies
    if unit and group_domain is None:
        msg = f"--unit {unit[0]} needs the group's domain to be checked in device names; give --group-domain"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    moment = RealClock().now() if at is None else decode_moment(at, "--at")
    output = Output(json)
    presented = [der for path in (leaf, *(chain or ())) for der in read_blocks(path, "CERTIFICATE")]
    with naming(leaf):
        decode_certificate(presented[0])
    trusted = _anchors(anchors)
    expectation = Expectation(
        role=_decode_role(role),
        group_domain=group_domain,
        units=frozenset(unit) if unit else None,
        needs_identity=group_domain is not None,
        host_name=_checked_host(host_name),
    )
    try:
        if unsafe_no_status:
            status: StatusSource | PathStatusSource = UnsafeNoStatus()
        else:
            status = _status(crl or (), ocsp or (), (snapshot, snapshot_key), presented, trusted, moment)
        accepted = Validator(trusted, status).validate(presented[0], presented[1:], expectation, moment)
    except NotTrusted as refusal:
        output.facts(_refused(refusal, presented))
        raise typer.Exit(REFUSED) from refusal
    output.facts(_accepted(accepted, moment))
    if accepted.device_name is None and role not in _NO_DEVICES:
        output.say("The identity is what the certificate says; --group-domain has it checked for one device's name.")


def _accepted(accepted: AcceptedIdentity, moment: datetime) -> Row:
    """What the leaf says; `identity_checked` where it names one device of the domain that was asked for."""
    name = accepted.device_name
    found = certificate_facts(accepted.path[0])
    return {
        "verdict": "accepted",
        "at": moment.isoformat().replace("+00:00", "Z"),
        **found,
        "identity": found["identity"] if name is None else str(name),
        "identity_checked": name is not None,
        **facts_of(accepted, "leaf_sha256", "anchor_sha256"),
        "not_after": accepted.not_after.isoformat().replace("+00:00", "Z"),
        "path_length": len(accepted.path),
    }


def _refused(refusal: NotTrusted, presented: Sequence[bytes]) -> Row:
    """The reason, and the certificate that it is about: one of the chain where the message names it."""
    facts = {name: value for name, value in refusal.facts.items() if name not in {"verdict", "reason", "message"}}
    about = find_labelled(presented, refusal.facts.get("certificate"))
    found = {} if about is None else certificate_facts(about)
    return {"verdict": "refused", "reason": refusal.reason.value, "message": refusal.message, **found, **facts}


def _anchors(paths: Sequence[Path]) -> AnchorSet:
    from vagus.trust.anchors import AnchorSet

    found = AnchorSet(())
    for path in paths:
        certificates = read_blocks(path, "CERTIFICATE")
        with naming(path):
            found = found.with_anchors(AnchorSet.from_der(certificates))
    return found


def _status(
    crls: Sequence[Path],
    responses: Sequence[Path],
    snapshot: tuple[Path | None, Path | None],
    presented: Sequence[bytes],
    trusted: AnchorSet,
    at: datetime,
) -> StatusSource:
    """Everything given: CRLs and responses, each checked by its signer, and the snapshot. Each of them may refuse.

    CRLs that are newer than the snapshot decide about what looks revoked in it.
    """
    from vagus.trust.crl_rules import STRICT_CRL_RULES
    from vagus.trust.crl_status import CrlStatus
    from vagus.trust.ocsp_status import OcspStatus
    from vagus.trust.status import AllSources
    from vagus.x509.certificates import decode_certificate
    from vagus.x509.ocsp.checks import OcspRules
    from vagus.x509.paths.search import Pool

    loaded = _snapshot(*snapshot, at)
    if not crls and not responses and loaded is None:
        msg = "without CRLs, OCSP responses or a snapshot no revocation status is available"
        raise Malformed(Reason.BAD_ARGUMENT, f"{msg}; give --crl FILE, --ocsp FILE or --unsafe-no-status")
    known = [decode_certificate(der) for der in presented]
    by_crl, newer = (CrlStatus(Pool(trusted, known[1:]), rules=STRICT_CRL_RULES) for _ in range(2))
    made = None if loaded is None or loaded.snapshot is None else loaded.snapshot.facts.made_at
    for path, der, crl in _newest_first(crls):
        with naming(path):
            by_crl.load_unless_older(der, at)
            if made is not None and crl.this_update > made:  # of two CRLs dated in one second the order is unknown
                newer.load_unless_older(der, at)
    if newer.loaded:
        loaded = _snapshot(*snapshot, at, on_hit=newer)
    # An OCSP responder certificate without id-pkix-ocsp-nocheck needs a status of its own; the given CRLs provide it.
    by_response = OcspStatus(rules=OcspRules(responder_status=by_crl.check_status if crls else None))
    known += [anchor.certificate for anchor in trusted if anchor.certificate is not None]
    for path in responses:
        decode_file(path, lambda response: by_response.load_any(response, known, at))
    sources: list[StatusSource] = [by_crl] if crls else []
    sources += [by_response] if responses else []
    sources += [loaded] if loaded is not None else []
    return AllSources(sources)


def _newest_first(paths: Sequence[Path]) -> list[tuple[Path, bytes, Crl]]:
    """Every CRL of the files, so ordered that the verdict depends on no order of the files."""
    from vagus.trust.crl_status import newest_first
    from vagus.x509.crls.decoding import decode_crl

    found: list[tuple[Path, bytes, Crl]] = []
    for path in paths:
        ders = read_blocks(path, "X509 CRL")
        with naming(path):
            found += [(path, der, decode_crl(der)) for der in ders]
    return sorted(found, key=lambda one: newest_first(one[2]))


def _snapshot(
    snapshot: Path | None, key: Path | None, at: datetime, on_hit: StatusSource | None = None
) -> SnapshotStatus | None:
    """The snapshot as a source of status; a hit in it that no CRL decides is a refusal."""
    from vagus.trust.snapshot_status import SnapshotStatus

    if (snapshot is None) is not (key is None):
        msg = "a snapshot is verified by its signer's key; give both --snapshot and --snapshot-key"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    if snapshot is None or key is None:
        return None
    status = SnapshotStatus(read_block(key, "PUBLIC KEY"), on_hit=on_hit)
    decode_file(snapshot, lambda content: status.load(content, at))
    return status


def _checked_host(text: str | None) -> str | None:
    """What can be no host is wrong use; another name than the certificate's is a refusal."""
    from vagus.x509.paths.identity import decode_host

    if text is not None:
        decode_host(text)
    return text


def _decode_role(text: str) -> Role:
    from vagus.trust.validation import Role

    try:
        return Role(text)
    except ValueError:
        msg = f"role {text!r} does not exist; choose one of {', '.join(Role)}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text) from None
