"""Whether a certificate still holds: the port of all sources of status, and the small ones; reads no CRL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol, runtime_checkable

from vagus.errors import NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.x509 import extensions as ext
from vagus.x509.certificates import PathCertificate
from vagus.x509.der_reading import NULL_DER, oid_contents
from vagus.x509.paths.search import ValidPath

DEFINITE = frozenset({Reason.REVOKED, Reason.REVOKED_CA, Reason.ON_HOLD, Reason.NOT_ISSUED})
"""What a source says when it knows that a certificate does not hold; every other reason is a kind of silence."""

_OCSP_ACCESS = oid_contents("1.3.6.1.5.5.7.48.1")


class StatusSource(Protocol):
    """Whoever knows about revocation. Safe to use from several threads; asked anew for every connection."""

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Return when `certificate`, issued by `issuer`, holds at `at`.

        Raises NotTrusted(REVOKED|ON_HOLD) when it does not, NotTrusted(STATUS_UNAVAILABLE|STATUS_STALE) and the like
        when this source cannot tell. Never returns in doubt.
        """
        ...


@runtime_checkable
class PathStatusSource(Protocol):
    """A source that wants the whole path, because CRL signers must lead to the same anchor (RFC 5280 6.3.3 (f))."""

    def check_path_status(self, path: ValidPath, at: datetime) -> None:
        """As `StatusSource.check_status` for every certificate of the path."""
        ...


@runtime_checkable
class StatusInPath(Protocol):
    """A source that answers for one certificate of a path at a time, and minds which anchor the path leads to."""

    def check_status_in(self, path: ValidPath, index: int, at: datetime) -> None:
        """As `StatusSource.check_status` for `path.certificates[index]`."""
        ...


def check_in_path(source: StatusSource) -> Callable[[ValidPath, int, datetime], None]:
    """How to ask `source` about one certificate of a path: with the path if it wants it, else without."""
    if isinstance(source, StatusInPath):
        return source.check_status_in
    return partial(_check_alone, source)


def _check_alone(source: StatusSource, path: ValidPath, index: int, at: datetime) -> None:
    source.check_status(path.certificates[index], issuer_in(path, index), at)


def check_every(check: Callable[[ValidPath, int, datetime], None], path: ValidPath, at: datetime) -> None:
    """The leaf first. Raises NotTrusted as `check` does; what is revoked above the leaf comes as REVOKED_CA."""
    for index in range(len(path.certificates)):
        try:
            check(path, index, at)
        except NotTrusted as refusal:
            if index == 0:
                raise
            raise as_of_authority(refusal) from refusal


def status_check(source: StatusSource | PathStatusSource) -> Callable[[ValidPath, datetime], None]:
    """How to ask `source` about every certificate of a path: by the whole path if it can, else one by one."""
    if isinstance(source, PathStatusSource):
        return source.check_path_status
    return partial(check_every, check_in_path(source))


def issuer_in(path: ValidPath, index: int) -> PathCertificate:
    """The certificate of whoever issued `path.certificates[index]`. Raises NotTrusted(STATUS_UNAVAILABLE)."""
    if index + 1 < len(path.certificates):
        return path.certificates[index + 1]
    if path.anchor.certificate is None:
        msg = f"anchor {path.anchor.label} is a bare key; give its certificate, so that status can be asked"
        raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg)
    return path.anchor.certificate


def excuses_missing_status(certificate: PathCertificate) -> bool:
    """Whether its issuer says that it tells no revocations of it, so that silence is no fault (RFC 9608 noRevAvail).

    What somebody says all the same counts. An authority's noRevAvail does not, nor one beside a pointer to lists or to
    a responder: section 3 forbids both, and whoever believed the one half would be blind to the other.
    """
    if certificate.value_of(ext.NO_REV_AVAIL) != NULL_DER or certificate.is_ca:
        return False
    if certificate.has(ext.CRL_DISTRIBUTION_POINTS) or certificate.has(ext.FRESHEST_CRL):
        return False
    access = certificate.value_of(ext.AUTHORITY_INFO_ACCESS)
    if access is None:
        return True
    try:
        return all(method != _OCSP_ACCESS for method, _ in ext.access_locations(access))
    except VagusError:
        return False


def as_of_authority(refusal: NotTrusted) -> NotTrusted:
    """The same refusal as said of an authority: one that is revoked or on hold is REVOKED_CA, the rest keeps its name.

    ON_HOLD is said of a peer alone: it ends the search for a path, and a held CA is no reason to.
    """
    if refusal.reason not in {Reason.REVOKED, Reason.ON_HOLD}:
        return refusal
    return NotTrusted(Reason.REVOKED_CA, refusal.message, **refusal.facts)


class UnsafeNoStatus:
    """Asks nobody: every certificate holds. For commissioning benches and tests of paths, never for a listener."""

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Nothing is checked."""


class FirstSource:
    """Several sources in order: the first that knows decides, and nobody's silence opens the door.

    Order matters: put the source that learns of revocations first (the house's own sequence before a stapled
    response). A snapshot that sees what looks revoked is not silent: no later source clears that, see STATUS_DOUBTFUL.
    About a certificate that excuses silence all are heard: who lets it pass may know nothing of it.
    """

    _hears_all = False

    def __init__(self, sources: Sequence[StatusSource]) -> None:
        self._sources = tuple(sources)
        self._checks = tuple(map(check_in_path, sources))

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Raises NotTrusted: the definite answer of the first that has one, else the last one's reason for silence."""
        self._hear(certificate, [partial(source.check_status, certificate, issuer, at) for source in self._sources])

    def check_status_in(self, path: ValidPath, index: int, at: datetime) -> None:
        """As `check_status`, each source with the path."""
        self._hear(path.certificates[index], [partial(check, path, index, at) for check in self._checks])

    def _hear(self, certificate: PathCertificate, questions: Sequence[Callable[[], None]]) -> None:
        _decide(questions, hears_all=self._hears_all, is_excused=excuses_missing_status(certificate))


class AllSources(FirstSource):
    """Several sources that are all heard: each may refuse for good, and one that knows makes up for others' silence.

    For sources of unlike age of which nobody can say which learns first: lists and responses that came as files.
    """

    _hears_all = True


def is_past_grace(refusal: NotTrusted) -> bool:
    """Whether it is stale in a way that no grace may cover: a stale list that holds the certificate says no number."""
    return refusal.reason is Reason.STATUS_STALE and "stale_seconds" not in refusal.facts


def _decide(questions: Sequence[Callable[[], None]], *, hears_all: bool, is_excused: bool) -> None:
    is_answered = False
    doubt: NotTrusted | None = None
    silence = NotTrusted(Reason.STATUS_UNAVAILABLE, "no source of revocation status is configured; configure one")
    for ask in questions:
        try:
            ask()
        except NotTrusted as refusal:
            if refusal.reason in DEFINITE:
                raise
            if refusal.reason is Reason.STATUS_DOUBTFUL:
                doubt = refusal
            if not is_past_grace(silence):
                silence = refusal
        else:
            is_answered = True
            if not (hears_all or is_excused):
                break
    # what looks revoked in a snapshot is not cleared by whoever may be older: it asks for itself (`on_hit`)
    if doubt is not None:
        raise doubt
    # nor is an old list's hold, by whoever lets a noRevAvail certificate pass and may know nothing of it
    if not is_answered or (is_excused and is_past_grace(silence)):
        raise silence
