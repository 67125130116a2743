"""A table of routes: what it refuses by itself, and how several tables share a listener."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest

from tests.endpoints.calls import call
from vagus.endpoints.routing import Request, Response, Route, RouteTable, mount, under_prefix
from vagus.errors import NotAuthorised
from vagus.reasons import Reason


async def show(request: Request) -> Response:
    return Response(HTTPStatus.OK, b"text/plain", request.found[1].encode())


async def echo(request: Request) -> Response:
    return Response(HTTPStatus.OK, b"text/plain", await request.read_body())


async def refuse(_request: Request) -> Response:
    raise NotAuthorised(Reason.CREDENTIAL_MISSING, "show a credential")


SHOW = Route(re.compile(r"/show/([a-z]+)\Z"), show)
ECHO = Route(re.compile(r"/echo\Z"), echo, ("POST",), media_type="text/x-word", body_limit=10)
TABLE = RouteTable((SHOW, ECHO, Route(re.compile(r"/refuse\Z"), refuse)), challenge=b"Basic")
TERSE = RouteTable((Route(re.compile(r"/terse/([a-z]+)\Z"), show),), root="/terse/", is_terse=True)


def test_head_has_the_length_of_the_body_and_no_body() -> None:
    assert call(TABLE, "GET", "/show/word").body == b"word"
    answer = call(TABLE, "HEAD", "/show/word")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "4", b"")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "field"),
    [
        ("GET", "/other", {}, 404, {}),
        ("POST", "/show/word", {}, 405, {"allow": "GET, HEAD"}),
        ("GET", "/echo", {}, 405, {"allow": "POST"}),
        ("POST", "/echo", {}, 415, {"accept": "text/x-word"}),
        ("POST", "/echo", {"Content-Type": "text/x-words"}, 415, {"accept": "text/x-word"}),
        ("POST", "/echo", {"Content-Type": "Text/X-Word; charset=utf-8"}, 413, {"connection": "close"}),
        ("GET", "/refuse", {}, 401, {"www-authenticate": "Basic"}),
    ],
)
def test_a_refusal_has_its_status_and_its_field(
    method: str, path: str, headers: dict[str, str], status: int, field: dict[str, str]
) -> None:
    answer = call(TABLE, method, path, b"eleven byte", headers=headers)
    assert (answer.status, answer.problem.status) == (status, status)
    assert field.items() <= answer.headers.items()


def test_a_terse_table_hides_its_methods() -> None:
    assert call(TERSE, "GET", "/terse/word").body == b"word"
    for method, path in (("POST", "/terse/word"), ("GET", "/terse/9")):
        answer = call(TERSE, method, path)
        assert (answer.status, answer.headers, answer.body) == (404, {"content-length": "0"}, b"")


def test_tables_share_a_listener_by_their_roots_and_the_last_one_has_the_rest() -> None:
    app = mount(TERSE, TABLE)
    assert call(app, "GET", "/terse/word").body == b"word"
    assert call(app, "GET", "/show/word").body == b"word"
    assert call(app, "GET", "/terse/9").body == b""
    assert call(app, "GET", "/other").problem.reason == "NOT_FOUND"


def test_a_prefix_is_taken_off_and_paths_without_it_are_served_too() -> None:
    app = under_prefix("/pki", TABLE)
    assert call(app, "GET", "/pki/show/word").body == call(app, "GET", "/show/word").body == b"word"
    assert call(app, "GET", "/pkishow/word").status == 404
