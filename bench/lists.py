"""A revocation list of a million entries re-signed from stored entries, in a process of its own."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from bench.rig.databases import bulk, connect
from bench.rig.fleet import FIRST_LEAF, fill_revocations
from bench.rig.installation import UNIT, hospital, open_installation
from bench.rig.republishing import republish
from bench.rows import Row

_ENTRIES = 1_000_000


def rows() -> list[Row]:
    """Row 9 of design section 9."""
    with hospital(1) as folder:
        start = time.perf_counter()
        with open_installation(folder) as installation:
            authority = installation.open_issuers([UNIT])[UNIT].authority_id
            file = installation.settings.database_file
            url = installation.settings.database_url
        assert file is not None
        gone = ((FIRST_LEAF + number, 0, (1 << 157) + number * 0x10001) for number in range(_ENTRIES))
        with bulk(url) as written:
            fill_revocations(written, authority, gone)
        made = time.perf_counter() - start
        bare, size = _bare(file, authority)
        found = republish(folder, "one")
    return [
        Row(
            path=f"CRL of {_ENTRIES:,} entries re-signed from the table, stored and written",
            figure=found["cpu"],
            unit="CPU-s",
            limit_name="CPU-s: bare sqlite3 reads the entries, SHA-256 over them",
            limit=bare,
            is_rate=False,
            bar=2.0,
            note=f"{found['wall']:.1f} s wall, peak {found['peak_mb']:.0f} MB (bar 400), {size / 1e6:.0f} MB of"
            f" entries; set-up {made:.0f} s",
        )
    ]


def _bare(file: Path, authority: int) -> tuple[float, int]:
    """CPU seconds for the driver alone to read the entries in order and hash them; and how many bytes they are."""
    connection = connect(file)
    before = time.process_time()
    query = "SELECT entry_der FROM revocations WHERE authority_id = ? AND shard = 0 ORDER BY leaf_index"
    whole = b"".join(row[0] for row in connection.execute(query, (authority,)))
    hashlib.sha256(whole).digest()
    spent = time.process_time() - before
    connection.close()
    return spent, len(whole)
