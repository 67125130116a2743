"""What a migration fills in: a database that v0.1.0 made is searched like one that this version made."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.simulator.rows import authority, certificate
from tests.upgrade.history import old_sources
from tests.x509.test_searchable import DEVICE, device_tbs, idevid_tbs, server_tbs
from vagus.records.certificate_search import CertificateQuery, find_certificates
from vagus.records.certificates import insert_intent
from vagus.records.engine.database import Database, open_database
from vagus.x509.searchable import SearchFacts, names_beside_device, read_search_facts

# leaf: device, profile, TBS
STOCK = {
    3: (DEVICE, "bedside", device_tbs(ec.SECP256R1())),
    4: (DEVICE, "tls-server", server_tbs()),
    5: (None, "idevid", idevid_tbs()),
    6: (None, "lost", b""),
    7: (None, "odd", b"\x30\x03no"),
}
QUERIES = {
    "kind of key": (CertificateQuery(key_algorithm="rsa2048"), {4}),
    "another kind of key": (CertificateQuery(key_algorithm="p256"), {3, 5}),
    "unit": (CertificateQuery(units=("h1/icu",)), {3, 4}),
    "category": (CertificateQuery(category="pump"), {3, 4}),
    "host name": (CertificateQuery(names=("gw.h1.test.example",)), {4}),
    "address": (CertificateQuery(names=("192.0.2.7",)), {4}),
    "serial number of a maker": (CertificateQuery(names=("aip3-000007",)), {5}),
    "device": (CertificateQuery(names=(DEVICE,)), {3, 4}),
    "name of a device": (CertificateQuery(names=(f"{DEVICE}.icu.h1.test.example",)), {3, 4}),
    "everything": (CertificateQuery(), {3, 4, 5, 6, 7}),
}


def found(database: Database) -> dict[str, set[int]]:
    with database.reading() as connection:
        return {
            name: {one.row.leaf_index for one in find_certificates(connection, query).certificates}
            for name, (query, _) in QUERIES.items()
        }


@pytest.fixture(scope="module")
def old_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables as v0.1.0 made them, with certificates of each kind."""
    file = tmp_path_factory.mktemp("old") / "vagus.sqlite3"
    with old_sources() as sources:
        make = f"from vagus.records.database import open_database; open_database('sqlite:///{file}').create()"
        environment = {**os.environ, "PYTHONPATH": str(sources)}
        subprocess.run([sys.executable, "-c", make], check=True, timeout=60, env=environment)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO units VALUES ('h1/icu', 'h1', 'Hospital', 'ICU')")
        connection.execute("INSERT INTO models VALUES ('Pump', 'Maker', 'pump', 'bedside', NULL)")
        connection.execute(
            "INSERT INTO devices (id, unit, model, profile, maker_serial, state, added_at, changed_at)"
            " VALUES (?, 'h1/icu', 'Pump', 'bedside', '1', 'in_service', 0, 0)",
            (DEVICE,),
        )
        connection.execute(
            "INSERT INTO authorities (id, name, generation, kind, is_offline, state, key_id, keystore, spki_sha256,"
            " constrain_dn) VALUES (1, 'h1/icu', 1, 'issuing_ca', 0, 'active', '', '', x'', 0)"
        )
        for leaf, (device, profile, tbs) in STOCK.items():
            connection.execute(
                "INSERT INTO certificates (leaf_index, authority_id, serial, owner, device_id, profile, spki_sha256,"
                " request_id, not_before, not_after, shard, state)"
                " VALUES (?, 1, ?, 'x', ?, ?, x'', ?, 0, 9, 0, 'issued')",
                (leaf, bytes([leaf]), device, profile, f"r{leaf}"),
            )
            connection.execute("INSERT INTO certificate_bytes VALUES (?, ?, NULL)", (leaf, tbs))
        connection.commit()
    return file


def test_the_certificates_of_v0_1_0_are_found_after_the_upgrade(old_database: Path) -> None:
    with closing(open_database(f"sqlite:///{old_database}")) as database:
        database.upgrade()
        database.upgrade()
        assert found(database) == {name: wanted for name, (_, wanted) in QUERIES.items()}


def test_the_same_certificates_are_found_where_this_version_wrote_them(database: Database) -> None:
    from tests.records.test_certificate_search import one_device

    with database.writing() as connection:
        one_device(connection)
        issuer = authority(connection)
        model = certificate(connection, issuer, 100)
        for leaf, (device, profile, tbs) in STOCK.items():
            facts = read_search_facts(tbs) if leaf < 6 else SearchFacts("")
            named = {"leaf_index": leaf, "serial": leaf, "request_id": f"n{leaf}", "device_id": device}
            row = replace(model, profile=profile, key_algorithm=facts.key_algorithm, **named)  # type: ignore[arg-type]
            insert_intent(connection, row, tbs, names_beside_device(facts.names, device))
    kept = {name: {leaf for leaf in leaves if leaf < 100} for name, leaves in found(database).items()}
    assert kept == {name: wanted for name, (_, wanted) in QUERIES.items()}
