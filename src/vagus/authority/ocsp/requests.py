"""Decodes OCSP questions, those that differ in their nonce alone only once; answers none.

A client that asks with nonces sends the same octets again and again but for the nonce at their end, whose value no rule
of decoding looks at.
"""

from __future__ import annotations

from typing import Final

from vagus.x509.ocsp.messages import NONCE, CertId, decode_ocsp_request

_MOST_REMEMBERED: Final = 16_384
_BEFORE: Final = {size: bytes((0x04, size + 2, 0x04, size)) for size in (32, 16)}
"""What stands before a nonce of so many octets: extnValue's header and its own (RFC 9654 2.1; older clients: 16)."""

_LONGEST_REMEMBERED: Final = 300


class RequestDecoder:
    """What was asked, by the octets up to the nonce. Safe to use from several threads."""

    def __init__(self, most_remembered: int = _MOST_REMEMBERED) -> None:
        self._most = most_remembered
        self._asked: dict[bytes, tuple[CertId, ...]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def decode(self, request_der: bytes) -> tuple[tuple[CertId, ...], bytes | None]:
        """The certificates that are asked for, and what is in the nonce's extnValue, to be sent back as it came.

        Raises as `decode_ocsp_request`.
        """
        for size, header in _BEFORE.items():
            if request_der[-size - 4 : -size] == header:
                asked = self._asked.get(request_der[:-size])
                if asked is not None:
                    return asked, request_der[-size - 2 :]
        request = decode_ocsp_request(request_der)
        nonce = request.nonce
        before = None if nonce is None else _BEFORE.get(len(nonce))
        # A nonce that ends the request and is wrapped: whatever its octets are, what stands before them means the same.
        if nonce is not None and before is not None and request_der.endswith(before + nonce):
            self._remember(request_der[: -len(nonce)], request.asked)
        return request.asked, None if nonce is None else request.extensions[NONCE].value

    def _remember(self, shape: bytes, asked: tuple[CertId, ...]) -> None:
        if len(shape) > _LONGEST_REMEMBERED:
            return
        if len(self._asked) >= self._most:
            self._asked.clear()
        self._asked[shape] = asked
