"""Checkpoints: what the C2SP texts print verifies, what is changed does not."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from tests.x509.chains import spki
from vagus.errors import IntegrityFailure, Malformed, VagusError
from vagus.reasons import Reason
from vagus.tlog.checkpoint import Checkpoint, NoteKey, decode_checkpoint, encode_note, verify_checkpoint

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = NoteKey.of_spki("log.example.org/vagus", spki(PRIVATE))
HEAD = Checkpoint(KEY.name, 70_001, bytes(range(32)))


def sign(checkpoint: Checkpoint, key: NoteKey = KEY) -> bytes:
    return encode_note(checkpoint, key, PRIVATE.sign(checkpoint.encode().encode()))


NOTE = sign(HEAD)

# Key, text and signature of golang.org/x/mod/sumdb/note (note_test.go, and the package's example).
GO_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example checkpoint of c2sp.org/tlog-checkpoint; its key is not published, so only its form is checked.
C2SP_NOTE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE"
    "+xeMcTOAYQ8=\n"
).encode()


def test_a_signed_head_comes_back() -> None:
    assert verify_checkpoint(NOTE, KEY) == HEAD == decode_checkpoint(NOTE)


def test_the_text_has_the_three_lines_of_the_specification() -> None:
    assert HEAD.encode() == "log.example.org/vagus\n70001\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"


def test_the_key_id_of_the_go_example_is_ours_too() -> None:
    key = NoteKey.decode(GO_VERIFIER)
    assert (key.name, key.key_id.hex()) == ("PeterNeumann", "c74f20a3")
    assert key.encode() == GO_VERIFIER


def test_the_signature_of_the_go_example_verifies_before_its_text_is_found_to_be_no_checkpoint() -> None:
    with refuses(Reason.BAD_ENCODING, Malformed):
        verify_checkpoint(GO_NOTE.encode(), NoteKey.decode(GO_VERIFIER))
    with refuses(Reason.CHECKPOINT_INVALID, IntegrityFailure):
        verify_checkpoint(GO_NOTE.replace("know", "see").encode(), NoteKey.decode(GO_VERIFIER))


def test_the_example_of_the_specification_decodes() -> None:
    head = decode_checkpoint(C2SP_NOTE)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)


def test_signatures_of_unknown_keys_are_ignored() -> None:
    unknown = NoteKey("witness.example.net", bytes(32))
    line = base64.b64encode(unknown.key_id + bytes(64)).decode()
    same_name = base64.b64encode(b"\0\0\0\0" + bytes(64)).decode()
    note = NOTE + f"— {unknown.name} {line}\n— {KEY.name} {same_name}\n".encode()
    assert verify_checkpoint(note, KEY) == HEAD


def test_one_bad_signature_of_the_known_key_rejects_the_note() -> None:
    line = base64.b64encode(KEY.key_id + bytes(64)).decode()
    with refuses(Reason.CHECKPOINT_INVALID, IntegrityFailure):
        verify_checkpoint(NOTE + f"— {KEY.name} {line}\n".encode(), KEY)


def test_a_note_of_another_key_or_log_is_refused() -> None:
    renamed = NoteKey("log.example.org/other", KEY.public_key)
    for note, key in [(NOTE, renamed), (sign(Checkpoint("elsewhere", 1, bytes(32))), KEY)]:
        assert reason_of(verify_checkpoint, note, key, error=IntegrityFailure) is Reason.CHECKPOINT_INVALID


@given(st.integers(0, len(NOTE) - 1), st.integers(0, 7))
@settings(max_examples=200)
def test_no_flipped_bit_passes(at: int, bit: int) -> None:
    changed = bytearray(NOTE)
    changed[at] ^= 1 << bit
    with pytest.raises(VagusError):
        verify_checkpoint(bytes(changed), KEY)


@given(st.binary(max_size=200) | st.text(alphabet="a0 \n—+=/", max_size=120).map(str.encode))
@settings(max_examples=200)
def test_whatever_arrives_is_decoded_or_refused_with_our_own_error(note: bytes) -> None:
    try:
        decode_checkpoint(note)
    except Malformed as error:
        assert error.reason in {Reason.BAD_ENCODING, Reason.TOO_LARGE, Reason.TOO_MANY}


GOOD_ROOT = base64.b64encode(bytes(32)).decode()
SIGNATURE = "\n— a " + base64.b64encode(bytes(68)).decode() + "\n"


@pytest.mark.parametrize(
    "note",
    [
        f"a\n01\n{GOOD_ROOT}\n{SIGNATURE}",
        f"a\n-1\n{GOOD_ROOT}\n{SIGNATURE}",
        f"a\n1\n{GOOD_ROOT[:-1]}\n{SIGNATURE}",
        f"a\n1\n{base64.b64encode(bytes(31)).decode()}\n{SIGNATURE}",
        f"\n1\n{GOOD_ROOT}\n{SIGNATURE}",
        f"a\n1\n{SIGNATURE}",
        f"a\n1\n{GOOD_ROOT}\n\nextra\n{SIGNATURE}",
        f"a\n1\r\n{GOOD_ROOT}\n{SIGNATURE}",
        f"a\n1\n{GOOD_ROOT}\n",
        f"a\n1\n{GOOD_ROOT}\n\n- a {GOOD_ROOT}\n",
        f"a\n1\n{GOOD_ROOT}\n\n— a+b {GOOD_ROOT}\n",
        f"a\n1\n{GOOD_ROOT}\n\n— a AAAA\n",
        f"a\n1\n{GOOD_ROOT}\n\n— a AAAAAAA\n",
        f"a\n1\n{GOOD_ROOT}\n{SIGNATURE[:-1]}",
    ],
)
def test_a_note_of_another_format_is_refused(note: str) -> None:
    assert reason_of(decode_checkpoint, note.encode(), error=Malformed) is Reason.BAD_ENCODING


def test_size_and_number_of_signatures_are_bounded() -> None:
    assert reason_of(decode_checkpoint, b"a" * 100_001, error=Malformed) is Reason.TOO_LARGE
    assert reason_of(decode_checkpoint, NOTE + SIGNATURE[1:].encode() * 64, error=Malformed) is Reason.TOO_MANY


def test_extension_lines_are_allowed() -> None:
    assert decode_checkpoint(f"a\n1\n{GOOD_ROOT}\nmore\n{SIGNATURE}".encode()).size == 1


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb"])
def test_a_key_name_that_would_break_the_line_is_refused(name: str) -> None:
    assert reason_of(NoteKey, name, bytes(32), error=Malformed) is Reason.BAD_ENCODING


@pytest.mark.parametrize(
    "text", ["", "a+b", "a+00000000+!!", GO_VERIFIER.replace("c74f", "c74e"), GO_VERIFIER.replace("+ARpc", "+AhpcA")]
)
def test_a_verifier_key_that_contradicts_itself_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        NoteKey.decode(text)


def test_only_ed25519_keys_sign_checkpoints() -> None:
    assert reason_of(NoteKey.of_spki, "a", b"\x30" * 91, error=Malformed) is Reason.UNSUPPORTED_ALGORITHM
