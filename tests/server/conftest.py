"""A founded hospital, as the tests of the command line have it, for what serves one."""

from __future__ import annotations

from tests.cli.conftest import fresh_once, hospital, hospital_once, passphrase

__all__ = ["fresh_once", "hospital", "hospital_once", "passphrase"]
