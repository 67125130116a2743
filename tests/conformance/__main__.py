# ruff: noqa: T201  a command speaks on its output
"""`python -m tests.conformance SUITE_DIR`: exit 0 only if nothing is wrong beyond the exclusions."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.conformance import boringssl, corpora, limbo, ocsp, pkits
from tests.conformance.verdicts import Suite, Tally, count, load_exclusions

EXCLUSIONS = Path(__file__).parent / "exclusions.toml"
SUITES: dict[str, Suite] = {
    "limbo": limbo.run,
    "pkits": pkits.run,
    "boringssl-pki": boringssl.run,
    "ocsp-openssl": ocsp.run,
    "pqc": corpora.run_pqc,
    "wycheproof": corpora.run_wycheproof,
    "openssl-fuzz": corpora.run_fuzz,
    "zlint": corpora.run_zlint,
}


def main(arguments: list[str] | None = None) -> int:
    """Run every suite whose folder is there, say which are not."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("suite_dir", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--only", action="append", choices=sorted(SUITES), help="run this suite alone (repeatable)")
    parser.add_argument("--show-unsupported", action="store_true", help="name each unsupported case")
    options = parser.parse_args(arguments)
    exclusions = load_exclusions(EXCLUSIONS)
    tallies = []
    for name, run in SUITES.items():
        if options.only and name not in options.only:
            continue
        folder = options.suite_dir / name
        if not folder.is_dir():
            print(f"{name:14} not run: {folder} is missing")
            continue
        started = time.process_time()
        tally = count(name, run(folder), exclusions)
        tallies.append(tally)
        _print(tally, time.process_time() - started, show_unsupported=options.show_unsupported)
    if options.json:
        options.json.write_text(json.dumps([tally.as_json() for tally in tallies], indent=1), encoding="utf-8")
    if not tallies:
        print("nothing was run; give a folder laid out like the vectors")
        return 2
    clean = all(tally.is_clean for tally in tallies)
    print("nothing wrong beyond the exclusions" if clean else "WRONG CASES, see above")
    return 0 if clean else 1


def _print(tally: Tally, seconds: float, *, show_unsupported: bool) -> None:
    print(
        f"{tally.suite:14} cases {tally.cases:6}  right accepts {tally.right_accepts:5}"
        f"  right refusals {tally.right_refusals:5}  answered {tally.answered:5}"
        f"  false accepts {tally.false_accepts:3}  false refusals {tally.false_refusals:3}"
        f"  crashes {tally.crashes:2}  unsupported {tally.unsupported:4}  [{seconds:.1f} s CPU]"
    )
    for case in tally.wrong:
        print(f"    WRONG {case.name}: expected {case.expected}, {case.got} {case.reason}")
    for case, entry in tally.excluded:
        print(f"    excluded {case.name}: {case.got} {case.reason}; {entry.clause}")
    if show_unsupported:
        for name in tally.unsupported_names:
            print(f"    unsupported {name}")


if __name__ == "__main__":
    sys.exit(main())
