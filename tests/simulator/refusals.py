"""The refusal of a call, for tests that expect one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from vagus.errors import VagusError
from vagus.reasons import Reason


@contextmanager
def refuses(
    reason: Reason, kind: type[VagusError] | tuple[type[VagusError], ...] = VagusError, *, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[VagusError]]:
    """The block must raise `kind` for `reason`, with a message in which `match` is found."""
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
