"""A keystore that shares its salt has the format of v0.1.0: that release opens it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.upgrade.history import old_sources
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.signing import Purpose
from vagus.keystore.software import SoftwareKeystore
from vagus.testing import SeededEntropy
from vagus.x509.algorithms import KeyAlgorithm

pytestmark = pytest.mark.process
SECRET = "correct horse battery"
OPEN = """
import subprocess
import sys
from pathlib import Path
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.software import SoftwareKeystore
print(SoftwareKeystore.open(Path(sys.argv[1]), Passphrase(sys.argv[2])).load("ca-1").spki_der.hex())
"""


def test_v0_1_0_opens_a_keystore_with_a_shared_salt(tmp_path: Path) -> None:
    secret = Passphrase(SECRET)
    first = SoftwareKeystore.create(tmp_path / "a", secret, entropy=SeededEntropy(1), unsafe_fast=True)
    second = SoftwareKeystore.create(
        tmp_path / "b", secret, entropy=SeededEntropy(2), unsafe_fast=True, shared=first.derivation
    )
    key = second.generate("ca-1", KeyAlgorithm.P256, {Purpose.CERTIFICATE, Purpose.CRL}, "authority:h1/icu#1")
    with old_sources() as sources:
        opened = subprocess.run(
            [sys.executable, "-c", OPEN, str(second.folder), SECRET],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PYTHONPATH": str(sources)},
        )
    assert (opened.stdout.strip(), opened.returncode) == (key.spki_der.hex(), 0), opened.stderr
