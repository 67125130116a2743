"""Lines of the gateway log are read from the end, and no change of a line escapes the hashes in the ledger."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vagus.errors import Malformed
from vagus.ledger import gateway_lines
from vagus.ledger.gateway_lines import (
    GENESIS,
    Segment,
    check_chain,
    decode_line,
    finished_size,
    list_segments,
    read_backwards,
)

DAYS = ("2026-06-01", "2026-06-02", "2026-06-03")


def chain(count: int, head: bytes = GENESIS) -> list[bytes]:
    """Lines as a gateway writes them."""
    lines = []
    for number in range(count):
        facts = {"at": "2026-06-01T12:00:00.000Z", "before": head.hex(), "listener": "gate", "source": str(number)}
        lines.append(json.dumps(facts, separators=(",", ":")).encode() + b"\n")
        head = hashlib.sha256(lines[-1]).digest()
    return lines


def digest(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()


def written(folder: Path, *days: Sequence[bytes]) -> list[Segment]:
    """The files of one listener, a day after the other."""
    (folder / "gate").mkdir(exist_ok=True)
    for day, lines in zip(DAYS, days, strict=False):
        (folder / "gate" / f"{day}.jsonl").write_bytes(b"".join(lines))
    return list(list_segments(folder))


# reading from the end


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))), st.binary(max_size=30))
@settings(max_examples=60)
def test_lines_come_from_the_last_to_the_first_and_an_unfinished_one_does_not(lines: list[bytes], rest: bytes) -> None:
    rest = rest.replace(b"\n", b"")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway_lines, "_PART", 16)
        file = Path(folder) / "lines"
        whole = b"".join(line + b"\n" for line in lines)
        file.write_bytes(whole + rest)
        assert list(read_backwards(file)) == lines[::-1]
        assert finished_size(file) == len(whole)


def test_a_line_without_end_costs_no_memory_and_is_none_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    with file.open("wb") as stream:
        stream.write(b"first\n")
        stream.truncate(1 << 28)  # a hole of 256 MiB, read back as zeros
        stream.seek(0, 2)
        stream.write(b"\nlast\n")
    last, torn, first = read_backwards(file)
    assert (last, first) == (b"last", b"first")
    assert len(torn) < 200_000
    with pytest.raises(Malformed):
        decode_line(torn)


@pytest.mark.parametrize(
    "line",
    [b"", b"torn", b"[]", b"7", b"{}", b'{"at":7}', b'{"at":"noon"}', b"\xff", b"[" * 100_000, b'{"at":"9999-12'],
)
def test_a_line_that_is_none_of_ours_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        decode_line(line)


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    line = decode_line(rb'{"at":"2026-06-01T12:00:00Z","detail":"\u001b[2J\u202egone","device":"\u0007","count":true}')
    assert (line.detail, line.device, line.count) == ("?[2J?gone", "?", 1)


def test_only_files_of_days_are_segments(tmp_path: Path) -> None:
    assert list_segments(tmp_path / "gates") == ()
    (tmp_path / "gate" / "2026-06-02.jsonl").mkdir(parents=True)
    for name in ("2026-06-01.jsonl", "notes.jsonl", "2026-06-01.jsonl.gz", ".2026-06-01.jsonl"):
        (tmp_path / "gate" / name).write_bytes(b"")
    assert [(one.listener, one.day) for one in list_segments(tmp_path)] == [("gate", "2026-06-01")]


# the chain


def test_a_chain_over_days_is_sound_and_the_newest_lines_wait_for_their_minute(tmp_path: Path) -> None:
    lines = chain(9)
    files = written(tmp_path, lines[:3], lines[3:6], lines[6:])
    reports, missing = check_chain(files, {digest(lines[1]): 10, digest(lines[6]): 20})
    assert [(one.lines, one.covered, one.torn, one.faults) for one in reports] == [
        (3, 3, 0, []),
        (3, 3, 0, []),
        (3, 1, 0, []),
    ]
    assert missing == set()


@given(st.data(), st.integers(2, 8))
@settings(max_examples=60)
def test_no_change_of_a_line_to_which_the_ledger_commits_escapes(data: st.DataObject, count: int) -> None:
    """Changed, removed, inserted, swapped: the chain breaks or the minute's last line is in no file."""
    lines = chain(count)
    last = data.draw(st.integers(0, count - 1), "the line that the ledger has")
    at = data.draw(st.integers(0, last), "the line that is changed")
    changed = list(lines)
    match data.draw(st.sampled_from(["change", "remove", "insert", "rewrite"])):
        case "change":
            changed[at] = changed[at].replace(b'"source":"', b'"source":"x')
        case "remove":
            del changed[at]
        case "insert":
            changed.insert(at, chain(1)[0].replace(b'"source":"', b'"source":"x'))
        case _:  # everything from there on, with a good chain
            head = GENESIS if at == 0 else digest(lines[at - 1])
            changed[at:] = [line.replace(b'"gate"', b'"door"') for line in chain(1, head)]
    with tempfile.TemporaryDirectory() as folder:
        (report,), missing = check_chain(written(Path(folder), changed), {digest(lines[last]): 10})
    assert report.faults or report.is_beheaded or missing == {10}


def test_a_file_that_is_gone_and_a_process_that_began_anew_break_no_chain(tmp_path: Path) -> None:
    lines, later = chain(6), chain(2)
    files = written(tmp_path, lines[:3], lines[3:], later)
    reports, missing = check_chain(files[1:], {digest(lines[5]): 10, digest(later[0]): 20})
    assert [(one.lines, one.covered, one.faults) for one in reports] == [(3, 3, []), (2, 1, [])]
    assert [one.is_beheaded for one in reports] == [True, False]
    assert missing == set()


def test_lines_before_a_new_beginning_wait_in_vain(tmp_path: Path) -> None:
    lines, later = chain(3), chain(1)
    reports, _ = check_chain(written(tmp_path, lines, later), {digest(lines[1]): 10, digest(later[0]): 20})
    assert [(one.lines, one.covered, one.faults) for one in reports] == [(3, 2, []), (1, 1, [])]


def test_a_torn_line_is_counted_and_a_line_after_it_continues(tmp_path: Path) -> None:
    first = chain(2)
    torn = b"torn" * 70_000 + b"\n"
    after = chain(2, digest(torn))
    (report,), missing = check_chain(written(tmp_path, [*first, torn, *after]), {digest(after[1]): 10})
    assert (report.lines, report.covered, report.torn, report.faults) == (5, 3, 1, [])
    assert missing == set()


def test_a_line_that_is_being_written_is_no_fault(tmp_path: Path) -> None:
    lines = chain(3)
    (report,), _ = check_chain(written(tmp_path, [*lines[:2], lines[2][:-20]]), {digest(lines[1]): 10})
    assert (report.lines, report.covered, report.torn, report.faults) == (2, 2, 0, [])
