"""A revocation list of a million entries re-signed from stored entries, and every shard of an authority at once.

Each is measured in a process of its own, whose peak memory is what the kernel says.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.rig.fleet import FIRST_LEAF, SIZE, connect, fill_certificates, fill_revocations
from bench.rig.installation import ENVIRONMENT, UNIT, hospital, open_house
from bench.rig.limits import fsync_seconds
from bench.rows import Row
from vagus.authority.publishing import CrlPublisher
from vagus.records.publications import COMPLETE

_ENTRIES = 1_000_000
_PER_SHARD = 18_000
_ROOT = Path(__file__).parents[1]


def rows() -> list[Row]:
    """Row 9 of design section 9, and a whole republication."""
    return [_one_list(), _every_list()]


def _one_list() -> Row:
    with hospital(1) as folder:
        start = time.perf_counter()
        with open_house(folder) as house:
            authority = house.open_issuers([UNIT])[UNIT].authority_id
            file = house.settings.database_file
        assert file is not None
        connection = connect(file)
        connection.execute("BEGIN")
        gone = ((FIRST_LEAF + number, 0, (1 << 157) + number * 0x10001) for number in range(_ENTRIES))
        fill_revocations(connection, authority, gone)
        connection.execute("COMMIT")
        made = time.perf_counter() - start
        bare, size = _bare(file, authority)
        connection.close()
        found = _measure(folder, "one")
    return Row(
        path=f"CRL of {_ENTRIES:,} entries re-signed from the table, kept and written",
        figure=found["cpu"],
        unit="CPU-s",
        limit_name="CPU-s: bare sqlite3 reads the entries, SHA-256 over them",
        limit=bare,
        is_rate=False,
        bar=2.0,
        note=f"{found['wall']:.1f} s wall, peak {found['peak_mb']:.0f} MB (bar 400), {size / 1e6:.0f} MB of entries;"
        f" set-up {made:.0f} s",
    )


def _every_list() -> Row:
    with hospital(1) as folder:
        start = time.perf_counter()
        with open_house(folder) as house:
            fill_certificates(house, certificates=SIZE, revoked=SIZE // 10, per_shard=_PER_SHARD)
        made = time.perf_counter() - start
        found = _measure(folder, "every")
        lists = found["lists"]
        disk = fsync_seconds(folder)
    return Row(
        path=f"CRL: all {lists:.0f} lists of {SIZE:,} certificates, {SIZE // 10:,} revoked, republished",
        figure=found["wall"],
        unit="s",
        limit_name=f"s: {lists:.0f} lists, each a file's and a row's sync",
        limit=2 * lists * sum(disk) / len(disk),
        is_rate=False,
        bar=30,
        note=f"{found['cpu']:.2f} CPU-s, peak {found['peak_mb']:.0f} MB (bar 400); largest shard"
        f" {found['largest'] / 1e3:,.0f} kB; set-up {made:.0f} s",
    )


def _bare(file: Path, authority: int) -> tuple[float, int]:
    """CPU seconds for the driver alone to read the entries in order and hash them; and how many octets they are."""
    connection = connect(file)
    before = time.process_time()
    query = "SELECT entry_der FROM revocations WHERE authority_id = ? AND shard = 0 ORDER BY leaf_index"
    whole = b"".join(row[0] for row in connection.execute(query, (authority,)))
    hashlib.sha256(whole).digest()
    spent = time.process_time() - before
    connection.close()
    return spent, len(whole)


def _measure(folder: Path, what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.lists", what, str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=_ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _publish(what: str, folder: Path) -> None:
    """In the measured process: publish, and print what it took."""
    with open_house(folder) as house:
        issuer = house.open_issuers([UNIT])[UNIT]
        publisher = CrlPublisher(house.pack, house.database, house.writer, house.clock, folder=house.settings.published)
        wall, cpu = time.perf_counter(), time.process_time()
        made = publisher.publish_all(issuer) if what == "every" else (publisher.publish(issuer, 0),)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sizes = [len(one.crl_der) for one in made if one is not None and one.shard != COMPLETE]
    assert sizes, "nothing was published"
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024  # ru_maxrss would remember the parent's before the exec
    print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak, "lists": len(made), "largest": max(sizes)}))


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _publish(sys.argv[1], Path(sys.argv[2]))
