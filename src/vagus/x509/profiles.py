"""What a kind of certificate contains, as a frozen value; says nothing about who may have one (that is `policy`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from vagus.x509.algorithms import KeyAlgorithm

if TYPE_CHECKING:
    from datetime import timedelta


SDC_PROFILES = ("sdc-provider", "sdc-consumer")
"""Certificates of these profiles are what a device shows to SDC peers, beside its device certificate."""


class Kind(StrEnum):
    """The shape of a certificate."""

    END_ENTITY = "end_entity"
    AUTHORITY = "authority"
    OCSP_RESPONDER = "ocsp_responder"


class NameForm(StrEnum):
    """Which names a certificate of this profile carries in its subjectAltName."""

    DEVICE = "device"  # exactly one identity dNSName: <device id>.<unit>.<hospital>.<group domain>
    SERVER = "server"  # one or more host names or IP addresses from the plan
    HARDWARE_MODULE = "hardware_module"  # RFC 4108 HardwareModuleName, for IDevIDs (IEEE 802.1AR 8.10)
    NONE = "none"


class KeyUsage(StrEnum):
    """RFC 5280 4.2.1.3, spelt as there and in the order of its bits, from bit 0 on."""

    DIGITAL_SIGNATURE = "digitalSignature"
    CONTENT_COMMITMENT = "contentCommitment"
    KEY_ENCIPHERMENT = "keyEncipherment"
    DATA_ENCIPHERMENT = "dataEncipherment"
    KEY_AGREEMENT = "keyAgreement"
    KEY_CERT_SIGN = "keyCertSign"
    CRL_SIGN = "cRLSign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of certificate. Everything in it comes from here and the inventory; the CSR gives the key alone."""

    name: str
    kind: Kind
    name_form: NameForm
    key_algorithms: frozenset[KeyAlgorithm]
    key_usage: frozenset[KeyUsage]
    extended_key_usage: tuple[str, ...]  # OIDs of purposes; empty: no extension (IDevID and authorities)
    default_lifetime: timedelta | None  # None: 99991231235959Z, no expiry (RFC 5280 4.1.2.5)
    longest_lifetime: timedelta | None
    has_crl_pointer: bool = True
    has_ocsp_pointer: bool = True
    is_short_lived: bool = False  # noRevAvail replaces pointers to CRL and OCSP (RFC 9608)
    has_ocsp_nocheck: bool = False  # id-pkix-ocsp-nocheck, for OCSP responders (RFC 6960 4.2.2.2.1)
    path_length: int | None = None  # pathLenConstraint, for authorities only
    certificate_policies: tuple[str, ...] = field(default=())
    is_name_constrained: bool = False  # authorities of this profile must have nameConstraints

    def __hash__(self) -> int:
        return hash(self.name)  # few profiles share a name, and hashing all fields costs each issuance 2 us
