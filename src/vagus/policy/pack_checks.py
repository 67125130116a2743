"""The rules between the keys of a policy pack, each finding with key and remedy; builds no value, reads no file."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from vagus.policy.values import AuthorityRule, DeviceClass, Exposure, FailMode, Function, Rule, spell_duration
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.oids import ANY_EXTENDED_KEY_USAGE, ANY_POLICY, OCSP_SIGNING, PURPOSES, SERVER_AUTH
from vagus.x509.profiles import SDC_PROFILES, KeyUsage, Kind, NameForm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vagus.policy.pack_files import PackFile, ProfileTable

Finding = tuple[str, str]  # a finding: the key in the pack, and a sentence with limit and remedy

DOCUMENTATION_ARC = "1.3.6.1.4.1.32473"  # RFC 5612: object identifiers for documentation, never for production
REQUIRED_PROFILES = (
    "implant", "wearable", "home-hub", "bedside", "imaging", "gateway", "station", "technician", "idevid", "ocsp",
    "audit-sign", "firmware-sign", "config-sign", "emergency", "tls-server",
    "root", "device-ca", "issuing-ca", "sdc-ca", "infrastructure-ca", "line-ca",
)  # fmt: skip

_MISSING = "this profile is missing; every pack has it, so add its table"
_DAY = timedelta(days=1)
_WEEK = 7 * _DAY
_MINUTE = timedelta(minutes=1)
_CA_USES = frozenset({KeyUsage.KEY_CERT_SIGN, KeyUsage.CRL_SIGN})
_VERIFY_ONLY = frozenset({KeyAlgorithm.ED25519, KeyAlgorithm.ED448})
_RSA = frozenset({KeyAlgorithm.RSA2048, KeyAlgorithm.RSA3072, KeyAlgorithm.RSA4096})
_AT_HOME = frozenset({Exposure.IMPLANTED, Exposure.WORN, Exposure.HOME})
_LONGEST_OF: Mapping[str, timedelta] = {
    "gateway": 365 * _DAY,
    "station": 365 * _DAY,
    "technician": _DAY,
    "emergency": 3 * _DAY,
    "ocsp": 30 * _DAY,
    "audit-sign": 365 * _DAY,
    "root": 20 * 365 * _DAY,
    "device-ca": 12 * 365 * _DAY,
    "issuing-ca": 6 * 365 * _DAY,
    "sdc-ca": 6 * 365 * _DAY,
    "infrastructure-ca": 6 * 365 * _DAY,
}
_LONGEST_CRITICAL = 2 * 365 * _DAY  # longest certificate lifetime for devices of class III or life-sustaining ones
_LONGEST_DEVICE = 3 * 365 * _DAY
_LONGEST_SHORT_LIVED = _WEEK
_PARENTS: Mapping[str, str] = {
    "device_ca": "root",
    "issuing_ca": "device_ca",
    "sdc_ca": "root",
    "infrastructure_ca": "root",
    "line_ca": "maker_root",
}
_NAME_CONSTRAINED = frozenset({"device-ca", "issuing-ca", "sdc-ca"})
_OFFLINE = frozenset({"root", "device_ca", "maker_root"})
_MUST_FAIL_SECURE = (Function.CONTROL, Function.PROGRAMMING, Function.FIRMWARE)
_LONGEST_GRACE = _DAY
_BOUNDS = (  # duration of the policy pack, its upper limit, and what it limits
    ("crl.resign_every", _DAY, "of online authorities"),
    ("crl.publish_within", _MINUTE, "after a revocation"),
    ("crl.longest_next_update", _WEEK, "of online authorities"),
    ("ocsp.presigned_lifetime", _DAY, "of a response"),
    ("ocsp.http_max_age", _MINUTE, "that caches may keep a response"),
    # the lint on lifetimes allows this backdating
    ("enrolment.backdate", timedelta(hours=1), "that certificates may be early"),
)


def find_faults(pack: PackFile) -> list[Finding]:
    """Everything wrong with a pack whose types and spellings are right."""
    return [
        *_oids(pack),
        *((f"profiles.{name}", _MISSING) for name in REQUIRED_PROFILES if name not in pack.profiles),
        *(finding for name, table in pack.profiles.items() for finding in _profile(name, table)),
        *(finding for name, table in pack.rules.items() for finding in _rule(name, table, pack)),
        *_categories(pack),
        *_functions(pack),
        *_authorities(pack),
        *_service_keys(pack),
        *_renewal(pack),
        *(finding for key, bound, of in _BOUNDS for finding in _over(key, _find_duration(pack, key), bound, of)),
        *_crl(pack),
        *_ocsp(pack),
    ]


def _oids(pack: PackFile) -> Iterator[Finding]:
    if pack.oids.production and f"{pack.oids.arc}.".startswith(f"{DOCUMENTATION_ARC}."):
        text = f"{DOCUMENTATION_ARC} is for examples (RFC 5612); set your own arc, or production = false"
        yield "oids.production", text


# --- the profiles of a policy pack --------------------------------------------------------------------------------


def _profile(name: str, table: ProfileTable) -> Iterator[Finding]:
    here = f"profiles.{name}"
    for key in ("keys", "key_usage", "extended_key_usage", "policies"):
        values = getattr(table, key)
        if len(set(values)) != len(values):
            yield f"{here}.{key}", "a value is named twice (for policies RFC 5280 4.2.1.4 forbids it); delete one"
    yield from _profile_keys(here, table)
    yield from _profile_uses(here, table)
    yield from _profile_purposes(here, table)
    yield from _profile_lifetimes(here, name, table)
    yield from _profile_pointers(here, name, table)
    is_authority = table.kind is Kind.AUTHORITY
    if is_authority and table.name_form is not NameForm.NONE:
        yield f"{here}.name_form", 'an authority carries no subjectAltName; set name_form = "none"'
    if not is_authority and table.path_length is not None:
        yield f"{here}.path_length", "only authorities have a path length (RFC 5280 4.2.1.9); delete it"
    if is_authority and table.path_length is None:
        yield f"{here}.path_length", "an authority without a path length can sign any depth; add path_length"
    if table.name_constrained is not (name in _NAME_CONSTRAINED):
        value = "true: its names end at its subtree" if name in _NAME_CONSTRAINED else "false"
        yield f"{here}.name_constrained", f"for this profile it must be {value}"
    for position, oid in enumerate(table.policies):
        if oid == ANY_POLICY and not is_authority:
            yield f"{here}.policies[{position}]", "anyPolicy is for authorities (RFC 5280 4.2.1.4); name a policy"
        elif not _is_oid(oid):
            yield f"{here}.policies[{position}]", f'{oid!r} is no OID; write numbers with dots, or "arc." and numbers'


def _profile_keys(here: str, table: ProfileTable) -> Iterator[Finding]:
    keys = frozenset(table.keys)
    for key in sorted(keys & _VERIFY_ONLY):
        yield f"{here}.keys", f"{key} is verified but never certified here; delete it"
    if KeyAlgorithm.RSA2048 in keys and table.kind is not Kind.END_ENTITY:
        yield f"{here}.keys", "rsa2048 is too weak for an authority or responder; allow rsa3072 or more"
    elif KeyAlgorithm.RSA2048 in keys and table.name_form not in {NameForm.SERVER, NameForm.DEVICE}:
        yield f"{here}.keys", "rsa2048 is allowed for old servers and devices alone; allow rsa3072 or more, or p256"


def _profile_uses(here: str, table: ProfileTable) -> Iterator[Finding]:
    uses = frozenset(table.key_usage)
    if table.kind is Kind.AUTHORITY:
        if uses != _CA_USES:
            yield f"{here}.key_usage", "an authority has exactly keyCertSign and cRLSign; set these two"
        return
    if uses & _CA_USES:
        yield f"{here}.key_usage", "keyCertSign and cRLSign are for authorities (RFC 5280 4.2.1.3); delete them"
    if KeyUsage.DIGITAL_SIGNATURE not in uses:
        yield f"{here}.key_usage", "TLS 1.3 and signing need digitalSignature; add it"
    encipherment = uses & {KeyUsage.KEY_ENCIPHERMENT, KeyUsage.DATA_ENCIPHERMENT}
    if encipherment and not frozenset(table.keys) <= _RSA:
        names = ", ".join(sorted(encipherment))
        yield f"{here}.key_usage", f"{names} is for RSA keys alone (RFC 8813 3); delete it, or allow RSA keys only"


def _profile_purposes(here: str, table: ProfileTable) -> Iterator[Finding]:
    key = f"{here}.extended_key_usage"
    purposes = table.extended_key_usage
    for position, purpose in enumerate(purposes):
        if PURPOSES.get(purpose, purpose) == ANY_EXTENDED_KEY_USAGE:
            yield f"{key}[{position}]", "anyExtendedKeyUsage grants every role; name the roles"
        elif purpose not in PURPOSES and not _is_oid(purpose):
            known = ", ".join(sorted(PURPOSES))
            yield f"{key}[{position}]", f'{purpose!r} is not known; use one of {known}, an OID, or "arc." and numbers'
    yield from _purposes_of_kind(key, table, {PURPOSES.get(purpose, purpose) for purpose in purposes})


def _purposes_of_kind(key: str, table: ProfileTable, resolved: set[str]) -> Iterator[Finding]:
    if table.kind is Kind.AUTHORITY and resolved:
        yield key, "authorities carry no extended key usage here: OpenSSL and others nest it differently; delete it"
    if table.kind is Kind.END_ENTITY:
        if not resolved and table.name_form is not NameForm.HARDWARE_MODULE:
            yield key, "without purposes a certificate passes as client and as server; name its purposes"
        if OCSP_SIGNING in resolved:
            yield key, 'OCSPSigning lets its bearer forge status; only kind = "ocsp_responder" may have it'
        if SERVER_AUTH in resolved and table.name_form in {NameForm.NONE, NameForm.HARDWARE_MODULE}:
            yield key, "serverAuth needs a host name to match; choose another name_form or delete it"
    if table.kind is Kind.OCSP_RESPONDER and resolved != {OCSP_SIGNING}:
        yield key, "a responder has OCSPSigning and nothing else (RFC 6960 4.2.2.2); set it so"


def _profile_lifetimes(here: str, name: str, table: ProfileTable) -> Iterator[Finding]:
    default, longest = table.default_lifetime, table.longest_lifetime
    may_be_unlimited = table.name_form is NameForm.HARDWARE_MODULE or name in {"maker-root", "line-ca"}
    if not may_be_unlimited and (default is None or longest is None):
        yield f"{here}.default_lifetime", "only IDevIDs and the maker's authorities may be unlimited; set a duration"
        return
    if longest is not None and (default is None or default > longest):
        given = "unlimited" if default is None else spell_duration(default)
        limit = spell_duration(longest)
        yield f"{here}.default_lifetime", f"{given} exceeds longest_lifetime {limit}; lower one or raise the other"
    yield from _over(f"{here}.longest_lifetime", longest, _LONGEST_OF.get(name), f"that {name} may have at most")
    if table.short_lived:
        yield from _over(f"{here}.longest_lifetime", longest, _LONGEST_SHORT_LIVED, "of a short-lived certificate")


def _profile_pointers(here: str, name: str, table: ProfileTable) -> Iterator[Finding]:
    has_pointer = table.crl_pointer or table.ocsp_pointer
    if table.short_lived and has_pointer:
        yield f"{here}.short_lived", "noRevAvail forbids CRL and OCSP pointers (RFC 9608 3); set both to false"
    if table.short_lived and table.kind is Kind.AUTHORITY:
        text = "an authority's certificate never has noRevAvail (RFC 9608 3); set it to false"
        yield f"{here}.short_lived", text
    if table.kind is Kind.AUTHORITY:
        if table.ocsp_pointer:
            yield f"{here}.ocsp_pointer", "authorities are judged by CRL alone; set it to false"
        is_root = name in {"root", "maker-root"}
        if is_root is table.crl_pointer:
            value = "false: no CRL covers a root" if is_root else "true: foreign verifiers read it"
            yield f"{here}.crl_pointer", f"for this authority it must be {value}"
    elif table.kind is Kind.OCSP_RESPONDER:
        if not table.ocsp_nocheck or has_pointer:
            yield f"{here}.ocsp_nocheck", "a responder has ocsp_nocheck = true and no pointers (RFC 6960 4.2.2.2.1)"
        return
    elif not has_pointer and not table.short_lived:
        text = "no relying party could learn of a revocation; set a pointer to true, or short_lived = true"
        yield f"{here}.crl_pointer", text
    if table.ocsp_nocheck:
        yield f"{here}.ocsp_nocheck", "only a responder may be trusted unchecked (RFC 6960 4.2.2.2.1); set it to false"


def _is_oid(text: str) -> bool:
    parts = text.removeprefix("arc.").split(".")
    numbers = all(part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") for part in parts)
    return numbers and (text.startswith("arc.") or (len(parts) > 2 and parts[0] in {"0", "1", "2"}))


# --- the rules for device categories and functions ------------------------------------------------------------------


def _rule(name: str, table: Rule, pack: PackFile) -> Iterator[Finding]:
    here = f"rules.{name}"
    profile = pack.profiles.get(name)
    if profile is None:
        yield here, "no profile has this name; a rule is named after the profile that it governs"
        return
    if profile.kind is not Kind.END_ENTITY:
        yield here, "authorities and responders are governed by [authorities] and [ocsp]; delete this rule"
        return
    is_critical = table.is_life_sustaining or table.device_class is DeviceClass.III
    if table.device_class is DeviceClass.III and table.review_approvals < 2:
        yield f"{here}.review_approvals", f"class III needs 2 approvals, {table.review_approvals} given; raise it"
    if table.categories and table.device_class is None:
        yield f"{here}.device_class", "a rule with device categories needs their highest FDA class; add it"
    if table.sdc_profile is not None and table.sdc_profile not in SDC_PROFILES:
        yield f"{here}.sdc_profile", f"{table.sdc_profile!r} is no SDC profile; choose {' or '.join(SDC_PROFILES)}"
    elif table.sdc_profile is not None and table.sdc_profile not in pack.profiles:
        yield f"{here}.sdc_profile", f"the pack has no profile {table.sdc_profile!r}; add it, or delete this key"
    if table.tls_minimum == "1.2" and table.exposure in _AT_HOME:
        text = f"TLS 1.2 shows the client certificate in clear, and this device is {table.exposure.value}; set 1.3"
        yield f"{here}.tls_minimum", text
    if table.device_class is not None:
        bound = _LONGEST_CRITICAL if is_critical else _LONGEST_DEVICE
        why = "class III or life-sustaining" if is_critical else "device"
        key = f"profiles.{name}.longest_lifetime"
        yield from _over(key, profile.longest_lifetime, bound, f"of a {why} certificate")


def _categories(pack: PackFile) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, table in pack.rules.items():
        for category in table.categories:
            if category in seen:
                text = f"category {category!r} is already in rules.{seen[category]}; keep it in one rule"
                yield f"rules.{name}.categories", text
            seen[category] = name
    for name, profile in pack.profiles.items():
        if profile.kind is Kind.END_ENTITY and name not in pack.rules:
            text = "this profile has no rule, so no device may have it; add one or delete the profile"
            yield f"rules.{name}", text


def _functions(pack: PackFile) -> Iterator[Finding]:
    for function in Function:
        table, must_fail_secure = pack.functions.get(function), function in _MUST_FAIL_SECURE
        here = f"functions.{function.value}"
        if table is None:
            yield here, "this function is missing; add its table"
            continue
        if must_fail_secure and table.fail_mode is not FailMode.SECURE:
            yield f"{here}.fail_mode", "control, programming and firmware fail secure; set it so"
        if must_fail_secure and not table.always_closes:
            yield f"{here}.always_closes", "open sessions of a revoked device must close here; set it to true"
        if table.fail_mode is FailMode.SECURE and table.grace:
            yield f"{here}.grace", 'a function that fails secure has no grace; set "none"'
        yield from _over(f"{here}.grace", table.grace, _LONGEST_GRACE, "that a grace may last")
        bound = _DAY if must_fail_secure else _WEEK
        yield from _over(f"{here}.status_max_age", table.status_max_age, bound, f"of {function.value}")


# --- the rules for kinds of authorities, and numbers ----------------------------------------------------------------


def _authorities(pack: PackFile) -> Iterator[Finding]:
    leaves = [table.longest_lifetime for table in pack.profiles.values() if table.kind is Kind.END_ENTITY]
    leaf = max((lifetime for lifetime in leaves if lifetime), default=timedelta(0))
    for kind in type(pack.authorities).model_fields:
        table: AuthorityRule = getattr(pack.authorities, kind)
        here = f"authorities.{kind}"
        if kind in _OFFLINE and not table.is_offline:
            yield f"{here}.offline", "this key is opened in ceremonies only; set it to true"
        if kind not in _OFFLINE and table.is_offline:
            yield f"{here}.offline", "this authority issues day and night; set it to false"
        profile = pack.profiles.get(table.profile)
        if profile is None or profile.kind is not Kind.AUTHORITY:
            yield f"{here}.profile", f"{table.profile!r} is not an authority's profile of this pack; name one"
            continue
        if table.key_algorithm not in profile.keys:
            text = f"{table.key_algorithm} is not among profiles.{table.profile}.keys; add it there or choose another"
            yield f"{here}.key", text
        bound = profile.longest_lifetime
        if bound is not None and (table.lifetime is None or table.lifetime > bound):
            text = f"it exceeds profiles.{table.profile}.longest_lifetime {spell_duration(bound)}; lower it"
            yield f"{here}.lifetime", text
        yield from _against_parent(kind, table, pack)
        if kind == "issuing_ca" and table.rekey_after is not None and table.lifetime is not None:
            spare = table.lifetime - table.rekey_after
            if spare < leaf:
                given, limit = spell_duration(spare), spell_duration(leaf)
                text = f"{given} would remain, less than the longest leaf's {limit}; re-key earlier"
                yield f"{here}.rekey_after", text


def _against_parent(kind: str, table: AuthorityRule, pack: PackFile) -> Iterator[Finding]:
    name = _PARENTS.get(kind)
    if name is None:
        return
    parent: AuthorityRule = getattr(pack.authorities, name)
    if parent.lifetime is not None and (table.lifetime is None or table.lifetime > parent.lifetime):
        limit = spell_duration(parent.lifetime)
        yield f"authorities.{kind}.lifetime", f"it exceeds the {limit} of its issuer {name}; lower it"
    above, below = pack.profiles.get(parent.profile), pack.profiles.get(table.profile)
    if above and below and above.path_length is not None and (below.path_length or 0) >= above.path_length:
        text = f"path length must be below its issuer's {above.path_length} (RFC 5280 4.2.1.9); lower it"
        yield f"profiles.{table.profile}.path_length", text


def _service_keys(pack: PackFile) -> Iterator[Finding]:
    devices = [name for name, rule in pack.rules.items() if rule.categories]
    for key, profiles in (("ocsp_responder", ["ocsp"]), ("listener", ["tls-server"]), ("device", devices)):
        if key == "device" and key not in pack.service_keys.model_fields_set:
            continue  # not chosen: a pack may allow its devices other kinds alone
        wanted = getattr(pack.service_keys, key)
        for name in profiles:
            if name in pack.profiles and wanted not in pack.profiles[name].keys:
                text = f"{wanted} is not among profiles.{name}.keys; add it there or choose another"
                yield f"service_keys.{key}", text


def _renewal(pack: PackFile) -> Iterator[Finding]:
    renewal = pack.renewal
    if renewal.critical >= renewal.window:
        limit = spell_duration(renewal.window)
        yield "renewal.critical", f"it must lie inside the window of {limit}; lower it or widen the window"
    if any(later >= earlier for earlier, later in zip(renewal.alerts, renewal.alerts[1:], strict=False)):
        yield "renewal.alerts", "alerts must come closer and closer to expiry; sort them from longest to shortest"


def _crl(pack: PackFile) -> Iterator[Finding]:
    crl = pack.crl
    if not crl.shortest_next_update <= crl.next_update <= crl.longest_next_update:
        yield "crl.next_update", "it lies outside shortest_next_update and longest_next_update; move it between them"
    if crl.resign_every * 2 > crl.shortest_next_update:
        text = "one missed signature would lock out every good device; re-sign at least twice per shortest_next_update"
        yield "crl.resign_every", text
    if crl.offline_alert >= crl.offline_next_update:
        yield "crl.offline_alert", "the alert would come at once; set it below offline_next_update"


def _ocsp(pack: PackFile) -> Iterator[Finding]:
    ocsp = pack.ocsp
    if ocsp.renew_after >= ocsp.presigned_lifetime:
        yield "ocsp.renew_after", "responses would expire before they are renewed; set it below presigned_lifetime"
    responder = pack.profiles.get("ocsp")
    lifetime = responder.default_lifetime if responder else None
    if lifetime is not None and ocsp.responder_renew_before >= lifetime:
        yield "ocsp.responder_renew_before", f"it must be below the responder's {spell_duration(lifetime)}; lower it"


def _find_duration(pack: PackFile, key: str) -> timedelta:
    section, _, name = key.partition(".")
    found: timedelta = getattr(getattr(pack, section), name)
    return found


def _over(key: str, given: timedelta | None, bound: timedelta | None, of: str) -> Iterator[Finding]:
    """The finding that `given` exceeds `bound`, if it does; None is no duration or no bound."""
    if given is not None and bound is not None and given > bound:
        yield key, f"{spell_duration(given)} exceeds the {spell_duration(bound)} {of}; lower it"
