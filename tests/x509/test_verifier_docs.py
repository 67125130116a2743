"""docs/verifier.md says what the code does: every switch, every reason, every class of disagreement."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.x509.disagreements import OPENSSL, PYHANKO
from tests.x509.rule_sets import PROFILES
from vagus.x509.paths.rules import PathRules

_REPOSITORY = Path(__file__).parents[2]
_DOC = (_REPOSITORY / "docs" / "verifier.md").read_text(encoding="utf-8")
_VERIFIER = ("trust", "x509/paths", "x509/names")
_VERIFIER_MODULES = (
    "budgets",
    "certificates",
    "crls/decoding",
    "crls/scope",
    "der",
    "extensions",
    "ocsp/checks",
    "ocsp/messages",
    "signatures",
)
_PACKAGE = _REPOSITORY / "src" / "vagus"
_SOURCES = [
    *(path for folder in _VERIFIER for path in (_PACKAGE / folder).glob("*.py")),
    *(_PACKAGE / "x509" / f"{name}.py" for name in _VERIFIER_MODULES),
]


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return "any" if value is None else "-" if value == 0 else str(value)


@pytest.mark.parametrize("switch", [field.name for field in fields(PathRules) if field.name != "name"])
def test_the_table_of_profiles_is_the_code(switch: str) -> None:
    row = next(line for line in _DOC.splitlines() if line.startswith(f"| `{switch}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1], "a switch without its clause"
    assert cells[2:] == [shown(getattr(rules, switch)) for rules in PROFILES.values()]


def test_every_reason_of_the_verifier_is_documented() -> None:
    table = _DOC[_DOC.index("## 6. Reason codes") : _DOC.index("## 7. Conformance")]
    given = {found for path in _SOURCES for found in re.findall(r"Reason\.([A-Z_]+)", path.read_text(encoding="utf-8"))}
    assert given <= set(re.findall(r"[A-Z][A-Z_]{3,}", table))


def test_every_class_of_disagreement_is_documented() -> None:
    for one in (*OPENSSL, *PYHANKO):
        assert one.name in _DOC
