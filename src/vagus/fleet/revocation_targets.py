"""Turns what a person names (unit, model, batch, serial, certificate file ...) into a selection; revokes nothing.

Several names narrow the selection: a unit and a model mean that unit's devices of that model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.errors import Conflict, LimitExceeded, Malformed, NotTrusted
from vagus.fleet.devices import owner_of
from vagus.fleet.line.selection import PROFILE
from vagus.fleet.line.selection import owner_of as birth_owner
from vagus.identifiers import UnitName, check_label, decode_serial
from vagus.reasons import Reason
from vagus.records.authorities import AuthorityRow, list_authorities
from vagus.records.certificates import find_certificate, load_bytes
from vagus.records.revocation.selections import Selection
from vagus.x509.certificates import decode_certificate
from vagus.x509.signatures import verify_signed

if TYPE_CHECKING:
    from vagus.identifiers import DeviceId
    from vagus.records.engine.database import Connection
    from vagus.x509.certificates import PathCertificate

MOST_NAMED = 1000
"""Serials or devices in one plan; a database accepts no statement with much more than that."""
_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationTarget:
    """As people write it: authorities `h1/icu` or `h1/icu#1`, a batch `MODEL:FIRST..LAST`, serials `h1/icu#1:SERIAL`.

    A serial is read as by `decode_serial`. On a maker's line, birth certificates are named by the serial numbers of
    their devices: single ones, or runs from a first to a last of the same length.
    """

    serials: Sequence[str] = ()
    devices: Sequence[DeviceId] = ()
    units: Sequence[str] = ()
    hospital: str | None = None
    authorities: Sequence[str] = ()
    model: str | None = None
    batch: str | None = None
    key_sha256: str | None = None
    birth_serials: Sequence[str] = ()
    birth_ranges: Sequence[tuple[str, str]] = ()

    @property
    def names_devices(self) -> bool:
        """Whether devices are meant, as one or as many, and not single certificates, keys or authorities."""
        named = bool(self.devices or self.units or self.hospital or self.model or self.batch)
        return named and not (self.serials or self.authorities or self.key_sha256)


def select_target(connection: Connection, target: RevocationTarget) -> Selection:
    """The selection that a target means.

    Raises Malformed(BAD_ARGUMENT), Malformed(NON_CANONICAL) for bad labels, LimitExceeded(TOO_MANY),
    Conflict(AUTHORITY_UNKNOWN, NOT_ISSUED).
    """
    if target == RevocationTarget():
        msg = "no revocation target is named; give a serial, device, unit, hospital, model, batch, key or authority"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    for named in (target.serials, target.devices, target.birth_serials):
        if len(named) > MOST_NAMED:
            msg = f"{len(named)} revocation targets are named, {MOST_NAMED} are allowed; name a model, batch or unit"
            raise LimitExceeded(Reason.TOO_MANY, msg, limit=MOST_NAMED, value=len(named))
    known = list_authorities(connection)
    model, first, last = _batch(target)
    return Selection(
        authority_ids=_authority_ids(known, target),
        owners=(*(owner_of(one) for one in target.devices), *(birth_owner(one) for one in target.birth_serials)),
        owner_ranges=tuple((birth_owner(first), birth_owner(last)) for first, last in target.birth_ranges),
        profile=PROFILE if target.birth_serials or target.birth_ranges else None,
        leaves=tuple(_leaf(connection, known, one) for one in target.serials),
        model=model,
        first_serial=first,
        last_serial=last,
        spki_sha256=None if target.key_sha256 is None else _digest(target.key_sha256),
        of_devices=bool(target.units or target.hospital),
    )


def _authority_ids(known: Iterable[AuthorityRow], target: RevocationTarget) -> tuple[int, ...]:
    """The authorities that every name leaves. An empty result means all, so it is refused where one was named."""
    left = {one.id for one in known}
    for what, text, fitting in (
        ("unit", ", ".join(target.units), [str(UnitName.parse(one)) for one in target.units]),
        ("hospital", target.hospital or "", [check_label(target.hospital, "hospital")] if target.hospital else []),
        ("authority", ", ".join(target.authorities), list(target.authorities)),
    ):
        if not fitting:
            continue
        for wanted in fitting:
            if not any(_fits(one, what, wanted) for one in known):
                raise _unknown(what, wanted, known)
        left &= {one.id for one in known if any(_fits(one, what, wanted) for wanted in fitting)}
        if not left:
            msg = f"an authority as revocation target excludes {text} and the others; give one of them"
            raise Malformed(Reason.AUTHORITY_UNKNOWN, msg, authority=text)
    is_named = bool(target.units or target.hospital or target.authorities)
    return tuple(sorted(left)) if is_named else ()


def _unknown(what: str, wanted: str, known: Iterable[AuthorityRow]) -> Malformed:
    """The error for a name that does not exist, with the names that do."""
    units = {one.name for one in known if one.kind == "issuing_ca"}
    there_are = {"unit": units, "hospital": {one.partition("/")[0] for one in units}}
    found = sorted(there_are.get(what, {one.name for one in known}))
    msg = f"{what} {wanted!r} does not exist; known are {_first_of(found)}"
    return Malformed(Reason.AUTHORITY_UNKNOWN, msg, authority=wanted)


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more: see `vagus ca list`" if len(names) > _MOST_SHOWN else ""
    return f"{', '.join(names[:_MOST_SHOWN]) or 'none'}{more}"


def _fits(authority: AuthorityRow, what: str, wanted: str) -> bool:
    if what == "hospital":
        return authority.name.startswith(f"{wanted}/")
    return wanted in {authority.name, authority.reference}


def _leaf(connection: Connection, known: Iterable[AuthorityRow], text: str) -> int:
    reference, _, digits = text.partition(":")
    issuer = next((one for one in known if one.reference == reference), None)
    if issuer is None:
        raise _no_issuer(known, text, reference)
    row = find_certificate(connection, issuer.id, decode_serial(digits))
    if row is None:
        msg = f"authority {reference} never issued certificate serial {digits}; check the issuer and the serial"
        raise Conflict(Reason.NOT_ISSUED, msg, serial=digits)
    return row.leaf_index


def serials_in(connection: Connection, certificates: Sequence[bytes], file: str) -> tuple[str, ...]:
    """The certificates of a file as `--serial` names them (`h1/icu#1:0xHEX`), if this installation issued these bytes.

    Authorities' certificates are left out, because they are the chain of a device's certificate; an authority's
    certificate that is alone in its file is meant. Raises Malformed(BAD_ARGUMENT) for several authorities alone and for
    what is no certificate, Conflict(AUTHORITY_UNKNOWN|NOT_ISSUED).
    """
    found = [decode_certificate(der) for der in certificates]
    meant = found if len(found) == 1 else [one for one in found if not one.is_ca]
    if not meant:
        msg = f"{file}: all {len(found)} certificates belong to authorities; put the one to revoke into a file alone"
        raise Malformed(Reason.BAD_ARGUMENT, msg, file=file)
    return tuple(_serial_of(connection, one, file) for one in meant)


def _serial_of(connection: Connection, one: PathCertificate, file: str) -> str:
    named = f"{file}: the certificate of {one.subject.describe() or 'no name'}, serial {one.serial:x},"
    issuer = next((known for known in list_authorities(connection) if has_signed(known, one)), None)
    if issuer is None:
        msg = f"certificate {named} has no issuer here (issuer {one.issuer.describe() or 'none'}); ask that CA"
        raise Conflict(Reason.AUTHORITY_UNKNOWN, msg, file=file)
    row = find_certificate(connection, issuer.id, one.serial)
    stored = b"" if row is None else load_bytes(connection, row.leaf_index)[0]
    if row is None or stored not in {b"", one.tbs_der}:  # a restore may have lost the stored bytes of the certificate
        msg = f"certificate {named} is signed with the key of {issuer.reference}, which never issued it: a stolen key?"
        raise Conflict(Reason.NOT_ISSUED, msg, file=file, authority=issuer.reference)
    return f"{issuer.reference}:0x{one.serial:x}"


def has_signed(authority: AuthorityRow, one: PathCertificate) -> bool:
    """Whether a certificate names this authority as its issuer (RFC 5280 7.1) and its key signed it."""
    if authority.certificate_der is None:
        return False
    own = decode_certificate(authority.certificate_der)
    if not own.subject.matches(one.issuer):
        return False
    try:
        verify_signed(own.spki_der, one.algorithm_der, one.signature, one.tbs_der)
    except (NotTrusted, Malformed):
        return False
    return True


def _no_issuer(known: Iterable[AuthorityRow], text: str, reference: str) -> Malformed:
    """The error for a serial in another form, or of an authority or generation that does not exist."""
    name, _, generation = reference.rpartition("#")
    if not (name and generation.isascii() and generation.isdigit()):
        msg = f"{text!r} names no authority's serial; write it as h1/icu#1:0x4a01, see `vagus device show`"
        return Malformed(Reason.BAD_ARGUMENT, msg, value=text)
    there_are = [one.reference for one in known if one.name == name] or sorted({one.name for one in known})
    what = f"generation {generation} of {name}" if any(one.name == name for one in known) else f"authority {name!r}"
    msg = f"{text!r} names {what}, which does not exist; known are {_first_of(there_are)}"
    return Malformed(Reason.BAD_ARGUMENT, msg, value=text)


def _batch(target: RevocationTarget) -> tuple[str | None, str | None, str | None]:
    """Model and range. Serials are compared as texts, so both ends of a range must have one length."""
    if target.batch is None:
        return target.model, None, None
    model, _, ends = target.batch.rpartition(":")
    first, dots, last = ends.partition("..")
    if not (model and dots and first and len(first) == len(last) and first <= last):
        msg = f"batch {target.batch!r} is not MODEL:FIRST..LAST with two serials of one length, the lower first"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=target.batch)
    if target.model not in {None, model}:
        msg = f"model {target.model!r} and a batch of model {model!r} exclude each other; give one of them"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=target.batch)
    return model, first, last


def _digest(text: str) -> bytes:
    digits = text.replace(":", "").lower()
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        found = b""
    if len(found) != 32:
        msg = f"{text!r} is no SHA-256 of a SubjectPublicKeyInfo; write 64 hexadecimal digits"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)
    return found
