"""Loads a policy pack: TOML, checked, frozen and named by its hash; the shipped ones are in packs/.

A pack with `base = "iob-2026"` is that shipped pack with other values: what its own file says takes the place of what
the base says, key by key. The hash of such a pack is of all its values, the inherited ones included, so that a change
of the base is a change of the pack.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import MappingProxyType

from vagus.errors import Misconfigured
from vagus.policy.documents import check_tables, decode_tables, read_document, refusal
from vagus.policy.pack_checks import find_faults
from vagus.policy.pack_files import PackFile, ProfileTable
from vagus.policy.values import PolicyPack
from vagus.reasons import Reason
from vagus.x509.oids import PURPOSES
from vagus.x509.profiles import Profile

__all__ = ["SHIPPED", "PolicyPack", "choose_pack", "decode_pack", "find_shipped", "list_shipped", "load_pack"]

SHIPPED = Path(__file__).parent / "packs" / "iob-2026.toml"
"""The pack of an installation whose settings name none."""

_OWN = frozenset({"format", "name", "version"})
"""What a pack says of itself and never inherits."""


def list_shipped() -> tuple[str, ...]:
    """The names of the shipped packs."""
    return tuple(sorted(file.stem for file in SHIPPED.parent.glob("*.toml")))


def find_shipped(name: str) -> Path | None:
    """The file of the shipped pack of this name; None where there is none."""
    return SHIPPED.with_name(f"{name}.toml") if name in list_shipped() else None


def choose_pack(name: str, folder: Path) -> Path:
    """The file of the pack that is chosen by the name of a shipped one, or of a file in `folder`.

    Raises Misconfigured(BAD_PACK) where there is neither.
    """
    place = find_shipped(name) or folder / name
    if not place.is_file():
        shipped = " or ".join(list_shipped())
        msg = f"{place}: there is no such policy pack; name {shipped}, or a file (a relative path begins at {folder})"
        raise Misconfigured(Reason.BAD_PACK, msg, file=str(place))
    return place


def load_pack(path: Path | None = None) -> PolicyPack:
    """The pack in `path`, or the shipped iob-2026.

    Raises Misconfigured(BAD_PACK) with file, key, limit and remedy of everything that is wrong.
    """
    file = path or SHIPPED
    return decode_pack(read_document(file, Reason.BAD_PACK), str(file))


def decode_pack(raw: bytes, file: str) -> PolicyPack:
    """The pack in these bytes; `file` is what messages call it. Raises Misconfigured(BAD_PACK)."""
    tables = _effective(raw, file)
    model = check_tables(tables, file, PackFile, Reason.BAD_PACK)
    if faults := find_faults(model):
        raise refusal(file, faults, Reason.BAD_PACK)
    arc = model.oids.arc
    return PolicyPack(
        name=model.name,
        version=model.version,
        sha256=hashlib.sha256(raw if model.base is None else _canonical(tables)).hexdigest(),
        arc=arc,
        is_production_arc=model.oids.production,
        profiles=MappingProxyType({name: _profile(name, table, arc) for name, table in model.profiles.items()}),
        rules=MappingProxyType(model.rules),
        functions=MappingProxyType(model.functions),
        authorities=model.authorities,
        renewal=model.renewal,
        crl=model.crl,
        ocsp=model.ocsp,
        enrolment=model.enrolment,
        service_keys=model.service_keys,
        cryptoperiods=MappingProxyType(model.cryptoperiods),
    )


def _effective(raw: bytes, file: str) -> dict[str, object]:
    """The tables of a pack with those of its base beneath them. A base is a shipped pack, so there are no circles.

    Raises Misconfigured(BAD_PACK).
    """
    tables = decode_tables(raw, file, Reason.BAD_PACK)
    base = tables.get("base")
    if base is None:
        return tables
    place = find_shipped(base) if isinstance(base, str) else None
    if place is None:
        text = f"{str(base)[:80]!r} is not a shipped pack; write {' or '.join(list_shipped())}, or delete this line"
        raise refusal(file, [("base", text)], Reason.BAD_PACK)
    below = _effective(read_document(place, Reason.BAD_PACK), str(place))
    return _overlay({key: value for key, value in below.items() if key not in _OWN}, tables)


def _overlay(below: dict[str, object], above: dict[str, object]) -> dict[str, object]:
    """`above` over `below`: tables key by key, every other value (a list too) as a whole."""
    merged = {**below, **above}
    for key, value in above.items():
        beneath = below.get(key)
        if isinstance(value, dict) and isinstance(beneath, dict):
            merged[key] = _overlay(beneath, value)
    return merged


def _canonical(tables: dict[str, object]) -> bytes:
    """Checked tables as bytes, the same however the file orders and spaces them."""
    return json.dumps(tables, sort_keys=True, separators=(",", ":")).encode("ascii")


def _resolve(text: str, arc: str) -> str:
    return PURPOSES.get(text) or (f"{arc}.{text.removeprefix('arc.')}" if text.startswith("arc.") else text)


def _profile(name: str, table: ProfileTable, arc: str) -> Profile:
    return Profile(
        name=name,
        kind=table.kind,
        name_form=table.name_form,
        key_algorithms=frozenset(table.keys),
        key_usage=frozenset(table.key_usage),
        extended_key_usage=tuple(_resolve(purpose, arc) for purpose in table.extended_key_usage),
        default_lifetime=table.default_lifetime,
        longest_lifetime=table.longest_lifetime,
        has_crl_pointer=table.crl_pointer,
        has_ocsp_pointer=table.ocsp_pointer,
        is_short_lived=table.short_lived,
        has_ocsp_nocheck=table.ocsp_nocheck,
        path_length=table.path_length,
        certificate_policies=tuple(_resolve(policy, arc) for policy in table.policies),
        is_name_constrained=table.name_constrained,
    )
