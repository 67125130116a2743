"""TLS settings as values and the OpenSSL contexts made of them; decides nothing about trust."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto

from vagus.errors import Malformed, Misconfigured, NotTrusted
from vagus.reasons import Reason
from vagus.tls.peer import TLS_1_2, TLS_1_3
from vagus.tls.resumption import ChainMemory
from vagus.tls.stream import Session, TlsStream
from vagus.x509.pem import CERTIFICATE, decode_pem

ClientAuth = Literal["none", "optional", "required"]
Staple = Callable[[], bytes]
"""Returns the DER OCSP response to staple now; empty bytes mean none. It must be about our leaf: for bytes
that do not decode and for the response of another certificate OpenSSL 4 sends nothing and reports no error."""

# TLS 1.2 cipher suites with forward secrecy and AEAD alone (RFC 9325 4.2)
_TLS_1_2_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_EPOCH_BYTES = 32  # OpenSSL's SSL_MAX_SID_CTX_LENGTH


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate chain and its private key, both PEM; the first certificate is ours, the rest lead upwards."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a listener fixes for its life; certificate, epoch and staple may change, these do not."""

    client_auth: ClientAuth = "required"
    minimum_version: int = TLS_1_3
    """TLS 1.2 shows the client's certificate in clear: never for implants, wearables and home devices."""
    tickets: bool = True
    """False for enrolment and control listeners: every connection is a full handshake."""
    ticket_seconds: int = 3600
    alpn: tuple[str, ...] = ("http/1.1",)
    """Empty for raw streams. A client that offers ALPN and none of these is refused (RFC 7301 3.2)."""
    client_authorities_der: tuple[bytes, ...] = ()
    """Certificates whose names are sent as certificate_authorities, for clients that hold several."""


class ServerContext:
    """A listener's TLS side: makes streams, and lets certificate, staple and epoch be swapped while it serves.

    Ticket keys belong to a root context made once (before a fork, so that workers share them); certificate, staple and
    epoch come from the current context, set on each connection before its handshake. A new certificate under the same
    epoch keeps old sessions resumable; a new epoch makes every old ticket fall back to a full handshake.
    """

    def __init__(
        self,
        credential: Credential,
        settings: ServerTls | None = None,
        *,
        epoch: bytes = b"1",
        staple: Staple | None = None,
    ) -> None:
        self.settings = settings or ServerTls()
        self._credential = credential
        self._epoch = epoch
        self._staple = staple
        self._memory = ChainMemory()
        self._root = _server_context(self.settings, epoch)
        self._current = self._build()

    @property
    def epoch(self) -> bytes:
        """The policy epoch that tickets are bound to."""
        return self._epoch

    def swap(
        self, *, credential: Credential | None = None, epoch: bytes | None = None, staple: Staple | None = None
    ) -> None:
        """Use what is given for new handshakes from now on; open connections are not changed.

        Raises Misconfigured(BAD_SETTINGS) for a chain or key that does not load or match; then nothing changes.
        """
        before = self._credential, self._epoch, self._staple
        self._credential = credential or self._credential
        self._epoch = self._epoch if epoch is None else epoch
        self._staple = staple or self._staple
        try:
            self._current = self._build()
        except Misconfigured:
            self._credential, self._epoch, self._staple = before
            raise
        if self._epoch != before[1]:
            self._memory = ChainMemory()

    def new_stream(self) -> TlsStream:
        """The server's end of one connection."""
        connection = SSL.Connection(self._root, None)
        connection.set_context(self._current)
        connection.set_accept_state()
        return TlsStream(connection, is_server=True, memory=self._memory)

    def _build(self) -> SSL.Context:
        context = _server_context(self.settings, self._epoch)
        _use(context, self._credential)
        for der in self.settings.client_authorities_der:
            context.add_client_ca(_load_der(der))
        if self.settings.alpn:
            context.set_alpn_select_callback(_choose_alpn(self.settings.alpn))
        if (staple := self._staple) is not None:
            context.set_ocsp_server_callback(lambda _connection, _data: staple())
        return context


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The client side of a connection that we open."""

    credential: Credential | None = None
    anchors_der: tuple[bytes, ...] | None = None
    """Not None: OpenSSL builds and checks the server's chain to these, dates included, during the handshake (names and
    status are the caller's). None: nothing is checked here, and the caller *must* validate `Peer.leaf_der` before it
    sends a byte."""
    minimum_version: int = TLS_1_3
    alpn: tuple[str, ...] = ("http/1.1",)


class ClientContext:
    """The client side: makes streams to servers, resumable by the sessions of earlier streams."""

    def __init__(self, settings: ClientTls) -> None:
        self._memory = ChainMemory()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        _harden(context, settings.minimum_version)
        if settings.credential is not None:
            _use(context, settings.credential)
        if settings.alpn:
            context.set_alpn_protos([name.encode("ascii") for name in settings.alpn])
        if settings.anchors_der is not None:
            store = context.get_cert_store()
            for der in settings.anchors_der:
                if store is not None:
                    store.add_cert(crypto.X509.from_cryptography(_load_der(der)))
            context.set_verify(SSL.VERIFY_PEER)
        else:
            context.set_verify(SSL.VERIFY_NONE)
        self._context = context

    def new_stream(self, host: str | None, session: Session | None = None) -> TlsStream:
        """The client's end of one connection to `host` (sent as SNI unless it is an IP address)."""
        connection = SSL.Connection(self._context, None)
        if host is not None and not _is_address(host):
            connection.set_tlsext_host_name(host.encode("idna") if not host.isascii() else host.encode("ascii"))
        if session is not None:
            connection.set_session(session.value)
        connection.set_connect_state()
        return TlsStream(connection, is_server=False, memory=self._memory)


def _server_context(settings: ServerTls, epoch: bytes) -> SSL.Context:
    """What root and current context share, without a certificate."""
    if not 1 <= len(epoch) <= _EPOCH_BYTES:
        raise Misconfigured(
            Reason.BAD_SETTINGS, f"a TLS epoch has 1-{_EPOCH_BYTES} bytes, this one {len(epoch)}; hash it"
        )
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _harden(context, settings.minimum_version)
    context.set_session_id(epoch)
    context.set_timeout(settings.ticket_seconds)
    # Stateless session tickets only. Without this, OP_NO_TICKET would leave TLS 1.3 with stateful tickets in a cache.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if not settings.tickets:
        context.set_options(SSL.OP_NO_TICKET)
    if settings.client_auth != "none":
        mode = SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE
        if settings.client_auth == "required":
            mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(mode, _accept_in_tls)
    return context


def _harden(context: SSL.Context, minimum_version: int) -> None:
    if minimum_version not in {TLS_1_2, TLS_1_3}:
        raise Misconfigured(
            Reason.BAD_SETTINGS, f"TLS version {minimum_version:#06x} is neither 1.2 (0x0303) nor 1.3 (0x0304)"
        )
    context.set_min_proto_version(minimum_version)
    context.set_max_proto_version(TLS_1_3)
    context.set_cipher_list(_TLS_1_2_CIPHERS)
    # OpenSSL frees its buffers between records: 16 kB less for each idle connection
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # TLS early data stays off, OpenSSL's default: it can be replayed (RFC 8446 8).
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)


def _accept_in_tls(*_facts: object) -> bool:
    """Accept any certificate whose key was proved: our validator decides after the handshake, OpenSSL's chain is void.

    With this callback `get_verified_chain` and the verify result mean nothing, and nothing in this project reads them.
    """
    return True


def _choose_alpn(ours: Sequence[str]) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    supported = tuple(name.encode("ascii") for name in ours)

    def choose(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for name in supported:
            if name in offered:
                return name
        # An error here makes OpenSSL send no_application_protocol (RFC 7301 3.2). That stops cross-protocol attacks,
        # which redirect a browser's or another protocol's connection to this listener.
        raise NotTrusted(
            Reason.TLS_HANDSHAKE,
            f"the TLS client offers no application protocol (ALPN) of this listener ({', '.join(ours)})",
        )

    return choose


def _use(context: SSL.Context, credential: Credential) -> None:
    try:
        chain = [x509.load_der_x509_certificate(der) for der in decode_pem(credential.chain_pem, CERTIFICATE)]
        context.use_certificate(chain[0])
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
        _use_key(context, credential.key_pem)
        context.check_privatekey()
    except (ValueError, TypeError, SSL.Error, crypto.Error, Malformed) as error:
        raise Misconfigured(
            Reason.BAD_SETTINGS,
            "TLS chain and key do not load or do not fit together; give PEM, leaf first, and its unencrypted key",
        ) from error


def _use_key(context: SSL.Context, key_pem: bytes) -> None:
    key = serialization.load_pem_private_key(key_pem, None)
    try:
        # the key kinds that pyOpenSSL does not take are handled below
        context.use_privatekey(key)  # type: ignore[arg-type]
    except TypeError:
        # pyOpenSSL 26.4 cannot take the library's ML-DSA keys as objects, but OpenSSL reads their PEM.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, key_pem))


def _load_der(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise Misconfigured(Reason.BAD_SETTINGS, "a certificate among the TLS settings is not DER X.509") from error


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
