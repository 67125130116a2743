"""What RFC 8813 and RFC 9881 ask of key usages, and RFC 9549 and the CA/Browser Forum of host names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.x509 import oids
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.lints.registry import Document
from vagus.x509.profiles import KeyUsage

if TYPE_CHECKING:
    from vagus.x509.lints.parsed_tbs import Draft

RFC8813 = Document("RFC 8813", "rfc8813")
RFC9881 = Document("RFC 9881", "rfc9881")
RFC9549 = Document("RFC 9549", "rfc9549")
CABF = Document("CA/Browser Forum TLS Baseline Requirements", "cabf")

_EC = frozenset({KeyAlgorithm.P256, KeyAlgorithm.P384, KeyAlgorithm.P521})
_MLDSA = frozenset({KeyAlgorithm.MLDSA44, KeyAlgorithm.MLDSA65, KeyAlgorithm.MLDSA87})
_ENCIPHERMENT = frozenset({KeyUsage.KEY_ENCIPHERMENT, KeyUsage.DATA_ENCIPHERMENT})


@RFC8813.lint("encipherment", "3")
def ec_encipherment(draft: Draft) -> str | None:
    """An EC key enciphers nothing."""
    is_odd = draft.key_algorithm in _EC and _ENCIPHERMENT & (draft.key_usage or frozenset())
    return "an EC key with keyEncipherment or dataEncipherment" if is_odd else None


@RFC9881.lint("key-usage", "5")
def mldsa_key_usage(draft: Draft) -> str | None:
    """An ML-DSA key signs and does nothing else."""
    forbidden = _ENCIPHERMENT | {KeyUsage.KEY_AGREEMENT}
    is_odd = draft.key_algorithm in _MLDSA and forbidden & (draft.key_usage or frozenset())
    return "an ML-DSA key with encipherment or keyAgreement" if is_odd else None


@RFC9549.lint("a-labels", "2.2")
def a_labels(draft: Draft) -> str | None:
    """Internationalised labels are in their ASCII form, and only such labels have `--` in third place."""
    for name in draft.names.dns:
        if "--" in name:
            for label in name.split("."):
                if not is_host_label(label.lower()):
                    return f"label {label!r} is no A-label"
    return None


def is_host_label(label: str) -> bool:
    """Whether a label in lower case has `--` in third place only as an A-label (RFC 5890 2.3.1)."""
    if label[2:4] != "--":
        return True
    try:
        return label.startswith("xn--") and bool(label[4:].encode("ascii").decode("punycode"))
    except (UnicodeError, ValueError):
        return False


@CABF.lint("server-name", "7.1.2.7.12")
def server_name(draft: Draft) -> str | None:
    """A certificate for a TLS server has a host name or an address to match."""
    if oids.SERVER_AUTH not in (draft.purposes or ()):
        return None
    return None if draft.names.dns or draft.names.addresses else "serverAuth without a dNSName or iPAddress"


@CABF.lint("any-purpose", "7.1.2.7.10")
def any_purpose(draft: Draft) -> str | None:
    """The purpose anyExtendedKeyUsage would make every role out of one."""
    return "anyExtendedKeyUsage is present" if oids.ANY_EXTENDED_KEY_USAGE in (draft.purposes or ()) else None
