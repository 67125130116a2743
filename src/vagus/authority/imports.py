"""Checks a CA certificate, chain and key from elsewhere before they become an authority here."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.errors import Conflict, NotTrusted, PolicyRefusal
from vagus.keystore import private_keys
from vagus.ledger.append import append
from vagus.ledger.entries import KeyBlocked
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records import keys as key_rows
from vagus.records.certificates import NO_EXPIRY
from vagus.x509 import Certificate, der, oids
from vagus.x509.keys import PublicKey, check_key_strength, decode_public_key, verify_signature
from vagus.x509.library_certificates import decode_certificate
from vagus.x509.names.distinguished import decode_name
from vagus.x509.pem import decode_certificates
from vagus.x509.tbs import TbsFields, decode_tbs

if TYPE_CHECKING:
    from vagus.keystore.passphrases import Passphrase
    from vagus.records.engine.database import Connection
    from vagus.records.engine.writer import Batch
    from vagus.x509.algorithms import KeyAlgorithm

_CERT_SIGN_BIT, _CRL_SIGN_BIT = 5, 6
_OWN_EXTENSIONS = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.NAME_CONSTRAINTS,
        oids.CERTIFICATE_POLICIES,
        oids.POLICY_CONSTRAINTS,
        oids.POLICY_MAPPINGS,
        oids.INHIBIT_ANY_POLICY,
        oids.EXTENDED_KEY_USAGE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedChain:
    """A CA certificate as received, and those above it, nearest first."""

    certificate_der: bytes
    chain_der: tuple[bytes, ...]
    public_key: PublicKey
    fields: TbsFields

    @property
    def not_before(self) -> int:
        """Seconds since 1970 UTC."""
        return int(self.fields.not_before.timestamp())

    @property
    def not_after(self) -> int:
        """Seconds since 1970 UTC."""
        return min(int(self.fields.not_after.timestamp()), NO_EXPIRY)


def read_chain(chain_pem: bytes) -> ImportedChain:
    """The certificate that comes first in a PEM file and those above it.

    Names are compared as RFC 5280 7.1 has it. The last certificate need not be a root. Raises Malformed, and NotTrusted
    (NAME_CHAINING, BAD_SIGNATURE, UNSUPPORTED_ALGORITHM) if one was not signed by the next.
    """
    ders = decode_certificates(chain_pem)
    certificates = [decode_certificate(one) for one in ders]
    for below, above in itertools.pairwise(certificates):
        _check_signed(below, above)
    fields = decode_tbs(certificates[0].tbs_certificate_bytes)
    return ImportedChain(
        certificate_der=ders[0], chain_der=ders[1:], public_key=decode_public_key(fields.spki_der), fields=fields
    )


def _check_signed(below: Certificate, above: Certificate) -> None:
    inner, outer = decode_tbs(below.tbs_certificate_bytes), decode_tbs(above.tbs_certificate_bytes)
    if not decode_name(inner.issuer_der).matches(decode_name(outer.subject_der)):
        msg = "the imported chain is broken: a certificate names another issuer than the next; order it leaf to root"
        raise NotTrusted(Reason.NAME_CHAINING, msg)
    verify_signature(outer.spki_der, inner.signature_der, below.signature, below.tbs_certificate_bytes)


def check_authority(found: ImportedChain, allowed: frozenset[KeyAlgorithm]) -> None:
    """Check that it is a CA that may sign certificates and CRLs, and that verifiers know its critical extensions.

    Raises NotTrusted (NOT_A_CA, KEY_USAGE, UNKNOWN_CRITICAL, BAD_VERSION) and PolicyRefusal (WEAK_KEY,
    UNSUPPORTED_ALGORITHM).
    """
    fields = found.fields
    # 1. The imported certificate has version 3 and basicConstraints with cA true (RFC 5280 4.2.1.9).
    basic = fields.by_oid.get(oids.BASIC_CONSTRAINTS)
    if fields.version != 2 or basic is None or der.TRUE_DER not in der.content_of(basic.value, der.SEQUENCE)[:3]:
        msg = "the imported certificate is no CA's (basicConstraints cA, RFC 5280 4.2.1.9); import the CA's own"
        raise NotTrusted(Reason.NOT_A_CA, msg)
    # 2. Its keyUsage has keyCertSign and cRLSign (RFC 5280 4.2.1.3): without cRLSign, nothing that the CA issues can be
    # revoked.
    usage = fields.by_oid.get(oids.KEY_USAGE)
    if usage is not None:
        bits = der.content_of(usage.value, der.BIT_STRING)
        if len(bits) < 2 or not _has_bit(bits, _CERT_SIGN_BIT) or not _has_bit(bits, _CRL_SIGN_BIT):
            msg = "the imported CA certificate lacks keyUsage keyCertSign or cRLSign; have it certified with both"
            raise NotTrusted(Reason.KEY_USAGE, msg)
    # 3. Unknown extensions are allowed unless critical: a verifier must refuse an unknown critical one (RFC 5280 4.2).
    for one in fields.extensions:
        if one.is_critical and one.oid not in _OWN_EXTENSIONS:
            msg = f"the imported CA certificate has the unknown critical extension {one.oid}; have it certified without"
            raise NotTrusted(Reason.UNKNOWN_CRITICAL, msg, oid=one.oid)
    # 4. The policy pack allows the CA's key for this kind of authority.
    check_key_strength(found.public_key, allowed)


def _has_bit(bits: bytes, position: int) -> bool:
    index = 1 + position // 8  # the first byte of a BIT STRING counts its unused bits (X.690 8.6.2.2)
    return len(bits) > index and bool(bits[index] & (0x80 >> position % 8))


def check_key_pair(found: ImportedChain, key_pem: bytes, password: Passphrase | None) -> None:
    """Check that the private key is the certificate's. Raises Conflict(KEY_MISMATCH) and what decoding a key raises."""
    private = private_keys.decode_pem(key_pem, password.unsafe_reveal() if password else None)
    if private_keys.spki_of(private) != found.public_key.spki_der:
        msg = "the private key does not belong to the imported CA certificate; give the key and certificate of one pair"
        raise Conflict(Reason.KEY_MISMATCH, msg)


def find_row_of(connection: Connection, certificate_der: bytes) -> rows.AuthorityRow | None:
    """The authority here whose certificate this is, or whose key it carries."""
    spki = decode_tbs(decode_certificate(certificate_der).tbs_certificate_bytes).spki_der
    row = rows.find_by_key(connection, hashlib.sha256(spki).digest())
    return row if row is not None and row.certificate_der is not None else None


def block_foreign_keys(batch: Batch, found: ImportedChain, *, by: str) -> None:
    """Block the keys of the authorities above, so that no device is ever certified with one."""
    for certificate_der in found.chain_der:
        spki = decode_tbs(decode_certificate(certificate_der).tbs_certificate_bytes).spki_der
        digest = hashlib.sha256(spki).digest()
        if rows.find_by_key(batch.connection, digest) is not None:
            continue
        owner = "rule:foreign-authority"
        if key_rows.block_key(batch.connection, digest, owner, at=batch.at):
            append(batch, KeyBlocked(digest, owner, by))


def refuse_expired(found: ImportedChain, at: int) -> None:
    """Raises PolicyRefusal(EXPIRED_CA)."""
    if found.not_after <= at:
        msg = f"the imported CA certificate expired on {found.fields.not_after:%Y-%m-%d}; have it renewed first"
        raise PolicyRefusal(Reason.EXPIRED_CA, msg)
