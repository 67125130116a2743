"""Pages of the expiry report and the count for the metric, in a large and old inventory, beside a count by hand."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.rig.databases import connect
from bench.rig.fleet import SIZE, fill_devices
from bench.rig.load import percentile
from bench.rows import Row
from vagus.fleet.expiry import PAGE, iterate_expiring, list_expiring
from vagus.identifiers import UnitName
from vagus.policy.packs import load_pack
from vagus.records.devices import DeviceFilter
from vagus.records.engine.database import Database, open_database
from vagus.records.expiry import FIRST, count_ends

_READS = 600
_DAY = 86_400
_NOW = 1_800_000_000
_UNTIL = _NOW + 60 * _DAY
_LIFE = 2 * 365 * _DAY
_RENEWED = 60 * _DAY

_Certificate = tuple[str, str, int, str]
"""Device, its unit, notAfter and state."""


def rows() -> list[Row]:
    """The report of issue 9. `SIZE` certificates: every device has one that it renewed, and the one after it."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "vagus.sqlite3"
        database = open_database(f"sqlite:///{file}")
        database.create()
        fill_devices(file, SIZE // 2)
        made = _fill(file)
        pages = _walk(database, random.Random(3))
        _check_report(database, made)
        counted, took = _check_count(database, made)
        database.close()
    wall, cpu, whole, read = pages
    return [
        Row(
            path=f"expiry: a page of {PAGE} certificates of {SIZE:,}, with and without a unit, p99",
            figure=percentile(cpu, 0.99) * 1e3,
            unit="ms CPU",
            limit_name="ms wall, p99 of the same pages",
            limit=percentile(wall, 0.99) * 1e3,
            is_rate=False,
            bar=10,
            note=f"wall p50 {percentile(wall, 0.5) * 1e3:.1f} ms; the whole report, {read:,} certificates read, in "
            f"{whole:.1f} s; the metric counts {counted:,} in {took:.1f} s; both equal a count by hand",
        )
    ]


def _walk(database: Database, drawn: random.Random) -> tuple[list[float], list[float], float, int]:
    """The seconds of pages from random places (wall, CPU), those of all pages from the first, and what they read."""
    pack, wall, cpu = load_pack(), [], []
    filters = (DeviceFilter(), DeviceFilter(unit=UnitName("h2", "u3")), DeviceFilter(category="pump"))
    for number in range(_READS):
        place = drawn.randrange(_NOW - _LIFE, _UNTIL), -1
        start, spent = time.perf_counter(), time.thread_time()
        with database.reading() as connection:
            list_expiring(connection, pack, at=_NOW, until=_UNTIL, narrow=filters[number % 3], after=place)
        wall.append(time.perf_counter() - start)
        cpu.append(time.thread_time() - spent)
    start, read = time.perf_counter(), 0
    after: tuple[int, int] | None = FIRST
    while after is not None:
        with database.reading() as connection:
            _, after = list_expiring(connection, pack, at=_NOW, until=_UNTIL, narrow=DeviceFilter(), after=after)
        read += PAGE
    return wall, cpu, time.perf_counter() - start, read


def _check_report(database: Database, made: list[_Certificate]) -> None:
    """Raises AssertionError where the report is not what the list of certificates gives."""
    found = [
        (one.not_after, one.device.id.text)
        for one in iterate_expiring(database, load_pack(), at=_NOW, until=_UNTIL, narrow=DeviceFilter())
    ]
    expected = [(end, device) for device, _, end in _newest(made) if end <= _UNTIL]
    assert [end for end, _ in found] == sorted(end for end, _ in expected), "not by end"
    assert Counter(found) == Counter(expected), "not the same devices"


def _check_count(database: Database, made: list[_Certificate]) -> tuple[int, float]:
    """How many the metric counts, and its seconds. Raises AssertionError where it differs."""
    bounds = (_NOW - 1, *(_NOW + days * _DAY for days in (7, 14, 30, 60, 90)))
    start = time.perf_counter()
    with database.reading() as connection:
        found = count_ends(connection, at=_NOW, bounds=bounds)
    took = time.perf_counter() - start
    ends = ((unit, end) for _, unit, end in _newest(made) if end <= bounds[-1])
    expected = Counter((unit, next(bound for bound in bounds if end <= bound)) for unit, end in ends)
    assert found == expected, "not the same counts"
    return sum(found.values()), took


def _newest(made: list[_Certificate]) -> Iterator[tuple[str, str, int]]:
    """Of each device the certificate that counts, if it is issued, found without the database."""
    ends: dict[str, tuple[str, int]] = {}
    for device, unit, end, state in made:
        if state == "issued" and end > ends.get(device, ("", 0))[1]:
            ends[device] = unit, end
    return ((device, unit, end) for device, (unit, end) in ends.items())


def _fill(file: Path) -> list[_Certificate]:
    """Two certificates for each device: ends spread over two years about now, a twentieth was never renewed."""
    drawn, connection = random.Random(11), connect(file)
    made: list[_Certificate] = []
    for device, unit in connection.execute("SELECT id, unit FROM devices ORDER BY maker_serial").fetchall():
        first = _NOW - drawn.randrange(_LIFE) + drawn.randrange(90 * _DAY)
        second = first + _LIFE - _RENEWED
        made.append((device, unit, first, "issued"))
        made.append((device, unit, second, drawn.choices(("issued", "revoked"), (19, 1))[0]))
    connection.execute("BEGIN")
    connection.execute(
        "INSERT INTO authorities (name, generation, kind, is_offline, state, key_id, keystore, spki_sha256,"
        " constrain_dn) VALUES ('h1/u1', 1, 'issuing_ca', 0, 'active', 'ca', 'h1.u1', x'00', 0)"
    )
    connection.executemany(
        "INSERT INTO certificates (leaf_index, authority_id, serial, owner, device_id, profile, spki_sha256,"
        " request_id, not_before, not_after, shard, state, fingerprint)"
        " VALUES (?, 1, ?, ?, ?, 'bedside', ?, ?, ?, ?, 0, ?, ?)",
        (
            (
                leaf,
                leaf.to_bytes(20, "big"),
                f"device:{device}",
                device,
                leaf.to_bytes(32, "big"),
                f"r{leaf}",
                end - _LIFE,
                end,
                state,
                leaf.to_bytes(32, "little"),
            )
            for leaf, (device, _, end, state) in enumerate(made)
        ),
    )
    connection.execute("COMMIT")
    connection.close()
    return made
