"""Turns each error into a message for people, one line for programs and a documented exit code; catches none itself.

0  done; accepted; sound
1  refused: not trusted, not authorised, forbidden by policy; `doctor` found something
2  wrong use: arguments, a name that does not exist here, or a file that people wrote or named (plan, pack ...)
3  the present state forbids it or asks for an act first (ceremony needed, authority in use)
4  not available now: disk, database, network, keys not open; try again
5  our own data contradict each other: stop and look (log, keystore, backup)
70 an error of the program itself; please report what it prints
130 interrupted by Ctrl-C
"""

from __future__ import annotations

import json
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vagus import errors
from vagus.reasons import Reason

DONE, REFUSED, USAGE, STATE, UNAVAILABLE, INTEGRITY, DEFECT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 70, 130

_CODES: tuple[tuple[type[errors.VagusError], int], ...] = (
    (errors.Malformed, USAGE),
    (errors.Misconfigured, USAGE),
    (errors.Conflict, STATE),
    (errors.Refused, REFUSED),
    (errors.LimitExceeded, USAGE),
    (errors.Unavailable, UNAVAILABLE),
    (errors.IntegrityFailure, INTEGRITY),
)


_WRONG_PATH = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""A named path that leads nowhere: trying again does not help."""


def exit_code(error: BaseException) -> int:
    """The exit code that shows a script what kind of error this was."""
    if isinstance(error, errors.VagusError):
        if error.reason is Reason.NOT_IN_INVENTORY:
            return USAGE  # a name that does not exist, as for an authority; a listener refuses the peer by it
        return next((code for kind, code in _CODES if isinstance(error, kind)), DEFECT)
    if isinstance(error, _WRONG_PATH) or _wrong_use(error) is not None:
        return USAGE
    return UNAVAILABLE if isinstance(error, OSError) else DEFECT


def describe(error: BaseException, *, is_json: bool) -> str:
    """What goes to standard error: sentence and reason for people, one JSON object for programs; never a traceback."""
    if isinstance(error, errors.VagusError):
        reason, message, facts = error.reason.value, error.message, dict(error.facts)
    elif (wrong := _wrong_use(error)) is not None:
        reason, message, facts = Reason.BAD_ARGUMENT.value, wrong, {}
    elif isinstance(error, OSError):
        reason, message, facts = "OS_ERROR", _operating_system(error), {}
    else:
        reason, message, facts = "DEFECT", _defect(error), {}
    if is_json:
        return json.dumps({"error": {"reason": reason, "message": message, "facts": facts}}, sort_keys=True)
    return f"vagus: {message}\nvagus: reason {reason}"


def _wrong_use(error: BaseException) -> str | None:
    """What the reader of arguments says, in one line with the value and where to look; None for any other error.

    Its types have no public name: they are known by their shape.
    """
    spell = getattr(error, "format_message", None)
    if spell is None:
        return None
    message = str(spell()).rstrip(".")
    list_errors = getattr(error.__cause__, "errors", None)
    found = list_errors() if list_errors is not None else ()
    if found:  # pydantic's message leaves out the value that was given
        message = message.replace("Input should", f"{found[0].get('input')!r} should").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    return f"{message}; see `{'vagus' if context is None else context.command_path} --help`"


def _operating_system(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    is_wrong = isinstance(error, _WRONG_PATH)
    remedy = "check the path" if is_wrong else "check the path, its owner and the space on the disk"
    return f"{place}{error.strerror or type(error).__name__}; {remedy}"


def _defect(error: BaseException) -> str:
    """Where it happened and what it was, so that a report can be written without a debugger."""
    place = "unknown place"
    for frame in traceback.extract_tb(error.__traceback__)[-1:]:
        place = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
    python = ".".join(str(part) for part in sys.version_info[:3])
    what = f"{type(error).__name__}: {error}"[:300]
    return (
        f"this is an error of the program, not yours; nothing half-done was committed. Please report: "
        f"vagus {program_version()}, Python {python}, {place}, {what}"
    )


def program_version() -> str:
    """The installed version, or "unknown" in a checkout that is not installed."""
    try:
        return version("vagus")
    except PackageNotFoundError:
        return "unknown"
