"""Pages of a large inventory, under every filter and from anywhere, beside a page through the bare driver."""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.rig.fleet import MODELS, SIZE, STATES, UNITS, fill_devices
from bench.rig.load import percentile
from bench.rows import Row
from vagus.identifiers import DeviceId, UnitName
from vagus.records.devices import DeviceFilter, Place, list_devices
from vagus.records.engine.database import open_database
from vagus.testing import SeededEntropy

_PAGE = 50
_READS = 600

Narrow = Callable[[random.Random], DeviceFilter]
_FILTERS: dict[str, Narrow] = {
    "none": lambda _: DeviceFilter(),
    "unit": lambda drawn: DeviceFilter(unit=UnitName.parse(drawn.choice(UNITS))),
    "hospital": lambda drawn: DeviceFilter(hospital=drawn.choice(UNITS).split("/")[0]),
    "state": lambda drawn: DeviceFilter(state=drawn.choice(STATES)[0]),
    "model": lambda drawn: DeviceFilter(model=drawn.choice(MODELS)[0]),
    "category": lambda drawn: DeviceFilter(category=drawn.choice(("pump", "ventilator"))),
    "profile": lambda drawn: DeviceFilter(profile=drawn.choice(MODELS)[1]),
    "unit and state": lambda drawn: DeviceFilter(
        unit=UnitName.parse(drawn.choice(UNITS)), state=drawn.choice(STATES)[0]
    ),
    "hospital, state, model": lambda drawn: DeviceFilter(
        hospital=drawn.choice(UNITS).split("/")[0], state=drawn.choice(STATES)[0], model=drawn.choice(MODELS)[0]
    ),
    "a model that none is of": lambda _: DeviceFilter(model="Model 99"),
}


def rows() -> list[Row]:
    """Row 8 of design section 9."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "vagus.sqlite3"
        database = open_database(f"sqlite:///{file}")
        database.create()
        start = time.perf_counter()
        fill_devices(file, SIZE)
        made = time.perf_counter() - start
        drawn = random.Random(1)
        waits: dict[str, list[float]] = {}
        used: dict[str, list[float]] = {}
        for name, narrow in _FILTERS.items():
            waits[name], used[name] = [], []
            for _ in range(_READS // len(_FILTERS)):
                wanted = narrow(drawn)
                after = _place(drawn, wanted)
                wall, cpu = time.perf_counter(), time.thread_time()
                with database.reading() as connection:
                    list_devices(connection, wanted, after=after, limit=_PAGE)
                waits[name].append(time.perf_counter() - wall)
                used[name].append(time.thread_time() - cpu)
        bare = _bare(file, SeededEntropy(2))
        database.close()
    every, spent = ([one for found in kind.values() for one in found] for kind in (waits, used))
    worst, slow = max((percentile(found, 0.99), name) for name, found in used.items())
    return [
        Row(
            path=f"inventory: a page of {_PAGE} of {SIZE:,} devices, any filter, p99",
            figure=percentile(spent, 0.99) * 1e3,
            unit="ms CPU",
            limit_name="ms CPU, p99 of a page without filter, bare sqlite3",
            limit=percentile(bare, 0.99) * 1e3,
            is_rate=False,
            bar=10,
            note=f"slowest: {slow}, {worst * 1e3:.1f} ms; wall p50 {percentile(every, 0.5) * 1e3:.1f} ms,"
            f" p99 {percentile(every, 0.99) * 1e3:.1f} ms; set-up {made:.0f} s",
        )
    ]


def _place(drawn: random.Random, wanted: DeviceFilter) -> Place:
    """Where a page ends that `wanted` selects."""
    units = [one for one in UNITS if one.startswith(f"{wanted.hospital or ''}")]
    unit, model = str(wanted.unit or drawn.choice(units)), wanted.model or drawn.choice(MODELS)[0]
    return Place(unit, model, f"SN-{drawn.randrange(SIZE):08d}")


def _bare(file: Path, entropy: SeededEntropy) -> Sequence[float]:
    connection = sqlite3.connect(file)
    waits = []
    for _ in range(_READS):
        after = DeviceId.draw(entropy).text
        start = time.thread_time()
        connection.execute("SELECT * FROM devices WHERE id > ? ORDER BY id LIMIT ?", (after, _PAGE)).fetchall()
        waits.append(time.thread_time() - start)
    connection.close()
    return waits
