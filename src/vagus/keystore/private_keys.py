"""Private keys of the library behind the SigningKey port, made, exported and imported as PKCS#8; writes no file."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from vagus.errors import Malformed, Misconfigured, NotAuthorised, Refused
from vagus.keystore.signing import Purpose
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.algorithms import KeyAlgorithm, SignatureAlgorithm, default_signature_algorithm
from vagus.x509.pem import describe_labels, list_labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    MlDsaKey: TypeAlias = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
    PrivateKey: TypeAlias = (
        ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | MlDsaKey
    )

_EXPORT_ROUNDS = 600_000
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_CURVES: dict[str, KeyAlgorithm] = {
    "secp256r1": KeyAlgorithm.P256,
    "secp384r1": KeyAlgorithm.P384,
    "secp521r1": KeyAlgorithm.P521,
}
_RSA_SIZES = {2048: KeyAlgorithm.RSA2048, 3072: KeyAlgorithm.RSA3072, 4096: KeyAlgorithm.RSA4096}
_ML_DSA: tuple[tuple[type[MlDsaKey], KeyAlgorithm], ...] = (
    (mldsa.MLDSA44PrivateKey, KeyAlgorithm.MLDSA44),
    (mldsa.MLDSA65PrivateKey, KeyAlgorithm.MLDSA65),
    (mldsa.MLDSA87PrivateKey, KeyAlgorithm.MLDSA87),
)
_EDWARDS = frozenset({KeyAlgorithm.ED25519, KeyAlgorithm.ED448})
_MAKERS: dict[KeyAlgorithm, Callable[[], PrivateKey]] = {
    KeyAlgorithm.P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    KeyAlgorithm.P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    KeyAlgorithm.P521: lambda: ec.generate_private_key(ec.SECP521R1()),
    KeyAlgorithm.RSA2048: lambda: rsa.generate_private_key(65537, 2048),
    KeyAlgorithm.RSA3072: lambda: rsa.generate_private_key(65537, 3072),
    KeyAlgorithm.RSA4096: lambda: rsa.generate_private_key(65537, 4096),
    KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate,
    KeyAlgorithm.ED448: ed448.Ed448PrivateKey.generate,
    KeyAlgorithm.MLDSA44: mldsa.MLDSA44PrivateKey.generate,
    KeyAlgorithm.MLDSA65: mldsa.MLDSA65PrivateKey.generate,
    KeyAlgorithm.MLDSA87: mldsa.MLDSA87PrivateKey.generate,
}


class SoftwareSigningKey:
    """A SigningKey in this process's memory; never shows or pickles its private part."""

    __slots__ = ("_algorithm", "_is_reproducible", "_key_id", "_purposes", "_sign", "_spki_der")

    def __init__(
        self, key_id: str, purposes: frozenset[Purpose], key_algorithm: KeyAlgorithm, private: PrivateKey
    ) -> None:
        self._key_id = key_id
        self._purposes = purposes
        self._algorithm = default_signature_algorithm(key_algorithm)
        self._spki_der = spki_of(private)
        # The library's ML-DSA signatures are hedged (FIPS 204 3.4): each signature of the same bytes differs.
        self._is_reproducible = not isinstance(private, tuple(kind for kind, _ in _ML_DSA))
        self._sign = _signer(private, self._algorithm)

    @property
    def key_id(self) -> str:
        """See SigningKey."""
        return self._key_id

    @property
    def purposes(self) -> frozenset[Purpose]:
        """See SigningKey."""
        return self._purposes

    @property
    def algorithm(self) -> SignatureAlgorithm:
        """See SigningKey."""
        return self._algorithm

    @property
    def spki_der(self) -> bytes:
        """See SigningKey."""
        return self._spki_der

    @property
    def is_reproducible(self) -> bool:
        """See SigningKey."""
        return self._is_reproducible

    def sign(self, purpose: Purpose, message: bytes) -> bytes:
        """See SigningKey. Raises NotAuthorised(PURPOSE_FORBIDDEN)."""
        if purpose not in self._purposes:
            check_purpose(self._key_id, self._purposes, purpose)
        return self._sign(message)

    def __repr__(self) -> str:
        return f"SoftwareSigningKey({self._key_id!r}, {sorted(self._purposes)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key object cannot be pickled, so that it never leaves this process")


def _signer(private: PrivateKey, algorithm: SignatureAlgorithm) -> Callable[[bytes], bytes]:
    """RFC 6979 nonces for ECDSA: a bad random source cannot leak the key, and the same TBS signs to the same bytes."""
    if isinstance(private, ec.EllipticCurvePrivateKey):
        curve = ec.ECDSA(_HASHES[algorithm.hash_name or ""], deterministic_signing=True)
        return lambda message: private.sign(message, curve)
    if isinstance(private, rsa.RSAPrivateKey):
        digest, form = _HASHES[algorithm.hash_name or ""], padding.PKCS1v15()
        return lambda message: private.sign(message, form, digest)
    return private.sign


def check_purpose(key_id: str, purposes: frozenset[Purpose], asked: Purpose) -> None:
    """Raises NotAuthorised(PURPOSE_FORBIDDEN) when `asked` is not among the key's purposes."""
    if asked not in purposes:
        named = ", ".join(sorted(purposes))
        msg = f"key {key_id} may sign for {named}, not for {asked}; use a key made for that purpose"
        raise NotAuthorised(Reason.PURPOSE_FORBIDDEN, msg, key_id=key_id, purpose=asked)


def check_algorithm_purposes(algorithm: KeyAlgorithm, purposes: frozenset[Purpose]) -> None:
    """Edwards keys sign checkpoints alone (the log's notes are Ed25519). Raises Misconfigured(PURPOSE_FORBIDDEN)."""
    is_checkpoint = purposes == {Purpose.CHECKPOINT}
    if (algorithm in _EDWARDS or is_checkpoint) and not (algorithm is KeyAlgorithm.ED25519 and is_checkpoint):
        msg = f"a key for {', '.join(sorted(purposes))} may not be {algorithm}; use ed25519 for checkpoints alone"
        raise Misconfigured(Reason.PURPOSE_FORBIDDEN, msg, algorithm=algorithm)


def generate(algorithm: KeyAlgorithm) -> PrivateKey:
    """A new private key from the library's own random source."""
    return _MAKERS[algorithm]()


def algorithm_of(private: PrivateKey) -> KeyAlgorithm:
    """Which of our algorithms a key is. Raises Refused(UNSUPPORTED_ALGORITHM)."""
    found: KeyAlgorithm | None = None
    if isinstance(private, ec.EllipticCurvePrivateKey):
        found = _CURVES.get(private.curve.name)
    elif isinstance(private, rsa.RSAPrivateKey):
        found = _RSA_SIZES.get(private.key_size)
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        found = KeyAlgorithm.ED25519
    elif isinstance(private, ed448.Ed448PrivateKey):
        found = KeyAlgorithm.ED448
    else:
        found = next((name for kind, name in _ML_DSA if isinstance(private, kind)), None)
    if found is None:
        known = ", ".join(KeyAlgorithm)
        raise Refused(
            Reason.UNSUPPORTED_ALGORITHM,
            f"the private key's kind or size is none of {known}; make a key of one of these",
        )
    return found


def spki_of(private: PrivateKey) -> bytes:
    """The public half as DER SubjectPublicKeyInfo."""
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def encode_pkcs8(private: PrivateKey) -> bytes:
    """PKCS#8 DER in clear, to be sealed at once."""
    return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def decode_pkcs8(der: bytes) -> PrivateKey:
    """What `encode_pkcs8` wrote. Raises ValueError: the caller knows which file is damaged."""
    return _checked(serialization.load_der_private_key(der, password=None))


def encode_clear_pem(private: PrivateKey) -> bytes:
    """PKCS#8 PEM in clear, for the TLS stack alone."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def encode_encrypted_pem(private: PrivateKey, password: bytes, salt: bytes, vector: bytes) -> bytes:
    """Encrypted PKCS#8 PEM that other tools open: PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC (RFC 8018 6.2).

    Written here because the library's own encoder fixes 2,048 rounds. `salt` and `vector` are 16 bytes each.
    """
    secret = PBKDF2HMAC(hashes.SHA256(), 32, salt, _EXPORT_ROUNDS).derive(password)
    padder = PKCS7(128).padder()
    encryptor = Cipher(AES256(secret), CBC(vector)).encryptor()
    content = encryptor.update(padder.update(encode_pkcs8(private)) + padder.finalize()) + encryptor.finalize()
    hmac_sha256 = der.sequence(der.object_identifier("1.2.840.113549.2.9"), der.NULL_DER)
    derivation = der.sequence(der.octet_string(salt), der.integer(_EXPORT_ROUNDS), hmac_sha256)
    scheme = der.sequence(
        der.object_identifier("1.2.840.113549.1.5.13"),
        der.sequence(
            der.sequence(der.object_identifier("1.2.840.113549.1.5.12"), derivation),
            der.sequence(der.object_identifier("2.16.840.1.101.3.4.1.42"), der.octet_string(vector)),
        ),
    )
    text = base64.encodebytes(der.sequence(scheme, der.octet_string(content))).replace(b"\n", b"")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    name = b"ENCRYPTED PRIVATE KEY-----"
    return b"\n".join([b"-----BEGIN " + name, *lines, b"-----END " + name, b""])


def decode_pem(pem: bytes, password: bytes | None) -> PrivateKey:
    """A private key from PEM. Raises NotAuthorised(PASSPHRASE_WRONG), Malformed, Refused(UNSUPPORTED_ALGORITHM)."""
    try:
        return _checked(serialization.load_pem_private_key(pem, password=password))
    except TypeError:
        msg = "the key file is encrypted and no password was given, or a password was given for one in clear"
        raise NotAuthorised(Reason.PASSPHRASE_WRONG, msg) from None
    except UnsupportedAlgorithm:
        raise Refused(
            Reason.UNSUPPORTED_ALGORITHM,
            "the key file is encrypted by an unsupported algorithm; export it as PKCS#8 with AES",
        ) from None
    except ValueError:
        if password is not None and b"ENCRYPTED" in pem:
            msg = "the password does not open the key file, or the key file is damaged"
            raise NotAuthorised(Reason.PASSPHRASE_WRONG, msg) from None
        msg = f"the key file is not PKCS#8 PEM: it has {describe_labels(list_labels(pem))}; export the key as such"
        raise Malformed(Reason.BAD_ENCODING, msg) from None


def _checked(key: object) -> PrivateKey:
    kinds = (
        ec.EllipticCurvePrivateKey,
        rsa.RSAPrivateKey,
        ed25519.Ed25519PrivateKey,
        ed448.Ed448PrivateKey,
        *(kind for kind, _ in _ML_DSA),
    )
    if isinstance(key, kinds):
        return key
    raise Refused(
        Reason.UNSUPPORTED_ALGORITHM,
        "the key file holds a key that cannot sign here (X25519, DSA or such); give an EC, RSA or ML-DSA key",
    )
