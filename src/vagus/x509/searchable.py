"""What people search a certificate by: its names and the kind of its key, read from its TBS; verifies nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.errors import Malformed, VagusError
from vagus.x509 import oids
from vagus.x509.keys import read_key_algorithm
from vagus.x509.names.distinguished import COMMON_NAME, SERIAL_NUMBER, decode_name, fold_text
from vagus.x509.names.general import Form, GeneralName, decode_general_names
from vagus.x509.names.hardware_module import decode_hardware_module
from vagus.x509.tbs import decode_tbs

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_NAME = 255
"""Characters of a name that are compared in a search; longer names are cut."""

_NAMED_BY = (COMMON_NAME, SERIAL_NUMBER)


@dataclass(frozen=True, slots=True)
class SearchFacts:
    """The names of one certificate as people read them, and the kind of its key.

    `subject_names` are the common names and serial numbers of the subject. `key_algorithm` is None for a kind that
    Vagus does not know.
    """

    subject: str
    subject_names: tuple[str, ...] = ()
    alternative_names: tuple[str, ...] = ()
    key_algorithm: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which the certificate is found."""
        return self.subject_names + self.alternative_names


def search_name(text: str) -> str:
    """`text` as names are compared: without case and outer spaces, cut to `LONGEST_NAME`."""
    return fold_text(text)[:LONGEST_NAME]


def names_beside_device(names: Iterable[str], device_id: str | None) -> tuple[str, ...]:
    """The names to find a certificate by, folded, without those that begin with the id of its own device."""
    folded = {search_name(one) for one in names}
    return tuple(sorted(one for one in folded if one and (device_id is None or one.partition(".")[0] != device_id)))


def read_search_facts(tbs_der: bytes) -> SearchFacts:
    """The facts of a DER TBSCertificate; a name that does not decode is left out. Raises Malformed(NON_DER)."""
    fields = decode_tbs(tbs_der)
    subject = decode_name(fields.subject_der)
    algorithm: str | None = None
    with suppress(VagusError):
        algorithm = read_key_algorithm(fields.spki_der).value
    alternative: tuple[GeneralName, ...] = ()
    extension = fields.by_oid.get(oids.SUBJECT_ALT_NAME)
    if extension is not None:
        with suppress(VagusError):
            alternative = decode_general_names(extension.value)
    return SearchFacts(
        subject=subject.describe(),
        subject_names=tuple(text for oid in _NAMED_BY for text in subject.texts(oid)),
        alternative_names=tuple(_spell(one) for one in alternative),
        key_algorithm=algorithm,
    )


def _spell(name: GeneralName) -> str:
    """A general name for people; of a hardware module (RFC 4108 section 5) its serial number."""
    if name.form is Form.OTHER_NAME:
        with suppress(Malformed):
            module = decode_hardware_module(name.form, name.content)
            if module is not None:
                return module.serial.decode("utf-8", "replace")
    return name.text
