"""Validates a peer's certificate chain and identity; opens no connection and caches no verdict.

Parsed certificates, good signatures and validated CA paths are cached by content hash, since none of them ever
changes. Revocation status is checked anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique
from types import MappingProxyType

from vagus.errors import Malformed, NotTrusted, VagusError
from vagus.identifiers import DeviceId, DeviceName, UnitName
from vagus.reasons import Reason
from vagus.trust.anchors import AnchorSet, ClockFloor
from vagus.trust.status import PathStatusSource, StatusSource, status_check
from vagus.x509.budgets import DEFAULT_LIMITS, Limits, check_input
from vagus.x509.certificates import CertificateCache, PathCertificate
from vagus.x509.der import oid_contents
from vagus.x509.paths.checks import Descents, PathInputs
from vagus.x509.paths.identity import check_host
from vagus.x509.paths.policies import PolicyInputs
from vagus.x509.paths.rules import DEVICE, IDEVID, PathRules
from vagus.x509.paths.search import Pool, Search, ValidPath, find_path, pool_of_peer
from vagus.x509.signatures import SignatureVerdicts

_CLIENT_AUTH = oid_contents("1.3.6.1.5.5.7.3.2")
_NAMED_OTHERWISE = frozenset(
    {Reason.IDENTITY_MISSING, Reason.IDENTITY_AMBIGUOUS, Reason.NAME_FORM, Reason.NON_CANONICAL}
)
_SAID_OF_OURS = frozenset({Reason.REVOKED, Reason.ON_HOLD})
"""Refusals by a source of status that may know the very bytes of the leaf. A serial alone proves nothing.

A thief of a CA's key signs any name with the serial of a revoked certificate, and any dates: so EXPIRED proves nothing.
"""


@unique
class Role(StrEnum):
    """What the peer's key is used for. Each role has one extendedKeyUsage, see `PURPOSES`."""

    CLIENT = "client"
    SERVER = "server"
    IDEVID = "idevid"  # IEEE 802.1AR: clientAuth, or no extendedKeyUsage at all
    SDC_PROVIDER = "sdc-provider"
    SDC_CONSUMER = "sdc-consumer"
    NETWORK_ACCESS = "network-access"
    SAFETY = "safety"
    CONFIGURATION_SIGNER = "configuration-signer"
    FIRMWARE_SIGNER = "firmware-signer"
    OCSP_RESPONDER = "ocsp-responder"


PURPOSES: Mapping[Role, bytes] = MappingProxyType(
    {
        Role.CLIENT: _CLIENT_AUTH,
        Role.SERVER: oid_contents("1.3.6.1.5.5.7.3.1"),
        Role.IDEVID: _CLIENT_AUTH,
        Role.SDC_PROVIDER: oid_contents("1.2.840.10004.20701.1.1"),
        Role.SDC_CONSUMER: oid_contents("1.2.840.10004.20701.1.2"),
        Role.NETWORK_ACCESS: oid_contents("1.3.6.1.5.5.7.3.14"),  # id-kp-eapOverLAN (RFC 4334)
        Role.SAFETY: oid_contents("1.3.6.1.5.5.7.3.44"),  # id-kp-safetyCommunication (RFC 9809)
        Role.CONFIGURATION_SIGNER: oid_contents("1.3.6.1.5.5.7.3.41"),  # id-kp-configSigning (RFC 9809)
        Role.FIRMWARE_SIGNER: oid_contents("1.3.6.1.5.5.7.3.43"),  # id-kp-updatePackageSigning (RFC 9809)
        Role.OCSP_RESPONDER: oid_contents("1.3.6.1.5.5.7.3.9"),
    }
)


FindEarlier = Callable[[PathCertificate, PathCertificate], tuple[DeviceId, UnitName] | None]
"""The device of a certificate by its issuer whose names are not ours; None where it is known as no device's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Which peer the caller expects.

    `needs_identity`: the leaf names exactly one device below `group_domain`, in one of `units` ("h1/icu") if given.
    `find_earlier` is asked where the leaf names no device so: an imported CA issued under other names.
    `host_name`: the leaf names this host or address (RFC 9525). `policy`: accepted certificate policies.
    """

    role: Role
    group_domain: str | None = None
    units: frozenset[str] | None = None
    needs_identity: bool = True
    host_name: str | None = None
    find_earlier: FindEarlier | None = None
    policy: PolicyInputs = field(default_factory=PolicyInputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedIdentity:
    """A peer that was accepted, and why: the path goes from the leaf to the certificate that the anchor issued."""

    device_name: DeviceName | None
    leaf_sha256: bytes
    issuer_der: bytes
    serial: int
    not_after: datetime
    path: tuple[PathCertificate, ...]
    anchor_sha256: bytes
    policies: frozenset[bytes] = frozenset()
    anchor: PathCertificate | None = None

    @property
    def anchor_serial(self) -> int | None:
        """The serial number of the anchor's own certificate: an anchor of this installation can be revoked."""
        return None if self.anchor is None else self.anchor.serial


class Validator:
    """Accepts or refuses peers against one set of anchors, one source of status and one profile.

    `known` are the installation's intermediates: a resumed TLS session carries the leaf only. Safe to use from several
    threads; make a new one where anchors change.
    """

    def __init__(
        self,
        anchors: AnchorSet,
        status: StatusSource | PathStatusSource,
        *,
        profile: PathRules = DEVICE,
        known: Iterable[bytes] = (),
        floor: ClockFloor | None = None,
        limits: Limits = DEFAULT_LIMITS,
        certificates: CertificateCache | None = None,
        verdicts: SignatureVerdicts | None = None,
    ) -> None:
        self._certificates = certificates or CertificateCache()
        self._verdicts = verdicts or SignatureVerdicts()
        self._descents = Descents()
        self._pool = Pool(anchors, [self._certificates.decode(der) for der in known])
        self._check_status = status_check(status)
        self._profile = profile
        self._floor = floor
        self._limits = limits

    def validate(
        self, leaf_der: bytes, chain_der: Sequence[bytes], expectation: Expectation, at: datetime
    ) -> AcceptedIdentity:
        """The identity in `leaf_der`, the certificate whose key the peer has proved to hold.

        `chain_der` is what the peer sent beside it, in any order. Raises NotTrusted, Malformed or LimitExceeded with
        the reason; whatever the bytes are, nothing else.
        """
        # 0. Refuse a time without a time zone: it cannot be compared.
        if at.tzinfo is None:
            raise Malformed(Reason.BAD_ARGUMENT, "the time at which to validate has no time zone; give a UTC time")
        # 1. Refuse a clock that was set back, before any date is read: it would revive expired certificates.
        if self._floor is not None:
            self._floor.check(at)
        # 2. Parse each certificate once: strict DER of bounded size.
        check_input(len(chain_der), len(leaf_der) + sum(map(len, chain_der)), self._limits)
        leaf = self._certificates.decode(leaf_der)
        extra = pool_of_peer(self._readable(chain_der), self._limits)
        try:
            # 3. Validate the paths that lead to an anchor (RFC 5280 6.1), and the status (6.3) of each valid path.
            path = find_path(leaf, self._search(extra, expectation, at))
            # 4. Check the names: one identity, no other name form, the right unit; or the expected host.
            device_name = _identify(path, expectation)
            # 5. Check that the anchor may vouch for this device: a CA that was taken over stays in its compartment.
            _check_anchor_bounds(path, device_name, expectation)
        except NotTrusted as refusal:
            # A maker's anchor vouches for no name of ours, so an IDevID proves none.
            # WRONG_COMPARTMENT comes after path and status were accepted.
            is_ours = refusal.is_peer_proved and refusal.reason in _SAID_OF_OURS
            is_proved = is_ours or refusal.reason is Reason.WRONG_COMPARTMENT
            refusal.is_peer_proved = expectation.needs_identity and is_proved
            raise
        return AcceptedIdentity(
            device_name=device_name,
            leaf_sha256=leaf.sha256,
            issuer_der=leaf.issuer.der,
            serial=leaf.serial,
            not_after=leaf.not_after,
            path=path.certificates,
            anchor_sha256=path.anchor.sha256,
            policies=path.policies,
            anchor=path.anchor.certificate,
        )

    def _readable(self, chain_der: Sequence[bytes]) -> list[PathCertificate]:
        """The certificates that parse. What a peer sends beside its leaf is only a hint, so the others are ignored."""
        found = []
        for certificate_der in chain_der:
            try:
                found.append(self._certificates.decode(certificate_der))
            except VagusError:
                continue
        return found

    def _search(self, extra: Pool, expectation: Expectation, at: datetime) -> Search:
        is_idevid = expectation.role is Role.IDEVID and self._profile is DEVICE
        return Search(
            pool=self._pool,
            extra=extra,
            rules=IDEVID if is_idevid else self._profile,
            inputs=PathInputs(at=at, purposes=frozenset({PURPOSES[expectation.role]}), policy=expectation.policy),
            verdicts=self._verdicts,
            limits=self._limits,
            descents=self._descents,
            accept=lambda path: self._check_status(path, at),
        )


def _identify(path: ValidPath, expectation: Expectation) -> DeviceName | None:
    """The device that the leaf names, or whose earlier certificate it is. Raises as `check_identity`."""
    leaf = path.target
    issuer = path.certificates[1] if len(path.certificates) > 1 else path.anchor.certificate
    try:
        return check_identity(leaf, expectation)
    except NotTrusted as refusal:
        ask = expectation.find_earlier
        if ask is None or issuer is None or refusal.reason not in _NAMED_OTHERWISE:
            raise
        found = ask(leaf, issuer)
        if found is None or expectation.group_domain is None:
            raise
    name = DeviceName(*found, expectation.group_domain)
    _check_unit(leaf, name, expectation)
    return name


def _check_anchor_bounds(path: ValidPath, device_name: DeviceName | None, expectation: Expectation) -> None:
    """What the application binds an anchor to. Raises NotTrusted(PATHLEN|NAME_CONSTRAINT)."""
    anchor, leaf = path.anchor, path.target
    if anchor.path_length is not None and len(path.certificates) - 1 > anchor.path_length:
        msg = f"certificate {leaf.label} has a CA above it that its anchor may not have beneath it; send another chain"
        raise NotTrusted(Reason.PATHLEN, msg, certificate=leaf.label)
    if anchor.domain is None:
        return
    unit = None if device_name is None else device_name.unit.domain(expectation.group_domain or "")
    if unit is None or not f".{unit}".endswith(f".{anchor.domain}"):
        msg = f"certificate {leaf.label} is for {unit or 'no device'}, and its CA may vouch for {anchor.domain} alone"
        raise NotTrusted(Reason.NAME_CONSTRAINT, f"{msg}; enrol the device anew", certificate=leaf.label)


def check_identity(leaf: PathCertificate, expectation: Expectation) -> DeviceName | None:
    """The device that the leaf names, None where no identity is needed.

    An identity is exactly one dNSName and no other name (docs/isolation.md). The common name is never read.
    Raises NotTrusted(IDENTITY_MISSING|IDENTITY_AMBIGUOUS|NAME_FORM|NON_CANONICAL|WRONG_COMPARTMENT|NAME_MISMATCH).
    """
    if expectation.host_name is not None:
        check_host(leaf, expectation.host_name, allows_wildcards=False)
    if not expectation.needs_identity or expectation.group_domain is None:
        return None
    names = leaf.names
    if not names.dns:
        msg = f"certificate {leaf.label} names no device in a dNSName; enrol the device in this installation"
        raise NotTrusted(Reason.IDENTITY_MISSING, msg, certificate=leaf.label)
    if len(names.dns) > 1:
        msg = f"certificate {leaf.label} has {len(names.dns)} dNSNames, and a device identity is one; re-issue it"
        raise NotTrusted(Reason.IDENTITY_AMBIGUOUS, msg, certificate=leaf.label)
    if names.count > 1:
        msg = f"certificate {leaf.label} has other names beside its dNSName; issue it with one dNSName alone"
        raise NotTrusted(Reason.NAME_FORM, msg, certificate=leaf.label)
    try:
        device_name = DeviceName.parse(names.dns[0], expectation.group_domain)
    except Malformed as fault:
        raise NotTrusted(fault.reason, fault.message, certificate=leaf.label) from fault
    _check_unit(leaf, device_name, expectation)
    return device_name


def _check_unit(leaf: PathCertificate, device_name: DeviceName, expectation: Expectation) -> None:
    if expectation.units is not None and str(device_name.unit) not in expectation.units:
        msg = f"certificate {leaf.label} is of unit {device_name.unit}, which this listener does not accept"
        raise NotTrusted(Reason.WRONG_COMPARTMENT, msg, certificate=leaf.label, unit=str(device_name.unit))
