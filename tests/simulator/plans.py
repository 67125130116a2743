"""The text of plan.toml for a hospital group or a maker, from a few values."""

from __future__ import annotations

import json
from typing import Any

PUMP, GATEWAY = "Aorta IP3", "Keystone Gateway"
UNITS = {"icu": "Intensive Care", "er": "Emergency", "remote-care": "Remote Care"}


def model(name: str = PUMP, maker: str = "Aorta Devices", category: str = "infusion-pump", prefix: str = "AIP3") -> Any:
    """A row of `models`; a maker's plan names no maker in it."""
    named = {"maker": maker} if maker else {}
    return {"name": name, **named, "category": category, "serial_prefix": prefix}


def devices(unit: str, first: int, count: int, model: str = PUMP, **more: Any) -> Any:
    """A row of a hospital's `devices`: serial numbers from `first` on."""
    return {"unit": unit, "model": model, "first": first, "count": count, **more}


def hospital(*rows: Any, label: str = "h1", title: str = "First Hospital", units: tuple[str, ...] = ("icu",)) -> Any:
    """A row of `hospitals` with these rows of devices."""
    named = [{"label": unit, "title": UNITS[unit]} for unit in units]
    return {"label": label, "title": title, "units": named, "devices": list(rows)}


def listener(name: str, kind: str, host: str = "", upstream: int = 0, **more: Any) -> Any:
    """A row of `listeners` on a free port; `host` is its host name, `upstream` a port of this machine."""
    row = {"name": name, "kind": kind, "address": "127.0.0.1:0", **more}
    row |= {"host_names": [host]} if host else {}
    return row | ({"upstream": f"127.0.0.1:{upstream}"} if upstream else {})


STATUS = listener("status", "status")


def hospital_plan(
    *hospitals: Any,
    models: Any = None,
    listeners: Any = (STATUS,),
    domain: str = "test.example",
    status_url: str = "",
    **group: Any,
) -> str:
    """The plan of a group whose status URL is below its domain unless it is given."""
    url = status_url or f"http://status.{domain}"
    whole = {"title": "Test Group", "domain": domain, "status_url": url, **group}
    return _encode("hospital", group=whole, hospitals=hospitals, models=models or [model()], listeners=listeners)


def batch(count: int, first: int = 1, name: str = "lot-1", model: str = PUMP) -> Any:
    """A row of `batches` of a maker's plan."""
    return {"name": name, "model": model, "first": first, "count": count}


def maker_plan(*, batches: Any = (), models: Any = None, status_url: str = "http://127.0.0.1:1") -> str:
    """The plan of the pumps' maker."""
    maker = {"title": "Aorta Devices", "status_url": status_url}
    return _encode("maker", maker=maker, models=models or [model(maker="")], batches=batches)


def tables(name: str, *rows: Any) -> str:
    """Rows of an array of tables."""
    return "".join(f"[[{name}]]\n{_fields(row)}" for row in rows)


def _encode(kind: str, **parts: Any) -> str:
    text = f'kind = "{kind}"\nformat = 1\n'
    for name, part in parts.items():
        text += f"[{name}]\n{_fields(part)}" if isinstance(part, dict) else tables(name, *part)
    return text


def _fields(row: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in row.items())


def _value(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)
