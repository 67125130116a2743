"""Writes late rows of signatures, settles intents that stay open, and reports those that no process can settle.

A database that is away for a moment, or a commit without an outcome, leaves intents open: OCSP responds tryLater for
them. Ages are measured here, by a clock that no operator sets: other processes' clocks may differ.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily

from vagus.authority.open_intents import LONGEST_SECONDS, load_open
from vagus.jobs.part import UPKEEP, UPKEEP_SECONDS, Part, PartHealth, replace_notes
from vagus.jobs.periodic import Task, attempt_each

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from vagus.authority.issuance import Issuance
    from vagus.authority.issuers import OpenIssuers
    from vagus.records.certificates import CertificateRow
    from vagus.records.engine.database import Database

_LOG = logging.getLogger(__name__)
_SUBJECT: Final = "unsigned certificates"
_RETRY_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 20
"""An intent of a process that lives is signed long before; settling it as well would do no harm."""


@dataclass(slots=True)
class UnsignedCertificates:
    """Watches the open intents of every process. `check` is called by one thread, `write_rows` by another."""

    database: Database
    issuance: Issuance | None
    """None on a status node, which signs nothing."""
    issuers: OpenIssuers
    may_settle: Callable[[], bool]
    """False where nothing may be written: after the database was set back."""
    seconds: Callable[[], float] = time.monotonic
    lacks: dict[str, str] = field(default_factory=dict)
    count: int = 0
    """How many have been open for over `LONGEST_SECONDS`."""
    _seen: dict[int, float] = field(default_factory=dict)
    # by leaf: when this process first saw it open

    def parts(self) -> list[Part]:
        """As the server runs it. Retries have a thread of their own: signing every CRL delays none."""
        check = Task("unsigned", _CHECK_SECONDS, self.check, UPKEEP_SECONDS)
        health = Part(
            "unsigned", [check], UPKEEP, health=lambda: PartHealth(lacks=dict(self.lacks)), metrics=self.measure
        )
        if self.issuance is None:
            return [health]
        retry = Task("signature-rows", _RETRY_SECONDS, self.issuance.write_rows, runs_first=False)
        return [Part("signature-rows", [retry]), health]

    def check(self) -> None:
        """Settle what is open too long and can be signed here; report the rest. Raises an ExceptionGroup."""
        now, found = self.seconds(), load_open(self.database)
        self._seen = {row.leaf_index: self._seen.get(row.leaf_index, now) for row in found.rows}
        old = [row for row in found.rows if now - self._seen[row.leaf_index] > LONGEST_SECONDS]
        note = {}
        if old:
            remedy = f"OCSP responds tryLater for them; run: {found.find_remedy(old)}"
            note[_SUBJECT] = f"{found.describe(old)}; {remedy}"
        self.count = len(old)
        replace_notes(self.lacks, note, _LOG)
        if self.issuance is not None and self.may_settle():
            due = [row for row in found.rows if now - self._seen[row.leaf_index] >= _SETTLE_SECONDS]
            attempt_each("unsigned certificates", due, partial(self._settle, self.issuance))

    def measure(self) -> Iterable[Metric]:
        """For Prometheus."""
        text = "Certificates without a signature in the database for over a minute, in all processes."
        yield GaugeMetricFamily("vagus_certificates_unsigned", text, self.count)
        text = "Signatures of this process whose rows the database has not taken yet."
        waiting = 0 if self.issuance is None else self.issuance.unwritten
        yield GaugeMetricFamily("vagus_signature_rows_waiting", text, waiting)

    def _settle(self, issuance: Issuance, row: CertificateRow) -> None:
        report = issuance.settle_rows([row], self.issuers)
        if report.signed or report.revoked:
            what = "signed" if report.signed else "revoked"
            _LOG.warning("an open intent was %s: log leaf %d", what, row.leaf_index)
