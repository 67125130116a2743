"""The anchors that a listener or bundle accepts, and the clock floor; fetches nothing and trusts nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vagus.errors import Misconfigured, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.x509.certificates import decode_certificate
from vagus.x509.dates import later
from vagus.x509.paths.search import PathAnchor
from vagus.x509.pem import CERTIFICATE, decode_certificates, decode_pem

Anchor = PathAnchor
"""A trusted name and key. Both are compared: an equal name with another key is not this anchor (RFC 5280 6.1.1 (d))."""


class AnchorSet:
    """A fixed set of anchors. Replace the whole set to change it."""

    def __init__(self, anchors: Iterable[Anchor]) -> None:
        self._anchors = tuple(anchors)

    @classmethod
    def from_der(cls, certificates: Iterable[bytes]) -> AnchorSet:
        """Anchors from DER certificates, self-signed or not. Raises Malformed, LimitExceeded."""
        return cls(PathAnchor.from_certificate(decode_certificate(der)) for der in certificates)

    @classmethod
    def from_pem(cls, pem: bytes | str) -> AnchorSet:
        """Anchors from PEM text. Raises Malformed(BAD_ENCODING|…), LimitExceeded."""
        text = pem.encode("utf-8") if isinstance(pem, str) else pem
        return cls.from_der(decode_pem(text, CERTIFICATE))

    @classmethod
    def load(cls, path: Path) -> AnchorSet:
        """Anchors from a file of PEM or of one certificate. Raises Misconfigured(BAD_SETTINGS) naming the file."""
        try:
            return cls.from_der(decode_certificates(path.read_bytes()))
        except (OSError, VagusError) as error:
            msg = f"anchor file {path} cannot be used: {error}; export the root as PEM or DER"
            raise Misconfigured(Reason.BAD_SETTINGS, msg, file=str(path)) from error

    def __iter__(self) -> Iterator[Anchor]:
        return iter(self._anchors)

    def __len__(self) -> int:
        return len(self._anchors)

    def with_anchors(self, more: Iterable[Anchor]) -> AnchorSet:
        """These and more."""
        return AnchorSet((*self._anchors, *more))


class ClockFloor:
    """The latest moment that has certainly passed: a clock that shows less was set back.

    Raise it with the build time, each verified checkpoint and each verified CRL's thisUpdate. `slack` allows for the
    clocks of different machines. A date that this very clock wrote proves less: see `set_own_moment`.
    """

    def __init__(
        self, floor: datetime = datetime(2026, 1, 1, tzinfo=UTC), *, slack: timedelta = timedelta(minutes=5)
    ) -> None:
        self._floor = floor
        self._own = floor
        self._slack = slack

    @property
    def moment(self) -> datetime:
        """The highest moment known to have passed."""
        return max(self._floor, self._own)

    @property
    def opens_at(self) -> datetime:
        """The earliest time of a clock for which `check` passes."""
        return self.moment - self._slack

    def raise_to(self, moment: datetime) -> None:
        """Learn of a later moment; an earlier one changes nothing."""
        self._floor = max(self._floor, moment)

    def set_own_moment(self, moment: datetime) -> None:
        """Replace the moment that was set here last; `raise_to` is not undone.

        It comes from the dates of CRLs that this installation signed. A clock that ran ahead and came back looks like
        a clock that was set back, since it wrote those dates. No program can distinguish the two, so an operator may
        have these dates forgotten.
        """
        self._own = moment

    def check(self, at: datetime) -> None:
        """Raises NotTrusted(CLOCK_ROLLBACK) when `at` lies before what has certainly passed."""
        floor = self.moment
        if later(at, self._slack) < floor:
            msg = f"the clock shows {at:%Y-%m-%d %H:%M:%S} UTC, but {floor:%Y-%m-%d %H:%M:%S} UTC has passed already"
            raise NotTrusted(Reason.CLOCK_ROLLBACK, f"{msg}, so no certificate is trusted; set the clock")
