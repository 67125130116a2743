"""Searches for certification paths (RFC 4158) by signer and name, with backtracking and counted budgets.

The search goes depth first from the target towards the anchors. It keeps its own stack, so that no input can exhaust
Python's. Whenever a path reaches an anchor, RFC 5280 section 6.1 judges the whole path. A path that fails there is
dropped and the search goes on (backtracking). When no path holds, the caller gets the first complete path's fault.

The search is complete within its bounds: it tries every simple path, because a certificate is left out only where its
name and key are already on the path (RFC 4158 2.4.2) or the path would be too long. Cross-certificates make the number
of such paths exponential in the number of certificates. Four counters therefore bound the work, whatever a peer sends:
steps, signature checks, complete paths and name comparisons (`budgets.py`). An exhausted budget refuses the peer. The
counters never depend on caches, so the same input has the same verdict on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from vagus.errors import LimitExceeded, Malformed, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.x509 import extensions as ext
from vagus.x509.budgets import DEFAULT_LIMITS, Budget, Limits, check_input
from vagus.x509.certificates import PathCertificate
from vagus.x509.names.distinguished import DistinguishedName, RelativeName
from vagus.x509.paths.checks import Descents, PathInputs, check_path
from vagus.x509.paths.rules import PathRules
from vagus.x509.signatures import SignatureVerdicts

Name = tuple[RelativeName, ...]
LONGEST_CHAIN = 32  # certificates below the anchor, self-issued ones too
_FINAL = frozenset({Reason.REVOKED, Reason.ON_HOLD})  # refusals of the target itself, which no other path can change


@dataclass(frozen=True, slots=True)
class PathAnchor:
    """A name and a key that are trusted (RFC 5280 6.1.1 (d)); its certificate, if known, may constrain it."""

    name: DistinguishedName
    spki_der: bytes
    spki_sha256: bytes
    certificate: PathCertificate | None
    sha256: bytes  # SHA-256 of the anchor's certificate, or of its key where there is no certificate
    domain: str | None = None  # the only domain whose devices it may vouch for, whatever its certificate says
    path_length: int | None = None  # how many CAs may follow it, likewise (RFC 5937: constraints of an anchor)

    @property
    def label(self) -> str:
        """A short hash for messages."""
        return self.sha256[:8].hex()

    @classmethod
    def from_certificate(cls, certificate: PathCertificate) -> PathAnchor:
        """The anchor that a certificate describes; it need not be self-signed."""
        return cls(certificate.subject, certificate.spki_der, certificate.spki_sha256, certificate, certificate.sha256)


@dataclass(frozen=True, slots=True)
class ValidPath:
    """A path that holds: the target first, the certificate that the anchor issued last."""

    certificates: tuple[PathCertificate, ...]
    anchor: PathAnchor
    policies: frozenset[bytes]

    @property
    def target(self) -> PathCertificate:
        """The certificate that was asked about."""
        return self.certificates[0]


class Pool:
    """Certificates and anchors by subject name. Not changed after it is made."""

    def __init__(self, anchors: Iterable[PathAnchor], certificates: Iterable[PathCertificate] = ()) -> None:
        self._anchors: dict[Name, list[PathAnchor]] = {}
        self._certificates: dict[Name, list[PathCertificate]] = {}
        self._seen: set[bytes] = set()
        for anchor in anchors:
            self._anchors.setdefault(anchor.name.relative_names, []).append(anchor)
        for certificate in certificates:
            if certificate.sha256 not in self._seen:
                self._seen.add(certificate.sha256)
                self._certificates.setdefault(certificate.subject.relative_names, []).append(certificate)

    def anchors_named(self, name: DistinguishedName) -> Sequence[PathAnchor]:
        """The anchors with this name."""
        return self._anchors.get(name.relative_names, ())

    def certificates_named(self, name: DistinguishedName) -> Sequence[PathCertificate]:
        """The certificates with this subject."""
        return self._certificates.get(name.relative_names, ())


@dataclass(frozen=True, slots=True)
class Search:
    """All that one search needs besides the target."""

    pool: Pool  # anchors and certificates that the verifier itself knows
    extra: Pool  # certificates that the peer sent with the target
    rules: PathRules
    inputs: PathInputs
    verdicts: SignatureVerdicts
    limits: Limits = DEFAULT_LIMITS
    descents: Descents | None = None
    accept: Callable[[ValidPath], None] | None = None
    """Asked about every path that holds; raises NotTrusted to refuse it (revocation, 6.1.3 (a)(3))."""


def pool_of_peer(certificates: Sequence[PathCertificate], limits: Limits) -> Pool:
    """The certificates that a peer sent, bounded. Raises LimitExceeded(TOO_MANY|TOO_LARGE)."""
    check_input(len(certificates), sum(len(certificate.der) for certificate in certificates), limits)
    return Pool((), certificates)


_Step = PathAnchor | PathCertificate


def find_path(target: PathCertificate, search: Search, budget: Budget | None = None) -> ValidPath:
    """A path from an anchor to `target` that satisfies section 6.1, the profile and `search.accept`.

    `budget` is what is left where several searches serve one validation; a new one of `search.limits` if left out.
    Raises NotTrusted with the reason why the likeliest path fails, Malformed for an unreadable key or algorithm,
    LimitExceeded(BUDGET_EXHAUSTED) when the search costs more than `search.limits`.
    """
    return _Walk(target, search, budget or Budget(search.limits)).run()


class _Walk:
    """One depth-first search; lives for one call."""

    def __init__(self, target: PathCertificate, search: Search, budget: Budget) -> None:
        self._search = search
        self._target = target
        self._budget = budget
        self._edges: dict[tuple[bytes, bytes], VagusError | None] = {}
        # why the first complete path was refused: the error if no other path is good
        self._refusal: VagusError | None = None
        self._edge_fault: VagusError | None = None  # the first signature that failed, likewise

    def run(self) -> ValidPath:
        # Depth-first search with backtracking (RFC 4158). `path` runs from the target to the newest certificate.
        # `branches` holds for each of them the issuers that are not tried yet, and `on_path` the identities of `path`,
        # so that no certificate comes twice. The three grow and shrink together.
        path = [self._target]
        on_path = {self._identity(self._target)}
        branches: list[Iterator[_Step]] = [self._steps_from(self._target)]
        while branches:
            step = next(branches[-1], None)
            # every issuer of the newest certificate was tried: remove it, and continue with the one before
            if step is None:
                branches.pop()
                on_path.discard(self._identity(path.pop()))
                continue
            self._budget.spend_step()
            if isinstance(step, PathAnchor):
                found = self._try_anchor(path, step)
                if found is not None:
                    return found
            elif self._leads_on(step, path, on_path):
                path.append(step)
                on_path.add(self._identity(step))
                branches.append(self._steps_from(step))
        raise self._refusal or self._edge_fault or self._no_path()

    def _leads_on(self, step: PathCertificate, path: list[PathCertificate], on_path: set[tuple[Name, bytes]]) -> bool:
        if self._identity(step) in on_path or len(path) >= LONGEST_CHAIN:
            return False
        # Self-issued certificates do not count towards the path length (RFC 5280 6.1.4 (l)), but LONGEST_CHAIN bounds
        # them too.
        counted = sum(not one.is_self_issued for one in (*path[1:], step))
        if counted > self._search.inputs.longest_path:
            return False
        return self._has_signed(step.spki_der, step.spki_sha256, path[-1])

    @staticmethod
    def _identity(certificate: PathCertificate) -> tuple[Name, bytes]:
        """RFC 4158 2.4.2: the same name with the same key never helps a second time."""
        return certificate.subject.relative_names, certificate.spki_sha256

    def _steps_from(self, tip: PathCertificate) -> Iterator[_Step]:
        """Possible issuers of `tip`, the likeliest first (RFC 4158 3.5): anchors, then by key identifier and date."""
        issuer = tip.issuer
        yield from self._search.pool.anchors_named(issuer)
        known = self._search.pool.certificates_named(issuer)
        sent = self._search.extra.certificates_named(issuer)
        # Sort only where there is a choice; most certificates have one possible issuer.
        if len(known) + len(sent) > 1:
            wanted = tip.authority_key_id.key_id if tip.authority_key_id is not None else None
            at = self._search.inputs.at
            yield from sorted((*known, *sent), key=lambda one: _unlikeliness(one, wanted, at))
        else:
            yield from known
            yield from sent

    def _has_signed(self, spki_der: bytes, spki_sha256: bytes, child: PathCertificate) -> bool:
        """6.1.3 (a)(1), each (certificate, key) once. A failure is stored and rules out this pair only."""
        # A bundle of cross-certificates has few distinct (certificate, key) pairs but very many paths. Storing the
        # result of each pair bounds the signatures, the most costly step an attacker could provoke.
        edge = (child.sha256, spki_sha256)
        if edge not in self._edges:
            self._budget.spend_signature()
            self._edges[edge] = None
            try:
                self._verify(spki_der, spki_sha256, child)
            except LimitExceeded:
                raise
            except VagusError as fault:
                self._edges[edge] = fault
                self._edge_fault = self._edge_fault or fault
        return self._edges[edge] is None

    def _verify(self, spki_der: bytes, spki_sha256: bytes, child: PathCertificate) -> None:
        # RFC 5280 4.1.1.2: the two algorithm identifiers of a certificate are the same.
        if child.algorithm_der != child.inner_algorithm_der:
            msg = f"certificate {child.label} names two signature algorithms, inside and outside (RFC 5280 4.1.1.2)"
            raise NotTrusted(Reason.SIG_ALG_MISMATCH, msg, certificate=child.label)
        self._search.verdicts.verify(
            child.sha256,
            spki_sha256,
            spki_der,
            (child.algorithm_der, child.signature, child.tbs_der),
            unsafe_legacy=self._search.rules.unsafe_legacy,
        )

    def _try_anchor(self, path: list[PathCertificate], anchor: PathAnchor) -> ValidPath | None:
        if not self._has_signed(anchor.spki_der, anchor.spki_sha256, path[-1]):
            return None
        self._budget.spend_path()
        search = self._search
        try:
            policies = check_path(
                anchor.certificate, path[::-1], search.rules, search.inputs, self._budget, search.descents
            )
            found = ValidPath(tuple(path), anchor, policies)
            if search.accept is not None:
                search.accept(found)
        except (NotTrusted, Malformed) as refusal:
            if refusal.reason in _FINAL or (refusal.reason is Reason.REVOKED_CA and search.rules.bans_revoked_keys):
                raise
            self._refusal = self._refusal or refusal
            return None
        return found

    def _no_path(self) -> VagusError:
        """Why no path reached an anchor: the target imitates one, is self-issued, or has no known issuer."""
        target = self._target
        if self._search.pool.anchors_named(target.subject) or self._search.pool.anchors_named(target.issuer):
            msg = f"certificate {target.label} has an anchor's name, but no anchor's key signed it"
            return NotTrusted(
                Reason.UNTRUSTED_ANCHOR, f"{msg}; the certificate imitates the anchor", certificate=target.label
            )
        if target.is_self_issued:
            msg = f"certificate {target.label} is self-issued and no anchor here; add its issuer's root if you trust it"
            return NotTrusted(Reason.UNTRUSTED_ANCHOR, msg, certificate=target.label)
        msg = f"no path leads from certificate {target.label} to an anchor; send the intermediates or add the root"
        return NotTrusted(Reason.NO_PATH, msg, certificate=target.label)


def _unlikeliness(certificate: PathCertificate, wanted: bytes | None, at: datetime) -> tuple[bool, bool, bool]:
    key_id, usage = certificate.subject_key_id, certificate.key_usage
    may_sign = certificate.is_ca and (usage is None or bool(usage & ext.UsageBit.KEY_CERT_SIGN))
    is_in_date = certificate.not_before <= at <= certificate.not_after
    return wanted is not None and key_id is not None and key_id != wanted, not may_sign, not is_in_date
