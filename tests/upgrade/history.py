"""The sources of v0.1.0, taken out of the history of this repository."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
V0_1_0 = "987445f"


@contextlib.contextmanager
def old_sources() -> Iterator[Path]:
    """A folder for PYTHONPATH, for the length of the block; skips the test where the history is not there."""
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", V0_1_0, "src"], capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"the history has no commit {V0_1_0} (a shallow clone): v0.1.0 cannot be run")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder) / "src"
