"""The refusal of a call, for tests that expect one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from vagus.errors import VagusError
from vagus.reasons import Reason

_Error = TypeVar("_Error", bound=VagusError)


@contextmanager
def refuses(
    kind: type[_Error] | tuple[type[_Error], ...], reason: Reason, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[_Error]]:
    """Expect an error of this kind, with this reason, from the block."""
    with pytest.raises(kind, match=match) as refusal:
        yield refusal
    assert refusal.value.reason is reason


def reason_of(
    act: Callable[..., object],
    *given: object,
    error: type[VagusError] = VagusError,
    match: str | None = None,
    **named: object,
) -> Reason:
    """The reason of the `error` that `act` raises for these arguments; its message must match `match`."""
    with pytest.raises(error, match=match) as caught:
        act(*given, **named)
    return caught.value.reason
