"""Hosts and mailboxes are matched in the subjectAltName alone, RFC 9525."""

from __future__ import annotations

import pytest

from tests.simulator.refusals import reason_of, refuses
from tests.x509.chains import root, san
from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509.certificates import PathCertificate
from vagus.x509.paths.identity import check_host, decode_host

ROOT = root()


def named(*names: tuple[str, str | bytes], subject: str = "CN=host.example") -> PathCertificate:
    return ROOT.leaf(*([san(*names)] if names else []), subject=subject).parsed


@pytest.mark.parametrize(
    ("name", "host"),
    [
        (("dns", "gate.h1.example"), "gate.h1.example"),
        (("dns", "Gate.H1.Example"), "gate.h1.EXAMPLE"),
        (("dns", "*.h1.example"), "gate.h1.example"),
        (("dns", "gate.h1.example"), "gate.h1.example."),
        (("dns", "xn--gert-noa.example"), "gerät.example"),
        (("dns", "xn--gert-noa.example"), "GERÄT.Example."),
        (("dns", "xn--gert-noa.example"), "gera\u0308t.example"),
        (("dns", "xn--gert-noa.example"), "XN--GERT-NOA.example"),
        (("dns", "*.xn--gert-noa.example"), "gate.gerät.example"),
        (("dns", "xn--strae-oqa.example"), "straße.example"),
        (("ip", bytes.fromhex("20010db8000000000000000000000007")), "[2001:DB8::7]"),
        (("ip", b"\x0a\x03\x07\x15"), "10.3.7.21"),
        (("ip", bytes.fromhex("20010db8000000000000000000000007")), "2001:db8::7"),
    ],
)
def test_a_name_matches(name: tuple[str, str | bytes], host: str) -> None:
    check_host(named(("dns", "other.example"), name), host)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        (("dns", "gate.h1.example"), "gate.h2.example"),
        (("dns", "*.h1.example"), "h1.example"),
        (("dns", "*.h1.example"), "a.gate.h1.example"),
        (("dns", "*.example"), "h1.example"),
        (("dns", "g*.h1.example"), "gate.h1.example"),
        (("dns", "gate.*.example"), "gate.h1.example"),
        (("dns", "*"), "gate"),
        (("dns", "gate.h1.example."), "gate.h1.example"),
        (("dns", "10.3.7.21"), "10.3.7.21"),
        (("dns", "10.3.7.21"), "10.3.7.21."),
        (("dns", "gate.h1.example"), "gate.h1.example.."),
        (("dns", "xn--gert-noa.example"), "gerat.example"),
        (("dns", "strasse.example"), "straße.example"),
        (("dns", "xn--gert-noa.example"), "xn--gert-zra.example"),
        (("ip", b"\x0a\x03\x07\x15"), "[10.3.7.21]"),
        (("ip", bytes.fromhex("20010db8000000000000000000000007")), "[2001:db8::8]"),
        (("ip", b"\x0a\x03\x07\x15"), "10.3.7.22"),
        (("uri", "https://gate.h1.example"), "gate.h1.example"),
        (("dns", "gate.h1.example"), ""),
    ],
)
def test_another_name_does_not(name: tuple[str, str | bytes], host: str) -> None:
    assert reason_of(check_host, named(name), host, error=NotTrusted) is Reason.NAME_MISMATCH


def test_the_common_name_is_never_read() -> None:
    for certificate in (named(), named(("dns", "other.example"))):
        assert reason_of(check_host, certificate, "host.example", error=NotTrusted) is Reason.NAME_MISMATCH


def test_wildcards_can_be_refused() -> None:
    with refuses(Reason.NAME_MISMATCH, NotTrusted):
        check_host(named(("dns", "*.h1.example")), "gate.h1.example", allows_wildcards=False)


@pytest.mark.parametrize(
    "text", ["", ".", "https://a.example", "a.example:443", "a.example/x", "[a.example]", "[::1", "a b"]
)
def test_what_can_be_no_host_is_wrong_use(text: str) -> None:
    assert reason_of(decode_host, text, error=Malformed, match="gate.h1.example") is Reason.BAD_ARGUMENT
