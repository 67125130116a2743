"""Files follow the table: after a full disk, beside other servers, and never back."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tests.authority.crls.reading import crl_at, crl_path, full_disk, serials_of
from tests.simulator.installation import Installation
from tests.simulator.refusals import refuses
from vagus.authority.crls import deltas
from vagus.authority.crls import files as crl_files
from vagus.authority.crls.files import CrlFiles, CrlPlace, read_number, write_public
from vagus.authority.crls.publisher import CrlPublisher
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict, Malformed, Unavailable
from vagus.reasons import Reason
from vagus.records.publications import COMPLETE, Publication, find_publication, outdate_crl, put_publication
from vagus.x509.crls.building import RevocationReason
from vagus.x509.crls.decoding import decode_crl

COMPROMISE = RevocationReason.KEY_COMPROMISE


def server(built: Installation, name: str, folder: Path) -> CrlPublisher:
    return CrlPublisher(built.pack, built.database, built.writer, built.clock, folder=folder, holder=name)


def files_of(publisher: CrlPublisher) -> CrlFiles:
    assert publisher.files is not None
    return publisher.files


def listed(folder: Path, name: str = "0.crl") -> set[int]:
    return serials_of(crl_at(folder, name))


@pytest.fixture
def publisher(built: Installation, tmp_path: Path) -> CrlPublisher:
    """A server that has published its first CRLs of h1/icu in a folder of its own."""
    made = server(built, "one", tmp_path)
    made.publish_due(built.icu)
    return made


def publish_revocation(built: Installation, publisher: CrlPublisher, count: int = 1) -> set[int]:
    """Revoke new certificates and publish a second later; their serials."""
    many = [built.issue() for _ in range(count)]
    for one in many:
        built.revoke(one, COMPROMISE)
    built.advance(seconds=1)
    publisher.publish_due(built.icu)
    return {one.serial for one in many}


def write_outdated(files: CrlFiles) -> None:
    for outdated in files.find_outdated():
        files.write(outdated)


def newest(built: Installation, issuer: Issuer, shard: int = 0) -> Publication:
    return built.find(find_publication, issuer.authority_id, shard)


def keep(built: Installation, publication: Publication) -> None:
    with built.database.writing() as connection:
        put_publication(connection, publication)


def place_of(issuer: Issuer, shard: int) -> CrlPlace:
    return CrlPlace(issuer.authority_id, "h1.icu", 1, shard)


def test_a_file_that_says_so_already_is_left_and_any_other_is_replaced(built: Installation) -> None:
    place = built.folder / "public" / "list"
    content = bytes(range(256)) * 8_200  # more than two pieces of a comparison
    write_public(place, content)
    before = place.stat().st_ino
    write_public(place, content)
    assert place.stat().st_ino == before
    for other in (content[:-1] + b"x", content[:-1], content + b"x", b""):
        write_public(place, other)
        assert place.read_bytes() == other


def test_a_delayed_process_writes_no_older_crl_over_a_newer_one(built: Installation, tmp_path: Path) -> None:
    slow, fast = (server(built, name, tmp_path) for name in ("slow", "fast"))
    first, second = built.issue(), built.issue()
    built.revoke(first, COMPROMISE)
    older = slow.publish(built.icu, 0)
    assert older is not None
    built.advance(seconds=11)
    built.revoke(second, COMPROMISE)
    assert fast.publish(built.icu, 0) is not None
    files_of(slow).write(place_of(built.icu, 0), older, None)  # what it had signed before it was held up
    assert listed(tmp_path) == {first.serial, second.serial}
    assert crl_path(tmp_path, "0.delta.crl").exists()


def test_a_server_with_a_folder_of_its_own_writes_what_another_one_signed(built: Installation, tmp_path: Path) -> None:
    signs, reads = server(built, "one", tmp_path / "one"), server(built, "two", tmp_path / "two")
    signs.publish_due(built.icu)
    serials = publish_revocation(built, signs)
    assert reads.publish_due(built.icu) == ()
    files = files_of(reads)
    write_outdated(files)
    for name in ("0.crl", "0.delta.crl", "complete.crl"):
        assert listed(tmp_path / "two", name) == serials
    assert {place.slug for place in CrlFiles(built.database, tmp_path).find_outdated()} == {"root", "h1", "h1.icu"}
    assert files.find_outdated() == ()


def test_a_crl_that_the_disk_had_no_room_for_is_written_once_it_has(
    built: Installation, publisher: CrlPublisher, tmp_path: Path
) -> None:
    issued = built.issue()
    built.revoke(issued, COMPROMISE)
    built.advance(seconds=1)

    with full_disk(), pytest.raises(OSError, match="No space left"):
        publisher.publish_due(built.icu)
    built.advance(seconds=1)
    assert publisher.publish_due(built.icu) == (), "the rows are up to date"
    files = files_of(publisher)
    behind = [place for place in files.find_outdated() if place.slug == "h1.icu"]
    assert sorted(place.shard for place in behind) == [COMPLETE, 0]
    write_outdated(files)
    assert listed(tmp_path) == listed(tmp_path, "complete.crl") == {issued.serial}


def test_what_a_full_disk_cut_off_takes_no_room_and_what_a_killed_process_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "0.crl"
    write_public(place, b"old")

    with full_disk() as patched:
        with pytest.raises(OSError, match="No space left"):
            write_public(place, b"newer")
        assert [one.name for one in tmp_path.iterdir()] == ["0.crl"]
        patched.setattr(Path, "unlink", lambda *_, **__: None)  # as if it were killed there
        with pytest.raises(OSError, match="No space left"):
            write_public(place, b"newer")
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(os, "getpid", lambda: 1)  # another process
    write_public(place, b"newer")
    assert [one.name for one in tmp_path.iterdir()] == ["0.crl"]
    assert place.read_bytes() == b"newer"


def test_a_file_that_was_removed_is_written_again(built: Installation, publisher: CrlPublisher, tmp_path: Path) -> None:
    crl_path(tmp_path).unlink()
    files = files_of(publisher)
    assert place_of(built.icu, 0) in files.find_outdated()
    files.write(place_of(built.icu, 0))
    assert listed(tmp_path) == set()


@pytest.mark.parametrize("what", ["gone", "cut off"])
def test_a_damaged_delta_file_is_written_again(
    built: Installation, publisher: CrlPublisher, tmp_path: Path, what: str
) -> None:
    publish_revocation(built, publisher)
    delta = crl_path(tmp_path, "0.delta.crl")
    before = delta.read_bytes()
    files = files_of(publisher)
    write_outdated(files)  # those that a ceremony signed
    if what == "gone":
        delta.unlink()
    else:
        delta.write_bytes(before[:100])
    assert files.find_outdated() == (place_of(built.icu, 0),)
    files.write(place_of(built.icu, 0))
    assert delta.read_bytes() == before
    assert files.find_outdated() == ()


def test_an_older_file_that_was_put_back_is_replaced_by_the_newest(
    built: Installation, publisher: CrlPublisher, tmp_path: Path
) -> None:
    place = crl_path(tmp_path)
    for _ in range(40):  # until a signature has the length of the one before
        before = place.read_bytes()
        built.advance(hours=7)
        publisher.publish_due(built.icu)
        newer = place.read_bytes()
        if len(newer) == len(before):
            break
    files = files_of(publisher)
    write_outdated(files)
    place.write_bytes(before)
    behind = files.find_outdated()
    assert [one.shard for one in behind] == [0]
    files.write(behind[0])
    assert place.read_bytes() == newer
    assert files.find_outdated() == ()


def test_no_older_crl_replaces_a_newer_file_of_the_same_authority(
    built: Installation, publisher: CrlPublisher, tmp_path: Path
) -> None:
    standby = newest(built, built.icu)
    serials = publish_revocation(built, publisher)
    keep(built, standby)  # the table as an older copy of it has it
    files = files_of(publisher)
    assert place_of(built.icu, 0) not in files.find_outdated()
    for fresh in (files, CrlFiles(built.database, tmp_path)):  # of this process, and of one that begins now
        assert fresh.find_newer() == (place_of(built.icu, 0),)
        with refuses(Reason.RESTORE_UNSETTLED, Conflict):
            fresh.write(place_of(built.icu, 0))
        assert listed(tmp_path) == serials


def test_a_crl_that_a_restore_outdated_is_no_file_before_it_is_signed_anew(
    built: Installation, publisher: CrlPublisher, tmp_path: Path
) -> None:
    number = newest(built, built.icu).number
    built.writer.submit(lambda batch: outdate_crl(batch.connection, built.icu.authority_id, 0, number)).result()
    files = CrlFiles(built.database, tmp_path / "new")
    assert place_of(built.icu, 0) not in files.find_outdated()
    assert CrlFiles(built.database, tmp_path).find_newer() == ()
    built.advance(seconds=1)
    assert 0 in [one.shard for one in publisher.publish_due(built.icu)]
    assert place_of(built.icu, 0) in files.find_outdated()


def test_a_shard_that_the_table_does_not_know_is_newer(
    built: Installation, publisher: CrlPublisher, tmp_path: Path
) -> None:
    crl_path(tmp_path, "7.crl").write_bytes(crl_path(tmp_path).read_bytes())
    assert files_of(publisher).find_newer() == (place_of(built.icu, 7),)
    assert files_of(publisher).load(place_of(built.icu, 8), built.icu.certificate_der) is None


@pytest.mark.parametrize("stranger", ["h1.er", "h9.icu", "no list"])
def test_files_that_another_process_signed_delay_no_one(
    built: Installation, publisher: CrlPublisher, tmp_path: Path, stranger: str
) -> None:
    """Of another installation, or copied where they do not belong: they are no evidence, and make room."""
    files, place = files_of(publisher), crl_path(tmp_path)
    own = place.read_bytes()
    built.advance(seconds=1)
    if stranger == "h1.er":
        publisher.publish_due(built.issuers("h1/er")["h1/er"])
        place.write_bytes(crl_path(tmp_path, slug="h1.er").read_bytes())
        assert read_number(place.read_bytes()) > read_number(own)
    elif stranger == "h9.icu":
        write_public(crl_path(tmp_path, slug="h9.icu"), own)
    else:
        place.write_bytes(b"0" * 90)
    assert files.find_newer() == ()
    files.write(place_of(built.icu, 0))
    assert place.read_bytes() == own
    assert CrlFiles(built.database, tmp_path / "none").find_newer() == ()


def test_the_number_of_a_crl_is_read_without_its_entries(built: Installation, tmp_path: Path) -> None:
    publisher = server(built, "one", tmp_path)
    for _ in range(2):
        publisher.publish_due(built.icu)
        for name in ("0.crl", "complete.crl"):
            content = crl_path(tmp_path, name).read_bytes()
            assert read_number(content) == decode_crl(content).number
        built.revoke(built.issue(), COMPROMISE)
        built.advance(seconds=1)
    with refuses(Reason.NON_DER, Malformed):
        read_number(content[:-1])


def test_a_delta_without_a_row_is_no_file(
    built: Installation, publisher: CrlPublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "MOST_CHANGES", 2)
    publish_revocation(built, publisher)
    assert crl_path(tmp_path, "0.delta.crl").exists()
    publish_revocation(built, publisher, 3)
    assert not crl_path(tmp_path, "0.delta.crl").exists(), "an old delta over an older CRL would have one of four"
    assert len(listed(tmp_path)) == 4


def test_a_process_that_hangs_in_the_folder_is_reported_and_prevents_no_signing(
    built: Installation, publisher: CrlPublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crl_files, "_LOCK_SECONDS", 0.0)
    built.revoke(built.issue(), COMPROMISE)
    built.advance(seconds=1)
    hung = os.open(tmp_path / ".lock", os.O_RDWR)
    try:
        fcntl.flock(hung, fcntl.LOCK_EX)
        with refuses(Reason.STATUS_UNAVAILABLE, Unavailable):
            publisher.publish_due(built.icu)
    finally:
        os.close(hung)
    assert publisher.find_due(built.icu, built.clock.now()) == ()
