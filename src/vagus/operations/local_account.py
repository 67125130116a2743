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
    """`operator:` and an account's name: who logged in, whoever it became by sudo; else whose process this is.

    Never the environment, which says what its user wants: with it one person would approve for two.
    """
    login = _find_login()
    number = os.getuid() if login is None else login
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return "operator:" + (_OTHERS.sub("-", name)[:80] or "unknown")


def has_login() -> bool:
    """Whether the kernel knows who logged in; else all who act through this process's account are one operator."""
    return _find_login() is not None


def _find_login() -> int | None:
    """The account that logged in, which the kernel keeps across sudo and su."""
    with suppress(OSError, ValueError):
        number = int(_LOGIN.read_text())
        if number != _NO_LOGIN:
            return number
    return None
