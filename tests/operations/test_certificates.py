"""Finding, showing and exporting certificates of every kind, over a real installation."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.operations.test_acts import ER, ICU, actor, opened, refusal_of, refused
from tests.simulator.issuing import issue, make_responder
from vagus.authority.revocation import revoke_device
from vagus.errors import Conflict, LimitExceeded, Malformed, Unavailable, VagusError
from vagus.operations.actor import Role
from vagus.operations.certificate_queries import STATES, CertificateSearch, names_sought
from vagus.operations.certificates import Certificate
from vagus.operations.devices import find_named
from vagus.reasons import Reason
from vagus.records.certificates import NO_EXPIRY
from vagus.records.engine.tables import certificates
from vagus.wire.cms import encode_certs_only
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason

__all__ = ["opened"]
PUMP = "Aorta IP3:AIP3-000001"
EVE = actor("eve", Role.AUDITOR)
LONG_AGO, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2023, 11, 14, tzinfo=UTC)


@pytest.fixture
def stocked(hospital: Path) -> Path:
    """Two certificates of the first pump, one of the second, an OCSP responder, and the hierarchy."""
    issue(hospital, 1, "first")
    issue(hospital, 1, "second")
    issue(hospital, 2)
    make_responder(hospital)
    return hospital


def find(opened: Installation, **named: Any) -> tuple[Certificate, ...]:
    return opened.operations.certificates.find_page(EVE, CertificateSearch(**named)).certificates


def ids(found: tuple[Certificate, ...]) -> set[str]:
    return {one.id for one in found}


def everything(opened: Installation) -> tuple[Certificate, ...]:
    return find(opened, issued_after=LONG_AGO)


def reason_of(opened: Installation, kind: type[Exception], **named: str) -> str:
    with pytest.raises(kind) as caught:
        find(opened, **named)
    assert caught.value.reason in Reason  # type: ignore[attr-defined]
    return str(caught.value)


def test_certificates_of_every_kind_are_found_by_each_thing_known_of_them(stocked: Path, opened: Installation) -> None:
    every = everything(opened)
    pumps = tuple(one for one in every if one.row.device_id is not None)
    assert {one.row.profile for one in every} == {
        "root", "device-ca", "issuing-ca", "sdc-ca", "infrastructure-ca", "ocsp", "bedside",
    }  # fmt: skip
    assert len(pumps) == 3
    for one in every:
        row = one.row
        assert one.id in ids(find(opened, serial=f"0x{row.serial:x}"))
        assert one.id in ids(find(opened, serial=":".join(f"{byte:02X}" for byte in row.serial.to_bytes(20, "big"))))
        assert one.id in ids(find(opened, fingerprint=(row.fingerprint or b"").hex()[:16]))
        assert one.id in ids(find(opened, subject=one.facts.subject))
        assert one.id in ids(find(opened, subject=one.facts.subject_names[0].upper()))
        assert one.id in ids(find(opened, profile=row.profile, issuer=one.issuer, state="issued"))
        assert one.id in ids(find(opened, algorithm=row.key_algorithm or "none"))
        for name in one.facts.alternative_names:
            assert one.id in ids(find(opened, san=name))
    assert ids(find(opened, unit="h1/icu")) == ids(find(opened, category="infusion-pump")) == ids(pumps)
    first = {one.id for one in pumps if one.facts.subject_names[0] == str(find_named(opened.database, PUMP).id)}
    assert ids(find(opened, device=PUMP)) == first
    assert len(first) == 2


def test_a_subject_is_not_found_as_an_alternative_name(stocked: Path, opened: Installation) -> None:
    device = str(find_named(opened.database, PUMP).id)
    assert len(find(opened, subject=device)) == 2
    assert find(opened, san=device) == ()
    assert len(find(opened, san=f"{device}.icu.h1.test.example")) == 2
    assert find(opened, san=f"{device}.er.h1.test.example") == ()
    assert find(opened, subject=f"O=Another Hospital, CN={device}") == ()


def test_pages_follow_each_other_to_the_end(stocked: Path, opened: Installation) -> None:
    whole, after = everything(opened), None
    found: list[Certificate] = []
    acts = opened.operations.certificates
    while True:
        page = acts.find_page(EVE, CertificateSearch(issued_after=LONG_AGO), after=after, limit=3)
        found += page.certificates
        after = page.after
        if after is None:
            break
    assert [one.id for one in found] == [one.id for one in whole]
    with pytest.raises(Malformed, match="no id of a certificate"):
        acts.find_page(EVE, CertificateSearch(unit="h1/icu"), after="leaf-999999")


def test_a_serial_that_can_be_read_in_two_ways_names_both(stocked: Path, opened: Installation) -> None:
    one, other = sorted(find(opened, unit="h1/icu"), key=lambda each: each.id)[:2]
    with opened.database.writing() as connection:
        for each, number in ((one, 0x1000), (other, 1000)):
            own = certificates.c.leaf_index == each.row.leaf_index
            connection.execute(certificates.update().where(own).values(serial=number.to_bytes(2, "big")))
    message = reason_of(opened, Malformed, serial="1000")
    assert all(words in message for words in ("0x1000 (decimal 4096)", "0x3e8 (decimal 1000)", one.id, other.id))
    assert ids(find(opened, serial="0x1000")) == {one.id}
    assert ids(find(opened, serial="0x3e8")) == {other.id}
    assert ids(find(opened, serial="4096")) == {one.id}
    with pytest.raises(Malformed, match="different certificates"):
        opened.operations.certificates.show(EVE, "1000")
    assert opened.operations.certificates.show(EVE, one.id).certificate.id == one.id


def test_what_has_ended_is_expired_whatever_its_row_says(stocked: Path, opened: Installation) -> None:
    pumps = find(opened, unit="h1/icu")
    with opened.database.writing() as connection:
        for one, state in zip(pumps, ("issued", "revoked", "held"), strict=True):
            own = certificates.c.leaf_index == one.row.leaf_index
            connection.execute(certificates.update().where(own).values(not_after=1_700_000_000, state=state))
    assert ids(find(opened, state="expired", unit="h1/icu")) == ids(pumps)
    assert {one.state for one in find(opened, unit="h1/icu")} == {"expired"}
    assert all(find(opened, state=state, unit="h1/icu") == () for state in STATES[:-1])
    assert ids(find(opened, expires_after=END, expires_before=END + timedelta(days=1))) == ids(pumps)
    assert find(opened, expires_within=timedelta(days=3650), unit="h1/icu") == ()


@pytest.mark.parametrize(
    ("named", "kind", "says"),
    [
        ({}, Malformed, "--serial, --subject, --san, --device, --unit, --category, --profile"),
        ({"subject": "*"}, Malformed, "no wildcards"),
        ({"san": "gw.%"}, Malformed, "no wildcards"),
        ({"unit": " "}, Malformed, "no whole value"),
        ({"serial": "4" * 1_048_576}, LimitExceeded, "1,048,576 characters, at most 100"),
        ({"subject": "x" * 301}, LimitExceeded, "at most 300"),
        ({"serial": "pump"}, Malformed, "no certificate serial"),
        ({"serial": "f" * 41}, Malformed, "at most 20 bytes"),
        ({"fingerprint": "4a01"}, Malformed, "8 to 64 hexadecimal digits"),
        ({"subject": "O=First Hospital"}, Malformed, "no CN and no serialNumber"),
        ({"unit": "h1/none"}, Malformed, "known are h1/icu"),
        ({"category": "toaster"}, Malformed, "infusion-pump"),
        ({"profile": "none"}, Malformed, "bedside"),
        ({"algorithm": "P-999"}, Malformed, "p256"),
        ({"issuer": "h9/none"}, Malformed, "vagus ca list"),
        ({"state": "good"}, Malformed, "expired, held, intended, issued, revoked"),
    ],
)
def test_bad_input_is_a_sentence_with_the_remedy(
    opened: Installation, named: dict[str, str], kind: type[Exception], says: str
) -> None:
    assert says in reason_of(opened, kind, **named)


def test_the_whole_subject_is_looked_up_by_its_common_name() -> None:
    assert names_sought(CertificateSearch(subject="O=A, OU=B+serialNumber=S-1, CN=The Pump")) == ("s-1", "the pump")
    assert names_sought(CertificateSearch(subject="Pump", san="pump")) == ("pump",)


def test_a_scope_shows_its_units_alone(stocked: Path, opened: Installation) -> None:
    acts = opened.operations.certificates
    here = actor("anna", Role.CLINICAL_ENGINEER, scope=frozenset({ICU}))
    elsewhere = actor("ben", Role.CLINICAL_ENGINEER, scope=frozenset({ER}))
    none = actor("carl", Role.CLINICAL_ENGINEER, scope=frozenset())
    search, pumps = CertificateSearch(issued_after=LONG_AGO), ids(find(opened, unit="h1/icu"))
    assert ids(acts.find_page(here, search).certificates) == pumps
    assert acts.find_page(elsewhere, search).certificates == acts.find_page(none, search).certificates == ()
    refused(lambda: acts.find_page(elsewhere, CertificateSearch(unit="h1/icu")))
    one = min(pumps)
    assert acts.show(here, one).certificate.id == one


def test_what_is_outside_a_scope_looks_like_what_is_not_there(stocked: Path, opened: Installation) -> None:
    acts = opened.operations.certificates
    here = actor("anna", Role.CLINICAL_ENGINEER, scope=frozenset({ICU}))
    elsewhere = actor("ben", Role.CLINICAL_ENGINEER, scope=frozenset({ER}))
    none = actor("carl", Role.CLINICAL_ENGINEER, scope=frozenset())
    one, (responder,) = find(opened, unit="h1/icu")[0], find(opened, profile="ocsp")
    for who, hidden in ((elsewhere, one), (none, one), (here, responder)):
        for name in (hidden.id, f"{hidden.issuer}:{hidden.row.serial:x}", (hidden.row.fingerprint or b"").hex()):
            for act in (acts.show, acts.export):
                assert refusal_of(lambda act=act, who=who, name=name: act(who, name)) == refusal_of(  # type: ignore[misc]
                    lambda act=act, who=who: act(who, "leaf-999999")  # type: ignore[misc]
                ).replace("leaf-999999", name)
    search = CertificateSearch(issued_after=LONG_AGO)
    assert "is no id" in refusal_of(lambda: acts.find_page(elsewhere, search, after=one.id))
    assert acts.find_page(here, search, after=find(opened, unit="h1/icu")[-1].id).certificates == ()
    unknown = refusal_of(lambda: acts.find_page(elsewhere, CertificateSearch(device="Aorta IP3:AIP3-999999")))
    assert refusal_of(lambda: acts.find_page(elsewhere, CertificateSearch(device=PUMP))) == unknown.replace(
        "Aorta IP3:AIP3-999999", PUMP
    )


def test_a_name_that_several_units_share_is_of_the_one_in_scope(stocked: Path, opened: Installation) -> None:
    pump, here = find(opened, unit="h1/icu")[0], actor("anna", Role.CLINICAL_ENGINEER, scope=frozenset({ICU}))
    first = {one.issuer: one for one in everything(opened) if one.unit is None}
    others = [one for one in first.values() if one.issuer != pump.issuer][:2]
    with opened.database.writing() as connection:  # the one of the unit ends last, and a page has two
        for one, end in ((pump, NO_EXPIRY - 1), *((one, one.row.not_after) for one in others)):
            own = certificates.c.leaf_index == one.row.leaf_index
            connection.execute(certificates.update().where(own).values(serial=b"\x4a\x01", not_after=end))
    assert len(others) == 2
    assert "names different certificates" in refusal_of(lambda: opened.operations.certificates.show(EVE, "0x4a01"))
    assert opened.operations.certificates.show(here, "0x4a01").certificate.id == pump.id


def test_a_damaged_row_is_not_shown_as_a_certificate_without_a_device(stocked: Path, opened: Installation) -> None:
    one = find(opened, unit="h1/icu")[0]
    own = certificates.c.leaf_index == one.row.leaf_index
    with opened.database.writing() as connection:
        connection.execute(certificates.update().where(own).values(device_id="no id"))
    with pytest.raises(VagusError, match="no id"):
        opened.operations.certificates.show(EVE, one.id)


def test_a_revoked_certificate_says_why_when_and_by_whom(stocked: Path, opened: Installation) -> None:
    pump = find_named(opened.database, PUMP)
    opened.writer.submit(
        lambda batch: revoke_device(batch, str(pump.id), RevocationReason.KEY_COMPROMISE, by=EVE.id)
    ).result()
    found = opened.operations.certificates.show(EVE, find(opened, device=PUMP)[0].id)
    revoked = found.revocation
    assert revoked is not None
    assert (revoked.reason, revoked.by, found.certificate.state) == ("keyCompromise", EVE.id, "revoked")
    assert abs(revoked.at - opened.clock.now().timestamp()) < 60
    assert revoked.ledger_entry is not None
    (entry,) = opened.operations.audit.read_entries(EVE, start=revoked.ledger_entry, limit=1).entries
    assert (entry.kind, entry.facts["serial"]) == ("revocation", found.certificate.row.serial)
    assert found.device == pump
    assert found.days_left == (found.certificate.row.not_after - int(opened.clock.now().timestamp())) // 86400
    good = opened.operations.certificates.show(EVE, find(opened, device="Aorta IP3:AIP3-000002")[0].id)
    assert good.revocation is None


def test_every_name_of_a_certificate_shows_it(stocked: Path, opened: Installation) -> None:
    acts, one = opened.operations.certificates, find(opened, device="Aorta IP3:AIP3-000002")[0]
    serial, digest = f"{one.row.serial:x}", (one.row.fingerprint or b"").hex()
    pairs = ":".join(f"{byte:02X}" for byte in one.row.serial.to_bytes(20, "big"))
    given = [one.id, serial, serial.upper(), pairs, str(one.row.serial), f"0x{serial}", digest]
    given += [f"{one.issuer}:{each}" for each in (serial, pairs, f"0x{serial}", f"0X{serial.upper()}")]
    for name in (*given, digest[:16]):
        assert acts.show(EVE, name).certificate == one
    for name in ("leaf-999999", "4a01", "authority-1", "pump", f"{one.issuer}:4a01"):
        with pytest.raises(Malformed, match="names no certificate here"):
            acts.show(EVE, name)
    with pytest.raises(Malformed, match="no serial after the colon"):
        acts.show(EVE, f"{one.issuer}:")
    with pytest.raises(LimitExceeded, match="1,048,576 characters"):
        acts.show(EVE, "4" * 1_048_576)


def test_a_chain_leads_to_the_root(stocked: Path, opened: Installation) -> None:
    acts, one = opened.operations.certificates, find(opened, device="Aorta IP3:AIP3-000002")[0]
    files = acts.export(EVE, one.id)
    path = [x509.load_der_x509_certificate(der) for der in (files.leaf, *files.above, *files.root)]
    assert hashlib.sha256(files.leaf).digest() == one.row.fingerprint
    assert len(path) == 4
    for lower, upper in pairwise(path):
        lower.verify_directly_issued_by(upper)
    assert path[-1].issuer == path[-1].subject
    assert len(pkcs7.load_der_pkcs7_certificates(encode_certs_only([files.leaf, *files.above, *files.root]))) == 4
    (root,) = (each for each in find(opened, issuer="root") if each.row.owner == "authority:root#1")
    alone = acts.export(EVE, root.id)
    assert (alone.above, alone.root) == ((), ())
    assert x509.load_der_x509_certificate(alone.leaf) == path[-1]


def test_a_certificate_without_bytes_is_not_exported(stocked: Path, opened: Installation) -> None:
    one = find(opened, device="Aorta IP3:AIP3-000002")[0]
    from vagus.records.engine.tables import certificate_bytes

    with opened.database.writing() as connection:
        own = certificate_bytes.c.leaf_index == one.row.leaf_index
        connection.execute(certificate_bytes.update().where(own).values(certificate_der=None))
    with pytest.raises(Conflict, match="are not here"):
        opened.operations.certificates.export(EVE, one.id)
    with opened.database.writing() as connection:
        own = certificates.c.leaf_index == one.row.leaf_index
        connection.execute(certificates.update().where(own).values(state="intended"))
    with pytest.raises(Unavailable, match="not signed yet"):
        opened.operations.certificates.export(EVE, one.id)
