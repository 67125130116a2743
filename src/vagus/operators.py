"""Tells who runs this process, as the operating system has it and as the ledger hashes it; asks for no proof."""

from __future__ import annotations

import os
import pwd
import re
from contextlib import suppress
from pathlib import Path

_LOGIN = Path("/proc/self/loginuid")
_NO_LOGIN = 2**32 - 1
_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")


def find_operator() -> str:
    """`operator:` and an account's name: who logged in, whoever it became by sudo.

    Never the environment, which says what its user wants: with it one person would approve for two.
    """
    number = _find_login()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return "operator:" + (_OTHERS.sub("-", name)[:80] or "unknown")


def _find_login() -> int:
    """The account that logged in, which the kernel keeps across sudo and su; without one, that of this process."""
    with suppress(OSError, ValueError):
        number = int(_LOGIN.read_text())
        if number != _NO_LOGIN:
            return number
    return os.getuid()
