"""`python -m examples.quickstart FOLDER`: `vagus quickstart`, then the commands that it prints, with what they say.

A device enrols by token and sends telemetry through the gateway. Exit code 0 when both were done.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 60.0


def main() -> None:
    """Play it."""
    parser = argparse.ArgumentParser(prog="python -m examples.quickstart", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to make the hospital; a number is added if it exists")
    parser.add_argument("--port", help="as of vagus quickstart")
    parser.add_argument("--since", type=int, default=int(time.time()), help="when it began, in seconds since 1970")
    options = parser.parse_args()
    folder = _free(options.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    chosen = [] if options.port is None else ["--port", options.port]
    command = ["vagus", "quickstart", str(folder), *chosen, "--json"]
    print(f"$ {shlex.join(command[:-1])}", flush=True)
    with subprocess.Popen(_program(command), stdout=subprocess.PIPE, text=True) as server:
        try:
            ready = _read_ready(server)
            for name in ("enrol", "connect"):
                _run(ready["commands"][name])
            took = time.time() - options.since
            print(f"\nFirst certificate and first connection {took:.0f} s after the start.")
            _tell(folder, ready["commands"])
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(PATIENCE)


def _read_ready(server: subprocess.Popen[str]) -> dict[str, dict[str, str]]:
    """What the command prints once it serves; it ends by itself where it cannot."""
    text = ""
    for line in server.stdout or ():
        text += line
        if line.rstrip() == "}":
            found: dict[str, dict[str, str]] = json.loads(text)
            return found
    sys.exit(server.wait(PATIENCE) or 1)


def _run(command: str) -> None:
    print(f"$ {command}", flush=True)
    done = subprocess.run(_program(shlex.split(command)), check=False, timeout=PATIENCE)
    if done.returncode != 0:
        sys.exit(f"the command ended with code {done.returncode}")


def _program(command: list[str]) -> list[str]:
    """The command as this Python runs it, so that it needs no PATH."""
    return [sys.executable, "-m", command[0].replace("-", "_"), *command[1:]]


def _free(folder: Path) -> Path:
    """The folder, or the first of FOLDER-2, FOLDER-3, … that does not exist."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _tell(folder: Path, commands: dict[str, str]) -> None:
    from vagus.server.quickstart.ward import NOT_FOR_PRODUCTION

    programs = os.path.relpath(Path(sys.executable).parent)
    print(f"Not for production: {NOT_FOR_PRODUCTION}.\n")
    print("Go on by hand: put the programs on the path, serve the same hospital again, and use another terminal.")
    print(f"  export PATH=$PWD/{programs}:$PATH\n  {commands['store']} &\n  {commands['serve']}\n")
    print(f"  {commands['connect']}\n  {commands['revoke']}\n  {commands['connect']}     # refused\n")
    print(f"Everything lies in {folder}; `vagus quickstart DIR` makes another. docs/operations.md is for production.")


if __name__ == "__main__":
    main()
