"""The part of a serving process that signs due CRLs and writes CRL files; `authority.crls.publisher` does the work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self

from vagus.authority.crls.published import REFRESH_SECONDS
from vagus.authority.crls.publisher import CrlPublisher
from vagus.errors import Unavailable
from vagus.jobs.part import UPKEEP, UPKEEP_SECONDS, Part, PartHealth
from vagus.jobs.periodic import Task, attempt_each, leaves
from vagus.reasons import Reason

if TYPE_CHECKING:
    from vagus.authority.clock_bound import ClockBound
    from vagus.authority.crls.published import PublishedCrls
    from vagus.authority.issuers import OpenIssuers
    from vagus.server.setback_watch import SetbackWatch
    from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)
_DATES = "dates"
_FILES = "files"
_FILES_SECONDS = 10.0


@dataclass(slots=True)
class CrlPublication:
    """The CRLs of the open issuers, and the folder of all CRLs. Its tasks share one thread, which writes the notes."""

    issuers: OpenIssuers
    publisher: CrlPublisher
    setback_watch: SetbackWatch
    waits: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        installation: Installation,
        issuers: OpenIssuers,
        setback_watch: SetbackWatch,
        *,
        holder: str,
        bound: ClockBound,
    ) -> Self:
        """Into the folder that the settings name. `holder` is this process's name in leases."""
        shared = installation.pack, installation.database, installation.writer, installation.clock
        publisher = CrlPublisher(*shared, folder=installation.settings.published, holder=holder, bound=bound)
        publisher.files = setback_watch.files  # share one cached state of the CRL folder
        return cls(issuers, publisher, setback_watch)

    def publish(self) -> None:
        """Sign what is due. Not before the gap of a restore is closed: a new CRL would lack what was revoked in it."""
        if self.setback_watch.is_settled_now():
            attempt_each("lists", self.issuers.every(), self.publisher.publish_due)

    def write_files(self) -> float | None:
        """Bring the folder up to the table, whichever process signed: another server, a ceremony, this one."""

        def write() -> None:
            files = self.setback_watch.files
            # the database may be older than the published CRLs, so nothing is signed from it
            if self.setback_watch.is_settled_now():
                writes = [partial(files.write, place) for place in files.find_outdated()]
                every: list[Callable[[], None]] = [files.write_certificates, *writes]
                attempt_each("files", every, lambda write: write())

        # Static servers send out the files of a process that signs. Other processes respond from memory and need no
        # files.
        return write_files(self.lacks, write, is_needed=bool(self.issuers.every()))

    def release(self) -> None:
        """Give the leases back, so that another process need not wait until they end."""
        for issuer in self.issuers.every():
            self.publisher.release(issuer)

    def part(self) -> Part:
        """As the server runs it; a revocation is published at once."""
        tasks = [
            Task("lists", 1.0, self.publish, UPKEEP_SECONDS),
            Task("files", 1.0, self.write_files, UPKEEP_SECONDS),
        ]
        return Part(
            "crls",
            tasks,
            UPKEEP,
            health=lambda: PartHealth(lacks=dict(self.lacks)),
            wake=lambda _: ("lists",),
            close=self.release,
        )

    def clock_part(self) -> Part:
        """For processes that date something: they report a clock that is ahead before a CRL is due."""
        check = partial(check_clock, self.waits, self.publisher.check_clock)
        return Part("clock", [Task("clock", 60.0, check)], UPKEEP, health=lambda: PartHealth(waits=dict(self.waits)))


def crl_cache_part(crls: PublishedCrls) -> Part:
    """Keeps the cached CRLs fresh, on a thread of its own: no CRL is late because a folder or a fetch hangs."""
    refresh = Task("newest-lists", REFRESH_SECONDS, crls.refresh, UPKEEP_SECONDS, runs_first=False)
    return Part("crl-cache", [refresh])


def check_clock(waits: dict[str, str], check: Callable[[], None]) -> None:
    """Note in `waits` why no CRL would be dated now; `check` raises Unavailable(CLOCK_AHEAD).

    No failure: where the database's clock is the wrong one, every process would be taken out of service.
    """
    try:
        check()
    except Unavailable as error:
        if error.reason is not Reason.CLOCK_AHEAD:
            raise
        text = f"no CRL is dated: {error.message}"
        if _DATES not in waits:  # this text contains the time, so it is logged once until the clock is right
            _LOG.error("%s", text)
        waits[_DATES] = text
    else:
        waits.pop(_DATES, None)


def write_files(lacks: dict[str, str], write: Callable[[], None], *, is_needed: bool) -> float | None:
    """Note in `lacks` why no CRL is written into the folder; returns the seconds until the next attempt, or None.

    `write` raises an ExceptionGroup of what failed. Where the files are needed, that is a failure and is raised.
    """
    if is_needed:
        lacks.pop(_FILES, None)
        write()
        return None
    try:
        write()
    except* OSError as group:
        first = next(one for one in leaves(group) if isinstance(one, OSError))
        text = f"{first.filename}: {first.strerror or type(first).__name__}; CRLs are sent from memory alone"
        text = f"{text}: give the folder to the user that serves, or make room on its disk"
        if lacks.get(_FILES) != text:
            _LOG.error("CRLs are not written: %s", text)
        lacks[_FILES] = text
    else:
        lacks.pop(_FILES, None)
    return _FILES_SECONDS if _FILES in lacks else None
