from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.est_server import Hierarchy
from tests.simulator.refusals import reason_of
from vagus.reasons import Reason
from vagus.testing import NOON
from vagus_agent.crl_memory import decode_list


def refused(crl: bytes, hierarchy: Hierarchy) -> Reason:
    return reason_of(decode_list, crl, [hierarchy.infrastructure.certificate])


def test_only_a_list_that_the_anchor_itself_signed_counts(hierarchy: Hierarchy) -> None:
    own = hierarchy.infrastructure.crl(NOON)
    assert decode_list(own, [hierarchy.infrastructure.certificate]).last_update_utc == NOON
    assert refused(hierarchy.root.crl(NOON), hierarchy) is Reason.UNTRUSTED_ANCHOR
    assert refused(Hierarchy().infrastructure.crl(NOON), hierarchy) is Reason.BAD_SIGNATURE


def test_a_delta_is_no_list(hierarchy: Hierarchy) -> None:
    assert refused(hierarchy.infrastructure.crl(NOON, is_delta=True), hierarchy) is Reason.UNKNOWN_CRITICAL


def test_a_list_of_an_impossible_version_is_malformed(hierarchy: Hierarchy) -> None:
    own = hierarchy.infrastructure.crl(NOON)
    assert own.count(b"\x02\x01\x01\x30") == 1
    assert refused(own.replace(b"\x02\x01\x01\x30", b"\x02\x01\x17\x30"), hierarchy) is Reason.NON_DER


@given(st.binary(max_size=120))
@settings(max_examples=60, deadline=None)
def test_junk_is_malformed(junk: bytes) -> None:
    assert reason_of(decode_list, junk, []) is Reason.NON_DER
