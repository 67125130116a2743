"""`make quickstart` after its installation: a device's first certificate and connection, and the seconds."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulator.processes import environment
from tests.simulator.programs import free_ports_in_a_row

ROOT = Path(__file__).parents[2]


@pytest.mark.process
def test_a_device_gets_its_first_certificate_and_connection(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    began = time.time()
    options = ["--since", str(int(began) - 100), "--port", str(free_ports_in_a_row(4))]
    command = [sys.executable, "-m", "examples.quickstart", str(tmp_path / "ward"), *options]
    played = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, env=environment()
    )
    assert played.returncode == 0, played
    seconds = re.search(r"First certificate and first connection (\d+) s after the start", played.stdout)
    assert seconds is not None
    assert 100 <= int(seconds[1]) <= 101 + time.time() - began
    assert "Not for production: " in played.stdout
    made = tmp_path / "ward-2"
    assert str(made) in played.stdout
    assert (made / "device" / "current" / "chain.pem").exists()
    assert list((tmp_path / "ward").iterdir()) == [], "a folder that was there is left alone"
