"""A founded installation for the operations: the one that the command line's tests begin with."""

from tests.cli.conftest import fresh_once, hospital, hospital_once, passphrase

__all__ = ["fresh_once", "hospital", "hospital_once", "passphrase"]
