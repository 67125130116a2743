"""What happens to listeners and open connections when an authority above every device is revoked."""

from __future__ import annotations

import pytest

from tests.simulator.attacked import PATIENCE, Hospital, request
from tests.simulator.orders import new_key
from vagus.errors import Malformed
from vagus.fleet.devices import NewDevice
from vagus.identifiers import UnitName
from vagus.records.authorities import list_authorities
from vagus.x509.crls.building import RevocationReason

BY = "operator:test"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def _revoke_authority(hospital: Hospital, name: str, parent: str) -> None:
    with hospital.installation.database.reading() as connection:
        ids = {row.name: row.id for row in list_authorities(connection)}
    serial = hospital.authority(name).serial_number
    hospital.installation.revocations.revoke(ids[parent], serial, RevocationReason.CA_COMPROMISE, by=BY).result()


@pytest.mark.parametrize("field", ["place", "udi", "host_names"])
def test_no_terminal_sequence_enters_the_inventory(hospital: Hospital, field: str) -> None:
    evil = "\x1b]0;owned\x07"
    more = {field: (evil,) if field == "host_names" else evil}
    new = NewDevice(unit=UnitName.parse("h1/icu"), model="Aorta IP3", maker_serial=f"odd-{field}", **more)  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        hospital.installation.inventory.add(new, by=BY).result()


def test_under_a_revoked_authority_nothing_stays_open(hospital: Hospital) -> None:
    """First a unit's authority, then the one above it, which is the anchor of every listener and stands on no path."""
    for unit, name, parent in (("h3/er", "h3/er", "h3"), ("h3/icu", "h3", "root")):
        _, credential = hospital.enrolled(unit)
        with hospital.connect("stream-h3", credential) as open_one:
            assert open_one.say(GET).hear() is not None
            _revoke_authority(hospital, name, parent)
            assert open_one.has_ended(PATIENCE)
        with hospital.connect("stream-h3", credential) as late:
            assert late.has_ended(PATIENCE)
        again = request(new_key(), credential.leaf)
        answer = hospital.enrol(again, who=credential, operation="simplereenroll", listener="enrol-h3")
        assert answer.status == 403
        assert answer.reason in {"REVOKED_CA", "NO_PATH"}  # the anchors are read anew within two seconds
