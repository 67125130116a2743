"""Birth certificates and their makers' lists: what is here binds, and silence about an issuer passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from tests.x509.chains import AT, DAY, Listed, Made, crl, root, scope
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.server.makers import MakersStatus
from vagus.trust.anchors import AnchorSet
from vagus.trust.crl_status import STRICT_CRL_RULES, CrlStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509.paths import Pool

ROOT = root("O=Maker,CN=Root")
LINE = ROOT.ca("O=Maker,CN=Line")
BIRTH = LINE.leaf()
ANCHORS = AnchorSet([ROOT.anchor])


def admit(*lists: bytes, known: Sequence[Made] = (LINE,)) -> None:
    status = CrlStatus(Pool(ANCHORS, [one.parsed for one in known]), rules=STRICT_CRL_RULES)
    for der in lists:
        status.load(der, AT)
    validator = Validator(ANCHORS, MakersStatus(status))
    validator.validate(BIRTH.der, [LINE.der], Expectation(role=Role.IDEVID, needs_identity=False), AT)


def refused(*lists: bytes, known: Sequence[Made] = (LINE,)) -> Reason:
    with pytest.raises(NotTrusted) as caught:
        admit(*lists, known=known)
    return caught.value.reason


def test_a_maker_that_gave_no_list_is_no_reason_to_refuse() -> None:
    admit()
    Validator(ANCHORS, MakersStatus(None)).validate(
        BIRTH.der, [LINE.der], Expectation(role=Role.IDEVID, needs_identity=False), AT
    )


def test_a_revoked_line_is_refused_also_where_the_line_itself_gave_no_list() -> None:
    of_root = crl(ROOT, [Listed(LINE.parsed.serial, 2)])
    assert refused(of_root, known=()) is Reason.REVOKED_CA
    assert refused(of_root, crl(LINE)) is Reason.REVOKED_CA
    admit(crl(ROOT))


def test_a_revoked_device_is_refused_also_where_the_root_gave_no_list() -> None:
    assert refused(crl(LINE, [Listed(BIRTH.parsed.serial, 1)])) is Reason.REVOKED
    admit(crl(LINE))


def test_a_list_that_is_here_and_does_not_suffice_is_no_silence() -> None:
    some_reasons = scope(reasons=(1,))
    assert refused(crl(LINE, (), some_reasons)) is Reason.STATUS_UNAVAILABLE
    stale = crl(ROOT, this_update=AT - 9 * DAY, next_update=AT - timedelta(minutes=1))
    assert refused(stale) is Reason.STATUS_STALE
