"""The periodic checks of published status and of the database's statistics, as tasks of a serving process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.jobs.periodic import Task
from vagus.records.engine.planner_statistics import BelievedSizes

if TYPE_CHECKING:
    from vagus.monitoring.status_watch import StatusWatch
    from vagus.records.engine.database import Database
    from vagus.settings import ServeSettings

_SECONDS = 60.0
_LONGEST_ANALYSIS = 900.0  # seconds, for the largest tables


def watch_tasks(watch: StatusWatch, settings: ServeSettings) -> list[Task]:
    """Read how old the CRLs are each minute and, unless `serve.probe` is off, fetch what is published."""
    tasks = [Task("list-ages", _SECONDS, watch.look)]
    if settings.probe != "off":
        # A round waits for each CRL that cannot be fetched. It may take long; the age of the newest report shows that.
        tasks.append(Task("probe", settings.probe_seconds, watch.probe, None))
    return tasks


def statistics_tasks(database: Database) -> list[Task]:
    """Compare PostgreSQL's statistics with the tables each minute. SQLite keeps none."""
    task = Task("statistics", _SECONDS, BelievedSizes(database).mend, _LONGEST_ANALYSIS)
    return [] if database.is_sqlite else [task]
