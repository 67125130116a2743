"""What an operator may do with one installation: the operations of each noun, made when first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from vagus.authority.ceremony import Ceremony
    from vagus.operations.audit import Audit
    from vagus.operations.authorities import Authorities
    from vagus.operations.ceremonies import Ceremonies
    from vagus.operations.certificates import Certificates
    from vagus.operations.devices import Devices
    from vagus.operations.doctor.diagnosis import Doctor
    from vagus.operations.installation import InstallationActs
    from vagus.operations.maker_line import MakerLine
    from vagus.operations.plans import Plans
    from vagus.operations.revocation import RevocationPlans
    from vagus.operations.snapshots import Snapshots
    from vagus.operations.tokens import Tokens
    from vagus.wiring.parts import Parts


class Operations:
    """The operations by noun. Each gets the parts that it names; what is opened late is given as a callable."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @cached_property
    def audit(self) -> Audit:
        """The ledger."""
        from vagus.operations.audit import Audit

        parts = self._parts
        return Audit(parts.database, parts.settings.log, lambda: parts.log_verifier)

    @cached_property
    def authorities(self) -> Authorities:
        """Authorities and their generations."""
        from vagus.operations.authorities import Authorities

        parts = self._parts
        return Authorities(
            database=parts.database,
            writer=lambda: parts.writer,
            hierarchy=lambda: parts.hierarchy,
            planning=lambda: parts.planning,
            clock=parts.clock,
            make_clock_bound=parts.make_clock_bound,
            published=parts.settings.published,
            emergency_passphrase=lambda: parts.sources.get("emergency"),
            pack=lambda: parts.pack,
        )

    @cached_property
    def ceremonies(self) -> Ceremonies:
        """Ceremonies, which open offline keys."""
        from vagus.operations.ceremonies import EMERGENCY, Ceremonies

        parts = self._parts
        return Ceremonies(
            settings=parts.settings,
            pack=parts.pack,
            database=parts.database,
            writer=lambda: parts.writer,
            clock=parts.clock,
            planning=parts.planning,
            request_authority=parts.request_authority,
            can_seal=lambda: parts.sources.find(EMERGENCY) is not None,
            make_ceremony=self._make_ceremony,
            check_settled=parts.set_backs.check_settled,
        )

    @cached_property
    def certificates(self) -> Certificates:
        """Certificates that were issued here."""
        from vagus.operations.certificates import Certificates

        return Certificates(self._parts.database)

    @cached_property
    def devices(self) -> Devices:
        """The inventory."""
        from vagus.operations.devices import Devices

        parts = self._parts
        return Devices(
            database=parts.database,
            writer=lambda: parts.writer,
            inventory=lambda: parts.inventory,
            revocations=lambda: parts.revocations,
            entropy=parts.entropy,
            pack=lambda: parts.pack,
        )

    @cached_property
    def doctor(self) -> Doctor:
        """Whether the installation is healthy."""
        from vagus.operations.doctor.diagnosis import Doctor
        from vagus.operations.doctor.findings import Examined

        parts = self._parts
        return Doctor(
            lambda actor: Examined(
                actor=actor,
                settings=parts.settings,
                database=parts.database,
                clock=parts.clock,
                entropy=parts.entropy,
                load_pack=lambda: parts.pack,
                load_verifier=lambda: parts.log_verifier,
                load_status_url=lambda: parts.status_url,
                make_clock_bound=parts.make_clock_bound,
                find_sealed=lambda: self.ceremonies.find_sealed(),  # noqa: PLW0108  ceremonies may not be made yet
            )
        )

    @cached_property
    def installation(self) -> InstallationActs:
        """The installation itself."""
        from vagus.operations.installation import InstallationActs

        parts = self._parts
        return InstallationActs(
            settings=parts.settings,
            pack=lambda: parts.pack,
            database=parts.database,
            writer=lambda: parts.writer,
            clock=parts.clock,
            entropy=parts.entropy,
            keystore_or_new=parts.keystore_or_new,
        )

    @cached_property
    def maker_line(self) -> MakerLine:
        """Birth certificates and the manifest of a maker."""
        from vagus.operations.maker_line import MakerLine

        parts = self._parts
        return MakerLine(
            database=parts.database,
            writer=lambda: parts.writer,
            planning=parts.planning,
            issuance=lambda: parts.issuance,
            open_issuer=lambda: parts.open_issuers(["line"])["line"],
            hardware_type=f"{parts.pack.arc}.4",
        )

    @cached_property
    def plans(self) -> Plans:
        """Plans, compared and applied."""
        from vagus.operations.plans import Plans

        return Plans(self._parts.planning, self.installation.adopt_policy)

    @cached_property
    def revocation(self) -> RevocationPlans:
        """Revocation of many certificates by plan."""
        from vagus.operations.revocation import RevocationPlans

        parts = self._parts
        return RevocationPlans(
            database=parts.database,
            writer=lambda: parts.writer,
            clock=parts.clock,
            pack=lambda: parts.pack,
            revocations=lambda: parts.revocations,
            mass_revocation=lambda: parts.mass_revocation,
        )

    @cached_property
    def snapshots(self) -> Snapshots:
        """Offline snapshots of what is revoked."""
        from vagus.authority.snapshots import SNAPSHOT_KEYSTORE, open_snapshot_key
        from vagus.operations.snapshots import Snapshots

        parts = self._parts
        return Snapshots(
            database=parts.database,
            writer=lambda: parts.writer,
            clock=parts.clock,
            entropy=parts.entropy,
            open_key=lambda: open_snapshot_key(parts.keystore_or_new(SNAPSHOT_KEYSTORE), parts.settings.origin),
            published=parts.settings.published,
            check_settled=parts.set_backs.check_settled,
        )

    @cached_property
    def tokens(self) -> Tokens:
        """Enrolment tokens."""
        from vagus.operations.tokens import Tokens

        return Tokens(self._parts.database, lambda: self._parts.tokens)

    def _make_ceremony(self, by: str, advance: Callable[[str], None]) -> Ceremony:
        from vagus.authority.ceremony import Ceremony
        from vagus.authority.crls.publisher import CrlPublisher
        from vagus.keystore.envelopes import EnvelopeSealer
        from vagus.operations.ceremonies import EMERGENCY

        parts, settings = self._parts, self._parts.settings
        passphrase = parts.sources.find(EMERGENCY)
        seals = passphrase is not None and settings.kind == "hospital"
        return Ceremony(
            parts.pack,
            parts.database,
            parts.writer,
            parts.entropy,
            issuance=parts.issuance,
            publisher=CrlPublisher(
                parts.pack,
                parts.database,
                parts.writer,
                parts.clock,
                folder=settings.published,
                bound=parts.make_clock_bound(),
            ),
            keystore_of=parts.keystore,
            status_url=parts.status_url,
            by=by,
            sealer=EnvelopeSealer(
                passphrase, entropy=parts.entropy, kdf=settings.kdf, unsafe_fast=settings.unsafe_fast_kdf
            )
            if passphrase is not None and seals
            else None,
            is_maker=settings.kind == "maker",
            advance=advance,
        )
