"""Archives: what was measured is what is packed, or there is no archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from vagus.errors import Unavailable
from vagus.maintenance import archive
from vagus.reasons import Reason


@pytest.mark.parametrize("later", [b"", b"short", b"other words", b"words and then more"])
def test_a_file_that_changes_makes_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bytes) -> None:
    """A manifest of what the file held before would be found out at the restore, when the original is gone."""
    file, target = tmp_path / "list.crl", tmp_path / "backup.tar"
    file.write_bytes(b"first words")
    measured = archive._encode

    def written_meanwhile(manifest: archive.Manifest) -> bytes:
        file.write_bytes(later)
        return measured(manifest)

    monkeypatch.setattr(archive, "_encode", written_meanwhile)
    with pytest.raises(Unavailable) as refused:
        archive.pack(target, [("list.crl", file)], {})
    assert refused.value.reason is Reason.DATABASE_UNAVAILABLE
    assert "list.crl was written while the backup was taken" in refused.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["list.crl"]


def test_a_file_that_rests_is_packed_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "list.crl").write_bytes(b"words" * 100_000)
    (tmp_path / "empty").write_bytes(b"")
    archive.pack(tmp_path / "a.tar", [("makers/list.crl", tmp_path / "list.crl"), ("empty", tmp_path / "empty")], {})
    archive.unpack(tmp_path / "a.tar", tmp_path / "back")
    assert (tmp_path / "back" / "makers" / "list.crl").read_bytes() == b"words" * 100_000
    assert (tmp_path / "back" / "empty").read_bytes() == b""


def test_of_a_file_that_grows_what_it_held_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "day.jsonl"
    file.write_bytes(b"first\nsecond\nunfin")
    measured = archive._encode

    def written_meanwhile(manifest: archive.Manifest) -> bytes:
        with file.open("ab") as stream:
            stream.write(b"ished\n" + b"more\n" * 1_000_000)
        return measured(manifest)

    monkeypatch.setattr(archive, "_encode", written_meanwhile)
    archive.pack(tmp_path / "a.tar", [("gates/day.jsonl", file)], {}, sizes={"gates/day.jsonl": 13})
    archive.unpack(tmp_path / "a.tar", tmp_path / "back")
    assert (tmp_path / "back" / "gates" / "day.jsonl").read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize("later", [b"", b"first\n", b"other\nsecond\n"])
def test_a_file_that_was_to_grow_and_changed_makes_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bytes
) -> None:
    file = tmp_path / "day.jsonl"
    file.write_bytes(b"first\nsecond\n")
    measured = archive._encode

    def written_meanwhile(manifest: archive.Manifest) -> bytes:
        file.write_bytes(later)
        return measured(manifest)

    monkeypatch.setattr(archive, "_encode", written_meanwhile)
    with pytest.raises(Unavailable):
        archive.pack(tmp_path / "a.tar", [("day.jsonl", file)], {}, sizes={"day.jsonl": 13})
    assert [path.name for path in tmp_path.iterdir()] == ["day.jsonl"]
