"""Loads a policy pack: TOML, checked, frozen and named by its hash; the shipped one is packs/iob-2026.toml."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vagus.errors import Misconfigured
from vagus.policy.documents import decode_document, load_document
from vagus.policy.pack_checks import find_faults
from vagus.policy.pack_files import AuthorityTable, FunctionTable, PackFile, ProfileTable, RuleTable
from vagus.policy.values import (
    AuthorityRule,
    AuthorityRules,
    CrlRules,
    EnrolmentRules,
    Function,
    FunctionRule,
    OcspRules,
    PolicyPack,
    RenewalRules,
    Rule,
)
from vagus.reasons import Reason
from vagus.x509.oids import PURPOSES
from vagus.x509.profiles import Profile

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["SHIPPED", "PolicyPack", "decode_pack", "load_pack"]

SHIPPED = Path(__file__).parent / "packs" / "iob-2026.toml"
_SHOWN = 5


def load_pack(path: Path | None = None) -> PolicyPack:
    """The pack in `path`, or the shipped one.

    Raises Misconfigured(BAD_PACK) with file, key, limit and remedy of everything that is wrong.
    """
    file = path or SHIPPED
    model, raw = load_document(file, PackFile, Reason.BAD_PACK)
    return _freeze(model, raw, str(file))


def decode_pack(raw: bytes, file: str) -> PolicyPack:
    """The pack in these octets; `file` is what messages call it. Raises Misconfigured(BAD_PACK)."""
    return _freeze(decode_document(raw, file, PackFile, Reason.BAD_PACK), raw, file)


def _freeze(model: PackFile, raw: bytes, file: str) -> PolicyPack:
    faults = find_faults(model)
    if faults:
        lines = [f"{file}: {key}: {text}" for key, text in faults[:_SHOWN]]
        if len(faults) > _SHOWN:
            lines.append(f"{file}: and {len(faults) - _SHOWN} more")
        raise Misconfigured(Reason.BAD_PACK, "\n".join(lines), file=file, key=faults[0][0], findings=len(faults))
    arc = model.oids.arc
    return PolicyPack(
        name=model.name,
        version=model.version,
        sha256=hashlib.sha256(raw).hexdigest(),
        arc=arc,
        is_production_arc=model.oids.production,
        profiles=MappingProxyType({name: _profile(name, table, arc) for name, table in model.profiles.items()}),
        rules=MappingProxyType({name: _rule(name, table) for name, table in model.rules.items()}),
        functions=MappingProxyType({one: _function(one, table) for one, table in model.functions.items()}),
        authorities=AuthorityRules(
            **{kind: _authority(getattr(model.authorities, kind)) for kind in type(model.authorities).model_fields}
        ),
        renewal=RenewalRules(**{**_fields(model.renewal), "alerts": tuple(model.renewal.alerts)}),
        crl=CrlRules(**_fields(model.crl)),
        ocsp=OcspRules(**_fields(model.ocsp)),
        enrolment=EnrolmentRules(**_fields(model.enrolment)),
        cryptoperiods=MappingProxyType(dict(model.cryptoperiods)),
    )


def _fields(model: BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


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


def _rule(name: str, table: RuleTable) -> Rule:
    return Rule(
        profile=name,
        categories=frozenset(table.categories),
        exposure=table.exposure,
        device_class=table.device_class,
        is_life_sustaining=table.life_sustaining,
        review_approvals=table.review_approvals,
        tls_minimum=table.tls_minimum,
        session_on_revocation=table.session_on_revocation,
        functions=frozenset(table.functions),
    )


def _function(function: Function, table: FunctionTable) -> FunctionRule:
    return FunctionRule(
        function=function,
        fail_mode=table.fail_mode,
        status_max_age=table.status_max_age,
        grace=table.grace,
        always_closes=table.always_closes,
    )


def _authority(table: AuthorityTable) -> AuthorityRule:
    return AuthorityRule(
        profile=table.profile,
        lifetime=table.lifetime,
        key_algorithm=table.key,
        is_offline=table.offline,
        rekey_after=table.rekey_after,
    )
