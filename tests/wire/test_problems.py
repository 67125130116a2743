"""Problem documents carry the reason and the sentence, never the facts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import LimitExceeded, Malformed, NotAuthorised, VagusError
from vagus.reasons import Reason
from vagus.wire import problems


def test_an_error_becomes_a_problem_and_is_read_back() -> None:
    error = NotAuthorised(Reason.TOKEN_REUSED, "the token was used with another key; ask for a new one", device="x")
    problem = problems.problem_from(error, 403)
    body = problems.encode_problem(problem)
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "the token was used with another key; ask for a new one",
        "reason": "TOKEN_REUSED",
    }
    assert problems.decode_problem(body) == problem


@given(st.sampled_from([400, 403, 503]), st.text(max_size=50), st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_every_problem_comes_back(status: int, reason: str, detail: str) -> None:
    problem = problems.Problem(status, reason, detail)
    assert problems.decode_problem(problems.encode_problem(problem)) == problem


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_decode_or_are_refused_by_our_own_error(body: bytes) -> None:
    with pytest.raises(VagusError):
        problems.decode_problem(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"status":200,"reason":"A","detail":"b"}', b"[" * 5000, b'{"status":"400"}', b"\xff"],
)
def test_what_is_no_problem_document_is_refused(body: bytes) -> None:
    assert reason_of(problems.decode_problem, body, error=Malformed) is Reason.BAD_ENCODING


def test_a_huge_document_is_refused() -> None:
    with refuses(Reason.TOO_LARGE, LimitExceeded):
        problems.decode_problem(b" " * (problems.MAX_PROBLEM + 1))
