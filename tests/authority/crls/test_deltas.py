"""A delta leads from its base to the newest CRL, entry by entry, releases included."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.installation import BY, STATUS_URL, Installation
from tests.simulator.programs import run
from vagus.authority.crls import deltas
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict
from vagus.records.publications import find_delta
from vagus.x509.crls.building import RevocationReason

COMPROMISE = RevocationReason.KEY_COMPROMISE


def file(built: Installation, name: str) -> x509.CertificateRevocationList:
    place = built.folder / "published" / "crl" / "h1.icu" / "1" / name
    return x509.load_der_x509_crl(place.read_bytes())


def publish(built: Installation, issuer: Issuer, **later: float) -> x509.CertificateRevocationList:
    built.advance(**(later or {"seconds": 1}))
    built.publisher.publish_due(issuer)
    return file(built, "0.crl")


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


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
    issued = built.issue()
    built.revocations.revoke(built.icu.authority_id, issued.serial, COMPROMISE, by=BY).result()
    full = publish(built, built.icu)
    delta = file(built, "0.delta.crl")
    assert (number(delta), delta.last_update_utc, delta.next_update_utc) == (
        number(full),
        full.last_update_utc,
        full.next_update_utc,
    )
    assert base_of(delta) == number(base)
    assert [entry.serial_number for entry in delta] == [issued.serial]
    scopes = [crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value for crl in (full, delta)]
    assert scopes[0] == scopes[1]
    (point,) = full.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert [name.value for name in point.full_name or []] == [f"{STATUS_URL}/crl/h1.icu/1/0.delta.crl"]


def test_what_was_held_and_released_since_the_base_is_said_to_be_removed(built: Installation) -> None:
    before, within = built.issue(), built.issue()
    built.revocations.hold(built.icu.authority_id, before.serial, by=BY).result()
    publish(built, built.icu)
    built.revocations.hold(built.icu.authority_id, within.serial, by=BY).result()
    publish(built, built.icu)
    for one in (before, within):
        built.revocations.release(built.icu.authority_id, one.serial, by=BY).result()
    publish(built, built.icu)
    delta = file(built, "0.delta.crl")
    assert {entry.serial_number for entry in delta} == {before.serial, within.serial}
    assert all(is_removal(entry) for entry in delta)
    assert len(file(built, "0.crl")) == 0


def test_the_regular_crl_is_the_next_base_and_still_has_a_delta_to_it(built: Installation) -> None:
    first = publish(built, built.icu)
    issued = built.issue()
    built.revocations.revoke(built.icu.authority_id, issued.serial, COMPROMISE, by=BY).result()
    publish(built, built.icu)
    regular = publish(built, built.icu, hours=6)
    assert base_of(file(built, "0.delta.crl")) == number(first), "who holds the old base is led to the new one"
    other = built.issue()
    built.revocations.revoke(built.icu.authority_id, other.serial, COMPROMISE, by=BY).result()
    publish(built, built.icu)
    assert base_of(file(built, "0.delta.crl")) == number(regular)
    assert [entry.serial_number for entry in file(built, "0.delta.crl")] == [other.serial]


def test_a_delta_that_is_too_large_is_replaced_by_a_new_base(
    built: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "MOST_CHANGES", 2)
    publish(built, built.icu)
    for _ in range(3):
        issued = built.issue()
        built.revocations.revoke(built.icu.authority_id, issued.serial, COMPROMISE, by=BY).result()
    full = publish(built, built.icu)
    with pytest.raises(x509.ExtensionNotFound):
        full.extensions.get_extension_for_class(x509.FreshestCRL)
    row = built.find(find_delta, built.icu.authority_id, 0)
    assert (row.base_number, row.crl_der) == (number(full), None)


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
    lists = {number(full): full for full in [publish(built, issuer, hours=7) for _ in range(2)]}
    for act, which in [*steps, ("publish", 0)]:
        built.advance(seconds=1)
        if act in {"publish", "regular"}:
            full = publish(built, issuer, **({"hours": 6} if act == "regular" else {"seconds": 1}))
            lists[number(full)] = full
            delta = file(built, "0.delta.crl")
            assert number(delta) == number(full)
            for held, older in lists.items():
                if held < base_of(delta):
                    continue
                told = {entry.serial_number for entry in older}
                told |= {entry.serial_number for entry in delta if not is_removal(entry)}
                told -= {entry.serial_number for entry in delta if is_removal(entry)}
                assert told == {entry.serial_number for entry in full}
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
    built.revocations.hold(built.icu.authority_id, released.serial, by=BY).result()
    base = publish(built, built.icu, hours=6)
    built.revocations.revoke(built.icu.authority_id, bad.serial, COMPROMISE, by=BY).result()
    built.revocations.release(built.icu.authority_id, released.serial, by=BY).result()
    publish(built, built.icu)
    delta = file(built, "0.delta.crl")
    assert base_of(delta) == number(base)
    chain = [x509.load_der_x509_certificate(one) for one in (built.icu.certificate_der, *built.icu.chain_der)]
    (tmp_path / "root.pem").write_bytes(chain[-1].public_bytes(Encoding.PEM))
    (tmp_path / "mid.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain[:-1]))
    (tmp_path / "lists.pem").write_bytes(base.public_bytes(Encoding.PEM) + delta.public_bytes(Encoding.PEM))
    at = str(int(built.clock.now().timestamp()) + 1)
    verdicts = {}
    for name, issued in (("good", good), ("bad", bad), ("released", released)):
        leaf = x509.load_der_x509_certificate(issued.der)
        (tmp_path / f"{name}.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        how = ("-extended_crl", "-use_deltas", "-crl_check", "-attime", at, "-CAfile", "root.pem")
        files = ("-untrusted", "mid.pem", "-CRLfile", "lists.pem", f"{name}.pem")
        done = run("openssl", "verify", *how, *files, cwd=tmp_path)
        verdicts[name] = "OK" if done.code == 0 else done.text
    assert verdicts["good"] == "OK", verdicts
    assert "certificate revoked" in verdicts["bad"]
    assert verdicts["released"] == "OK", verdicts
