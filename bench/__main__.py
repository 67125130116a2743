"""Runs every benchmark that is here, prints a table and writes JSON; judges nothing but bars that design section 9 names."""

from __future__ import annotations

import importlib
import json
import pkgutil
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import bench
from bench.rows import Row

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the benchmarks named on the command line, or all."""
    wanted = set(sys.argv[1:])
    found = [module.name for module in pkgutil.iter_modules(bench.__path__) if module.name not in {"rows", "__main__"}]
    rows: list[Row] = []
    for name in found:
        if not wanted or name in wanted:
            print(f"bench: {name} …", flush=True)
            module = importlib.import_module(f"bench.{name}")
            if hasattr(module, "rows"):
                rows += module.rows()
    table = Table("path", "figure", "limit in the same run", "ratio", "bar", "met", "note")
    for row in rows:
        bar = f"{row.bar:,g}" if row.bar is not None else f"{row.bar_ratio:.0%}" if row.bar_ratio is not None else ""
        met = {True: "yes", False: "NO", None: ""}[row.is_met]
        limit = f"{row.limit:,.6g} {row.limit_name}"
        table.add_row(row.path, f"{row.figure:,.6g} {row.unit}", limit, f"{row.ratio:.2f}", bar, met, row.note)
    Console(width=200).print(table)
    RESULTS.mkdir(exist_ok=True)
    machine = {"machine": platform.machine(), "python": platform.python_version(), "system": platform.system()}
    report = {**machine, "rows": [row.as_json() for row in rows]}
    (RESULTS / "latest.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
