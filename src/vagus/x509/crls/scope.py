"""Which CRL covers which certificate: scopes, partitions, reasons (RFC 5280 6.3.3 (b) to (e)); verifies nothing."""

from __future__ import annotations

from functools import lru_cache

from vagus.x509 import extensions as ext
from vagus.x509.certificates import PathCertificate
from vagus.x509.crls.decoding import ALL_REASONS, Crl, Name
from vagus.x509.extensions import DistributionPoint, decode_distribution_points
from vagus.x509.names.distinguished import DistinguishedName
from vagus.x509.names.general import GeneralNames

ANYWHERE = DistributionPoint(full_name=None, relative_name=None, reasons=None, crl_issuer=None)
"""6.3.3 after (l): "a DP with both the reasons and the cRLIssuer fields omitted and a distribution point name of the
certificate issuer", for CRLs that no distribution point of the certificate names."""


def distribution_points(certificate: PathCertificate) -> tuple[DistributionPoint, ...]:
    """The certificate's own points, then the implied one. Raises Malformed(NON_DER) for an unreadable extension."""
    value = certificate.value_of(ext.CRL_DISTRIBUTION_POINTS)
    if value is None:
        return (ANYWHERE,)
    return _repeated_points(value) if len(value) <= _REPEATED else _points(value)


def _points(value: bytes) -> tuple[DistributionPoint, ...]:
    return (*decode_distribution_points(value), ANYWHERE)


# bytes of the longest distribution points that are cached: all certificates of a shard have the same ones
_REPEATED = 512
_repeated_points = lru_cache(maxsize=4096)(_points)


def covers(crl: Crl, point: DistributionPoint, certificate: PathCertificate) -> bool:
    """Whether `crl` covers `certificate` by way of `point`, whatever the reasons: (b)(1), (b)(2)."""
    # RFC 5280 6.3.3 (b)(1): the CRL has the issuer that the distribution point names, else the certificate's.
    if point.crl_issuer is not None:
        if not crl.scope.is_indirect or not any(crl.issuer.matches(name) for name in point.crl_issuer.directories):
            return False
    elif not crl.issuer.matches(certificate.issuer):
        return False
    scope = crl.scope
    # RFC 5280 6.3.3 (b)(2)(i): the names of the distribution points have one in common.
    if (scope.full_name is not None or scope.relative_name is not None) and not _shares_name(crl, point, certificate):
        return False
    # RFC 5280 6.3.3 (b)(2)(ii), (iii): a CRL for users or for CAs alone. A v1 certificate does not say what it is, so
    # neither covers it.
    if scope.only_user and (certificate.is_ca or certificate.version != 3):
        return False
    if scope.only_ca and not certificate.is_ca:
        return False
    # RFC 5280 6.3.3 (b)(2)(iv): a CRL for attribute certificates alone covers no certificate.
    return not scope.only_attribute


def _shares_name(crl: Crl, point: DistributionPoint, certificate: PathCertificate) -> bool:
    own = _names(crl.scope.full_name)
    if crl.scope.relative_name is not None:
        own = {crl.issuer.with_relative_name(crl.scope.relative_name)}
    if point.full_name is None and point.relative_name is None:
        if point.crl_issuer is not None:
            return bool(own & _names(point.crl_issuer))
        # A certificate without distribution points has an implied one with its issuer's name (RFC 5280 6.3.3).
        return certificate.issuer.relative_names in own
    if point.relative_name is not None:
        bases: tuple[DistinguishedName, ...] = (
            point.crl_issuer.directories if point.crl_issuer is not None else (certificate.issuer,)
        )
        return any(base.with_relative_name(point.relative_name) in own for base in bases)
    return bool(own & _names(point.full_name))


def _names(names: GeneralNames | None) -> set[Name | str | bytes]:
    if names is None:
        return set()
    directories: set[Name | str | bytes] = {name.relative_names for name in names.directories}
    return directories | set(names.uris) | set(names.dns) | set(names.emails) | {value for _, value in names.others}


def covered_reasons(crl: Crl, point: DistributionPoint) -> int:
    """(d): the reasons that this CRL covers when it is reached through this point."""
    of_crl = ALL_REASONS if crl.scope.reasons is None else crl.scope.reasons
    of_point = ALL_REASONS if point.reasons is None else point.reasons
    return of_crl & of_point & ALL_REASONS


def updates(delta: Crl, base: Crl) -> bool:
    """(c): whether `delta` updates `base`: same issuer, scope and key, and numbers that overlap (5.2.4)."""
    return (
        delta.base_number is not None
        and not base.is_delta
        and base.number is not None
        and delta.number is not None
        and delta.issuer.matches(base.issuer)
        and delta.scope_der == base.scope_der
        and delta.authority_key_id == base.authority_key_id
        and delta.base_number <= base.number < delta.number
    )
