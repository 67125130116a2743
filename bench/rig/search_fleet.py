"""A large stock of certificates of every kind to search in: rows past the writer, the same at each call; no bytes."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from bench.rig.databases import Bulk
from bench.rig.fleet import UNITS
from vagus.identifiers import serial_bytes

NOW = 1_780_000_000
_DAY = 86_400
_YEARS = 5
_CATEGORIES = (
    *("infusion-pump", "ventilator", "patient-monitor", "pulse-oximeter", "glucose-meter", "ecg-patch", "smart-scale"),
    *("insulin-pump", "neurostimulator", "gateway", "pacemaker"),
)
_SHARES_SO_FAR = tuple(accumulate((3000, 800, 2500, 1500, 900, 600, 400, 200, 80, 19, 1)))
_PROFILES = {"bedside": 365, "wearable": 90, "implant": 730}
_ALGORITHMS, _SHARES = ("p256", "p384", "rsa3072", "mldsa65"), (80, 12, 7.9, 0.1)
_STATES, _PARTS = ("issued", "revoked", "held", "intended"), (95, 4, 0.99, 0.01)


class Made(NamedTuple):
    """One certificate of the stock; `name` is a host name or a maker's serial, for those of no device."""

    leaf: int
    authority: int
    serial: int
    device: str | None
    unit: str | None
    category: str | None
    profile: str
    algorithm: str
    begin: int
    end: int
    state: str
    fingerprint: bytes
    name: str | None


def stock(count: int) -> Iterator[Made]:
    """`count` certificates over five years: nine in ten of devices, the others of servers and makers' lines."""
    drawn = random.Random(11)
    pool = max(1, count // 3)
    for leaf in range(count):
        begin = NOW - _YEARS * 365 * _DAY + leaf * _YEARS * 365 * _DAY // count + drawn.randrange(_DAY)
        algorithm = drawn.choices(_ALGORITHMS, _SHARES)[0]
        state = drawn.choices(_STATES, _PARTS)[0]
        serial, digest = drawn.getrandbits(158) | 1 << 157, drawn.randbytes(32)
        kind = drawn.random()
        device: str | None = None
        unit: str | None = None
        category: str | None = None
        name: str | None = None
        if kind < 0.9:
            # a device has some three certificates, and everything about it follows from its number
            number = drawn.randrange(pool)
            mixed = number * 2_654_435_761 % 2**32
            place, category = mixed % len(UNITS), _CATEGORIES[bisect(_SHARES_SO_FAR, mixed // 64 % _SHARES_SO_FAR[-1])]
            profile = tuple(_PROFILES)[_CATEGORIES.index(category) % 3]
            end = begin + _PROFILES[profile] * _DAY
            device, unit, authority = f"{number:026d}", UNITS[place], 1 + place + 40 * (leaf * 2 > count)
        elif kind < 0.95:
            profile, end, authority = "tls-server", begin + 90 * _DAY, 81 + leaf % 5
            name = f"host-{leaf % max(1, count // 100)}.h1.bench.example"
        else:
            profile, end, authority, name = "idevid", 253402300799, 86, f"ap-{leaf:09d}"
        yield Made(leaf, authority, serial, device, unit, category, profile, algorithm, begin, end, state, digest, name)


def fill_stock(rows: Bulk, count: int) -> None:
    """Write the stock into an empty database."""
    authorities = (
        (number, f"bench/{number}", 1, "issuing_ca", False, "active", "", "", b"", False) for number in range(1, 87)
    )
    rows.insert("authorities", _AUTHORITY, authorities)
    rows.insert(
        "certificates",
        _CERTIFICATE,
        (
            (
                *(one.leaf, one.authority, serial_bytes(one.serial), f"bench:{one.leaf}", one.device, one.profile),
                *(one.fingerprint, f"bench-{one.leaf}", one.begin, one.end, 0, one.state, one.fingerprint),
                *(one.algorithm, one.unit, one.category),
            )
            for one in stock(count)
        ),
    )
    named = ((one.name, one.leaf) for one in stock(count) if one.name is not None)
    rows.insert("certificate_names", ("name", "leaf_index"), named)


_AUTHORITY = (
    *("id", "name", "generation", "kind", "is_offline", "state", "key_id", "keystore", "spki_sha256", "constrain_dn"),
)
_CERTIFICATE = (
    *("leaf_index", "authority_id", "serial", "owner", "device_id", "profile", "spki_sha256", "request_id"),
    *("not_before", "not_after", "shard", "state", "fingerprint", "key_algorithm", "unit", "category"),
)
