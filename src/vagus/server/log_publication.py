"""Brings the ledger's static files up to the table, on a thread of its own; decides nothing about entries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from vagus.errors import Unavailable
from vagus.jobs.periodic import Jobs, Task
from vagus.ledger.publish import LogPublisher
from vagus.operations.installation import LOG_KEYSTORE

if TYPE_CHECKING:
    from vagus.wiring import Installation

_LOG = logging.getLogger(__name__)
_LONGEST_SECONDS = 600.0
"""The files of a million entries, made for a folder that has none, take minutes."""


def ledger_jobs(installation: Installation, is_settled: Callable[[], bool]) -> Jobs:
    """A turn each second where this process has the passphrase of the log's key, and else nothing.

    No list, answer or door waits for it: what the folder hangs in (a disk, a network, another process) is its own.
    """
    task = Task("ledger", 1.0, partial(_publish, installation, is_settled), _LONGEST_SECONDS)
    return Jobs([task] if installation.sources.find(LOG_KEYSTORE) is not None else [])


def _publish(installation: Installation, is_settled: Callable[[], bool]) -> None:
    """Raises IntegrityFailure as `LogPublisher.publish`, and what is only away as a group: that stops no start."""
    if not is_settled():
        return  # a checkpoint signed now might contradict one that is out
    try:
        LogPublisher(installation.database, installation.settings.log, installation.checkpoint_key()).publish()
    except Unavailable as error:
        raise ExceptionGroup("ledger", [error]) from error


def note_lacks(installation: Installation) -> dict[str, str]:
    """What a process with these passphrase sources leaves to others, each with its remedy; told, for nobody may do it.

    Keys of doors, responders and named authorities are not among them: without those nothing starts.
    """
    if installation.sources.find(LOG_KEYSTORE) is not None:
        return {}
    remedy = (
        "no passphrase source speaks for keystore log, so nothing that is issued from now on is in a signed checkpoint "
        "of this process; start it with --passphrase-source log=fd:N, unless another one publishes the ledger"
    )
    _LOG.warning("this process does without checkpoints: %s", remedy)
    return {"checkpoints": remedy}
