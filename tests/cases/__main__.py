# ruff: noqa: T201  a command speaks on its output
"""`python -m tests.cases FOLDER...`: judges each case of these folders; exit 0 only if every one passes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.cases.case import judge, load_cases
from tests.cases.registry import CHECKS
from tests.cases.workshop import Workshop


def main(arguments: list[str] | None = None) -> int:
    """0: all passed; 1: a case failed; 2: there is nothing to judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.cases", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="a folder of cases, or one case")
    options = parser.parse_args(arguments)
    for folder in options.folders:
        if not folder.is_dir():
            print(f"{folder} is no folder; give a folder of cases", file=sys.stderr)
            return 2
    cases = [case for folder in options.folders for case in load_cases(folder)]
    failed = 0
    with Workshop.new() as workshop:
        for case in cases:
            verdict = judge(case, CHECKS, workshop)
            print(verdict.line, flush=True)
            failed += bool(verdict.faults)
    print(f"{len(cases) - failed} of {len(cases)} cases passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
