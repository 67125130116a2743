"""The house rules that no linter knows: sizes, names, opening sentences, and a test for every file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if "migrations" not in path.parts)
FORBIDDEN = {"manager", "service", "handler", "utils", "core", "common", "helpers", "util", "helper", "misc"}
names = [str(path.relative_to(ROOT)) for path in SOURCES]


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_a_file_is_short_has_a_purpose_and_no_empty_name(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    room = path.relative_to(ROOT / "src").parts
    assert text.count("\n") < (400 if "fleet" in room else 500), "split the file: the house keeps them short"
    assert ast.get_docstring(tree), "a module opens with its purpose"
    assert path.stem not in FORBIDDEN, "name the module for its thing, not for a pattern"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            assert size <= 60, f"{node.name} has {size} lines; 60 is the limit"


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_nothing_is_left_half_done(path: Path) -> None:
    marks = re.findall(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b", path.read_text())
    assert not marks, f"{marks}: finish it or say so in the closing note"


def test_no_two_files_import_each_other() -> None:
    """Not even for the names of types: one of them has what a third should."""
    imported: dict[str, set[str]] = {}
    for path in SOURCES:
        found = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        imported[name] = {f"{node.module}.{one.name}" for node in found for one in node.names}
        imported[name] |= {whole.rpartition(".")[0] for whole in imported[name]}
    circles = [(one, other) for one, others in imported.items() for other in others if one in imported.get(other, ())]
    assert not circles


def test_no_committed_file_names_a_package_index_or_a_home_folder() -> None:
    for path in [*ROOT.glob("requirements/*"), ROOT / "pyproject.toml"]:
        assert not re.search(r"index-url|find-links|://[^\s\"']*/simple|^-e ", path.read_text(), re.MULTILINE), path
