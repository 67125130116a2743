"""Makers' certificates and CRLs: a CRL that is here counts, and an issuer without one passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.simulator.refusals import reason_of
from tests.x509.chains import AT, DAY, Listed, Made, crl, root, scope
from vagus.errors import NotTrusted
from vagus.fleet.maker_crls import RETRY_SECONDS, MakerCrls, MakerCrlStatus
from vagus.reasons import Reason
from vagus.trust.anchors import AnchorSet, ClockFloor
from vagus.trust.crl_memory import VolatileCrlMemory
from vagus.trust.crl_rules import STRICT_CRL_RULES
from vagus.trust.crl_status import CrlStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509 import der
from vagus.x509.paths.search import Pool
from vagus.x509.pem import encode_block, encode_certificates

ROOT = root("O=Maker,CN=Root")
LINE = ROOT.ca("O=Maker,CN=Line")
BIRTH = LINE.leaf()
ANCHORS = AnchorSet([ROOT.anchor])


def validate(status: MakerCrlStatus, at: datetime = AT) -> None:
    """Judge the birth certificate by what makers' CRLs say."""
    wanted = Expectation(role=Role.IDEVID, needs_identity=False)
    Validator(ANCHORS, status).validate(BIRTH.der, [LINE.der], wanted, at)


def admit(*crls: bytes, known: Sequence[Made] = (LINE,)) -> None:
    status = CrlStatus(Pool(ANCHORS, [one.parsed for one in known]), rules=STRICT_CRL_RULES)
    for crl_der in crls:
        status.load(crl_der, AT)
    validate(MakerCrlStatus(status))


def refused(*crls: bytes, known: Sequence[Made] = (LINE,)) -> Reason:
    return reason_of(admit, *crls, known=known, error=NotTrusted)


def test_a_maker_that_gave_no_list_is_no_reason_to_refuse() -> None:
    admit()
    validate(MakerCrlStatus(None))


def test_a_revoked_line_is_refused_also_where_the_line_itself_gave_no_list() -> None:
    of_root = crl(ROOT, [Listed(LINE.parsed.serial, 2)])
    assert refused(of_root, known=()) is Reason.REVOKED_CA
    assert refused(of_root, crl(LINE)) is Reason.REVOKED_CA
    admit(crl(ROOT))


def test_a_revoked_device_is_refused_also_where_the_root_gave_no_list() -> None:
    assert refused(crl(LINE, [Listed(BIRTH.parsed.serial, 1)])) is Reason.REVOKED
    admit(crl(LINE))


@pytest.mark.parametrize(
    "body",
    [
        der.sequence(),
        der.sequence(der.sequence(der.integer(99), b"\x17\x0d991301000000Z")),
        der.sequence(der.sequence(der.integer(99), der.time(AT), der.sequence())),
        der.sequence(der.sequence(der.integer(99), der.time(AT)), Listed(98, 7).encode()),
    ],
)
def test_a_small_fault_of_a_crl_keeps_no_device_out_and_lets_none_in(body: bytes) -> None:
    admit(crl(LINE, body=body))
    revoked = der.sequence(body[2:], Listed(BIRTH.parsed.serial, 1).encode())
    assert refused(crl(LINE, body=revoked)) is Reason.REVOKED
    odd = der.sequence(body[2:], der.sequence(der.integer(BIRTH.parsed.serial), b"\x17\x01Z", der.sequence()))
    assert refused(crl(LINE, body=odd)) is Reason.REVOKED


def test_a_list_that_is_here_and_does_not_suffice_is_no_silence() -> None:
    assert refused(crl(LINE, (), scope(reasons=(1,)))) is Reason.STATUS_UNAVAILABLE
    stale = crl(ROOT, this_update=AT - 9 * DAY, next_update=AT - timedelta(minutes=1))
    assert refused(stale) is Reason.STATUS_STALE


# --- the folder


class Clock:
    """The moment at which a test asks."""

    at = AT

    def now(self) -> datetime:
        return self.at


class Shelf:
    """A folder of CRLs, and what has been read of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "makers"
        self.folder.mkdir()
        self.memory = VolatileCrlMemory()
        self.clock = Clock()
        self.crls = self.restarted()

    def restarted(self) -> MakerCrls:
        return MakerCrls(self.folder, self.memory, ClockFloor(), self.clock.now)

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def verdict(self) -> Reason | None:
        status = self.crls.read([ROOT.der])
        try:
            validate(status, self.clock.at)
        except NotTrusted as refusal:
            return refusal.reason
        return None


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path)
    made.put("line.pem", encode_certificates([LINE.der]))
    return made


REVOKES = [Listed(BIRTH.parsed.serial, 1)]


def test_files_that_come_change_and_go_are_noticed(shelf: Shelf) -> None:
    assert shelf.crls.has_changed(), "nothing was read yet"
    assert shelf.verdict() is None
    assert not shelf.crls.has_changed()
    shelf.put("line.crl", encode_block(crl(LINE, REVOKES), "X509 CRL"))
    assert shelf.crls.has_changed()
    assert shelf.verdict() is Reason.REVOKED
    assert not shelf.crls.has_changed()
    shelf.crls.forget()
    assert shelf.crls.has_changed(), "an operator said so"
    (shelf.folder / "line.crl").unlink()
    assert shelf.crls.has_changed()
    assert shelf.verdict() is None
    assert shelf.crls.problems() == {}


def test_a_list_without_its_signer_asks_for_the_signer_and_a_damaged_one_for_another_list(shelf: Shelf) -> None:
    shelf.put("line.crl", crl(LINE, flip=-1))
    status = shelf.crls.read([ROOT.der])
    with pytest.raises(NotTrusted, match=r"makers/line.crl .* bring the maker's newest CRL, or remove the file"):
        validate(status)
    (shelf.folder / "line.pem").unlink()
    shelf.put("line.crl", crl(LINE))
    status = shelf.crls.read([ROOT.der])
    with pytest.raises(NotTrusted, match=r"put the certificate of the CA .* into makers/") as refusal:
        validate(status)
    assert refusal.value.reason is Reason.STATUS_UNAVAILABLE
    assert "newest" not in refusal.value.message
    assert "add its CA certificate" in shelf.crls.problems()["makers/line.crl"]
    shelf.put("line.pem", encode_certificates([LINE.der]))
    assert shelf.verdict() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\x30\x03\x02\x01\x05", b"-----BEGIN X509 CRL-----\n?\n-----END X509 CRL-----\n", crl(LINE, flip=-1)],
    ids=["empty", "no list", "no base64", "forged"],
)
def test_a_file_that_cannot_be_taken_stops_nothing_but_itself(shelf: Shelf, content: bytes) -> None:
    shelf.put("root.crl", crl(ROOT))
    shelf.put("line.crl", crl(LINE, REVOKES))
    assert shelf.verdict() is Reason.REVOKED
    shelf.put("line.crl", content)
    assert shelf.verdict() is Reason.REVOKED, "what it said before stays in force"
    assert set(shelf.crls.problems()) == {"makers/line.crl"}
    shelf.crls = shelf.restarted()
    assert shelf.verdict() is Reason.STATUS_UNAVAILABLE, "what it said is unknown, which is not the same as nothing"
    shelf.put("line.crl", crl(LINE, number=2))
    assert shelf.verdict() is None
    assert shelf.crls.problems() == {}


def test_a_file_that_could_not_be_used_is_read_again_unchanged(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database may have been away, or the clock slow: neither leaves a trace in the folder."""
    now = [1000.0]
    monkeypatch.setattr("vagus.fleet.maker_crls.time.monotonic", lambda: now[0])
    shelf.put("line.crl", crl(LINE, this_update=AT + DAY))
    assert shelf.verdict() is Reason.STATUS_UNAVAILABLE
    assert not shelf.crls.has_changed()
    now[0] += RETRY_SECONDS
    shelf.clock.at = AT + DAY
    assert shelf.crls.has_changed()
    assert shelf.verdict() is None
    now[0] += RETRY_SECONDS
    assert not shelf.crls.has_changed()


def test_an_older_crl_is_reported_and_takes_nothing_back(shelf: Shelf) -> None:
    older = crl(LINE, number=4, this_update=AT - 2 * DAY)
    shelf.put("line.crl", crl(LINE, REVOKES, number=5))
    assert shelf.verdict() is Reason.REVOKED
    shelf.put("line.crl", older)
    assert shelf.verdict() is Reason.REVOKED
    assert "older than a CRL already seen" in shelf.crls.problems()["makers/line.crl"]
    shelf.crls = shelf.restarted()
    assert shelf.verdict() is Reason.STATUS_UNAVAILABLE
    shelf.put("newest.crl", crl(LINE, number=6))
    assert shelf.verdict() is None, "another file speaks for the same issuer"


@pytest.mark.parametrize("is_one_file", [True, False], ids=["one file", "two files"])
@pytest.mark.parametrize("is_new_first", [True, False], ids=["new first", "old first"])
@pytest.mark.parametrize("revokes", [0, 1], ids=["the old one revokes", "the new one revokes"])
def test_the_newest_crl_of_an_issuer_counts_in_any_order_and_at_each_reading(
    shelf: Shelf, revokes: int, *, is_new_first: bool, is_one_file: bool
) -> None:
    """A maker adds its newest CRL to the earlier ones: after the second reading its devices were refused."""
    listed = [REVOKES if number == revokes else [] for number in range(2)]
    both = [crl(LINE, listed[number], number=number + 1, this_update=AT - (2 - number) * DAY) for number in range(2)]
    ordered = both[::-1] if is_new_first else both
    if is_one_file:
        shelf.put("line.crl", b"".join(encode_block(one, "X509 CRL") for one in ordered))
    else:
        for number, one in enumerate(ordered):
            shelf.put(f"{number}.crl", one)
    wanted = Reason.REVOKED if revokes else None
    assert [shelf.verdict(), shelf.verdict()] == [wanted, wanted]
    shelf.crls = shelf.restarted()
    assert shelf.verdict() is wanted
    assert shelf.crls.problems() == {}


def test_a_forged_list_of_one_maker_leaves_the_others_alone(shelf: Shelf) -> None:
    shelf.put("other.crl", crl(root("O=Other,CN=Root")))
    assert shelf.verdict() is None
    assert set(shelf.crls.problems()) == {"makers/other.crl"}


def test_an_expired_crl_is_reported(shelf: Shelf) -> None:
    shelf.put("line.crl", crl(LINE))
    assert shelf.verdict() is None
    assert shelf.crls.problems() == {}
    shelf.clock.at = AT + 8 * DAY
    assert "was to be replaced by" in shelf.crls.problems()["makers/line.crl"]
    assert shelf.verdict() is Reason.STATUS_STALE
