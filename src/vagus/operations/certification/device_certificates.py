"""Certificates for devices without an agent: an operator has a request certified, or a key made and certified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vagus.authority.issuance import IssuedCertificate, sign_request
from vagus.errors import Malformed
from vagus.fleet.enrolment.approvals import PROTOCOL, find_occasion
from vagus.fleet.enrolment.enrol import Enrolment, EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import OperatorApproval
from vagus.fleet.tokens import SDC_LABEL, SERVER_LABEL
from vagus.keystore.private_keys import SoftwareSigningKey, encode_pkcs8, generate
from vagus.keystore.signing import Purpose
from vagus.ledger.entries import check_text
from vagus.operations.acts import Acts
from vagus.operations.devices import Device, find_named
from vagus.operations.roles import Act, check_may, check_scope
from vagus.reasons import Reason
from vagus.wire.bundles import encode_pkcs12
from vagus.x509 import der
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.requests import CertificateRequest, decode_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from vagus.operations.actor import Actor

_SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateWish:
    """Which certificate of which device (its id, or MODEL:SERIAL); `label` is "server", "sdc" or, for its own, None.

    `weak_key_reason` goes into the ledger, and is needed for an RSA-2048 key.
    """

    device: str
    label: str | None = None
    weak_key_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedCertificate:
    """A certificate that an operator approved, in DER, with those of the CAs above it, nearest first.

    `root` is empty where it is not known here. `is_repeat`: it was made before, for the same key. `not_after` is in
    seconds since 1970 UTC.
    """

    device: Device
    issuer: str
    serial: int
    not_after: int
    leaf: bytes = field(repr=False)
    above: tuple[bytes, ...] = field(repr=False)
    root: tuple[bytes, ...] = field(repr=False)
    is_repeat: bool


class DeviceCertificates(Acts):
    """What an operator may have certified for a device."""

    def certify(self, actor: Actor, wish: CertificateWish, request: CertificateRequest) -> ApprovedCertificate:
        """Certify the key that a device without an agent made; the evidence is the actor's approval.

        The same key gets the same certificate again until the renewal window of that opens. Raises as `find_named`,
        `open_issuers` and `Enrolment.begin`, and Malformed(BAD_ARGUMENT, BAD_ENCODING) for a reason that is not needed
        or is no line of text.
        """
        check_may(actor, Act.CERTIFY_DEVICE)
        issued, device, is_repeat = self._issue(actor, wish, request, is_made_here=False)
        return _describe(issued, device, is_repeat=is_repeat)

    def make_pkcs12(
        self,
        actor: Actor,
        wish: CertificateWish,
        key: KeyAlgorithm,
        password: bytes,
        write: Callable[[bytes], None],
        *,
        is_legacy: bool,
    ) -> ApprovedCertificate:
        """Make a key for a device, certify it, and have `write` store both as PKCS#12. Nothing else has the key.

        Each call makes a new key and certificate. Where `write` fails, that certificate is revoked: no one has its key.
        Raises as `certify` and `write`, and Malformed(BAD_ARGUMENT) for a password that is too short or not printable
        ASCII, which programs encode in different ways.
        """
        check_may(actor, Act.CERTIFY_DEVICE)
        # 1. Check the password before anything is made.
        if len(password) < _SHORTEST_PASSWORD or any(not 0x20 <= one < 0x7F for one in password):
            msg = f"the password of a PKCS#12 file has {_SHORTEST_PASSWORD} or more printable ASCII characters"
            raise Malformed(Reason.BAD_ARGUMENT, f"{msg}; write another one", limit=_SHORTEST_PASSWORD)
        # 2. Make the key, and certify it as a request of the device would be.
        private = generate(key)
        signing = SoftwareSigningKey("pkcs12", frozenset({Purpose.CERTIFICATE}), key, private)
        request = decode_request(sign_request(signing, der.sequence()))
        issued, device, _ = self._issue(actor, wish, request, is_made_here=True)
        # 3. Hand both over. A certificate without its key would be shown as the device's for years.
        try:
            made = _describe(issued, device, is_repeat=False)
            name, chain = f"{device.model} {device.maker_serial}", (made.leaf, *made.above)
            write(encode_pkcs12(encode_pkcs8(private), chain, name=name, password=password, is_legacy=is_legacy))
        except BaseException:
            ends = RevocationReason.CESSATION_OF_OPERATION
            self.components.revocations.revoke(issued.issuer.authority_id, issued.serial, ends, by=actor.id).result()
            raise
        return made

    def _issue(
        self, actor: Actor, wish: CertificateWish, request: CertificateRequest, *, is_made_here: bool
    ) -> tuple[IssuedCertificate, Device, bool]:
        """The certificate, its device, and whether it was there before. The request takes the path of an enrolment."""
        components, key = self.components, request.public_key
        device = find_named(components.database, wish.device)
        check_scope(actor, device.unit)
        if wish.weak_key_reason is not None:
            check_text("the reason for a weak key", wish.weak_key_reason)
            if key.algorithm is not KeyAlgorithm.RSA2048:
                msg = f"a key of kind {key.algorithm} needs no reason for the ledger; leave the reason out"
                raise Malformed(Reason.BAD_ARGUMENT, msg, algorithm=key.algorithm)
        hospital = device.unit.hospital
        authority = {SERVER_LABEL: f"{hospital}/infra", SDC_LABEL: f"{hospital}/sdc"}.get(wish.label or "")
        issuers = components.open_issuers([authority or str(device.unit)])
        at = components.clock.now()
        with components.database.reading() as connection:
            occasion = find_occasion(connection, device, key.spki_sha256, components.pack, label=wish.label, at=at)
        approval = OperatorApproval(
            device_id=device.id,
            by=actor.id,
            occasion=occasion,
            is_key_made_here=is_made_here,
            weak_key_reason=wish.weak_key_reason,
        )
        enrolment = Enrolment(
            components.database,
            components.writer,
            components.issuance,
            issuers,
            group_domain=components.row.group_domain or "",
        )
        pending = enrolment.begin(
            EnrolmentRequest(csr=request, kind=Kind.ENROL, evidence=approval, protocol=PROTOCOL, label=wish.label), at
        )
        is_repeat = isinstance(pending.committed.result(), IssuedCertificate)
        return pending.finish(), device, is_repeat


def _describe(issued: IssuedCertificate, device: Device, *, is_repeat: bool) -> ApprovedCertificate:
    chain = (issued.issuer.certificate_der, *issued.issuer.chain_der)
    roots = tuple(one for one in chain if decode_certificate(one).is_self_issued)
    return ApprovedCertificate(
        device=device,
        issuer=issued.issuer.reference,
        serial=issued.serial,
        not_after=int(decode_certificate(issued.der).not_after.timestamp()),
        leaf=issued.der,
        above=tuple(one for one in chain if one not in roots),
        root=roots,
        is_repeat=is_repeat,
    )
