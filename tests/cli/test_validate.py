"""`vagus validate` over files: accepted, or refused with a stable reason; what it cannot know it says."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.simulator.issuing import issue
from tests.simulator.running import Outcome, done, run
from tests.wire.test_snapshots import SPKI, facts, signed
from tests.x509.chains import (
    AT,
    DAY,
    GOOD,
    LEAF_USAGE,
    OCSP_SIGNING,
    Listed,
    Made,
    crl,
    ocsp_id,
    ocsp_response,
    purposes,
    revoked,
    root,
    wrap_response,
)
from vagus.authority.crls.publisher import CrlPublisher
from vagus.cli.certificate_text import spell_serial
from vagus.operations.devices import find_named
from vagus.records.certificates import list_of_device, load_bytes
from vagus.wire.snapshots import encode_content
from vagus.wiring import Installation
from vagus.x509.pem import encode_block, encode_certificates


@pytest.fixture
def papers(hospital: Path, tmp_path: Path) -> Path:
    """A folder with leaf.pem, chain.pem, root.pem and the lists of every authority above the leaf."""
    issue(hospital, 1)
    folder = tmp_path / "papers"
    folder.mkdir()
    done(hospital, "ca", "export", "h1/icu", "--out", str(folder / "icu.pem"))
    done(hospital, "ca", "export", "h1", "--out", str(folder / "h1.pem"))
    done(hospital, "ca", "export", "root", "--out", str(folder / "root.pem"))
    with Installation.open(hospital, passphrase_sources=["env:TEST_PASSPHRASE"]) as installation:
        device = find_named(installation.database, "Aorta IP3:AIP3-000001")
        with installation.database.reading() as connection:
            (row,) = list_of_device(connection, str(device.id))
            _, der = load_bytes(connection, row.leaf_index)
        assert der is not None
        (folder / "leaf.pem").write_bytes(encode_certificates([der]))
        write_lists(installation, folder)
    return folder


def write_lists(installation: Installation, folder: Path) -> None:
    publisher = CrlPublisher(
        installation.pack,
        installation.database,
        installation.writer,
        installation.clock,
        folder=installation.settings.published,
    )
    for issuer in installation.open_issuers(["h1/icu"]).every():
        publisher.publish_all(issuer)
    lists = sorted(installation.settings.published.rglob("0.crl"))
    (folder / "lists.pem").write_bytes(b"".join(encode_block(path.read_bytes(), "X509 CRL") for path in lists))


def asked(papers: Path, *more: str) -> list[str]:
    files = (str(papers / f"{name}.pem") for name in ("leaf", "icu", "h1"))
    anchors = ("--anchors", str(papers / "root.pem"), "--role", "client")
    return ["validate", *files, *anchors, "--crl", str(papers / "lists.pem"), "--json", *more]


def test_a_good_certificate_is_accepted_with_its_identity(papers: Path) -> None:
    accepted = done(papers, *asked(papers, "--group-domain", "test.example", "--unit", "h1/icu")).facts
    assert accepted["verdict"] == "accepted"
    assert accepted["identity"].endswith(".icu.h1.test.example")
    assert accepted["path_length"] == 3


@pytest.mark.parametrize("revokes", [1, 2], ids=["the old one revokes", "the new one revokes"])
def test_the_order_of_crls_changes_nothing(tmp_path: Path, revokes: int) -> None:
    anchor = root()
    leaf = anchor.leaf()
    files = {"leaf.pem": encode_certificates([leaf.der]), "root.pem": encode_certificates([anchor.der])}
    for number in (1, 2):
        listed = [Listed(leaf.parsed.serial, 1)] if number == revokes else []
        files[f"{number}.crl"] = crl(anchor, listed, number=number, this_update=AT - (3 - number) * DAY)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    words = ("validate", str(tmp_path / "leaf.pem"), "--anchors", str(tmp_path / "root.pem"), "--role", "client")
    for order in ("12", "21", "122", "212"):
        crls = [word for number in order for word in ("--crl", str(tmp_path / f"{number}.crl"))]
        found = run(tmp_path, *words, *crls, "--at", AT.isoformat(), "--json")
        assert (found.code, found.facts.get("reason")) == ((1, "REVOKED") if revokes == 2 else (0, None))


def test_a_host_that_can_be_none_is_wrong_use_and_another_name_is_a_refusal(papers: Path) -> None:
    assert run(papers, *asked(papers, "--host-name", "https://gate.example")).code == 2
    refused = run(papers, *asked(papers, "--host-name", "gerät.example."))
    assert (refused.code, refused.facts["reason"]) == (1, "NAME_MISMATCH")


def test_without_a_domain_the_certificate_still_says_who_it_is(papers: Path) -> None:
    with_domain = done(papers, *asked(papers, "--group-domain", "test.example")).facts
    accepted = done(papers, *asked(papers)).facts
    assert accepted["identity"] == with_domain["identity"]
    assert (with_domain["identity_checked"], accepted["identity_checked"]) == (True, False)
    assert accepted["subject"].startswith("O=First Hospital, OU=Intensive Care, CN=")
    openssl = x509.load_pem_x509_certificate((papers / "leaf.pem").read_bytes())
    assert accepted["serial"] == f"{openssl.serial_number:X}"
    for_people = [one for one in asked(papers) if one != "--json"]
    assert "--group-domain has it checked" in done(papers, *for_people).out


@pytest.mark.parametrize(("number", "spelt"), [(1, "01"), (0xABC, "0ABC"), (0x7F01, "7F01")])
def test_serials_are_spelt_as_openssl_does(number: int, spelt: str) -> None:
    assert spell_serial(number) == spelt


def test_a_makers_certificate_is_known_by_the_makers_serial_number(maker: Path, tmp_path: Path) -> None:
    made = ("maker", "make-idevids", "--out", str(tmp_path), "--serial", "AIP3-000002", "--unsafe-make-keys")
    done(maker, *made)
    done(maker, "ca", "export", "root", "--out", str(tmp_path / "root.pem"))
    leaf = str(tmp_path / "AIP3-000002" / "certificate.pem")
    words = ("validate", leaf, "--anchors", str(tmp_path / "root.pem"), "--role", "idevid", "--unsafe-no-status")
    assert done(maker, *words, "--json").facts["identity"] == "maker's serial number AIP3-000002"


def test_a_compartment_without_a_domain_is_no_question_that_can_be_answered(papers: Path) -> None:
    refused = run(papers, *asked(papers, "--unit", "h1/er"))
    assert refused.code == 2
    assert "--group-domain" in refused.err


def test_a_revoked_certificate_is_refused(papers: Path, hospital: Path) -> None:
    done(hospital, "device", "revoke", "Aorta IP3:AIP3-000001", "--yes")
    with Installation.open(hospital, passphrase_sources=["env:TEST_PASSPHRASE"]) as installation:
        time.sleep(1.1)  # at most one list a second: thisUpdate strictly grows
        write_lists(installation, papers)
    refused = run(papers, *asked(papers))
    assert (refused.code, refused.facts["verdict"], refused.facts["reason"]) == (1, "refused", "REVOKED")
    shown = done(hospital, "device", "show", "Aorta IP3:AIP3-000001", "--json").facts["certificates"][0]
    assert int(refused.facts["serial"], 16) == int(shown["serial"], 16)
    assert refused.facts["identity"].endswith(".icu.h1.test.example")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--at", "2050-01-01T00:00:00Z"), "EXPIRED"),
        (("--at", "2001-01-01T00:00:00Z"), "CRL_INVALID"),
        (("--group-domain", "test.example", "--unit", "h1/er"), "WRONG_COMPARTMENT"),
        (("--group-domain", "other.example"), "NON_CANONICAL"),
        (("--host-name", "www.example"), "NAME_MISMATCH"),
    ],
)
def test_each_fault_has_its_reason(papers: Path, more: tuple[str, ...], reason: str) -> None:
    refused = run(papers, *asked(papers, *more))
    assert refused.code == 1
    assert refused.facts["reason"] in {reason, "NOT_YET_VALID", "EXPIRED_CA", "STATUS_STALE"}


def test_a_stranger_to_the_anchors_is_refused(papers: Path, maker: Path) -> None:
    done(maker, "ca", "export", "root", "--out", str(papers / "root.pem"), "--replace")
    assert run(papers, *asked(papers)).code == 1


def test_what_is_wrong_with_a_ca_is_reported_of_the_ca(tmp_path: Path) -> None:
    of_ca = ocsp_response(ROOT, ocsp_id(CA, ROOT), revoked(1))
    good = ocsp_response(CA, ocsp_id(LEAF, CA))
    refused = judge(tmp_path, "--ocsp", "good", "--ocsp", "of_ca", good=good, of_ca=of_ca)
    assert (refused.facts["reason"], refused.facts["subject"]) == ("REVOKED_CA", "O=Harbour, CN=CA")
    assert int(refused.facts["serial"], 16) == CA.parsed.serial


def test_nothing_is_assumed_about_revocation(papers: Path) -> None:
    arguments = [one for one in asked(papers) if one not in {"--crl", str(papers / "lists.pem")}]
    refused = run(papers, *arguments)
    assert refused.code == 2
    assert "BAD_ARGUMENT" in refused.err
    assert done(papers, *arguments, "--unsafe-no-status").facts["verdict"] == "accepted"


ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA")
LEAF = CA.leaf()


def judge(folder: Path, *more: str, **files: bytes) -> Outcome:
    """Judge LEAF by files alone."""
    papers = {"leaf": LEAF.der, "ca": CA.der, "root": ROOT.der, "of_root": crl(ROOT), **files}
    for name, content in papers.items():
        (folder / name).write_bytes(content)
    words = ["validate", "leaf", "ca", "--anchors", "root", "--role", "client", "--at", AT.isoformat(), "--json"]
    return run(folder, *(str(folder / one) if one in papers else one for one in (*words, *more)))


def test_responses_and_lists_make_up_for_each_others_silence(tmp_path: Path) -> None:
    good = ocsp_response(CA, ocsp_id(LEAF, CA))
    judged = judge(tmp_path, "--ocsp", "good", "--crl", "of_root", good=good)
    assert (judged.code, judged.facts["verdict"]) == (0, "accepted"), judged.err
    of_ca = ocsp_response(ROOT, ocsp_id(CA, ROOT))
    assert judge(tmp_path, "--ocsp", "good", "--ocsp", "of_ca", good=good, of_ca=of_ca).code == 0
    alone = judge(tmp_path, "--ocsp", "good", good=good)
    assert (alone.code, alone.facts["reason"]) == (1, "STATUS_UNAVAILABLE")


def test_whichever_file_says_revoked_is_believed(tmp_path: Path) -> None:
    good, bad = (ocsp_response(CA, ocsp_id(LEAF, CA), status) for status in (GOOD, revoked(1)))
    clean, listed = crl(CA), crl(CA, [Listed(LEAF.parsed.serial, 1)])
    for said, list_of_ca in ((good, listed), (bad, clean)):
        words = ("--crl", "of_root", "--crl", "of_ca", "--ocsp", "said")
        judged = judge(tmp_path, *words, said=said, of_ca=list_of_ca)
        assert (judged.code, judged.facts["reason"]) == (1, "REVOKED")


MADE = AT - timedelta(minutes=30)


@pytest.mark.parametrize(
    ("looks_revoked", "of_ca", "reason"),
    [
        (LEAF, crl(CA, this_update=MADE + timedelta(seconds=1)), None),
        (LEAF, crl(CA, this_update=MADE), "STATUS_DOUBTFUL"),
        (LEAF, crl(CA, this_update=MADE - timedelta(minutes=1)), "STATUS_DOUBTFUL"),
        (LEAF, crl(CA, [Listed(LEAF.parsed.serial, 1)], this_update=MADE + timedelta(seconds=1)), "REVOKED"),
        (CA, crl(CA, this_update=MADE + timedelta(seconds=1)), "STATUS_DOUBTFUL"),
    ],
)
def test_a_newer_crl_decides_by_itself(tmp_path: Path, looks_revoked: Made, of_ca: bytes, reason: str | None) -> None:
    """The root's list is older than the snapshot, as lists of offline authorities are, and decides nothing there."""
    hit = CA.parsed.spki_sha256 if looks_revoked is LEAF else ROOT.parsed.spki_sha256
    content = encode_content(
        facts(
            made_at=MADE,
            next_update=AT + DAY,
            one_in=1 << 20,
            issuers=frozenset({CA.parsed.spki_sha256, ROOT.parsed.spki_sha256}),
        ),
        [(hit, looks_revoked.parsed.serial_bytes)],
    )
    files = {"of_ca": of_ca, "taken": signed(content), "key": encode_block(SPKI, "PUBLIC KEY")}
    words = ("--crl", "of_root", "--crl", "of_ca", "--snapshot", "taken", "--snapshot-key", "key")
    judged = judge(tmp_path, *words, **files)
    assert (judged.code, judged.facts.get("reason")) == (0 if reason is None else 1, reason), judged.err


def test_a_responder_without_nocheck_counts_where_a_list_speaks_of_it(tmp_path: Path) -> None:
    clerk = CA.issue("O=Harbour,CN=OCSP", (LEAF_USAGE, purposes(OCSP_SIGNING)))
    said = ocsp_response(clerk, ocsp_id(LEAF, CA), certificates=[clerk])
    words = ("--crl", "of_root", "--ocsp", "said")
    alone = judge(tmp_path, *words, said=said)
    assert (alone.code, alone.facts["reason"]) == (1, "OCSP_RESPONDER")
    assert judge(tmp_path, *words, "--crl", "of_ca", said=said, of_ca=crl(CA)).code == 0
    revoking = crl(CA, [Listed(clerk.parsed.serial, 1)])
    assert judge(tmp_path, *words, "--crl", "of_ca", said=said, of_ca=revoking).facts["reason"] == "OCSP_RESPONDER"


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (ocsp_response(CA, ocsp_id(CA.leaf(), CA)), 1, "OCSP_MISMATCH"),
        (ocsp_response(CA, ocsp_id(LEAF, CA), next_update=AT - DAY, this_update=AT - 2 * DAY), 1, "OCSP_STALE"),
        (ocsp_response(CA, ocsp_id(LEAF, CA), flip=9), 1, "BAD_SIGNATURE"),
        (ocsp_response(ROOT, ocsp_id(LEAF, CA)), 1, "OCSP_RESPONDER"),
        (wrap_response(b"", 3), 1, "STATUS_UNAVAILABLE"),
        (b"", 2, "NON_DER"),
        (b"\x30\x00", 2, "NON_DER"),
    ],
)
def test_a_response_that_is_of_no_use_is_reported(tmp_path: Path, said: bytes, code: int, reason: str) -> None:
    judged = judge(tmp_path, "--crl", "of_root", "--ocsp", "said", said=said)
    assert judged.code == code
    assert reason in judged.out + judged.err


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--at", "yesterday"), 2),
        (("--at", "0001-01-01T00:00:00+14:00"), 2),
        (("--at", "9999-12-31T23:59:59-01:00"), 2),
        (("--at", "9999-12-31T23:59:59Z"), 1),
        (("--role", "king"), 2),
        (("--anchors", "none.pem"), 2),
    ],
)
def test_wrong_arguments_are_reported(papers: Path, more: tuple[str, ...], code: int) -> None:
    assert run(papers, *asked(papers, *more)).code == code


@pytest.mark.parametrize(
    "content", [b"", b"0", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", b"\x30\x80"]
)
def test_what_is_no_certificate_is_refused(papers: Path, content: bytes) -> None:
    (papers / "leaf.pem").write_bytes(content)
    assert run(papers, *asked(papers)).code in {1, 2}
