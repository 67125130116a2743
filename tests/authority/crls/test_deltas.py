"""A delta leads from its base to the newest CRL, entry by entry, releases included."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.authority.crls.reading import crl_at, number_of, openssl_verify, serials_of
from tests.simulator.installation import BY, STATUS_URL, Installation
from vagus.authority.crls import deltas
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict
from vagus.records.publications import find_delta
from vagus.x509.crls.building import RevocationReason

COMPROMISE = RevocationReason.KEY_COMPROMISE


def file(built: Installation, name: str) -> x509.CertificateRevocationList:
    return crl_at(built.folder / "published", name)


def revoke_new(built: Installation) -> int:
    """Revoke a new certificate; its serial."""
    issued = built.issue()
    built.revoke(issued, COMPROMISE)
    return issued.serial


def publish(built: Installation, issuer: Issuer, **later: float) -> x509.CertificateRevocationList:
    built.advance(**(later or {"seconds": 1}))
    built.publisher.publish_due(issuer)
    return file(built, "0.crl")


def base_of(delta: x509.CertificateRevocationList) -> int:
    return delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number


def is_removal(entry: x509.RevokedCertificate) -> bool:
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    return reason is x509.ReasonFlags.remove_from_crl


def test_a_first_crl_has_no_base_for_a_delta(built: Installation) -> None:
    full = publish(built, built.icu)
    with pytest.raises(FileNotFoundError):
        file(built, "0.delta.crl")
    with pytest.raises(x509.ExtensionNotFound):
        full.extensions.get_extension_for_class(x509.FreshestCRL)


def test_a_delta_has_the_number_times_and_scope_of_its_crl(built: Installation) -> None:
    base = publish(built, built.icu)
    issued = revoke_new(built)
    full = publish(built, built.icu)
    delta = file(built, "0.delta.crl")
    assert (number_of(delta), delta.last_update_utc, delta.next_update_utc) == (
        number_of(full),
        full.last_update_utc,
        full.next_update_utc,
    )
    assert base_of(delta) == number_of(base)
    assert [entry.serial_number for entry in delta] == [issued]
    scopes = [crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value for crl in (full, delta)]
    assert scopes[0] == scopes[1]
    (point,) = full.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert [name.value for name in point.full_name or []] == [f"{STATUS_URL}/crl/h1.icu/1/0.delta.crl"]


def test_what_was_held_and_released_since_the_base_is_said_to_be_removed(built: Installation) -> None:
    before, within = built.issue(), built.issue()
    built.hold(before)
    publish(built, built.icu)
    built.hold(within)
    publish(built, built.icu)
    for one in (before, within):
        built.release(one)
    publish(built, built.icu)
    delta = file(built, "0.delta.crl")
    assert serials_of(delta) == {before.serial, within.serial}
    assert all(is_removal(entry) for entry in delta)
    assert len(file(built, "0.crl")) == 0


def test_the_regular_crl_is_the_next_base_and_still_has_a_delta_to_it(built: Installation) -> None:
    first = publish(built, built.icu)
    revoke_new(built)
    publish(built, built.icu)
    regular = publish(built, built.icu, hours=6)
    assert base_of(file(built, "0.delta.crl")) == number_of(first), "who holds the old base is led to the new one"
    other = revoke_new(built)
    publish(built, built.icu)
    assert base_of(file(built, "0.delta.crl")) == number_of(regular)
    assert [entry.serial_number for entry in file(built, "0.delta.crl")] == [other]


def test_a_delta_that_is_too_large_is_replaced_by_a_new_base(
    built: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "MOST_CHANGES", 2)
    publish(built, built.icu)
    for _ in range(3):
        revoke_new(built)
    full = publish(built, built.icu)
    with pytest.raises(x509.ExtensionNotFound):
        full.extensions.get_extension_for_class(x509.FreshestCRL)
    row = built.find(find_delta, built.icu.authority_id, 0)
    assert (row.base_number, row.crl_der) == (number_of(full), None)


def test_offline_authorities_have_no_deltas(built: Installation) -> None:
    built.advance(seconds=5)
    built.ceremony().hold()
    assert not list((built.folder / "published" / "crl" / "root").rglob("*.delta.crl"))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["revoke", "hold", "release", "publish", "regular"]), st.integers(0, 3)), max_size=14
    )
)
def test_base_and_delta_are_the_newest_crl(built: Installation, steps: list[tuple[str, int]]) -> None:
    issuers = built.issuers("h1/icu")
    issuer = issuers["h1/icu"]
    serials = [built.issue(issuers).serial for _ in range(4)]
    lists = {number_of(full): full for full in [publish(built, issuer, hours=7) for _ in range(2)]}
    for act, which in [*steps, ("publish", 0)]:
        built.advance(seconds=1)
        if act in {"publish", "regular"}:
            full = publish(built, issuer, **({"hours": 6} if act == "regular" else {"seconds": 1}))
            lists[number_of(full)] = full
            delta = file(built, "0.delta.crl")
            assert number_of(delta) == number_of(full)
            for held, older in lists.items():
                if held < base_of(delta):
                    continue
                removed = {entry.serial_number for entry in delta if is_removal(entry)}
                assert (serials_of(older) | serials_of(delta)) - removed == serials_of(full)
        else:
            extra = (COMPROMISE,) if act == "revoke" else ()
            try:
                getattr(built.revocations, act)(issuer.authority_id, serials[which], *extra, by=BY).result()
            except Conflict:
                continue


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
def test_openssl_refuses_by_a_delta_what_its_base_let_pass(built: Installation, tmp_path: Path) -> None:
    good, bad, released = (built.issue() for _ in range(3))
    publish(built, built.icu)
    built.hold(released)
    base = publish(built, built.icu, hours=6)
    built.revoke(bad, COMPROMISE)
    built.release(released)
    publish(built, built.icu)
    delta = file(built, "0.delta.crl")
    assert base_of(delta) == number_of(base)
    for issued, expected in ((good, "OK"), (bad, "certificate revoked"), (released, "OK")):
        checks = ("-extended_crl", "-use_deltas", "-crl_check")
        done = openssl_verify(built, tmp_path, issued, (base, delta), *checks)
        assert expected in done, done.text
        assert (done.code == 0) is (expected == "OK"), done.text
