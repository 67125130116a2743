"""Maps errors to the agent's exit codes, and shapes results as JSON or text; does no work."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from vagus import errors
from vagus.errors import VagusError
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

Value: TypeAlias = str | int | float | bool | None
Result: TypeAlias = "Mapping[str, Value]"


class Exit(IntEnum):
    """Documented exit codes; those up to 5 mean what they mean for `vagus`."""

    DONE = 0
    REFUSED = 1  # exit code: this device refuses the server, or the server refuses this device
    BAD_INPUT = 2  # exit code: an option or a file is wrong
    ACTION_NEEDED = 3  # exit code: an operator must provide a token, the maker's certificate or a free folder
    UNAVAILABLE = 4  # exit code: the server is not available; try again later
    INTEGRITY = 5  # exit code: the device's files, or the log, contradict themselves
    CLOCK = 6  # exit code: the clock of this device cannot be right
    EXPIRED = 7  # exit code: the device certificate has expired


_BY_REASON: Final = {Reason.CLOCK_ROLLBACK: Exit.CLOCK, Reason.EXPIRED: Exit.EXPIRED}
_BY_KIND: Final[tuple[tuple[type[VagusError], Exit], ...]] = (
    (errors.Conflict, Exit.ACTION_NEEDED),
    (errors.Refused, Exit.REFUSED),
    (errors.Misconfigured, Exit.BAD_INPUT),
    (errors.IntegrityFailure, Exit.INTEGRITY),
    (errors.Unavailable, Exit.UNAVAILABLE),
    (errors.LimitExceeded, Exit.REFUSED),
    (errors.Malformed, Exit.REFUSED),
)


def exit_code(error: VagusError) -> Exit:
    """The exit code for an error; the reason distinguishes bad arguments from a server's malformed responses."""
    if error.reason is Reason.BAD_ARGUMENT:
        return Exit.BAD_INPUT
    by_reason = _BY_REASON.get(error.reason)
    if by_reason is not None:
        return by_reason
    return next(code for kind, code in _BY_KIND if isinstance(error, kind))


def failure(error: VagusError) -> Result:
    """The error as a result for programs."""
    return {"ok": False, "reason": str(error.reason), "message": error.message, "exit": int(exit_code(error))}


def encode_result(result: Result) -> str:
    """One line of JSON."""
    return json.dumps(dict(result), separators=(",", ":"), ensure_ascii=True)


def describe_result(result: Result) -> str:
    """The result for people."""
    if result.get("ok") is False:
        return f"{result['reason']}: {result['message']}"
    shown = ((key.replace("_", " "), value) for key, value in result.items() if key != "ok" and value is not None)
    return "\n".join(f"{key:16} {value}" for key, value in shown)
