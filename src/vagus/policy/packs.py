"""Loads a policy pack: TOML, checked, frozen and named by its hash; the shipped one is packs/iob-2026.toml."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import MappingProxyType

from vagus.policy.documents import decode_document, read_document, refusal
from vagus.policy.pack_checks import find_faults
from vagus.policy.pack_files import PackFile, ProfileTable
from vagus.policy.values import PolicyPack
from vagus.reasons import Reason
from vagus.x509.oids import PURPOSES
from vagus.x509.profiles import Profile

__all__ = ["SHIPPED", "PolicyPack", "decode_pack", "load_pack"]

SHIPPED = Path(__file__).parent / "packs" / "iob-2026.toml"


def load_pack(path: Path | None = None) -> PolicyPack:
    """The pack in `path`, or the shipped one.

    Raises Misconfigured(BAD_PACK) with file, key, limit and remedy of everything that is wrong.
    """
    file = path or SHIPPED
    return decode_pack(read_document(file, Reason.BAD_PACK), str(file))


def decode_pack(raw: bytes, file: str) -> PolicyPack:
    """The pack in these bytes; `file` is what messages call it. Raises Misconfigured(BAD_PACK)."""
    model = decode_document(raw, file, PackFile, Reason.BAD_PACK)
    if faults := find_faults(model):
        raise refusal(file, faults, Reason.BAD_PACK)
    arc = model.oids.arc
    return PolicyPack(
        name=model.name,
        version=model.version,
        sha256=hashlib.sha256(raw).hexdigest(),
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
        cryptoperiods=MappingProxyType(model.cryptoperiods),
    )


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
