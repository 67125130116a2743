"""One CRL up to eighteen thousand certificates, then further shards; none ever has a megabyte."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509

from tests.authority.crls.reading import crl_at, crl_path, serials_of
from tests.simulator.installation import STATUS_URL, Installation
from vagus.authority import shards
from vagus.authority.crls.publisher import sign_crl
from vagus.authority.shards import BLOCK, SHARD_PLACES, ShardPlan, load_shard_plan
from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch
from vagus.x509.crls.building import CrlContents, RevocationReason, encode_crl_entry


@pytest.fixture
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BLOCK", 10)
    monkeypatch.setattr(shards, "SHARD_PLACES", 200)


def fill(built: Installation, plan: ShardPlan, count: int) -> list[int]:
    """Note `count` certificates; the shard before each."""

    def act(batch: Batch) -> list[int]:
        found = []
        for _ in range(count):
            found.append(plan.current)
            plan.take_place(batch.connection, found[-1])
        return found

    return built.writer.submit(act).result()


def authority_id(built: Installation) -> int:
    return built.issuers("h1/icu")["h1/icu"].authority_id


def test_the_first_eighteen_thousand_share_one_crl(built: Installation) -> None:
    plan = ShardPlan(authority_id(built))
    found = fill(built, plan, 2 * SHARD_PLACES + 10)
    counts = {shard: found.count(shard) for shard in set(found)}
    assert counts == {0: SHARD_PLACES, 1: SHARD_PLACES, 2: 10}
    assert found == sorted(found), "shards are filled one after the other"


def test_a_shard_that_is_all_revoked_weighs_less_than_a_megabyte_the_first_too(built: Installation) -> None:
    at = datetime(2027, 3, 1, tzinfo=UTC)
    entry = encode_crl_entry((1 << 159) - 1, at, RevocationReason.KEY_COMPROMISE)
    assert len(entry) == 53
    issuer = built.issuers("h1/icu")["h1/icu"]
    contents = CrlContents(
        number=1,
        this_update=at,
        next_update=at.replace(day=8),
        entries=[entry] * (SHARD_PLACES + 3 * BLOCK),
        shard_url=issuer.crl_url(0),
        freshest_url=issuer.delta_url(0),
    )
    assert len(sign_crl(issuer, contents)) < 1_000_000


@pytest.mark.usefixtures("_small_shards")
def test_the_next_shard_has_its_crl_before_a_certificate_names_it(built: Installation) -> None:
    issuers = built.issuers("h1/icu")
    plan = issuers["h1/icu"].shards
    place = crl_path(built.folder / "published", "1.crl")
    fill(built, plan, 170)
    built.publisher.publish_due(issuers["h1/icu"])
    assert not place.exists()
    fill(built, plan, 1)
    built.publisher.publish_due(issuers["h1/icu"])
    assert place.exists()
    assert fill(built, plan, 29 + 1) == [0] * 29 + [1]


@pytest.mark.usefixtures("_small_shards")
def test_a_restart_goes_on_in_the_shard_that_has_room_though_the_next_one_has_begun(built: Installation) -> None:
    ca = authority_id(built)
    fill(built, ShardPlan(ca), 185)
    assert built.read(rows.list_shards, ca) == (0, 1)
    assert built.read(load_shard_plan, ca).current == 0
    fill(built, ShardPlan(ca), 10)
    assert built.read(load_shard_plan, ca).current == 1, "every place of the first is given out"


def test_two_servers_fill_one_shard_together(built: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_PLACES", 1000)
    one, other = (ShardPlan(authority_id(built)) for _ in range(2))
    found = []
    for _ in range(9):
        found += fill(built, one, 250) + fill(built, other, 250)
    counts = [found.count(shard) for shard in range(5)]
    assert all(count <= 1000 + 2 * BLOCK for count in counts)
    assert max(built.read(rows.list_shards, authority_id(built))) >= 3


def test_a_restart_goes_on_from_the_table(built: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_PLACES", 500)
    fill(built, ShardPlan(authority_id(built)), 500)
    assert built.read(load_shard_plan, authority_id(built)).current == 1
    assert built.read(load_shard_plan, 99).current == 0


@pytest.mark.parametrize("what", ["act", "batch"])
def test_a_block_that_was_undone_is_taken_again_before_a_certificate_uses_it(
    built: Installation, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(shards, "SHARD_PLACES", 250)
    issuers = built.issuers("h1/icu")
    issuer = issuers["h1/icu"]
    fill(built, issuer.shards, 250)

    def undone(batch: Batch) -> None:
        issuer.shards.take_place(batch.connection, 1)
        if what == "batch":
            batch.connection.rollback()  # as a lost connection does after the last act
        else:
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, "the act fails behind its certificate")

    with pytest.raises(Unavailable):
        built.writer.submit(undone).result()
    issued = built.issue(issuers)
    built.settle()
    assert built.read(rows.list_shards, issuer.authority_id) == (0, 1, 2)
    assert built.read(rows.count_places, issuer.authority_id, 1) == BLOCK
    built.revoke(issued, RevocationReason.SUPERSEDED)
    built.publisher.publish_due(issuer)
    for name in ("1.crl", "complete.crl"):
        assert issued.serial in serials_of(crl_at(built.folder / "published", name))


def test_acts_of_one_batch_share_a_block_and_its_commit_is_checked_once(
    built: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, asked = ShardPlan(authority_id(built)), []
    count = rows.count_places

    def noting(connection: Connection, authority: int, shard: int) -> int:
        asked.append(shard)
        return count(connection, authority, shard)

    monkeypatch.setattr(rows, "count_places", noting)
    for _ in range(5):
        fill(built, plan, 3)
    assert built.read(count, authority_id(built), 0) == BLOCK
    assert asked.count(0) == 2 + 1, "in the batch that took it at each note, then once"


def test_a_certificate_carries_its_shard_and_so_does_its_crl(
    built: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_PLACES", 250)
    issuers = built.issuers("h1/icu")
    first = built.issue(issuers)
    fill(built, issuers["h1/icu"].shards, 249)
    second = built.issue(issuers)
    built.settle()
    assert [built.find(rows.find_by_leaf, one.leaf_index).shard for one in (first, second)] == [0, 1]
    certificate = x509.load_der_x509_certificate(second.der)
    (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert [name.value for name in point.full_name or []] == [f"{STATUS_URL}/crl/h1.icu/1/1.crl"]
    built.revoke(second, RevocationReason.SUPERSEDED, by="operator:x")
    built.publisher.publish_due(issuers["h1/icu"])
    folder = built.folder / "published"
    listed = {path.name: len(crl_at(folder, path.name)) for path in crl_path(folder).parent.iterdir()}
    assert listed == {"0.crl": 0, "1.crl": 1, "2.crl": 0, "complete.crl": 1}
