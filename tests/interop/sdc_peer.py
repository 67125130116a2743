"""One SDC peer by sdc11073, as a process of its own; `test_sdc.py` starts it with the package's folder in PYTHONPATH.

    sdc_peer.py provider CHAIN KEY ANCHOR [CRLS]            prints its address, changes a value until its input ends
    sdc_peer.py consumer CHAIN KEY ANCHOR [CRLS] ADDRESS    prints as JSON what it read and heard

There is no WS-Discovery: the consumer gets the provider's address. ANCHOR is one authority, which need not be a root.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
import uuid
from decimal import Decimal
from typing import Any

from sdc11073 import observableproperties
from sdc11073.certloader import SSLContextContainer
from sdc11073.consumer.consumerimpl import SdcConsumer
from sdc11073.definitions_sdc import SdcV1Definitions
from sdc11073.mdib import ConsumerMdib, ProviderMdib
from sdc11073.provider.providerimpl import SdcProvider
from sdc11073.xml_types.dpws_types import ThisDeviceType, ThisModelType

METRIC = "rate"
MDIB = b"""<?xml version="1.0" encoding="UTF-8"?>
<msg:GetMdibResponse SequenceId="urn:oid:1"
  xmlns:msg="http://standards.ieee.org/downloads/11073/11073-10207-2017/message"
  xmlns:pm="http://standards.ieee.org/downloads/11073/11073-10207-2017/participant"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <msg:Mdib SequenceId="urn:oid:1"><pm:MdDescription>
    <pm:Mds Handle="pump"><pm:Vmd Handle="drive"><pm:Channel Handle="line">
      <pm:Metric xsi:type="pm:NumericMetricDescriptor" Handle="rate" MetricCategory="Msrmt" MetricAvailability="Cont"
        Resolution="0.1"><pm:Unit Code="265266"/></pm:Metric>
    </pm:Channel></pm:Vmd></pm:Mds>
  </pm:MdDescription></msg:Mdib>
</msg:GetMdibResponse>"""


class Loopback:
    """What a provider wants of WS-Discovery, without any discovery."""

    active_address = "127.0.0.1"

    def publish_service(self, *_: object) -> None:
        """Nothing: the consumer knows the address."""

    def clear_service(self, _epr: str) -> None:
        """Nothing was published."""


def say(line: str) -> None:
    """One line for the process that started this one."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def contexts(chain: str, key: str, anchor: str, crls: str | None) -> Any:
    """As docs/relying-parties.md has it: one anchor, partial chains, and the CRL of the peer's issuer."""
    both = []
    for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context = ssl.SSLContext(kind)
        context.check_hostname = False  # the peer's address says nothing; its certificate names the device
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(chain, key)
        context.load_verify_locations(anchor)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if crls is not None:
            context.load_verify_locations(crls)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        both.append(context)
    return SSLContextContainer(client_context=both[0], server_context=both[1])


def provide(made: Any) -> None:
    """A pump whose rate changes five times a second."""
    mdib = ProviderMdib.from_string(MDIB)
    model = ThisModelType("Aorta Devices", "aorta.example", "Aorta IP3", "1", "aorta.example", "aorta.example")
    device = ThisDeviceType("Pump", "1", "AIP3-1")
    provider = SdcProvider(Loopback(), model, device, mdib, uuid.uuid4(), ssl_context_container=made)
    provider.start_all(start_rtsample_loop=False)
    say(provider.get_xaddrs()[0])
    is_over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    value = 0
    while not is_over.wait(0.2):
        value += 1
        with mdib.metric_state_transaction() as transaction:
            state = transaction.get_state(METRIC)
            if state.MetricValue is None:
                state.mk_metric_value()
            state.MetricValue.Value = Decimal(value)
    provider.stop_all()


def consume(made: Any, address: str, seconds: float) -> dict[str, Any]:
    """Descriptors and the first values that arrive."""
    consumer = SdcConsumer(address, SdcV1Definitions, made, force_ssl_connect=True)
    consumer.start_all()
    try:
        mdib = ConsumerMdib(consumer)
        mdib.init_mdib()
        heard: list[float] = []
        observableproperties.strongbind(
            mdib, metrics_by_handle=lambda by: heard.append(float(by[METRIC].MetricValue.Value))
        )
        deadline = time.monotonic() + seconds
        while not heard and time.monotonic() < deadline:
            time.sleep(0.05)
        wire = consumer.get_soap_client(address)._http_connection.sock
        descriptors = sorted(one.Handle for one in mdib.descriptions.objects)
        return {"tls": wire.version(), "descriptors": descriptors, "notifications": len(heard)}
    finally:
        consumer.stop_all()


def main() -> None:
    """Provider or consumer, as the first argument says."""
    role, chain, key, anchor, *more = sys.argv[1:]
    address = more.pop() if role == "consumer" else ""
    made = contexts(chain, key, anchor, more[0] if more else None)
    if role == "provider":
        provide(made)
    else:
        say(json.dumps(consume(made, address, 5)))


if __name__ == "__main__":
    main()
