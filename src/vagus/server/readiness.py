"""Reports to the service manager that this process serves or ends (sd_notify(3)); does nothing without one."""

from __future__ import annotations

import logging
import os
import socket

_LOG = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send `state`, such as READY=1, to the socket that systemd or podman names in NOTIFY_SOCKET.

    A manager that does not listen is logged, and serving continues: it decides itself whether to end this process.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return
    name = address if address.startswith("/") else "\0" + address[1:]  # an abstract socket, unix(7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(state.encode(), name)
        except OSError as failure:
            _LOG.warning("%s could not be sent to the service manager at %s: %s", state, address, failure.strerror)
