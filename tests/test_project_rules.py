"""The project's rules that no linter knows: sizes, names, plain words, and citations that lead somewhere."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests import module_table

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if "migrations" not in path.parts)
PACKAGES = sorted({path.parent for path in SOURCES})
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EMPTY_NAMES = {"manager", "service", "handler", "utils", "core", "common", "helpers", "util", "helper", "misc"}

PRIVATE_WORDS = (
    "lateness",
    "glance",
    "guests?",
    "doors?",
    "house",
    "octets?(?!-stream| string)",
    "whoever",
    "nobody",
    "somebody",
    "at sight",
    "tongue",
    "OCSP answers?",
    "design(, | )section",
    "Experiments",
)
"""Regular expressions of whole words that docs/glossary.md replaces by the field's own terms."""
PENDING: tuple[str, ...] = ()
"""Words that are still in use. Move each to PRIVATE_WORDS once its last use is gone; this tuple ends empty."""
NAMES_ON_DISK = ("house", "octets")
"""Names in files, databases, URLs and JSON that keep the spelling of v0.1.0; allowed alone in backticks or quotes."""


def _named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", SOURCES, ids=_named(SOURCES))
def test_a_file_is_short_has_a_purpose_and_no_empty_name(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    package = path.relative_to(ROOT / "src").parts
    assert text.count("\n") < (400 if "fleet" in package else 500), "split the file: files are short here"
    assert ast.get_docstring(tree), "a module opens with its purpose"
    assert path.stem not in EMPTY_NAMES, "name the module for its purpose, not for a pattern"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            assert size <= 60, f"{node.name} has {size} lines; 60 is the limit"
    marks = re.findall(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b", text)
    assert not marks, f"{marks}: finish it or say so in the closing note"


@pytest.mark.parametrize("package", PACKAGES, ids=_named(PACKAGES))
def test_a_package_has_at_most_twenty_files(package: Path) -> None:
    files = [path for path in package.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= 20, "cut the package by purpose"


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


@pytest.mark.parametrize("word", PRIVATE_WORDS)
def test_a_private_word_stands_in_no_comment_docstring_message_or_page(word: str) -> None:
    pattern = re.compile(rf"(?<![\w`./-])(?:{word})(?![\w`/])", 0 if word[0].isupper() else re.IGNORECASE)
    uses = []
    spared = re.compile(rf"`(?:{'|'.join(NAMES_ON_DISK)})`|^\"(?:{'|'.join(NAMES_ON_DISK)})\"$")
    for place, whole in _prose():
        text = spared.sub("", whole)
        if (found := pattern.search(text)) is not None:
            uses.append(f"{place}: {text[max(0, found.start() - 40) : found.end() + 20]!r}")
    assert not uses, "say it in the field's words (docs/glossary.md):\n" + "\n".join(uses)


@cache
def _prose() -> list[tuple[str, str]]:
    """Every comment and string of the sources and every line of the pages, with its place."""
    return [*_source_texts(), *_page_lines()]


def _source_texts() -> Iterator[tuple[str, str]]:
    for path in SOURCES:
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type in {tokenize.COMMENT, tokenize.STRING}:
                yield f"{path.relative_to(ROOT)}:{token.start[0]}", token.string


def _page_lines() -> Iterator[tuple[str, str]]:
    """Without the glossary's own column of words that are not used."""
    for path in PAGES:
        if path.name in {"CHANGELOG.md", "glossary.md"}:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def test_a_cited_document_exists() -> None:
    """Paths are from the root; an ADR is cited by its number. bench/results are made by each run."""
    known = {path.name[:4] for path in (ROOT / "docs" / "adr").glob("*.md")}
    wrong = []
    for place, text in _prose():
        paths = re.findall(r"(?<![\w./-])((?:docs|tests|src|examples|bench(?!/results))/[\w./-]*\w)", text)
        wrong += [
            f"{place}: {one}" for one in paths if not (ROOT / one).exists() and not list(ROOT.glob(f"{one}-*.md"))
        ]
        wrong += [f"{place}: ADR {one}" for one in re.findall(r"\bADR[ -](\d{4})", text) if one not in known]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=_named(PAGES))
def test_a_relative_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_no_committed_file_names_a_package_index_or_a_home_folder() -> None:
    for path in [*ROOT.glob("requirements/*"), ROOT / "pyproject.toml"]:
        assert not re.search(r"index-url|find-links|://[^\s\"']*/simple|^-e ", path.read_text(), re.MULTILINE), path


def test_the_index_of_modules_is_true() -> None:
    page = module_table.PAGE.read_text()
    assert page == module_table.replace_table(page), "run: python -m tests.module_table"
