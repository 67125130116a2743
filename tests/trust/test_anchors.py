"""Anchors come from DER and PEM, and a clock that was set back is noticed."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import pytest

from tests.simulator.refusals import refuses
from tests.x509.chains import AT, root
from vagus.errors import Malformed, Misconfigured, NotTrusted
from vagus.reasons import Reason
from vagus.trust.anchors import AnchorSet, ClockFloor


def pem(*ders: bytes) -> bytes:
    return b"".join(
        b"subject=whoever\n-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(one) + b"-----END CERTIFICATE-----\n"
        for one in ders
    )


def test_pem_and_der_give_the_same_anchors(tmp_path: Path) -> None:
    one, other = root(), root("CN=Other")
    by_pem, by_der = AnchorSet.from_pem(pem(one.der, other.der)), AnchorSet.from_der([one.der, other.der])
    assert [anchor.sha256 for anchor in by_pem] == [anchor.sha256 for anchor in by_der]
    assert len(by_pem) == 2
    assert len(by_pem.with_anchors(AnchorSet.from_pem(pem(one.der).decode()))) == 3
    for name, content in (("a.pem", pem(one.der)), ("a.der", one.der)):
        path = tmp_path / name
        path.write_bytes(content)
        assert [anchor.label for anchor in AnchorSet.load(path)] == [one.parsed.label]


@pytest.mark.parametrize("text", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----"])
def test_text_without_a_certificate_is_refused(text: bytes) -> None:
    with refuses(Reason.BAD_ENCODING, Malformed):
        AnchorSet.from_pem(text)


def test_an_anchor_in_a_form_that_is_not_read_is_refused_and_its_neighbour_not_taken_alone(tmp_path: Path) -> None:
    path, plain = tmp_path / "anchors.pem", pem(root().der, root("CN=Other").der)
    path.write_bytes(plain.replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE", 2))
    with refuses(Reason.BAD_SETTINGS, Misconfigured, match=r"anchors\.pem.*TRUSTED CERTIFICATE"):
        AnchorSet.load(path)
    path.write_bytes(plain.replace(b" CERTIFICATE", b" X509 CERTIFICATE", 2))
    assert len(AnchorSet.load(path)) == 2


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for content in (None, b"\x30\x00", b"-----BEGIN X-----"):
        path = tmp_path / "anchors.pem"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with refuses(Reason.BAD_SETTINGS, Misconfigured, match=r"anchors\.pem"):
            AnchorSet.load(path)


def test_the_floor_rises_and_never_falls() -> None:
    """B15."""
    floor = ClockFloor(AT, slack=timedelta(minutes=5))
    floor.check(AT)
    floor.check(AT - timedelta(minutes=5))
    with refuses(Reason.CLOCK_ROLLBACK, NotTrusted):
        floor.check(AT - timedelta(minutes=6))


def test_a_date_of_the_own_clock_may_be_replaced_and_a_date_of_others_may_not() -> None:
    floor = ClockFloor(AT, slack=timedelta(minutes=5))
    floor.raise_to(AT + timedelta(hours=1))
    floor.set_own_moment(AT + timedelta(hours=3))
    assert floor.opens_at == AT + timedelta(hours=2, minutes=55)
    floor.check(floor.opens_at)
    with pytest.raises(NotTrusted):
        floor.check(floor.opens_at - timedelta(seconds=1))
    floor.set_own_moment(AT)
    assert floor.moment == AT + timedelta(hours=1)
    floor.raise_to(AT + timedelta(days=1))
    floor.raise_to(AT - timedelta(days=9))
    assert floor.moment == AT + timedelta(days=1)
    with pytest.raises(NotTrusted):
        floor.check(AT)
