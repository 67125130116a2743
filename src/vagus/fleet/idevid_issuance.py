"""Issues makers' certificates (802.1AR IDevIDs) for devices on a production line; makes no key and writes no file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from vagus.authority.issuance import Issuance, IssuanceOrder, IssuanceToken, IssuedCertificate
from vagus.authority.issuers import Issuer
from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509.keys import PublicKey
from vagus.x509.names.distinguished import SubjectFields
from vagus.x509.names.hardware_module import HardwareModule

PROFILE = "idevid"
_PART = 200
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class LineDevice:
    """A device on the line: its model, the serial number that the plan gives it, and the key that it made."""

    model: str
    serial: str
    public_key: PublicKey


class IDevIDIssuance:
    """Issues under the maker's line CA. A repeated call for the same device and key gives the same certificate."""

    def __init__(
        self, issuance: Issuance, issuer: Issuer, *, maker: str, country: str | None, hardware_type: str
    ) -> None:
        """`hardware_type` is the maker's OID for the kind of module (RFC 4108 section 5)."""
        self._issuance = issuance
        self._issuer = issuer
        self._maker = maker
        self._country = country
        self._hardware_type = hardware_type

    def issue(self, devices: Sequence[LineDevice], advance: Advance) -> list[IssuedCertificate]:
        """A certificate for each device, in order; a few hundred intents share their commits.

        Raises Malformed(BAD_ARGUMENT) for a serial number named twice, and what issuance refuses.
        """
        names = [(one.model, one.serial) for one in devices]
        if len(set(names)) != len(names):
            raise Malformed(Reason.BAD_ARGUMENT, "a serial number occurs twice in the request; give each device once")
        issued: list[IssuedCertificate] = []
        for at in range(0, len(devices), _PART):
            part = devices[at : at + _PART]
            promised = [self._issuance.commit(self._issuance.prepare(self._order(one), self._issuer)) for one in part]
            issued += [self._finish(future) for future in promised]
            advance(len(part))
        return issued

    def _order(self, device: LineDevice) -> IssuanceOrder:
        return IssuanceOrder(
            request_id=f"idevid-{device.public_key.spki_sha256.hex()}",
            profile=PROFILE,
            owner=owner_of(device.serial),
            public_key=device.public_key,
            subject=SubjectFields(
                organisation=self._maker, unit=device.model, country=self._country, serial_number=device.serial
            ),
            hardware_module=HardwareModule(self._hardware_type, device.serial.encode("ascii")),
        )

    def _finish(self, future: Future[IssuanceToken | IssuedCertificate]) -> IssuedCertificate:
        recorded = future.result()
        return recorded if isinstance(recorded, IssuedCertificate) else self._issuance.issue(recorded)


def owner_of(serial: str) -> str:
    """A device of the line as the tables of keys and certificates name their owner; the ledger hashes it.

    A plan's prefixes are distinct, so a serial number names one device of its maker.
    """
    return f"born:{serial}"
