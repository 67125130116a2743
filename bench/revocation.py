"""Revocation in a large authority: the call, its shard's list as a relying party gets it, every list made anew.

Once for each database of BENCH_DATABASES; BENCH_FLEET=1000000 for the size that issue 4's bars speak of.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.rig.databases import POSTGRESQL, WANTED, NoServerError, database
from bench.rig.fleet import SIZE, Certificates, fill_certificates
from bench.rig.installation import MODEL, hospital, open_installation
from bench.rig.limits import fsync_seconds
from bench.rig.load import percentile
from bench.rig.republishing import peak_mb, republish
from bench.rig.servers import Serving, on_load_core, serving
from bench.rows import Row
from vagus.authority.crls.overdue import overdue_crls
from vagus.authority.mass_revocation import STEP
from vagus.identifiers import serial_bytes
from vagus.records.revocation.plans import DONE
from vagus.records.revocation.revocations import REVOKE
from vagus.records.revocation.selections import Selection
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason

_REAL = 1_000
_OF_MODEL = SIZE // 100
_CALLS = 500
_ROUNDS = 20
_TOGETHER = 5
_PATIENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one run on one database gave; times in seconds."""

    calls: list[float]
    served: list[float]
    many: tuple[int, float, float]
    disk: list[float]
    crls: dict[str, float]
    server_mb: float
    note: str


def rows() -> list[Row]:
    """Issue 4's bars, on each database."""
    found: list[Row] = []
    for kind in WANTED:
        try:
            with database(kind) as url, hospital(1, url) as folder:
                found += _as_rows(kind, _measure(folder))
        except NoServerError as missing:
            found.append(_left_out(kind, str(missing)))
    return found


def _measure(folder: Path) -> _Seen:
    start = time.perf_counter()
    with open_installation(folder) as installation:
        made = fill_certificates(installation, certificates=SIZE, revoked=SIZE // 10, real=_REAL, of_model=_OF_MODEL)
    took = time.perf_counter() - start
    crls = republish(folder, "every")
    start = time.perf_counter()
    with serving(folder, "-m", "bench.rig.revoking", str(folder)) as server, on_load_core():
        started = time.perf_counter() - start
        waited, begun = server.waited_seconds(), time.perf_counter()
        disk = fsync_seconds(folder)
        calls = [_revoke(server, made.authority_id, serial) for serial, _ in made.good[:_CALLS]]
        disk += fsync_seconds(folder)
        watched = made.good[_CALLS : _CALLS + _ROUNDS * _TOGETHER]
        served: list[float] = []
        for at in range(0, len(watched), _TOGETHER):
            served += _until_served(server, made, watched[at : at + _TOGETHER])
        disk += fsync_seconds(folder)
        waited = (server.waited_seconds() - waited) / (time.perf_counter() - begun)
        server_mb = peak_mb(server.process.pid)
    with open_installation(folder) as installation:
        many = _mass(installation)
    note = f"set-up {took:.0f} s, server's start {started:.1f} s, its threads waited {waited:.2f} s/s for their core"
    return _Seen(calls, served, many, disk, crls, server_mb, f"{note}, load average {os.getloadavg()[0]:.1f}")


def _mass(installation: Installation) -> tuple[int, float, float]:
    """Everything of one model by a plan with its stages: how many certificates, and seconds by the wall and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    by, acts = "operator:bench", installation.mass_revocation
    row = acts.propose(Selection(model=MODEL), REVOKE, RevocationReason.SUPERSEDED, by=by)
    stop = overdue_crls(
        installation.database, installation.clock, timedelta(days=1)
    )  # asked after each step, as when served
    while row.state != DONE:
        row = acts.run(row.id, by=by, stop=stop)
    return row.done, time.perf_counter() - wall, time.process_time() - cpu


def _as_rows(kind: str, seen: _Seen) -> list[Row]:
    sync = percentile(seen.disk, 0.99)
    many, wall, cpu = seen.many
    of = f"{SIZE:,} certificates, {kind}"
    return [
        Row(
            path=f"revocation: the call, {of}, p99",
            figure=percentile(seen.calls, 0.99) * 1e3,
            unit="ms",
            limit_name="ms, p99 of one fdatasync",
            limit=sync * 1e3,
            is_rate=False,
            bar=50,
            note=f"p50 {percentile(seen.calls, 0.5) * 1e3:.1f} ms, slowest {max(seen.calls) * 1e3:.0f} ms over"
            f" {len(seen.calls)} calls, one after the other; {seen.note}",
        ),
        Row(
            path=f"revocation: commit to served shard, {of}, p99",
            figure=percentile(seen.served, 0.99),
            unit="s",
            limit_name="s: two syncs of the disk, p99",
            limit=2 * sync,
            is_rate=False,
            bar=5.0,
            note=f"{len(seen.served)} revocations in {_ROUNDS} rounds, over HTTP, median"
            f" {percentile(seen.served, 0.5):.2f} s; a shard is published once a second at most; server's peak"
            f" {seen.server_mb:.0f} MB",
        ),
        Row(
            path=f"revocation: {many} of one model by plan, {of}",
            figure=wall,
            unit="s",
            limit_name=f"s: a sync of the disk each {STEP}",
            limit=many / STEP * sum(seen.disk) / len(seen.disk),
            is_rate=False,
            note=f"{cpu:.1f} CPU-s of the process that runs it; stages of 1, 10, 50 and 100 %, each asked for at once",
        ),
        *_rows_of_lists(kind, of, seen),
    ]


def _rows_of_lists(kind: str, of: str, seen: _Seen) -> list[Row]:
    crls = seen.crls
    return [
        Row(
            path=f"CRL: all {crls['lists']:.0f} CRLs of {of}, {SIZE // 10:,} revoked, republished",
            figure=crls["wall"],
            unit="s",
            limit_name=f"s: {crls['lists']:.0f} CRLs, each a file's and a row's sync",
            limit=2 * crls["lists"] * sum(seen.disk) / len(seen.disk),
            is_rate=False,
            bar=30,
            note=f"{crls['cpu']:.2f} CPU-s",
        ),
        Row(
            path=f"CRL: peak memory of the process that republished them, {kind}",
            figure=crls["peak_mb"],
            unit="MB",
            limit_name="MB before it began",
            limit=crls["idle_mb"],
            is_rate=False,
            bar=400,
        ),
        Row(
            path=f"CRL: bytes of a shard all revoked, {kind}",
            figure=crls["full"],
            unit="bytes",
            limit_name="bytes, the largest of this fleet's",
            limit=crls["largest"],
            is_rate=False,
            bar=1_000_000,
            note=f"this fleet's shards: least {crls['least']:,.0f}, median {crls['median']:,.0f}; complete CRL"
            f" {crls['complete']:,.0f}",
        ),
    ]


def _left_out(kind: str, why: str) -> Row:
    return Row(
        path=f"revocation and CRLs, {SIZE:,} certificates, {kind}",
        figure=0,
        unit="",
        limit_name="not measured",
        limit=1,
        note=f"{why}; {POSTGRESQL} is found on the PATH or named by VAGUS_TEST_POSTGRES",
    )


def _revoke(server: Serving, authority: int, serial: int) -> float:
    return float(server.ask(f"{authority} {serial:x}"))


def _until_served(server: Serving, made: Certificates, together: Sequence[tuple[int, int]]) -> list[float]:
    """Seconds from each commit until the shard's list, fetched again and again, names the certificate."""
    host, port = server.addresses["status"]
    committed: dict[tuple[int, int], float] = {}
    for serial, shard in together:
        _revoke(server, made.authority_id, serial)
        committed[serial, shard] = time.perf_counter()
    took: list[float] = []
    begun = time.perf_counter()
    while committed and time.perf_counter() - begun < _PATIENCE_SECONDS:
        for serial, shard in tuple(committed):
            with urllib.request.urlopen(f"http://{host}:{port}/crl/h1.icu/1/{shard}.crl", timeout=10) as response:
                if serial_bytes(serial) in response.read():
                    took.append(time.perf_counter() - committed.pop((serial, shard)))
        time.sleep(0.02)
    if committed:
        raise RuntimeError(f"{len(committed)} revocations were not served within {_PATIENCE_SECONDS} s")
    return took
