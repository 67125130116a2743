"""Who acts is told by the operating system, and cannot be said otherwise by whoever runs the command."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from vagus.operations import local_account


def test_the_system_names_the_operator_not_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = tmp_path / "loginuid"
    monkeypatch.setattr(local_account, "_LOGIN", login)
    mine = pwd.getpwuid(os.getuid()).pw_name
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "somebody-else")
    for told, expected in (
        (None, mine),
        (str(2**32 - 1), mine),  # a service, a container: nobody logged in
        ("no number", mine),
        (str(os.getuid()), mine),
        ("3999999999", "3999999999"),  # who logged in, under sudo; here an account that this system does not name
    ):
        login.unlink(missing_ok=True)
        if told is not None:
            login.write_text(told)
        assert local_account.find_operator() == f"operator:{expected}", told
        assert local_account.has_login() is (told is not None and told.isdigit() and told != str(2**32 - 1)), told
