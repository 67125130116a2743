"""One TLS connection as bytes in and bytes out, for either side; owns no socket, no timer and no trust."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from OpenSSL import SSL, crypto

# a private name of pyOpenSSL, for one function; tests/tls/test_stream.py checks that it works
from OpenSSL._util import lib as _openssl

from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.tls.peer import Peer
from vagus.tls.resumption import ChainMemory

_RECORD = 16_384  # the most plaintext that one TLS record holds (RFC 8446 5.1)
_HEADER = 5


@dataclass(frozen=True, slots=True)
class Session:
    """A resumable session of a client; opaque."""

    value: SSL.Session = field(repr=False)


class TlsStream:
    """Pull style: `feed` ciphertext, `handshake` until True, then `read` and `write`; `take` is for the socket.

    Take after every call, failures included: an alert or the reply to a KeyUpdate may be waiting. Nothing is read
    ahead of the caller, so a caller applies backpressure by not reading.

    States: handshake (until `handshake` returns True), open, closed by the peer (`read` returns b""), failed (every
    call raises). OpenSSL owns the state; this class owns two counters beside it, and one thread owns the object.
    `_records` counts whole or begun records that were fed and not read, `_skip` how many bytes of the last one are
    still missing. From both, `read` knows without OpenSSL that no whole record is left.
    """

    __slots__ = ("_connection", "_is_server", "_memory", "_records", "_skip", "has_answer")

    def __init__(self, connection: SSL.Connection, *, is_server: bool, memory: ChainMemory) -> None:
        self._connection = connection
        self._is_server = is_server
        self._memory = memory
        # The header of a TLS record is not encrypted (RFC 8446 5.1), so records can be counted as they are fed. If none
        # is left, one failing read into OpenSSL is saved for each request. None: the count was lost, so always ask
        # OpenSSL.
        self._skip: int | None = 0
        self._records = 0
        self.has_answer = False
        """The last read found no data: OpenSSL may have queued a reply (KeyUpdate, alert), so take it."""

    def feed(self, data: bytes) -> None:
        """Ciphertext from the socket, in any pieces."""
        if not data:
            return
        self._connection.bio_write(data)
        at, size = self._skip, len(data)
        if at is None:
            return
        while at < size:
            if size - at < _HEADER:
                self._skip = None  # a record header split over two pieces is rare, so stop counting
                return
            at += _HEADER + (data[at + 3] << 8 | data[at + 4])
            self._records += 1
        self._skip = at - size

    def handshake(self) -> bool:
        """Go on with the handshake; True once it is finished.

        Raises NotTrusted(TLS_HANDSHAKE): the other side broke off, does not speak TLS, or shares no version or cipher.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            _fail_handshake(error)
        return True

    def read(self) -> bytes | None:
        """Plaintext of one record; None when more ciphertext is needed, b"" once the other side has closed cleanly.

        Raises Malformed(TLS_HANDSHAKE) for records that do not authenticate, NotTrusted(TLS_HANDSHAKE) for an alert.
        """
        if self._skip is not None and self._records <= (self._skip > 0):
            return None
        try:
            data = self._connection.recv(_RECORD)
        except SSL.WantReadError:
            self._records = 1 if self._skip else 0
            self.has_answer = True
            return None
        except SSL.ZeroReturnError:
            return b""
        except SSL.Error as error:
            _fail_record(error)
        self._records -= 1
        return data

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt; the records wait for `take`. Raises Malformed(TLS_HANDSHAKE) on a connection that has failed."""
        try:
            self._connection.sendall(data)  # a memory BIO takes every byte at once
        except SSL.Error as error:
            _fail_record(error)

    def take(self, hint: int = 65_536) -> bytes:
        """All ciphertext that waits for the socket; `hint` is about how much the caller expects."""
        self.has_answer = False
        size = max(hint, 4096)
        parts = []
        with suppress(SSL.WantReadError):
            while True:
                part = self._connection.bio_read(size)
                parts.append(part)
                if len(part) < size:
                    break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Queue close_notify: we send nothing more (RFC 8446 6.1). Reading may go on."""
        with suppress(SSL.Error):
            self._connection.shutdown()

    def peer(self) -> Peer:
        """Who is on the other side, once the handshake is finished."""
        connection = self._connection
        # pyOpenSSL cannot tell whether a session was resumed when there is no client certificate.
        resumed = bool(_openssl.SSL_session_reused(connection._ssl))  # noqa: SLF001
        certificate = connection.get_peer_certificate()
        leaf = None if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        chain: tuple[bytes, ...] = ()
        if leaf is not None and resumed:
            chain = self._memory.recall(leaf)
        elif leaf is not None:
            shown = connection.get_peer_cert_chain() or []
            if not self._is_server:
                shown = shown[1:]  # a client's view of the chain begins with the leaf, a server's does not
            chain = tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, each) for each in shown)
            self._memory.remember(leaf, chain)
        sni = connection.get_servername()
        alpn = connection.get_alpn_proto_negotiated()
        return Peer(
            version=connection.get_protocol_version(),
            cipher=connection.get_cipher_name() or "",
            group=connection.get_group_name(),
            sni=sni.decode("ascii", "replace") if sni else None,
            alpn=alpn.decode("ascii", "replace") if alpn else None,
            resumed=resumed,
            leaf_der=leaf,
            chain_der=chain,
        )

    def session(self) -> Session | None:
        """What a client may resume with; after a TLS 1.3 handshake it comes with the first bytes read."""
        value = self._connection.get_session()
        return None if value is None else Session(value)


def _detail(error: SSL.Error) -> str:
    """OpenSSL's own words for the last error in its queue, the nearest to TLS; never text from the other side."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue and queue[-1][2]:
        return str(queue[-1][2])
    return "the connection ended inside a record"


def _fail_handshake(error: SSL.Error) -> NoReturn:
    detail = _detail(error)
    raise NotTrusted(Reason.TLS_HANDSHAKE, f"the TLS handshake failed: {detail}", detail=detail) from error


def _fail_record(error: SSL.Error) -> NoReturn:
    detail = _detail(error)
    # a TLS 1.3 server may refuse the client's certificate after the client has finished its handshake
    if "alert" in detail:
        raise NotTrusted(Reason.TLS_HANDSHAKE, f"the peer ended the TLS connection: {detail}", detail=detail) from error
    raise Malformed(Reason.TLS_HANDSHAKE, f"the TLS connection failed: {detail}", detail=detail) from error
