"""Publishes CRLs in a process of its own, whose peak memory is the kernel's: `python -m bench.rig.republishing`.

`DIR every` publishes every list of the unit's authority, `DIR one` the list of shard 0: twice, for what a list's
successor takes is what is asked every few hours. What the second time took is a JSON line.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from bench.rig.installation import ENVIRONMENT, UNIT, open_installation
from vagus.authority.crls.publisher import CrlPublisher, sign_crl
from vagus.authority.issuers import Issuer
from vagus.authority.shards import SHARD_PLACES
from vagus.records.publications import COMPLETE, Publication
from vagus.x509.crls.building import CrlContents, RevocationReason, encode_crl_entry

_ROOT = Path(__file__).parents[2]
_SECONDS = 600


def republish(folder: Path, what: str) -> dict[str, float]:
    """What it took: seconds `wall` and `cpu`, `peak_mb`, `lists` (the count), and the bytes of shards."""
    command = [sys.executable, "-m", "bench.rig.republishing", str(folder), what]
    done = subprocess.run(
        command, env=ENVIRONMENT, cwd=_ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def peak_mb(pid: int | str = "self") -> float:
    """The most memory that a process ever had (VmHWM; ru_maxrss would remember the parent's before the exec)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def _publish(folder: Path, what: str) -> None:
    with open_installation(folder) as installation:
        issuer = installation.open_issuers([UNIT])[UNIT]
        publisher = CrlPublisher(
            installation.pack,
            installation.database,
            installation.writer,
            installation.clock,
            folder=installation.settings.published,
        )
        before = peak_mb()
        _publish_now(publisher, issuer, what)
        time.sleep(1.1)  # the same list again not within one second
        wall, cpu = time.perf_counter(), time.process_time()
        made = _publish_now(publisher, issuer, what)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = peak_mb()
        now = installation.clock.now().replace(microsecond=0)
        entry = encode_crl_entry((1 << 159) - 1, now, RevocationReason.KEY_COMPROMISE)
        full = CrlContents(
            number=1 << 40,
            this_update=now,
            next_update=now + timedelta(days=7),
            entries=[entry] * SHARD_PLACES,
            shard_url=issuer.crl_url(0),
            freshest_url=issuer.delta_url(0),
        )
        full_octets = len(sign_crl(issuer, full))
    crls = {one.shard: len(one.crl_der) for one in made if one is not None}
    complete = crls.pop(COMPLETE, 0)
    assert crls, "nothing was published"
    sizes = {
        "least": min(crls.values()),
        "median": statistics.median(crls.values()),
        "largest": max(crls.values()),
        "complete": complete,
        "full": full_octets,
    }
    print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak, "idle_mb": before, "lists": len(made), **sizes}))


def _publish_now(publisher: CrlPublisher, issuer: Issuer, what: str) -> tuple[Publication | None, ...]:
    return publisher.publish_all(issuer) if what == "every" else (publisher.publish(issuer, 0),)


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _publish(Path(sys.argv[1]), sys.argv[2])
