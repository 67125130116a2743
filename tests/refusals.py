"""One refusal with its reason, which is what most tests of a check assert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vagus.errors import VagusError
from vagus.reasons import Reason


@contextmanager
def refuses(
    reason: Reason, kind: type[VagusError] = VagusError, *, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[VagusError]]:
    """The block must raise `kind` for `reason`, with a message in which `match` is found."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert caught.value.reason is reason
