"""`StatusSource`, the port for revocation status, and sources that combine or relax others; reads no CRL.

A source returns if it knows that a certificate is good, and raises otherwise. There are two kinds of refusal:

- definite (`DEFINITE`): the source knows that the certificate is not good. No other source can overrule it.
- missing status: every other reason. The source does not know, and another source may.

Missing status never becomes "good" by itself; see `_decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol, runtime_checkable

from vagus.errors import NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.x509 import extensions as ext
from vagus.x509.certificates import PathCertificate
from vagus.x509.der import NULL_DER, oid_contents
from vagus.x509.paths.search import ValidPath

DEFINITE = frozenset({Reason.REVOKED, Reason.REVOKED_CA, Reason.ON_HOLD, Reason.NOT_ISSUED})
"""The reasons of a source that knows that a certificate is not good; every other reason means missing status."""

_OCSP_ACCESS = oid_contents("1.3.6.1.5.5.7.48.1")


class StatusSource(Protocol):
    """A source of revocation status. Safe to use from several threads; asked anew for every connection."""

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Return if `certificate`, issued by `issuer`, is good at `at`.

        Raises NotTrusted(REVOKED|ON_HOLD) if it is not, and NotTrusted(STATUS_UNAVAILABLE|STATUS_STALE|…) if this
        source does not know. Never returns in doubt.
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
    """A source for one certificate of a path at a time, whose result may depend on the anchor of the path."""

    def check_status_in(self, path: ValidPath, index: int, at: datetime) -> None:
        """As `StatusSource.check_status` for `path.certificates[index]`."""
        ...


def check_in_path(source: StatusSource) -> Callable[[ValidPath, int, datetime], None]:
    """The check of `source` for one certificate of a path: with the path if the source takes one, else without."""
    if isinstance(source, StatusInPath):
        return source.check_status_in
    return partial(_check_alone, source)


def _check_alone(source: StatusSource, path: ValidPath, index: int, at: datetime) -> None:
    source.check_status(path.certificates[index], issuer_in(path, index), at)


def check_every(check: Callable[[ValidPath, int, datetime], None], path: ValidPath, at: datetime) -> None:
    """Check each certificate of the path, the leaf first. Raises as `check`; REVOKED_CA for one above the leaf."""
    for index in range(len(path.certificates)):
        try:
            check(path, index, at)
        except NotTrusted as refusal:
            if index == 0:
                raise
            raise as_of_authority(refusal) from refusal


def status_check(source: StatusSource | PathStatusSource) -> Callable[[ValidPath, datetime], None]:
    """The check of `source` for every certificate of a path: the whole path at once if it can, else one by one."""
    if isinstance(source, PathStatusSource):
        return source.check_path_status
    return partial(check_every, check_in_path(source))


def issuer_in(path: ValidPath, index: int) -> PathCertificate:
    """The issuer of `path.certificates[index]`. Raises NotTrusted(STATUS_UNAVAILABLE) if the anchor is a bare key."""
    if index + 1 < len(path.certificates):
        return path.certificates[index + 1]
    if path.anchor.certificate is None:
        msg = f"anchor {path.anchor.label} is a bare key, so no status is available; give the anchor's certificate"
        raise NotTrusted(Reason.STATUS_UNAVAILABLE, msg)
    return path.anchor.certificate


def excuses_missing_status(certificate: PathCertificate) -> bool:
    """Whether missing status is no fault, because the issuer publishes none for this certificate (RFC 9608).

    A status that a source has all the same counts. noRevAvail is ignored in a CA certificate, and beside a pointer to
    a CRL or an OCSP responder: RFC 9608 section 3 forbids both, and such a certificate can be revoked.
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
    """Checks nothing: every certificate is good. For commissioning benches and tests of paths, never for a listener."""

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Nothing is checked."""


class FirstSource:
    """Several sources in order: the first one that knows decides. Missing status of all of them refuses.

    Order matters: put the source that learns of revocations first (this installation's own sequence before a stapled
    response). A snapshot that says STATUS_DOUBTFUL is not overruled by a later source. For a certificate that excuses
    missing status all sources are asked: a source may let it pass although it knows nothing of it.
    """

    _asks_all = False

    def __init__(self, sources: Sequence[StatusSource]) -> None:
        self._sources = tuple(sources)
        self._checks = tuple(map(check_in_path, sources))

    def check_status(self, certificate: PathCertificate, issuer: PathCertificate, at: datetime) -> None:
        """Raises NotTrusted: the first definite refusal, else the reason of the last source without status."""
        self._decide(certificate, [partial(source.check_status, certificate, issuer, at) for source in self._sources])

    def check_status_in(self, path: ValidPath, index: int, at: datetime) -> None:
        """As `check_status`, each source with the path."""
        self._decide(path.certificates[index], [partial(check, path, index, at) for check in self._checks])

    def _decide(self, certificate: PathCertificate, questions: Sequence[Callable[[], None]]) -> None:
        _decide(questions, asks_all=self._asks_all, is_excused=excuses_missing_status(certificate))


class AllSources(FirstSource):
    """Several sources that are all asked: any of them may refuse, and one that knows makes up for missing status.

    For sources of unlike age, where it is not known which one learns first: CRLs and OCSP responses from files.
    """

    _asks_all = True


def _is_stale_hold(refusal: NotTrusted) -> bool:
    """Whether a stale CRL holds the certificate: the refusal is STATUS_STALE without an age (see `crl_status`)."""
    return refusal.reason is Reason.STATUS_STALE and "stale_seconds" not in refusal.facts


def _decide(questions: Sequence[Callable[[], None]], *, asks_all: bool, is_excused: bool) -> None:
    """Ask the sources in order, and return only if the certificate is good.

    1. A definite refusal is raised at once.
    2. STATUS_DOUBTFUL (it looks revoked in a snapshot) refuses, whatever the sources after it say: they may be older
       than the snapshot. The snapshot has asked a source of its own already (`SnapshotStatus`, `on_hit`).
    3. Otherwise one source that returns is enough.
    4. One exception. A source returns for a certificate that `is_excused` even if it knows nothing of it. So a stale
       hold, which is knowledge, then outweighs a source that returned.
    """
    is_good = False
    doubt: NotTrusted | None = None
    missing = NotTrusted(Reason.STATUS_UNAVAILABLE, "no source of revocation status is configured; configure one")
    for ask in questions:
        try:
            ask()
        except NotTrusted as refusal:
            if refusal.reason in DEFINITE:
                raise
            if refusal.reason is Reason.STATUS_DOUBTFUL:
                doubt = refusal
            if not _is_stale_hold(missing):  # remember a stale hold: it is the reason that rule 4 needs
                missing = refusal
        else:
            is_good = True
            if not (asks_all or is_excused):
                break
    if doubt is not None:
        raise doubt
    if not is_good or (is_excused and _is_stale_hold(missing)):
        raise missing
