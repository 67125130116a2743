"""Opens the keys of online authorities as `Issuer` values that sign certificates and CRLs; opens no offline key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from vagus.authority.shards import ShardPlan, load_shard_plan
from vagus.errors import Conflict, IntegrityFailure, Malformed, NotAuthorised, VagusError
from vagus.policy.plans import AuthorityKind
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records.authorities import AuthorityRow, slug_of
from vagus.x509 import Certificate
from vagus.x509.library_certificates import decode_certificate
from vagus.x509.templates import IssuerFacts, issuer_facts

if TYPE_CHECKING:
    from datetime import datetime

    from vagus.keystore.signing import SigningKey
    from vagus.keystore.software import SoftwareKeystore
    from vagus.records.engine.database import Connection

_DAY = 86_400
"""For how long a CRL still lists a certificate after its end, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One generation of an authority with its key. `certificate` is None only for a root that is about to sign itself.

    `chain_der` are the certificates above it, nearest first; `status_url` is where its CRLs and OCSP responses are.
    """

    authority_id: int
    name: str
    generation: int
    kind: AuthorityKind
    certificate: Certificate | None
    certificate_der: bytes
    chain_der: tuple[bytes, ...]
    facts: IssuerFacts
    key: SigningKey
    status_url: str
    not_before: datetime | None = None
    shards: ShardPlan = field(compare=False)

    def __post_init__(self) -> None:
        if self.key.spki_der != self.facts.spki_der:
            msg = f"the private key of {self.reference} is not the one in its certificate; restore its keystore"
            raise IntegrityFailure(Reason.KEY_MISMATCH, msg, authority=self.reference)

    @property
    def reference(self) -> str:
        """Name and generation: `h1/icu#2`."""
        return f"{self.name}#{self.generation}"

    @property
    def is_offline(self) -> bool:
        """Whether its key is opened in ceremonies only."""
        return self.kind.is_offline

    def crl_url(self, shard: int) -> str:
        """The URL of a shard's CRL: the CDP of the shard's certificates and the issuingDistributionPoint of the CRL."""
        return f"{self._crl_folder}/{shard}.crl"

    def delta_url(self, shard: int) -> str:
        """The URL of a shard's delta CRL."""
        return f"{self._crl_folder}/{shard}.delta.crl"

    @property
    def ocsp_url(self) -> str:
        """The URL of its OCSP responder."""
        return f"{self.status_url}/ocsp"

    @property
    def certificate_url(self) -> str:
        """The URL of its certificate, for caIssuers."""
        return f"{self.status_url}/ca/{slug_of(self.name)}/{self.generation}.cer"

    @property
    def _crl_folder(self) -> str:
        return f"{self.status_url}/crl/{slug_of(self.name)}/{self.generation}"


class OpenIssuers(Mapping[str, Issuer]):
    """Issuers by name (`h1/icu`: the newest generation) and by reference (`h1/icu#1`); iterates over names.

    `unopened` are the generations that have ended and could not be opened, by reference, and why: no caller need wait
    for them. Safe to read from several threads while one calls `take_over`.
    """

    def __init__(self, every: tuple[Issuer, ...], unopened: Mapping[str, str] = MappingProxyType({})) -> None:
        self.unopened = unopened
        self._every = every
        self._newest = {one.name: one for one in sorted(every, key=lambda one: one.generation)}
        self._by_reference = {one.reference: one for one in every}

    def take_over(self, newer: OpenIssuers) -> tuple[str, ...]:
        """Use the issuers of `newer` from now on; gives the references that came or went.

        An issuer that is open already stays the same object, since it counts the places of its shards.
        """
        mine = {one.authority_id: one for one in self._every}
        found = OpenIssuers(tuple(mine.get(one.authority_id, one) for one in newer.every()))
        self.unopened = newer.unopened
        changed = {one.reference for one in self._every} ^ {one.reference for one in found.every()}
        if changed:
            self._every, self._newest, self._by_reference = found._every, found._newest, found._by_reference
        return tuple(sorted(changed))

    def every(self) -> tuple[Issuer, ...]:
        """Each live generation of each authority."""
        return self._every

    def find_by_id(self, authority_id: int) -> Issuer | None:
        """The issuer of this row."""
        return next((one for one in self._every if one.authority_id == authority_id), None)

    def __getitem__(self, name: str) -> Issuer:
        found = self._newest.get(name)
        return self._by_reference[name] if found is None else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)


def open_issuers(
    connection: Connection,
    keystore_of: Callable[[str], SoftwareKeystore],
    names: Iterable[str],
    *,
    status_url: str,
    at: int,
    prepare: Callable[[Iterable[str]], None] = lambda _names: None,
) -> OpenIssuers:
    """The named authorities, every generation that is live at `at`, with their keys; no other keystore is touched.

    `keystore_of` opens the keystore of an authority by its name. `prepare` is called before, once, with the names of
    those that will be opened. Raises NotAuthorised(KEY_OFFLINE) for an authority
    whose key is opened in ceremonies only, before any keystore is opened; Malformed(AUTHORITY_UNKNOWN),
    Conflict(CEREMONY_NEEDED: it has no certificate yet), and what the keystore raises. For a generation that has ended
    the reason is in `OpenIssuers.unopened` instead.
    """
    listed = rows.list_authorities(connection)
    live = {name: _live_generations(listed, name, at) for name in sorted(set(names))}
    for name, generations in live.items():
        if any(row.is_offline or AuthorityKind(row.kind).is_offline for row in generations):
            msg = f"authority {name} is offline, so its key is opened in a ceremony only; remove it from --issue-for"
            raise NotAuthorised(Reason.KEY_OFFLINE, msg, authority=name)
    prepare(name for name, generations in live.items() if generations)
    found: list[Issuer] = []
    unopened: dict[str, str] = {}
    for row in (row for generations in live.values() for row in generations):
        try:
            key = keystore_of(row.name).load(row.key_id)
            found.append(make_issuer(connection, row, key, status_url=status_url))
        except VagusError as error:
            if not _has_ended(row, at):
                raise
            unopened[row.reference] = f"it has ended, and no CRLs of it are signed here: {error.message}"
    return OpenIssuers(tuple(found), unopened)


def _live_generations(listed: Iterable[AuthorityRow], name: str, at: int) -> tuple[AuthorityRow, ...]:
    every = [row for row in listed if row.name == name]
    if not every:
        msg = f"the plan has no authority {name!r}; see `vagus ca list` for the names"
        raise Malformed(Reason.AUTHORITY_UNKNOWN, msg, authority=name)
    live = tuple(row for row in every if is_live(row, at))
    if not live and not any(_has_ended(row, at) for row in every):
        msg = f"authority {name} has no certificate yet, so it cannot issue; run: vagus ceremony"
        raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=name)
    return live


def is_live(row: AuthorityRow, at: int) -> bool:
    """Whether it has a certificate and still signs at `at` (seconds since 1970 UTC), at least its CRLs.

    A retired generation signs until the day after its end is over. Then no status is needed any more, and its key may
    be destroyed.
    """
    is_over = row.state == rows.RETIRED and _has_ended(row, at - _DAY)
    return row.state in {rows.ACTIVE, rows.RETIRED} and row.certificate_der is not None and not is_over


def _has_ended(row: AuthorityRow, at: int) -> bool:
    return row.not_after is not None and row.not_after <= at


def make_issuer(connection: Connection, row: AuthorityRow, key: SigningKey, *, status_url: str) -> Issuer:
    """The issuer of a certified row. Raises IntegrityFailure(KEY_MISMATCH) when the key is not the certificate's."""
    if row.certificate_der is None:
        msg = f"authority {row.reference} has no certificate yet, so it cannot issue; run: vagus ceremony"
        raise Conflict(Reason.CEREMONY_NEEDED, msg, authority=row.reference)
    certificate = decode_certificate(row.certificate_der)
    return Issuer(
        authority_id=row.id,
        name=row.name,
        generation=row.generation,
        kind=AuthorityKind(row.kind),
        certificate=certificate,
        certificate_der=row.certificate_der,
        chain_der=rows.load_chain(connection, row),
        facts=issuer_facts(certificate, signature_algorithm=key.algorithm, generation=row.generation),
        key=key,
        status_url=status_url,
        not_before=certificate.not_valid_before_utc,
        shards=load_shard_plan(connection, row.id),
    )
