"""The object identifiers of extensions, purposes and access methods, by name; decides nothing."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# certificate extensions (RFC 5280 4.2, RFC 6960 4.2.2.2.1, RFC 9608 2)
SUBJECT_KEY_IDENTIFIER = "2.5.29.14"
KEY_USAGE = "2.5.29.15"
SUBJECT_ALT_NAME = "2.5.29.17"
ISSUER_ALT_NAME = "2.5.29.18"
BASIC_CONSTRAINTS = "2.5.29.19"
NAME_CONSTRAINTS = "2.5.29.30"
CRL_DISTRIBUTION_POINTS = "2.5.29.31"
CERTIFICATE_POLICIES = "2.5.29.32"
POLICY_MAPPINGS = "2.5.29.33"
AUTHORITY_KEY_IDENTIFIER = "2.5.29.35"
POLICY_CONSTRAINTS = "2.5.29.36"
EXTENDED_KEY_USAGE = "2.5.29.37"
FRESHEST_CRL = "2.5.29.46"
INHIBIT_ANY_POLICY = "2.5.29.54"
NO_REV_AVAIL = "2.5.29.56"
AUTHORITY_INFO_ACCESS = "1.3.6.1.5.5.7.1.1"
OCSP_NOCHECK = "1.3.6.1.5.5.7.48.1.5"

# extensions of CRLs and of CRL entries (RFC 5280 5.2, 5.3)
CRL_NUMBER = "2.5.29.20"
REASON_CODE = "2.5.29.21"
DELTA_CRL_INDICATOR = "2.5.29.27"
ISSUING_DISTRIBUTION_POINT = "2.5.29.28"
CERTIFICATE_ISSUER = "2.5.29.29"

# access methods of authorityInfoAccess (RFC 5280 4.2.2.1)
OCSP_ACCESS = "1.3.6.1.5.5.7.48.1"
CA_ISSUERS_ACCESS = "1.3.6.1.5.5.7.48.2"

ANY_POLICY = "2.5.29.32.0"
ANY_EXTENDED_KEY_USAGE = "2.5.29.37.0"

# purposes for extendedKeyUsage (RFC 5280 4.2.1.12, RFC 4334, RFC 7030, RFC 9809, IEEE 11073-20701)
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"
TIME_STAMPING = "1.3.6.1.5.5.7.3.8"
OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"
EAP_OVER_LAN = "1.3.6.1.5.5.7.3.14"
CMC_RA = "1.3.6.1.5.5.7.3.28"
CONFIG_SIGNING = "1.3.6.1.5.5.7.3.41"
TRUST_ANCHOR_CONFIG_SIGNING = "1.3.6.1.5.5.7.3.42"
UPDATE_PACKAGE_SIGNING = "1.3.6.1.5.5.7.3.43"
SAFETY_COMMUNICATION = "1.3.6.1.5.5.7.3.44"
SDC_PROVIDER = "1.2.840.10004.20701.1.1"
SDC_CONSUMER = "1.2.840.10004.20701.1.2"

PURPOSES: Mapping[str, str] = MappingProxyType(
    {
        "serverAuth": SERVER_AUTH,
        "clientAuth": CLIENT_AUTH,
        "codeSigning": CODE_SIGNING,
        "timeStamping": TIME_STAMPING,
        "OCSPSigning": OCSP_SIGNING,
        "eapOverLAN": EAP_OVER_LAN,
        "cmcRA": CMC_RA,
        "configSigning": CONFIG_SIGNING,
        "trustAnchorConfigSigning": TRUST_ANCHOR_CONFIG_SIGNING,
        "updatePackageSigning": UPDATE_PACKAGE_SIGNING,
        "safetyCommunication": SAFETY_COMMUNICATION,
        "sdcProvider": SDC_PROVIDER,
        "sdcConsumer": SDC_CONSUMER,
    }
)
"""Extended key usages by the names that policy packs use."""
