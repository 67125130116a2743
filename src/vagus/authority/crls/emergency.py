"""Seals CRLs that each revoke one subordinate beside an offline key, and publishes one without the key.

Every ceremony makes them, newer than the CRLs that it publishes. So if a subordinate's key is stolen, it can be revoked
within minutes, although the people of the ceremony are far away. After one was published a ceremony is due, because the
other sealed CRLs do not have that revocation.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vagus.authority import revocation
from vagus.authority.clock_bound import SLACK
from vagus.authority.crls.files import CrlFiles, CrlPlace
from vagus.authority.crls.publisher import CrlPublisher, ends_from, list_entries, log_publication, scope_url, sign_crl
from vagus.authority.issuers import Issuer, is_live
from vagus.durable_files import make_private_folder, replace_durably
from vagus.errors import Conflict, IntegrityFailure, Unavailable
from vagus.keystore.envelopes import EnvelopeSealer, open_envelope, read_label
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records import certificates as certificate_rows
from vagus.records import publications
from vagus.records.authorities import AuthorityRow, slug_of
from vagus.records.publications import COMPLETE, Publication
from vagus.records.revocation.revocations import list_changes
from vagus.x509.crls.building import CrlContents, RevocationReason, encode_crl_entry, next_crl_number, split_crl
from vagus.x509.keys import verify_signature
from vagus.x509.library_certificates import decode_certificate
from vagus.x509.tbs import decode_tbs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vagus.keystore.passphrases import Passphrase
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Batch, Writer

_SUFFIX = ".sealed"
_OUTSIDE = ("number", "this_update", "next_update")


def seal_emergency_crls(
    database: Database, publisher: CrlPublisher, issuer: Issuer, sealer: EnvelopeSealer, folder: Path
) -> dict[Path, bytes]:
    """Sign and seal a CRL for each live subordinate of an offline issuer; gives the contents by path."""
    at = int(publisher.now().timestamp())
    with database.reading() as connection:
        below = [row for row in rows.list_children(connection, issuer.authority_id) if is_live(row, at)]
        prepared = [(row, _make_crls_revoking(connection, publisher, issuer, row)) for row in below]
    if not prepared:
        return {}
    make_private_folder(folder)
    made: dict[Path, bytes] = {}
    for row, crls in prepared:
        label = _label(issuer, row, crls)
        content = sealer.seal(label, json.dumps(crls, sort_keys=True).encode("ascii"))
        place = folder / f"{slug_of(row.name)}.{row.generation}{_SUFFIX}"
        replace_durably(place, content, has_rivals=True)
        made[place] = content
    return made


def _label(issuer: Issuer, row: AuthorityRow, crls: list[dict[str, object]]) -> dict[str, str | int]:
    """The readable label of an envelope: the subordinate it revokes, and number and dates of each CRL in it."""
    label: dict[str, str | int] = {"issuer": issuer.reference, "revokes": row.reference}
    for one in crls:
        label.update({f"{one['shard']}.{name}": int(str(one[name])) for name in _OUTSIDE})
    return label


def is_ready(envelope: bytes, newest: Sequence[Publication], at: datetime) -> bool:
    """Whether the CRLs in an envelope could be published at `at`, judged by its label.

    They must be newer than the `newest`, before their nextUpdate, and not from the future. The label is verified when
    the envelope is opened. The time of the file does not matter, so a copy is as good.
    """
    try:
        label = read_label(envelope)
        inside = {int(key.partition(".")[0]) for key in label if key.endswith(".number")}
        sealed = {shard: [int(label[f"{shard}.{name}"]) for name in _OUTSIDE] for shard in inside}
    except (IntegrityFailure, KeyError, ValueError):
        return False
    out = {one.shard: one for one in newest}
    return bool(sealed) and all(
        next_update > at.timestamp()
        and this_update <= (at + SLACK).timestamp()
        and (shard not in out or (out[shard].number < number and out[shard].this_update < this_update))
        for shard, (number, this_update, next_update) in sealed.items()
    )


def _make_crls_revoking(
    connection: Connection, publisher: CrlPublisher, issuer: Issuer, row: AuthorityRow
) -> list[dict[str, object]]:
    """The shard's CRL and the complete one, each with the subordinate revoked, newer than those published."""
    tbs = decode_tbs(decode_certificate(row.certificate_der or b"").tbs_certificate_bytes)
    certificate = certificate_rows.find_certificate(connection, issuer.authority_id, tbs.serial)
    # The subordinate was certified elsewhere under the same name: no certificate of ours to revoke.
    if certificate is None:
        return []
    crls: list[dict[str, object]] = []
    for shard in (certificate.shard, COMPLETE):
        newest = publications.find_publication(connection, issuer.authority_id, shard)
        if newest is None:
            continue
        made_at = datetime.fromtimestamp(newest.this_update, UTC)
        # The sealed CRL must be strictly newer than the published CRL, else relying parties ignore it.
        this_update = made_at + timedelta(seconds=1)
        entries = list(list_entries(connection, issuer.authority_id, shard, ends_from(newest, this_update)))
        entries.append(encode_crl_entry(tbs.serial, this_update, RevocationReason.CA_COMPROMISE))
        contents = CrlContents(
            number=next_crl_number(newest.number, this_update),
            this_update=this_update,
            next_update=publisher.next_update(issuer, this_update),
            entries=entries,
            shard_url=scope_url(issuer, shard),
        )
        crls.append(
            {
                "shard": shard,
                "number": contents.number,
                "this_update": int(this_update.timestamp()),
                "next_update": int(contents.next_update.timestamp()),
                "sequence": newest.sequence,
                "serial": f"{tbs.serial:x}",
                "crl": base64.b64encode(sign_crl(issuer, contents)).decode("ascii"),
            }
        )
    return crls


def publish_sealed(
    envelope: bytes, passphrase: Passphrase, writer: Writer, *, folder: Path | None, by: str
) -> tuple[str, ...]:
    """Open an emergency CRL and publish it: the subordinate is revoked, in the sequence at once and in the CRLs.

    Gives the reference of the subordinate and the names of the CRLs. Needs no key. Called again, it writes the files
    that the folder lacks. Raises NotAuthorised(PASSPHRASE_WRONG), IntegrityFailure(KEYSTORE_DAMAGED),
    NotTrusted(BAD_SIGNATURE), Conflict(AUTHORITY_UNKNOWN), Conflict(CEREMONY_NEEDED) if newer CRLs are published, and
    Unavailable(CLOCK_AHEAD) if it is from the future: relying parties would refuse it, and no CRL could follow it.
    """
    # 1. Open the envelope, which authenticates its bytes. The CRLs inside are verified again with the public key of
    # their issuer.
    label, content = open_envelope(envelope, passphrase)
    crls = [_decode(one) for one in json.loads(content)]
    reference, revoked = str(label["issuer"]), str(label["revokes"])

    # 2. Store the revocation, the CRLs and the ledger entry in one transaction: a crash leaves all of them or none.
    def act(batch: Batch) -> AuthorityRow:
        issuer = _find(batch.connection, reference)
        serial = 0
        unpublished: list[Publication] = []
        for publication, serial_text in crls:
            serial = int(serial_text, 16)
            newest = publications.find_publication(batch.connection, issuer.id, publication.shard)
            # A call that ended after its commit is repeated by the operator. The newest published CRL is then this very
            # CRL, which is no conflict.
            if newest is None or newest.crl_der != publication.crl_der:
                _check_crl(batch, issuer, publication, newest)
                unpublished.append(publication)
        certificate = certificate_rows.find_certificate(batch.connection, issuer.id, serial)
        if certificate is None:
            msg = f"authority {reference} never issued the certificate that the sealed CRL revokes; open it elsewhere"
            raise Conflict(Reason.NOT_ISSUED, msg)
        sequence = revocation.revoke_row(batch, certificate, RevocationReason.CA_COMPROMISE, by=by)
        for publication in unpublished:
            stored = replace(publication, authority_id=issuer.id)
            if _covers_all(batch, stored, serial):
                stored = replace(stored, sequence=max(sequence, stored.sequence))
            publications.put_publication(batch.connection, stored)
            log_publication(batch, reference, stored, hashlib.sha256(stored.crl_der).digest())
        return issuer

    issuer = writer.submit(act).result()
    # 3. Write the CRL files, after the rows: `CrlFiles.find_outdated` repairs files that a crash left out.
    if folder is not None:
        files_there = CrlFiles(writer.database, folder)
        for publication, _ in crls:
            files_there.write(CrlPlace(issuer.id, issuer.slug, issuer.generation, publication.shard))
    return (revoked, *(f"{reference}/{publication.shard}" for publication, _ in crls))


def _decode(found: dict[str, object]) -> tuple[Publication, str]:
    numbers = {name: int(str(found[name])) for name in ("shard", *_OUTSIDE, "sequence")}
    return Publication(authority_id=0, crl_der=base64.b64decode(str(found["crl"])), **numbers), str(found["serial"])


def _find(connection: Connection, reference: str) -> AuthorityRow:
    name, _, generation = reference.partition("#")
    row = rows.find_generation(connection, name, int(generation or "0"))
    if row is None or row.certificate_der is None:
        msg = f"authority {reference} of the sealed CRL is not certified here; open the CRL in its own installation"
        raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=reference)
    return row


def _covers_all(batch: Batch, publication: Publication, serial: int) -> bool:
    """Whether only the revocation that it was sealed for happened in its shard since: then it covers the sequence."""
    place = (publication.authority_id, publication.shard)
    changes = list_changes(batch.connection, *place, after=publication.sequence, most=2)
    return {one.serial for one in changes} <= {serial}


def _check_crl(batch: Batch, issuer: AuthorityRow, publication: Publication, newest: Publication | None) -> None:
    if newest is not None and (newest.number >= publication.number or newest.this_update >= publication.this_update):
        msg = f"the sealed CRL is older than the published CRL of {issuer.reference}; hold a ceremony for a new one"
        raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=issuer.reference)
    if publication.next_update <= batch.at:
        msg = "the sealed CRL is past its nextUpdate; hold a ceremony for a new one"
        raise IntegrityFailure(Reason.STATUS_STALE, msg)
    if publication.this_update > batch.at + int(SLACK.total_seconds()):
        dated = f"{datetime.fromtimestamp(publication.this_update, UTC):%Y-%m-%dT%H:%M:%SZ}"
        msg = f"the sealed CRL is dated {dated}, in the future; set the clock, or if it is right hold a ceremony"
        raise Unavailable(Reason.CLOCK_AHEAD, msg)
    tbs_der, algorithm_der, signature = split_crl(publication.crl_der)
    facts = decode_tbs(decode_certificate(issuer.certificate_der or b"").tbs_certificate_bytes)
    verify_signature(facts.spki_der, algorithm_der, signature, tbs_der)
