"""Certificates, CRLs and OCSP responses written by hand, with whatever fault a test asks for; never for serving.

Nothing here goes through our templates or through a library's builder, so that every byte can be wrong on purpose.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.der import oid_contents
from vagus.x509.keys import key_bytes
from vagus.x509.paths.search import PathAnchor

AT = datetime(2027, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"
ANY_PURPOSE = "2.5.29.37.0"
ANY_POLICY = "2.5.29.32.0"

Key: TypeAlias = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)
_serials = itertools.count(0x4000_0000_0001)
_SHA = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
_ONE_SCHEME: dict[str, tuple[Any, str]] = {  # kinds of key that sign in one way only
    "ed25519": (ed25519.Ed25519PrivateKey, "1.3.101.112"),
    "ed448": (ed448.Ed448PrivateKey, "1.3.101.113"),
    "mldsa44": (mldsa.MLDSA44PrivateKey, "2.16.840.1.101.3.4.3.17"),
    "mldsa65": (mldsa.MLDSA65PrivateKey, "2.16.840.1.101.3.4.3.18"),
    "mldsa87": (mldsa.MLDSA87PrivateKey, "2.16.840.1.101.3.4.3.19"),
}


def key(kind: str = "p256", number: int = 0) -> Key:
    """One key per kind and number for the whole run."""
    return _new_key(kind, number)


@cache
def _new_key(kind: str, number: int) -> Key:
    assert number >= 0  # it only distinguishes keys of a kind
    curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "p192": ec.SECP192R1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    if kind in _ONE_SCHEME:
        made: Key = _ONE_SCHEME[kind][0].generate()
        return made
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


def spki(private: Key) -> bytes:
    """Its SubjectPublicKeyInfo."""
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def identifier(oid: str, parameters: bytes = b"") -> bytes:
    """An AlgorithmIdentifier."""
    return der.sequence(der.object_identifier(oid), parameters)


def algorithm_of(private: Key, digest: str = "") -> bytes:
    """The AlgorithmIdentifier under which `sign` signs."""
    if isinstance(private, ec.EllipticCurvePrivateKey):
        oids = {"sha1": "1", "sha256": "3.2", "sha384": "3.3", "sha512": "3.4"}
        return identifier(f"1.2.840.10045.4.{oids[digest or _natural_digest(private)]}")
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = {"sha1": 5, "sha256": 11, "sha384": 12, "sha512": 13}
        return identifier(f"1.2.840.113549.1.1.{numbers[digest or 'sha256']}", der.NULL_DER)
    return identifier(next(oid for kind, oid in _ONE_SCHEME.values() if isinstance(private, kind)))


def _natural_digest(private: ec.EllipticCurvePrivateKey) -> str:
    return {384: "sha384", 521: "sha512"}.get(private.curve.key_size, "sha256")


def pss_identifier(digest: str, salt: int, mask: str = "", trailer: bytes = b"") -> bytes:
    """RSASSA-PSS with these parameters; SHA-1 and 20 are defaults and left out."""
    oids = {"sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2", "sha512": "2.16.840.1.101.3.4.2.3"}
    parts = b""
    if digest != "sha1":
        parts += der.explicit(0, identifier(oids[digest], der.NULL_DER))
    if (mask or digest) != "sha1":
        parts += der.explicit(1, identifier("1.2.840.113549.1.1.8", identifier(oids[mask or digest], der.NULL_DER)))
    if salt != 20:
        parts += der.explicit(2, der.integer(salt))
    return identifier("1.2.840.113549.1.1.10", der.encode_tlv(der.SEQUENCE, parts + trailer))


def sign(private: Key, message: bytes, digest: str = "", pss: tuple[str, int] | None = None) -> bytes:
    """A signature as a BIT STRING holds it."""
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.sign(message, ec.ECDSA(_SHA[digest or _natural_digest(private)]))
    if isinstance(private, rsa.RSAPrivateKey):
        if pss is not None:
            chosen = _SHA[pss[0]]
            return private.sign(message, padding.PSS(mgf=padding.MGF1(chosen), salt_length=pss[1]), chosen)
        return private.sign(message, padding.PKCS1v15(), _SHA[digest or "sha256"])
    return private.sign(message)


def _signed(
    private: Key, tbs: bytes, algorithm: bytes, digest: str, flip: int | None, *, pss: tuple[str, int] | None = None
) -> tuple[bytes, bytes, bytes]:
    """What is signed, its algorithm and the signature, one bit of it inverted where `flip` names one."""
    signature = bytearray(sign(private, tbs, digest, pss))
    if flip is not None:
        signature[flip // 8 % len(signature)] ^= 1 << flip % 8
    return tbs, algorithm, der.bit_string(bytes(signature))


def named(value: bytes | Reason) -> str:
    """The id of a parameter without its bytes: keys in them differ from process to process."""
    return value.name if isinstance(value, Reason) else "bytes"


# --- names and extensions ----------------------------------------------------------------------------------------

_ATTRIBUTES = {
    "CN": "2.5.4.3",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "C": "2.5.4.6",
    "E": "1.2.840.113549.1.9.1",
    "SERIAL": "2.5.4.5",
}


def attribute(kind: str, text: str, tag: int = der.UTF8_STRING) -> bytes:
    """One AttributeTypeAndValue."""
    encoding = {0x1E: "utf-16-be", 0x1C: "utf-32-be"}.get(tag, "utf-8")
    return der.sequence(der.object_identifier(_ATTRIBUTES[kind]), der.encode_tlv(tag, text.encode(encoding)))


def name(text: str, tag: int = der.UTF8_STRING) -> bytes:
    """A Name from "O=Harbour,CN=Root"; "" is the empty name."""
    parts = [part.partition("=") for part in text.split(",") if part]
    return der.sequence(*(der.encode_tlv(der.SET, attribute(kind, value, tag)) for kind, _, value in parts))


@dataclass(frozen=True)
class Ext:
    """An extension to be."""

    oid: str
    value: bytes
    critical: bool = False

    def encode(self) -> bytes:
        """As a certificate holds it."""
        flag = der.TRUE_DER if self.critical else b""
        return der.sequence(der.object_identifier(self.oid), flag, der.octet_string(self.value))


def basic(ca: bool = True, path_length: int | None = None, *, critical: bool = True) -> Ext:
    """The basicConstraints."""
    length = b"" if path_length is None else der.integer(path_length)
    return Ext("2.5.29.19", der.sequence(der.TRUE_DER if ca else b"", length), critical)


def usage(*bits: int, critical: bool = True) -> Ext:
    """The keyUsage with these bits."""
    return Ext("2.5.29.15", der.named_bit_string(bits), critical)


CA_USAGE = usage(5, 6)
LEAF_USAGE = usage(0)


def purposes(*oids: str, critical: bool = False) -> Ext:
    """The extendedKeyUsage."""
    return Ext("2.5.29.37", der.sequence(*map(der.object_identifier, oids)), critical)


def general(form: str, value: str | bytes) -> bytes:
    """A GeneralName: dns, email, uri, ip (bytes), directory (text or DER Name), other (DER contents), id (OID)."""
    match form:
        case "dns" | "email" | "uri":
            tag = {"email": 1, "dns": 2, "uri": 6}[form]
            return der.implicit(tag, value.encode() if isinstance(value, str) else value)
        case "ip":
            assert isinstance(value, bytes)
            return der.implicit(7, value)
        case "directory":
            return der.explicit(4, name(value) if isinstance(value, str) else value)
        case "id":
            assert isinstance(value, str)
            return der.implicit(8, oid_contents(value))
        case _:
            assert isinstance(value, bytes)
            return der.encode_tlv({"other": 0xA0, "x400": 0xA3, "edi": 0xA5}[form], value)


def hardware_module() -> bytes:
    """The contents of an otherName."""
    return der.object_identifier("1.3.6.1.5.5.7.8.4") + der.explicit(0, der.sequence(der.object_identifier("1.3.6.1")))


def san(*names: tuple[str, str | bytes], critical: bool = False) -> Ext:
    """The subjectAltName."""
    return Ext("2.5.29.17", der.sequence(*(general(form, value) for form, value in names)), critical)


def constraints(
    permitted: Iterable[tuple[str, str | bytes]] = (),
    excluded: Iterable[tuple[str, str | bytes]] = (),
    *,
    critical: bool = True,
) -> Ext:
    """The nameConstraints."""
    parts = [
        der.encode_tlv(tag, b"".join(der.sequence(general(form, value)) for form, value in subtrees))
        for tag, subtrees in ((0xA0, list(permitted)), (0xA1, list(excluded)))
        if subtrees
    ]
    return Ext("2.5.29.30", der.sequence(*parts), critical)


def policies(*oids: str, qualifier: bytes = b"", critical: bool = False) -> Ext:
    """The certificatePolicies."""
    items = (der.sequence(der.object_identifier(oid), qualifier) for oid in oids)
    return Ext("2.5.29.32", der.sequence(*items), critical)


def mappings(*pairs: tuple[str, str]) -> Ext:
    """The policyMappings."""
    items = (der.sequence(der.object_identifier(one), der.object_identifier(two)) for one, two in pairs)
    return Ext("2.5.29.33", der.sequence(*items), critical=True)


def policy_constraints(require: int | None = None, inhibit: int | None = None, *, critical: bool = True) -> Ext:
    """The policyConstraints."""
    parts = b""
    for number, value in ((0, require), (1, inhibit)):
        if value is not None:
            parts += der.implicit(number, der.integer(value)[2:])
    return Ext("2.5.29.36", der.encode_tlv(der.SEQUENCE, parts), critical)


def inhibit_any(skip: int, *, critical: bool = True) -> Ext:
    """The inhibitAnyPolicy."""
    return Ext("2.5.29.54", der.integer(skip), critical)


def key_id(private: Key) -> bytes:
    """A key identifier."""
    return hashlib.sha1(key_bytes(spki(private)), usedforsecurity=False).digest()


def ski(private: Key, *, critical: bool = False) -> Ext:
    """The subjectKeyIdentifier."""
    return Ext("2.5.29.14", der.octet_string(key_id(private)), critical)


def aki(private: Key, *, critical: bool = False) -> Ext:
    """The authorityKeyIdentifier."""
    return Ext("2.5.29.35", der.sequence(der.implicit(0, key_id(private))), critical)


def point_name(*names: tuple[str, str | bytes], relative: bytes = b"") -> bytes:
    """A DistributionPointName in its own context tag."""
    if relative:
        return der.encode_tlv(0xA1, relative)
    return der.encode_tlv(0xA0, b"".join(general(form, value) for form, value in names))


def point(named: bytes = b"", reasons: Sequence[int] = (), issuer: str = "") -> bytes:
    """A DistributionPoint."""
    parts = der.encode_tlv(0xA0, named) if named else b""
    if reasons:
        parts += der.implicit(1, der.named_bit_string(reasons)[2:])
    if issuer:
        parts += der.encode_tlv(0xA2, general("directory", issuer))
    return der.sequence(parts)


def crl_points(*points: bytes, critical: bool = False) -> Ext:
    """The cRLDistributionPoints."""
    return Ext("2.5.29.31", der.sequence(*points), critical)


NOCHECK = Ext("1.3.6.1.5.5.7.48.1.5", der.NULL_DER)
NO_REV_AVAIL = Ext("2.5.29.56", der.NULL_DER)
UNKNOWN = "1.3.6.1.4.1.32473.99.1"
HOSTILE_NAMES = san(
    ("dns", "*.er.h1.five-hospitals.example"),
    ("uri", "https://none.invalid/"),
    ("email", "root@none.invalid"),
    ("ip", bytes([10, 0, 0, 1])),
    ("id", "1.2.3"),
)
"""What no request may get."""


# --- certificates ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Made:
    """A certificate with its key."""

    der: bytes
    subject: bytes
    private: Key
    extensions: tuple[Ext, ...] = field(default=())

    @property
    def parsed(self) -> PathCertificate:
        """As the verifier sees it."""
        return decode_certificate(self.der)

    @property
    def anchor(self) -> PathAnchor:
        """As an anchor."""
        return PathAnchor.from_certificate(self.parsed)

    def issue(self, subject: str, extensions: Sequence[Ext] = (), **changes: object) -> Made:
        """A certificate signed with this one's key."""
        return make(subject, extensions, issuer=self, **changes)  # type: ignore[arg-type]

    def ca(self, subject: str, *extra: Ext, path_length: int | None = None, **changes: object) -> Made:
        """A good subordinate CA with more extensions."""
        return self.issue(subject, (basic(True, path_length), CA_USAGE, *extra), **changes)

    def leaf(self, *extra: Ext, subject: str = "O=Harbour,CN=device", **changes: object) -> Made:
        """A good end entity for clientAuth with more extensions."""
        return self.issue(subject, (LEAF_USAGE, purposes(CLIENT_AUTH), *extra), **changes)


def make(
    subject: str | bytes,
    extensions: Sequence[Ext] = (),
    *,
    issuer: Made | None = None,
    private: Key | None = None,
    issuer_name: bytes | None = None,
    serial: int | None = None,
    not_before: datetime = AT - 30 * DAY,
    not_after: datetime = AT + 365 * DAY,
    version: bytes = der.explicit(0, der.integer(2)),
    algorithm: bytes | None = None,
    outer_algorithm: bytes | None = None,
    digest: str = "",
    pss: tuple[str, int] | None = None,
    with_key_ids: bool = True,
    spki_der: bytes | None = None,
    flip: int | None = None,
    tail: bytes = b"",
) -> Made:
    """A certificate; self-signed where no issuer is given. `flip` inverts a bit of the signature."""
    own = private or key("p256", next(_serials))
    signer = issuer.private if issuer is not None else own
    subject_der = subject if isinstance(subject, bytes) else name(subject)
    chosen = algorithm or algorithm_of(signer, digest)
    wanted = list(extensions)
    if with_key_ids:
        wanted += [ski(own), aki(signer)]
    encoded = der.explicit(3, der.sequence(*(one.encode() for one in wanted))) if wanted else b""
    tbs = der.sequence(
        version,
        der.integer(next(_serials) if serial is None else serial),
        chosen,
        issuer_name if issuer_name is not None else (issuer.subject if issuer is not None else subject_der),
        der.sequence(der.time(not_before), der.time(not_after)),
        subject_der,
        spki_der or spki(own),
        encoded,
        tail,
    )
    whole = der.sequence(*_signed(signer, tbs, outer_algorithm or chosen, digest, flip, pss=pss))
    return Made(der=whole, subject=subject_der, private=own, extensions=tuple(wanted))


def root(subject: str = "O=Harbour,CN=Root", *extra: Ext, **changes: object) -> Made:
    """A self-signed root."""
    return make(subject, (basic(), CA_USAGE, *extra), **changes)  # type: ignore[arg-type]


# --- CRLs --------------------------------------------------------------------------------------------------------

_SCOPE_FLAGS = {"only_user": 1, "only_ca": 2, "indirect": 4, "only_attribute": 5}  # RFC 5280 5.2.5


@dataclass(frozen=True)
class Listed:
    """An entry of a CRL."""

    serial: int
    reason: int | None = None
    issuer: str = ""
    extra: tuple[Ext, ...] = ()
    at: datetime = AT - DAY

    def encode(self) -> bytes:
        """As a CRL holds it."""
        wanted = list(self.extra)
        if self.reason is not None:
            wanted.append(Ext("2.5.29.21", der.encode_tlv(0x0A, bytes([self.reason]))))
        if self.issuer:
            wanted.append(Ext("2.5.29.29", der.sequence(general("directory", self.issuer)), critical=True))
        extensions = der.sequence(*(one.encode() for one in wanted)) if wanted else b""
        return der.sequence(der.integer(self.serial), der.time(self.at), extensions)


def scope(named: bytes = b"", *, reasons: Sequence[int] = (), **flags: bool) -> Ext:
    """The issuingDistributionPoint. Flags: only_user, only_ca, indirect, only_attribute."""
    parts = {number: b"\xff" for name, number in _SCOPE_FLAGS.items() if flags.pop(name, False)}
    assert not flags
    if reasons:
        parts[3] = der.named_bit_string(reasons)[2:]
    point = der.encode_tlv(0xA0, named) if named else b""
    return Ext("2.5.29.28", der.sequence(point, *(der.implicit(at, parts[at]) for at in sorted(parts))), critical=True)


def crl(
    issuer: Made,
    entries: Sequence[Listed] = (),
    *extra: Ext,
    number: int | None = 1,
    base: int | None = None,
    this_update: datetime = AT - timedelta(hours=1),
    next_update: datetime | None = AT + 7 * DAY,
    version: bytes = der.integer(1),
    issuer_name: bytes | None = None,
    outer_algorithm: bytes | None = None,
    flip: int | None = None,
    digest: str = "",
    body: bytes | None = None,
) -> bytes:
    """A CRL signed by `issuer`. `body` replaces the whole revokedCertificates."""
    wanted = list(extra)
    if number is not None:
        wanted.append(Ext("2.5.29.20", der.integer(number)))
    if base is not None:
        wanted.append(Ext("2.5.29.27", der.integer(base), critical=True))
    chosen = algorithm_of(issuer.private, digest)
    listed = der.sequence(*(entry.encode() for entry in entries)) if entries else b""
    tbs = der.sequence(
        version,
        chosen,
        issuer_name or issuer.subject,
        der.time(this_update),
        der.time(next_update) if next_update is not None else b"",
        listed if body is None else body,
        der.explicit(0, der.sequence(*(one.encode() for one in wanted))) if wanted else b"",
    )
    return der.sequence(*_signed(issuer.private, tbs, outer_algorithm or chosen, digest, flip))


# --- OCSP --------------------------------------------------------------------------------------------------------

GOOD = der.implicit(0, b"")
UNKNOWN_STATUS = der.implicit(2, b"")


def revoked(reason: int | None = None) -> bytes:
    """The CertStatus revoked."""
    why = b"" if reason is None else der.explicit(0, der.encode_tlv(0x0A, bytes([reason])))
    return der.encode_tlv(0xA1, der.generalized_time(AT - DAY) + why)


def ocsp_id(of: Made, issuer: Made, *, hash_oid: str = "1.3.14.3.2.26", key_hash: bytes | None = None) -> bytes:
    """A CertID."""
    digest = hashlib.sha1 if hash_oid == "1.3.14.3.2.26" else hashlib.sha256
    hashed = digest(key_bytes(spki(issuer.private))).digest() if key_hash is None else key_hash
    return der.sequence(
        identifier(hash_oid, der.NULL_DER),
        der.octet_string(digest(issuer.subject).digest()),
        der.octet_string(hashed),
        der.integer(of.parsed.serial),
    )


def ocsp_request(*cert_ids: bytes, extensions: Sequence[Ext] = (), signature: bytes = b"") -> bytes:
    """An OCSPRequest."""
    asked = der.sequence(*(der.sequence(cert_id) for cert_id in cert_ids))
    tail = der.explicit(2, der.sequence(*(one.encode() for one in extensions))) if extensions else b""
    return der.sequence(der.sequence(asked, tail), signature)


def nonce(value: bytes, *, bare: bool = False) -> Ext:
    """The nonce extension."""
    return Ext("1.3.6.1.5.5.7.48.1.2", value if bare else der.octet_string(value))


def ocsp_response(
    signer: Made,
    cert_id: bytes,
    status: bytes = GOOD,
    *,
    certificates: Sequence[Made] = (),
    by_name: bool = False,
    responder: bytes | None = None,
    produced_at: datetime = AT - timedelta(hours=1),
    this_update: datetime = AT - timedelta(hours=1),
    next_update: datetime | None = AT + timedelta(hours=12),
    extensions: Sequence[Ext] = (),
    flip: int | None = None,
    digest: str = "",
    more: Sequence[bytes] = (),
) -> bytes:
    """A successful OCSPResponse with one answer, and `more` ready SingleResponses."""
    named = der.explicit(1, signer.subject) if by_name else der.explicit(2, der.octet_string(key_id(signer.private)))
    until = b"" if next_update is None else der.explicit(0, der.generalized_time(next_update))
    single = der.sequence(cert_id, status, der.generalized_time(this_update), until)
    tail = der.explicit(1, der.sequence(*(one.encode() for one in extensions))) if extensions else b""
    tbs = der.sequence(
        responder if responder is not None else named,
        der.generalized_time(produced_at),
        der.sequence(single, *more),
        tail,
    )
    held = der.explicit(0, der.sequence(*(one.der for one in certificates))) if certificates else b""
    signed = _signed(signer.private, tbs, algorithm_of(signer.private, digest), digest, flip)
    return wrap_response(der.sequence(*signed, held))


def wrap_response(basic_der: bytes, status: int = 0) -> bytes:
    """An OCSPResponse around a BasicOCSPResponse; other statuses carry no bytes."""
    head = der.encode_tlv(0x0A, bytes([status]))
    if status:
        return der.sequence(head)
    inner = der.sequence(der.object_identifier("1.3.6.1.5.5.7.48.1.1"), der.octet_string(basic_der))
    return der.sequence(head, der.explicit(0, inner))
