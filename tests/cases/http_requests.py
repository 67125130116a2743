"""Raw HTTP requests: each is sent to every listener that it can mean, beside the plain request that says the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.cases.case import Case, Check, Observation
from tests.cases.workshop import Hospital, Workshop
from tests.simulator.listeners import Response

_LINE = re.compile(rb"\A([A-Z]+) (\S+) HTTP/1\.1\r\n")
_ABSOLUTE = re.compile(r"\A(https?)://([^/?#]*)(.*)\Z")
LISTENERS = ("status", "enrol", "control")


@dataclass(frozen=True, slots=True)
class Raw:
    """A request without a body."""

    method: str
    target: str
    host: str

    def encode(self) -> bytes:
        """As its client sends it."""
        return f"{self.method} {self.target} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode()

    @property
    def plain(self) -> Raw:
        """GET in origin form for the same resource."""
        found = _ABSOLUTE.match(self.target)
        return Raw("GET", self.target, self.host) if found is None else Raw("GET", found[3] or "/", found[2])

    def for_listener(self, listener: str) -> Raw:
        """With the scheme that the listener speaks."""
        found = _ABSOLUTE.match(self.target)
        scheme = "http" if listener == "status" else "https"
        return self if found is None else replace(self, target=f"{scheme}://{found[2]}{found[3]}")


def read_request(content: bytes) -> Raw | None:
    """The GET or HEAD in a file; None for anything else."""
    found = _LINE.match(content)
    host = re.search(rb"\r\n[Hh]ost: *([^\r]*)\r\n", content)
    if found is None or host is None or found[1] not in {b"GET", b"HEAD"}:
        return None
    return Raw(found[1].decode(), found[2].decode(), host[1].decode())


def _requests(case: Case) -> list[tuple[str, Raw]]:
    found = [(name, read_request(content)) for name, content in case.files.items()]
    return [(name, raw) for name, raw in found if raw is not None]


def _ask(hospital: Hospital, listener: str, raw: Raw) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields but Date, and body; HEAD ends with its header, so what follows would be a fault."""
    with hospital.connect(listener, hospital.device if listener == "control" else None) as wire:
        wire.say(raw.encode())
        response: Response = wire.read_response(is_head=raw.method == "HEAD")
        rest = b""
        while data := wire.receive():
            rest += data
    headers = {name: value for name, value in response.headers.items() if name != "date"}
    return response.status, headers, response.body + rest


def _observe(case: Case, workshop: Workshop) -> Iterator[Observation]:
    hospital = workshop.hospital
    for name, raw in _requests(case):
        statuses = []
        for listener in LISTENERS:
            sent = raw.for_listener(listener)
            status, headers, body = _ask(hospital, listener, raw.plain)
            wanted = (status, headers, b"" if raw.method == "HEAD" else body)
            seen = _ask(hospital, listener, sent)
            statuses.append(status)
            what = f"{name} to {listener}"
            yield Observation(what, _describe(seen), _describe(wanted), seen == wanted)
            if listener == "control" and seen[0] < 400:
                hosts = hospital.upstream.values("host")
                line = f"{hospital.upstream.lines[-1]}, Host {hosts}"
                right = f"{raw.method} {raw.plain.target} HTTP/1.1, Host {[raw.plain.host]}"
                yield Observation(f"{what}: at the upstream", line, right, line == right)
        yield Observation(f"{name}: its GET", str(statuses), "served by one listener", min(statuses) < 300)
        yield from _observe_twins(hospital, raw)


def _observe_twins(hospital: Hospital, raw: Raw) -> Iterator[Observation]:
    """What differs in one point and must be treated the other way."""
    if _ABSOLUTE.match(raw.target) is None:
        seen = _ask(hospital, "enrol", Raw("DELETE", "/.well-known/est/cacerts", raw.host))
        is_right = seen[0] == 405 and {"GET", "HEAD"} <= set(seen[1].get("allow", "").split(", "))
        yield Observation("DELETE", _describe(seen), "405 that allows GET and HEAD", is_right)
        return
    plain = raw.plain
    for target, right in {
        f"http://user@{plain.host}{plain.target}": {400},
        f"ftp://{plain.host}{plain.target}": {400, 421},
        f"https://{plain.host}{plain.target}": {400, 421},
    }.items():
        seen = _ask(hospital, "status", Raw("GET", target, plain.host))
        yield Observation(f"{target} to status", _describe(seen), f"one of {sorted(right)}", seen[0] in right)
    good = raw.for_listener("status")
    other = _ask(hospital, "status", replace(good, host="another.example"))
    whole = _ask(hospital, "status", good)
    yield Observation("with another Host", _describe(other), _describe(whole), other == whole)


def _describe(seen: tuple[int, dict[str, str], bytes]) -> str:
    status, headers, body = seen
    return f"{status}, {len(headers)} fields ({headers.get('content-type', 'no type')}), {len(body)} bytes"


CHECKS = (Check("HTTP requests", lambda case: bool(_requests(case)), _observe),)
