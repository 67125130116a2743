"""Fetches what is published over plain HTTP as a relying party does, bounded in time and size; judges nothing."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.x509.crls.decoding import MAX_CRL

_OCSP_REQUEST = "application/ocsp-request"  # RFC 6960 appendix C.1: media type of an OCSP request
_SECONDS = 5.0
_CHUNK = 256 * 1024


Fetch = Callable[[str, bytes | None], bytes]
"""Returns the body of a GET of a URL, or of a POST of an OCSP request.

Raises Unavailable(STATUS_UNAVAILABLE), with the fact `status` where an HTTP server responded.
"""


@dataclass(frozen=True, slots=True)
class HttpFetch:
    """A client without keep-alive, cookies, redirects or proxies: what is published must need none of them.

    `connect_to` is the (host, port) to connect to in place of the URL's own host, which stays in the Host field.
    """

    connect_to: tuple[str, int] | None = None
    seconds: float = _SECONDS
    limit: int = MAX_CRL

    def __call__(self, url: str, body: bytes | None = None) -> bytes:
        """As `Fetch`; `seconds` bounds the whole, `limit` the bytes of the body."""
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise _unavailable(url, "the status URL is not http://; clients that check certificates follow no other")
        address = self.connect_to or (parts.hostname, parts.port or 80)
        end = time.monotonic() + self.seconds
        headers = {"Host": parts.netloc, "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = _OCSP_REQUEST
        connection = http.client.HTTPConnection(*address, timeout=self.seconds)
        try:
            connection.request("GET" if body is None else "POST", parts.path or "/", body, headers)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise _unavailable(url, f"the response has HTTP status {response.status}", status=response.status)
            return self._read(url, response, end)
        except (OSError, http.client.HTTPException) as fault:
            raise _unavailable(url, f"the resource cannot be fetched ({type(fault).__name__})") from fault
        finally:
            connection.close()

    def _read(self, url: str, response: http.client.HTTPResponse, end: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        while chunk := response.read1(_CHUNK):
            parts.append(chunk)
            size += len(chunk)
            if size > self.limit:
                raise _unavailable(url, f"the response is larger than {self.limit} bytes")
            if time.monotonic() > end:
                raise _unavailable(url, f"the response takes longer than {self.seconds:g} s")
        if response.length:
            raise _unavailable(url, "the response ends before its Content-Length")
        return b"".join(parts)


def _unavailable(url: str, what: str, **facts: int) -> Unavailable:
    return Unavailable(Reason.STATUS_UNAVAILABLE, f"{url}: {what}", url=url, **facts)
