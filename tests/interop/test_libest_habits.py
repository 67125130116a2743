"""A client with the habits of libest 3.2.0p: TLS 1.2, header names compared byte by byte, base64 in lines."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography import x509

from tests.simulator.listeners import PlainClient
from tests.simulator.orders import new_key, signing_request
from tests.simulator.relying import Hospital

pytestmark = pytest.mark.interop

NEEDED = (b"Content-Type: ", b"Content-Length: ")
"""What the client looks for with memcmp."""


@contextmanager
def old_client(hospital: Hospital, listener: str, host: str) -> Iterator[PlainClient]:
    """A connection by TLS 1.2 alone, with the root as anchor."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(hospital.authority("root"))
    raw = socket.create_connection(("127.0.0.1", hospital.port(listener)), 20)
    with context.wrap_socket(raw, server_hostname=host) as connected:
        yield PlainClient(connected)


def ask(client: PlainClient, raw: bytes) -> tuple[int, bytes]:
    """Status and body, if the client finds what it looks for in the header."""
    client.send(raw)
    head = client.receive_until(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for needed in NEEDED:
        assert any(line.startswith(needed) for line in lines), (needed, head)
    size = next(int(line[len(NEEDED[1]) :]) for line in lines if line.startswith(NEEDED[1]))
    return int(lines[0].split(b" ")[1]), client.receive_exactly(size)


def read_certificates(body: bytes) -> list[x509.Certificate]:
    """By OpenSSL's BIO_f_base64, which needs lines, and its PKCS#7; none where it reads nothing."""
    decoded = subprocess.run(["openssl", "base64", "-d"], input=body, capture_output=True, check=False).stdout
    command = ["openssl", "pkcs7", "-inform", "DER", "-print_certs"]
    printed = subprocess.run(command, input=decoded, capture_output=True, check=False).stdout
    return x509.load_pem_x509_certificates(printed) if b"BEGIN" in printed else []


GET = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: old.test.example\r\n\r\n"


def test_it_reads_the_authorities_and_enrols_after_a_401(hospital: Hospital) -> None:
    with old_client(hospital, "enrol-old", "old.test.example") as client:
        status, body = ask(client, GET)
        assert status == 200
        assert len(read_certificates(body)) >= 3
    key = new_key()
    request = base64.encodebytes(signing_request(key, x509.Name([])))
    head = b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: old.test.example\r\n"
    head += b"Content-Type: application/pkcs10\r\nContent-Length: %d\r\n" % len(request)
    with old_client(hospital, "enrol-old", "old.test.example") as client:
        assert ask(client, head + b"\r\n" + request)[0] == 401
    device, token = hospital.spare("h1/er")
    basic = base64.b64encode(f"{device}:{token}".encode())
    with old_client(hospital, "enrol-old", "old.test.example") as client:
        status, body = ask(client, head + b"Authorization: Basic " + basic + b"\r\n\r\n" + request)
    assert status == 200
    (certificate,) = read_certificates(body)
    assert certificate.public_key() == key.public_key()


def test_a_listener_without_these_keys_is_not_for_it(hospital: Hospital) -> None:
    with pytest.raises(ssl.SSLError), old_client(hospital, "enrol", "enrol.test.example"):
        pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(hospital.authority("root"))
    raw = socket.create_connection(("127.0.0.1", hospital.port("enrol")), 20)
    with context.wrap_socket(raw, server_hostname="enrol.test.example") as connected:
        status, body = ask(PlainClient(connected), GET)
    assert (status, read_certificates(body)) == (200, []), "one line is more than its decoder reads"
