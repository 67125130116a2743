"""Authorities as an operator reads and changes them: list, request, import, roll, retire, emergency CRL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from vagus.authority import earlier_revocations
from vagus.authority.crls.emergency import publish_sealed
from vagus.authority.crls.publisher import forget_future_dates
from vagus.components import EMERGENCY
from vagus.errors import Conflict, IntegrityFailure, Malformed, Unavailable
from vagus.fleet.earlier_certificates import TakeInReport, TakenIn, take_in
from vagus.fleet.expiry import shown_state
from vagus.fleet.revocation_targets import has_signed
from vagus.keystore.envelopes import read_label
from vagus.operations.acts import Acts
from vagus.operations.roles import Act, check_may
from vagus.policy.plans import AuthorityKind
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records import publications
from vagus.records.certificates import count_alive
from vagus.records.work import bring_forward
from vagus.wire.openssl_index import IndexLine, decode_index
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from vagus.keystore.passphrases import Passphrase
    from vagus.operations.actor import Actor
    from vagus.policy.plans import PlannedAuthority


Authority = rows.AuthorityRow
"""One generation of an authority, as operations return it."""
EarlierCertificate = TakenIn
"""What became of one certificate that was to be taken in."""
EarlierCertificates = TakeInReport
"""What became of all of them."""


@dataclass(frozen=True, slots=True)
class AuthorityDetails:
    """An authority with its parent's reference and the number of its certificates that live."""

    authority: Authority
    parent: str | None
    live_certificates: int


@dataclass(frozen=True, slots=True)
class Exported:
    """The certificate of an authority as it is handed out."""

    name: str
    """Its reference; of one that is no authority here, that of an authority beneath it and how far above it stands."""
    certificate_der: bytes
    is_root: bool


@dataclass(frozen=True, slots=True)
class ExportedCrl:
    """The newest complete CRL of an authority; `next_update` in seconds since 1970 UTC."""

    authority: str
    crl_der: bytes
    next_update: int
    is_expired: bool


@dataclass(frozen=True, slots=True)
class ExportedCrls:
    """CRLs, and the authorities whose issuer is elsewhere, so that its CRL comes from there."""

    crls: tuple[ExportedCrl, ...]
    issued_elsewhere: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportedAuthority:
    """An imported CA, how many certificates its CRLs revoke or hold, and what became of its earlier certificates.

    `outlived` are the profiles that it can issue no more, because their certificates would outlive it.
    """

    reference: str
    revoked: int
    earlier: EarlierCertificates | None
    outlived: tuple[str, ...]


class Authorities(Acts):
    """What an operator may do with authorities. One is named by `h1/icu`, or `h1/icu#2` for one generation."""

    def list_all(self, actor: Actor) -> tuple[Authority, ...]:
        """Every generation of every authority, by name."""
        check_may(actor, Act.READ_AUTHORITIES)
        with self.components.database.reading() as connection:
            found = rows.list_authorities(connection)
        shown = (self._as_shown(row) for row in found)
        return tuple(sorted(shown, key=lambda row: (row.name, row.generation)))

    def find(self, actor: Actor, name: str) -> Authority:
        """The generation that `name` means: the named one, else the newest active one, else the newest.

        Raises Malformed(AUTHORITY_UNKNOWN).
        """
        check_may(actor, Act.READ_AUTHORITIES)
        return self._find(name)

    def show(self, actor: Actor, name: str) -> AuthorityDetails:
        """One authority with what is around it. Raises as `find`."""
        check_may(actor, Act.READ_AUTHORITIES)
        row, now = self._find(name), int(self.components.clock.now().timestamp())
        with self.components.database.reading() as connection:
            above = None if row.parent_id is None else rows.find_by_id(connection, row.parent_id)
            alive = count_alive(connection, row.id, alive_at=now)
        return AuthorityDetails(self._as_shown(row), None if above is None else above.reference, alive)

    def export(self, actor: Actor, name: str, *, with_chain: bool, with_root: bool = True) -> tuple[Exported, ...]:
        """The certificate, and those above it if asked for, nearest first.

        Raises as `find`, Conflict(CEREMONY_NEEDED) before it has one, and Malformed(BAD_ARGUMENT) for a root that is
        left out.
        """
        check_may(actor, Act.READ_AUTHORITIES)
        row = self._find(name)
        if row.certificate_der is None:
            msg = f"authority {row.reference} has no certificate yet; run: vagus ceremony"
            raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=row.reference)
        found = self._with_above([row])
        return _selected(found if with_chain else found[:1], with_root=with_root)

    def export_hospital(self, actor: Actor, label: str, *, with_root: bool = True) -> tuple[Exported, ...]:
        """Every living authority of one hospital, and those above them; roots last.

        Living is also a retired generation whose certificates are still valid. Raises Malformed(AUTHORITY_UNKNOWN).
        """
        check_may(actor, Act.READ_AUTHORITIES)
        living = self._living()
        mine = [row for row in living if row.name == label or row.name.startswith(f"{label}/")]
        hospitals = sorted({row.name for row in living if row.kind == AuthorityKind.DEVICE_CA})
        if label not in hospitals:
            msg = f"there is no hospital {label!r} with a certificate; there are {', '.join(hospitals) or 'none'}"
            raise (Malformed if hospitals else Conflict)(Reason.AUTHORITY_UNKNOWN, msg, authority=label)
        return _selected(self._with_above(mine), with_root=with_root)

    def export_roots(self, actor: Actor) -> tuple[Exported, ...]:
        """The roots of every living authority, also those elsewhere. Raises Conflict(CEREMONY_NEEDED) without one."""
        check_may(actor, Act.READ_AUTHORITIES)
        found = tuple(one for one in self._with_above(self._living()) if one.is_root)
        if not found:
            raise Conflict(Reason.CEREMONY_NEEDED, "no authority has a certificate yet; run: vagus ceremony")
        return found

    def export_crls(self, actor: Actor, names: Sequence[str]) -> ExportedCrls:
        """The newest complete CRL of each named authority and of those above it, each once.

        A name without a generation means all its living generations, as their certificates are still checked. Raises
        as `find`, and Unavailable(STATUS_UNAVAILABLE) where a CRL was not signed yet, or is older than one that was
        published.
        """
        check_may(actor, Act.READ_AUTHORITIES)
        wanted: dict[int, Authority] = {}
        living = self._living()
        for name in names:
            mine = [row for row in living if "#" not in name and row.name == name] or [self._find(name)]
            wanted |= {row.id: row for row in mine}
        now, crls, elsewhere = int(self.components.clock.now().timestamp()), [], []
        with self.components.database.reading() as connection:
            outdated = publications.list_outdated(connection)
            waiting = list(wanted.values())
            while waiting:
                row = waiting.pop(0)
                if rows.load_foreign(connection, row.id):
                    elsewhere.append(row.reference)
                above = None if row.parent_id is None else rows.find_by_id(connection, row.parent_id)
                if above is not None and above.id not in wanted:
                    wanted[above.id] = above
                    waiting.append(above)
                found = publications.find_publication(connection, row.id, publications.COMPLETE)
                if found is None or (row.id, publications.COMPLETE) in outdated:
                    act = "vagus ceremony" if row.is_offline else f"vagus serve --issue-for {row.name}"
                    msg = f"there is no CRL of {row.reference} to hand out; run: {act}"
                    raise Unavailable(Reason.STATUS_UNAVAILABLE, msg, authority=row.reference)
                crls.append(ExportedCrl(row.reference, found.crl_der, found.next_update, found.next_update <= now))
        return ExportedCrls(tuple(crls), tuple(elsewhere))

    def read_request(self, actor: Actor, name: str) -> bytes:
        """The request (PKCS#10 DER) of an authority that waits. Raises as `find`, and Conflict(ALREADY_EXISTS)."""
        check_may(actor, Act.READ_AUTHORITIES)
        row = self._find(name)
        if row.request_der is None or row.state != rows.REQUESTED:
            msg = f"authority {row.reference} does not wait for a certificate; make a generation by `vagus ca roll`"
            raise Conflict(Reason.ALREADY_EXISTS, msg, authority=row.reference)
        return row.request_der

    def accept(self, actor: Actor, name: str, chain_pem: bytes) -> str:
        """Take in the certificate that a CA elsewhere made; gives the reference. Raises as `accept_certificate`."""
        check_may(actor, Act.ACCEPT_AUTHORITY)
        return self.components.hierarchy.accept_certificate(name, chain_pem, by=actor.id)

    def import_existing(
        self,
        actor: Actor,
        name: str,
        chain_pem: bytes,
        key_pem: bytes,
        password: Passphrase | None,
        *,
        crls: Sequence[bytes],
        files: Sequence[tuple[str, bytes]] = (),
        index: bytes | None = None,
    ) -> ImportedAuthority:
        """Take over an existing CA with its key, what its CRLs (DER) revoke, and what `take_in` takes of `files`.

        Raises as `Hierarchy.import_authority` and `decode_index`, Malformed(AUTHORITY_UNKNOWN) for a name that the plan
        lacks, and Malformed(BAD_ARGUMENT) for files of another CA than a unit's; then nothing is stored.
        """
        check_may(actor, Act.IMPORT_AUTHORITY)
        planned = self._planned(name)
        lines = None if index is None else decode_index(index)
        takes_in = bool(files) or lines is not None
        if takes_in and planned.kind is not AuthorityKind.ISSUING_CA:
            msg = f"{name} is no unit, so no device has a certificate of this CA; leave certificates and index out"
            raise Malformed(Reason.BAD_ARGUMENT, msg, authority=name)
        hierarchy = self.components.hierarchy
        reference, revoked = hierarchy.import_authority(planned, chain_pem, key_pem, password, crls=crls, by=actor.id)
        earlier = self._take_in(actor, reference, files, lines) if takes_in else None
        return ImportedAuthority(reference, revoked, earlier, self._outlived(reference))

    def take_in(
        self, actor: Actor, name: str, files: Sequence[tuple[str, bytes]], index: bytes | None
    ) -> EarlierCertificates:
        """Take in certificates (file name, DER) that an imported unit CA issued before it came here.

        `index` is the index.txt of `openssl ca`. Raises as `find`, `take_in` and `decode_index`.
        """
        check_may(actor, Act.IMPORT_AUTHORITY)
        return self._take_in(actor, name, files, None if index is None else decode_index(index))

    def _outlived(self, reference: str) -> tuple[str, ...]:
        row, now = self._find(reference), int(self.components.clock.now().timestamp())
        if row.kind != AuthorityKind.ISSUING_CA or row.not_after is None:
            return ()
        left = timedelta(seconds=row.not_after - now)
        pack = self.components.pack
        governed = (pack.profiles[name] for name, rule in pack.rules.items() if rule.categories)
        return tuple(sorted(one.name for one in governed if one.default_lifetime and one.default_lifetime > left))

    def _take_in(
        self, actor: Actor, name: str, files: Sequence[tuple[str, bytes]], index: Sequence[IndexLine] | None
    ) -> EarlierCertificates:
        at = self.components.clock.now()
        return take_in(self.components.writer, self._find(name), files, index, at=at, by=actor.id)

    def find_earlier(
        self, actor: Actor, name: str, certificates: Sequence[bytes], *, file: str
    ) -> tuple[Authority, int]:
        """The authority and the serial of the certificate in `file` that it issued; its chain may be beside it.

        Raises as `find`, and Conflict(NOT_ISSUED) unless exactly one of `certificates` (DER) is by its name and key.
        """
        check_may(actor, Act.REVOKE_EARLIER)
        row = self._find(name)
        found = [one for one in map(decode_certificate, certificates) if has_signed(row, one)]
        if len(found) != 1:
            msg = f"{file}: {row.reference} has signed {len(found)} of the {len(certificates)} certificates in it"
            raise Conflict(Reason.NOT_ISSUED, f"{msg}; give a file with one of its certificates", file=file)
        return row, found[0].serial

    def revoke_earlier(self, actor: Actor, name: str, serial: int, reason: str) -> int:
        """Revoke a certificate that an imported CA issued before it came here; 0 where it was revoked already.

        Raises as `find`, as `earlier_revocations.revoke_earlier`, Malformed(BAD_ARGUMENT) for an unknown reason.
        """
        check_may(actor, Act.REVOKE_EARLIER)
        row, parsed = self._find(name), RevocationReason.parse(reason)
        writer = self.components.writer
        return earlier_revocations.revoke_earlier(writer, row.name, row.generation, serial, parsed, by=actor.id)

    def roll(self, actor: Actor, name: str) -> str:
        """Make key and request of the next generation; gives its reference. Raises as `Hierarchy.request`."""
        check_may(actor, Act.ROLL_AUTHORITY)
        return self.components.hierarchy.request(self._planned(name), by=actor.id, is_rekey=True).reference

    def retire(self, actor: Actor, name: str) -> str:
        """End new certificates from one generation, for good; gives its reference.

        Raises as `find`, and Malformed(BAD_ARGUMENT) without a generation: the newest one issues, and is never meant
        by chance.
        """
        check_may(actor, Act.RETIRE_AUTHORITY)
        if "#" not in name:
            msg = f"{name!r} names no generation of an authority; write it as in {name}#1, see `vagus ca list`"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=name)
        row = self._find(name)
        self.components.hierarchy.retire(row.name, row.generation, by=actor.id)
        return row.reference

    def read_envelope(self, actor: Actor, envelope: bytes, *, file: str) -> str:
        """The authority that a sealed emergency CRL revokes, by reference. Nothing proves it before it is opened.

        `file` is what messages call the envelope. Raises Malformed(BAD_ARGUMENT).
        """
        check_may(actor, Act.REVOKE_AUTHORITY)
        try:
            return str(read_label(envelope).get("revokes"))
        except IntegrityFailure as error:
            msg = f"file {file} is no sealed CRL, or damaged; name one of keystores/AUTHORITY/emergency/*.sealed"
            raise Malformed(Reason.BAD_ARGUMENT, msg, path=file) from error

    def revoke_by_envelope(self, actor: Actor, envelope: bytes) -> tuple[str, ...]:
        """Publish the CRLs in a sealed envelope; gives what they revoke and the names of the CRLs.

        Raises as `publish_sealed`, and Unavailable(KEY_NOT_OPEN) without the passphrase.
        """
        check_may(actor, Act.REVOKE_AUTHORITY)
        passphrase, writer = self.components.sources.get(EMERGENCY), self.components.writer
        return publish_sealed(envelope, passphrase, writer, folder=self.components.settings.published, by=actor.id)

    def check_clock(self, actor: Actor) -> datetime:
        """The time as this clock shows it. Raises Unavailable(CLOCK_AHEAD) where it can be seen to be ahead."""
        check_may(actor, Act.FORGET_DATES)
        self.components.make_clock_bound().check()
        return self.components.clock.now()

    def forget_dates(self, actor: Actor) -> tuple[tuple[str, ...], int]:
        """Let CRLs and jobs go on that a clock which ran ahead has dated into the future.

        Gives the names of the CRLs and the number of jobs. Raises Unavailable(CLOCK_AHEAD).
        """
        check_may(actor, Act.FORGET_DATES)
        self.components.make_clock_bound().check()
        crls = forget_future_dates(self.components.writer, by=actor.id)
        wait = int(self.components.pack.renewal.transfer_overlap.total_seconds())
        jobs = self.components.writer.submit(
            lambda batch: bring_forward(batch.connection, at=batch.at, longest_wait=wait)
        )
        return crls, jobs.result()

    def _find(self, text: str) -> rows.AuthorityRow:
        name, mark, generation = text.partition("#")
        found: rows.AuthorityRow | None = None
        with self.components.database.reading() as connection:
            if not mark:
                found = rows.find_newest(connection, name) or rows.find_newest(connection, name, state=None)
            elif generation.isascii() and generation.isdigit():
                found = rows.find_generation(connection, name, int(generation))
        if found is None:
            msg = f"authority {text!r} does not exist; see `vagus ca list` for the names"
            raise Malformed(Reason.AUTHORITY_UNKNOWN, msg, authority=text)
        return found

    def _as_shown(self, row: Authority) -> Authority:
        """The authority with the state that screens show: one past its end is expired."""
        at = int(self.components.clock.now().timestamp())
        return row if row.not_after is None else replace(row, state=shown_state(row.state, row.not_after, at=at))

    def _living(self) -> tuple[Authority, ...]:
        with self.components.database.reading() as connection:
            return rows.list_living(connection, int(self.components.clock.now().timestamp()))

    def _with_above(self, below: Sequence[Authority]) -> tuple[Exported, ...]:
        """The certificates of these authorities and of all above them, each once; roots last."""
        found: dict[bytes, Exported] = {}
        with self.components.database.reading() as connection:
            references = {row.certificate_der: row.reference for row in rows.list_authorities(connection)}
            for row in below:
                for height, der in enumerate((row.certificate_der or b"", *rows.load_chain(connection, row))):
                    name = references.get(der) or f"{row.reference} above {height}"
                    found.setdefault(der, Exported(name, der, decode_certificate(der).is_self_issued))
        return tuple(sorted(found.values(), key=lambda one: one.is_root))

    def _planned(self, name: str) -> PlannedAuthority:
        for one in self.components.planning.load_adopted().authorities():
            if one.name == name:
                return one
        msg = f"the plan has no authority {name!r}; add its unit to the plan and apply it"
        raise Malformed(Reason.AUTHORITY_UNKNOWN, msg, authority=name)


def _selected(found: tuple[Exported, ...], *, with_root: bool) -> tuple[Exported, ...]:
    """All of them, or those that are no roots. Raises Malformed(BAD_ARGUMENT) where none is left."""
    left = tuple(one for one in found if with_root or not one.is_root)
    if not left:
        msg = f"{found[0].name} is a root, so nothing is left without roots; leave --no-root out"
        raise Malformed(Reason.BAD_ARGUMENT, msg, authority=found[0].name)
    return left
