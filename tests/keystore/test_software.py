"""A keystore seals keys under one passphrase, binds them to purposes, and tells damage from a wrong passphrase."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import stat
import traceback
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.programs import succeed
from tests.simulator.queries import list_key_ids
from tests.simulator.refusals import reason_of, refuses
from vagus.errors import (
    Conflict,
    IntegrityFailure,
    Malformed,
    Misconfigured,
    NotAuthorised,
    Refused,
    Unavailable,
    VagusError,
)
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.signing import Purpose, SigningKey
from vagus.keystore.software import SoftwareKeystore, read_derivation
from vagus.reasons import Reason
from vagus.testing import SeededEntropy
from vagus.x509.algorithms import KeyAlgorithm

SECRET = Passphrase("correct horse battery")
OTHER = Passphrase("staple correct horse")
CA = frozenset({Purpose.CERTIFICATE, Purpose.CRL})


@pytest.fixture
def keystore(tmp_path: Path) -> SoftwareKeystore:
    return SoftwareKeystore.create(tmp_path / "h1.icu", SECRET, entropy=SeededEntropy(), unsafe_fast=True)


def test_a_key_survives_the_process_that_made_it(keystore: SoftwareKeystore) -> None:
    made: SigningKey = keystore.generate("ca-1", KeyAlgorithm.P256, CA, "authority:h1/icu#1")
    again: SigningKey = SoftwareKeystore.open(keystore.folder, SECRET).load("ca-1")
    assert again.spki_der == made.spki_der
    assert again.purposes == CA
    assert again.sign(Purpose.CRL, b"list") == made.sign(Purpose.CRL, b"list")
    assert list_key_ids(keystore.folder) == ["ca-1"]
    assert keystore.has("ca-1")
    assert not keystore.has("ca-2")


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
def test_both_derivations_open_what_they_sealed(tmp_path: Path, kdf: str) -> None:
    made = SoftwareKeystore.create(tmp_path / "k", SECRET, entropy=SeededEntropy(), kdf=kdf, unsafe_fast=True)  # type: ignore[arg-type]
    key = made.generate("tls", KeyAlgorithm.P256, [Purpose.TLS], "tls:gate")
    assert SoftwareKeystore.open(tmp_path / "k", SECRET).load("tls").spki_der == key.spki_der
    assert not read_derivation(tmp_path / "k").is_strong


def test_the_real_derivation_costs_what_the_design_asks(tmp_path: Path) -> None:
    for kdf, cost in (("scrypt", 131072), ("pbkdf2", 600000)):
        SoftwareKeystore.create(tmp_path / kdf, SECRET, entropy=SeededEntropy(), kdf=kdf)  # type: ignore[arg-type]
        assert read_derivation(tmp_path / kdf).is_strong
        assert f"cost = {cost}\n" in (tmp_path / kdf / "keystore.toml").read_text()


@pytest.mark.parametrize("algorithm", [one for one in KeyAlgorithm if one not in {"ed25519", "ed448", "rsa4096"}])
def test_every_algorithm_signs_what_its_public_key_verifies(
    keystore: SoftwareKeystore, algorithm: KeyAlgorithm
) -> None:
    key = keystore.generate("k", algorithm, [Purpose.DATA], "data:x")
    signature = keystore.load("k").sign(Purpose.DATA, b"message")
    public = serialization.load_der_public_key(key.spki_der)
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, b"message", ec.ECDSA(getattr(hashes, (key.algorithm.hash_name or "").upper())()))
    elif isinstance(public, rsa.RSAPublicKey):
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        public.verify(signature, b"message", PKCS1v15(), hashes.SHA256())
    else:
        public.verify(signature, b"message")  # type: ignore[union-attr,call-arg]
    assert key.is_reproducible == (key.sign(Purpose.DATA, b"message") == signature)


def test_checkpoints_are_signed_with_ed25519_and_nothing_else_is(keystore: SoftwareKeystore) -> None:
    note = keystore.generate("log", KeyAlgorithm.ED25519, [Purpose.CHECKPOINT], "log:origin")
    assert len(note.sign(Purpose.CHECKPOINT, b"note")) == 64
    for algorithm, purposes in (
        (KeyAlgorithm.ED25519, CA),
        (KeyAlgorithm.ED448, [Purpose.CHECKPOINT]),
        (KeyAlgorithm.ED25519, [Purpose.TLS]),
        (KeyAlgorithm.P256, [Purpose.CHECKPOINT]),
    ):
        with refuses(Reason.PURPOSE_FORBIDDEN, Misconfigured):
            keystore.generate("other", algorithm, purposes, "x")


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_key_refuses_every_purpose_but_its_own(keystore: SoftwareKeystore, purpose: Purpose) -> None:
    key = keystore.generate("ca-1", KeyAlgorithm.P256, CA, "authority:h1/icu#1")
    if purpose in CA:
        assert key.sign(purpose, b"x")
        return
    assert reason_of(key.sign, purpose, b"x", error=NotAuthorised) is Reason.PURPOSE_FORBIDDEN


@pytest.mark.parametrize(
    "purposes",
    [
        [],
        [Purpose.CERTIFICATE],
        [Purpose.CRL],
        [Purpose.OCSP, Purpose.TLS],
        [*CA, Purpose.OCSP],
        [Purpose.CRL, Purpose.DATA],
    ],
)
def test_no_key_has_an_odd_set_of_purposes(keystore: SoftwareKeystore, purposes: list[Purpose]) -> None:
    with refuses(Reason.PURPOSE_FORBIDDEN, Misconfigured):
        keystore.generate("k", KeyAlgorithm.P256, purposes, "x")


def test_only_a_tls_key_leaves_in_clear(keystore: SoftwareKeystore) -> None:
    keystore.generate("tls", KeyAlgorithm.P256, [Purpose.TLS], "tls:gate")
    keystore.generate("ca-1", KeyAlgorithm.P256, CA, "authority:h1/icu#1")
    assert serialization.load_pem_private_key(keystore.tls_key_pem("tls"), None)
    assert reason_of(keystore.tls_key_pem, "ca-1", error=NotAuthorised) is Reason.PURPOSE_FORBIDDEN


def test_files_are_private_and_nothing_rests_in_clear(keystore: SoftwareKeystore) -> None:
    keystore.generate("tls", KeyAlgorithm.P256, [Purpose.TLS], "tls:gate")
    clear = serialization.load_pem_private_key(keystore.tls_key_pem("tls"), None)
    assert isinstance(clear, ec.EllipticCurvePrivateKey)
    scalar = clear.private_numbers().private_value.to_bytes(32, "big")
    for path in keystore.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = path.read_bytes()
        assert scalar not in content
        assert base64.b64encode(scalar)[4:40] not in content
        assert SECRET.unsafe_reveal() not in content
    assert stat.S_IMODE(keystore.folder.stat().st_mode) == 0o700
    assert {path.name for path in keystore.folder.iterdir()} == {"keystore.toml", "tls.key"}


@pytest.mark.parametrize("opened", ["folder", "keystore.toml", "tls.key"])
def test_a_keystore_open_to_others_is_refused(keystore: SoftwareKeystore, opened: str) -> None:
    keystore.generate("tls", KeyAlgorithm.P256, [Purpose.TLS], "tls:gate")
    place = keystore.folder if opened == "folder" else keystore.folder / opened
    place.chmod(0o750 if opened == "folder" else 0o640)
    with refuses(Reason.PERMISSIONS_TOO_OPEN, Misconfigured, match="chmod"):
        SoftwareKeystore.open(keystore.folder, SECRET).load("tls")


def test_a_wrong_passphrase_is_distinguished_from_damage(keystore: SoftwareKeystore) -> None:
    with refuses(Reason.PASSPHRASE_WRONG, NotAuthorised) as refusal:
        SoftwareKeystore.open(keystore.folder, OTHER)
    assert "correct" not in "".join(traceback.format_exception(refusal.value)).replace("test_software", "")


def test_a_short_passphrase_makes_no_keystore(tmp_path: Path) -> None:
    with refuses(Reason.BAD_SETTINGS, Misconfigured):
        SoftwareKeystore.create(tmp_path / "k", Passphrase("short"), entropy=SeededEntropy(), unsafe_fast=True)
    assert not (tmp_path / "k").exists()


def test_nothing_is_overwritten(keystore: SoftwareKeystore) -> None:
    keystore.generate("ca-1", KeyAlgorithm.P256, CA, "a")
    before = (keystore.folder / "ca-1.key").read_bytes()
    assert reason_of(keystore.generate, "ca-1", KeyAlgorithm.P256, CA, "a", error=Conflict) is Reason.ALREADY_EXISTS
    assert (keystore.folder / "ca-1.key").read_bytes() == before
    with pytest.raises(Conflict):
        SoftwareKeystore.create(keystore.folder, SECRET, entropy=SeededEntropy(), unsafe_fast=True)


def test_what_is_not_there_is_named(keystore: SoftwareKeystore, tmp_path: Path) -> None:
    for act in (lambda: keystore.load("ca-9"), lambda: SoftwareKeystore.open(tmp_path / "none", SECRET)):
        assert reason_of(act, error=Unavailable) is Reason.KEY_NOT_OPEN


@pytest.mark.parametrize("key_id", ["", "../ca-1", "CA", "a/b", ".hidden", "a\0b", "x" * 81, "a\n"])
def test_a_key_id_is_never_a_path(keystore: SoftwareKeystore, key_id: str) -> None:
    assert reason_of(keystore.load, key_id, error=Malformed) is Reason.BAD_ARGUMENT


def test_a_file_swapped_edited_or_brought_from_elsewhere_does_not_open(
    keystore: SoftwareKeystore, tmp_path: Path
) -> None:
    keystore.generate("ca-1", KeyAlgorithm.P256, CA, "a")
    keystore.generate("tls", KeyAlgorithm.P256, [Purpose.TLS], "b")
    other = SoftwareKeystore.create(tmp_path / "h1.er", SECRET, entropy=SeededEntropy(7), unsafe_fast=True)
    other.generate("ca-1", KeyAlgorithm.P256, CA, "a")
    path = keystore.folder / "ca-1.key"
    genuine = path.read_bytes()
    doctored = json.loads(genuine)
    doctored["header"]["purposes"] = ["tls"]
    for content in (
        (keystore.folder / "tls.key").read_bytes(),
        (other.folder / "ca-1.key").read_bytes(),
        json.dumps(doctored).encode(),
        genuine[:-9],
        b"",
        b"[]",
        b"x" * 70_000,
    ):
        path.write_bytes(content)
        assert reason_of(keystore.load, "ca-1", error=IntegrityFailure) is Reason.KEYSTORE_DAMAGED
    path.write_bytes(genuine)
    assert keystore.load("ca-1")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_byte_anywhere_is_an_error_of_ours(keystore: SoftwareKeystore, data: st.DataObject) -> None:
    if not keystore.has("tls"):
        keystore.generate("tls", KeyAlgorithm.P256, [Purpose.TLS], "tls:gate")
    name = data.draw(st.sampled_from(["keystore.toml", "tls.key"]))
    path = keystore.folder / name
    genuine = path.read_bytes()
    at = data.draw(st.integers(0, len(genuine) - 1))
    flipped = bytes([genuine[at] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(genuine[:at] + flipped + genuine[at + 1 :])
    try:
        SoftwareKeystore.open(keystore.folder, SECRET).load("tls")
    except VagusError as failure:
        assert failure.reason in {Reason.KEYSTORE_DAMAGED, Reason.PASSPHRASE_WRONG}
    else:  # white space and the case of hexadecimal digits may change nothing
        assert genuine[at : at + 1].isspace() or flipped.isspace() or flipped.lower() == genuine[at : at + 1].lower()
    finally:
        path.write_bytes(genuine)


def test_a_key_goes_out_and_in_as_standard_pkcs8(keystore: SoftwareKeystore, tmp_path: Path) -> None:
    for algorithm in (KeyAlgorithm.P384, KeyAlgorithm.RSA3072, KeyAlgorithm.MLDSA65):
        made = keystore.generate(f"{algorithm}", algorithm, CA, "a")
        pem = keystore.export_pkcs8(f"{algorithm}", OTHER)
        assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
        came = keystore.import_pkcs8(f"{algorithm}-b", pem, OTHER, CA, "a")
        assert came.spki_der == made.spki_der
        for wrong in (SECRET, None):
            reason = reason_of(keystore.import_pkcs8, "c", pem, wrong, CA, "a", error=NotAuthorised)
            assert reason is Reason.PASSPHRASE_WRONG


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
def test_openssl_opens_our_export_and_we_open_its_key(keystore: SoftwareKeystore, tmp_path: Path) -> None:
    keystore.generate("ca-1", KeyAlgorithm.P384, CA, "a")
    out = tmp_path / "out.pem"
    out.write_bytes(keystore.export_pkcs8("ca-1", OTHER))
    secret = OTHER.unsafe_reveal()
    opened = succeed("openssl", "pkey", "-in", out, "-passin", "stdin", "-pubout", "-outform", "DER", said=secret)
    assert opened.raw == keystore.load("ca-1").spki_der
    assert f":{600000:06X}" in succeed("openssl", "asn1parse", "-in", out)
    rsa_3072 = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072")
    theirs = succeed("openssl", "genpkey", *rsa_3072, "-aes256", "-pass", "stdin", "-quiet", said=secret).raw
    assert keystore.import_pkcs8("ca-2", theirs, OTHER, CA, "a").algorithm.name == "rsa-sha256"


def test_a_key_of_another_kind_is_not_imported(keystore: SoftwareKeystore) -> None:
    clear = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for pem, reason in (
        (x25519.X25519PrivateKey.generate().private_bytes(*clear), Reason.UNSUPPORTED_ALGORITHM),
        (ec.generate_private_key(ec.SECP224R1()).private_bytes(*clear), Reason.UNSUPPORTED_ALGORITHM),
        (rsa.generate_private_key(65537, 1024).private_bytes(*clear), Reason.UNSUPPORTED_ALGORITHM),
        (b"", Reason.BAD_ENCODING),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", Reason.BAD_ENCODING),
    ):
        with refuses(reason, (Refused, Malformed)):
            keystore.import_pkcs8("k", pem, None, CA, "a")
        assert not keystore.has("k")


def test_a_key_never_shows_itself(keystore: SoftwareKeystore) -> None:
    key = keystore.generate("ca-1", KeyAlgorithm.P256, CA, "a")
    assert repr(key) == "SoftwareSigningKey('ca-1', [<Purpose.CERTIFICATE: 'certificate'>, <Purpose.CRL: 'crl'>])"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    public = serialization.load_der_public_key(key.spki_der)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    with pytest.raises(InvalidSignature):
        public.verify(key.sign(Purpose.CRL, b"x"), b"y", ec.ECDSA(hashes.SHA256()))
