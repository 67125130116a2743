"""Which peers a listener admits: the validator decides, then the inventory; opens and closes no connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique
from functools import partial
from typing import Final

from vagus.clock import Clock
from vagus.errors import NotAuthorised, NotTrusted, VagusError
from vagus.fleet.idevid import find_idevid_device
from vagus.fleet.lifecycle import MAY_CONNECT, MAY_ENROL, DeviceState, check_may
from vagus.identifiers import DeviceId
from vagus.policy.values import Function, PolicyPack, SessionOnRevocation
from vagus.reasons import Reason
from vagus.records.applicants import find_server
from vagus.records.devices import DeviceRow, query_device
from vagus.records.engine.database import Database
from vagus.tls.peer import Peer
from vagus.trust.validation import PURPOSES, AcceptedIdentity, Expectation, FindEarlier, Role, Validator
from vagus.x509.certificates import decode_certificate

FindDevice = Callable[[DeviceId], DeviceRow | None]
"""Raises Unavailable."""

_TLS_VERSIONS: Final = {"1.2": 0x0303, "1.3": 0x0304}
_FOREIGN: Final = frozenset({Reason.UNTRUSTED_ANCHOR, Reason.NO_PATH})
_NOT_A_CLIENT_OF_OURS: Final = _FOREIGN | {Reason.ROLE_FORBIDDEN}


@unique
class PeerCredential(StrEnum):
    """What a peer proved at its handshake."""

    NONE = "none"
    LDEVID = "ldevid"  # a valid certificate of this installation (LDevID)
    SERVER = "server"  # a server certificate of this installation; it renews itself at enrolment listeners alone
    IDEVID = "idevid"  # the maker's certificate (IEEE 802.1AR IDevID), accepted by enrolment listeners alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerRules:
    """Which peers a listener admits. None means no restriction.

    `function` is what its connections are for, None for an enrolment listener. `units` are compartments written
    h1/icu; `profiles` are what a device may be; `registration_authorities` are the devices whose connections may
    carry other devices' requests, each with its token.
    """

    function: Function | None
    group_domain: str
    role: Role = Role.CLIENT
    units: frozenset[str] | None = None
    profiles: frozenset[str] | None = None
    needs_certificate: bool = True
    registration_authorities: frozenset[DeviceId] = field(default=frozenset())

    @property
    def is_enrolment(self) -> bool:
        """Whether devices come here for certificates and for nothing else."""
        return self.function is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """An admitted peer: what it proved, which device it is, and what revocation does to the open session."""

    credential: PeerCredential
    function: Function | None
    identity: AcceptedIdentity | None = None
    device: DeviceRow | None = None
    session_on_revocation: SessionOnRevocation = SessionOnRevocation.CLOSE
    is_registration_authority: bool = False
    served_units: frozenset[str] | None = None  # the units that the listener serves; None: every unit
    on_grace: NotTrusted | None = None
    """The refusal that only the grace of the function's policy prevents; for the gateway's log."""

    @property
    def unit(self) -> str | None:
        """The compartment that owns the device, as the inventory has it."""
        return None if self.device is None else str(self.device.unit)


@dataclass(frozen=True, slots=True)
class Validators:
    """What validates the peers of a listener, each against anchors of its own; None where the listener takes none."""

    devices: Validator
    servers: Validator | None = None
    """Server certificates of the hospital, which come to renew themselves."""
    makers: Validator | None = None
    """IDevIDs."""


class Admission:
    """Asks the validator, then the inventory. Safe to use from several threads."""

    def __init__(
        self,
        database: Database,
        pack: PolicyPack,
        clock: Clock,
        validators: Validators,
        *,
        find_lapse: Callable[[datetime], NotTrusted | None] = lambda _at: None,
        find_device: FindDevice | None = None,
        find_earlier: FindEarlier | None = None,
    ) -> None:
        ask = partial(query_device, database)
        self._ask_inventory: FindDevice = ask
        self._find_device = find_device or ask
        self._find_lapse = find_lapse
        self._database = database
        self._pack = pack
        self._clock = clock
        self._validators = validators
        self._find_earlier = find_earlier

    def use(self, validators: Validators) -> None:
        """Swap the anchors: new connections see the new ones."""
        self._validators = validators

    def admit(self, peer: Peer, rules: ListenerRules) -> Admitted:
        """Admit a peer to a listener.

        Raises NotAuthorised(CREDENTIAL_MISSING|NOT_IN_INVENTORY|WRONG_COMPARTMENT|ROLE_FORBIDDEN|
        PROFILE_VIOLATION|IDENTITY_AMBIGUOUS), NotTrusted with the validator's reason, Conflict(DEVICE_STATE),
        Unavailable. An enrolment listener also admits a maker's certificate, and a server certificate that comes to
        renew itself.
        """
        at, validators = self._clock.now(), self._validators
        # 1. Require a client certificate where the listener asks for one. A certificate that fails is never treated as
        # none.
        if peer.leaf_der is None:
            if rules.needs_certificate:
                msg = "this listener requires a client certificate, and the peer sent none; enrol first, then connect"
                raise NotAuthorised(Reason.CREDENTIAL_MISSING, msg)
            return Admitted(credential=PeerCredential.NONE, function=rules.function, served_units=rules.units)
        # 2. Validate path (RFC 5280 section 6), names, role, unit and status, first against the anchors of this
        # installation.
        expectation = Expectation(
            role=rules.role, group_domain=rules.group_domain, units=rules.units, find_earlier=self._find_earlier
        )
        try:
            identity = validators.devices.validate(peer.leaf_der, peer.chain_der, expectation, at)
        except NotTrusted as error:
            if not rules.is_enrolment or error.reason not in _NOT_A_CLIENT_OF_OURS:
                raise
            # 3. A server certificate is accepted by enrolment listeners alone: it comes to renew itself.
            if validators.servers is not None and _is_server_alone(peer.leaf_der):
                return self._admit_server(peer, rules, validators.servers, at)
            # 4. IEEE 802.1AR: a maker's certificate is accepted by enrolment listeners alone, and against makers'
            # anchors alone.
            if validators.makers is None or error.reason not in _FOREIGN:
                raise
            return self._admit_idevid(peer, rules, validators.makers, at)
        # 5. Check the device's present row in the inventory: state, unit and listener.
        try:
            device = _find_named(self._ask_inventory if rules.is_enrolment else self._find_device, identity)
            return self._admit_device(peer, identity, device, rules, at)
        except VagusError as error:
            error.is_peer_proved = True
            raise

    def _admit_device(
        self, peer: Peer, identity: AcceptedIdentity, device: DeviceRow, rules: ListenerRules, at: datetime
    ) -> Admitted:
        on_revocation = SessionOnRevocation.CLOSE
        if rules.function is None:
            check_may(DeviceState(device.state), MAY_ENROL, "enrol")
        else:
            check_may(DeviceState(device.state), MAY_CONNECT, "connect")
            self._check_function(device, rules.function)
            on_revocation = self._pack.session_on_revocation(device.profile, rules.function)
        self._check_tls(peer, device)
        self._check_compartment(identity, device, at)
        if rules.profiles is not None and device.profile not in rules.profiles:
            allowed = ", ".join(sorted(rules.profiles))
            msg = f"devices of profile {device.profile} are not allowed at this listener, only {allowed}"
            raise NotAuthorised(Reason.ROLE_FORBIDDEN, msg, device=str(device.id))
        return Admitted(
            credential=PeerCredential.LDEVID,
            function=rules.function,
            identity=identity,
            device=device,
            session_on_revocation=on_revocation,
            is_registration_authority=device.id in rules.registration_authorities,
            served_units=rules.units,
            on_grace=self._find_lapse(at),
        )

    def _admit_server(self, peer: Peer, rules: ListenerRules, servers: Validator, at: datetime) -> Admitted:
        """A gateway or another server, by the certificate that it shows as a server (RFC 7030 3.3.2).

        The path, its status and the row of issuance prove the certificate; the row alone says whose it is, for its
        names are host names.
        """
        assert peer.leaf_der is not None  # noqa: S101 step 1 of `admit` has refused a peer without a certificate
        expectation = Expectation(role=Role.SERVER, group_domain=rules.group_domain, needs_identity=False)
        identity = servers.validate(peer.leaf_der, peer.chain_der, expectation, at)
        device = find_server(self._database, identity.path[0].spki_sha256, identity.serial)
        if device is None:
            msg = "the server certificate is good, but belongs to no device of the inventory; enrol with a token"
            raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg)
        return self._admit_to_enrol(PeerCredential.SERVER, peer, identity, device, rules)

    def _admit_idevid(self, peer: Peer, rules: ListenerRules, makers: Validator, at: datetime) -> Admitted:
        assert peer.leaf_der is not None  # noqa: S101 step 1 of `admit` has refused a peer without a certificate
        expectation = Expectation(role=Role.IDEVID, needs_identity=False)
        identity = makers.validate(peer.leaf_der, peer.chain_der, expectation, at)
        with self._database.reading() as connection:
            device = find_idevid_device(connection, identity)
        return self._admit_to_enrol(PeerCredential.IDEVID, peer, identity, device, rules)

    def _admit_to_enrol(
        self,
        credential: PeerCredential,
        peer: Peer,
        identity: AcceptedIdentity,
        device: DeviceRow,
        rules: ListenerRules,
    ) -> Admitted:
        """Admit a certificate that opens enrolment and nothing else, as the device's state and unit allow."""
        check_may(DeviceState(device.state), MAY_ENROL, "enrol")
        self._check_tls(peer, device)
        if rules.units is not None and str(device.unit) not in rules.units:
            msg = f"unit {device.unit} of the device does not enrol at this listener; use one that takes the unit"
            raise NotAuthorised(Reason.WRONG_COMPARTMENT, msg, device=str(device.id))
        return Admitted(
            credential=credential, function=rules.function, identity=identity, device=device, served_units=rules.units
        )

    def _check_function(self, device: DeviceRow, function: Function) -> None:
        """What the policy of the device's profile lets it connect for.

        Raises NotAuthorised(ROLE_FORBIDDEN), PolicyRefusal(POLICY_VIOLATION).
        """
        rule = self._pack.rule(device.profile)
        if function not in rule.functions:
            allowed = ", ".join(sorted(rule.functions)) or "nothing"
            msg = f"profile {device.profile} is allowed for {allowed}, and this listener serves {function}"
            raise NotAuthorised(Reason.ROLE_FORBIDDEN, msg, device=str(device.id))

    def _check_tls(self, peer: Peer, device: DeviceRow) -> None:
        """TLS 1.2 shows any client certificate on the network in clear, the maker's too.

        Raises NotAuthorised(PROFILE_VIOLATION), PolicyRefusal(POLICY_VIOLATION).
        """
        rule = self._pack.rule(device.profile)
        if peer.version < _TLS_VERSIONS[rule.tls_minimum]:
            msg = f"profile {device.profile} requires TLS {rule.tls_minimum} or newer; update the device's software"
            raise NotAuthorised(Reason.PROFILE_VIOLATION, msg, device=str(device.id))

    def _check_compartment(self, identity: AcceptedIdentity, device: DeviceRow, at: datetime) -> None:
        """Raises NotAuthorised(WRONG_COMPARTMENT) when the device left the certificate's compartment long ago."""
        if identity.device_name is None or identity.device_name.unit == device.unit:
            return
        overlap = self._pack.renewal.transfer_overlap
        # Only a transfer starts the day of grace. Other changes in the inventory (a place, a state) start none.
        left_at = device.transferred_at
        if left_at is None or at.timestamp() - left_at > overlap.total_seconds():
            hours = int(overlap.total_seconds()) // 3600
            msg = f"the device was transferred to unit {device.unit} more than {hours} h ago; enrol it there"
            raise NotAuthorised(Reason.WRONG_COMPARTMENT, msg, device=str(device.id))


def _is_server_alone(leaf_der: bytes) -> bool:
    """Whether the certificate is for servers and not for clients. It decides only against what the peer is judged."""
    purposes = decode_certificate(leaf_der).purposes or frozenset()
    return PURPOSES[Role.SERVER] in purposes and PURPOSES[Role.CLIENT] not in purposes


def _find_named(find_device: FindDevice, identity: AcceptedIdentity) -> DeviceRow:
    """The device that the certificate names. Raises NotAuthorised(IDENTITY_AMBIGUOUS|NOT_IN_INVENTORY)."""
    if identity.device_name is None:
        raise NotAuthorised(Reason.IDENTITY_MISSING, "the client certificate names no device known here; enrol it")
    device = find_device(identity.device_name.device)
    if device is None:
        msg = "the client certificate is good, but its device is not in the inventory; add it or revoke the certificate"
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg, device=str(identity.device_name.device))
    return device
