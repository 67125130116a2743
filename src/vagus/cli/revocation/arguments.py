"""The options of `vagus revoke` that name many devices, and its act, serials and stages parsed; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vagus.cli.options import REASONS
from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.operations.revocation import RevocationAct
    from vagus.x509.crls.building import RevocationReason

UnitsOption = Annotated[
    list[str] | None, typer.Option("--unit", metavar="HOSPITAL/UNIT", help="All devices of a unit. Repeatable.")
]
HospitalOption = Annotated[
    str | None, typer.Option("--hospital", metavar="LABEL", help="All devices of a hospital, as in h1.")
]
ModelOption = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="All devices of a model.")]
BatchOption = Annotated[
    str | None,
    typer.Option("--batch", metavar="MODEL:FIRST..LAST", help="A range of a model's serial numbers, both ends in it."),
]


def read_act(reason: str | None, *, is_hold: bool, is_release: bool) -> tuple[RevocationAct, RevocationReason]:
    """The act and its reason. Raises Malformed(BAD_ARGUMENT), also for the reasons that holds and releases have."""
    from vagus.operations.revocation import RevocationAct
    from vagus.x509.crls.building import RevocationReason

    if (is_hold or is_release) and (reason is not None or is_hold is is_release):
        msg = "--hold, --release and --reason exclude each other: a hold has its own reason; give one of them"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    if is_hold:
        return RevocationAct.HOLD, RevocationReason.CERTIFICATE_HOLD
    if is_release:
        return RevocationAct.RELEASE, RevocationReason.REMOVE_FROM_CRL
    own = {RevocationReason.CERTIFICATE_HOLD: "--hold", RevocationReason.REMOVE_FROM_CRL: "--release"}
    found = {one.spelling.lower(): one for one in RevocationReason}.get((reason or "unspecified").lower())
    if found is None:
        msg = f"revocation reason {reason!r} is none of {REASONS}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=reason)
    if found in own:
        msg = f"reason {found.spelling} is not for a revocation; write {own[found]} instead of --reason {reason}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=reason)
    return RevocationAct.REVOKE, found


def read_stages(text: str) -> tuple[int, ...]:
    """What `--stages` says. Raises Malformed(BAD_ARGUMENT)."""
    parts = [one.strip() for one in text.split(",") if one.strip()]
    percents = [int(one) if one.isascii() and one.isdigit() and len(one) < 3 else 0 for one in parts]
    if percents != sorted(set(percents)) or 0 in percents:
        msg = f"--stages {text!r} are no growing percents from 1 to 99; write them as in 1,10,50"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)
    return tuple(percents)
