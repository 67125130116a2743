"""A revocation's way: the call, and the list of its shard as a relying party gets it, in a large authority."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Sequence

from bench.rig.fleet import SIZE, fill_certificates
from bench.rig.installation import UNIT, hospital, open_house
from bench.rig.limits import fsync_seconds
from bench.rig.load import percentile
from bench.rig.servers import Serving, on_load_core, serving
from bench.rows import Row
from vagus.identifiers import serial_bytes

_PER_SHARD = 18_000
_CALLS = 120
_WATCHED = 8
_PATIENCE_SECONDS = 30


def rows() -> list[Row]:
    """Issue 4's bars for one revocation."""
    with hospital(1) as folder:
        start = time.perf_counter()
        with open_house(folder) as house:
            authority = house.open_issuers([UNIT])[UNIT].authority_id
            good = fill_certificates(house, certificates=SIZE, revoked=SIZE // 10, per_shard=_PER_SHARD)
        made = time.perf_counter() - start
        start = time.perf_counter()
        with serving(folder, "-m", "bench.rig.revoking", str(folder)) as server, on_load_core():
            started = time.perf_counter() - start
            spread = good[:: len(good) // (_CALLS + _WATCHED)]
            watched = spread[:: len(spread) // _WATCHED][:_WATCHED]
            called = [each for each in spread if each not in watched][:_CALLS]
            disk = fsync_seconds(folder)
            served = [_until_served(server, authority, *each) for each in watched]
            calls = [_revoke(server, authority, serial) for serial, _ in called]
            disk += fsync_seconds(folder)
    return _as_rows(calls, served, disk, f"set-up {made:.0f} s, the server's start {started:.0f} s")


def _as_rows(calls: Sequence[float], served: Sequence[float], disk: Sequence[float], note: str) -> list[Row]:
    sync = percentile(disk, 0.99) * 1e3
    return [
        Row(
            path=f"revocation: the call, {SIZE:,} certificates, p99",
            figure=percentile(calls, 0.99) * 1e3,
            unit="ms",
            limit_name="ms, p99 of one fdatasync",
            limit=sync,
            is_rate=False,
            bar=50,
            note=f"p50 {percentile(calls, 0.5) * 1e3:.1f} ms over {len(calls)} calls, one after the other; {note}",
        ),
        Row(
            path=f"revocation: commit to served shard, {SIZE:,} certificates, slowest",
            figure=max(served),
            unit="s",
            limit_name="s: two syncs of the disk, p99",
            limit=2 * sync / 1e3,
            is_rate=False,
            bar=5.0,
            note=f"{len(served)} revocations, over HTTP, median {percentile(served, 0.5):.2f} s;"
            " a shard is published once a second at most",
        ),
    ]


def _revoke(server: Serving, authority: int, serial: int) -> float:
    return float(server.tell(f"{authority} {serial:x}"))


def _until_served(server: Serving, authority: int, serial: int, shard: int) -> float:
    """Seconds from the commit until the shard's list, fetched again and again, names the certificate."""
    host, port = server.addresses["status"]
    _revoke(server, authority, serial)
    committed = time.perf_counter()
    while time.perf_counter() - committed < _PATIENCE_SECONDS:
        with urllib.request.urlopen(f"http://{host}:{port}/crl/h1.icu/1/{shard}.crl", timeout=10) as answer:
            if serial_bytes(serial) in answer.read():
                return time.perf_counter() - committed
        time.sleep(0.02)
    raise RuntimeError(f"serial {serial:x} was not served within {_PATIENCE_SECONDS} s")
