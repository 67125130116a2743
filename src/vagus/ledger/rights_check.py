"""Compares the rows that grant rights with the log: devices, lots, tokens, keys, authorities, models; changes none.

The principle: replay the log to the state that it implies, and compare the tables with that state. A row that the log
never created, a row that is missing, and a row that differs are each a finding.

Authorities, models, locked lots and keys outside certificates are few: their state is kept in memory while leaves pass
by (`take`). Devices and tokens may be a million, and entries about one device lie anywhere in the log. They are sorted
instead:

1. `take` writes each entry about a device as a line (subject, leaf index, text) into `SpillingSorter`, which keeps its
   lines in a temporary file. The subject is a hash of the device.
2. `check_devices` adds each table row as a line of the same subject, with a place after every leaf (`_ROWS`).
3. The sorter gives the lines device by device, each device's in the order of the log, its rows last. `_apply` replays
   the entries into a `_Device`, and the rows are compared with it.

So memory holds one device at a time. Lines, by their first letter:

    A state number unit profile names hold   added       T token expiry       token made
    S before after                      state changed    P token key time     token spent
    F what digest                       unit, profile, host names or hold changed
    X time                              unused tokens ended
    D id state number unit profile names hold            the row of the device
    R token expiry key time                              the row of a token

Excuses: an operator who settles the gap after a restore writes GapAccepted for the leaves [start, end). A row that is
missing or older is no finding where the leaf that says so lies in such a range. Never excused are rows that the log did
not create, states of devices and spent tokens: recovery restores the latter two.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from vagus.errors import IntegrityFailure
from vagus.ledger import entries
from vagus.ledger.entries import LoggedEntry
from vagus.ledger.spilling_sorter import SpillingSorter
from vagus.reasons import Reason
from vagus.records import audit_rows
from vagus.records.authorities import ACTIVE, REQUESTED, RETIRED, REVOKED, AuthorityRow, list_authorities, load_foreign
from vagus.records.devices import hold_digest, host_names_digest
from vagus.records.engine.database import Connection
from vagus.records.installation import load_installation
from vagus.records.keys import BLOCKED, find_key
from vagus.records.models import facts_digest, list_maker_anchors, list_models
from vagus.records.revocation.device_lots import LOT_ENDED, LOT_LOCKED, list_lot_locks
from vagus.x509.crls.building import RevocationReason

_ROWS = 1 << 60  # sort key of table rows, larger than any leaf index: rows sort after the leaves of their subject
_DEVICE_FACTS = ("unit", "profile", "names", "hold")
_FACTS = {
    "device-transfer": "unit",
    "device-profile": "profile",
    "device-host-names": "names",
    "device-hold": "hold",
}
"""Acts whose digest commits to a device's new unit, profile or host names, or to its hold."""
_COMPROMISES = tuple(int(reason) for reason in RevocationReason if reason.is_compromise)


@dataclass(slots=True)
class _Authority:
    """The state of an authority by the log, and the leaf of its last entry."""

    created: entries.AuthorityCreated
    leaf: int
    state: str = REQUESTED
    certified: entries.AuthorityCertified | None = None


@dataclass(slots=True)
class _Token:
    leaf: int
    expires_at: int
    spki_sha256: str | None = None
    used_at: int | None = None


@dataclass(slots=True)
class _Device:
    """The state of a device by the log, replayed in order."""

    leaf: int = -1
    state: str | None = None
    numbered: str = ""
    facts: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The digests of its unit, profile, host names and hold, each with the leaf of its last change."""
    tokens: dict[str, _Token] = field(default_factory=dict)


class RightsCheck:
    """One pass: `take` each leaf in order, `finish` after the last, `close` always."""

    def __init__(self, connection: Connection, salt: bytes) -> None:
        self._connection = connection
        self._salt = salt
        self._sorter = SpillingSorter()
        self._gaps: list[tuple[int, int]] = []
        self._authorities: dict[str, _Authority] = {}
        # the owners of authorities' own certificates, by issuer and serial
        self._certificates_of: dict[tuple[str, int], str] = {}
        self._key_owners: dict[bytes, set[str]] = {}  # the owners of keys that no certificate in the log carries
        self._blocked: set[bytes] = set()
        self._models: dict[bytes, list[tuple[int, bytes]]] = {}
        self._anchors: set[bytes] = set()
        self._policy: tuple[int, bytes] | None = None
        self._lots: dict[str, tuple[int, bytes | None]] = {}  # None: the lock has ended

    def take(self, index: int, logged: LoggedEntry) -> None:
        """The next leaf."""
        entry = logged.entry
        if isinstance(entry, entries.IssuanceRecorded):
            if entry.owner.startswith("authority:"):
                self._certificates_of[entry.authority, entry.serial] = entry.owner.removeprefix("authority:")
        elif isinstance(
            entry,
            entries.DeviceAdded
            | entries.DeviceStateChanged
            | entries.TokenMade
            | entries.TokenSpent
            | entries.TokensExpired,
        ):
            self._sorter.add(_subject(entry.device), index, _line(entry, logged.at))
        elif isinstance(entry, entries.AuthorityCreated | entries.AuthorityCertified | entries.Revocation):
            self._take_authority(index, entry)
        elif isinstance(entry, entries.OperatorAct):
            self._take_act(index, entry)
        else:
            self._take_other(index, entry)

    def _take_other(self, index: int, entry: entries.Entry) -> None:
        if isinstance(entry, entries.KeyBlocked):
            self._blocked.add(entry.spki_sha256)
            self._key_owners.setdefault(entry.spki_sha256, set()).add(entry.owner)
        elif isinstance(entry, entries.ModelRecorded):
            self._models.setdefault(entry.model_sha256, []).append((index, entry.facts_sha256))
            if entry.anchor_sha256 is not None:
                self._anchors.add(entry.anchor_sha256)
        elif isinstance(entry, entries.PolicyAdopted):
            self._policy = index, entry.sha256
        elif isinstance(entry, entries.GapAccepted):
            self._gaps.append((entry.start, min(entry.end, index)))

    def finish(self) -> None:
        """After the last leaf. Raises IntegrityFailure(LOG_TAMPERED) naming the row that the log contradicts."""
        self._check_authorities()
        self._check_keys()
        self._check_models()
        self._check_policy()
        self._check_lots()
        self.check_devices()

    def close(self) -> None:
        """Give the temporary file back."""
        self._sorter.close()

    def _is_excused(self, leaf: int) -> bool:
        return any(start <= leaf < end for start, end in self._gaps)

    # The checks of authorities.

    def _take_authority(
        self, index: int, entry: entries.AuthorityCreated | entries.AuthorityCertified | entries.Revocation
    ) -> None:
        if isinstance(entry, entries.AuthorityCreated):
            self._authorities[entry.authority] = _Authority(entry, index)
            self._key_owners.setdefault(entry.spki_sha256, set()).add(f"authority:{entry.authority}")
            return
        name = (
            entry.authority
            if isinstance(entry, entries.AuthorityCertified)
            else self._certificates_of.get((entry.authority, entry.serial), "")
        )
        replayed = self._authorities.get(name)
        if replayed is not None:
            replayed.leaf = index
            replayed.state = ACTIVE if isinstance(entry, entries.AuthorityCertified) else REVOKED
            if isinstance(entry, entries.AuthorityCertified):
                replayed.certified = entry

    def _take_act(self, index: int, entry: entries.OperatorAct) -> None:
        if entry.act == "authority-retired":
            replayed = self._authorities.get((entry.subject or "").removeprefix("authority:"))
            if replayed is not None:
                replayed.leaf, replayed.state = index, RETIRED
        elif entry.act in _FACTS and entry.subject is not None and entry.detail_sha256 is not None:
            self._sorter.add(_subject(entry.subject), index, f"F {_FACTS[entry.act]} {entry.detail_sha256.hex()}")
        elif entry.act == "maker-anchor-bound" and entry.detail_sha256 is not None:
            self._anchors.add(entry.detail_sha256)
        elif entry.act in {LOT_LOCKED, LOT_ENDED} and entry.subject is not None:
            self._lots[entry.subject] = index, entry.detail_sha256 if entry.act == LOT_LOCKED else None

    def _check_authorities(self) -> None:
        rows = {row.reference: row for row in list_authorities(self._connection)}
        by_id = {row.id: row for row in rows.values()}
        for reference, replayed in self._authorities.items():
            if reference not in rows and not self._is_excused(replayed.leaf):
                raise contradiction(
                    f"authority {reference} of leaf {replayed.leaf} is missing from the tables", replayed.leaf
                )
        for reference, row in rows.items():
            known = self._authorities.get(reference)
            if known is None:
                raise contradiction(f"authority {reference} is in the tables, and no entry of the log created it")
            above = by_id.get(row.parent_id or -1)
            self._check_authority(row, None if above is None else above.reference, known)

    def _check_authority(self, row: AuthorityRow, above: str | None, replayed: _Authority) -> None:
        created, certified = replayed.created, replayed.certified
        was = {"kind": created.authority_kind, "key": created.spki_sha256, "offline": created.is_offline}
        now = {"kind": row.kind, "key": row.spki_sha256, "offline": row.is_offline}
        if not self._is_excused(replayed.leaf):
            was |= {"state": replayed.state, "parent": created.parent if certified is None else certified.issuer}
            now |= {"state": row.state, "parent": above}
            digest = None if row.certificate_der is None else hashlib.sha256(row.certificate_der).digest()
            foreign = b"".join(load_foreign(self._connection, row.id))
            was |= {"certificate": None if certified is None else certified.certificate_sha256}
            was |= {"chain": None if certified is None else certified.chain_sha256}
            now |= {"certificate": digest, "chain": hashlib.sha256(foreign).digest() if foreign else None}
        changed = [name for name, value in was.items() if now[name] != value]
        if changed:
            what = f"{changed[0]} {_as_text(now[changed[0]])} where the log says {_as_text(was[changed[0]])}"
            raise contradiction(f"authority {row.reference} has {what}", replayed.leaf)

    # The checks of keys and their owners.

    def _check_keys(self) -> None:
        leaf = audit_rows.find_compromised_key_in_use(self._connection, _COMPROMISES)
        if leaf is not None:
            msg = "a certificate was revoked for key compromise, and the tables would let its key be certified again"
            raise contradiction(msg, leaf)
        replayed = {*self._blocked}
        for row in audit_rows.iterate_keys_beside_certificates(self._connection, _COMPROMISES):
            owners = self._key_owners.get(row.spki_sha256, set())
            name = f"key {row.spki_sha256.hex()} of {row.owner}"
            if not row.is_certified and entries.conceal(self._salt, row.owner) not in owners:
                raise contradiction(f"{name} is in the tables, and the log knows no such key and owner")
            if row.state == BLOCKED and not row.is_compromised and row.spki_sha256 not in replayed:
                raise contradiction(f"{name} is blocked in the tables, and the log never blocked it")
        for spki_sha256 in sorted(replayed):
            known = find_key(self._connection, spki_sha256)
            if known is None or not known.is_blocked:
                raise contradiction(f"key {spki_sha256.hex()} is blocked by the log and not in the tables")

    # The checks of models, makers' anchors and the policy in force.

    def _check_models(self) -> None:
        rows = {hashlib.sha256(row.name.encode()).digest(): row for row in list_models(self._connection)}
        for digest, row in rows.items():
            replayed = self._models.get(digest)
            if replayed is None:
                raise contradiction(f"model {row.name} is in the tables, and the log never recorded it")
            if facts_digest(row) not in self._possible_digests(replayed):
                msg = f"model {row.name} was changed: its maker, category, profile or anchor is not what the log says"
                raise contradiction(msg, replayed[-1][0])
        for digest, replayed in self._models.items():
            if digest not in rows and not self._is_excused(replayed[-1][0]):
                raise contradiction(f"the model of leaf {replayed[-1][0]} is missing from the tables", replayed[-1][0])
        self._check_anchors()

    def _check_anchors(self) -> None:
        anchors = {anchor.sha256 for anchor in list_maker_anchors(self._connection)}
        for anchor in list_maker_anchors(self._connection):
            name = f"the anchor {anchor.sha256.hex()} of maker {anchor.maker}"
            if hashlib.sha256(anchor.certificate_der).digest() != anchor.sha256:
                raise contradiction(f"{name} is another certificate than its digest says")
            if anchor.sha256 not in self._anchors:
                raise contradiction(f"{name} is in the tables, and no entry of the log imported it")
        for row in list_models(self._connection):
            if row.anchor_sha256 is not None and row.anchor_sha256 not in anchors:
                raise contradiction(f"the anchor of model {row.name} is missing from the tables")

    def _possible_digests(self, replayed: list[tuple[int, bytes]]) -> set[bytes]:
        """The last digest, and while it lies in a settled gap, also the one before the gap."""
        possible: set[bytes] = set()
        for leaf, digest in reversed(replayed):
            possible.add(digest)
            if not self._is_excused(leaf):
                break
        return possible

    def _check_policy(self) -> None:
        digest = load_installation(self._connection).policy_sha256
        leaf, said = self._policy or (None, None)
        if digest != said and not (leaf is not None and self._is_excused(leaf)):
            raise contradiction(f"the policy in force is {_as_text(digest)}, the log says {_as_text(said)}", leaf)

    def _check_lots(self) -> None:
        """A lock that is lost or narrowed would let later devices of a recalled lot enrol."""
        rows = {row.subject: row.digest for row in list_lot_locks(self._connection)}
        for subject in sorted({*rows, *self._lots}):
            leaf, said = self._lots.get(subject, (None, None))
            if rows.get(subject) != said and not (leaf is not None and self._is_excused(leaf)):
                name = subject.removeprefix("job:").replace("-", " ")
                raise contradiction(f"{name} is not in the tables as the log says", leaf)

    # The checks of devices and their enrolment tokens.

    def check_devices(self) -> None:
        """The devices and their tokens alone, after the last leaf. Raises as `finish`."""
        for device in audit_rows.iterate_recorded_devices(self._connection):
            subject = _subject(entries.conceal(self._salt, f"device:{device.id}"))
            numbered = entries.conceal(self._salt, f"number:{device.model}:{device.maker_serial}")
            facts = f"{_digest(device.unit)} {_digest(device.profile)} {host_names_digest(device.host_names).hex()}"
            facts += f" {hold_digest(is_held=device.is_held).hex()}"
            self._sorter.add(subject, _ROWS, f"D {device.id} {device.state} {numbered} {facts}")
        for token in audit_rows.iterate_recorded_tokens(self._connection):
            subject = _subject(entries.conceal(self._salt, f"device:{token.device_id}"))
            bound = "-" if token.bound_spki_sha256 is None else token.bound_spki_sha256.hex()
            used = "-" if token.used_at is None else str(token.used_at)
            self._sorter.add(subject, _ROWS, f"R {token.token_sha256.hex()} {token.expires_at} {bound} {used}")
        for _, lines in self._sorter.groups():
            self._check_device(lines)

    def _check_device(self, lines: list[tuple[int, str]]) -> None:
        replayed, row_id = _Device(), None
        for leaf, line in lines:
            kind, *words = line.split(" ")
            if kind == "D":
                row_id = words[0]
                self._compare_device(replayed, words)
            elif kind == "R":
                self._compare_token(replayed, row_id or "", words)
            else:
                _apply(replayed, leaf, kind, words)
        if row_id is None and replayed.state is not None and not self._is_excused(replayed.leaf):
            raise contradiction(f"the device of leaf {replayed.leaf} is missing from the inventory", replayed.leaf)
        for digest, token in replayed.tokens.items():
            if row_id is not None and not self._is_excused(token.leaf):
                raise contradiction(f"the token {digest} of leaf {token.leaf} is missing from the tables", token.leaf)

    def _compare_device(self, replayed: _Device, words: list[str]) -> None:
        device_id, state, numbered, *facts = words
        if replayed.state is None:
            raise contradiction(f"device {device_id} is in the inventory, and the log never added it")
        if state != replayed.state:
            raise contradiction(
                f"device {device_id} is {state} in the inventory, the log says {replayed.state}", replayed.leaf
            )
        for what, digest in zip(_DEVICE_FACTS, facts, strict=True):
            said, leaf = replayed.facts[what]
            if digest != said and not self._is_excused(leaf):
                raise contradiction(f"device {device_id} has another {what} than the log gave it", leaf)
        if replayed.numbered and numbered != replayed.numbered:
            raise contradiction(
                f"device {device_id} has another model or maker's serial than the log says", replayed.leaf
            )

    def _compare_token(self, replayed: _Device, device_id: str, words: list[str]) -> None:
        digest, expires_at, bound, used_at = words
        known = replayed.tokens.pop(digest, None)
        name = f"the token {digest} of device {device_id}"
        if known is None:
            raise contradiction(f"{name} is in the tables, and the log never made it")
        if bound != (known.spki_sha256 or "-") or used_at != ("-" if known.used_at is None else str(known.used_at)):
            raise contradiction(f"{name} is spent otherwise than the log says", known.leaf)
        if int(expires_at) != known.expires_at:
            raise contradiction(f"{name} expires at another time than the log says", known.leaf)


def contradiction(what: str, leaf: int | None = None) -> IntegrityFailure:
    """The finding that tables differ from the log; `leaf` is the entry that says so."""
    facts = {} if leaf is None else {"index": leaf}
    where = "the log" if leaf is None else f"leaf {leaf} of the log"
    msg = f"{where} and the tables disagree: {what}; stop serving and compare with a backup"
    return IntegrityFailure(Reason.LOG_TAMPERED, msg, **facts)


def _apply(replayed: _Device, leaf: int, kind: str, words: list[str]) -> None:
    """Replay one entry about a device."""
    if kind == "A":
        replayed.state, replayed.numbered, *facts = words
        replayed.leaf = leaf
        replayed.facts = {what: (digest, leaf) for what, digest in zip(_DEVICE_FACTS, facts, strict=True)}
    elif kind == "S":
        before, after = words
        if replayed.state is not None and before != replayed.state:
            raise contradiction(f"a device moved on from {before} where the log last said {replayed.state}", leaf)
        if replayed.state is not None:
            replayed.leaf, replayed.state = leaf, after
    elif kind == "F":
        replayed.facts[words[0]] = words[1], leaf
    else:
        _apply_to_token(replayed, leaf, kind, words)


def _apply_to_token(replayed: _Device, leaf: int, kind: str, words: list[str]) -> None:
    if kind == "T":
        replayed.tokens[words[0]] = _Token(leaf, int(words[1]))
    elif kind == "P" and words[0] in replayed.tokens:
        token = replayed.tokens[words[0]]
        token.leaf, token.spki_sha256, token.used_at = leaf, words[1], int(words[2])
    elif kind == "X":
        at = int(words[0])
        for token in replayed.tokens.values():
            if token.spki_sha256 is None and token.expires_at > at:
                token.leaf, token.expires_at = leaf, at


def _line(entry: entries.Entry, at: int) -> str:
    if isinstance(entry, entries.DeviceAdded):
        names = entry.host_names_sha256 or host_names_digest(())
        facts = f"{_digest(entry.unit)} {_digest(entry.profile)} {names.hex()} {hold_digest(is_held=False).hex()}"
        return f"A {entry.state} {entry.numbered or ''} {facts}"
    if isinstance(entry, entries.DeviceStateChanged):
        return f"S {entry.before} {entry.state}"
    if isinstance(entry, entries.TokenMade):
        return f"T {entry.token_sha256.hex()} {entry.expires_at}"
    if isinstance(entry, entries.TokenSpent):
        return f"P {entry.token_sha256.hex()} {entry.spki_sha256.hex()} {at}"
    return f"X {at}"


def _subject(owner: str) -> bytes:
    """A device as the sorter knows it: the 32-byte hash of its owner in the log."""
    return hashlib.sha256(owner.encode()).digest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _as_text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
