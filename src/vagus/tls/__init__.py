"""TLS as bytes in, bytes out: streams, peers and contexts over pyOpenSSL; no sockets, and no decision on trust."""

from vagus.tls.context import ClientAuth, ClientContext, ClientTls, Credential, ServerContext, ServerTls, Staple
from vagus.tls.peer import TLS_1_2, TLS_1_3, Peer
from vagus.tls.stream import Session, TlsStream

__all__ = [
    "TLS_1_2",
    "TLS_1_3",
    "ClientAuth",
    "ClientContext",
    "ClientTls",
    "Credential",
    "Peer",
    "ServerContext",
    "ServerTls",
    "Session",
    "Staple",
    "TlsStream",
]
