"""A process that runs the durable jobs of an installation, and kills itself at the named commit, as a power cut would.

`python -m tests.durability.stage_worker DIR NODE POINT NTH` works on the installation in DIR until its standard input
closes; at the NTH passing of POINT (`before-commit`, `after-commit`; `none` never) it sends itself SIGKILL.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from itertools import count
from pathlib import Path

from tests.simulator.jobs import run_due
from vagus.authority import mass_revocation
from vagus.jobs.kinds import work_kinds
from vagus.jobs.runner import WorkRunner
from vagus.wiring import Installation

LEASE_SECONDS = 1
STEP = 2


def main() -> None:
    """Take and run jobs."""
    folder, node, point, nth = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    passings = count(1)

    def kill_at(passed: str) -> None:
        if passed == point and next(passings) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    mass_revocation.STEP = STEP
    with Installation.open(folder) as installation:
        installation.kill_points = kill_at
        runner = WorkRunner(
            installation.database,
            installation.writer,
            installation.clock,
            node,
            work_kinds(installation),
            lease_seconds=LEASE_SECONDS,
        )
        print("ready", flush=True)  # noqa: T201  the test waits for it
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            run_due(runner)


if __name__ == "__main__":
    main()
