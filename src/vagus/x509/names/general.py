"""GeneralNames (RFC 5280 4.2.1.6) sorted by form; checks syntax alone, matching lives in constraints and identity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from vagus.errors import LimitExceeded
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.names.matching import DistinguishedName, decode_name

MAX_NAMES = 10_240  # in one extension


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


_CONSTRUCTED = frozenset({Form.OTHER_NAME, Form.X400, Form.DIRECTORY, Form.EDI_PARTY})
_TAGS = {der.context(form, constructed=form in _CONSTRUCTED): form for form in Form}
_TEXT_FORMS = frozenset({Form.EMAIL, Form.DNS, Form.URI})

NameValue = str | bytes | DistinguishedName


@dataclass(frozen=True, slots=True)
class GeneralName:
    """One name: text for e-mail, DNS and URI, a DistinguishedName for directory names, else the contents octets."""

    form: Form
    value: NameValue


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
        return (
            len(self.dns)
            + len(self.emails)
            + len(self.uris)
            + len(self.addresses)
            + len(self.directories)
            + len(self.others)
        )

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
    tag, start, stop = der.read_element(data, at, end)
    form = _TAGS.get(tag)
    if form is None:
        der.fail(f"a GeneralName has tag 0x{tag:02x}")
    value: NameValue = data[start:stop]
    if form in _TEXT_FORMS:
        octets = data[start:stop]
        if not octets.isascii():
            der.fail("an IA5String holds octets beyond ASCII")
        value = octets.decode("ascii")
    elif form is Form.DIRECTORY:
        value = decode_name(data[start:stop])
    elif form is Form.REGISTERED_ID:
        der.check_oid(data[start:stop], "a registeredID")
    return GeneralName(form, value), stop


def read_general_names(data: bytes, start: int, end: int, what: str, *, may_be_empty: bool = False) -> GeneralNames:
    """The names between `start` and `end`, the contents of a GeneralNames.

    Raises Malformed(NON_DER) also when there is none, LimitExceeded(TOO_MANY) beyond 10,240.
    """
    if start == end and not may_be_empty:
        der.fail(f"{what} holds no name")
    texts: dict[Form, list[str]] = {}
    addresses: list[bytes] = []
    directories: list[DistinguishedName] = []
    others: list[tuple[Form, bytes]] = []
    count = 0
    while start < end:
        name, start = read_general_name(data, start, end)
        value = name.value
        count += 1
        if count > MAX_NAMES:
            msg = f"{what} holds more than {MAX_NAMES} names; split it over several certificates"
            raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_NAMES)
        if isinstance(value, str):
            texts.setdefault(name.form, []).append(value)
        elif isinstance(value, DistinguishedName):
            directories.append(value)
        elif name.form is Form.IP:
            addresses.append(value)
        else:
            others.append((name.form, value))
    return GeneralNames(
        dns=tuple(texts.get(Form.DNS, ())),
        emails=tuple(texts.get(Form.EMAIL, ())),
        uris=tuple(texts.get(Form.URI, ())),
        addresses=tuple(addresses),
        directories=tuple(directories),
        others=tuple(others),
    )
