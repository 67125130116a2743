"""The certificates of our own listeners: issued when missing or near their end; the keys are in keystore `gate`.

The hospital's infrastructure CA issues them as it issues all others, and they are found again in the records of what
was issued. So the key is all that has to be stored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from ipaddress import ip_address
from itertools import count

from vagus.authority.issuance import IssuanceOrder
from vagus.authority.issuers import Issuer
from vagus.errors import Unavailable
from vagus.keystore.signing import Purpose, SigningKey
from vagus.keystore.software import SoftwareKeystore
from vagus.policy.plan_files import PlannedListener
from vagus.policy.plans import HospitalPlan
from vagus.reasons import Reason
from vagus.records.authorities import ACTIVE, RETIRED, find_by_id
from vagus.records.certificates import ISSUED, CertificateRow, list_of_key, load_bytes
from vagus.records.keys import find_key
from vagus.tls import Credential
from vagus.wiring import Installation
from vagus.x509.certificates import decode_certificate
from vagus.x509.keys import PublicKey, decode_public_key, read_key_algorithm
from vagus.x509.names.distinguished import SubjectFields
from vagus.x509.pem import encode_certificates

GATE_KEYSTORE = "gate"
_PROFILE = "tls-server"
_LIVE = frozenset({ACTIVE, RETIRED})


@dataclass(frozen=True, slots=True)
class ListenerCertificate:
    """What a listener shows, and which certificate it is: for stapling and for renewal."""

    credential: Credential
    certificate_der: bytes
    issuer_der: bytes
    serial: int


class ListenerCertificates:
    """Issues and finds the certificates of listeners."""

    def __init__(self, installation: Installation, plan: HospitalPlan, issuers: Mapping[str, Issuer]) -> None:
        self._installation = installation
        self._titles = {one.label: one.title for one in plan.hospitals}
        self._issuers = issuers

    def provide(self, listener: PlannedListener) -> ListenerCertificate:
        """The certificate of a listener, issued now when there is none with its names and enough time left.

        A blocked key, such as one whose certificate was revoked for compromise, is replaced by a new one. So is a
        certificate that was issued while the clock was ahead: it is not valid yet. Raises Unavailable(KEY_NOT_OPEN)
        when one is due and the infrastructure CA is not open here, and Unavailable(CLOCK_AHEAD) while the clock is
        ahead.
        """
        keystore = self._installation.keystore_or_new(GATE_KEYSTORE)
        owner = f"server:{listener.name}"
        key = self._find_key(keystore, f"tls-{listener.name}", owner)
        public_key = decode_public_key(key.spki_der)
        found = self._find(public_key, listener)
        if found is None:
            self._issue(public_key, listener, owner)
            found = self._find(public_key, listener)
        if found is None:
            msg = f"the certificate of listener {listener.name} was issued but has no row; run: vagus audit verify"
            raise Unavailable(Reason.UNSETTLED, msg, listener=listener.name)
        row, der, issuer_der = found
        chain = encode_certificates((der, issuer_der))
        credential = Credential(chain, keystore.tls_key_pem(key.key_id))
        return ListenerCertificate(credential, der, issuer_der, row.serial)

    def _find_key(self, keystore: SoftwareKeystore, name: str, owner: str) -> SigningKey:
        """The first of `name`, `name.2`, … that may still be certified and is of the pack's kind; made now if none."""
        algorithm = self._installation.pack.service_keys.listener
        for place in count(1):
            key_id = name if place == 1 else f"{name}.{place}"
            if not keystore.has(key_id):
                return keystore.generate(key_id, algorithm, {Purpose.TLS}, owner)
            key = keystore.load(key_id)
            if read_key_algorithm(key.spki_der) is not algorithm:
                continue
            with self._installation.database.reading() as connection:
                known = find_key(connection, sha256(key.spki_der).digest())
            if known is None or not known.is_blocked:
                return key
        raise AssertionError  # unreachable: `count()` has no end

    def _find(self, key: PublicKey, listener: PlannedListener) -> tuple[CertificateRow, bytes, bytes] | None:
        """The certificate of this key with these names that ends last, if it has begun and its renewal is not due."""
        now = self._installation.clock.now().timestamp()
        with self._installation.database.reading() as connection:
            every = list_of_key(connection, key.spki_sha256)
            alive = [row for row in every if row.state == ISSUED and row.not_before <= now]
            for row in sorted(alive, key=lambda row: -row.not_after):
                _, der = load_bytes(connection, row.leaf_index)
                above = find_by_id(connection, row.authority_id)
                window = self._installation.pack.renewal.window_of(timedelta(seconds=row.not_after - row.not_before))
                if der is None or above is None or above.certificate_der is None:
                    continue
                if above.state in _LIVE and row.not_after - now > window.total_seconds() and _is_named(der, listener):
                    return row, der, above.certificate_der
        return None

    def _issue(self, key: PublicKey, listener: PlannedListener, owner: str) -> None:
        authority = f"{listener.hospital}/infra"
        issuer = self._issuers.get(authority)
        if issuer is None:
            msg = f"listener {listener.name} needs a certificate of {authority}; add it to --issue-for"
            raise Unavailable(Reason.KEY_NOT_OPEN, msg, authority=authority)
        self._installation.make_clock_bound().check_only()
        dns_names, addresses = _split(listener)
        # The request id holds no time: a certificate that was revoked or renamed in the second of its issuance would be
        # returned again.
        wish = self._installation.entropy(8).hex()
        self._installation.issuance.issue_now(
            IssuanceOrder(
                request_id=f"{owner}:{key.spki_sha256.hex()[:16]}:{wish}",
                profile=_PROFILE,
                owner=owner,
                public_key=key,
                subject=SubjectFields(
                    organisation=self._titles.get(listener.hospital or "", "Vagus"),
                    common_name=listener.host_names[0][:64],
                ),
                dns_names=dns_names,
                ip_addresses=addresses,
            ),
            issuer,
        )
        # The signature's row is written by a later batch. One more act in the writer's queue makes sure that the row
        # exists.
        self._installation.writer.submit(lambda batch: batch.at).result()


def _is_named(der: bytes, listener: PlannedListener) -> bool:
    """Whether a certificate has the names of the listener and no other."""
    names = decode_certificate(der).names
    dns_names, addresses = _split(listener)
    wanted = {ip_address(address).packed for address in addresses}
    is_same = set(names.dns) == set(dns_names) and set(names.addresses) == wanted
    return is_same and len(names.dns) + len(names.addresses) == names.count


def _split(listener: PlannedListener) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Host names and addresses apart: they have different name forms (RFC 5280 4.2.1.6)."""
    dns_names: list[str] = []
    addresses: list[str] = []
    for name in listener.host_names:
        try:
            addresses.append(str(ip_address(name)))
        except ValueError:
            dns_names.append(name)
    return tuple(dns_names), tuple(addresses)
