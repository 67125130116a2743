"""`vagus-agent`: the device's command line, and the only place here where the real clock and entropy are made."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vagus.errors import VagusError
from vagus_agent.commands import COMMANDS, Options, run_command
from vagus_agent.keys import DeviceKeyAlgorithm
from vagus_agent.outcomes import Exit, describe_result, encode_result, exit_code, failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vagus_agent.outcomes import Result

_EPILOG: Final = """exit codes: 0 done; 1 refused (by us or by the server); 2 bad option or file; 3 an operator must
act; 4 unavailable, try later; 5 own files or the log contradict themselves; 6 wrong clock; 7 our certificate expired"""


class _SystemClock:
    """The system's clock, moved by --unsafe-clock-offset in acceptance tests."""

    def __init__(self, offset: float) -> None:
        self._offset = timedelta(seconds=offset)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    options = _decode_arguments(sys.argv[1:] if arguments is None else arguments)
    code = Exit.DONE

    def report(result: Result) -> None:
        nonlocal code
        if result.get("ok") and (ended := result.get("exit")) is not None:
            code = Exit(int(ended))
        as_json = options.as_json or options.command == "probe"
        text = encode_result(result) if as_json else describe_result(result)
        print(text, file=sys.stdout if as_json or result.get("ok") else sys.stderr, flush=True)

    try:
        clock = _SystemClock(options.unsafe_clock_offset)
        for result in run_command(options, clock, secrets.token_bytes, sys.stdin, time.sleep):
            report(result)
    except VagusError as error:
        report(failure(error))
        code = exit_code(error)
    except KeyboardInterrupt:
        code = Exit.UNAVAILABLE
    except BrokenPipeError:
        # the reader of our standard output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.UNAVAILABLE
    sys.exit(code)


def _decode_arguments(arguments: Sequence[str]) -> Options:
    commands = "\n".join(f"  {name:<10}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="vagus-agent",
        description=f"What a device does at its hospital.\n\ncommands:\n{commands}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("command", choices=COMMANDS, metavar="COMMAND", help="one of those above")
    add("--state", type=Path, required=True, help="the folder that holds everything the device keeps")
    add("--server", help="enrolment server: name[=address]:port; the name is what its certificate must show")
    add("--relay", help="relay: [https://|tcp://]name[=address]:port")
    add("--status", help="plain-HTTP status server for CRLs and checkpoints: name[=address]:port")
    add("--anchors", type=Path, help="PEM of the hospital's infrastructure CA, brought by hand")
    add("--idevid-cert", type=Path, help="the maker's certificate (chain) of this device, PEM")
    add("--idevid-key", type=Path, help="its private key, PEM")
    add("--token", metavar="SOURCE", help="one-time token from fd:3, file:/path or env:NAME; never the token itself")
    add("--key", choices=[a.value for a in DeviceKeyAlgorithm], help="kind of key to make (p256)")
    add("--category", help="what the device is, as the inventory says (shapes its telemetry)")
    add("--log-key", help="verifier key of the log, as in log.vkey of the installation")
    add("--serial", help="request: the maker's serial number for the IDevID request")
    add("--count", type=int, default=5, help="telemetry lines for one connection, or batches for run (5; 0: for ever)")
    add("--interval", type=float, default=0.0, help="seconds between batches in run")
    add("--connections", type=int, default=1, help="connect: how many, one after the other")
    add("--resume", action="store_true", help="connect: resume the TLS session from the second connection on")
    add("--force", action="store_true", help="enrol or renew also when it is not due")
    add("--patience", type=float, default=10.0, help="seconds to wait for a connection (10)")
    add("--attempts", type=int, default=8, help="run: tries in a row before giving up (8)")
    add("--json", action="store_true", dest="as_json", help="results as one JSON object a line")
    add("--unsafe-clock-offset", type=float, default=0.0, help="pretend the clock is off by so many seconds")
    return Options(**vars(parser.parse_args(list(arguments))))


if __name__ == "__main__":
    main()
