"""The reason for which a call is refused, for tests that expect a refusal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vagus.errors import VagusError
from vagus.reasons import Reason


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
