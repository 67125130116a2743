"""Name constraints form by form: what lies inside, what outside, and what is no name at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from tests.x509.chains import Made, constraints, hardware_module, name, root, san
from tests.x509.rule_sets import RFC5280_STRICT
from tests.x509.walking import refusal, walk
from vagus.errors import LimitExceeded, Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509.budgets import Budget, Limits
from vagus.x509.extensions import decode_name_constraints
from vagus.x509.paths.name_constraints import check_names, compile_constraints, is_host_name, is_mailbox

Name = tuple[str, str | bytes]
ROOT = root()


def chain(
    leaf_names: list[Name], permitted: list[Name], excluded: list[Name], subject: str = "CN=x"
) -> tuple[Made, Made]:
    ca = ROOT.ca("CN=CA", constraints(permitted, excluded))
    return ca.leaf(*([san(*leaf_names)] if leaf_names else []), subject=subject), ca


def passes(leaf_names: list[Name], permitted: list[Name], excluded: list[Name], subject: str = "CN=x") -> bool:
    leaf, ca = chain(leaf_names, permitted, excluded, subject)
    try:
        walk(leaf, [ca], [ROOT])
    except NotTrusted as refused:
        assert refused.reason is Reason.NAME_CONSTRAINT
        return False
    return True


NET = bytes([10, 3, 0, 0, 255, 255, 0, 0])
NET6 = bytes.fromhex("20010db8" + "00" * 12 + "ffffffff" + "00" * 12)


@pytest.mark.parametrize(
    ("given", "subtree", "is_inside"),
    [
        (("dns", "a.icu.example"), ("dns", "icu.example"), True),
        (("dns", "icu.example"), ("dns", "icu.example"), True),
        (("dns", "A.ICU.Example"), ("dns", "icu.EXAMPLE"), True),
        (("dns", "*.icu.example"), ("dns", "icu.example"), True),
        (("dns", "a.icu.example"), ("dns", ""), True),
        (("dns", "aicu.example"), ("dns", "icu.example"), False),
        (("dns", "icu.example.evil"), ("dns", "icu.example"), False),
        (("dns", "*.h1.example"), ("dns", "icu.example"), False),
        (("dns", "a.icu.example."), ("dns", "icu.example"), False),
        (("dns", "a..icu.example"), ("dns", "icu.example"), False),
        (("dns", "a.icu.example"), ("dns", ".icu.example"), True),
        (("dns", "icu.example"), ("dns", ".icu.example"), False),
        (("ip", b"\x0a\x03\x07\x15"), ("ip", NET), True),
        (("ip", b"\x0a\x04\x07\x15"), ("ip", NET), False),
        (("ip", bytes.fromhex("20010db8" + "00" * 12)), ("ip", NET6), True),
        (("ip", bytes.fromhex("20010db9" + "00" * 12)), ("ip", NET6), False),
        (("ip", bytes(16)), ("ip", NET), False),
        (("ip", b"\x0a\x03\x07"), ("ip", NET), False),
        (("email", "a@icu.example"), ("email", "a@icu.example"), True),
        (("email", "a@ICU.example"), ("email", "a@icu.EXAMPLE"), True),
        (("email", "A@icu.example"), ("email", "a@icu.example"), False),
        (("email", "b@icu.example"), ("email", "icu.example"), True),
        (("email", "b@x.icu.example"), ("email", "icu.example"), False),
        (("email", "b@x.icu.example"), ("email", ".icu.example"), True),
        (("email", "b@icu.example"), ("email", ".icu.example"), False),
        (("email", "icu.example"), ("email", "icu.example"), False),
        (("email", "a@b@icu.example"), ("email", "icu.example"), False),
        (("uri", "https://icu.example/x"), ("uri", "icu.example"), True),
        (("uri", "https://u@icu.example:443/x"), ("uri", "icu.example"), True),
        (("uri", "https://a.icu.example/"), ("uri", ".icu.example"), True),
        (("uri", "https://icu.example/"), ("uri", ".icu.example"), False),
        (("uri", "https://icu.example@evil.example/"), ("uri", "icu.example"), False),
        (("uri", "urn:uuid:6a0c"), ("uri", "icu.example"), False),
        (("uri", "https://10.3.7.21/"), ("uri", "icu.example"), False),
        (("uri", "https://[::1/"), ("uri", "icu.example"), False),
        (("directory", "O=Harbour,CN=a"), ("directory", "O=HARBOUR"), True),
        (("directory", "O=Other,CN=a"), ("directory", "O=Harbour"), False),
    ],
)
def test_a_name_inside_a_permitted_subtree_passes_and_inside_an_excluded_one_does_not(
    given: Name, subtree: Name, is_inside: bool
) -> None:
    subject = "" if subtree[0] == "directory" else "CN=x"
    assert passes([given], [subtree], [], subject) is is_inside
    is_name = given[1] not in {
        "a.icu.example.",
        "a..icu.example",
        b"\x0a\x03\x07",
        "icu.example",
        "a@b@icu.example",
        "urn:uuid:6a0c",
        "https://10.3.7.21/",
        "https://[::1/",
    } or given == ("dns", "icu.example")
    # what is no name of its form is refused under an excluded subtree as well
    assert passes([given], [], [subtree], subject) is (not is_inside and is_name)


def test_a_wildcard_that_could_cover_an_excluded_host_is_refused() -> None:
    assert not passes([("dns", "*.example.com")], [("dns", "example.com")], [("dns", "secret.example.com")])
    assert passes([("dns", "*.example.com")], [("dns", "example.com")], [("dns", "a.secret.example.com")])


def test_forms_that_no_ca_constrains_pass() -> None:
    assert passes([("uri", "urn:uuid:6a0c"), ("other", hardware_module())], [("dns", "icu.example")], [])


def test_the_subject_counts_as_a_directory_name_unless_it_is_empty() -> None:
    assert passes([("dns", "a")], [("directory", "O=Harbour")], [], "O=Harbour,CN=x")
    assert not passes([("dns", "a")], [("directory", "O=Harbour")], [], "O=Other,CN=x")
    assert passes([("dns", "a")], [("directory", "O=Harbour")], [], "")
    assert not passes([("dns", "a")], [], [("directory", name(""))], "O=Harbour,CN=x")


def test_the_mail_addresses_of_the_subject_count() -> None:
    assert not passes([], [("email", "icu.example")], [], "CN=x,E=a@er.example")
    assert passes([], [("email", "icu.example")], [], "CN=x,E=a@icu.example")


@pytest.mark.parametrize("form", ["other", "x400", "edi", "id"])
def test_a_constrained_form_without_matching_rules_must_not_appear(form: str) -> None:
    values: dict[str, str | bytes] = {"other": hardware_module(), "x400": b"", "edi": b"", "id": "1.2.3"}
    value = values[form]
    assert not passes([(form, value)], [(form, value)], [])
    assert not passes([(form, value)], [], [(form, value)])
    assert passes([("dns", "a")], [], [(form, value)])


def test_constraints_of_several_cas_intersect() -> None:
    first = ROOT.ca("CN=First", constraints([("dns", "h1.example")]))
    second = first.ca("CN=Second", constraints([("dns", "icu.h1.example"), ("dns", "other.example")]))
    walk(second.leaf(san(("dns", "a.icu.h1.example"))), [first, second], [ROOT])
    for outside in ("a.er.h1.example", "a.other.example"):
        assert refusal(second.leaf(san(("dns", outside))), [first, second], [ROOT]) is Reason.NAME_CONSTRAINT


def test_a_self_issued_ca_is_exempt_and_a_self_issued_leaf_is_not() -> None:
    ca = ROOT.ca("O=Harbour,CN=CA", constraints([("directory", "O=Other")]))
    rolled = ca.ca("O=Harbour,CN=CA")
    leaf = rolled.leaf(subject="O=Other,CN=x")
    walk(leaf, [ca, rolled], [ROOT])
    own = ca.leaf(subject="O=Harbour,CN=CA")
    assert refusal(own, [ca], [ROOT]) is Reason.NAME_CONSTRAINT


@pytest.mark.parametrize(
    "subtree",
    [
        ("dns", "*.example"),
        ("dns", "exa mple"),
        ("ip", b"\x0a\0\0\0"),
        ("ip", b"\x0a\0\0\0\xff\0\xff\0"),
        ("email", "a b@example"),
        ("email", ""),
        ("uri", "https://icu.example/"),
        ("uri", ""),
    ],
)
def test_a_subtree_that_is_none_is_refused(subtree: Name) -> None:
    leaf, ca = chain([("dns", "a.example")], [subtree], [])
    assert refusal(leaf, [ca], [ROOT]) is Reason.BAD_EXTENSION


def test_a_leading_dot_in_a_dns_subtree_is_for_the_lax_profile_only() -> None:
    written = decode_name_constraints(constraints([("dns", ".icu.example")]).value)
    compile_constraints(written, allows_leading_dot=True)
    assert RFC5280_STRICT.forbids_leading_dot
    assert reason_of(compile_constraints, written, allows_leading_dot=False, error=Malformed) is Reason.BAD_EXTENSION


def test_comparisons_are_counted_before_they_are_made() -> None:
    leaf = ROOT.leaf(san(*(("dns", f"h{number}.example") for number in range(500)))).parsed
    many = decode_name_constraints(constraints([("dns", f"d{number}.example") for number in range(600)]).value)
    with refuses(Reason.BUDGET_EXHAUSTED, LimitExceeded):
        check_names(leaf, [compile_constraints(many, allows_leading_dot=True)], Budget(Limits()))


_LABELS = st.lists(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(_LABELS, _LABELS)
def test_a_dns_name_is_inside_exactly_if_labels_were_put_in_front(labels: list[str], base: list[str]) -> None:
    inside = ".".join([*labels, *base])
    subtree = ".".join(base)
    assert passes([("dns", inside)], [("dns", subtree)], [])
    assert not passes([("dns", inside)], [], [("dns", subtree)])
    assert passes([("dns", subtree)], [("dns", inside)], []) is False


def test_host_names_and_mailboxes_are_distinguished_from_other_text() -> None:
    assert is_host_name("a-1.example")
    assert not any(map(is_host_name, ["", "-a", "a-", "a..b", "a.", ".a", "A b", "a" * 64, "é.example"]))
    assert is_mailbox("a.b+c@Example.org")
    assert not any(map(is_mailbox, ["", "@example", "a@", '"a b"@example', "a@b@c", "a..b@example"]))
