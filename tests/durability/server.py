"""The real serving process, but for one thing: it kills itself at the named point, as a power switch would.

`python -m tests.durability.server DIR POINT NTH` serves the installation in DIR; at the NTH passing of POINT, counted
from when its listeners are open, it sends itself SIGKILL. POINT `none` never does. Lines `revoke <device id>` on
standard input are answered `revoked <device id>` once the revocation is committed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from vagus.server.serving import serve
from vagus.wiring import Installation


def main() -> None:
    """Serve until killed, by ourselves or from outside."""
    folder, point, nth = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    passings, is_open = count(1), threading.Event()

    def kill_at(passed: str) -> None:
        if passed == point and is_open.is_set() and next(passings) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    with Installation.open(folder, passphrase_sources=["env:VAGUS_TEST_PASSPHRASE"]) as installation:
        installation.kill_points = kill_at

        def ready(facts: Mapping[str, object]) -> None:
            print(json.dumps(facts), flush=True)  # noqa: T201  the harness reads it
            is_open.set()
            threading.Thread(target=revoke_as_told, args=(installation,), daemon=True).start()

        serve(installation, issue_for=("h1/icu", "h1/infra"), is_status_only=False, ready=ready)


def revoke_as_told(installation: Installation) -> None:
    """Revoke what standard input names, one at a time."""
    for line in sys.stdin:
        device = line.split()[1]
        installation.operations.devices.revoke(installation.actor, device, "keyCompromise")
        print(f"revoked {device}", flush=True)  # noqa: T201  the harness reads it


if __name__ == "__main__":
    main()
