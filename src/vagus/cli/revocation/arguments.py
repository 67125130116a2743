"""What is written behind `vagus revoke`, read: act and reason, serials, stages; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.cli.files import read_blocks
from vagus.cli.options import REASONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vagus.wiring import Installation
    from vagus.x509.crls.building import RevocationReason


def read_act(reason: str | None, *, is_hold: bool, is_release: bool) -> tuple[str, RevocationReason]:
    """The act and its reason. Raises Malformed(BAD_ARGUMENT), also for the reasons that holds and releases have."""
    from vagus.errors import Malformed
    from vagus.reasons import Reason
    from vagus.records.revocation.revocations import HOLD, RELEASE, REVOKE
    from vagus.x509.crls.building import RevocationReason

    if (is_hold or is_release) and (reason is not None or is_hold is is_release):
        msg = "--hold, --release and --reason exclude each other: a hold has its own reason; give one of them"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    if is_hold:
        return HOLD, RevocationReason.CERTIFICATE_HOLD
    if is_release:
        return RELEASE, RevocationReason.REMOVE_FROM_CRL
    own = {RevocationReason.CERTIFICATE_HOLD: "--hold", RevocationReason.REMOVE_FROM_CRL: "--release"}
    found = {one.spelling.lower(): one for one in RevocationReason}.get((reason or "unspecified").lower())
    if found is None:
        msg = f"revocation reason {reason!r} is none of {REASONS}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=reason)
    if found in own:
        msg = f"{found.spelling} is no reason to revoke for good; write {own[found]} instead of --reason {reason}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=reason)
    return REVOKE, found


def _plain(serial: str) -> str:
    """`h1/icu#1:4A:01` as `h1/icu#1:4A01`: openssl prints serial numbers with and without colons."""
    authority, colon, digits = serial.partition(":")
    return f"{authority}{colon}{digits.replace(':', '')}"


def read_serials(installation: Installation, serials: Sequence[str], files: Sequence[Path]) -> tuple[str, ...]:
    """What `--serial` and the certificates in files name, each once, as `h1/icu#1:HEX`."""
    from vagus.fleet.revocation_targets import serials_in

    found = [_plain(one) for one in serials]
    with installation.database.reading() as connection:
        for path in files:
            found += serials_in(connection, read_blocks(path, "CERTIFICATE"), str(path))
    return tuple(dict.fromkeys(found))


def locking_reasons() -> frozenset[RevocationReason]:
    """Reasons after which nobody expects the same device to come back with another certificate by itself."""
    from vagus.x509.crls.building import RevocationReason as Why

    return frozenset({Why.KEY_COMPROMISE, Why.CESSATION_OF_OPERATION, Why.PRIVILEGE_WITHDRAWN})


def read_stages(text: str) -> tuple[int, ...]:
    """What `--stages` says. Raises Malformed(BAD_ARGUMENT)."""
    from vagus.errors import Malformed
    from vagus.reasons import Reason

    parts = [one.strip() for one in text.split(",") if one.strip()]
    percents = [int(one) if one.isascii() and one.isdigit() and len(one) < 3 else 0 for one in parts]
    if percents != sorted(set(percents)) or 0 in percents:
        msg = f"stages {text!r} are no growing percents from 1 to 99; write them as in 1,10,50"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)
    return tuple(percents)
