"""One call that asks the path search, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from tests.simulator.refusals import reason_of
from tests.x509.chains import AT, CLIENT_AUTH, Made
from vagus.x509.budgets import DEFAULT_LIMITS, Limits
from vagus.x509.der import oid_contents
from vagus.x509.paths.checks import PathInputs
from vagus.x509.paths.policies import PolicyInputs
from vagus.x509.paths.rules import PKIX, PathRules
from vagus.x509.paths.search import Pool, Search, ValidPath, find_path
from vagus.x509.signatures import SignatureVerdicts


def walk(
    target: Made,
    sent: Sequence[Made],
    anchors: Sequence[Made],
    rules: PathRules = PKIX,
    *,
    at: datetime = AT,
    purpose: str | None = CLIENT_AUTH,
    policy: PolicyInputs | None = None,
    longest_path: int = 16,
    limits: Limits = DEFAULT_LIMITS,
    accept: Callable[[ValidPath], None] | None = None,
    is_public_suffix: Callable[[str], bool] | None = None,
) -> ValidPath:
    """The path, or the error."""
    inputs = PathInputs(
        at=at,
        purposes=frozenset() if purpose is None else frozenset({oid_contents(purpose)}),
        policy=policy or PolicyInputs(),
        longest_path=longest_path,
        is_public_suffix=is_public_suffix,
    )
    search = Search(
        pool=Pool([anchor.anchor for anchor in anchors]),
        extra=Pool((), [made.parsed for made in sent]),
        rules=rules,
        inputs=inputs,
        verdicts=SignatureVerdicts(),
        limits=limits,
        accept=accept,
    )
    return find_path(target.parsed, search)


refusal = partial(reason_of, walk)
"""The reason for which `walk` refuses the same arguments."""
