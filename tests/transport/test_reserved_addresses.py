"""Addresses that a process binds at its start: one in use is told at once, and no caller is kept waiting."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from tests.simulator.refusals import refuses
from vagus.errors import Misconfigured
from vagus.reasons import Reason
from vagus.transport.reserved_addresses import ReservedAddresses

HOST = "127.0.0.1"


def free_port() -> int:
    with closing(socket.create_server((HOST, 0))) as one:
        port: int = one.getsockname()[1]
    return port


def can_bind(port: int) -> bool:
    """Whether a program that does not ask to share the address gets it."""
    with closing(socket.socket()) as one:
        try:
            one.bind((HOST, port))
        except OSError:
            return False
    return True


def test_an_address_in_use_is_reported_and_the_others_are_let_go() -> None:
    port = free_port()
    with closing(socket.create_server((HOST, 0))) as other:
        taken = other.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"gate cannot listen on {HOST}:{taken} .*choose a free address"):
            ReservedAddresses({"status": (HOST, port), "gate": (HOST, taken)})
    assert can_bind(port)


def test_a_caller_is_refused_until_the_listener_opens() -> None:
    port = free_port()
    with ReservedAddresses({"gate": (HOST, port)}) as reserved:
        assert not can_bind(port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port), 1)
        reserved.release("gate")
        socket.create_server((HOST, port)).close()


def test_what_was_not_opened_is_let_go_at_the_end() -> None:
    port = free_port()
    with ReservedAddresses({"gate": (HOST, port)}):
        assert not can_bind(port)
    assert can_bind(port)


def test_every_address_of_a_host_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(*kind, (host, port)) for host in (HOST, "127.0.0.2")])
    with ReservedAddresses({"gate": ("gate.example", port)}):
        assert not can_bind(port)
        with closing(socket.socket()) as one, pytest.raises(OSError, match="in use"):
            one.bind(("127.0.0.2", port))


def test_a_port_of_zero_and_a_name_that_stays_unheld_change_nothing() -> None:
    with ReservedAddresses({"gate": (HOST, 0), "status": (HOST, 0)}) as reserved:
        (held,) = reserved._held["gate"]
        port: int = held.getsockname()[1]
        reserved.release("another")
        assert not can_bind(port)
        reserved.release("gate")
        assert can_bind(port)


def test_a_host_that_is_not_of_this_machine_is_reported() -> None:
    with refuses(Reason.BAD_SETTINGS, Misconfigured):
        ReservedAddresses({"gate": ("192.0.2.1", 8443)})


def test_an_address_that_the_host_does_not_have_keeps_no_other_one_from_being_bound() -> None:
    elsewhere = ("192.0.2.1", 0)  # TEST-NET-1, RFC 5737: no host has it
    with ReservedAddresses({"one": elsewhere, "two": (HOST, 0)}) as reserved:
        assert list(reserved.absent) == ["one"]
        assert "one cannot listen on 192.0.2.1:0" in reserved.absent["one"]
    with ReservedAddresses({"two": (HOST, 0)}) as reserved:
        assert reserved.absent == {}
    with pytest.raises(Misconfigured, match=r"cannot listen on 192\.0\.2\.1:0"):
        ReservedAddresses({"one": elsewhere})
