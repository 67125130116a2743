"""What a finished handshake shows of the other side, as a value; it proves possession of a key, never trust."""

from __future__ import annotations

from dataclasses import dataclass

TLS_1_2 = 0x0303
TLS_1_3 = 0x0304


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side of a TLS connection, *presented and not validated*: only the validator's verdict counts."""

    version: int
    """0x0303 (TLS 1.2) or 0x0304 (TLS 1.3)."""
    cipher: str
    group: str | None
    """The key exchange, as OpenSSL names it: `X25519MLKEM768`, `x25519`; None where none took place."""
    sni: str | None
    """What the client asked for: unauthenticated text, only good for choosing how a listener responds."""
    alpn: str | None
    resumed: bool
    """A session was resumed: the certificate below was shown in an earlier handshake, not in this one."""
    leaf_der: bytes | None
    """The end entity's certificate; its private key was proved in this handshake or in the one that is resumed."""
    chain_der: tuple[bytes, ...]
    """What was sent above the leaf, in order; for a resumed session what is still stored of it, perhaps nothing."""
