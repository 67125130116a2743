"""The base of every class of operations: it holds the installation's components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vagus.components import Components


@dataclass(frozen=True, slots=True)
class Acts:
    """What an operator may do with one kind of thing. Every public method first checks that the actor may do it."""

    components: Components
