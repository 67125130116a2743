"""What lists that come from elsewhere say of our authorities' certificates, alone and together; writes nothing."""

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
from vagus.x509.crls.decoding import Crl, decode_crl, verify_crl
from vagus.x509.signatures import SignatureVerdicts

MAX_NUMBER = 1 << 62
"""The largest number of a list that comes here: as many again are left for ours, which go on from it."""


@dataclass(frozen=True)
class ForeignCrl:
    """A complete list of one of our authorities, as relying parties have it."""

    authority: AuthorityRow
    crl: Crl

    @cached_property
    def entries(self) -> dict[int, int]:
        """Serial and reason code of each certificate that it names."""
        listed = self.crl.entries.get(self.crl.issuer.relative_names, {})
        return {int.from_bytes(serial, "big"): reason for serial, reason in listed.items()}

    @cached_property
    def shard(self) -> int | None:
        """The shard of ours that it speaks for, by its IssuingDistributionPoint; None for every other scope."""
        if self.authority.is_offline or self.crl.scope.full_name is None:
            return None
        place = rf".*/crl/{re.escape(self.authority.slug)}/{self.authority.generation}/([0-9]{{1,9}})\.crl"
        found = (re.fullmatch(place, uri) for uri in self.crl.scope.full_name.uris)
        return next((int(one[1]) for one in found if one is not None), None)

    @property
    def age(self) -> tuple[int, float]:
        """Of two lists of one scope the newer one has the greater."""
        return -1 if self.crl.number is None else self.crl.number, self.crl.this_update.timestamp()


@dataclass(frozen=True, slots=True)
class CombinedEntry:
    """What lists say of one certificate together: why it is revoked or held, and where it stands, if they tell."""

    reason: RevocationReason
    shard: int | None = None


def read_foreign_crl(crl_der: bytes, authorities: Sequence[AuthorityRow]) -> ForeignCrl | None:
    """The list and the authority whose key signed it; None for a delta, which repeats what its shard's list says.

    Raises NotTrusted(CRL_INVALID) for a list that none of them signed, Malformed and LimitExceeded as decoding and
    `check_signer` do.
    """
    crl = decode_crl(crl_der)
    if crl.is_delta:
        return None
    for authority in authorities:
        if authority.certificate_der is not None:
            with suppress(NotTrusted):  # imported generations may share their name: the one whose key verifies
                check_signer(crl, authority.certificate_der)
                return ForeignCrl(authority, crl)
    msg = f"list {crl.label} is of none of the authorities here; give the lists of these authorities alone"
    raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)


def check_signer(crl: Crl, certificate_der: bytes) -> None:
    """The list is of the name and the key of this certificate, and its number can be followed by another.

    Raises NotTrusted(CRL_INVALID) and as `verify_crl`, LimitExceeded(TOO_LARGE).
    """
    signer = decode_certificate(certificate_der)
    if signer.subject.relative_names != crl.issuer.relative_names:
        msg = f"list {crl.label} is of another authority than {signer.label}; give its own"
        raise NotTrusted(Reason.CRL_INVALID, msg, crl=crl.label)
    verify_crl(crl, signer, SignatureVerdicts())
    if crl.number is not None and crl.number > MAX_NUMBER:
        msg = (
            f"list {crl.label} has number {crl.number}, and no list of ours could follow one above {MAX_NUMBER}; let "
            "its authority end where it is, and certify another key here"
        )
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_NUMBER, value=crl.number)


def combine_crls(
    lists: Iterable[ForeignCrl], find_known_shard: Callable[[AuthorityRow, int], int | None]
) -> dict[tuple[str, int], CombinedEntry]:
    """What lists say together of each certificate that they name, by its authority's reference and its serial.

    Of one scope the newest list alone speaks. A reason that is for ever counts wherever it stands; a hold does unless a
    later list, which would name the certificate, leaves it out. `find_known_shard` gives the shard of a
    certificate that is known here.
    """
    # 1. The newest of each scope.
    newest: dict[tuple[int, int | bytes], ForeignCrl] = {}
    for one in lists:
        scope = (one.authority.id, one.crl.scope_der if one.shard is None else one.shard)
        if scope not in newest or one.age > newest[scope].age:
            newest[scope] = one
    # 2. Who names whom.
    naming: dict[tuple[int, int], list[ForeignCrl]] = {}
    of_authority: dict[int, list[ForeignCrl]] = {}
    for one in newest.values():
        of_authority.setdefault(one.authority.id, []).append(one)
        for serial, reason in one.entries.items():
            if reason != RevocationReason.REMOVE_FROM_CRL:
                naming.setdefault((one.authority.id, serial), []).append(one)
    # 3. What it comes to.
    said: dict[tuple[str, int], CombinedEntry] = {}
    for (authority_id, serial), told in naming.items():
        authority = told[0].authority
        shard = _find_shard(told, of_authority[authority_id])
        reason = max((RevocationReason(one.entries[serial]) for one in told), key=_weight)
        if reason is RevocationReason.CERTIFICATE_HOLD:
            homes = {one.shard for one in told} | {find_known_shard(authority, serial)}
            if _is_released(told, of_authority[authority_id], homes):
                continue
        said[authority.reference, serial] = CombinedEntry(reason, shard)
    return said


def _find_shard(told: Sequence[ForeignCrl], beside: Sequence[ForeignCrl]) -> int | None:
    """The shard whose list alone names a certificate, where there are others that do not.

    What stands in all of them, or in the only one, may be there because nobody knew to which it belongs.
    """
    shards = [one.shard for one in told if one.shard is not None]
    others = sum(one.shard is not None for one in beside) - len(shards)
    return shards[0] if len(shards) == 1 and others else None


def _is_released(told: Sequence[ForeignCrl], beside: Sequence[ForeignCrl], homes: set[int | None]) -> bool:
    held_at = max(one.crl.this_update for one in told)
    return any(
        one not in told
        and one.crl.this_update > held_at
        and (not one.crl.scope_der or (one.shard is not None and one.shard in homes))
        for one in beside
    )


def _weight(reason: RevocationReason) -> tuple[bool, bool]:
    """What is for ever weighs more than a hold, a compromise more than other reasons."""
    return reason is not RevocationReason.CERTIFICATE_HOLD, reason.is_compromise
