"""A pack may be a shipped one with other values: what it inherits, what it must say itself, and what its hash is of."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import refuses
from vagus.errors import Misconfigured
from vagus.policy import packs
from vagus.policy.packs import SHIPPED, choose_pack, decode_pack, find_shipped, list_shipped, load_pack
from vagus.policy.values import PolicyPack
from vagus.reasons import Reason
from vagus.x509.algorithms import POST_QUANTUM, KeyAlgorithm

OWN = """format = 1
base = "iob-2026"
name = "ours"
version = "1"
[oids]
arc = "1.3.6.1.4.1.99999"
production = true
"""


def file_of(name: str) -> Path:
    file = find_shipped(name)
    assert file is not None
    return file


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is no table, by its keys."""
    if not isinstance(value, dict):
        return {path: value}
    return {place: one for key, beneath in value.items() for place, one in leaves(beneath, (*path, key)).items()}


def test_the_shipped_packs_are_known_by_their_names() -> None:
    assert list_shipped() == ("iob-2026", "iob-2026-pq")
    for name in list_shipped():
        assert load_pack(find_shipped(name)).name == name


def test_the_post_quantum_pack_differs_in_these_values_and_no_others() -> None:
    said: dict[tuple[str, ...], Any] = leaves(tomllib.loads(file_of("iob-2026-pq").read_text()))
    kinds: dict[tuple[str, ...], Any] = {
        ("authorities", kind, "key"): "mldsa65" for kind in type(load_pack().authorities).model_fields
    }
    assert said == {
        ("format",): 1,
        ("base",): "iob-2026",
        ("name",): "iob-2026-pq",
        ("version",): "2026.1",
        **kinds,
        ("authorities", "root", "key"): "mldsa87",
        ("authorities", "maker_root", "key"): "mldsa87",
        ("service_keys", "ocsp_responder"): "mldsa44",
        ("service_keys", "listener"): "mldsa65",
        ("service_keys", "device"): "mldsa65",
    }
    ours, plain = load_pack(file_of("iob-2026-pq")), load_pack()
    assert (ours.profiles, ours.rules, ours.functions) == (plain.profiles, plain.rules, plain.functions)
    assert (ours.crl, ours.ocsp, ours.enrolment, ours.renewal) == (
        plain.crl,
        plain.ocsp,
        plain.enrolment,
        plain.renewal,
    )
    kinds_of_keys = {getattr(ours.authorities, kind).key_algorithm for kind in type(ours.authorities).model_fields}
    assert kinds_of_keys | set(dict(ours.service_keys).values()) == POST_QUANTUM


def test_a_pack_of_seven_lines_has_its_own_arc_and_everything_else_of_its_base() -> None:
    own, plain = decode_pack(OWN.encode(), "ours.toml"), load_pack()
    assert (own.name, own.version, own.arc, own.is_production_arc) == ("ours", "1", "1.3.6.1.4.1.99999", True)
    assert own.profile("bedside").certificate_policies == ("1.3.6.1.4.1.99999.2.13",)
    assert (own.rules, own.authorities, own.service_keys) == (plain.rules, plain.authorities, plain.service_keys)


def test_a_pack_may_stand_on_the_post_quantum_one() -> None:
    text = OWN.replace('"iob-2026"', '"iob-2026-pq"') + '[profiles.life-support]\nkeys = ["mldsa65"]\n'
    own = decode_pack(text.encode(), "ours.toml")
    assert own.authorities.root.key_algorithm is KeyAlgorithm.MLDSA87
    assert own.profile("life-support").key_algorithms == {KeyAlgorithm.MLDSA65}, "a list takes the place of the other"


def sha256_of(text: str) -> str:
    return decode_pack(text.encode(), "ours.toml").sha256


def test_the_hash_is_of_all_values_and_not_of_how_the_file_is_written() -> None:
    hashes = {load_pack().sha256, load_pack(file_of("iob-2026-pq")).sha256, sha256_of(OWN)}
    assert len(hashes) == 3
    assert sha256_of("# a remark\n" + OWN.replace(" = ", "=")) == sha256_of(OWN)
    assert sha256_of(OWN + '[crl]\nnext_update = "6d"\n') != sha256_of(OWN)


def test_a_change_of_the_base_is_a_change_of_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sha256_of(OWN)
    (tmp_path / SHIPPED.name).write_text(SHIPPED.read_text().replace('token_lifetime = "7d"', 'token_lifetime = "6d"'))
    monkeypatch.setattr(packs, "SHIPPED", tmp_path / SHIPPED.name)
    assert sha256_of(OWN) != before


_KEYS = st.sampled_from(["p256", "p384", "rsa3072", "mldsa44", "mldsa65", "mldsa87"])
_KINDS = st.sampled_from(sorted(type(load_pack().authorities).model_fields))


@given(st.dictionaries(_KINDS, _KEYS))
@settings(max_examples=20)
def test_a_pack_with_a_base_has_the_values_of_the_whole_file_that_it_stands_for(keys: dict[str, str]) -> None:
    over = decode_pack((OWN + "[authorities]\n" + _lines(keys)).encode(), "over.toml")
    whole = SHIPPED.read_text()
    for kind, key in keys.items():
        head, mark, tail = whole.partition(f"\n{kind} = {{")
        line, end, rest = tail.partition("\n")
        whole = (
            head
            + mark
            + line.replace(line[line.index("key = ") : line.index(", offline")], f'key = "{key}"')
            + end
            + rest
        )
    assert over.authorities == decode_pack(whole.encode(), "whole.toml").authorities


def _lines(keys: dict[str, str]) -> str:
    return "".join(f'{kind}.key = "{key}"\n' for kind, key in keys.items())


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ('base = "iob-2026"', 'base = "iob-2025"', "base", "write iob-2026 or iob-2026-pq"),
        ('base = "iob-2026"', 'base = "../../etc/passwd"', "base", "is not a shipped pack"),
        ('base = "iob-2026"', "base = 7", "base", "'7' is not a shipped pack"),
        ('base = "iob-2026"', 'base = "' + "x" * 5000 + '"', "base", "is not a shipped pack"),
        ('name = "ours"\n', "", "name", "this key is missing"),
        ('version = "1"\n', "", "version", "this key is missing"),
        ("format = 1\n", "", "format", "this key is missing"),
        ("[oids]", "[crl]\nnext_updates = 1\n[oids]", "crl.next_updates", "this key is unknown here"),
        ("[oids]", "authorities = 5\n[oids]", "authorities", "valid dictionary"),
        ("[oids]", '[profiles.isuing-ca]\nkeys = ["p256"]\n[oids]', "profiles.isuing-ca.kind", "this key is missing"),
        (
            "[oids]",
            '[authorities]\nroot.key = "ed25519"\n[oids]',
            "authorities.root.key",
            "not among profiles.root.keys",
        ),
        ("[oids]", "[authorities]\nroot.key = 1979-05-27\n[oids]", "authorities.root.key", ""),
        ("[oids]", '[service_keys]\nlistener = "ed25519"\n[oids]', "service_keys.listener", "profiles.tls-server.keys"),
        (
            "[oids]",
            '[service_keys]\nocsp_responder = "rsa2048"\n[oids]',
            "service_keys.ocsp_responder",
            "profiles.ocsp",
        ),
        ("[oids]", '[service_keys]\ndevice = "rsa3072"\n[oids]', "service_keys.device", "profiles.implant.keys"),
    ],
)
def test_a_wrong_pack_is_refused_with_file_key_and_remedy(old: str, new: str, key: str, says: str) -> None:
    assert old in OWN
    with refuses(Reason.BAD_PACK, Misconfigured) as caught:
        decode_pack(OWN.replace(old, new, 1).encode(), "ours.toml")
    assert caught.value.facts["key"] == key
    assert caught.value.message.startswith(f"ours.toml: {key}: ")
    assert says in caught.value.message
    assert len(caught.value.message) < 1000


def test_a_pack_is_chosen_by_the_name_of_a_shipped_one_or_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(OWN)
    chosen: list[PolicyPack] = [load_pack(choose_pack(name, tmp_path)) for name in ("iob-2026-pq", "ours.toml")]
    assert [pack.name for pack in chosen] == ["iob-2026-pq", "ours"]
    with refuses(Reason.BAD_PACK, Misconfigured, match="iob-2026 or iob-2026-pq, or a file "):
        choose_pack("iob-2027", tmp_path)
