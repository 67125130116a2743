"""Host and port as one text: every address that is written can be read back, and an IPv6 address stands in brackets."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus.addresses import join_address, spell_host, split_address
from vagus_agent.routes import Route

PORTS = st.integers(0, 65_535)


@given(st.ip_addresses().map(str) | st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True), PORTS)
def test_what_is_written_is_read_back_by_us_and_by_a_url_parser(host: str, port: int) -> None:
    text = join_address(host, port)
    assert split_address(text) == (host, port)
    parts = urlsplit(f"http://{text}")
    assert (parts.hostname, parts.port) == (host, port)


@given(st.ip_addresses(v=6), st.integers(1, 65_535))
def test_an_agents_route_is_read_back(address: ipaddress.IPv6Address, port: int) -> None:
    for text in (f"[{address}]:{port}", f"tcp://enrol.h1.example=[{address.exploded}]:{port}"):
        route = Route.parse(text)
        assert (route.address, route.port) == (str(address), port)
        assert Route.parse(str(route)) == route


@pytest.mark.parametrize(
    ("given_", "seen"),
    [
        ("[::1]:18943", ("::1", 18943)),
        ("[2001:DB8:0:0::1]:1", ("2001:db8::1", 1)),
        ("[::ffff:192.0.2.1]:1", (str(ipaddress.IPv6Address("::ffff:192.0.2.1")), 1)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("a-b.example:80", ("a-b.example", 80)),
    ],
)
def test_forms_that_are_read(given_: str, seen: tuple[str, int]) -> None:
    assert split_address(given_) == seen


@pytest.mark.parametrize(
    "text", ["::1:18943", "[::1]", "[::1:18943", "::1]:18943", "[:::1]:80", "[127.0.0.1]:80", "[a.example]:80", ":80"]
)
def test_an_ipv6_address_without_its_brackets_and_brackets_without_one_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"correct it"):
        split_address(text)


def test_a_host_field_has_brackets_around_an_ipv6_address_alone() -> None:
    assert [spell_host(one) for one in ("::1", "127.0.0.1", "a.example")] == ["[::1]", "127.0.0.1", "a.example"]
    assert Route.parse("[2001:DB8::7]:443").host == "[2001:db8::7]"
