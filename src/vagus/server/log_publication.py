"""The part of a serving process that publishes checkpoint and tiles each second; `ledger.publish` does the work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from vagus.components import LOG_KEYSTORE
from vagus.errors import Unavailable
from vagus.jobs.part import Part, PartHealth
from vagus.jobs.periodic import Task
from vagus.ledger.publish import LogPublisher

if TYPE_CHECKING:
    from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)
_LONGEST_SECONDS = 600.0
"""The files of a million entries, made for a folder that has none, take minutes."""
_REMEDY = (
    "no passphrase source names keystore log, so nothing that is issued from now on is in a signed checkpoint of this "
    "process; start it with --passphrase-source log=fd:N, unless another one publishes the ledger"
)


def ledger_part(installation: Installation, is_settled: Callable[[], bool], *, is_status_only: bool) -> Part:
    """A turn each second where this process has the passphrase of the log's key.

    No CRL, OCSP response or listener waits for it: its folder may hang (in a disk, a network, another process). A
    process that issues without the passphrase lacks checkpoints, and no failure: another one may publish the ledger.
    """
    if installation.sources.find(LOG_KEYSTORE) is not None:
        return Part("ledger", [Task("ledger", 1.0, partial(_publish, installation, is_settled), _LONGEST_SECONDS)])
    if is_status_only:
        return Part("ledger")
    _LOG.warning("this process publishes no checkpoints: %s", _REMEDY)
    return Part("ledger", health=lambda: PartHealth(lacks={"checkpoints": _REMEDY}))


def _publish(installation: Installation, is_settled: Callable[[], bool]) -> None:
    """Raises IntegrityFailure as `LogPublisher.publish`. What is only away is raised as a group: it stops no start."""
    if not is_settled():
        return  # the database was set back: a checkpoint signed now might contradict a published one
    try:
        LogPublisher(installation.database, installation.settings.log, installation.checkpoint_key()).publish()
    except Unavailable as error:
        raise ExceptionGroup("ledger", [error]) from error
