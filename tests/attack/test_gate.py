"""Who might pass the gate: revoked, foreign and forged certificates, smuggled names and requests, and noise."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.simulator.attacked import PATIENCE, Credential, Hospital, Wire, sign_certificate
from tests.simulator.commands import PASSPHRASE
from tests.simulator.orders import new_key
from tests.simulator.queries import list_key_ids
from tests.simulator.upstreams import Seen
from vagus.keystore import private_keys
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.signing import Purpose
from vagus.keystore.software import SoftwareKeystore
from vagus.records.devices import DeviceRow

BY = "operator:test"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LISTENERS = ("control-h1-icu", "telemetry-h1-icu", "telemetry-h1-er", "enrol-h1")


def _stolen(hospital: Hospital, name: str) -> ec.EllipticCurvePrivateKey:
    """The private key of an online authority, as a thief of keystore and passphrase has it."""
    folder = hospital.folder / "keystores" / name.replace("/", ".")
    keystore = SoftwareKeystore.open(folder, Passphrase(PASSPHRASE))
    private = next(
        key for purposes, key in map(keystore._load, list_key_ids(folder)) if Purpose.CERTIFICATE in purposes
    )
    key = serialization.load_der_private_key(private_keys.encode_pkcs8(private), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _forged(
    hospital: Hospital,
    *names: x509.GeneralName,
    authority: str = "h1/icu",
    subject: x509.Name | None = None,
    serial: int | None = None,
    is_ca: bool = False,
) -> Credential:
    """A certificate that the thief makes with a stolen key."""
    issuer, key = hospital.authority(authority), new_key()
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    more: list[tuple[x509.ExtensionType, bool]] = [(both, False)]
    if names:
        more.append((x509.SubjectAlternativeName(names), False))
    whose = (key.public_key(), subject or x509.Name([]), issuer.subject, _stolen(hospital, authority))
    leaf = sign_certificate(*whose, is_ca=is_ca, more=more, days=200, serial=serial)
    return Credential(key, [leaf, issuer, hospital.authority(authority.partition("/")[0])])


def _own_name(device: DeviceRow) -> x509.DNSName:
    return x509.DNSName(f"{device.id}.icu.h1.attacked.example")


def _as_device(device: DeviceRow) -> list[tuple[x509.ExtensionType, bool]]:
    """The extensions of its certificate."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return [(usage, False), (x509.SubjectAlternativeName([_own_name(device)]), False)]


def _check_refused_everywhere(hospital: Hospital, who: Credential) -> None:
    for listener in LISTENERS:
        assert not hospital.admits(listener, who), listener


# A stolen unit key


def test_a_certificate_that_nobody_recorded_is_refused_everywhere(hospital: Hospital) -> None:
    device, credential = hospital.enrolled()
    own = _own_name(device)
    shadow = _forged(hospital, own, subject=credential.leaf.subject)
    twin = _forged(hospital, own, subject=credential.leaf.subject, serial=credential.leaf.serial_number)
    _check_refused_everywhere(hospital, shadow)
    _check_refused_everywhere(hospital, twin)
    answer = hospital.get("control-h1-icu", shadow)
    assert answer is not None
    assert answer.reason == "NOT_ISSUED"
    assert hospital.admits("control-h1-icu", credential)


@pytest.mark.parametrize("form", ["er", "h2", "wildcard", "two", "bare", "none", "upper", "dot", "uri", "ip", "mail"])
def test_foreign_names_under_a_stolen_key_get_nothing_anywhere(hospital: Hospital, form: str) -> None:
    victim = hospital.stock["h1/er:Aorta IP3"][-1]
    own = hospital.stock["h1/icu:Aorta IP3"][-1]
    good = _own_name(own)
    names: dict[str, Sequence[x509.GeneralName]] = {
        "er": [x509.DNSName(f"{victim.id}.er.h1.attacked.example")],
        "h2": [x509.DNSName(f"{victim.id}.icu.h2.attacked.example")],
        "wildcard": [x509.DNSName("*.icu.h1.attacked.example")],
        "two": [good, x509.DNSName(f"{victim.id}.er.h1.attacked.example")],
        "bare": [x509.DNSName("icu.h1.attacked.example")],
        "none": [],
        "upper": [x509.DNSName(f"{own.id}.ICU.h1.attacked.example")],
        "dot": [x509.DNSName(f"{own.id}.icu.h1.attacked.example.")],
        "uri": [good, x509.UniformResourceIdentifier("https://none.invalid/")],
        "ip": [good, x509.IPAddress(IPv4Address("10.0.0.1"))],
        "mail": [good, x509.RFC822Name("a@none.invalid")],
    }
    forged = _forged(hospital, *names[form])
    _check_refused_everywhere(hospital, forged)


def test_an_authority_made_with_a_stolen_key_leads_nowhere(hospital: Hospital) -> None:
    device, credential = hospital.enrolled()
    below = _forged(hospital, subject=hospital.authority("h1/icu").subject, is_ca=True)
    key = new_key()
    subject, more = credential.leaf.subject, _as_device(device)
    leaf = sign_certificate(key.public_key(), subject, below.leaf.subject, below.key, is_ca=False, more=more, days=100)
    who = Credential(key, [leaf, *below.chain])
    _check_refused_everywhere(hospital, who)


def test_a_look_alike_of_the_whole_hierarchy_is_refused(hospital: Hospital) -> None:
    device, credential = hospital.enrolled()
    root, unit, key = new_key(), new_key(), new_key()
    real_root, real_unit = hospital.authority("h1"), hospital.authority("h1/icu")
    fake_root = sign_certificate(root.public_key(), real_root.subject, real_root.subject, root, is_ca=True)
    fake_unit = sign_certificate(unit.public_key(), real_unit.subject, real_root.subject, root, is_ca=True)
    subject, more = credential.leaf.subject, _as_device(device)
    serial = credential.leaf.serial_number
    leaf = sign_certificate(key.public_key(), subject, real_unit.subject, unit, is_ca=False, more=more, serial=serial)
    for above in ([fake_unit, fake_root], [real_unit, real_root], [], [credential.leaf, real_unit]):
        _check_refused_everywhere(hospital, Credential(key, [leaf, *above]))


def test_a_chain_may_be_short_or_long_and_means_the_same(hospital: Hospital) -> None:
    _, credential = hospital.enrolled()
    _, other = hospital.enrolled()
    leaf, unit, own = credential.chain
    for chain in ([leaf], [leaf, own, unit], [leaf, unit, unit, own], [leaf, other.leaf, unit]):
        assert hospital.admits("control-h1-icu", Credential(credential.key, chain))
    many = [leaf, *[hospital.aorta.idevid(str(n)).leaf for n in range(300)], unit]
    assert not hospital.admits("control-h1-icu", Credential(credential.key, many))  # over OpenSSL's 100 kB


def test_other_compartments_and_hospitals_are_refused(hospital: Hospital) -> None:
    _, er = hospital.enrolled("h1/er")
    assert hospital.admits("telemetry-h1-er", er)
    for listener in ("control-h1-icu", "telemetry-h1-icu"):
        assert not hospital.admits(listener, er)


# Revocation


def test_a_revoked_device_is_cut_and_stays_out(hospital: Hospital) -> None:
    device, credential = hospital.enrolled()
    context = hospital.context(credential)
    with hospital.connect("telemetry-h1-icu", context=context) as before:
        assert before.say(GET).hear() is not None
        session = before.socket.session  # type: ignore[attr-defined]
        with (
            hospital.connect("stream-h1-icu", credential) as stream,
            hospital.connect("control-h1-icu", credential) as idle,
        ):
            stream.say(b"GE")
            assert idle.say(GET).hear() is not None  # admitted: who is refused may wait for the end of its request
            idle.say(b"GET / HTTP/1.1\r\n")
            hospital.revoke(device)
            assert stream.has_ended(PATIENCE)
            assert idle.has_ended(PATIENCE)
            assert before.has_ended(PATIENCE)
    with suppress(OSError), hospital.connect("telemetry-h1-icu", session=session, context=context) as resumed:
        answer = resumed.say(GET).hear()
        assert answer is None or answer.status == 403
    _check_refused_everywhere(hospital, credential)


def test_a_ticket_opens_no_other_listener(hospital: Hospital) -> None:
    _, credential = hospital.enrolled()
    context = hospital.context(credential)
    with hospital.connect("telemetry-h1-icu", context=context) as first:
        assert first.say(GET).hear() is not None
        session = first.socket.session  # type: ignore[attr-defined]
    with hospital.connect("telemetry-h1-icu", context=context, session=session) as again:
        assert again.say(GET).hear() is not None
    for listener in ("control-h1-icu", "telemetry-h1-er"):
        with suppress(OSError), hospital.connect(listener, context=context, session=session) as other:
            answer = other.say(GET).hear()
            assert not other.socket.session_reused  # type: ignore[attr-defined]
            assert listener != "telemetry-h1-er" or answer is None or answer.status == 403
    context = hospital.context(credential)
    with hospital.connect("control-h1-icu", context=context) as control:
        assert control.say(GET).hear() is not None
        session = control.socket.session  # type: ignore[attr-defined]
    with hospital.connect("control-h1-icu", context=context, session=session) as control:
        assert control.say(GET).hear() is not None
        assert not control.socket.session_reused  # type: ignore[attr-defined]


# Names and requests that are smuggled


SPELLINGS = (
    "Client-Cert",
    "client_cert",
    "CLIENT-CERT-CHAIN",
    "Client-Cert-Chain",
    "Client.Cert",
    "X-Client-Cert",
    "X_Client_Cert",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-For",
    "X_Forwarded_For",
    "Forwarded",
    "X-SSL-Client-Verify",
    "SSL_CLIENT_VERIFY",
    "SSL-Client-Cert",
    "X-Real-IP",
    "Remote-User",
    "X-Remote-User",
    "X-Amzn-Mtls-Clientcert",
    "X-Client-Verify",
    "X-Client-DN",
    "X-Client-S-DN",
    "True-Client-IP",
    "X-Original-URL",
)


def test_only_the_gate_says_who_asks(hospital: Hospital, seen: Seen) -> None:
    _, credential = hospital.enrolled()
    fields = "".join(f"{name}: forged\r\n" for name in SPELLINGS)
    with hospital.connect("control-h1-icu", credential) as wire:
        answer = wire.ask(f"GET / HTTP/1.1\r\nHost: a\r\nConnection: client-cert\r\n{fields}\r\n".encode())
    assert answer.status == 200
    assert [name for name, value in seen.headers[-1] if "forged" in value] == []
    shown = base64.b64encode(credential.leaf.public_bytes(Encoding.DER)).decode()
    assert seen.values("client-cert") == [f":{shown}:"]


SMUGGLED = {
    "both lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nxxxxx",
    "length list": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nxxxx",
    "signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nxxxx",
    "hex length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nxxxx",
    "space before colon": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nxxxx",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "coding list": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "xchunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "vertical tab": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "underscore": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "obs-fold": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "old chunked": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "LF in chunk": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
    "chunk size sign": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n",
    "chunk size wrap": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"10000000000000001\r\nx\r\n0\r\n\r\n",
    "no CRLF behind chunk": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxGET",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "another scheme": b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form without Host": b"GET https://other/ HTTP/1.1\r\n\r\n",
    "absolute form with a user": b"GET https://user@other/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form with two hosts": b"GET https://a,b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "connect": b"CONNECT inner:22 HTTP/1.1\r\nHost: a\r\n\r\n",
    "websocket": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "upgrade with body": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: 3\r\n\r\nabc",
    "space in name": b"GET / HTTP/1.1\r\nHost: a\r\nClient Cert: x\r\n\r\n",
    "NUL in value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "CR in value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rClient-Cert: b\r\n\r\n",
    "space in target": b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "headers too large": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "headers too many": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_what_two_servers_could_read_differently_ends_the_connection(hospital: Hospital, seen: Seen, kind: str) -> None:
    credential = _shared(hospital)
    secret = f"/smuggled-{kind.replace(' ', '-')}".encode()
    with hospital.connect("control-h1-icu", credential) as wire:
        answers = wire.say(SMUGGLED[kind] + b"GET " + secret + b" HTTP/1.1\r\nHost: a\r\n\r\n").hear_all()
    assert all(answer.status >= 400 for answer in answers), answers
    assert not [line for line in seen.lines if secret.decode() in line]


def test_extensions_and_trailers_of_chunks_do_not_pass(hospital: Hospital, seen: Seen) -> None:
    raw = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Client-Cert\r\n\r\n"
        b'3;a="\x01";b\r\nabc\r\n0\r\nClient-Cert: forged\r\nContent-Length: 9\r\n\r\n'
    )
    with hospital.connect("control-h1-icu", _shared(hospital)) as wire:
        answer = wire.say(raw).hear()
    if answer is not None and answer.status == 200:
        assert seen.bodies[-1] == b"abc"
        assert not [value for _, value in seen.headers[-1] if "forged" in value]


def test_nothing_behind_a_refusal_is_carried_out(hospital: Hospital, seen: Seen) -> None:
    _, er = hospital.enrolled("h1/er")
    with hospital.connect("control-h1-icu", er) as wire:
        answers = wire.say(b"GET /behind-a-refusal HTTP/1.1\r\nHost: a\r\n\r\n" * 5).hear_all()
    assert {answer.status for answer in answers} == {403}
    assert not [line for line in seen.lines if "behind-a-refusal" in line]


# Noise


def test_a_thousand_idle_connections_leave_the_server_serving(hospital: Hospital) -> None:
    idle = [hospital.plug("enrol-h1") for _ in range(500)]
    idle += [hospital.plug("control-h1-icu") for _ in range(500)]
    try:
        for number, plug in enumerate(idle):
            plug.sendall(b"\x16\x03\x01\x40\x00\x01"[: number % 6])
        begun = time.monotonic()
        assert hospital.admits("control-h1-icu", _shared(hospital))
        assert time.monotonic() - begun < 5
    finally:
        for plug in idle:
            plug.close()


def test_records_that_are_no_tls_end_the_connection(hospital: Hospital) -> None:
    for noise in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"A" * 70000,
        b"\x80" * 100,
        b"\x15\x03\x03\x00\x02\x01\x00",
    ):
        with Wire(hospital.plug("control-h1-icu")) as wire:
            assert wire.say(noise).has_ended(12)


_KEPT: list[Credential] = []


def _shared(hospital: Hospital) -> Credential:
    """One good device for the tests that need any."""
    if not _KEPT:
        _KEPT.append(hospital.enrolled()[1])
    return _KEPT[0]


def test_old_protocols_are_not_spoken(hospital: Hospital) -> None:
    context = hospital.context(None)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        hospital.connect("control-h1-icu", context=context)
