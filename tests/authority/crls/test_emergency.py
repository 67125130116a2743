"""A sealed CRL revokes a subordinate without the offline key, once, and only while it is the newest."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.authority.crls.reading import crl_at, full_disk, number_of, serials_of
from tests.simulator.installation import BY, ICU, SECRET, Installation
from tests.simulator.refusals import refuses
from vagus.authority.crls.emergency import is_ready, publish_sealed
from vagus.authority.crls.publisher import forget_future_dates
from vagus.errors import Conflict, IntegrityFailure, NotAuthorised, Unavailable, VagusError
from vagus.keystore.envelopes import EnvelopeSealer, open_envelope, read_label
from vagus.keystore.passphrases import Passphrase
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records.publications import list_facts
from vagus.testing import SeededEntropy


@pytest.fixture
def sealed(installation: Installation) -> Installation:
    installation.build(sealed=True)
    return installation


def envelope(sealed: Installation, above: str, below: str) -> Path:
    return sealed.folder / "keystores" / above / "emergency" / f"{below}.1.sealed"


def current(sealed: Installation, name: str = "0.crl") -> x509.CertificateRevocationList:
    """The newest CRL of h1."""
    return crl_at(sealed.folder / "published", name, "h1")


def publish(sealed: Installation, place: Path) -> tuple[str, ...]:
    folder = sealed.folder / "published"
    return publish_sealed(place.read_bytes(), SECRET, sealed.writer, folder=folder, by=BY)


def is_ready_now(sealed: Installation, content: bytes, **later: float) -> bool:
    """Whether an envelope of h1 can be published, so much later."""
    with sealed.database.reading() as connection:
        row = rows.find_generation(connection, "h1", 1)
        assert row is not None
        return is_ready(content, list_facts(connection, row.id), sealed.clock.now() + timedelta(**later))


def test_each_subordinate_of_each_offline_authority_has_one(sealed: Installation) -> None:
    found = {(place.parent.parent.name, place.name) for place in sealed.folder.rglob("*.sealed")}
    below = {"root": ("h1", "h1.sdc", "h1.infra"), "h1": ("h1.icu", "h1.er")}
    assert found == {(above, f"{name}.1.sealed") for above, names in below.items() for name in names}
    for place in sealed.folder.rglob("*.sealed"):
        assert place.stat().st_mode & 0o777 == 0o600
    label = read_label(envelope(sealed, "h1", "h1.icu").read_bytes())
    assert (label["issuer"], label["revokes"]) == ("h1#1", "h1/icu#1")


def test_the_label_of_an_envelope_shows_whether_it_can_be_published(sealed: Installation) -> None:
    place = envelope(sealed, "h1", "h1.er")
    content, now = place.read_bytes(), sealed.clock.now
    assert is_ready_now(sealed, content)
    assert not is_ready_now(sealed, content, days=181), "it has expired"
    assert not is_ready_now(sealed, content[:-20]), "it is damaged"
    sealed.advance(days=30)
    publish(sealed, envelope(sealed, "h1", "h1.icu"))
    os.utime(place, (now().timestamp(), now().timestamp()))  # as a copy or a restored backup leaves it
    assert not is_ready_now(sealed, content)
    with refuses(Reason.CEREMONY_NEEDED, Conflict):
        publish(sealed, place)
    sealed.ceremony().hold()


def test_it_revokes_the_subordinate_without_any_key(sealed: Installation) -> None:
    issuers = sealed.issuers("h1/icu")
    before = current(sealed)
    sealed.opened.clear()
    sealed.advance(days=30)
    assert publish(sealed, envelope(sealed, "h1", "h1.icu")) == ("h1/icu#1", "h1#1/0", "h1#1/-1")
    assert sealed.opened == []
    icu = x509.load_der_x509_certificate(issuers["h1/icu"].certificate_der)
    for name in ("0.crl", "complete.crl"):
        after = current(sealed, name)
        entry = after.get_revoked_certificate_by_serial_number(icu.serial_number)
        assert entry is not None
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        assert reason is x509.ReasonFlags.ca_compromise
    after = current(sealed)
    h1 = x509.load_der_x509_certificate(issuers["h1/icu"].chain_der[0])
    key = h1.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert after.is_signature_valid(key)
    assert number_of(after) > number_of(before)
    assert after.last_update_utc > before.last_update_utc
    assert after.last_update_utc <= sealed.clock.now()
    assert sealed.find(rows.find_newest, "h1/icu", state=None).state == rows.REVOKED
    with refuses(Reason.AUTHORITY_IN_USE, Conflict):
        sealed.issue(issuers)


def test_one_that_was_interrupted_after_its_commit_is_repeated(sealed: Installation) -> None:
    place, before = envelope(sealed, "h1", "h1.icu"), current(sealed)
    with full_disk(), pytest.raises(OSError, match="No space left"):
        publish(sealed, place)
    assert current(sealed) == before
    log = sealed.entries(object)
    assert publish(sealed, place) == ("h1/icu#1", "h1#1/0", "h1#1/-1")
    assert len(current(sealed)) == 1
    assert sealed.entries(object) == log, "nothing was new"


def test_after_one_was_published_the_others_wait_for_a_ceremony(sealed: Installation) -> None:
    publish(sealed, envelope(sealed, "h1", "h1.icu"))
    with refuses(Reason.CEREMONY_NEEDED, Conflict):
        publish(sealed, envelope(sealed, "h1", "h1.er"))
    icu_serial = next(iter(current(sealed))).serial_number
    sealed.advance(minutes=5)
    sealed.ceremony(sealed=True).hold()
    publish(sealed, envelope(sealed, "h1", "h1.er"))
    serials = serials_of(current(sealed))
    assert len(serials) == 2
    assert icu_serial in serials, "the new envelope knows of the first"


def test_an_envelope_of_yesterdays_ceremony_replaces_nothing_newer(sealed: Installation) -> None:
    old = envelope(sealed, "root", "h1").read_bytes()
    sealed.advance(days=1)
    sealed.ceremony(sealed=True).hold()
    with refuses(Reason.CEREMONY_NEEDED, Conflict):
        publish_sealed(old, SECRET, sealed.writer, folder=None, by=BY)


def test_an_expired_envelope_is_refused(sealed: Installation) -> None:
    sealed.advance(days=181)
    with refuses(Reason.STATUS_STALE, IntegrityFailure):
        publish(sealed, envelope(sealed, "h1", "h1.icu"))


def test_an_envelope_from_the_future_is_neither_ready_nor_published(installation: Installation) -> None:
    """The ceremony was held with a clock 30 days ahead: relying parties refuse such a CRL, and none could follow it."""
    installation.advance(days=30)
    installation.build(sealed=True)
    installation.advance(days=-30)
    forget_future_dates(installation.writer, by=BY)
    place = envelope(installation, "h1", "h1.icu")
    assert not is_ready_now(installation, place.read_bytes())
    with refuses(Reason.CLOCK_AHEAD, Unavailable):
        publish(installation, place)
    assert installation.read(rows.find_newest, "h1/icu") is not None, "nothing is revoked"
    installation.ceremony(sealed=True).hold()
    assert is_ready_now(installation, place.read_bytes())
    publish(installation, place)


def test_each_generation_whose_certificate_counts_has_one_and_no_other(sealed: Installation) -> None:
    """A key that was replaced at half its life is as good as before, and can be stolen."""
    first = sealed.find(rows.find_generation, "h1/icu", 1)
    assert first.not_after is not None
    sealed.advance(days=1000)
    sealed.hierarchy.request(ICU, by=BY, is_rekey=True)
    sealed.ceremony(sealed=True).hold()
    sealed.hierarchy.retire("h1/icu", 1, by=BY)
    sealed.advance(days=1)
    found = {place.name for place in sealed.ceremony(sealed=True).hold().sealed}
    assert {"h1.icu.1.sealed", "h1.icu.2.sealed"} <= found
    before = envelope(sealed, "h1", "h1.icu").read_bytes()
    sealed.clock.advance(seconds=first.not_after + 86_400 - sealed.clock.now().timestamp())
    found = {place.name for place in sealed.ceremony(sealed=True).hold().sealed}
    assert "h1.icu.2.sealed" in found
    assert "h1.icu.1.sealed" not in found, "it has ended"
    assert envelope(sealed, "h1", "h1.icu").read_bytes() == before


def test_a_retired_generation_is_revoked_without_any_key(sealed: Installation) -> None:
    sealed.hierarchy.request(ICU, by=BY, is_rekey=True)
    sealed.advance(days=1)
    sealed.ceremony(sealed=True).hold()
    sealed.hierarchy.retire("h1/icu", 1, by=BY)
    assert publish(sealed, envelope(sealed, "h1", "h1.icu"))[0] == "h1/icu#1"
    generations = [row for row in sealed.read(rows.list_authorities) if row.name == "h1/icu"]
    assert [(row.generation, row.state) for row in generations] == [(1, rows.REVOKED), (2, rows.ACTIVE)]


def test_envelopes_open_for_their_passphrase_and_unaltered_alone(sealed: Installation) -> None:
    content = envelope(sealed, "h1", "h1.icu").read_bytes()
    with refuses(Reason.PASSPHRASE_WRONG, NotAuthorised):
        publish_sealed(content, Passphrase("staple correct horse"), sealed.writer, folder=None, by=BY)
    doctored = json.loads(content)
    doctored["header"]["label"]["revokes"] = "h1/er#1"
    for broken in (json.dumps(doctored).encode(), content[:-40], b"", b"[]", b"{}", content.replace(b"scrypt", b"s")):
        with pytest.raises(VagusError) as failure:
            publish_sealed(broken, SECRET, sealed.writer, folder=None, by=BY)
        assert failure.value.reason in {Reason.KEYSTORE_DAMAGED, Reason.PASSPHRASE_WRONG}


def test_an_envelope_of_another_installation_is_refused(sealed: Installation) -> None:
    sealer = EnvelopeSealer(SECRET, entropy=SeededEntropy(5), unsafe_fast=True)
    label: dict[str, str | int] = {"issuer": "h9#1", "revokes": "h9/icu#1"}
    content = sealer.seal(label, b"[]")
    assert open_envelope(content, SECRET) == (label, b"[]")
    with refuses(Reason.AUTHORITY_UNKNOWN, Conflict):
        publish_sealed(content, SECRET, sealed.writer, folder=None, by=BY)
