"""Compares the names in a device's request with the serial number that the line gives it; certifies nothing."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from vagus.errors import PolicyRefusal
from vagus.reasons import Reason
from vagus.x509.names.distinguished import fold_text

if TYPE_CHECKING:
    from collections.abc import Collection

    from vagus.policy.plans import MakerPlan
    from vagus.x509.names.requested import RequestedNames

_WORD, _BETWEEN, _BEFORE, _AFTER = r"[^\W_]", r"[\W_]*", r"(?<![^\W_])(?:sn)?", r"(?![^\W_])"
_DIGITS = "[0-9]{6,}"
"""How many digits a serial number of a plan has at least."""
_TOKEN = re.compile(r"[^\s,;:=/]+")


class Named(NamedTuple):
    """What a request must name, if it names a device: its serial number; its model and maker may stand in it too."""

    serial: str
    model: str
    maker: str


class LineNames:
    """The serial numbers and models that the line knows, to recognise those of other devices in a request."""

    def __init__(self, plan: MakerPlan, listed: Collection[str] = ()) -> None:
        """`listed` are serial numbers that are no counters of the plan, from a list of the maker's own."""
        prefixes = sorted((one.serial_prefix for one in plan.models), key=len, reverse=True)
        self._counted = re.compile(f"{_BEFORE}(?:{'|'.join(map(_spell, prefixes))}){_BETWEEN}{_DIGITS}")
        self._listed = {fold_text(one) for one in listed}
        self._models = {fold_text(one.name): one.name for one in plan.models}

    def check(self, found: RequestedNames, device: Named, *, ignores_text: bool) -> tuple[str, ...]:
        """Check that a request names no other device; gives the texts that were ignored.

        A name that contains the serial number, however its case, blanks and hyphens are written, agrees with it.
        A serialNumber that does not is refused, and so is a name where nothing in the request has the serial number;
        `ignores_text` is for those that are the same text for all devices. It never covers a serial number or model
        that the line knows. Raises PolicyRefusal(NAME_MISMATCH) with both names.
        """
        # 1. Refuse what names another device or model of this maker, in any field.
        for text in (*found.serials, *found.names):
            self._check_other(text, device, is_whole=False)
        for text in found.others:
            self._check_other(text, device, is_whole=True)
        # 2. Find the fields that should name the device and do not: serial numbers, each by itself ...
        serials = [one for one in found.serials if _says_something(one, device)]
        names = [one for one in found.names if _says_something(one, device)]
        missing = [one for one in serials if not _names(one, device)]
        # 3. ... and other names, unless one field has the serial number.
        if not any(_names(one, device) for one in (*serials, *names)):
            missing += names
        if missing and not ignores_text:
            msg = f"the request names {missing[0][:80]!r}, and the file is for {device.serial}; correct one of them"
            msg = f"{msg}, or give --ignore-names where all devices have this text"
            raise PolicyRefusal(Reason.NAME_MISMATCH, msg, serial=device.serial, named=missing[0][:80])
        return tuple(missing)

    def _check_other(self, text: str, device: Named, *, is_whole: bool) -> None:
        """Refuse a serial number or model of another device; with `is_whole`, where the text is nothing else."""
        folded = fold_text(text)
        if self._has_serial(folded, is_whole=is_whole) and not _is_own(folded, device):
            rest = _pattern_of(device.serial).sub(" ", folded)
            if not self._has_serial(rest, is_whole=is_whole):
                return
            named = repr(text[:80])
        elif self._models.get(folded, device.model) != device.model:
            named = f"model {text[:80]!r}"
        else:
            return
        msg = f"the request names {named}, and the file is for {device.serial} of model {device.model}"
        msg = f"{msg}; put each request into the file of its own device"
        raise PolicyRefusal(Reason.NAME_MISMATCH, msg, serial=device.serial, named=text[:80])

    def _has_serial(self, folded: str, *, is_whole: bool) -> bool:
        tokens = (folded.strip(),) if is_whole else (folded.strip(), *_TOKEN.findall(folded))
        counted = self._counted.fullmatch(folded) if is_whole else self._counted.search(folded)
        return counted is not None or not self._listed.isdisjoint(tokens)


def _is_own(folded: str, device: Named) -> bool:
    """Whether a text is the serial number as it is: the usual case, which needs no pattern."""
    return folded == fold_text(device.serial)


def _names(text: str, device: Named) -> bool:
    folded = fold_text(text)
    return _is_own(folded, device) or _pattern_of(device.serial).search(folded) is not None


@lru_cache(maxsize=1024)
def _pattern_of(serial: str) -> re.Pattern[str]:
    return re.compile(f"{_BEFORE}{_spell(serial)}{_AFTER}")


def _spell(text: str) -> str:
    """A pattern for `text` in any spelling: its runs of letters and digits, with anything else between them."""
    return _BETWEEN.join(re.escape(one) for one in re.findall(f"{_WORD}+", fold_text(text)))


def _says_something(text: str, device: Named) -> bool:
    """Whether a field may name a device: it is not empty, and not the model or maker that the certificate has too."""
    folded = fold_text(text)
    return re.search(_WORD, folded) is not None and folded not in {fold_text(device.model), fold_text(device.maker)}
