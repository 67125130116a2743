"""Certifies the devices of a maker's line (802.1AR IDevIDs) from their requests; makes no key and writes no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum, unique
from functools import partial
from typing import Final

from vagus.authority.issuance import Issuance, IssuanceOrder, IssuanceToken, IssuedCertificate, Prepared
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict, LimitExceeded, Malformed, Refused, VagusError
from vagus.fleet.line.names import LineNames, Named
from vagus.fleet.line.selection import BIRTH, PROFILE, ChosenSerials, PlannedSerial, owner_of, serial_of
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.policy.plans import MakerPlan
from vagus.reasons import Reason
from vagus.records.authorities import list_authorities
from vagus.records.certificates import HELD, REVOKED, CertificateRow, count_births, list_births, load_bytes
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.keys import find_key, list_owners
from vagus.records.revocation.plans import list_recalls
from vagus.records.revocation.selections import is_in_ranges
from vagus.x509.keys import PublicKey
from vagus.x509.names.distinguished import UNIT, SubjectFields, decode_name
from vagus.x509.names.hardware_module import HardwareModule
from vagus.x509.names.requested import RequestedNames, read_requested_names
from vagus.x509.requests import decode_request
from vagus.x509.tbs import decode_tbs

_PART: Final = 200
_OF_THE_LINE: Final = frozenset({Reason.AUTHORITY_IN_USE, Reason.AUTHORITY_UNKNOWN, Reason.KEY_OFFLINE})
"""Refusals that no file is the cause of: they end the run."""


@unique
class LineState(StrEnum):
    """What became of a device's request."""

    SIGNED = "signed"
    KNOWN = "known"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LineFile:
    """A request as it lies on the line. `load` gives its DER, or a key that was made here for a demonstration."""

    name: str
    serial: str
    load: Callable[[], bytes | PublicKey] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOutcome:
    """What became of one file. `chain` is the device's certificate and the line CA's, as DER; empty if refused."""

    file: str
    serial: str
    state: LineState
    chain: tuple[bytes, ...] = field(repr=False, default=())
    reason: Reason | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class _Offer:
    """A request whose names agree with its file; `ignored` are texts that an operator had ignored."""

    file: LineFile
    device: PlannedSerial
    key: PublicKey
    ignored: tuple[str, ...]


class IDevIDLine:
    """Certifies under the maker's line CA; a repeated request for a device and key gives the same certificate."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        issuance: Issuance,
        issuer: Issuer,
        plan: MakerPlan,
        *,
        hardware_type: str,
    ) -> None:
        """`hardware_type` is the maker's OID for the kind of module (RFC 4108 section 5)."""
        self._database = database
        self._writer = writer
        self._issuance = issuance
        self._issuer = issuer
        self._plan = plan
        self._hardware_type = hardware_type

    def sign(
        self, files: Sequence[LineFile], chosen: ChosenSerials, *, is_again: bool, ignores_names: bool, by: str
    ) -> Iterator[LineOutcome]:
        """What became of each file, in some order; a file that is refused stops no other.

        A certificate is committed and signed before its outcome is given: after an interruption the same files give
        it as known. With `is_again` a device may get a certificate for another key than it has: a new board. Raises
        what ends the whole run: Unavailable, IntegrityFailure, Conflict(AUTHORITY_IN_USE).
        """
        # 1. Decode each request, and compare its names with the serial number that its file is for.
        names = LineNames(self._plan, [one.serial for one in chosen if one.lot is None] if chosen.is_named else ())
        offers: list[_Offer] = []
        for file in files:
            outcome = self._read(file, chosen, names, ignores_names=ignores_names)
            if isinstance(outcome, _Offer):
                offers.append(outcome)
            else:
                yield outcome
        # 2. Refuse a key or a serial number that several files have: which of them is right is not known, unless the
        # key was certified before.
        keys, serials = Counter(one.key.spki_sha256 for one in offers), Counter(one.device.serial for one in offers)
        with self._database.reading() as connection:
            shared = [one for one, count in keys.items() if count > 1]
            keys -= Counter({one: keys[one] - 1 for one in shared if find_key(connection, one) is not None})
        single: list[_Offer] = []
        for one in offers:
            if keys[one.key.spki_sha256] == serials[one.device.serial] == 1:
                single.append(one)
            else:
                yield _refused(one.file, _shared(one, offers))
        # 3. Certify the others; some hundred intents share their commits.
        for at in range(0, len(single), _PART):
            yield from self._certify(single[at : at + _PART], is_again=is_again, by=by)

    def _read(
        self, file: LineFile, chosen: ChosenSerials, names: LineNames, *, ignores_names: bool
    ) -> _Offer | LineOutcome:
        try:
            device = chosen.find(file.serial)
            if device is None:
                msg = f"serial {file.serial[:80]} is in no batch of the plan; rename the file or correct the plan"
                raise Malformed(Reason.BAD_ARGUMENT, msg, serial=file.serial[:80])
            content = file.load()
            if isinstance(content, PublicKey):
                return _Offer(file, device, content, ())
            key, found = decode_request(content).public_key, read_requested_names(content)
            named = Named(device.serial, device.model, self._plan.title)
            return _Offer(file, device, key, self._check_names(found, named, names, ignores_text=ignores_names))
        except (Malformed, LimitExceeded, Refused) as fault:
            return _refused(file, fault)

    def _check_names(
        self, found: RequestedNames, device: Named, names: LineNames, *, ignores_text: bool
    ) -> tuple[str, ...]:
        ignored = names.check(found, device, ignores_text=ignores_text)
        if ignored:  # what looks like a fixed text may be a serial number that was certified from another list
            with self._database.reading() as connection:
                for text in list_births(connection, [owner_of(one) for one in ignored]):
                    LineNames(self._plan, [serial_of(text)]).check(found, device, ignores_text=True)
        return ignored

    def _certify(self, offers: Sequence[_Offer], *, is_again: bool, by: str) -> Iterator[LineOutcome]:
        begun: list[tuple[_Offer, Future[IssuanceToken | IssuedCertificate]]] = []
        with self._database.reading() as connection:
            births = list_births(connection, [owner_of(one.device.serial) for one in offers])
            owners = list_owners(connection, [one.key.spki_sha256 for one in offers])
            recalls = list_recalls(connection)
            issuers = {one.id: one.certificate_der for one in list_authorities(connection)}
            known: list[LineOutcome] = []
            for one in offers:
                had = births.get(owner_of(one.device.serial), ())
                try:
                    # 1. Give the certificate again that the device has for this key.
                    chain = _find_known(connection, one, had, issuers)
                    if chain:
                        state = LineState.KNOWN
                        known.append(
                            LineOutcome(file=one.file.name, serial=one.device.serial, state=state, chain=chain)
                        )
                        continue
                    # 2. Check the key's owner. A further board, or a device that was made anew, needs `is_again`.
                    _check_key(one, owners.get(one.key.spki_sha256, ""))
                    refusal = _find_refusal(one, had, recalls)
                    if refusal is not None and not is_again:
                        raise refusal
                    # 3. Apply the policy, build the TBSCertificate and run the lints.
                    prepared = self._issuance.prepare(self._order(one), self._issuer)
                except (Malformed, LimitExceeded, Refused) as fault:
                    known.append(_refused(one.file, fault))
                else:
                    # 4. Commit the intent with the entries that say what the operator decided.
                    notes = ["idevid-again"] * (refusal is not None) + ["idevid-names-ignored"] * bool(one.ignored)
                    seen = frozenset(recalls)
                    act = partial(
                        self._record, offer=one, prepared=prepared, had=len(had), seen=seen, notes=notes, by=by
                    )
                    begun.append((one, self._writer.submit(act)))
        yield from known
        for one, future in begun:
            yield self._finish(one, future)

    def _record(
        self,
        batch: Batch,
        *,
        offer: _Offer,
        prepared: Prepared,
        had: int,
        seen: frozenset[int],
        notes: Sequence[str],
        by: str,
    ) -> IssuanceToken | IssuedCertificate:
        """The one transaction. Since it was read, another process may have certified the device with another key.

        Or someone has recalled its lot: `seen` are the plans that were known.
        """
        owner, serial = owner_of(offer.device.serial), offer.device.serial
        if count_births(batch.connection, owner) != had:
            msg = f"another process certified {serial} at the same time; run the command again"
            raise Conflict(Reason.ALREADY_EXISTS, msg, serial=serial)
        late = {one: ranges for one, ranges in list_recalls(batch.connection).items() if one not in seen}
        refusal = _find_refusal(offer, (), late)
        if refusal is not None:
            raise refusal
        for act in notes:
            append(batch, OperatorAct(act, by, subject=owner, detail_sha256=offer.key.spki_sha256))
        return self._issuance.record(prepared, batch)

    def _finish(self, offer: _Offer, future: Future[IssuanceToken | IssuedCertificate]) -> LineOutcome:
        try:
            recorded = future.result()
        except (Malformed, LimitExceeded, Refused) as fault:
            return _refused(offer.file, fault)
        issued = recorded if isinstance(recorded, IssuedCertificate) else self._issuance.issue(recorded)
        chain = (issued.der, issued.issuer.certificate_der)
        return LineOutcome(file=offer.file.name, serial=offer.device.serial, state=LineState.SIGNED, chain=chain)

    def _order(self, offer: _Offer) -> IssuanceOrder:
        device = offer.device
        return IssuanceOrder(
            request_id=f"idevid-{offer.key.spki_sha256.hex()}",
            profile=PROFILE,
            owner=owner_of(device.serial),
            public_key=offer.key,
            subject=SubjectFields(
                organisation=self._plan.title,
                unit=device.model,
                country=self._plan.country,
                serial_number=device.serial,
            ),
            hardware_module=HardwareModule(self._hardware_type, device.serial.encode("ascii")),
        )


def model_in(tbs_der: bytes) -> str | None:
    """The model that a birth certificate gives its device; None where a restore lost its bytes."""
    return next(iter(decode_name(decode_tbs(tbs_der).subject_der).texts(UNIT)), None) if tbs_der else None


def _find_known(
    connection: Connection, offer: _Offer, births: Sequence[CertificateRow], issuers: Mapping[int, bytes | None]
) -> tuple[bytes, ...]:
    """The chain of the certificate that the device has for this key, empty where it has none that is signed.

    Raises Conflict(REVOKED, ON_HOLD, NAME_MISMATCH: it names another model, NOT_FOUND: its bytes are lost).
    """
    serial = offer.device.serial
    row = next((one for one in births if one.spki_sha256 == offer.key.spki_sha256), None)
    if row is None:
        return ()
    if row.state in {REVOKED, HELD}:
        what, remedy = (
            ("revoked", "make a new key and give --again") if row.state == REVOKED else ("on hold", "release it")
        )
        msg = f"the certificate of {serial} for this key is {what}; {remedy}, see `vagus maker show --serial {serial}`"
        raise Conflict(Reason.REVOKED if row.state == REVOKED else Reason.ON_HOLD, msg, serial=serial)
    tbs_der, der = load_bytes(connection, row.leaf_index)
    if tbs_der and (model := model_in(tbs_der)) != offer.device.model:
        msg = f"{serial} was certified as a device of model {model}, not {offer.device.model}; correct plan or list"
        raise Conflict(Reason.NAME_MISMATCH, msg, serial=serial)
    issuer = issuers.get(row.authority_id)
    if not tbs_der or (der is not None and issuer is None):
        msg = f"the bytes of the certificate of {serial} were lost in a restore; the device or a later backup has them"
        raise Conflict(Reason.NOT_FOUND, msg, serial=serial)
    return () if der is None or issuer is None else (der, issuer)


def _find_refusal(
    offer: _Offer, births: Sequence[CertificateRow], recalls: Mapping[int, tuple[tuple[str, str], ...]]
) -> Conflict | None:
    """Why a device gets no certificate for a new key unless the operator says so."""
    serial = offer.device.serial
    if any(one.spki_sha256 == offer.key.spki_sha256 for one in births):
        return None  # it has an intent for this key, which is signed now
    if births:
        msg = f"{serial} has a birth certificate for another key; leave the file out, or give --again where the board"
        return Conflict(Reason.ALREADY_EXISTS, f"{msg} was replaced", serial=serial)
    plan = next((one for one, ranges in recalls.items() if is_in_ranges(owner_of(serial), ranges)), None)
    if plan is None:
        return None
    msg = f"revocation plan {plan} recalls the lot of {serial}; leave the file out, or give --again where the"
    return Conflict(Reason.REVOKED, f"{msg} device was made anew", serial=serial)


def _check_key(offer: _Offer, owner: str) -> None:
    """Raises Conflict(KEY_REUSE) for a key that another device of the line has; issuance refuses any other owner."""
    if owner.startswith(BIRTH) and owner != owner_of(offer.device.serial):
        other = serial_of(owner)
        msg = f"has the key that was certified for {other}; make a key on each device, and give each its own file"
        raise Conflict(Reason.KEY_REUSE, msg, serial=offer.device.serial, other=other)


def _shared(offer: _Offer, offers: Sequence[_Offer]) -> Conflict:
    """The error for a file whose key or serial number another file has too."""
    others = [one for one in offers if one is not offer]
    same_key = next((one.file.name for one in others if one.key.spki_sha256 == offer.key.spki_sha256), None)
    if same_key is None:
        other = next(one.file.name for one in others if one.device.serial == offer.device.serial)
        msg = f"{other} is for {offer.device.serial} too; leave one of them out"
        return Conflict(Reason.ALREADY_EXISTS, msg, serial=offer.device.serial)
    msg = f"has the key that {same_key} has too, and neither is certified; make a key on each device"
    return Conflict(Reason.KEY_REUSE, msg, serial=offer.device.serial)


def _refused(file: LineFile, fault: VagusError) -> LineOutcome:
    """The outcome of a file. Raises the fault itself where the line as a whole cannot sign."""
    if fault.reason in _OF_THE_LINE:
        raise fault
    is_about_file = fault.message.startswith("has the key")
    message = f"{file.name} {fault.message}" if is_about_file else f"{file.name}: {fault.message}"
    state = LineState.REFUSED
    return LineOutcome(file=file.name, serial=file.serial, state=state, reason=fault.reason, message=message)
