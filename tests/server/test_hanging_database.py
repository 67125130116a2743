"""A PostgreSQL that does not respond: a status node sends CRLs and cached responses, and refuses the rest in time."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from sqlalchemy import make_url

from tests.endpoints.calls import ask
from tests.postgres import fresh_database, postgres_server
from tests.simulator.installation import Installation, new_installation
from tests.simulator.publishing import first_publication, open_publishing
from tests.simulator.status_listeners import question
from vagus.authority.crls.published import FRESH_SECONDS, PublishedCrls
from vagus.endpoints.revocation_status import OcspReplies, status_app

pytestmark = pytest.mark.interop
PATIENCE = 60.0
POST = {"Content-Type": "application/ocsp-request"}


class Relay:
    """In front of the server's socket. While it is frozen it holds all bytes back; it sends them when it thaws."""

    def __init__(self, folder: Path, server: Path) -> None:
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / server.name))
        self._listener.listen(50)
        self._flows = threading.Event()
        self._flows.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self.thaw()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server))
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    self._flows.wait()
                    try:
                        data = source.recv(65536)
                        (server if source is client else client).sendall(data)
                    except OSError:
                        return
                    if not data:
                        return


@contextmanager
def relayed(folder: Path) -> Iterator[tuple[Relay, str]]:
    """A relay before a fresh database, and the url that leads through it."""
    with postgres_server() as server, fresh_database(server) as url:
        host = make_url(url).query.get("host")
        if not isinstance(host, str) or not host.startswith("/"):
            pytest.skip("this server has no Unix socket to stand before")
        relay = Relay(folder, Path(host) / ".s.PGSQL.5432")
        try:
            yield relay, url.replace(host, str(folder))
        finally:
            relay.close()


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple[Relay, Installation]]:
    sockets = tmp_path / "s"
    sockets.mkdir()
    with relayed(sockets) as (relay, url), new_installation(tmp_path / "clinic", url) as built:
        yield relay, built
        relay.thaw()


def test_a_status_node_goes_on_over_a_database_that_does_not_respond(hanging: tuple[Relay, Installation]) -> None:
    relay, built = hanging
    first_publication(built)
    clinic = open_publishing(built)
    lists = PublishedCrls(built.database, built.clock, fresh_seconds=FRESH_SECONDS)
    app = status_app(publications=lists, ocsp=OcspReplies(clinic.responses, built.clock, timedelta(seconds=60)))
    kept, new = (question(clinic.issue()) for _ in range(2))

    async def status_of(request_der: bytes) -> ocsp.OCSPResponse:
        return ocsp.load_der_ocsp_response((await ask(app, "POST", "/ocsp", request_der, headers=POST)).body)

    async def fetch() -> int:
        answer = await ask(app, "GET", "/crl/h1.icu/1/0.crl")
        x509.load_der_x509_crl(answer.body)
        return answer.status

    async def go_on() -> None:
        lists.refresh()
        assert (await status_of(kept)).certificate_status is ocsp.OCSPCertStatus.GOOD
        relay.freeze()
        assert await fetch() == 200, "from memory, which is fresh"
        looked = asyncio.get_running_loop().run_in_executor(threads, lists.refresh)
        while not looked.done():
            assert await fetch() == 200, "while a look hangs"
            assert (await status_of(kept)).certificate_status is ocsp.OCSPCertStatus.GOOD
            await asyncio.sleep(0.05)
        assert lists.state().is_away
        assert await fetch() == 200
        assert (await status_of(new)).response_status is ocsp.OCSPResponseStatus.TRY_LATER
        relay.thaw()
        while lists.state().is_away:  # until the follower has read, and BOUNDED_READ_SECONDS at least, nobody asks
            await asyncio.sleep(0.1)
            await asyncio.get_running_loop().run_in_executor(threads, lists.refresh)
        assert (await status_of(new)).certificate_status is ocsp.OCSPCertStatus.GOOD

    follower = clinic.responses.follower
    follower.start()
    try:
        with ThreadPoolExecutor() as threads:
            asyncio.run(asyncio.wait_for(go_on(), PATIENCE))
    finally:
        relay.thaw()
        follower.close()
