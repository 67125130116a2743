"""An installation under the pack iob-2026-pq: each signature that it makes is ML-DSA, and the library believes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from tests.simulator.installation import EVERY, ICU, Installation, new_installation
from tests.simulator.status_listeners import question
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.policy.packs import find_shipped, load_pack
from vagus.records.authorities import list_authorities
from vagus.records.publications import list_publications
from vagus.x509.crls.building import RevocationReason
from vagus.x509.keys import decode_public_key


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Installation]:
    with new_installation(tmp_path) as made:
        made.pack = load_pack(find_shipped("iob-2026-pq"))
        made.build()
        yield made


def certificates(site: Installation) -> dict[str, x509.Certificate]:
    rows = site.read(list_authorities)
    return {row.name: x509.load_der_x509_certificate(row.certificate_der or b"") for row in rows}


def issue_to_ml_dsa_key(site: Installation) -> IssuedCertificate:
    spki = mldsa.MLDSA65PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return site.issue(public_key=decode_public_key(spki))


def test_every_authority_has_an_ml_dsa_key_and_a_certificate_that_its_parent_signed(site: Installation) -> None:
    found = certificates(site)
    assert set(found) == {one.name for one in EVERY}
    for one in EVERY:
        kind = mldsa.MLDSA87PublicKey if one.name == "root" else mldsa.MLDSA65PublicKey
        assert isinstance(found[one.name].public_key(), kind), one.name
        found[one.name].verify_directly_issued_by(found[one.parent or one.name])


def test_a_device_with_an_ml_dsa_key_gets_a_certificate_and_loses_it_by_a_crl(site: Installation) -> None:
    issuer = certificates(site)["h1/icu"]
    issued = issue_to_ml_dsa_key(site)
    leaf = x509.load_der_x509_certificate(issued.der)
    leaf.verify_directly_issued_by(issuer)
    assert isinstance(leaf.public_key(), mldsa.MLDSA65PublicKey)
    site.revocations.revoke(
        site.icu.authority_id, leaf.serial_number, RevocationReason.KEY_COMPROMISE, by="operator:tests"
    ).result()
    site.publisher.publish_all(site.icu)
    for published in site.read(list_publications, site.icu.authority_id):
        crl = x509.load_der_x509_crl(published.crl_der)
        key = issuer.public_key()
        assert isinstance(key, mldsa.MLDSA65PublicKey)
        assert crl.is_signature_valid(key)
        assert crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


def test_ocsp_responses_are_signed_by_an_ml_dsa_44_responder(site: Installation) -> None:
    assert site.renew_responder(site.icu)
    issued = issue_to_ml_dsa_key(site)
    responders = site.read(open_responders, site.keystore(OCSP_KEYSTORE))
    responses = OcspResponses(site.database, site.follower(), site.pack.ocsp, responders)
    response = ocsp.load_der_ocsp_response(responses.respond(question(issued), site.clock.now()).response_der)
    assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
    (responder,) = response.certificates
    responder.verify_directly_issued_by(certificates(site)["h1/icu"])
    key = responder.public_key()
    assert isinstance(key, mldsa.MLDSA44PublicKey)
    key.verify(response.signature, response.tbs_response_bytes)


def test_a_classical_installation_that_takes_the_pack_keeps_its_keys_until_they_are_rolled(tmp_path: Path) -> None:
    with new_installation(tmp_path) as made:
        made.build()
        assert made.renew_responder(made.icu)
        before = {name: one.public_bytes(Encoding.DER) for name, one in certificates(made).items()}
        made.pack = load_pack(find_shipped("iob-2026-pq"))
        assert not made.renew_responder(made.icu), "a responder's key is replaced when its certificate is renewed"
        made.ceremony().hold()
        assert {name: one.public_bytes(Encoding.DER) for name, one in certificates(made).items()} == before
        issue_to_ml_dsa_key(made)
        made.hierarchy.request(ICU, by="operator:tests", is_rekey=True)
        made.ceremony().hold()
        rolled = certificates(made)["h1/icu"]
        assert isinstance(rolled.public_key(), mldsa.MLDSA65PublicKey)
        rolled.verify_directly_issued_by(x509.load_der_x509_certificate(before["h1"]))
        made.clock.advance(days=8)
        assert made.renew_responder(made.icu)
        newest = made.read(open_responders, made.keystore(OCSP_KEYSTORE))
        kinds = {one.reference: x509.load_der_x509_certificate(one.certificate_der).public_key() for one in newest}
        assert isinstance(kinds["h1/icu#1"], mldsa.MLDSA44PublicKey)
