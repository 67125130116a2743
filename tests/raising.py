"""Expects an error of this project by its class and its reason code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from vagus.errors import VagusError
from vagus.reasons import Reason

E = TypeVar("E", bound=VagusError)


@contextmanager
def raising(kind: type[E], reason: Reason) -> Iterator[pytest.ExceptionInfo[E]]:
    """The block raises `kind` with `reason`; yields what `pytest.raises` yields, for its message and facts."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.reason is reason
