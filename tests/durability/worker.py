"""A process that runs durable jobs until its standard input closes; what the jobs do stands in a file that may change.

`python -m tests.durability.worker URL NODE SOURCE`. SOURCE is Python text that defines `kinds(writer)`.
"""

from __future__ import annotations

import importlib.util
import select
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.simulator.jobs import run_due
from vagus.jobs.runner import WorkRunner
from vagus.records.engine.database import open_database
from vagus.records.engine.writer import Writer

LEASE_SECONDS = 2


class SystemClock:
    """The real time, without the rest of the wiring: a test starts many of these processes."""

    def now(self) -> datetime:
        """The present moment."""
        return datetime.now(UTC)


def main() -> None:
    """Take and run jobs."""
    url, node, source = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    spec = importlib.util.spec_from_file_location("job_source", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    database, clock = open_database(url), SystemClock()
    with Writer(database, clock) as writer:
        runner = WorkRunner(database, writer, clock, node, module.kinds(writer), lease_seconds=LEASE_SECONDS)
        print("ready", flush=True)  # noqa: T201  the test waits for it
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            run_due(runner)
    database.close()


if __name__ == "__main__":
    main()
