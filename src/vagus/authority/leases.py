"""Takes and gives back the leases by which one of several servers does a piece of work; does none of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.records import publications as rows

if TYPE_CHECKING:
    from vagus.records.engine.writer import Writer


def take(writer: Writer, name: str, holder: str | None, seconds: int) -> bool:
    """Take or prolong the lease `name`; False while another holder has it. Without a `holder` there are no leases."""
    return (
        holder is None
        or writer.submit(
            lambda batch: rows.take_lease(batch.connection, name, holder, at=batch.at, seconds=seconds)
        ).result()
    )


def give_back(writer: Writer, name: str, holder: str | None) -> None:
    """Give the lease back, so that the next server need not wait."""
    if holder is not None:
        writer.submit(lambda batch: rows.drop_lease(batch.connection, name, holder)).result()
