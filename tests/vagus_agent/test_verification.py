from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.certificates import SERVER_AUTH, Issued, make_authority
from tests.simulator.est_server import DEVICE_NAME, HOST, Hierarchy
from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.testing import NOON
from vagus_agent.keys import certified_key_der
from vagus_agent.verification import verify_issued, verify_server


def leaf_of(authority: Issued, **changes: object) -> bytes:
    facts: dict[str, object] = {"dns_names": (HOST,), "roles": (SERVER_AUTH,), **changes}
    key = ec.generate_private_key(ec.SECP256R1())
    return authority.certify(key, **facts).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def refused(chain: tuple[bytes, ...], anchor: Issued, host: str = HOST) -> Reason:
    return reason_of(verify_server, chain, anchors=[anchor.certificate], host=host, at=NOON)


def test_directly_below_the_anchor(hierarchy: Hierarchy) -> None:
    chain = (leaf_of(hierarchy.infrastructure),)
    assert verify_server(chain, anchors=[hierarchy.infrastructure.certificate], host=HOST, at=NOON)


def test_through_an_authority_that_the_server_sent(hierarchy: Hierarchy) -> None:
    between = make_authority("between", hierarchy.infrastructure)
    chain = (leaf_of(between), between.der)
    assert verify_server(chain, anchors=[hierarchy.infrastructure.certificate], host=HOST, at=NOON)


def test_the_group_root_is_no_anchor_for_a_device(hierarchy: Hierarchy) -> None:
    other = Hierarchy("h2")
    other.infrastructure = make_authority("h2/infra", hierarchy.root)
    chain = (leaf_of(other.infrastructure), other.infrastructure.der, hierarchy.root.der)
    assert refused(chain, hierarchy.infrastructure) is Reason.UNTRUSTED_ANCHOR


def test_a_leaf_cannot_sign(hierarchy: Hierarchy) -> None:
    mallory = make_authority("mallory", hierarchy.infrastructure, is_ca=False)
    assert refused((leaf_of(mallory), mallory.der), hierarchy.infrastructure) is Reason.NOT_A_CA


def test_path_lengths_count(hierarchy: Hierarchy) -> None:
    short = make_authority("short", hierarchy.infrastructure, path_length=0)
    below = make_authority("below", short)
    assert refused((leaf_of(below), below.der, short.der), hierarchy.infrastructure) is Reason.PATHLEN


@pytest.mark.parametrize(
    "names", [(), ("*.h1.group.example",), ("h1.group.example",), (HOST + ".",), ("x" + HOST,), ("gate." + HOST,)]
)
def test_only_the_exact_name_counts(hierarchy: Hierarchy, names: tuple[str, ...]) -> None:
    chain = (leaf_of(hierarchy.infrastructure, dns_names=names, common_name=HOST),)
    assert refused(chain, hierarchy.infrastructure) is Reason.NAME_MISMATCH


def test_an_address_is_matched_as_an_address(hierarchy: Hierarchy) -> None:
    chain = (leaf_of(hierarchy.infrastructure, dns_names=("10.0.0.7",), addresses=("10.0.0.8",)),)
    anchors = [hierarchy.infrastructure.certificate]
    assert verify_server(chain, anchors=anchors, host="10.0.0.8", at=NOON)
    assert refused(chain, hierarchy.infrastructure, "10.0.0.7") is Reason.NAME_MISMATCH


def test_dates_are_left_out_only_where_asked(hierarchy: Hierarchy) -> None:
    chain = (leaf_of(hierarchy.infrastructure, not_before=NOON - timedelta(days=900)),)
    assert refused(chain, hierarchy.infrastructure) is Reason.EXPIRED
    assert verify_server(chain, anchors=[hierarchy.infrastructure.certificate], host=HOST, at=None)


def test_nothing_shown_and_too_much_shown(hierarchy: Hierarchy) -> None:
    assert refused((), hierarchy.infrastructure) is Reason.UNTRUSTED_ANCHOR
    many = (leaf_of(hierarchy.infrastructure), *[hierarchy.root.der] * 10)
    assert refused(many, hierarchy.infrastructure) is Reason.BUDGET_EXHAUSTED


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_junk_for_a_certificate_is_malformed(junk: bytes) -> None:
    assert reason_of(verify_server, (junk,), anchors=[], host=HOST, at=NOON, error=Malformed) is Reason.NON_DER


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x17"),  # version 24
        (b"\x0c\x08impostor", b"\x0c\x08\xff\xfepostor"),  # no UTF-8
        (b"\x0c\x08impostor", b"\x03\x08\x00mpostor"),  # a common name that is a BIT STRING
    ],
)
def test_no_certificate_of_an_impostor_ends_the_agent(hierarchy: Hierarchy, before: bytes, after: bytes) -> None:
    """OpenSSL shakes hands with the first of them; what is no error of ours ends `vagus-agent run`."""
    shown = leaf_of(make_authority("stranger"), common_name="impostor")
    assert before in shown
    assert refused((shown.replace(before, after),), hierarchy.infrastructure) is Reason.NON_DER
    beside = (leaf_of(hierarchy.infrastructure), shown.replace(before, after))
    assert refused(beside, hierarchy.infrastructure) is Reason.NON_DER


def test_our_own_chain_comes_without_the_root_and_from_named_authorities_only(hierarchy: Hierarchy) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = hierarchy.unit.certify(key, dns_names=(DEVICE_NAME,))
    everybody = [hierarchy.root.certificate, hierarchy.device_ca.certificate, hierarchy.unit.certificate]
    facts = {"our_key_der": certified_key_der(leaf), "current": None, "at": NOON}
    chain = verify_issued([leaf], authorities=everybody, **facts)  # type: ignore[arg-type]
    assert chain == (leaf, hierarchy.unit.certificate, hierarchy.device_ca.certificate)
    with refuses(Reason.NO_PATH, NotTrusted):
        verify_issued([leaf], authorities=[hierarchy.infrastructure.certificate], **facts)  # type: ignore[arg-type]
