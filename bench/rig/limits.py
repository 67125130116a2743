"""What no program can beat on this machine in this run: one signature, one verification, one sync of the disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from bench.rows import cpu_rate

REFERENCE_VERIFY = 23_500.0
"""P-256 verifications a second on the machine that the bars of design section 9 were written for."""
REFERENCE_ISSUANCE = 17_500.0
"""One verification and one signature, on that machine."""

_MESSAGE = hashlib.sha256(b"bench").digest() * 8


def sign_rate() -> float:
    """P-256 signatures a CPU second, as the keystore makes them (deterministic)."""
    key = ec.generate_private_key(ec.SECP256R1())
    algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
    return cpu_rate(lambda: key.sign(_MESSAGE, algorithm), seconds=0.3, rounds=3)


def verify_rate() -> float:
    """P-256 verifications a CPU second."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, signature = key.public_key(), key.sign(_MESSAGE, ec.ECDSA(SHA256()))
    return cpu_rate(lambda: public.verify(signature, _MESSAGE, ec.ECDSA(SHA256())), seconds=0.3, rounds=3)


def issuance_limit() -> float:
    """One verification of a request and one signature, a CPU second: what issuing cannot do without."""
    return 1 / (1 / verify_rate() + 1 / sign_rate())


@cache
def _scratch() -> Path:
    return Path(tempfile.gettempdir())


def fsync_seconds(folder: Path | None = None, count: int = 60) -> list[float]:
    """How long each of `count` writes of 4 kB with their fdatasync took, beside what is being measured."""
    with tempfile.NamedTemporaryFile(dir=folder or _scratch()) as stream:
        found = []
        for number in range(count):
            start = time.perf_counter()
            os.pwrite(stream.fileno(), bytes(4096), number * 4096)
            os.fdatasync(stream.fileno())
            found.append(time.perf_counter() - start)
    return found


def fsync_note(found: list[float]) -> str:
    """How the disk was, for the note of a durable figure."""
    mean = sum(found) / len(found)
    return f"{1 / mean:,.0f} fsync/s"
