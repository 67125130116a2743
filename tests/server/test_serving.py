"""The order of a start: open intents are closed and status is published before the first listener opens."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.simulator.issuing import SOURCE, device_name
from tests.simulator.orders import new_key, order_for, public_key_of
from vagus.errors import Misconfigured
from vagus.operations.devices import find_named
from vagus.records.authorities import list_authorities
from vagus.records.certificates import INTENDED, ISSUED, find_by_request
from vagus.records.publications import find_responder, list_facts
from vagus.server import serving
from vagus.transport.listeners import ListenerSpec
from vagus.wiring import Installation


class SocketsOpenError(Exception):
    """Raised in place of opening sockets."""


def leave_an_intent_open(folder: Path) -> None:
    """As a crash between the commit of an intent and its signature."""
    with Installation.open(folder, passphrase_sources=[SOURCE]) as installation:
        device = find_named(installation.database, device_name(1))
        order = order_for(device.id, "cut", profile=device.profile, public_key=public_key_of(new_key()))
        issuer = installation.open_issuers(["h1/icu"])["h1/icu"]
        installation.issuance.commit(installation.issuance.prepare(order, issuer)).result()
        with installation.database.reading() as connection:
            row = find_by_request(connection, "cut")
        assert row is not None
        assert row.state == INTENDED


def test_what_peers_ask_for_is_there_before_the_first_listener_opens(
    hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_an_intent_open(hospital)
    opened: list[str] = []

    with Installation.open(hospital, passphrase_sources=[SOURCE]) as installation:

        def open_sockets(specs: Sequence[ListenerSpec], **_others: object) -> None:
            opened.extend(spec.name for spec in specs)
            with installation.database.reading() as connection:
                row = find_by_request(connection, "cut")
                (icu,) = [one for one in list_authorities(connection) if one.name == "h1/icu"]
                assert row is not None
                assert row.state == ISSUED, "settled"
                assert list_facts(connection, icu.id), "its CRLs are signed"
                assert find_responder(connection, icu.id) is not None
            assert (hospital / "published" / "crl" / "h1.icu" / "1" / "0.crl").exists()
            assert (hospital / "log" / "checkpoint").exists()
            names = {thread.name for thread in threading.enumerate()}
            assert not names & {"vagus-upkeep", "vagus-ledger", "vagus-work"}, "no task runs beside the start"
            raise SocketsOpenError

        monkeypatch.setattr(serving, "run", open_sockets)
        with pytest.raises(SocketsOpenError):
            serving.serve(installation, issue_for=["h1/icu", "h1/infra"], is_status_only=False, ready=lambda _: None)
    assert set(opened) == {"status", "enrol"}


def test_an_address_in_use_is_reported_before_any_key_is_opened(
    hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_none(*_arguments: object, **_others: object) -> None:
        raise AssertionError("a key is opened")

    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        with (hospital / "vagus.toml").open("a") as settings:
            settings.write(f'addresses = {{ enrol = "127.0.0.1:{other.getsockname()[1]}" }}\n')
        with Installation.open(hospital, passphrase_sources=[SOURCE]) as installation:
            monkeypatch.setattr(installation, "open_issuers", open_none)
            with pytest.raises(Misconfigured, match=r"listener enrol cannot listen on .*choose a free address"):
                serving.serve(installation, issue_for=["all"], is_status_only=False, ready=lambda _: None)


def test_a_start_reports_its_steps(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_arguments: object, **_others: object) -> None:
        raise SocketsOpenError

    said: list[str] = []
    monkeypatch.setattr(serving, "run", stop)
    with Installation.open(hospital, passphrase_sources=[SOURCE]) as installation, pytest.raises(SocketsOpenError):
        serving.serve(installation, issue_for=["all"], is_status_only=False, ready=lambda _: None, say=said.append)
    assert said == ["opening the keys of 3 authorities", "signing CRLs and OCSP responders that are due"]
