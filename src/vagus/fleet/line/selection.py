"""Which devices of a maker's plan are meant: by lot, by serial number, or by a list of the maker's own (CSV)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import Final

from vagus.errors import Malformed
from vagus.policy.plan_files import PlannedBatch
from vagus.policy.plans import MakerPlan
from vagus.reasons import Reason

PROFILE: Final = "idevid"
"""The profile of birth certificates."""
BIRTH: Final = "born:"
"""What the owner of a birth certificate begins with."""

_SERIAL = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?\Z")
_HEADERS = frozenset({"serial", "serialnumber", "serialno", "sn"})
_MOST_LISTED = 1_000_000
_MOST_OF_SIX = 999_999
"""The last counter with six digits; a batch ends below two million."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class ListedSerial:
    """A line of a list: a serial number, and the model that the list gives it."""

    serial: str
    model: str | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSelection:
    """What a person names: lots of the plan, serial numbers, the lines of a list; nothing means the whole plan.

    With lots, serial numbers and the list must lie in them.
    """

    lots: Sequence[str] = ()
    serials: Sequence[str] = ()
    listed: Sequence[ListedSerial] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is named."""
        return not (self.lots or self.serials or self.listed)


@dataclass(frozen=True, slots=True)
class PlannedSerial:
    """A device of the line; `lot` is None where no batch counts it, `model` empty if its certificate alone has it."""

    serial: str
    model: str
    lot: str | None


class ChosenSerials:
    """The devices of a selection, in the order of the plan, or as they are named."""

    def __init__(self, plan: MakerPlan, selection: LineSelection, *, made: AbstractSet[str] = frozenset()) -> None:
        """`made` are serial numbers that may be named although the plan does not count them.

        Raises Malformed(BAD_ARGUMENT) for a lot or serial number that does not exist, with what to do.
        """
        lots = {one.name: one for one in plan.batches}
        for name in selection.lots:
            if name not in lots:
                msg = f"the plan has no batch {name!r}; its batches are {', '.join(lots) or 'none'}"
                raise Malformed(Reason.BAD_ARGUMENT, msg, batch=name)
        self._plan, self._is_of_lots, self._made = plan, bool(selection.lots), made
        self.lots = tuple(one for one in plan.batches if not selection.lots or one.name in selection.lots)
        named = [
            *(self._named(serial) for serial in selection.serials),
            *(self._listed(one) for one in selection.listed),
        ]
        self._named_serials = {one.serial: one for one in named} if selection.serials or selection.listed else None

    def __iter__(self) -> Iterator[PlannedSerial]:
        if self._named_serials is not None:
            return iter(self._named_serials.values())
        return chain.from_iterable(
            (PlannedSerial(serial, lot.model, lot.name) for serial in self._plan.serials(lot)) for lot in self.lots
        )

    def __len__(self) -> int:
        return len(self._named_serials) if self._named_serials is not None else sum(one.count for one in self.lots)

    @property
    def ranges(self) -> tuple[tuple[str, str], ...]:
        """First and last serial number of each run of lots, both of one length; of a selection by lots alone."""
        found = []
        for lot in self.lots:
            last = lot.first + lot.count - 1
            for low, high in ((lot.first, min(last, _MOST_OF_SIX)), (max(lot.first, _MOST_OF_SIX + 1), last)):
                if low <= high:
                    found.append((self._plan.serial(lot, low), self._plan.serial(lot, high)))
        return tuple(found)

    @property
    def is_named(self) -> bool:
        """Whether serial numbers are named, one by one or by a list."""
        return self._named_serials is not None

    def find(self, serial: str) -> PlannedSerial | None:
        """The device of this serial number, if it is meant."""
        if self._named_serials is not None:
            return self._named_serials.get(serial)
        lot = self._plan.batch_of(serial)
        return PlannedSerial(serial, lot.model, lot.name) if lot is not None and lot in self.lots else None

    def _named(self, serial: str) -> PlannedSerial:
        lot = self._plan.batch_of(serial)
        if lot is None and serial in self._made and not self._is_of_lots:
            return PlannedSerial(serial, "", None)
        if lot is None:
            msg = f"serial {serial[:80]} is in no batch of the plan; correct it or the plan, or list it with --serials"
            raise Malformed(Reason.BAD_ARGUMENT, msg, serial=serial[:80])
        return self._of_lot(serial, lot)

    def _of_lot(self, serial: str, lot: PlannedBatch) -> PlannedSerial:
        if lot not in self.lots:
            msg = f"serial {serial} is of batch {lot.name}, which is not selected; leave one of them out"
            raise Malformed(Reason.BAD_ARGUMENT, msg, serial=serial)
        return PlannedSerial(serial, lot.model, lot.name)

    def _listed(self, one: ListedSerial) -> PlannedSerial:
        where = f"line {one.line} of the list: serial {one.serial}"
        lot, models = self._plan.batch_of(one.serial), [known.name for known in self._plan.models]
        if lot is not None:
            if one.model not in {None, lot.model}:
                msg = (
                    f"{where} is of model {lot.model} in the plan, and the list says {one.model!r}; correct one of them"
                )
                raise Malformed(Reason.BAD_ARGUMENT, msg, serial=one.serial)
            return self._of_lot(one.serial, lot)
        if one.serial in self._made and not self._is_of_lots:
            return PlannedSerial(one.serial, one.model or "", None)
        if self._is_of_lots or self._plan.is_counter(one.serial):
            msg = f"{where} is in no batch that is meant, or has the form of the plan; correct the list or the plan"
            raise Malformed(Reason.BAD_ARGUMENT, msg, serial=one.serial)
        model = one.model if one.model is not None or len(models) > 1 else models[0]
        if model not in models:
            what = "has no model" if model is None else f"is of model {model[:80]!r}, which the plan lacks"
            msg = f"{where} {what}; give it one in a column 'model': {', '.join(models[:5])}"
            raise Malformed(Reason.BAD_ARGUMENT, msg, serial=one.serial)
        return PlannedSerial(one.serial, model, None)


def owner_of(serial: str) -> str:
    """A device of the line as the tables of keys and certificates name their owner; the ledger hashes it.

    A serial number names one device of its maker: prefixes of a plan are distinct, and a list names a device once.
    """
    return f"{BIRTH}{serial}"


def serial_of(owner: str) -> str:
    """The serial number of `owner_of`."""
    return owner.removeprefix(BIRTH)


def decode_serials(raw: bytes) -> tuple[ListedSerial, ...]:
    """The serial numbers of a CSV file, UTF-8 with or without byte order mark, separated by commas, semicolons or tabs.

    A header names the columns `serial` and `model`, in any order among others; without one there is one column. Empty
    lines are skipped. Raises Malformed(BAD_ENCODING) with the line for what is no serial number, for one that is listed
    twice and for a file without any; Malformed(TOO_MANY) above a million.
    """
    if raw.startswith(_UTF_16):
        raise Malformed(Reason.BAD_ENCODING, "the list is UTF-16; save it as CSV in UTF-8")
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as fault:
        line = raw.count(b"\n", 0, fault.start) + 1
        raise Malformed(
            Reason.BAD_ENCODING, f"line {line} of the list is not UTF-8; save it as CSV in UTF-8"
        ) from fault
    rows = _read_rows(lines)
    _, first = next(rows, (0, []))
    # "SN-000123" is a serial number, and "S/N" heads a column of them
    columns = ["" if re.search("[0-9]", one) else "".join(filter(str.isalpha, one.casefold())) for one in first]
    at = next((place for place, name in enumerate(columns) if name in _HEADERS), None)
    if at is None:
        rows, at, columns = _read_rows(lines), 0, ["serial"]
    model = columns.index("model") if "model" in columns else None
    seen: dict[str, int] = {}
    found: list[ListedSerial] = []
    for line, cells in rows:
        if any(cells[len(columns) :]):
            msg = f"line {line} of the list has more cells than its header; begin with a header, as in serial,model"
            raise Malformed(Reason.BAD_ENCODING, msg, line=line)
        found.append(_decode_row(line, cells, at, model, seen))
        if len(found) > _MOST_LISTED:
            raise Malformed(Reason.TOO_MANY, f"the list has more than {_MOST_LISTED:,} serial numbers; split it")
    if not found:
        raise Malformed(Reason.BAD_ENCODING, "the list has no serial number; write one a line")
    return tuple(found)


def _read_rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not empty, without blanks around the cells."""
    first = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(",;\t", key=first.count), strict=True)
    try:
        for row in reader:
            cells = [one.strip() for one in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as fault:
        msg = f"line {reader.line_num} of the list is no CSV ({fault}); write one serial number a line"
        raise Malformed(Reason.BAD_ENCODING, msg) from fault


def _decode_row(line: int, cells: list[str], at: int, model: int | None, seen: dict[str, int]) -> ListedSerial:
    serial = cells[at] if at < len(cells) else ""
    if not _SERIAL.match(serial):
        msg = (
            f"line {line} of the list: {serial[:80]!r} is no serial number: 1-64 letters, digits, '.' and '-', a digit"
        )
        msg = f"{msg} among them; correct it" + (", or name the column 'serial' in a header" if line == 1 else "")
        raise Malformed(Reason.BAD_ENCODING, msg, line=line)
    # folders of certificates may be on a file system that does not tell capital letters from small ones
    before = seen.setdefault(serial.lower(), line)
    if before != line:
        msg = f"line {line} of the list has serial {serial} again, first in line {before}; each device is listed once"
        raise Malformed(Reason.BAD_ENCODING, msg, line=line)
    named = cells[model] if model is not None and model < len(cells) else ""
    return ListedSerial(serial, named or None, line)
