"""Which device of the inventory a maker's certificate (802.1AR IDevID) belongs to; validates no chain."""

from __future__ import annotations

from vagus.errors import Malformed, NotAuthorised
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow, list_devices_under_anchor
from vagus.records.engine.database import Connection
from vagus.records.models import list_models_under_anchor
from vagus.trust.validation import AcceptedIdentity
from vagus.x509.certificates import PathCertificate
from vagus.x509.names.distinguished import SERIAL_NUMBER, UNIT
from vagus.x509.names.hardware_module import decode_hardware_module


def find_idevid_device(connection: Connection, identity: AcceptedIdentity) -> DeviceRow:
    """The inventory's device for a validated IDevID.

    The anchor decides which models it may speak for, the serial number which device: a maker's certificate with the
    serial of another maker's device finds nothing. Where the subject's OU names a model of that anchor, the device
    must be of that model; where two models share the serial, it must name one. Raises
    NotAuthorised(NOT_IN_INVENTORY|IDENTITY_MISSING|IDENTITY_AMBIGUOUS).
    """
    leaf = identity.path[0]
    serials = maker_serials(leaf)
    if not serials:
        msg = "the maker's certificate has no serialNumber and no HardwareModuleName (802.1AR 8.6, 8.10)"
        raise NotAuthorised(Reason.IDENTITY_MISSING, msg)
    if len(serials) > 1:
        msg = "subject and HardwareModuleName of the maker's certificate give two serial numbers; ask the maker"
        raise NotAuthorised(Reason.IDENTITY_AMBIGUOUS, msg)
    (serial,) = serials
    found = list_devices_under_anchor(connection, identity.anchor_sha256, serial)
    # Makers number the units of each model from one. A unit whose model is not of this anchor is the maker's own
    # business.
    models = set(leaf.subject.texts(UNIT)) & list_models_under_anchor(connection, identity.anchor_sha256)
    if models or len(found) > 1:
        found = tuple(device for device in found if device.model in models)
    if len(found) != 1:
        msg = "no device with this serial number and a model of this maker is in the inventory; add it first"
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg)
    return found[0]


def maker_serials(leaf: PathCertificate) -> frozenset[str]:
    """The serial numbers that the certificate gives its device: in its subject, in its HardwareModuleName, or both."""
    found = set(leaf.subject.texts(SERIAL_NUMBER))
    for form, content in leaf.names.others:
        try:
            module = decode_hardware_module(form, content)
        except Malformed:
            module = None
        if module is not None:
            found.add(module.serial.decode("utf-8", "replace"))
    return frozenset(found)
