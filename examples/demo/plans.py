"""The plans of the demonstration: the shipped examples with listeners on free ports, and the sixty devices."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.demo.stage import REPOSITORY, free_ports

DOMAIN: Final = "five-hospitals.example"
MAKER: Final = "Aorta Devices"

FLEET: Final = (
    # unit, model, the maker's counter of the first, how many
    ("h1/icu", "Aorta IP3", 1, 9),
    ("h1/icu", "Aorta SP1", 1, 4),
    ("h1/icu", "Aorta PM7", 1, 5),
    ("h1/icu", "Aorta V9", 1, 4),
    ("h1/er", "Aorta IP3", 25, 4),
    ("h1/er", "Aorta PM7", 17, 3),
    ("h1/dialysis", "Aorta HD5", 1, 3),
    ("h1/remote-care", "Aorta Rhythm", 1, 6),
    ("h1/remote-care", "Aorta Stim", 1, 3),
    ("h1/remote-care", "Aorta Sense", 1, 6),
    ("h1/remote-care", "Aorta Flow", 1, 5),
    ("h1/remote-care", "Aorta Patch", 1, 4),
    ("h1/remote-care", "Aorta Hub", 1, 3),
    ("h2/icu", "Aorta IP3", 262, 1),
)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener of the hospital's server."""

    name: str
    kind: str
    host: str
    port: int
    hospital: str | None = None
    units: tuple[str, ...] = ()
    function: str = "telemetry"
    upstream: int | None = None

    @property
    def route(self) -> str:
        """As an option of an agent names it."""
        scheme = "tcp://" if self.kind == "relay-tcp" else ""
        return f"{scheme}{self.host}=127.0.0.1:{self.port}"

    def table(self) -> str:
        """The listener as a table of a plan."""
        lines = ["[[listeners]]", f'name = "{self.name}"', f'kind = "{self.kind}"']
        lines.append(f'address = "127.0.0.1:{self.port}"')
        if self.hospital is not None:
            lines += [f'hospital = "{self.hospital}"', f'host_names = ["{self.host}"]']
        if self.units:
            lines.append("units = [" + ", ".join(f'"{unit}"' for unit in self.units) + "]")
        if self.upstream is not None:
            lines += [f'function = "{self.function}"', f'upstream = "127.0.0.1:{self.upstream}"']
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class BuiltListeners:
    """Everything that listens in the demonstration."""

    status: Listener
    enrol: Listener
    telemetry: Listener
    lines: Listener
    control: Listener
    enrol_h2: Listener
    telemetry_h2: Listener
    store: int
    store_raw: int
    store_h2: int
    store_h2_raw: int
    maker_status: int

    @classmethod
    def draw(cls) -> BuiltListeners:
        """BuiltListeners on free ports."""
        p = free_ports(12)
        return cls(
            status=Listener("status", "status", "127.0.0.1", p[0]),
            enrol=Listener("enrol-h1", "enrolment", f"enrol.h1.{DOMAIN}", p[1], "h1"),
            telemetry=Listener("telemetry-h1", "relay-http", f"telemetry.h1.{DOMAIN}", p[2], "h1", upstream=p[7]),
            lines=Listener("lines-h1", "relay-tcp", f"lines.h1.{DOMAIN}", p[3], "h1", upstream=p[8]),
            control=Listener(
                "control-h1-icu", "relay-http", f"control.icu.h1.{DOMAIN}", p[4], "h1", ("icu",), "control", p[7]
            ),
            enrol_h2=Listener("enrol-h2", "enrolment", f"enrol.h2.{DOMAIN}", p[5], "h2"),
            telemetry_h2=Listener("telemetry-h2", "relay-http", f"telemetry.h2.{DOMAIN}", p[6], "h2", upstream=p[9]),
            store=p[7],
            store_raw=p[8],
            store_h2=p[9],
            store_h2_raw=p[10],
            maker_status=p[11],
        )

    @property
    def hospital_listeners(self) -> tuple[Listener, ...]:
        """Those of the hospitals' server, in the order of the plan."""
        return (
            self.status,
            self.enrol,
            self.telemetry,
            self.lines,
            self.control,
            self.enrol_h2,
            self.telemetry_h2,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """One device that takes part."""

    unit: str
    model: str
    category: str
    serial: str

    @property
    def hospital(self) -> str:
        """Whose it is."""
        return self.unit.partition("/")[0]


def fleet() -> tuple[Made, ...]:
    """The devices that take part, as both plans name them."""
    models = {model["name"]: model for model in _load("maker.toml")["models"]}
    return tuple(
        Made(unit, model, models[model]["category"], f"{models[model]['serial_prefix']}-{number:06d}")
        for unit, model, first, count in FLEET
        for number in range(first, first + count)
    )


def write_hospital_plan(path: Path, listeners: BuiltListeners) -> None:
    """The five-hospitals plan, word for word, with the demonstration's listeners."""
    text = (REPOSITORY / "examples" / "five-hospitals.toml").read_text("utf-8")
    shared = text[: text.index("[[listeners]]")]
    path.write_text(shared + "\n".join(listener.table() for listener in listeners.hospital_listeners), "utf-8")


def write_maker_plan(path: Path, listeners: BuiltListeners) -> None:
    """The maker's plan with its status listener on a free port."""
    text = (REPOSITORY / "examples" / "maker.toml").read_text("utf-8")
    shared = text[: text.index("[[listeners]]")]
    path.write_text(shared + Listener("status", "status", "127.0.0.1", listeners.maker_status).table(), "utf-8")


def _load(name: str) -> dict[str, list[dict[str, str]]]:
    return tomllib.loads((REPOSITORY / "examples" / name).read_text("utf-8"))
