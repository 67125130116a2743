"""Responses at hand give status; the newest counts, and what was revoked stays so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import permutations

import pytest

from tests.simulator.refusals import reason_of, refuses
from tests.x509 import chains
from tests.x509.chains import AT, UNKNOWN_STATUS, Made, ocsp_id, ocsp_response, revoked, root
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.trust.ocsp_status import OcspStatus
from vagus.x509 import der

ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA")
HOUR = timedelta(hours=1)


def load(source: OcspStatus, leaf: Made, response: bytes, at: datetime = AT) -> None:
    source.load(response, leaf.parsed, CA.parsed, at)


def refused(source: OcspStatus, leaf: Made, at: datetime = AT) -> Reason:
    return reason_of(source.check_status, leaf.parsed, CA.parsed, at, error=NotTrusted)


def in_any_order(leaf: Made, *responses: bytes) -> Iterator[OcspStatus]:
    """A source for each order in which these responses may be loaded."""
    for several in permutations(responses):
        source = OcspStatus()
        for response in several:
            load(source, leaf, response)
        yield source


def test_a_loaded_response_counts_until_it_ends() -> None:
    source, leaf = OcspStatus(), CA.leaf()
    assert refused(source, leaf) is Reason.STATUS_UNAVAILABLE
    load(source, leaf, ocsp_response(CA, ocsp_id(leaf, CA)))
    source.check_status(leaf.parsed, CA.parsed, AT)
    assert refused(source, leaf, AT + 13 * HOUR) is Reason.OCSP_STALE
    assert refused(source, CA.leaf()) is Reason.STATUS_UNAVAILABLE


def test_an_older_good_response_does_not_undo_a_revocation() -> None:
    source, leaf = OcspStatus(), CA.leaf()
    good = ocsp_response(CA, ocsp_id(leaf, CA))
    load(source, leaf, good)
    load(source, leaf, ocsp_response(CA, ocsp_id(leaf, CA), revoked(1)))
    load(source, leaf, good)
    assert refused(source, leaf) is Reason.REVOKED


def test_no_later_word_undoes_a_revocation() -> None:
    """A hold from before it, brought late, would grow old and leave nothing."""
    source, leaf = OcspStatus(), CA.leaf()
    load(source, leaf, ocsp_response(CA, ocsp_id(leaf, CA), revoked(1)))
    load(source, leaf, ocsp_response(CA, ocsp_id(leaf, CA), revoked(6), this_update=AT - 5 * HOUR), AT + HOUR)
    later = {"this_update": AT + HOUR, "produced_at": AT + HOUR}
    load(source, leaf, ocsp_response(CA, ocsp_id(leaf, CA), **later), AT + 2 * HOUR)  # type: ignore[arg-type]
    assert refused(source, leaf, AT + 2 * HOUR) is Reason.REVOKED
    assert refused(source, leaf, AT + 99 * HOUR) is Reason.REVOKED


def test_a_revocation_is_not_forgotten_when_its_responders_certificate_ends() -> None:
    source, leaf = OcspStatus(), CA.leaf()
    extensions = (chains.LEAF_USAGE, chains.purposes(chains.OCSP_SIGNING), chains.NOCHECK)
    responder = CA.issue("O=Harbour,CN=OCSP", extensions, not_after=AT + HOUR)
    load(source, leaf, ocsp_response(responder, ocsp_id(leaf, CA), revoked(1), certificates=[responder]))
    assert refused(source, leaf, AT + 300 * 24 * HOUR) is Reason.REVOKED


@pytest.mark.parametrize("bad", [revoked(6), UNKNOWN_STATUS], ids=["hold", "unknown"])
def test_a_good_response_after_a_hold_ends_it_in_any_order_of_loading(bad: bytes) -> None:
    leaf = CA.leaf()
    held = ocsp_response(CA, ocsp_id(leaf, CA), bad, this_update=AT - HOUR)
    released = ocsp_response(CA, ocsp_id(leaf, CA), this_update=AT - HOUR / 2, produced_at=AT - HOUR / 2)
    for source in in_any_order(leaf, held, released):
        source.check_status(leaf.parsed, CA.parsed, AT)


@pytest.mark.parametrize("good_at", [AT - 2 * HOUR, AT - HOUR], ids=["before it", "of its second"])
def test_a_good_response_that_is_no_later_than_a_hold_does_not_end_it(good_at: datetime) -> None:
    leaf = CA.leaf()
    held = ocsp_response(CA, ocsp_id(leaf, CA), revoked(6), this_update=AT - HOUR)
    good = ocsp_response(CA, ocsp_id(leaf, CA), this_update=good_at)
    for source in in_any_order(leaf, held, good):
        assert refused(source, leaf) is Reason.ON_HOLD


def test_an_older_response_is_passed_over() -> None:
    source, leaf = OcspStatus(), CA.leaf()
    load(source, leaf, ocsp_response(CA, ocsp_id(leaf, CA), next_update=AT + 20 * HOUR))
    load(source, leaf, ocsp_response(CA, ocsp_id(leaf, CA), this_update=AT - 5 * HOUR))
    source.check_status(leaf.parsed, CA.parsed, AT + 15 * HOUR)


def test_a_response_for_another_certificate_is_refused() -> None:
    source, leaf = OcspStatus(), CA.leaf()
    stranger = root("CN=Stranger")
    for response, reason in (
        (ocsp_response(stranger, ocsp_id(leaf, CA)), Reason.OCSP_RESPONDER),
        (ocsp_response(CA, ocsp_id(CA.leaf(), CA)), Reason.OCSP_MISMATCH),
        (ocsp_response(CA, ocsp_id(leaf, CA), flip=3), Reason.BAD_SIGNATURE),
    ):
        with refuses(reason, NotTrusted):
            load(source, leaf, response)
    assert refused(source, leaf) is Reason.STATUS_UNAVAILABLE


def test_the_oldest_makes_room() -> None:
    source, first, second, third = OcspStatus(size=2), CA.leaf(), CA.leaf(), CA.leaf()
    for age, leaf in ((3, first), (2, second), (1, third)):
        load(source, leaf, ocsp_response(CA, ocsp_id(leaf, CA), this_update=AT - age * HOUR))
    assert refused(source, first) is Reason.STATUS_UNAVAILABLE
    source.check_status(third.parsed, CA.parsed, AT)


def test_a_response_finds_the_certificates_that_it_speaks_of() -> None:
    """A response with several statuses, among certificates of which one has the issuer's name only."""
    one, other, stranger = CA.leaf(), CA.leaf(), CA.leaf()
    twin = root("O=Harbour,CN=CA")
    here = [made.parsed for made in (one, other, stranger, twin, CA, ROOT)]
    single = der.sequence(ocsp_id(other, CA), revoked(1), der.generalized_time(AT - HOUR))
    source = OcspStatus()
    source.load_any(ocsp_response(CA, ocsp_id(one, CA), more=[single]), here, AT)
    source.check_status(one.parsed, CA.parsed, AT)
    assert refused(source, other) is Reason.REVOKED
    assert refused(source, stranger) is Reason.STATUS_UNAVAILABLE
    with refuses(Reason.OCSP_MISMATCH, NotTrusted):
        source.load_any(ocsp_response(CA, ocsp_id(CA.leaf(), CA)), here, AT)
