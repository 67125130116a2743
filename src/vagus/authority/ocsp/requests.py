"""Decodes OCSP requests; of requests that differ only in their nonce it decodes one; responds to none.

A client that sends nonces repeats the same bytes but for the nonce at their end. No rule of decoding looks at the value
of the nonce, so the bytes before it mean the same again.
"""

from __future__ import annotations

from typing import Final

from vagus.x509.ocsp.messages import NONCE, CertId, decode_ocsp_request

_MOST_REMEMBERED: Final = 16_384
_BEFORE: Final = {size: bytes((0x04, size + 2, 0x04, size)) for size in (32, 16)}
"""By nonce length, the two OCTET STRING headers before it: extnValue's and its own (RFC 9654 2.1: 32; older: 16)."""

_LONGEST_REMEMBERED: Final = 300


class RequestDecoder:
    """Decodes requests and remembers the certificates asked for by the bytes before the nonce. Thread-safe."""

    def __init__(self, most_remembered: int = _MOST_REMEMBERED) -> None:
        self._most = most_remembered
        self._asked: dict[bytes, tuple[CertId, ...]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def decode(self, request_der: bytes) -> tuple[tuple[CertId, ...], bytes | None]:
        """The certificates that are asked for, and the contents of the nonce's extnValue, to be sent back unchanged.

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
        # The nonce, with its ASN.1 headers, is the last part of an OCSP request. So requests that agree up to there
        # differ in the nonce alone, and one decoding serves them all.
        if nonce is not None and before is not None and request_der.endswith(before + nonce):
            self._remember(request_der[: -len(nonce)], request.asked)
        return request.asked, None if nonce is None else request.extensions[NONCE].value

    def _remember(self, shape: bytes, asked: tuple[CertId, ...]) -> None:
        if len(shape) > _LONGEST_REMEMBERED:
            return
        if len(self._asked) >= self._most:
            self._asked.clear()
        self._asked[shape] = asked
