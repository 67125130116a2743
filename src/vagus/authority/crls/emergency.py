"""Lists that rest sealed beside an offline key, each revoking one subordinate: published without the key.

Made in every ceremony, newer than the lists made with them, so that publishing one is a matter of minutes when a
subordinate's key is stolen and the people of the ceremony are far away. After one was published, a ceremony is due:
the sealed lists of the others know nothing of it.
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
from vagus.authority.crls.publisher import ends_from, list_entries, scope_url, sign_crl
from vagus.authority.issuers import is_live
from vagus.durable_files import make_private_folder, replace_durably
from vagus.errors import Conflict, IntegrityFailure, Unavailable
from vagus.keystore.envelopes import open_envelope, read_label
from vagus.ledger.append import append
from vagus.ledger.entries import CrlPublished
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records import certificates as certificate_rows
from vagus.records import publications
from vagus.records.authorities import slug_of
from vagus.records.publications import COMPLETE, Publication
from vagus.records.revocation.revocations import list_changes
from vagus.x509.crls.building import CrlContents, RevocationReason, encode_crl_entry, next_crl_number, split_crl
from vagus.x509.keys import verify_signature
from vagus.x509.library_certificates import decode_certificate
from vagus.x509.tbs import decode_tbs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vagus.authority.crls.publisher import CrlPublisher
    from vagus.authority.issuers import Issuer
    from vagus.keystore.envelopes import EnvelopeSealer
    from vagus.keystore.passphrases import Passphrase
    from vagus.records.authorities import AuthorityRow
    from vagus.records.engine.database import Connection, Database
    from vagus.records.engine.writer import Batch, Writer

_SUFFIX = ".sealed"
_OUTSIDE = ("number", "this_update", "next_update")


def seal_emergency_crls(
    database: Database, publisher: CrlPublisher, issuer: Issuer, sealer: EnvelopeSealer, folder: Path
) -> dict[Path, bytes]:
    """Sign and seal a list for each live subordinate of an offline issuer; gives what was written where."""
    at = int(publisher.now().timestamp())
    with database.reading() as connection:
        below = [row for row in rows.list_children(connection, issuer.authority_id) if is_live(row, at)]
        prepared = [(row, _lists_without(connection, publisher, issuer, row)) for row in below]
    if not prepared:
        return {}
    make_private_folder(folder)
    made: dict[Path, bytes] = {}
    for row, lists in prepared:
        label = _label(issuer, row, lists)
        content = sealer.seal(label, json.dumps(lists, sort_keys=True).encode("ascii"))
        place = folder / f"{slug_of(row.name)}.{row.generation}{_SUFFIX}"
        replace_durably(place, content)
        made[place] = content
    return made


def _label(issuer: Issuer, row: AuthorityRow, lists: list[dict[str, object]]) -> dict[str, str | int]:
    """What stands on the envelope: whom it revokes, and of each list what tells whether it would still be taken."""
    label: dict[str, str | int] = {"issuer": issuer.reference, "revokes": row.reference}
    for one in lists:
        label.update({f"{one['shard']}.{name}": int(str(one[name])) for name in _OUTSIDE})
    return label


def is_ready(envelope: bytes, newest: Sequence[Publication], at: datetime) -> bool:
    """Whether the lists in an envelope could be published at `at`, by its label.

    They must be newer than the `newest`, not expired, and not from the future, where nobody believes them. The label is
    proved when the envelope is opened. A copy of the file tells the same, whatever time it bears.
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


def _lists_without(
    connection: Connection, publisher: CrlPublisher, issuer: Issuer, row: AuthorityRow
) -> list[dict[str, object]]:
    """The shard's list and the complete one, each with the subordinate revoked, newer than what is published."""
    tbs = decode_tbs(decode_certificate(row.certificate_der or b"").tbs_certificate_bytes)
    certificate = certificate_rows.find_certificate(connection, issuer.authority_id, tbs.serial)
    if certificate is None:  # certified elsewhere under the same name: nothing of ours to revoke
        return []
    lists: list[dict[str, object]] = []
    for shard in (certificate.shard, COMPLETE):
        newest = publications.find_publication(connection, issuer.authority_id, shard)
        if newest is None:
            continue
        made_at = datetime.fromtimestamp(newest.this_update, UTC)
        this_update = made_at + timedelta(seconds=1)  # strictly newer than the list beside it
        entries = list(list_entries(connection, issuer.authority_id, shard, ends_from(newest, this_update)))
        entries.append(encode_crl_entry(tbs.serial, this_update, RevocationReason.CA_COMPROMISE))
        contents = CrlContents(
            number=next_crl_number(newest.number, this_update),
            this_update=this_update,
            next_update=publisher.next_update(issuer, this_update),
            entries=entries,
            shard_url=scope_url(issuer, shard),
        )
        lists.append(
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
    return lists


def publish_sealed(
    envelope: bytes, passphrase: Passphrase, writer: Writer, *, folder: Path | None, by: str
) -> tuple[str, ...]:
    """Open an emergency list and publish it: the subordinate is revoked, in the sequence at once and in the lists.

    Gives the reference of what was revoked and the names of the lists. Needs no key. Said again, it writes what the
    folder lacks of them. Raises
    NotAuthorised(PASSPHRASE_WRONG), IntegrityFailure(KEYSTORE_DAMAGED), NotTrusted(BAD_SIGNATURE),
    Conflict(AUTHORITY_UNKNOWN), Conflict(CEREMONY_NEEDED) when newer lists are out that it knows nothing of, and
    Unavailable(CLOCK_AHEAD) when it is from the future: nobody would believe it, and no list could follow it.
    """
    # 1. the envelope proves itself; the lists inside are verified again with the issuer's public key
    label, content = open_envelope(envelope, passphrase)
    lists = [_decode(one) for one in json.loads(content)]
    reference, revoked = str(label["issuer"]), str(label["revokes"])

    # 2. revocation, lists and ledger entries in one transaction
    def act(batch: Batch) -> AuthorityRow:
        issuer = _find(batch.connection, reference)
        serial = 0
        waiting: list[Publication] = []
        for publication, serial_text in lists:
            serial = int(serial_text, 16)
            if not _is_out(batch, issuer, publication):
                _check_list(batch, issuer, publication)
                waiting.append(publication)
        certificate = certificate_rows.find_certificate(batch.connection, issuer.id, serial)
        if certificate is None:
            msg = f"{reference} never issued the certificate that this list revokes; is it another installation's?"
            raise Conflict(Reason.NOT_ISSUED, msg)
        sequence = revocation.revoke_row(batch, certificate, RevocationReason.CA_COMPROMISE, by=by)
        for publication in waiting:
            kept = replace(publication, authority_id=issuer.id)
            if _says_all(batch, kept, serial):
                kept = replace(kept, sequence=max(sequence, kept.sequence))
            publications.put_publication(batch.connection, kept)
            _append(batch, reference, kept)
        return issuer

    issuer = writer.submit(act).result()
    # 3. the files
    if folder is not None:
        files_there = CrlFiles(writer.database, folder)
        for publication, _ in lists:
            files_there.write(CrlPlace(issuer.id, issuer.slug, issuer.generation, publication.shard))
    return (revoked, *(f"{reference}/{publication.shard}" for publication, _ in lists))


def _decode(found: dict[str, object]) -> tuple[Publication, str]:
    publication = Publication(
        authority_id=0,
        shard=int(str(found["shard"])),
        number=int(str(found["number"])),
        this_update=int(str(found["this_update"])),
        next_update=int(str(found["next_update"])),
        sequence=int(str(found["sequence"])),
        crl_der=base64.b64decode(str(found["crl"])),
    )
    return publication, str(found["serial"])


def _find(connection: Connection, reference: str) -> AuthorityRow:
    name, _, generation = reference.partition("#")
    row = rows.find_generation(connection, name, int(generation or "0"))
    if row is None or row.certificate_der is None:
        msg = f"there is no certified authority {reference} here; open the envelope in its own installation"
        raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, authority=reference)
    return row


def _is_out(batch: Batch, issuer: AuthorityRow, publication: Publication) -> bool:
    """Whether this very list is the newest one: whoever was cut off behind the commit says it again."""
    newest = publications.find_publication(batch.connection, issuer.id, publication.shard)
    return newest is not None and newest.crl_der == publication.crl_der


def _says_all(batch: Batch, publication: Publication, serial: int) -> bool:
    """Whether nothing but the revocation that it was sealed for happened in its shard since: then none waits."""
    place = (publication.authority_id, publication.shard)
    changes = list_changes(batch.connection, *place, after=publication.sequence, most=2)
    return {one.serial for one in changes} <= {serial}


def _check_list(batch: Batch, issuer: AuthorityRow, publication: Publication) -> None:
    newest = publications.find_publication(batch.connection, issuer.id, publication.shard)
    if newest is not None and (newest.number >= publication.number or newest.this_update >= publication.this_update):
        msg = f"a newer list of {issuer.reference} is out than the one sealed; hold a ceremony"
        raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=issuer.reference)
    if publication.next_update <= batch.at:
        raise IntegrityFailure(Reason.STATUS_STALE, "the sealed list has expired; hold a ceremony")
    if publication.this_update > batch.at + int(SLACK.total_seconds()):
        dated = f"{datetime.fromtimestamp(publication.this_update, UTC):%Y-%m-%dT%H:%M:%SZ}"
        msg = f"the sealed list is from {dated}, which is to come; set the clock, or where it is right hold a ceremony"
        raise Unavailable(Reason.CLOCK_AHEAD, msg)
    tbs_der, algorithm_der, signature = split_crl(publication.crl_der)
    facts = decode_tbs(decode_certificate(issuer.certificate_der or b"").tbs_certificate_bytes)
    verify_signature(facts.spki_der, algorithm_der, signature, tbs_der)


def _append(batch: Batch, reference: str, kept: Publication) -> None:
    append(
        batch,
        CrlPublished(
            authority=reference,
            shard=kept.shard,
            number=kept.number,
            this_update=kept.this_update,
            next_update=kept.next_update,
            sequence=kept.sequence,
            crl_sha256=hashlib.sha256(kept.crl_der).digest(),
        ),
    )
