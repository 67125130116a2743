"""What a lint is and how one is registered; knows no document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from vagus.x509.lints.parsed_tbs import Draft


@dataclass(frozen=True, slots=True)
class Lint:
    """One rule: its id, the document and clause that impose it, and a check that says what is wrong, or None."""

    id: str
    document: str
    clause: str
    check: Callable[[Draft], str | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a draft breaks."""

    lint: Lint
    text: str

    def __str__(self) -> str:
        return f"{self.lint.id} ({self.lint.document} {self.lint.clause}): {self.text}"


class Document:
    """The lints that one document imposes, in the order of their writing."""

    def __init__(self, title: str, prefix: str) -> None:
        self.title = title
        self.lints: list[Lint] = []
        self._prefix = prefix

    def lint(self, name: str, clause: str) -> Callable[[Callable[[Draft], str | None]], Callable[[Draft], str | None]]:
        """Registers the decorated check as `<prefix>-<name>`."""

        def register(check: Callable[[Draft], str | None]) -> Callable[[Draft], str | None]:
            self.lints.append(Lint(f"{self._prefix}-{name}", self.title, clause, check))
            return check

        return register
