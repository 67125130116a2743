"""A certificate is parsed once, strictly, and one odd extension does not make it unreadable."""

from __future__ import annotations

from functools import partial

import pytest

from tests.simulator.refusals import reason_of
from tests.x509 import chains
from tests.x509.chains import AT, DAY, Ext, Made, general, make, root
from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509 import extensions as ext
from vagus.x509.certificates import MAX_CERTIFICATE, CertificateCache, decode_certificate
from vagus.x509.names.general import MAX_NAMES, Form

refused = partial(reason_of, decode_certificate)


def test_the_fields_are_read() -> None:
    made = root().leaf(
        chains.san(("dns", "a.example"), ("ip", b"\x0a\0\0\1"), ("uri", "urn:x"), ("email", "a@b.example")),
        serial=77,
        not_before=AT,
        not_after=AT + DAY,
    )
    parsed = made.parsed
    assert (parsed.serial, parsed.version, parsed.not_before, parsed.not_after) == (77, 3, AT, AT + DAY)
    assert parsed.names.dns == ("a.example",)
    assert parsed.names.forms == {Form.DNS, Form.IP, Form.URI, Form.EMAIL}
    assert parsed.names.count == 4
    assert parsed.key_usage == 1
    assert not parsed.is_ca
    assert not parsed.is_self_issued
    assert parsed.has(ext.KEY_USAGE)
    assert parsed.is_critical(ext.KEY_USAGE)
    assert parsed.value_of(ext.NAME_CONSTRAINTS) is None


def test_two_parses_of_the_same_bytes_are_equal_and_others_are_not() -> None:
    made, other = root(), root()
    assert made.parsed == made.parsed
    assert hash(made.parsed) == hash(made.parsed)
    assert made.parsed != other.parsed


def test_all_forms_of_names_are_read() -> None:
    other = ("other", chains.hardware_module())
    names = chains.san(other, ("x400", b""), ("directory", "CN=x"), ("edi", b""), ("id", "1.2.3"))
    forms = {Form.OTHER_NAME, Form.X400, Form.DIRECTORY, Form.EDI_PARTY, Form.REGISTERED_ID}
    assert root().leaf(names).parsed.names.forms == forms


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        ("2.5.29.19", b"\x30\x03\x01\x01\x01"),
        ("2.5.29.19", der.sequence(der.integer(-1))),
        ("2.5.29.15", b"\x03\x01\x00"),
        ("2.5.29.15", b"\x03\x02\x07\x00"),
        ("2.5.29.37", der.sequence()),
        ("2.5.29.17", der.sequence()),
        ("2.5.29.17", der.sequence(general("dns", b"a" + b"\xff"))),
        ("2.5.29.17", der.sequence(b"\x89\x00")),
        ("2.5.29.30", der.sequence()),
        ("2.5.29.30", der.sequence(b"\xa0\x00")),
        ("2.5.29.30", der.sequence(der.explicit(0, der.sequence(general("dns", "a"), der.implicit(0, b"\1"))))),
        ("2.5.29.32", der.sequence()),
        ("2.5.29.32", chains.policies("1.2.3", "1.2.3").value),
        ("2.5.29.33", der.sequence()),
        ("2.5.29.36", der.sequence()),
        ("2.5.29.36", der.sequence(der.implicit(0, b"\xff"))),
        ("2.5.29.54", der.integer(-1)),
        ("2.5.29.35", der.sequence(der.implicit(3, b""))),
        ("2.5.29.14", der.NULL_DER),
    ],
)
def test_an_extension_that_does_not_decode_becomes_a_fault(oid: str, value: bytes) -> None:
    parsed = make("CN=x", [Ext(oid, value)], with_key_ids=False).parsed
    assert [fault.reason for fault in parsed.faults.values()] == [Reason.NON_DER]


def test_an_explicit_ca_false_is_read_since_certificates_in_use_have_it() -> None:
    parsed = make("CN=x", [Ext("2.5.29.19", b"\x30\x03\x01\x01\x00")]).parsed
    assert not parsed.is_ca
    assert not parsed.faults


def test_an_extension_that_comes_twice_is_refused() -> None:
    assert refused(make("CN=x", [chains.basic(), chains.basic()]).der) is Reason.BAD_EXTENSION


def test_versions_hold_what_they_may() -> None:
    assert refused(make("CN=x", version=b"").der) is Reason.BAD_VERSION
    assert refused(make("CN=x", version=der.explicit(0, der.integer(1))).der) is Reason.BAD_VERSION
    assert refused(make("CN=x", version=der.explicit(0, der.integer(3))).der) is Reason.BAD_VERSION
    assert refused(make("CN=x", version=der.explicit(0, der.integer(0))).der) is Reason.BAD_VERSION
    assert make("CN=x", version=b"", with_key_ids=False).parsed.version == 1
    unique = make("CN=x", with_key_ids=False, version=b"", tail=b"\x81\x02\x00\x01").der
    assert refused(unique) is Reason.BAD_VERSION
    assert make("CN=x", with_key_ids=False, tail=b"\x81\x02\x00\x01\x82\x02\x00\x01").parsed.version == 3
    assert refused(make("CN=x", with_key_ids=False, tail=b"\x82\x02\x00\x01\x81\x02\x00\x01").der) is Reason.NON_DER


def test_bytes_after_any_part_are_refused() -> None:
    good = root()
    assert refused(good.der + b"\0") is Reason.NON_DER
    assert refused(good.der[:-1]) is Reason.NON_DER
    assert refused(make("CN=x", tail=der.NULL_DER).der) is Reason.NON_DER
    assert refused(b"") is Reason.NON_DER


def test_a_critical_flag_of_false_must_be_left_out() -> None:
    explicit = der.sequence(der.object_identifier("1.2.3"), b"\x01\x01\x00", der.octet_string(b""))
    whole = make("CN=x", with_key_ids=False, tail=der.explicit(3, der.sequence(explicit))).der
    assert refused(whole) is Reason.NON_DER


def test_sizes_and_counts_are_bounded() -> None:
    def made(count: int) -> Made:
        return make("CN=x", [Ext(f"1.2.3.{number}", b"") for number in range(count)], with_key_ids=False)

    assert len(made(64).parsed.extensions) == 64
    assert refused(made(65).der) is Reason.TOO_MANY
    assert refused(b"\x30" * (MAX_CERTIFICATE + 1)) is Reason.TOO_LARGE
    many = chains.san(*(("dns", f"h{number}") for number in range(MAX_NAMES + 1)))
    fault = make("CN=x", [many], with_key_ids=False).parsed.faults[ext.SUBJECT_ALT_NAME]
    assert isinstance(fault, LimitExceeded)
    assert fault.reason is Reason.TOO_MANY


def test_a_cache_gives_the_same_value_and_remembers_no_refusal() -> None:
    cache = CertificateCache()
    made = root()
    assert cache.decode(made.der) is cache.decode(made.der)
    for _ in range(2):
        assert reason_of(cache.decode, b"\x30\x00", error=Malformed) is Reason.NON_DER


def test_a_cache_does_not_store_large_certificates() -> None:
    cache = CertificateCache()
    large = root().leaf(chains.san(*(("dns", f"host-{number}.example") for number in range(800)))).der
    assert len(large) > 10_240
    assert cache.decode(large) is not cache.decode(large)
