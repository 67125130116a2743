"""Reads CRLs of our authorities that were signed elsewhere, and combines what they say; writes nothing.

Such CRLs come with an imported authority, or were published by this installation after the backup that was restored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from vagus.errors import LimitExceeded, NotTrusted
from vagus.reasons import Reason
from vagus.records.authorities import AuthorityRow
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.crls.decoding import Crl, decode_crl, read_revocation_dates, verify_crl
from vagus.x509.signatures import SignatureVerdicts

MAX_NUMBER = 1 << 62
"""The largest CRL number that is accepted: ours go on from it, and as many again are left for them."""


@dataclass(frozen=True)
class ForeignCrl:
    """A CRL of one of our authorities, not a delta, as relying parties have it."""

    authority: AuthorityRow
    crl: Crl

    @cached_property
    def entries(self) -> dict[int, int]:
        """The reason code of each certificate that it names, by serial number."""
        listed = self.crl.entries.get(self.crl.issuer.relative_names, {})
        return {int.from_bytes(serial, "big"): reason for serial, reason in listed.items()}

    @cached_property
    def dates(self) -> dict[int, int]:
        """When each was revoked, by serial number, in seconds since 1970 UTC; only those that say so."""
        found = read_revocation_dates(self.crl)
        return {int.from_bytes(serial, "big"): max(int(date.timestamp()), 0) for serial, date in found.items()}

    @cached_property
    def shard(self) -> int | None:
        """The shard of ours that it covers, by its issuingDistributionPoint; None for every other scope."""
        if self.authority.is_offline or self.crl.scope.full_name is None:
            return None
        place = rf".*/crl/{re.escape(self.authority.slug)}/{self.authority.generation}/([0-9]{{1,9}})\.crl"
        found = (re.fullmatch(place, uri) for uri in self.crl.scope.full_name.uris)
        return next((int(one[1]) for one in found if one is not None), None)

    @property
    def age(self) -> tuple[int, float]:
        """Number and date, to compare: of two CRLs of one scope the newer one has the greater."""
        return -1 if self.crl.number is None else self.crl.number, self.crl.this_update.timestamp()


@dataclass(frozen=True, slots=True)
class CombinedEntry:
    """What several CRLs together say of one certificate: why and since when, and its shard, if known."""

    reason: RevocationReason
    shard: int | None = None
    dated_at: int | None = None
    """The revocation date, in seconds since 1970 UTC; None: no CRL gives one."""


def read_foreign_crl(crl_der: bytes, authorities: Sequence[AuthorityRow]) -> ForeignCrl | None:
    """The CRL with the authority whose key signed it; None for a delta, which only repeats its shard's CRL.

    Raises NotTrusted(CRL_INVALID) for a CRL that none of them signed, Malformed and LimitExceeded as decoding and
    `check_signer` do.
    """
    crl = decode_crl(crl_der)
    if crl.is_delta:
        return None
    for authority in authorities:
        if authority.certificate_der is not None:
            # Imported generations of an authority may share one name: the signer is the one whose key verifies the CRL.
            with suppress(NotTrusted):
                check_signer(crl, authority.certificate_der)
                return ForeignCrl(authority, crl)
    msg = f"CRL {crl.label} is of none of the authorities of this installation; give the CRLs of these only"
    raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)


def check_signer(crl: Crl, certificate_der: bytes) -> None:
    """Check that the CRL has the name and key of this certificate, and a number that another one can follow.

    Raises NotTrusted(CRL_INVALID) and as `verify_crl`, LimitExceeded(TOO_LARGE).
    """
    signer = decode_certificate(certificate_der)
    if signer.subject.relative_names != crl.issuer.relative_names:
        msg = f"CRL {crl.label} was issued by another authority than {signer.label}; give the CRL of that authority"
        raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)
    verify_crl(crl, signer, SignatureVerdicts())
    if crl.number is not None and crl.number > MAX_NUMBER:
        msg = (
            f"CRL {crl.label} has CRL number {crl.number}, and a next number would exceed {MAX_NUMBER}, the "
            "most that a CRL can have (RFC 5280 5.2.3); let its authority end, and certify another key here"
        )
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_NUMBER, value=crl.number)


def combine_crls(
    crls: Iterable[ForeignCrl], find_known_shard: Callable[[AuthorityRow, int], int | None]
) -> dict[tuple[str, int], CombinedEntry]:
    """What CRLs together say of each certificate that they name, by its authority's reference and its serial number.

    Of each scope only the newest CRL counts. A permanent revocation counts in whatever CRL it is. A hold counts unless
    a later CRL that would name the certificate leaves it out. `find_known_shard` gives the shard of a certificate that
    is known here.
    """
    # 1. Keep only the newest CRL of each scope (issuer and distribution point).
    newest: dict[tuple[int, int | bytes], ForeignCrl] = {}
    for one in crls:
        scope = (one.authority.id, one.crl.scope_der if one.shard is None else one.shard)
        if scope not in newest or one.age > newest[scope].age:
            newest[scope] = one
    # 2. For each certificate, collect the CRLs that name it.
    naming: dict[tuple[int, int], list[ForeignCrl]] = {}
    of_authority: dict[int, list[ForeignCrl]] = {}
    for one in newest.values():
        of_authority.setdefault(one.authority.id, []).append(one)
        for serial, reason in one.entries.items():
            if reason != RevocationReason.REMOVE_FROM_CRL:
                naming.setdefault((one.authority.id, serial), []).append(one)
    # 3. Where CRLs disagree on a certificate, the gravest reason counts: a wrong release would admit a revoked device.
    combined: dict[tuple[str, int], CombinedEntry] = {}
    for (authority_id, serial), named_by in naming.items():
        authority = named_by[0].authority
        shard = _find_shard(named_by, of_authority[authority_id])
        reason = max((RevocationReason(one.entries[serial]) for one in named_by), key=gravity)
        if reason is RevocationReason.CERTIFICATE_HOLD:
            shards_of_it = {one.shard for one in named_by} | {find_known_shard(authority, serial)}
            if _is_released(named_by, of_authority[authority_id], shards_of_it):
                continue
        dates = [one.dates[serial] for one in named_by if one.entries[serial] == reason and serial in one.dates]
        combined[authority.reference, serial] = CombinedEntry(reason, shard, min(dates, default=None))
    return combined


def _find_shard(named_by: Sequence[ForeignCrl], of_authority: Sequence[ForeignCrl]) -> int | None:
    """The shard whose CRL is the only one to name a certificate, if there are other shards.

    A certificate in every CRL, or in the only one, may be there because its shard was not known.
    """
    shards = [one.shard for one in named_by if one.shard is not None]
    others = sum(one.shard is not None for one in of_authority) - len(shards)
    return shards[0] if len(shards) == 1 and others else None


def _is_released(
    named_by: Sequence[ForeignCrl], of_authority: Sequence[ForeignCrl], shards_of_it: set[int | None]
) -> bool:
    held_at = max(one.crl.this_update for one in named_by)
    return any(
        one not in named_by
        and one.crl.this_update > held_at
        and (not one.crl.scope_der or (one.shard is not None and one.shard in shards_of_it))
        for one in of_authority
    )


def gravity(reason: RevocationReason) -> tuple[bool, bool]:
    """To compare: a permanent revocation is graver than a hold, and a compromise graver than other reasons."""
    return reason is not RevocationReason.CERTIFICATE_HOLD, reason.is_compromise
