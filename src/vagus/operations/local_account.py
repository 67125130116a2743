"""The one actor of today: the account of the operating system that runs this process; asks for no proof."""

from __future__ import annotations

import os
import pwd
import re
from contextlib import suppress
from pathlib import Path

from vagus.operations.actor import Actor, ActorKind, Role

_LOGIN = Path("/proc/self/loginuid")
_NO_LOGIN = 2**32 - 1
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._-]+")


def local_actor() -> Actor:
    """The local account: it owns the installation's files, so it has every role and the whole scope."""
    return Actor(find_operator(), ActorKind.LOCAL_ACCOUNT, frozenset(Role))


def find_operator() -> str:
    """`operator:` and the name of the account that logged in; without a login, the account of this process.

    A login stays the same across sudo and su. The environment is never read: the user sets it, and one person could
    approve for two.
    """
    login = _find_login()
    number = os.getuid() if login is None else login
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return _operator(name)


def list_operators() -> tuple[str, ...]:
    """Every account of this machine, as `find_operator` names it: the ledger's hash of a name can be tried on them."""
    return tuple(_operator(account.pw_name) for account in pwd.getpwall())


def has_login() -> bool:
    """Whether the kernel knows who logged in; if not, all users of this process's account are one operator."""
    return _find_login() is not None


def _operator(name: str) -> str:
    return "operator:" + (_NOT_ALLOWED.sub("-", name)[:80] or "unknown")


def _find_login() -> int | None:
    """The account that logged in, which the kernel keeps across sudo and su."""
    with suppress(OSError, ValueError):
        number = int(_LOGIN.read_text())
        if number != _NO_LOGIN:
            return number
    return None
