"""The real serving process, which reads on standard input what to revoke: `python -m bench.rig.revoking DIR`.

Each line `<authority> <serial in hex>` is answered with the seconds from the call to its future's result.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from bench.rig.installation import UNIT, open_installation
from vagus.server.serving import serve
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason


def main() -> None:
    """Serve until SIGTERM."""
    with open_installation(Path(sys.argv[1])) as installation:

        def ready(facts: Mapping[str, object]) -> None:
            print(json.dumps(facts), flush=True)
            threading.Thread(target=_revoke_as_told, args=(installation,), daemon=True).start()

        serve(installation, issue_for=(UNIT, "h1/infra"), is_status_only=False, ready=ready)


def _revoke_as_told(installation: Installation) -> None:
    for line in sys.stdin:
        authority, serial = line.split()
        start = time.perf_counter()
        revoked = installation.revocations.revoke(
            int(authority), int(serial, 16), RevocationReason.KEY_COMPROMISE, by="operator:bench"
        )
        revoked.result()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
