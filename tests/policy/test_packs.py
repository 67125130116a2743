"""The shipped pack has the values of the documents; a bad pack is refused with file, key, limit and remedy."""

from __future__ import annotations

import copy
import hashlib
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Misconfigured, PolicyRefusal
from vagus.policy.pack_checks import REQUIRED_PROFILES
from vagus.policy.packs import SHIPPED, decode_pack, load_pack
from vagus.policy.values import DeviceClass, Exposure, FailMode, Function, SessionOnRevocation, spell_duration
from vagus.reasons import Reason
from vagus.x509 import oids
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.profiles import KeyUsage, Kind, NameForm

DAY = timedelta(days=1)
PACK = load_pack()
TABLES: dict[str, Any] = tomllib.loads(SHIPPED.read_text())


def written(tables: dict[str, Any]) -> bytes:
    """Tables as TOML: dotted headers for tables, JSON spelling for values."""
    lines: list[str] = []

    def write(table: dict[str, Any], path: tuple[str, ...]) -> None:
        if path:
            lines.append(f"[{'.'.join(path)}]")
        lines.extend(f"{name} = {json.dumps(value)}" for name, value in table.items() if not isinstance(value, dict))
        for name, value in table.items():
            if isinstance(value, dict):
                write(value, (*path, name))

    write(tables, ())
    return "\n".join(lines).encode()


def changed(**changes: Any) -> bytes:
    """The shipped pack with values set at dotted places; `...` takes the key out."""
    tables = copy.deepcopy(TABLES)
    for place, value in changes.items():
        *path, last = place.split("__")
        table = tables
        for name in path:
            table = table.setdefault(name.replace("_", "-") if name.replace("_", "-") in table else name, {})
        if value is ...:
            del table[last]
        else:
            table[last] = value
    return written(tables)


def refusal_of(raw: bytes) -> Misconfigured:
    with pytest.raises(Misconfigured) as refusal:
        decode_pack(raw, "hospital.toml")
    assert refusal.value.reason is Reason.BAD_PACK
    assert refusal.value.message.startswith("hospital.toml: ")
    return refusal.value


# --- the shipped pack ------------------------------------------------------------------------------------------------


def test_every_required_profile_is_there() -> None:
    assert set(REQUIRED_PROFILES) <= set(PACK.profiles)
    assert PACK.name == "iob-2026"
    assert PACK.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


def test_writing_the_shipped_tables_again_gives_the_same_rules() -> None:
    again = decode_pack(written(TABLES), "again.toml")
    assert again.profiles == PACK.profiles
    assert again.rules == PACK.rules
    assert again.sha256 != PACK.sha256


@pytest.mark.parametrize(
    ("profile", "default", "longest"),
    [
        ("implant", 365 * DAY, 730 * DAY),
        ("life-support", 365 * DAY, 730 * DAY),
        ("bedside", 730 * DAY, 1095 * DAY),
        ("home-hub", 730 * DAY, 1095 * DAY),
        ("imaging", 730 * DAY, 1095 * DAY),
        ("gateway", 365 * DAY, 365 * DAY),
        ("station", 365 * DAY, 365 * DAY),
        ("technician", timedelta(hours=8), timedelta(hours=24)),
        ("emergency", timedelta(hours=72), timedelta(hours=72)),
        ("idevid", None, None),
        ("ocsp", 14 * DAY, 30 * DAY),
        ("audit-sign", 365 * DAY, 365 * DAY),
        ("root", 7300 * DAY, 7300 * DAY),
        ("device-ca", 4380 * DAY, 4380 * DAY),
        ("issuing-ca", 2190 * DAY, 2190 * DAY),
        ("maker-root", None, None),
        ("line-ca", None, None),
    ],
)
def test_lifetimes_are_those_of_the_policy(profile: str, default: timedelta | None, longest: timedelta | None) -> None:
    found = PACK.profiles[profile]
    assert (found.default_lifetime, found.longest_lifetime) == (default, longest)


def test_numbers_are_those_of_the_policy() -> None:
    assert PACK.renewal.window == 60 * DAY
    assert PACK.renewal.critical == 30 * DAY
    assert [alert.days for alert in PACK.renewal.alerts] == [90, 60, 30, 14, 7, 3, 1]
    assert PACK.crl.resign_every == timedelta(hours=6)
    assert PACK.crl.publish_within == timedelta(seconds=60)
    assert (PACK.crl.shortest_next_update, PACK.crl.next_update) == (DAY, 7 * DAY)
    assert PACK.crl.longest_next_update == 7 * DAY
    assert (PACK.crl.offline_next_update, PACK.crl.offline_alert) == (180 * DAY, 60 * DAY)
    assert PACK.crl.shortest_interval == timedelta(seconds=1)
    assert (PACK.ocsp.presigned_lifetime, PACK.ocsp.renew_after) == (timedelta(hours=12), timedelta(hours=6))
    assert (PACK.ocsp.http_max_age, PACK.ocsp.replace_within) == (timedelta(seconds=60), timedelta(seconds=1))
    assert PACK.enrolment.backdate == PACK.enrolment.token_replay == timedelta(hours=1)
    assert PACK.functions[Function.CONTROL].status_max_age == DAY
    assert PACK.functions[Function.TELEMETRY].status_max_age == 7 * DAY


def test_control_programming_and_firmware_fail_secure_and_close() -> None:
    for function in (Function.CONTROL, Function.PROGRAMMING, Function.FIRMWARE):
        rule = PACK.functions[function]
        assert (rule.fail_mode, rule.grace, rule.always_closes) == (FailMode.SECURE, timedelta(0), True)
    assert PACK.functions[Function.TELEMETRY].fail_mode is FailMode.OPERATIONAL


def test_sessions_of_life_sustaining_devices_are_degraded_only_where_nothing_is_controlled() -> None:
    assert PACK.session_on_revocation("life-support", Function.TELEMETRY) is SessionOnRevocation.DEGRADE
    assert PACK.session_on_revocation("life-support", Function.CONTROL) is SessionOnRevocation.CLOSE
    assert PACK.session_on_revocation("bedside", Function.TELEMETRY) is SessionOnRevocation.CLOSE


def test_class_three_needs_two_approvals() -> None:
    assert all(rule.review_approvals >= 2 for rule in PACK.rules.values() if rule.device_class is DeviceClass.III)


def test_devices_on_and_in_bodies_never_speak_tls_1_2() -> None:
    for rule in PACK.rules.values():
        assert rule.tls_minimum == "1.3" or rule.exposure is Exposure.HOSPITAL


def test_a_pack_may_allow_rsa_2048_for_one_profile_of_devices() -> None:
    profiles = decode_pack(changed(profiles__bedside__keys=["p256", "rsa2048"]), "own.toml").profiles
    allow = {name for name, one in profiles.items() if KeyAlgorithm.RSA2048 in one.key_algorithms}
    assert allow == {"bedside", "tls-server"}


def test_edwards_keys_are_certified_nowhere_and_rsa_2048_for_servers_alone() -> None:
    for name, profile in PACK.profiles.items():
        assert not profile.key_algorithms & {KeyAlgorithm.ED25519, KeyAlgorithm.ED448}
        assert (KeyAlgorithm.RSA2048 in profile.key_algorithms) is (name == "tls-server")


def test_purposes_are_resolved_to_oids() -> None:
    assert PACK.profiles["implant"].extended_key_usage == (oids.CLIENT_AUTH, oids.SAFETY_COMMUNICATION)
    assert PACK.profiles["sdc-provider"].extended_key_usage == (oids.CLIENT_AUTH, oids.SERVER_AUTH, oids.SDC_PROVIDER)
    assert PACK.profiles["firmware-sign"].extended_key_usage == (oids.CODE_SIGNING, oids.UPDATE_PACKAGE_SIGNING)
    assert PACK.profiles["config-sign"].extended_key_usage == (oids.CONFIG_SIGNING,)
    assert PACK.profiles["audit-sign"].extended_key_usage == ("1.3.6.1.4.1.32473.3.1",)
    assert PACK.profiles["idevid"].extended_key_usage == ()
    assert PACK.profiles["emergency"].certificate_policies == ("1.3.6.1.4.1.32473.2.3",)


def test_the_documentation_arc_is_marked_not_for_production() -> None:
    assert PACK.arc == "1.3.6.1.4.1.32473"
    assert not PACK.is_production_arc


def test_another_arc_moves_every_own_oid() -> None:
    pack = decode_pack(changed(oids__arc="1.3.6.1.4.1.99999", oids__production=True), "own.toml")
    assert pack.is_production_arc
    assert pack.profiles["audit-sign"].extended_key_usage == ("1.3.6.1.4.1.99999.3.1",)
    assert pack.profiles["audit-sign"].certificate_policies == ("1.3.6.1.4.1.99999.2.40",)


def test_authorities_have_their_keys_and_custody() -> None:
    rules = PACK.authorities
    assert (rules.root.key_algorithm, rules.root.is_offline) == (KeyAlgorithm.P384, True)
    assert (rules.issuing_ca.key_algorithm, rules.issuing_ca.is_offline) == (KeyAlgorithm.P256, False)
    assert rules.issuing_ca.rekey_after == 1095 * DAY
    assert rules.of_kind("root") is rules.root
    assert rules.of_kind("root", is_maker=True) is rules.maker_root
    assert rules.of_kind("line_ca", is_maker=True).lifetime is None
    for kind in ("", "bridge", "of_kind", "__class__"):
        assert reason_of(rules.of_kind, kind, error=PolicyRefusal) is Reason.AUTHORITY_UNKNOWN


@pytest.mark.parametrize("ask", [lambda: PACK.rule("root"), lambda: PACK.profile("toaster")])
def test_what_the_pack_does_not_know_is_refused(ask: Callable[[], object]) -> None:
    assert reason_of(ask, error=PolicyRefusal) is Reason.POLICY_VIOLATION


def test_a_lifetime_is_the_default_or_what_was_asked_within_the_bound() -> None:
    profile = PACK.profiles["bedside"]
    assert PACK.check_lifetime(profile, None) == 730 * DAY
    assert PACK.check_lifetime(profile, 90 * DAY) == 90 * DAY
    with refuses(Reason.LIFETIME_TOO_LONG, match="1096d exceeds the 1095d that profile bedside allows"):
        PACK.check_lifetime(profile, 1096 * DAY)
    assert PACK.check_lifetime(PACK.profiles["idevid"], None) is None


def test_short_lifetimes_have_short_windows() -> None:
    assert PACK.renewal.window_of(730 * DAY) == 60 * DAY
    assert PACK.renewal.window_of(timedelta(hours=8)) < timedelta(hours=3)


@pytest.mark.parametrize(
    ("span", "text"),
    [(365 * DAY, "365d"), (timedelta(hours=8), "8h"), (timedelta(seconds=90), "90s"), (timedelta(0), "0s")],
)
def test_durations_are_spelt_as_packs_write_them(span: timedelta, text: str) -> None:
    assert spell_duration(span) == text


# --- bad packs -------------------------------------------------------------------------------------------------------

CA, ENTITY = "profiles__issuing-ca__", "profiles__bedside__"
SIGNS = "digitalSignature"


@dataclass(frozen=True)
class Bad:
    """Changes to the shipped pack, words of the message, and the key that must be named: the first that changed."""

    changes: dict[str, Any]
    words: str
    other_key: str | None = None

    @property
    def key(self) -> str:
        return self.other_key or next(iter(self.changes)).replace("__", ".")


BAD: dict[str, Bad] = {
    # shape
    "unknown key": Bad({"colour": "red"}, "unknown"),
    "unknown key inside": Bad({f"{ENTITY}colour": "red"}, "unknown"),
    "missing table": Bad({"renewal": ...}, "missing"),
    "missing key": Bad({f"{ENTITY}kind": ...}, "missing"),
    "another format": Bad({"format": 2}, "1"),
    "bad name": Bad({"name": "My Pack"}, "pattern"),
    "bad version": Bad({"version": "latest"}, "pattern"),
    "wrong type": Bad({f"{ENTITY}crl_pointer": "yes"}, "boolean"),
    "number as text": Bad({f"{CA}path_length": "0"}, "integer"),
    "negative path length": Bad({f"{CA}path_length": -1}, "greater"),
    "unknown kind": Bad({f"{ENTITY}kind": "robot"}, "end_entity"),
    "unknown key algorithm": Bad({f"{ENTITY}keys": ["p224"]}, "p256", "profiles.bedside.keys[0]"),
    "no key algorithm": Bad({f"{ENTITY}keys": []}, "at least 1"),
    "duration without unit": Bad({"renewal__window": "60"}, "not a duration"),
    "duration as number": Bad({"renewal__window": 60}, "not a duration"),
    "duration of zero": Bad({"renewal__window": "0d"}, "not a duration"),
    "overlong duration": Bad({"renewal__window": "99999999y"}, "not a duration"),
    "unknown function": Bad({"functions__therapy": TABLES["functions"]["control"]}, "telemetry"),
    "another TLS version": Bad({"rules__bedside__tls_minimum": "1.1"}, "1.2"),
    "arc that is no OID": Bad({"oids__arc": "vagus"}, "pattern"),
    # rules
    "documentation arc in production": Bad({"oids__production": True}, "RFC 5612"),
    "profile missing": Bad({"profiles__implant": ..., "rules__implant": ...}, "missing"),
    "algorithm twice": Bad({f"{ENTITY}keys": ["p256", "p256"]}, "twice"),
    "EdDSA certified": Bad({f"{ENTITY}keys": ["ed25519"]}, "verified but never certified"),
    "RSA-2048 authority": Bad({f"{CA}keys": ["p256", "rsa2048"]}, "too weak for an authority"),
    "RSA-2048 birth certificate": Bad({"profiles__idevid__keys": ["rsa2048"]}, "old servers and devices alone"),
    "authority that signs data": Bad({f"{CA}key_usage": ["keyCertSign", "cRLSign", SIGNS]}, "exactly"),
    "device that signs certificates": Bad({f"{ENTITY}key_usage": [SIGNS, "keyCertSign"]}, "for authorities"),
    "device that signs nothing": Bad({f"{ENTITY}key_usage": ["keyAgreement"]}, "digitalSignature"),
    "usage twice": Bad({f"{ENTITY}key_usage": [SIGNS] * 2}, "twice"),
    "encipherment with EC keys": Bad({f"{ENTITY}key_usage": [SIGNS, "keyEncipherment"]}, "RFC 8813"),
    "unknown purpose": Bad(
        {f"{ENTITY}extended_key_usage": ["telnetAuth"]}, "not known", "profiles.bedside.extended_key_usage[0]"
    ),
    "any purpose": Bad(
        {f"{ENTITY}extended_key_usage": [oids.ANY_EXTENDED_KEY_USAGE]},
        "every role",
        "profiles.bedside.extended_key_usage[0]",
    ),
    "purpose twice": Bad({f"{ENTITY}extended_key_usage": ["clientAuth"] * 2}, "twice"),
    "no purpose": Bad({f"{ENTITY}extended_key_usage": []}, "as client and as server"),
    "authority with a purpose": Bad({f"{CA}extended_key_usage": ["clientAuth"]}, "carry no"),
    "device that signs status": Bad({f"{ENTITY}extended_key_usage": ["OCSPSigning"]}, "forge status"),
    "server without a name": Bad({"profiles__audit-sign__extended_key_usage": ["serverAuth"]}, "host name"),
    "responder with another purpose": Bad(
        {"profiles__ocsp__extended_key_usage": ["OCSPSigning", "clientAuth"]}, "nothing else"
    ),
    "authority with names": Bad({f"{CA}name_form": "server"}, "no subjectAltName"),
    "device with a path length": Bad({f"{ENTITY}path_length": 0}, "only authorities"),
    "authority without a path length": Bad({f"{CA}path_length": ...}, "any depth"),
    "unbound authority": Bad({f"{CA}name_constrained": False}, "must be true"),
    "bound infrastructure": Bad({"profiles__infrastructure-ca__name_constrained": True}, "must be false"),
    "any policy for devices": Bad({f"{ENTITY}policies": ["2.5.29.32.0"]}, "anyPolicy", "profiles.bedside.policies[0]"),
    "policy that is no OID": Bad({f"{ENTITY}policies": ["arc.x"]}, "no OID", "profiles.bedside.policies[0]"),
    "policy twice": Bad({f"{ENTITY}policies": ["arc.1", "arc.1"]}, "twice"),
    "unlimited device": Bad(
        {f"{ENTITY}longest_lifetime": "unlimited"}, "unlimited", "profiles.bedside.default_lifetime"
    ),
    "default beyond the longest": Bad({f"{ENTITY}default_lifetime": "4y"}, "1460d exceeds"),
    "long gateway": Bad({"profiles__gateway__longest_lifetime": "2y"}, "730d exceeds the 365d"),
    "long technician": Bad({"profiles__technician__longest_lifetime": "25h"}, "25h exceeds"),
    "long emergency": Bad({"profiles__emergency__longest_lifetime": "4d"}, "4d exceeds the 3d"),
    "long responder": Bad({"profiles__ocsp__longest_lifetime": "31d"}, "31d exceeds the 30d"),
    "long root": Bad({"profiles__root__longest_lifetime": "25y"}, "exceeds"),
    "long device": Bad({f"{ENTITY}longest_lifetime": "4y"}, "1460d exceeds the 1095d"),
    "long implant": Bad({"profiles__implant__longest_lifetime": "3y"}, "1095d exceeds the 730d"),
    "short-lived for a month": Bad(
        {
            "profiles__tls-server__short_lived": True,
            "profiles__tls-server__crl_pointer": False,
            "profiles__tls-server__ocsp_pointer": False,
        },
        "exceeds the 7d",
        "profiles.tls-server.longest_lifetime",
    ),
    "short-lived with pointers": Bad({"profiles__technician__short_lived": True}, "RFC 9608"),
    "short-lived authority": Bad({f"{CA}short_lived": True}, "RFC 9608"),
    "authority with a responder": Bad({f"{CA}ocsp_pointer": True}, "CRL alone"),
    "authority without a CRL": Bad({f"{CA}crl_pointer": False}, "must be true"),
    "root with a CRL": Bad({"profiles__root__crl_pointer": True}, "no CRL covers a root"),
    "responder to be checked": Bad({"profiles__ocsp__ocsp_nocheck": False}, "RFC 6960"),
    "device not to be checked": Bad({f"{ENTITY}ocsp_nocheck": True}, "trusted unchecked"),
    "device without status": Bad(
        {f"{ENTITY}crl_pointer": False, f"{ENTITY}ocsp_pointer": False}, "learn of a revocation"
    ),
    "rule without profile": Bad({"rules__robot": TABLES["rules"]["bedside"] | {"categories": []}}, "no profile"),
    "rule for an authority": Bad({"rules__root": TABLES["rules"]["station"] | {"categories": []}}, "delete this rule"),
    "profile without rule": Bad({"rules__bedside": ...}, "no rule"),
    "class III with one approval": Bad({"rules__implant__review_approvals": 1}, "2 approvals"),
    "categories without class": Bad({"rules__bedside__device_class": ...}, "FDA class"),
    "TLS 1.2 at home": Bad({"rules__home-hub__tls_minimum": "1.2"}, "in clear"),
    "category in two rules": Bad({"rules__imaging__categories": ["ventilator"]}, "is already in"),
    "function missing": Bad({"functions__alarm": ...}, "missing"),
    "control that fails open": Bad({"functions__control__fail_mode": "operational"}, "secure"),
    "control that stays open": Bad({"functions__control__always_closes": False}, "must close"),
    "secure with grace": Bad({"functions__control__grace": "1h"}, "no grace"),
    "endless grace": Bad({"functions__telemetry__grace": "2d"}, "2d exceeds the 1d"),
    "old status for control": Bad({"functions__control__status_max_age": "2d"}, "exceeds the 1d"),
    "old status for telemetry": Bad({"functions__telemetry__status_max_age": "8d"}, "exceeds the 7d"),
    "authority of no profile": Bad({"authorities__root__profile": "bedside"}, "not an authority"),
    "authority with another key": Bad({"authorities__root__key": "p521"}, "not among"),
    "authority beyond its profile": Bad({"authorities__issuing_ca__lifetime": "7y"}, "exceeds"),
    "authority beyond its issuer": Bad(
        {"authorities__root__lifetime": "10y"}, "its issuer root", "authorities.device_ca.lifetime"
    ),
    "path as long as the issuer's": Bad(
        {"profiles__root__path_length": 1}, "below its issuer's 1", "profiles.device-ca.path_length"
    ),
    "late re-key": Bad({"authorities__issuing_ca__rekey_after": "4y"}, "longest leaf"),
    "root online": Bad({"authorities__root__offline": False}, "ceremonies"),
    "issuing authority offline": Bad({"authorities__issuing_ca__offline": True}, "day and night"),
    "critical beyond the window": Bad({"renewal__critical": "60d"}, "inside the window"),
    "alerts out of order": Bad({"renewal__alerts": ["30d", "60d"]}, "sort"),
    "no alert": Bad({"renewal__alerts": []}, "at least 1"),
    "windows of everything": Bad({"renewal__short_share": 90}, "less than"),
    "CRLs signed seldom": Bad({"crl__resign_every": "25h"}, "exceeds the 1d"),
    "CRLs signed at the last moment": Bad({"crl__resign_every": "13h"}, "lock out"),
    "late CRLs": Bad({"crl__publish_within": "2m"}, "exceeds the 1m"),
    "CRLs valid too long": Bad({"crl__longest_next_update": "8d"}, "exceeds the 7d"),
    "default outside its bounds": Bad({"crl__longest_next_update": "6d"}, "between", "crl.next_update"),
    "late alert for offline CRLs": Bad({"crl__offline_alert": "180d"}, "at once"),
    "responses renewed too late": Bad({"ocsp__renew_after": "12h"}, "expire"),
    "responses valid too long": Bad({"ocsp__presigned_lifetime": "2d"}, "exceeds the 1d"),
    "responses cached too long": Bad({"ocsp__http_max_age": "61s"}, "exceeds the 1m"),
    "responder replaced at once": Bad({"ocsp__responder_renew_before": "14d"}, "below"),
    "far backdating": Bad({"enrolment__backdate": "2h"}, "exceeds the 1h"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_pack_is_refused_with_key_and_remedy(name: str) -> None:
    bad = BAD[name]
    refusal = refusal_of(changed(**bad.changes))
    lines = [line for line in refusal.message.splitlines() if line.startswith(f"hospital.toml: {bad.key}")]
    assert lines, refusal.message
    assert any(bad.words in line for line in lines), refusal.message
    assert refusal.facts["file"] == "hospital.toml"
    assert isinstance(refusal.facts["key"], str)


def test_every_finding_is_counted_and_five_are_shown() -> None:
    crls = {"crl__resign_every": "2d", "crl__publish_within": "2m"}
    others = {"ocsp__http_max_age": "2m", "enrolment__backdate": "2h", "renewal__critical": "70d"}
    refusal = refusal_of(changed(**crls, **others, oids__production=True))
    assert refusal.facts["findings"] == 7
    assert "and 2 more" in refusal.message


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"format = ", b"[" * 5000, b"format = 1\nformat = 1"])
def test_what_is_no_toml_is_refused(raw: bytes) -> None:
    refusal_of(raw)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with refuses(Reason.BAD_PACK, Misconfigured, match=r"absent\.toml"):
        load_pack(tmp_path / "absent.toml")


def test_a_pack_of_ones_own_is_loaded_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_bytes(changed(name="own", version="3"))
    pack = load_pack(file)
    assert (pack.name, pack.version) == ("own", "3")
    assert pack.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_profile_of_ones_own_is_read() -> None:
    own = TABLES["profiles"]["bedside"] | {"key_usage": ["digitalSignature", "keyEncipherment"], "keys": ["rsa3072"]}
    rule = TABLES["rules"]["bedside"] | {"categories": ["incubator"]}
    pack = decode_pack(changed(profiles__incubator=own, rules__incubator=rule), "own.toml")
    found = pack.profiles["incubator"]
    assert (found.kind, found.name_form) == (Kind.END_ENTITY, NameForm.DEVICE)
    assert KeyUsage.KEY_ENCIPHERMENT in found.key_usage
    assert pack.rule("incubator").categories == ("incubator",)


PLACES = [(*path, name) for path, table in [((), TABLES)] for name in table] + [
    (top, name) for top, table in TABLES.items() if isinstance(table, dict) for name in table
]


@given(
    st.sampled_from(PLACES),
    st.one_of(st.none(), st.integers(), st.text(max_size=8), st.booleans(), st.lists(st.text(max_size=3), max_size=2)),
)
@settings(max_examples=100, deadline=None)
def test_any_value_at_any_place_is_taken_or_refused_as_ours(place: tuple[str, ...], value: object) -> None:
    tables = copy.deepcopy(TABLES)
    table = tables
    for name in place[:-1]:
        table = table[name]
    if value is None:
        del table[place[-1]]
    else:
        table[place[-1]] = value
    try:
        decode_pack(written(tables), "any.toml")
    except Misconfigured as refusal:
        assert refusal.reason is Reason.BAD_PACK


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_as_ours(raw: bytes) -> None:
    refusal_of(raw)
