"""One log line and one count for each ledger entry that this process commits, and for requests that were refused.

The lines go to the logger `vagus.events` as JSON. A line of the ledger is the entry itself: codes, numbers, digests and
hashed owners, so the log holds no more personal data than the ledger does.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

from vagus.reasons import Reason
from vagus.records.engine.commit_facts import CommitFacts
from vagus.records.engine.writer import Writer

_LOG = logging.getLogger("vagus.events")
_MOST_WAITING: Final = 20_000
# the kind of an entry: canonical JSON, and no value of an entry contains quotes
_KIND: Final = re.compile(rb'"kind":"([a-z-]+)"')
_PAUSE_SECONDS: Final = 1.0


class EventLog:
    """Counts and logs ledger entries.

    The writer's thread counts the entries and puts them aside; it alone changes the counts. `flush` logs them on a
    thread of periodic work, so a log that blocks (a full disk, a pipe that nothing reads) stops no commit. Entries over
    a bound are counted and not logged: the ledger holds them anyway.
    """

    def __init__(self, *, most_waiting: int = _MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._waiting: deque[bytes] = deque()
        self._counts: Counter[str] = Counter()
        self._dropped = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """How many entries of each kind this process has committed."""
        return self._counts.copy()

    def follow(self, writer: Writer) -> None:
        """Take the entries of each commit from now on."""
        writer.on_commit(self._on_commit)

    def flush(self) -> None:
        """Log the entries that wait; for periodic work."""
        for _ in range(len(self._waiting)):
            _log(self._waiting.popleft().decode("ascii", "replace"))
        dropped, self._dropped = self._dropped, 0
        if dropped:
            _LOG.warning("%d ledger entries were not logged, because the log was blocked; see vagus audit", dropped)

    def _on_commit(self, facts: CommitFacts) -> None:
        for entry in facts.entries:
            found = _KIND.search(entry)
            self._counts["other" if found is None else found[1].decode("ascii")] += 1
            if len(self._waiting) < self._most_waiting:
                self._waiting.append(entry)
            else:
                self._dropped += 1


class Refusals:
    """Counts refused requests by reason, and logs one line a second at most for each reason.

    Strangers can be refused without end, and a line for each refusal would fill the disk. Safe to use from several
    threads.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._counts: Counter[str] = Counter()
        # by kind of refusal: when the last line was logged, and the count then
        self._logged: dict[str, tuple[float, int]] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """How many requests were refused for each reason."""
        with self._turn:
            return dict(self._counts)

    def note(self, reason: Reason) -> None:
        """Count one refusal. The line, if it is due, says how many there were since the line before it."""
        now = time.monotonic()
        with self._turn:
            self._counts[reason.value] += 1
            count = self._counts[reason.value]
            at, before = self._logged.get(reason.value, (-_PAUSE_SECONDS, 0))
            if now - at < _PAUSE_SECONDS:
                return
            self._logged[reason.value] = now, count
        _log(json.dumps({"count": count - before, "kind": "refused-request", "reason": reason.value}))


REFUSALS: Final = Refusals()
"""The refusals of this process: HTTP errors are mapped in functions that every listener shares."""


def _log(line: str) -> None:
    """As `_LOG.info`, without the search for the caller's file and line: that costs more than all the rest."""
    if _LOG.isEnabledFor(logging.INFO):
        _LOG.handle(_LOG.makeRecord(_LOG.name, logging.INFO, "", 0, line, (), None))
