"""A founded hospital, as the tests of the command line have it, and a house that publishes, for what serves one."""

from __future__ import annotations

from tests.cli.conftest import fresh_once, hospital, hospital_once, passphrase
from tests.simulator.publishing import house, template

__all__ = ["fresh_once", "hospital", "hospital_once", "house", "passphrase", "template"]
