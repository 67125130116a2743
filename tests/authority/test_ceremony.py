"""A ceremony certifies what was requested, journals each step, and is the one place where offline keys are opened."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

import vagus
from tests.simulator.installation import BY, ER, EVERY, GROUP, H1, ICU, INFRA, ROOT, SDC, STATUS_URL, Installation
from tests.simulator.refusals import refuses
from vagus.errors import Conflict, IntegrityFailure, Malformed, NotAuthorised, NotTrusted, Unavailable
from vagus.ledger.entries import AuthorityCertified, AuthorityCreated, CeremonyStep
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.records import certificates as certificate_rows
from vagus.records.engine.tables import authorities


def certificate_of(built: Installation, name: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(built.find(rows.find_newest, name).certificate_der or b"")


def constraints_of(built: Installation, name: str) -> x509.NameConstraints | None:
    try:
        found = certificate_of(built, name).extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return None
    assert found.critical
    return found.value


def test_one_ceremony_makes_the_whole_hierarchy(installation: Installation) -> None:
    report = installation.build()
    assert report.certified == ("root#1", "h1#1", "h1/icu#1", "h1/er#1", "h1/sdc#1", "h1/infra#1")
    assert report.crls == ("root#1/0", "root#1/-1", "h1#1/0", "h1#1/-1")
    for below, above in (("h1", "root"), ("h1/icu", "h1"), ("h1/er", "h1"), ("h1/sdc", "root"), ("h1/infra", "root")):
        certificate_of(installation, below).verify_directly_issued_by(certificate_of(installation, above))


def test_each_branch_carries_the_constraints_of_the_design(built: Installation) -> None:
    every_address = {"0.0.0.0/0", "::/0"}
    for name, domain, addresses in (("h1", f"h1.{GROUP}", every_address), ("h1/icu", f"icu.h1.{GROUP}", set[str]())):
        found = constraints_of(built, name)
        assert found is not None
        permitted = {(type(one).__name__, str(one.value)) for one in found.permitted_subtrees or ()}
        excluded = {str(one.value) for one in found.excluded_subtrees or ()}
        none = {(form, "none.invalid") for form in ("UniformResourceIdentifier", "RFC822Name")}
        assert permitted == {("DNSName", domain), *none}
        assert excluded == addresses  # a unit's CA inherits them: two in a row end Java before 17.0.21
    sdc = constraints_of(built, "h1/sdc")
    assert sdc is not None
    assert not any(isinstance(one, x509.UniformResourceIdentifier) for one in sdc.permitted_subtrees or ())
    assert constraints_of(built, "h1/infra") is None
    assert constraints_of(built, "root") is None


def test_constrain_dn_adds_the_directory_name(installation: Installation) -> None:
    planned = [replace(one, constrain_dn=True) if one in {H1, ICU} else one for one in (ROOT, H1, ICU)]
    installation.build(*planned)
    found = constraints_of(installation, "h1/icu")
    assert found is not None
    (name,) = (one.value for one in found.permitted_subtrees or () if isinstance(one, x509.DirectoryName))
    assert name.rfc4514_string() == "OU=ICU,O=Hospital 1"


def test_authorities_name_a_crl_and_no_ocsp_responder(built: Installation) -> None:
    points = certificate_of(built, "h1/icu").extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    access = certificate_of(built, "h1/icu").extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [name.value for name in points[0].full_name or []] == [f"{STATUS_URL}/crl/h1/1/0.crl"]
    assert [str(one.access_location.value) for one in access] == [f"{STATUS_URL}/ca/h1/1.cer"]
    with pytest.raises(x509.ExtensionNotFound):
        certificate_of(built, "root").extensions.get_extension_for_class(x509.CRLDistributionPoints)


def test_lifetimes_follow_the_policy(built: Installation) -> None:
    years = {"root": 20, "h1": 12, "h1/icu": 6, "h1/sdc": 6, "h1/infra": 6}
    for name, expected in years.items():
        assert (certificate_of(built, name).not_valid_after_utc - built.clock.now()).days == expected * 365


def test_each_step_is_in_the_ledger_in_order(built: Installation) -> None:
    steps = built.entries(CeremonyStep)
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    assert len({step.ceremony for step in steps}) == 1
    assert (steps[0].act, steps[-1].act) == ("begin", "end")
    icu = [step.act for step in steps if step.authority == "h1/icu#1"]
    assert icu == ["open-request", "certify"]
    created = [entry.authority for entry in built.entries(AuthorityCreated)]
    certified = {entry.authority: entry.issuer for entry in built.entries(AuthorityCertified)}
    assert created == [f"{one.name}#1" for one in EVERY]
    below_root, below_h1 = ("h1", "h1/sdc", "h1/infra"), ("h1/icu", "h1/er")
    parents = dict.fromkeys(below_root, "root#1") | dict.fromkeys(below_h1, "h1#1") | {"root": None}
    assert certified == {f"{name}#1": parent for name, parent in parents.items()}


def test_every_authority_is_a_certificate_row_with_an_issuance_entry(built: Installation) -> None:
    for one in EVERY:
        name = f"authority:{one.name}#1"
        assert built.find(certificate_rows.find_by_request, name).owner == name


def test_a_second_ceremony_has_only_crls_to_sign(built: Installation) -> None:
    built.advance(seconds=5)
    before = certificate_of(built, "h1/icu")
    report = built.ceremony().hold()
    assert report.certified == ()
    assert report.crls == ("root#1/0", "root#1/-1", "h1#1/0", "h1#1/-1")
    assert certificate_of(built, "h1/icu") == before


def test_a_ceremony_that_was_cut_off_is_held_again(installation: Installation) -> None:
    class Cut(Exception): ...

    for one in EVERY:
        installation.hierarchy.request(one, by=BY)

    def cut(step: str) -> None:
        if step == "h1#1":
            raise Cut

    ceremony = replace(installation.ceremony(), advance=cut)
    with pytest.raises(Cut):
        ceremony.hold()
    root = certificate_of(installation, "root")
    left = ("h1/icu#1", "h1/er#1", "h1/sdc#1", "h1/infra#1")
    assert tuple(row.reference for row in installation.ceremony().find_pending()) == left
    assert installation.ceremony().hold().certified == left
    assert certificate_of(installation, "root") == root


def test_a_request_whose_row_was_edited_is_not_certified(installation: Installation) -> None:
    for one in (ROOT, H1, ICU, ER):
        installation.hierarchy.request(one, by=BY)
    foreign = installation.find(rows.find_newest, "h1/er", state=None)
    own = installation.find(rows.find_newest, "h1/icu", state=None)
    broken = bytearray(own.request_der or b"")
    broken[-1] ^= 1
    for request, failure, reason in (
        (foreign.request_der, IntegrityFailure, Reason.KEY_MISMATCH),
        (bytes(broken), NotTrusted, Reason.POP_FAILED),
    ):
        with installation.database.writing() as connection:
            edit = authorities.update().where(authorities.c.id == own.id)
            connection.execute(edit.values(request_der=request))
        with refuses(reason, failure):
            installation.ceremony().hold()


# custody


def test_serving_cannot_open_an_offline_key(built: Installation) -> None:
    for name in ("root", "h1"):
        built.opened.clear()
        with refuses(Reason.KEY_OFFLINE, NotAuthorised):
            built.issuers("h1/icu", name)
        assert built.opened == [], "not even a keystore that it may open was touched"


def test_a_server_for_one_unit_holds_no_key_of_another(built: Installation) -> None:
    built.opened.clear()
    issuers = built.issuers("h1/icu")
    assert built.opened == ["h1/icu"]
    assert set(issuers) == {"h1/icu"}
    with pytest.raises(KeyError):
        issuers["h1/er"]
    er = built.find(rows.find_newest, "h1/er")
    assert issuers.find_by_id(er.id) is None
    assert (built.folder / "keystores" / "h1.icu").is_dir()
    with refuses(Reason.KEY_NOT_OPEN, Unavailable):
        built.keystore("h1/icu").load("ca-9")


def test_an_issuer_with_a_strangers_key_is_not_built(built: Installation) -> None:
    issuers = built.issuers("h1/icu", "h1/er")
    with refuses(Reason.KEY_MISMATCH, IntegrityFailure):
        replace(issuers["h1/icu"], key=issuers["h1/er"].key)


def test_missing_and_uncertified_names_are_reported(installation: Installation) -> None:
    with refuses(Reason.AUTHORITY_UNKNOWN, Malformed):
        installation.issuers("h9/icu")
    installation.hierarchy.request(INFRA, by=BY)
    with refuses(Reason.CEREMONY_NEEDED, Conflict):
        installation.issuers("h1/infra")
    assert SDC.name == "h1/sdc"


def test_within_authority_only_the_ceremony_asks_for_offline_keystores() -> None:
    """`open_issuers` refuses offline rows before it asks; nothing else of this room opens a keystore by name."""
    room = Path(vagus.__file__).parent / "authority"
    openers = set()
    for path in room.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if name in {"keystore_of", "_keystore_of", "SoftwareKeystore"}:
                    openers.add(path.name)
    assert openers == {"issuers.py", "ceremony.py"}
