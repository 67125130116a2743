"""GeneralNames (RFC 5280 4.2.1.6), in order or by form; checks syntax alone. Constraints and identity match them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import IntEnum

from vagus.errors import LimitExceeded, Malformed
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.names.distinguished import DistinguishedName, decode_name, read_text

MAX_NAMES = 10_240  # names in one extension


class Form(IntEnum):
    """The CHOICE of GeneralName, by its context tag."""

    OTHER_NAME = 0
    EMAIL = 1
    DNS = 2
    X400 = 3
    DIRECTORY = 4
    EDI_PARTY = 5
    URI = 6
    IP = 7
    REGISTERED_ID = 8

    @property
    def spelling(self) -> str:
        """As RFC 5280 4.2.1.6 spells the form."""
        return _SPELLINGS[self]


_SPELLINGS = (
    "otherName",
    "rfc822Name",
    "dNSName",
    "x400Address",
    "directoryName",
    "ediPartyName",
    "uniformResourceIdentifier",
    "iPAddress",
    "registeredID",
)

_CONSTRUCTED = frozenset({Form.OTHER_NAME, Form.X400, Form.DIRECTORY, Form.EDI_PARTY})
_TAGS = {der.context(form, constructed=form in _CONSTRUCTED): form for form in Form}
_EMAIL, _DNS, _URI, _IP = Form.EMAIL, Form.DNS, Form.URI, Form.IP  # a global is read faster than an enum's member
_TEXT_FORMS = frozenset({_EMAIL, _DNS, _URI})

NameValue = str | bytes | DistinguishedName


@dataclass(frozen=True, slots=True)
class GeneralName:
    """One name. `value`: text of an e-mail, DNS or URI name, a DistinguishedName, else the same bytes as `content`.

    Two are equal when form and contents are: without folding of case.
    """

    form: Form
    content: bytes
    value: NameValue = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.form.spelling}:{self.text}"

    @property
    def text(self) -> str:
        """The name for people; `#` and hexadecimal where it has no text."""
        try:
            if isinstance(self.value, str):
                return read_text(der.IA5_STRING, self.content)
            if isinstance(self.value, DistinguishedName):
                return self.value.describe()
            if self.form is Form.IP:
                return str(ipaddress.ip_address(self.content))
            if self.form is Form.REGISTERED_ID:
                return der.decode_object_identifier(self.content)
        except (ValueError, Malformed):
            pass  # not shown: an address of a wrong length, or an object identifier that is too long
        return "#" + self.content.hex()


@dataclass(frozen=True, slots=True)
class GeneralNames:
    """The names of one extension, by form, in their order."""

    dns: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    addresses: tuple[bytes, ...] = ()
    directories: tuple[DistinguishedName, ...] = ()
    others: tuple[tuple[Form, bytes], ...] = ()

    @property
    def count(self) -> int:
        """How many names there are."""
        texts = len(self.dns) + len(self.emails) + len(self.uris)
        return texts + len(self.addresses) + len(self.directories) + len(self.others)

    @property
    def forms(self) -> frozenset[Form]:
        """The forms that occur."""
        found = {form for form, _ in self.others}
        present = (
            (Form.DNS, self.dns),
            (Form.EMAIL, self.emails),
            (Form.URI, self.uris),
            (Form.IP, self.addresses),
            (Form.DIRECTORY, self.directories),
        )
        return frozenset(found | {form for form, values in present if values})


NO_NAMES = GeneralNames()


def read_general_name(data: bytes, at: int, end: int) -> tuple[GeneralName, int]:
    """The GeneralName at `at` and where it ends. Raises Malformed(NON_DER)."""
    form, content, value, stop = _read_parts(data, at, end)
    return GeneralName(form, content, value), stop


def _read_parts(data: bytes, at: int, end: int) -> tuple[Form, bytes, NameValue, int]:
    """The form, contents, value and end of the GeneralName at `at`."""
    tag, start, stop = der.read_element(data, at, end)
    form = _TAGS.get(tag)
    if form is None:
        der.fail(f"a GeneralName has tag 0x{tag:02x}")
    content = data[start:stop]
    value: NameValue = content
    if form in _TEXT_FORMS:
        if not content.isascii():
            der.fail("an IA5String holds bytes beyond ASCII")
        value = content.decode("ascii")
    elif form is Form.DIRECTORY:
        value = decode_name(content)
    elif form is Form.REGISTERED_ID:
        der.check_oid(content, "a registeredID")
    return form, content, value, stop


def _read_each(data: bytes, start: int, end: int, what: str) -> list[tuple[Form, bytes, NameValue]]:
    if start == end:
        der.fail(f"{what} holds no name")
    found: list[tuple[Form, bytes, NameValue]] = []
    while start < end:
        form, content, value, start = _read_parts(data, start, end)
        if len(found) == MAX_NAMES:
            msg = f"{what} holds more than {MAX_NAMES} names; split it over several certificates"
            raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_NAMES)
        found.append((form, content, value))
    return found


def decode_general_names(names_der: bytes) -> tuple[GeneralName, ...]:
    """The names of the GeneralNames that fills `names_der`, in their order. Raises as `read_general_names` does."""
    start, end = der.read_whole(names_der, der.SEQUENCE, "GeneralNames")
    return tuple([GeneralName(*parts) for parts in _read_each(names_der, start, end, "GeneralNames")])


def read_general_names(data: bytes, start: int, end: int, what: str) -> GeneralNames:
    """The names between `start` and `end`, the contents of a GeneralNames, by form.

    Raises Malformed(NON_DER) also when there is none, LimitExceeded(TOO_MANY) beyond 10,240.
    """
    texts: dict[Form, list[str]] = {}
    addresses: list[bytes] = []
    directories: list[DistinguishedName] = []
    others: list[tuple[Form, bytes]] = []
    for form, _, value in _read_each(data, start, end, what):
        if isinstance(value, str):
            texts.setdefault(form, []).append(value)
        elif isinstance(value, DistinguishedName):
            directories.append(value)
        elif form is _IP:
            addresses.append(value)
        else:
            others.append((form, value))
    return GeneralNames(
        tuple(texts.get(_DNS, ())),
        tuple(texts.get(_EMAIL, ())),
        tuple(texts.get(_URI, ())),
        tuple(addresses),
        tuple(directories),
        tuple(others),
    )
