"""The kinds of TLS listeners as a table: client policy, TLS settings and what serves the peers of each kind.

A new kind is a row of `LISTENER_KINDS`. A new enrolment protocol is one more mount in the row of enrolment. The status
listener has no row: it has no TLS and judges no peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vagus.authority.issuers import OpenIssuers
from vagus.endpoints.est import est_app
from vagus.endpoints.gateway.decisions import Record
from vagus.endpoints.gateway.http_relay import HttpRelay
from vagus.endpoints.gateway.tcp_relay import AdmittedStream, tcp_relay
from vagus.endpoints.gateway.upstream import Upstream
from vagus.endpoints.http import ASGIApp
from vagus.endpoints.log_files import log_files_app
from vagus.endpoints.routing import RouteTable, mount
from vagus.errors import Misconfigured
from vagus.fleet.admission import Admitted, ListenerRules
from vagus.fleet.enrolment.enrol import Enrolment
from vagus.fleet.tokens import SDC_LABEL
from vagus.identifiers import DeviceId
from vagus.policy.plan_files import ListenerKind, PlannedListener
from vagus.policy.plans import HospitalPlan
from vagus.policy.values import Function
from vagus.reasons import Reason
from vagus.records.devices import find_device_by_serial
from vagus.server.listeners.anchors import Anchors
from vagus.server.listeners.certificates import ListenerCertificates
from vagus.tls import TLS_1_2, TLS_1_3, ClientAuth, ServerTls
from vagus.wiring import Installation


@dataclass(frozen=True, slots=True)
class ListenerInputs:
    """What the listeners of one plan are built from."""

    installation: Installation
    plan: HospitalPlan
    issuers: OpenIssuers
    record: Record
    anchors: Anchors
    certificates: ListenerCertificates


@dataclass(frozen=True, slots=True)
class Service:
    """What serves the peers of a listener: an HTTP `app` or a raw `stream`; `close` ends what it keeps open."""

    app: ASGIApp | None = None
    stream: Callable[[AdmittedStream], asyncio.Protocol] | None = None
    close: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class KindOfListener:
    """One row. On an enrolment listener peers need no certificate, makers' certificates count, and no function does."""

    client_auth: ClientAuth
    is_enrolment: bool
    alpn: tuple[str, ...]
    serve: Callable[[ListenerInputs, PlannedListener], Service]

    def function_of(self, listener: PlannedListener) -> Function | None:
        """What the connections of a listener are for; None for enrolment."""
        return None if self.is_enrolment else Function(listener.function)

    def tls_of(self, inputs: ListenerInputs, listener: PlannedListener) -> ServerTls:
        """TLS settings. Without session tickets, each connection is a full handshake.

        That holds for enrolment, and for the functions whose open sessions the policy always closes.
        """
        function = self.function_of(listener)
        return ServerTls(
            client_auth=self.client_auth,
            minimum_version=TLS_1_2 if listener.tls_minimum == "1.2" else TLS_1_3,
            tickets=function is not None and not inputs.installation.pack.functions[function].always_closes,
            alpn=self.alpn,
        )

    def rules_of(self, inputs: ListenerInputs, listener: PlannedListener) -> ListenerRules:
        """Which peers are admitted. Raises Misconfigured(BAD_PLAN)."""
        function = self.function_of(listener)
        rules = inputs.installation.pack.rules
        return ListenerRules(
            function=function,
            group_domain=inputs.plan.domain,
            units=listener.units,
            profiles=None if function is None else frozenset(one for one in rules if function in rules[one].functions),
            needs_certificate=not self.is_enrolment,
            registration_authorities=_find_registration_authorities(inputs, listener),
        )


def _find_registration_authorities(inputs: ListenerInputs, listener: PlannedListener) -> frozenset[DeviceId]:
    """The devices that carry the requests of others; a plan names them on enrolment listeners alone."""
    found: set[DeviceId] = set()
    with inputs.installation.database.reading() as connection:
        for model, serial in listener.registration_authorities:
            device = find_device_by_serial(connection, model, serial)
            if device is None:
                msg = f"listeners.{listener.name}: registration authority {model}:{serial} is not in the inventory"
                raise Misconfigured(Reason.BAD_PLAN, f"{msg}; add it or correct the plan", listener=listener.name)
            found.add(device.id)
    return frozenset(found)


# The kinds of enrolment listeners.


def _enrolment(inputs: ListenerInputs, listener: PlannedListener) -> Service:
    """The files of the log, and EST, which also responds to paths that belong to neither."""
    return Service(app=mount(log_files_app(inputs.installation.settings.log), _est(inputs, listener)))


def _est(inputs: ListenerInputs, listener: PlannedListener) -> RouteTable:
    installation = inputs.installation
    enrolment = Enrolment(
        installation.database,
        installation.writer,
        installation.issuance,
        inputs.issuers,
        group_domain=inputs.plan.domain,
        token_repeat=installation.pack.enrolment.token_replay,
    )

    def ca_certificates(label: str | None, admitted: Admitted | None) -> tuple[bytes, ...]:
        """What a device needs to build its own path and to know our listeners (RFC 7030 4.1.3); of its hospital alone.

        A device that is known gets its own compartment alone; a large hospital has more than a device can store.
        """
        units = (admitted.served_units if admitted is not None else None) or listener.units
        if admitted is not None and admitted.device is not None and admitted.unit is not None:
            units = frozenset({admitted.unit})
        hospital = listener.hospital or ""
        names = {*units, hospital, f"{hospital}/infra", "root"}
        if label == SDC_LABEL:
            names.add(f"{hospital}/sdc")
        return inputs.anchors.certificates_of(lambda row: row.name in names)

    return est_app(
        enrolment=enrolment,
        ca_certificates=ca_certificates,
        clock=installation.clock,
        wanted_key=installation.pack.service_keys.device,
        is_wrapped=listener.base64 == "wrapped",
    )


# The kinds of gateway listeners.


def _relay_http(inputs: ListenerInputs, listener: PlannedListener) -> Service:
    relay = HttpRelay(_upstream_of(listener), inputs.record)
    return Service(app=relay, close=relay.close)


def _relay_tcp(inputs: ListenerInputs, listener: PlannedListener) -> Service:
    entropy = inputs.installation.entropy if listener.proxy_protocol == "v2" else None
    return Service(stream=tcp_relay(_upstream_of(listener), entropy))


def _upstream_of(listener: PlannedListener) -> Upstream:
    assert listener.upstream is not None  # noqa: S101 `policy.plans` has checked that a relay has an upstream
    return Upstream(*listener.upstream)


_HTTP: Final = ("http/1.1",)

LISTENER_KINDS: Final[Mapping[ListenerKind, KindOfListener]] = MappingProxyType(
    {
        ListenerKind.ENROLMENT: KindOfListener("optional", is_enrolment=True, alpn=_HTTP, serve=_enrolment),
        ListenerKind.RELAY_HTTP: KindOfListener("required", is_enrolment=False, alpn=_HTTP, serve=_relay_http),
        ListenerKind.RELAY_TCP: KindOfListener("required", is_enrolment=False, alpn=(), serve=_relay_tcp),
    }
)
