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
from vagus.records.authorities import list_authorities
from vagus.records.publications import COMPLETE, Publication, find_publication, outdate_crl, put_publication
from vagus.x509.crls.building import RevocationReason
from vagus.x509.crls.decoding import decode_crl

COMPROMISE = RevocationReason.KEY_COMPROMISE


class Server:
    """A server that publishes the CRLs of h1/icu in a folder of its own."""

    def __init__(self, built: Installation, folder: Path, name: str = "one") -> None:
        self.built, self.folder = built, folder
        parts = (built.pack, built.database, built.writer, built.clock)
        self.publisher = CrlPublisher(*parts, folder=folder, holder=name)

    @property
    def files(self) -> CrlFiles:
        assert self.publisher.files is not None
        return self.publisher.files

    def path(self, name: str = "0.crl") -> Path:
        return crl_path(self.folder, name)

    def place(self, shard: int = 0) -> CrlPlace:
        return CrlPlace(self.built.icu.authority_id, "h1.icu", 1, shard)

    def listed(self, name: str = "0.crl") -> set[int]:
        return serials_of(crl_at(self.folder, name))

    def publish_due(self) -> tuple[Publication, ...]:
        return self.publisher.publish_due(self.built.icu)

    def publish_revocation(self, count: int = 1) -> set[int]:
        """Revoke new certificates and publish a second later; their serials."""
        many = [self.built.issue() for _ in range(count)]
        for one in many:
            self.built.revoke(one, COMPROMISE)
        self.built.advance(seconds=1)
        self.publish_due()
        return {one.serial for one in many}

    def write_outdated(self) -> None:
        for outdated in self.files.find_outdated():
            self.files.write(outdated)


@pytest.fixture
def server(built: Installation, tmp_path: Path) -> Server:
    """It has published its first CRLs."""
    made = Server(built, tmp_path)
    made.publish_due()
    return made


def newest(built: Installation, issuer: Issuer, shard: int = 0) -> Publication:
    return built.find(find_publication, issuer.authority_id, shard)


def keep(built: Installation, publication: Publication) -> None:
    with built.database.writing() as connection:
        put_publication(connection, publication)


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
    slow, fast = (Server(built, tmp_path, name) for name in ("slow", "fast"))
    first, second = built.issue(), built.issue()
    built.revoke(first, COMPROMISE)
    older = slow.publisher.publish(built.icu, 0)
    assert older is not None
    built.advance(seconds=11)
    built.revoke(second, COMPROMISE)
    assert fast.publisher.publish(built.icu, 0) is not None
    slow.files.write(slow.place(), older, None)  # what it had signed before it was held up
    assert slow.listed() == {first.serial, second.serial}
    assert slow.path("0.delta.crl").exists()


def test_a_server_with_a_folder_of_its_own_writes_what_another_one_signed(built: Installation, tmp_path: Path) -> None:
    signs, reads = Server(built, tmp_path / "one"), Server(built, tmp_path / "two", "two")
    signs.publish_due()
    serials = signs.publish_revocation()
    assert reads.publish_due() == ()
    reads.write_outdated()
    for name in ("0.crl", "0.delta.crl", "complete.crl"):
        assert reads.listed(name) == serials
    assert {place.slug for place in CrlFiles(built.database, tmp_path).find_outdated()} == {"root", "h1", "h1.icu"}
    assert reads.files.find_outdated() == ()


def test_a_crl_that_the_disk_had_no_room_for_is_written_once_it_has(server: Server) -> None:
    issued = server.built.issue()
    server.built.revoke(issued, COMPROMISE)
    server.built.advance(seconds=1)

    with full_disk(), pytest.raises(OSError, match="No space left"):
        server.publish_due()
    server.built.advance(seconds=1)
    assert server.publish_due() == (), "the rows are up to date"
    files = server.files
    behind = [place for place in files.find_outdated() if place.slug == "h1.icu"]
    assert sorted(place.shard for place in behind) == [COMPLETE, 0]
    server.write_outdated()
    assert server.listed() == server.listed("complete.crl") == {issued.serial}


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


def certificates_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("ca/*/*"))}


def test_the_certificate_of_each_authority_is_where_caissuers_leads(server: Server) -> None:
    """RFC 5280 4.2.2.1: one certificate in DER, at the path of the URL."""
    server.files.write_certificates()
    found = certificates_in(server.folder)
    issuer = server.built.icu
    assert found["ca/h1.icu/1.cer"] == issuer.certificate_der
    assert issuer.certificate_url.endswith("/ca/h1.icu/1.cer")
    certified = {row.slug for row in server.built.find(list_authorities) if row.certificate_der is not None}
    assert set(found) == {f"ca/{slug}/1.cer" for slug in certified}


def test_a_certificate_file_that_is_gone_or_was_changed_is_written_again_and_others_are_left(server: Server) -> None:
    server.files.write_certificates()
    before = certificates_in(server.folder)
    stamps = {path: path.stat().st_ino for path in server.folder.glob("ca/*/*")}
    gone, changed = server.folder / "ca/h1/1.cer", server.folder / "ca/root/1.cer"
    gone.unlink()
    changed.write_bytes(b"something else")
    server.files.write_certificates()
    assert certificates_in(server.folder) == before
    others = {path: inode for path, inode in stamps.items() if path not in {gone, changed}}
    assert others == {path: path.stat().st_ino for path in others}


def test_certificates_that_are_current_need_no_lock_of_the_folder(server: Server) -> None:
    server.files.write_certificates()
    with (server.folder / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.files.write_certificates()
        (server.folder / "ca/h1/1.cer").unlink()
        with refuses(Reason.STATUS_UNAVAILABLE, Unavailable):
            server.files.write_certificates()


def test_everything_published_may_be_read_by_a_web_server_whatever_the_umask_is(
    built: Installation, tmp_path: Path
) -> None:
    (tmp_path / "public").mkdir()
    before = os.umask(0o077)
    try:
        server = Server(built, tmp_path / "public")
        server.publish_due()
        server.publish_revocation()
        server.files.write_certificates()
    finally:
        os.umask(before)
    found = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "public").rglob("*")}
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o755}
    assert {mode for path, mode in found.items() if path.suffix in {".crl", ".cer"}} == {0o644}


def test_a_file_that_was_removed_is_written_again(server: Server) -> None:
    server.path().unlink()
    files = server.files
    assert server.place() in files.find_outdated()
    files.write(server.place())
    assert server.listed() == set()


@pytest.mark.parametrize("what", ["gone", "cut off"])
def test_a_damaged_delta_file_is_written_again(server: Server, what: str) -> None:
    server.publish_revocation()
    delta = server.path("0.delta.crl")
    before = delta.read_bytes()
    files = server.files
    server.write_outdated()  # those that a ceremony signed
    if what == "gone":
        delta.unlink()
    else:
        delta.write_bytes(before[:100])
    assert files.find_outdated() == (server.place(),)
    files.write(server.place())
    assert delta.read_bytes() == before
    assert files.find_outdated() == ()


def test_an_older_file_that_was_put_back_is_replaced_by_the_newest(server: Server) -> None:
    place = server.path()
    for _ in range(40):  # until a signature has the length of the one before
        before = place.read_bytes()
        server.built.advance(hours=7)
        server.publish_due()
        newer = place.read_bytes()
        if len(newer) == len(before):
            break
    files = server.files
    server.write_outdated()
    place.write_bytes(before)
    behind = files.find_outdated()
    assert [one.shard for one in behind] == [0]
    files.write(behind[0])
    assert place.read_bytes() == newer
    assert files.find_outdated() == ()


def test_no_older_crl_replaces_a_newer_file_of_the_same_authority(server: Server) -> None:
    standby = newest(server.built, server.built.icu)
    serials = server.publish_revocation()
    keep(server.built, standby)  # the table as an older copy of it has it
    files = server.files
    assert server.place() not in files.find_outdated()
    for fresh in (files, CrlFiles(server.built.database, server.folder)):  # of this process, and of one that begins now
        assert fresh.find_newer() == (server.place(),)
        with refuses(Reason.RESTORE_UNSETTLED, Conflict):
            fresh.write(server.place())
        assert server.listed() == serials


def test_a_crl_that_a_restore_outdated_is_no_file_before_it_is_signed_anew(server: Server) -> None:
    number = newest(server.built, server.built.icu).number
    server.built.writer.submit(
        lambda batch: outdate_crl(batch.connection, server.built.icu.authority_id, 0, number)
    ).result()
    files = CrlFiles(server.built.database, server.folder / "new")
    assert server.place() not in files.find_outdated()
    assert CrlFiles(server.built.database, server.folder).find_newer() == ()
    server.built.advance(seconds=1)
    assert 0 in [one.shard for one in server.publish_due()]
    assert server.place() in files.find_outdated()


def test_a_shard_that_the_table_does_not_know_is_newer(server: Server) -> None:
    server.path("7.crl").write_bytes(server.path().read_bytes())
    assert server.files.find_newer() == (server.place(7),)
    assert server.files.load(server.place(8), server.built.icu.certificate_der) is None


@pytest.mark.parametrize("stranger", ["h1.er", "h9.icu", "no list"])
def test_files_that_another_process_signed_delay_no_one(server: Server, stranger: str) -> None:
    """Of another installation, or copied where they do not belong: they are no evidence, and make room."""
    files, place = server.files, server.path()
    own = place.read_bytes()
    server.built.advance(seconds=1)
    if stranger == "h1.er":
        server.publisher.publish_due(server.built.issuers("h1/er")["h1/er"])
        place.write_bytes(crl_path(server.folder, slug="h1.er").read_bytes())
        assert read_number(place.read_bytes()) > read_number(own)
    elif stranger == "h9.icu":
        write_public(crl_path(server.folder, slug="h9.icu"), own)
    else:
        place.write_bytes(b"0" * 90)
    assert files.find_newer() == ()
    files.write(server.place())
    assert place.read_bytes() == own
    assert CrlFiles(server.built.database, server.folder / "none").find_newer() == ()


def test_the_number_of_a_crl_is_read_without_its_entries(server: Server) -> None:
    for _ in range(2):
        for name in ("0.crl", "complete.crl"):
            content = server.path(name).read_bytes()
            assert read_number(content) == decode_crl(content).number
        server.publish_revocation()
    with refuses(Reason.NON_DER, Malformed):
        read_number(content[:-1])


def test_a_delta_without_a_row_is_no_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "MOST_CHANGES", 2)
    server.publish_revocation()
    assert server.path("0.delta.crl").exists()
    server.publish_revocation(3)
    assert not server.path("0.delta.crl").exists(), "an old delta over an older CRL would have one of four"
    assert len(server.listed()) == 4


def test_a_process_that_hangs_in_the_folder_is_reported_and_prevents_no_signing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crl_files, "_LOCK_SECONDS", 0.0)
    server.built.revoke(server.built.issue(), COMPROMISE)
    server.built.advance(seconds=1)
    hung = os.open(server.folder / ".lock", os.O_RDWR)
    try:
        fcntl.flock(hung, fcntl.LOCK_EX)
        with refuses(Reason.STATUS_UNAVAILABLE, Unavailable):
            server.publish_due()
    finally:
        os.close(hung)
    assert server.publisher.find_due(server.built.icu, server.built.clock.now()) == ()
