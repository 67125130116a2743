"""Takes in certificates that a unit CA issued before it came here, so that their devices go on without enrolling anew.

Each becomes a row of its device with its bytes, like a certificate that was issued here. A gateway admits exactly these
bytes. Their names are those of the old operator, so the row says which device it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from vagus.authority.crls.foreign import CombinedEntry
from vagus.authority.earlier_revocations import ELSEWHERE, choose_shard, record_entry
from vagus.authority.revocation import block_key
from vagus.errors import Conflict, NotAuthorised, NotTrusted, VagusError
from vagus.fleet.device_anchors import device_anchors
from vagus.fleet.devices import owner_of
from vagus.fleet.lifecycle import MAY_ENROL, DeviceState, check_may
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.append import append
from vagus.ledger.entries import DeviceStateChanged, IssuanceRecorded, OperatorAct
from vagus.policy.plans import AuthorityKind
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records import keys as key_rows
from vagus.records.authorities import ACTIVE, RETIRED, AuthorityRow, list_authorities
from vagus.records.devices import DeviceFilter, DeviceRow, find_device, list_devices, place_of, set_device_state
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import load_installation
from vagus.records.lost_certificates import take_place
from vagus.records.revocation.revocations import find_revocation
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.wire.openssl_index import IndexLine
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.keys import decode_public_key
from vagus.x509.names.distinguished import COMMON_NAME, SERIAL_NUMBER
from vagus.x509.searchable import names_beside_device, read_search_facts

_PART = 200
"""Certificates of one transaction."""
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What became of one certificate: `reason` and `message` say why it was not taken in; without them it is here."""

    file: str
    serial: int | None = None
    device: str | None = None
    reason: Reason | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class TakeInReport:
    """What became of each certificate, and how many revocations only the index had."""

    certificates: tuple[TakenIn, ...]
    revoked: int

    @property
    def refused(self) -> tuple[TakenIn, ...]:
        """Those that were not taken in."""
        return tuple(one for one in self.certificates if one.reason is not None)


def take_in(
    writer: Writer,
    issuer: AuthorityRow,
    files: Sequence[tuple[str, bytes]],
    index: Sequence[IndexLine] | None,
    *,
    at: datetime,
    by: str,
) -> TakeInReport:
    """Take in the certificates (file name, DER) of an imported unit CA; what `index` revokes is revoked first.

    With an index, what it does not name is not taken in, and what it names without a file is reported. Repeated, it
    changes nothing. Raises Conflict(NOT_ISSUED) for an authority that is no imported unit CA.
    """
    # 1. Only an imported unit CA has devices with certificates from elsewhere.
    if issuer.request_der is not None or issuer.kind != AuthorityKind.ISSUING_CA or issuer.certificate_der is None:
        msg = f"authority {issuer.reference} is no imported CA of a unit, so no device has an earlier certificate of it"
        raise Conflict(Reason.NOT_ISSUED, msg, authority=issuer.reference)
    # 2. Record the revocations of the index before any certificate: none that it revokes is ever good.
    revoked = writer.submit(lambda batch: _revoke(batch, issuer, index or (), by)).result()
    # 3. Check each certificate as a gateway would, and find its device.
    with writer.database.reading() as connection:
        candidates = _Candidates(connection, issuer, index, at)
        judged = [candidates.judge(file, der) for file, der in files]
    # 4. Block the keys of certificates that are revoked because their key was lost: another one may carry the same key.
    done = [one for one in judged if isinstance(one, TakenIn)]
    good = [one for one in judged if isinstance(one, _Candidate)]
    parts = [good[first : first + _PART] for first in range(0, len(good), _PART)]
    for part in parts:
        writer.submit(partial(_block_lost_keys, issuer, part, by)).result()
    # 5. Write those that hold, some hundred in one transaction each.
    for part in parts:
        done += writer.submit(partial(_write_part, issuer, part, by)).result()
    present = {one.serial for one in done}
    living = [one.serial for one in index or () if one.revoked_at is None and one.not_after > at]
    missing = [serial for serial in living if serial not in present]
    message = "the index names it, and no file has it; add the certificate's file"
    done += [TakenIn("", serial, None, Reason.NOT_FOUND, message) for serial in missing]
    return TakeInReport(tuple(done), revoked)


def _revoke(batch: Batch, issuer: AuthorityRow, index: Sequence[IndexLine], by: str) -> int:
    changed = 0
    for one in index:
        if one.revoked_at is not None:
            said = CombinedEntry(one.reason, dated_at=max(int(one.revoked_at.timestamp()), 0))
            changed += record_entry(batch, issuer, one.serial, said, since=ELSEWHERE, by=by)
    append(batch, OperatorAct("certificates-taken-in", by, subject=f"authority:{issuer.reference}"))
    return changed


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A certificate that a gateway would admit for its device."""

    file: str
    leaf: PathCertificate
    device: DeviceRow


class _Candidates:
    """Judges certificates of one issuer against the devices of its unit."""

    def __init__(
        self, connection: Connection, issuer: AuthorityRow, index: Sequence[IndexLine] | None, at: datetime
    ) -> None:
        living = [row for row in list_authorities(connection) if row.state in {ACTIVE, RETIRED}]
        self._at = at
        self._issuer = issuer
        self._known = None if index is None else {one.serial for one in index}
        self._domain = load_installation(connection).group_domain or ""
        hospital = issuer.name.partition("/")[0]
        anchors, known = device_anchors(living, hospital, [issuer.name], self._domain)
        self._validator = Validator(anchors, UnsafeNoStatus(), known=known)
        self._devices: dict[str, set[DeviceRow]] = {}
        for device in _every_device(connection, issuer.name):
            for name in (device.id.text, device.maker_serial, *device.host_names):
                self._devices.setdefault(name.casefold(), set()).add(device)

    def judge(self, file: str, der: bytes) -> _Candidate | TakenIn:
        serial: int | None = None
        try:
            leaf = decode_certificate(der)
            serial = leaf.serial
            return _Candidate(file, leaf, self._check(leaf))
        except VagusError as refusal:
            return TakenIn(file, serial, None, refusal.reason, refusal.message)

    def _check(self, leaf: PathCertificate) -> DeviceRow:
        if self._known is not None and leaf.serial not in self._known:
            msg = "the index does not name this certificate; was it signed by a stolen key? Ask the old operator"
            raise NotTrusted(Reason.NOT_ISSUED, msg)
        device = self._find_device(leaf)
        expectation = Expectation(
            role=Role.CLIENT,
            group_domain=self._domain,
            units=frozenset({self._issuer.name}),
            find_earlier=lambda _leaf, _issuer: (device.id, device.unit),
        )
        accepted = self._validator.validate(leaf.der, (), expectation, self._at)
        anchor = accepted.path[1] if len(accepted.path) > 1 else accepted.anchor
        if anchor is None or anchor.spki_sha256 != self._issuer.spki_sha256:
            raise NotTrusted(Reason.NOT_ISSUED, f"another CA than {self._issuer.reference} issued it; leave it out")
        if accepted.device_name is None or accepted.device_name.device != device.id:
            msg = "its names mean different devices; have one of them corrected in the inventory, or enrol it anew"
            raise NotTrusted(Reason.IDENTITY_AMBIGUOUS, msg)
        return device

    def _find_device(self, leaf: PathCertificate) -> DeviceRow:
        """The device of the unit that the certificate names by its id, its maker's serial number or a host name."""
        hosts = [name for dns in leaf.names.dns for name in (dns, dns.partition(".")[0])]
        names = (*leaf.subject.texts(SERIAL_NUMBER), *leaf.subject.texts(COMMON_NAME), *hosts)
        found = {device for name in names for device in self._devices.get(name.casefold(), ())}
        if len(found) == 1:
            return found.pop()
        shown = ", ".join(dict.fromkeys(names)) or "none"
        if found:
            msg = f"its names ({shown}) mean {len(found)} devices of {self._issuer.name}; enrol its device anew"
            raise NotTrusted(Reason.IDENTITY_AMBIGUOUS, msg)
        msg = f"no device of {self._issuer.name} has one of its names ({shown}) as id, serial number or host name"
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, f"{msg}; add the device, then repeat")


def _every_device(connection: Connection, unit: str) -> Iterator[DeviceRow]:
    narrow, after = DeviceFilter(unit=UnitName.parse(unit)), None
    while page := list_devices(connection, narrow, after=after, limit=_PAGE):
        yield from page
        after = place_of(page[-1])


def _block_lost_keys(issuer: AuthorityRow, part: Sequence[_Candidate], by: str, batch: Batch) -> None:
    for one in part:
        row = rows.find_certificate(batch.connection, issuer.id, one.leaf.serial)
        found = None if row is None else find_revocation(batch.connection, row.leaf_index)
        if found is not None and RevocationReason(found.reason).is_compromise:
            block_key(batch, one.leaf.spki_sha256, by=by)


def _write_part(issuer: AuthorityRow, part: Sequence[_Candidate], by: str, batch: Batch) -> list[TakenIn]:
    return [_write(batch, issuer, one, by) for one in part]


def _write(batch: Batch, issuer: AuthorityRow, one: _Candidate, by: str) -> TakenIn:
    """One certificate in the transaction; everything is checked before anything is written."""
    leaf, device_id = one.leaf, one.device.id
    result = TakenIn(one.file, leaf.serial, device_id.text)
    try:
        # 1. The certificate is not here already: by its row it is revoked, or these are its bytes.
        row = rows.find_certificate(batch.connection, issuer.id, leaf.serial)
        if row is not None and row.fingerprint == leaf.sha256:
            return result
        if row is not None and row.state in {rows.REVOKED, rows.HELD}:
            raise NotTrusted(Reason.REVOKED, "the CA has revoked it, or has put it on hold; enrol its device anew")
        if row is not None:
            msg = "another certificate of this serial is here, or a restore lost the bytes; enrol its device anew"
            raise Conflict(Reason.ALREADY_EXISTS, msg)
        # 2. Its device may have certificates now, and its key belongs to no other owner.
        device = _find_free_device(batch, issuer, device_id)
        key = key_rows.find_key(batch.connection, leaf.spki_sha256)
        if key is not None and (key.is_blocked or key.owner != owner_of(device_id)):
            raise Conflict(Reason.KEY_REUSE, "its key is blocked, or is another device's; make a new key and enrol")
    except VagusError as refusal:
        return replace(result, reason=refusal.reason, message=refusal.message)
    # 3. Write its key, its ledger entry and its row with the bytes.
    if key is None:
        key_rows.insert_key(batch.connection, leaf.spki_sha256, owner_of(device_id), at=batch.at)
    _insert(batch, issuer, leaf, device)
    # 4. With its first certificate a device is commissioned.
    if device.state == DeviceState.RECEIVED:
        after = DeviceState.COMMISSIONED
        set_device_state(batch.connection, device_id, before=device.state, after=after, at=batch.at)
        append(batch, DeviceStateChanged(owner_of(device_id), device.state, after, by))
    return result


def _find_free_device(batch: Batch, issuer: AuthorityRow, device_id: DeviceId) -> DeviceRow:
    """The device, if it may have one more certificate. Raises NotAuthorised, Conflict, NotTrusted if it may not."""
    device = find_device(batch.connection, device_id)
    if device is None or str(device.unit) != issuer.name:
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, "its device left the unit meanwhile; repeat")
    check_may(DeviceState(device.state), MAY_ENROL, "have a certificate")
    if device.held_at is not None:
        raise Conflict(Reason.DEVICE_STATE, "its device is on hold; release the device first, then repeat")
    alive = rows.list_of_device(batch.connection, device_id.text, alive_at=batch.at)
    if any(own.state == rows.HELD for own in alive):
        raise NotTrusted(Reason.ON_HOLD, "a certificate of its device is on hold; release or revoke that one first")
    return device


def _insert(batch: Batch, issuer: AuthorityRow, leaf: PathCertificate, device: DeviceRow) -> None:
    request_id = f"{rows.EARLIER}{issuer.id}:{leaf.serial:x}"
    shard = choose_shard(batch.connection, issuer)
    recorded = IssuanceRecorded(
        authority=issuer.reference,
        serial=leaf.serial,
        tbs_sha256=hashlib.sha256(leaf.tbs_der).digest(),
        spki_sha256=leaf.spki_sha256,
        profile=device.profile,
        owner=owner_of(device.id),
        request_id_hash=hashlib.sha256(request_id.encode()).digest(),
        shard=shard,
    )
    algorithm = None
    with suppress(VagusError):
        algorithm = decode_public_key(leaf.spki_der).algorithm.value
    row = rows.CertificateRow(
        leaf_index=append(batch, recorded),
        authority_id=issuer.id,
        serial=leaf.serial,
        owner=owner_of(device.id),
        device_id=device.id.text,
        profile=device.profile,
        spki_sha256=leaf.spki_sha256,
        request_id=request_id,
        not_before=int(leaf.not_before.timestamp()),
        not_after=min(int(leaf.not_after.timestamp()), rows.NO_EXPIRY),
        shard=shard,
        key_algorithm=algorithm,
    )
    names = names_beside_device(read_search_facts(leaf.tbs_der).names, device.id.text)
    rows.insert_intent(batch.connection, row, leaf.tbs_der, names)
    rows.note_signature(batch.connection, row.leaf_index, leaf.der, leaf.sha256)
    take_place(batch.connection, issuer.id, shard)
