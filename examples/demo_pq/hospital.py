"""The plans of the demonstration: a maker with one line, and a hospital with one ward, on free ports."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from examples.demo.plans import Listener
from examples.demo.stage import free_ports

DOMAIN: Final = "quantum-ward.example"
MODEL: Final = "Aorta IP3"
SERIALS: Final = ("AIP3-000001", "AIP3-000002", "AIP3-000003")

_MAKER: Final = f"""kind = "maker"
format = 1
[maker]
title = "Aorta Devices"
status_url = "http://status.aorta-devices.example"
[[models]]
name = "{MODEL}"
category = "infusion-pump"
serial_prefix = "AIP3"
[[batches]]
name = "first"
model = "{MODEL}"
first = 1
count = {len(SERIALS)}
"""

_HOSPITAL: Final = f"""kind = "hospital"
format = 1
[group]
title = "Quantum Ward"
domain = "{DOMAIN}"
status_url = "http://status.{DOMAIN}"
[[models]]
name = "{MODEL}"
maker = "Aorta Devices"
category = "infusion-pump"
serial_prefix = "AIP3"
[[hospitals]]
label = "h1"
title = "First Hospital"
units = [{{ label = "icu", title = "Intensive Care" }}]
devices = [{{ unit = "icu", model = "{MODEL}", first = 1, count = {len(SERIALS)} }}]
"""


class Ward:
    """The listeners of the hospital, and the store behind its gateway."""

    def __init__(self) -> None:
        status, enrol, telemetry, self.store, self.store_raw = free_ports(5)
        self.status = Listener("status", "status", "127.0.0.1", status)
        self.enrol = Listener("enrol", "enrolment", f"enrol.h1.{DOMAIN}", enrol, "h1")
        self.telemetry = Listener(
            "telemetry", "relay-http", f"telemetry.h1.{DOMAIN}", telemetry, "h1", upstream=self.store
        )

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Those of `vagus serve`."""
        return self.status, self.enrol, self.telemetry

    def write_plans(self, folder: Path) -> tuple[Path, Path]:
        """The maker's plan and the hospital's, as files."""
        maker, hospital = folder / "maker.toml", folder / "ward.toml"
        maker.write_text(_MAKER, "utf-8")
        hospital.write_text(_HOSPITAL + "\n".join(one.table() for one in self.listeners), "utf-8")
        return maker, hospital
