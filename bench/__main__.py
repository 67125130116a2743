"""Runs every benchmark that is here, prints JSON and a table; judges nothing but bars that the design names."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console
from rich.table import Table

import bench
from bench.rows import Row

RESULTS = Path(__file__).parent / "results"
_MET = {True: "yes", False: "NO", None: ""}


def main() -> int:
    """Run the benchmarks named on the command line, or all; exit code 1 when one of them could not be run."""
    wanted = set(sys.argv[1:])
    rows: list[Row] = []
    failed: list[str] = []
    for name in _names():
        if wanted and name not in wanted:
            continue
        print(f"bench: {name} …", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            rows += importlib.import_module(f"bench.{name}").rows()
        except Exception:  # noqa: BLE001  one bench that fails must not hide the others' figures
            traceback.print_exc()
            failed.append(name)
        print(f"bench: {name} took {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    report = {**_machine(), "failed": failed, "rows": [row.as_json() for row in rows]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
    _print_table(rows)
    return 1 if failed else 0


def _names() -> list[str]:
    modules = [module.name for module in pkgutil.iter_modules(bench.__path__) if not module.ispkg]
    return [name for name in modules if name not in {"rows", "__main__"}]


def _machine() -> dict[str, object]:
    return {
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _print_table(rows: list[Row]) -> None:
    table = Table("path", "figure", "limit in the same run", "ratio", "bar", "met", "note")
    for row in rows:
        limit = f"{_short(row.limit)} {row.limit_name}"
        table.add_row(
            row.path,
            f"{_short(row.figure)} {row.unit}",
            limit,
            f"{row.ratio:.2f}",
            _bar(row),
            _MET[row.is_met],
            row.note,
        )
    Console(width=200).print(table)


def _bar(row: Row) -> str:
    if row.bar_ratio is not None:
        return f"{row.bar_ratio:.0%}"
    if row.bar is None or row.bar_here is None:
        return ""
    return f"{row.bar:,g}" if row.bar_here == row.bar else f"{row.bar:,g}; here {_short(row.bar_here)}"


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:,.3g}"


if __name__ == "__main__":
    sys.exit(main())
