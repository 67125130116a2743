"""Reads and writes the files that options name, with the path in each error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import typer

from vagus.durable_files import PUBLIC_FILE, replace_durably
from vagus.errors import Conflict, IntegrityFailure, LimitExceeded, Malformed
from vagus.reasons import Reason

_Decoded = TypeVar("_Decoded")

MOST_BYTES = 16 * 1024 * 1024
"""The largest file of certificates, CRLs or OCSP responses: a mistyped path may lead to a disk."""


@contextmanager
def naming(path: Path, *only: str) -> Iterator[None]:
    """Have an error about a file's content begin with its name, as those of the operating system do.

    `only` are the reasons that speak of the content, where the block does more than read.
    """
    try:
        yield
    except (Malformed, LimitExceeded, IntegrityFailure) as fault:
        if only and fault.reason not in only:
            raise
        raise type(fault)(fault.reason, f"{path}: {fault.message}", **fault.facts) from fault


def check_place(path: Path) -> None:
    """Check that a file can be made at `path`. A missing folder is never made: the medium may not be mounted.

    Raises Malformed(BAD_ARGUMENT).
    """
    if path.is_dir():
        raise Malformed(Reason.BAD_ARGUMENT, f"{path} is a folder; name a file in it", file=str(path))
    if not path.parent.is_dir():
        msg = f"{path}: folder {path.parent} does not exist; make or mount it, then run the command again"
        raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(path))


def check_new(path: Path, *, may_replace: bool) -> None:
    """Check that a file can be made at `path` without another one being lost, before any work for it is done.

    Raises Conflict(ALREADY_EXISTS) for a file that is there and may not be replaced, and as `check_place`.
    """
    check_place(path)
    if path.is_file() and not may_replace:
        msg = f"file {path} exists already; name another file, or give --replace"
        raise Conflict(Reason.ALREADY_EXISTS, msg, file=str(path))


def is_replaceable(path: Path) -> bool:
    """Whether a new file takes the place of `path`: a device or a pipe, such as /dev/stdout, is written to instead."""
    return path.is_file() or not path.exists()


def decode_file(path: Path, decode: Callable[[bytes], _Decoded]) -> _Decoded:
    """What `decode` makes of the file's content.

    Raises OSError, Malformed(TOO_LARGE), and as `decode` with the file's name.
    """
    with path.open("rb") as stream:
        raw = stream.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise Malformed(Reason.TOO_LARGE, f"file {path} exceeds {MOST_BYTES} bytes; is it the right file?")
    with naming(path):
        return decode(raw)


def read_blocks(path: Path, label: str) -> tuple[bytes, ...]:
    """The DER objects of a PEM or DER file. Raises as `decode_file` with `decode_blocks`."""
    from vagus.x509.pem import decode_blocks

    return decode_file(path, lambda raw: decode_blocks(raw, label))


def read_block(path: Path, label: str) -> bytes:
    """The only DER object of a PEM or DER file. Raises as `decode_file` with `decode_one`."""
    from vagus.x509.pem import decode_one

    return decode_file(path, lambda raw: decode_one(raw, label))


def read_certificates(path: Path) -> tuple[bytes, ...]:
    """The certificates of a PEM or DER file, each of which decodes. Raises as `decode_file`."""
    from vagus.x509.certificates import decode_certificate

    return _read_decodable(path, "CERTIFICATE", decode_certificate)


def read_crls(path: Path) -> tuple[bytes, ...]:
    """The CRLs of a PEM or DER file, each of which decodes. Raises as `decode_file`."""
    from vagus.x509.crls.decoding import decode_crl

    return _read_decodable(path, "X509 CRL", decode_crl)


def _read_decodable(path: Path, label: str, decode: Callable[[bytes], object]) -> tuple[bytes, ...]:
    """Objects that an operation decodes again: by then, their file's name is not known."""
    found = read_blocks(path, label)
    with naming(path):
        for der in found:
            decode(der)
    return found


def write_public(content: bytes, out: Path | None, *, may_replace: bool) -> None:
    """Write what everybody may read to the file `out`, in one step, or to standard output.

    Raises as `check_new`.
    """
    if out is None:
        typer.echo(content.decode("ascii") if content.isascii() else content, nl=False)
        return
    check_new(out, may_replace=may_replace)
    if is_replaceable(out):
        replace_durably(out, content, PUBLIC_FILE)
    else:
        out.write_bytes(content)
