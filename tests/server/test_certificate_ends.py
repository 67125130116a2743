"""The metric of certificates that end: by unit and days, each unit with every bucket, and no database at a scrape."""

from __future__ import annotations

from tests.simulator.rows import authority, certificate
from tests.simulator.stock import ER, device, stocked_database
from vagus.jobs.part import Parts
from vagus.records.certificates import set_state
from vagus.records.devices import insert_devices
from vagus.server.certificate_ends import DAYS, CertificateEnds
from vagus.server.health import Health
from vagus.server.metrics import encode_metrics
from vagus.testing import FrozenClock

DAY = 86_400


def test_certificates_are_counted_once_by_unit_and_days() -> None:
    clock = FrozenClock()
    now = int(clock.now().timestamp())
    with stocked_database() as database:
        ends = CertificateEnds(database, clock)
        with database.writing() as connection:
            ca = authority(connection)
            for number, left in enumerate((-1, 0, 7 * DAY, 7 * DAY + 1, 89 * DAY, 91 * DAY)):
                row = device(number) if number else device(number, unit=ER)
                insert_devices(connection, [row])
                certificate(connection, ca, number, device_id=row.id.text, not_after=now + left)
                set_state(connection, number, "issued")
        health = Health(Parts([ends.part()]))
        assert "vagus_certificates_ending{" not in encode_metrics(health).decode()
        ends.count()
    found = dict(
        line.rsplit(" ", 1)
        for line in encode_metrics(health).decode().splitlines()
        if line.startswith("vagus_certificates_ending{")
    )
    label = 'vagus_certificates_ending{{days="{}",unit="{}"}}'.format
    assert {name: number for name, number in found.items() if number != "0.0"} == {
        label("expired", "h1/er"): "1.0",
        label("7", "h1/icu"): "2.0",
        label("14", "h1/icu"): "1.0",
        label("90", "h1/icu"): "1.0",
    }
    assert len(found) == 3 * (1 + len(DAYS)), "a unit without any has zeros, so that alerts can resolve"
    clock.advance(days=1)
    assert set(ends.counts.values()) == {0, 1, 2}, "time alone changes nothing before the next turn"
