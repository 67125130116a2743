"""Pages of `vagus cert find` in a large stock, by every filter and by many together, and a brute-force count."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.rig.databases import POSTGRESQL, SQLITE, WANTED, NoServerError, bulk, database
from bench.rig.fleet import SIZE, UNITS
from bench.rig.load import percentile
from bench.rig.search_fleet import NOW, Made, fill_stock, stock
from bench.rows import Row
from vagus.records.certificate_search import CertificateQuery, Place, find_certificates
from vagus.records.certificates import NO_EXPIRY
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.planner_statistics import TableSizeCheck

_PAGE = 50
_READS = 201
_WARM = 20
"""Reads of a kind that are not counted: each form of a statement is written by SQLAlchemy once in a process."""
_FULL = 40
"""Reads of a kind for which a page is filled, or read to the end of the search."""
_WHOLE = 20_000
"""Certificates of a page, where all of them are counted."""
_LIMIT_MS = 10.0
_DAY = 86_400
_AHEAD = (NOW + 1, NOW + 60 * _DAY)
_ALIVE = (NOW + 1, NO_EXPIRY)


class _Cost(NamedTuple):
    """Seconds of one page: of CPU here and in the server's process for this connection, and by the clock."""

    cpu: float
    wall: float


Draw = Callable[[random.Random, Made], CertificateQuery]
_KINDS: dict[str, Draw] = {
    "serial": lambda _, one: CertificateQuery(serial=one.serial),
    "device": lambda _, one: CertificateQuery(device_id=one.device or "none"),
    "fingerprint": lambda _, one: CertificateQuery(fingerprints=_prefix(one.fingerprint)),
    "name": lambda _, one: CertificateQuery(names=(one.name or f"{one.device}.icu.h1.bench.example",)),
    "unit": lambda drawn, _: CertificateQuery(units=(drawn.choice(UNITS),)),
    "two units": lambda drawn, _: CertificateQuery(units=tuple(drawn.sample(UNITS, 2))),
    "category": lambda _, one: CertificateQuery(category=one.category or "pacemaker"),
    "rare category": lambda *_: CertificateQuery(category="pacemaker"),
    "profile": lambda _, one: CertificateQuery(profile=one.profile),
    "algorithm": lambda _, one: CertificateQuery(key_algorithm=one.algorithm),
    "issuer": lambda _, one: CertificateQuery(authority_ids=(one.authority,)),
    "issuer, every generation": lambda drawn, _: _generations(drawn.randrange(40)),
    "revoked": lambda *_: CertificateQuery(state="revoked", ends=_ALIVE),
    "held": lambda *_: CertificateQuery(state="held", ends=_ALIVE),
    "expired": lambda *_: CertificateQuery(ends=(0, NOW)),
    "expiring": lambda *_: CertificateQuery(ends=_AHEAD),
    "issued between": lambda _, one: CertificateQuery(begins=(one.begin, one.begin + 30 * _DAY), is_by_begin=True),
    "unit, expiring": lambda drawn, _: CertificateQuery(units=(drawn.choice(UNITS),), ends=_AHEAD),
    "unit, revoked": lambda drawn, _: CertificateQuery(units=(drawn.choice(UNITS),), state="revoked", ends=_ALIVE),
    "category, algorithm": lambda _, one: CertificateQuery(category=one.category, key_algorithm=one.algorithm),
    "issuer, expired, algorithm": lambda _, one: CertificateQuery(
        authority_ids=(one.authority,), key_algorithm=one.algorithm, ends=(0, NOW)
    ),
    "unit, category, issued, expiring": lambda drawn, one: CertificateQuery(
        units=(drawn.choice(UNITS),), category=one.category, state="issued", ends=_AHEAD
    ),
    "rare key, issued between": lambda _, one: CertificateQuery(
        key_algorithm="mldsa65", begins=(one.begin, NOW), is_by_begin=True
    ),
    "unit, issued between": lambda drawn, one: CertificateQuery(
        units=(drawn.choice(UNITS),), begins=(one.begin, NOW), is_by_begin=True
    ),
    "a profile and a unit without it": lambda drawn, _: CertificateQuery(
        units=(drawn.choice(UNITS),), profile="tls-server"
    ),
}


def rows() -> list[Row]:
    """One row for each database."""
    found = []
    for kind in WANTED:
        try:
            with database(kind) as url:
                found.append(_measure(kind, url))
        except NoServerError as missing:
            print(f"bench: search: {missing}", file=sys.stderr)
    return found


def _measure(kind: str, url: str) -> Row:
    with tempfile.TemporaryDirectory() as scratch:
        place = f"sqlite:///{Path(scratch) / 'vagus.sqlite3'}" if kind == SQLITE else url
        opened = open_database(place)
        opened.create()
        start = time.perf_counter()
        with bulk(place) as filling:
            fill_stock(filling, SIZE)
            if kind == POSTGRESQL:
                filling.say("ANALYZE")
        made = time.perf_counter() - start
        TableSizeCheck(opened).analyse_misjudged()
        costs = dict(_pages(opened))
        filled = dict(_fill_pages(opened))
        counted, equal = _compare(opened)
        opened.close()
    spent = {name: [one.cpu for one in found] for name, found in costs.items()}
    for name, found in sorted(spent.items(), key=lambda one: -percentile(one[1], 0.99)):
        wall = percentile([one.wall for one in costs[name]], 0.5) * 1e3
        shown = f"p50 {percentile(found, 0.5) * 1e3:5.1f}, p99 {percentile(found, 0.99) * 1e3:5.1f} ms CPU"
        print(f"bench: search: {kind}: {name:34} {shown}; wall p50 {wall:5.1f} ms", file=sys.stderr)
    for name, each in filled.items():
        pages, seconds = max(count for count, _ in each), percentile([cost for _, cost in each], 0.99) * 1e3
        if pages > 1:
            print(
                f"bench: search: {kind}: {name:34} filled by at most {pages} pages, p99 {seconds:5.1f} ms CPU",
                file=sys.stderr,
            )
    worst, name = max((percentile(found, 0.99), name) for name, found in spent.items())
    walls = [one.wall for found in costs.values() for one in found]
    return Row(
        path=f"search: a page of {_PAGE} of {SIZE:,} certificates, {kind}, any filter, p99",
        figure=percentile([one for found in spent.values() for one in found], 0.99) * 1e3,
        unit="ms CPU",
        limit_name="ms",
        limit=_LIMIT_MS,
        is_rate=False,
        bar=_LIMIT_MS,
        note=f"slowest: {name}, p99 {worst * 1e3:.1f} ms; wall p50 {percentile(walls, 0.5) * 1e3:.1f} ms,"
        f" p99 {percentile(walls, 0.99) * 1e3:.1f} ms; {equal} of {counted} searches equal a brute-force search whole;"
        f" set-up {made:.0f} s",
    )


def _pages(opened: Database) -> Iterator[tuple[str, list[_Cost]]]:
    """What each page cost, from anywhere in the order of each kind of query."""
    drawn = random.Random(3)
    some = drawn.sample(list(stock(SIZE)), _READS)
    for name, draw in _KINDS.items():
        costs = []
        for one in some:
            query, other = draw(drawn, one), drawn.choice(some)
            after = drawn.choice([None, Place(other.begin if query.is_by_begin else other.end, other.leaf)])
            costs.append(_read(opened, query, after))
        yield name, costs[_WARM:]


def _fill_pages(opened: Database) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """How many pages it took to have `_PAGE` certificates or all, and their seconds of CPU, for each kind."""
    drawn = random.Random(5)
    some = drawn.sample(list(stock(SIZE)), _FULL)
    for name, draw in _KINDS.items():
        yield name, [_fill_page(opened, draw(drawn, one)) for one in some]


def _fill_page(opened: Database, query: CertificateQuery) -> tuple[int, float]:
    count, pages, cpu = 0, 0, 0.0
    after: Place | None = None
    with opened.reading() as connection:
        server = None if opened.is_sqlite else int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        while count < _PAGE and (after is not None or pages == 0):
            used, there = time.thread_time(), _used_by(server)
            page = find_certificates(connection, query, after=after, limit=_PAGE - count)
            cpu += time.thread_time() - used + _used_by(server) - there
            count, pages, after = count + len(page.certificates), pages + 1, page.rest_after
    return pages, cpu


def _read(opened: Database, query: CertificateQuery, after: Place | None) -> _Cost:
    with opened.reading() as connection:
        server = None if opened.is_sqlite else int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        start, used, there = time.perf_counter(), time.thread_time(), _used_by(server)
        find_certificates(connection, query, after=after, limit=_PAGE)
        return _Cost(time.thread_time() - used + _used_by(server) - there, time.perf_counter() - start)


def _used_by(process: int | None) -> float:
    """Seconds of CPU that a process of this machine has had, to the nanosecond; 0.0 for none."""
    if process is None:
        return 0.0
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


def _compare(opened: Database) -> tuple[int, int]:
    """How many searches were read to their end, and how many of them give what every row one by one gives."""
    drawn = random.Random(4)
    some = drawn.sample(list(stock(SIZE)), len(_KINDS))
    queries = [draw(drawn, one) for draw, one in zip(_KINDS.values(), some, strict=True)]
    expected = [(0, 0)] * len(queries)
    for one in stock(SIZE):
        for number, query in enumerate(queries):
            if _fits(one, query):
                count, total = expected[number]
                expected[number] = (count + 1, total + one.leaf)
    found = [_read_whole(opened, query) for query in queries]
    for name, wanted, got in zip(_KINDS, expected, found, strict=True):
        if wanted != got:
            print(f"bench: search: {name}: {got} where every row gives {wanted}", file=sys.stderr)
    return len(queries), sum(wanted == got for wanted, got in zip(expected, found, strict=True))


def _read_whole(opened: Database, query: CertificateQuery) -> tuple[int, int]:
    """How many certificates a query has, page by page, and the sum of their leaves."""
    count = total = 0
    after: Place | None = None
    with opened.reading(patience=None) as connection:
        while True:
            page = find_certificates(connection, query, after=after, limit=_WHOLE)
            count, total = count + len(page.certificates), total + sum(one.row.leaf_index for one in page.certificates)
            after = page.rest_after
            if after is None:
                return count, total


def _fits(one: Made, query: CertificateQuery) -> bool:
    return (
        query.begins[0] <= one.begin <= query.begins[1]
        and query.ends[0] <= one.end <= query.ends[1]
        and query.serial in {None, one.serial}
        and query.device_id in {None, one.device}
        and query.category in {None, one.category}
        and query.profile in {None, one.profile}
        and query.key_algorithm in {None, one.algorithm}
        and query.state in {None, one.state}
        and (not query.units or one.unit in query.units)
        and (not query.authority_ids or one.authority in query.authority_ids)
        and (query.fingerprints is None or query.fingerprints[0] <= one.fingerprint <= query.fingerprints[1])
        and all(name == one.name or name.partition(".")[0] == one.device for name in query.names)
    )


def _prefix(digest: bytes) -> tuple[bytes, bytes]:
    """As the 16 digits that messages print."""
    return digest[:8].ljust(32, b"\0"), digest[:8].ljust(32, b"\xff")


def _generations(number: int) -> CertificateQuery:
    return CertificateQuery(authority_ids=(1 + number, 41 + number))
