"""A founded hospital, as the tests of the command line have it, and one in memory that has published its status."""

from __future__ import annotations

from tests.cli.conftest import fresh, fresh_once, hospital, hospital_once, passphrase
from tests.simulator.publishing import clinic, template

__all__ = ["clinic", "fresh", "fresh_once", "hospital", "hospital_once", "passphrase", "template"]
