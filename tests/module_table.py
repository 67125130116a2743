"""Writes the index of modules in docs/architecture.md from the docstrings of src: `python -m tests.module_table`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: begin -->\n", "<!-- modules: end -->\n"


def build_table() -> str:
    """One Markdown table for each package: module, purpose (the docstring's first paragraph), public names."""
    modules = sorted((ROOT / "src").rglob("*.py"), key=lambda path: (path.parent.parts, path.name))
    return "\n".join(
        _build_package(package, list(files)) for package, files in groupby(modules, key=lambda path: path.parent)
    )


def replace_table(page: str) -> str:
    """`page` with the table between the two marks made anew."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{build_table()}\n{END}{rest.partition(END)[2]}"


def _build_package(package: Path, files: list[Path]) -> str:
    purpose = next(_read_purpose(path) for path in files if path.name == "__init__.py")
    rows = [
        f"| `{path.name}` | {_read_purpose(path)} | {', '.join(_list_names(path))} |"
        for path in files
        if path.name != "__init__.py"
    ]
    table = ["| module | purpose | defines |", "|---|---|---|", *rows, ""] if rows else []
    return "\n".join([f"### `{package.relative_to(ROOT / 'src')}/`", "", purpose, "", *table])


def _read_purpose(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def _list_names(path: Path) -> Iterator[str]:
    """The public functions of a module, and its public classes with their public methods."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield f"`{node.name}`"
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            methods = [
                one.name
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and not one.name.startswith("_")
            ]
            yield f"`{node.name}`" + (f" ({', '.join(methods)})" if methods else "")


if __name__ == "__main__":
    PAGE.write_text(replace_table(PAGE.read_text()))
