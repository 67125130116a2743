from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from vagus.testing import NOON, SeededEntropy
from vagus_agent.telemetry import SIGNALS, TelemetrySource, signals_for

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("category", [*SIGNALS, "something-new"])
def test_lines_are_compact_json_within_plausible_bounds(category: str) -> None:
    source = TelemetrySource("pump-1", category, SeededEntropy(3))
    lines = source.lines(50, NOON).splitlines()
    bounds = {f"{s.name} [{s.unit}]": s for s in signals_for(category)}
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        assert (record["device"], record["category"], record["sequence"]) == ("pump-1", category, number)
        assert set(record["values"]) == set(bounds)
        assert all(bounds[name].low <= value <= bounds[name].high for name, value in record["values"].items())


def test_values_move() -> None:
    source = TelemetrySource("pump-1", "infusion-pump", SeededEntropy(4))
    first, *_, last = (json.loads(line)["values"] for line in source.lines(30, NOON).splitlines())
    assert first != last


def test_every_category_of_the_example_plan_has_signals_of_its_own() -> None:
    plan = tomllib.loads((EXAMPLES / "five-hospitals.toml").read_text("utf-8"))
    assert {model["category"] for model in plan["models"]} <= set(SIGNALS)
