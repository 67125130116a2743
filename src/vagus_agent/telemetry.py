"""What devices of each kind report, one JSON object a line; realistic in shape, invented in value, no patient in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from vagus.clock import Entropy


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured quantity: name, unit as UCUM writes it, lowest and highest plausible value, decimals."""

    name: str
    unit: str
    low: float
    high: float
    decimals: int = 0


SIGNALS: Final[dict[str, tuple[Signal, ...]]] = {
    "infusion-pump": (
        Signal("flow_rate", "mL/h", 0.5, 250.0, 1),
        Signal("volume_infused", "mL", 0, 1000, 1),
        Signal("occlusion_pressure", "kPa", 2, 60, 1),
        Signal("battery", "%", 20, 100),
    ),
    "syringe-pump": (
        Signal("flow_rate", "mL/h", 0.1, 40.0, 2),
        Signal("syringe_left", "mL", 0, 50, 1),
        Signal("plunger_force", "N", 2, 60, 1),
    ),
    "ventilator": (
        Signal("tidal_volume", "mL", 350, 620),
        Signal("respiratory_rate", "/min", 10, 28),
        Signal("peep", "cm[H2O]", 4, 14, 1),
        Signal("fio2", "%", 21, 80),
    ),
    "patient-monitor": (
        Signal("heart_rate", "/min", 52, 128),
        Signal("spo2", "%", 90, 100),
        Signal("systolic", "mm[Hg]", 92, 168),
        Signal("diastolic", "mm[Hg]", 50, 98),
    ),
    "dialysis-machine": (
        Signal("blood_flow", "mL/min", 200, 420),
        Signal("dialysate_conductivity", "mS/cm", 13.4, 14.6, 2),
        Signal("venous_pressure", "mm[Hg]", 80, 210),
    ),
    "pacemaker": (
        Signal("atrial_paced", "%", 0, 90, 1),
        Signal("ventricular_paced", "%", 0, 99, 1),
        Signal("lead_impedance", "Ohm", 320, 980),
        Signal("cell_voltage", "V", 2.6, 3.1, 2),
    ),
    "neurostimulator": (
        Signal("amplitude", "mA", 0.4, 5.0, 1),
        Signal("pulse_rate", "Hz", 40, 180),
        Signal("lead_impedance", "Ohm", 300, 1400),
    ),
    "glucose-monitor": (
        Signal("glucose", "mmol/L", 3.2, 14.5, 1),
        Signal("trend", "mmol/L/min", -0.2, 0.2, 2),
        Signal("sensor_age", "h", 1, 240),
    ),
    "insulin-pump": (
        Signal("basal_rate", "[iU]/h", 0.1, 2.4, 2),
        Signal("reservoir", "[iU]", 20, 300, 1),
        Signal("battery", "%", 15, 100),
    ),
    "ecg-patch": (
        Signal("heart_rate", "/min", 48, 150),
        Signal("qrs_duration", "ms", 76, 118),
        Signal("skin_temperature", "Cel", 31.0, 35.5, 1),
    ),
    "home-hub": (
        Signal("devices_online", "{device}", 1, 4),
        Signal("uplink_delay", "ms", 12, 240, 1),
    ),
    "mri-scanner": (
        Signal("helium_level", "%", 62, 98, 1),
        Signal("bore_temperature", "Cel", 18, 24, 1),
        Signal("studies_queued", "{study}", 0, 9),
    ),
    "ct-scanner": (
        Signal("dose_length_product", "mGy.cm", 40, 900, 1),
        Signal("tube_temperature", "Cel", 30, 68, 1),
        Signal("studies_queued", "{study}", 0, 12),
    ),
    "ultrasound": (
        Signal("probe_temperature", "Cel", 24, 42, 1),
        Signal("mechanical_index", "1", 0.2, 1.8, 2),
    ),
    "device-gateway": (
        Signal("devices_online", "{device}", 4, 60),
        Signal("uplink_delay", "ms", 3, 80, 1),
    ),
    "nurse-station": (
        Signal("open_alarms", "{alarm}", 0, 6),
        Signal("devices_followed", "{device}", 4, 40),
    ),
}

_OTHER: Final = (Signal("uptime", "s", 60, 900_000), Signal("temperature", "Cel", 18, 41, 1))


def signals_for(category: str) -> tuple[Signal, ...]:
    """The quantities of a category as the inventory names it; a general pair for one that is not known here."""
    return SIGNALS.get(category, _OTHER)


class TelemetrySource:
    """Lines of one device: a sequence number that only grows, the time, and a slow random walk of each signal."""

    def __init__(self, device: str, category: str, entropy: Entropy) -> None:
        self._device = device
        self._category = category
        self._entropy = entropy
        self._signals = signals_for(category)
        self._levels = [self._draw() for _ in self._signals]
        self._sequence = 0

    def line(self, at: datetime) -> bytes:
        """The next line, with its line feed: compact JSON in ASCII."""
        self._sequence += 1
        values: dict[str, float | int] = {}
        for index, signal in enumerate(self._signals):
            self._levels[index] = min(1.0, max(0.0, self._levels[index] + (self._draw() - 0.5) / 10))
            value = signal.low + (signal.high - signal.low) * self._levels[index]
            values[f"{signal.name} [{signal.unit}]"] = round(value, signal.decimals or None)
        record = {
            "device": self._device,
            "category": self._category,
            "sequence": self._sequence,
            "at": at.isoformat(timespec="milliseconds"),
            "values": values,
        }
        return json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"

    def lines(self, count: int, at: datetime) -> bytes:
        """The next `count` lines in one piece."""
        return b"".join(self.line(at) for _ in range(count))

    def _draw(self) -> float:
        return int.from_bytes(self._entropy(4), "big") / 0xFFFFFFFF
