"""Validation of the 3-certificate P-256 chain beside the library's verifier and pyOpenSSL; opens no TLS."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store
from OpenSSL import crypto
from tests.x509 import chains
from tests.x509.chains import AT, Made

from bench.rig.limits import REFERENCE_VERIFY
from bench.rows import Row
from vagus.identifiers import DeviceId
from vagus.testing import SeededEntropy
from vagus.trust.anchors import AnchorSet
from vagus.trust.crl_status import CrlStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509.certificates import CertificateCache
from vagus.x509.der import oid_contents
from vagus.x509.paths.policies import PolicyInputs
from vagus.x509.paths.search import PathAnchor, Pool
from vagus.x509.signatures import SignatureVerdicts

_GROUP = "five-hospitals.example"
_POLICY = "1.3.6.1.4.1.32473.5.1"
_LEAVES = 300
_WANTED = Expectation(
    role=Role.CLIENT,
    group_domain=_GROUP,
    units=frozenset({"h1/icu"}),
    policy=PolicyInputs(acceptable=frozenset({oid_contents(_POLICY)}), require_explicit=True),
)


def _chain(count: int) -> tuple[Made, Made, list[Made]]:
    """A root, a constrained issuing CA, and devices, all with policies."""
    root = chains.root("O=Five Hospitals,CN=Root", private=chains.key("p256", 900))
    issuing = root.ca(
        "O=Harbour,OU=ICU,CN=Issuing CA",
        chains.policies(_POLICY),
        chains.constraints(
            [("dns", f"icu.h1.{_GROUP}"), ("uri", "none.invalid"), ("email", "none.invalid")],
            [("ip", bytes(8)), ("ip", bytes(32))],
        ),
        chains.crl_points(chains.point(chains.point_name(("uri", "http://status.example/crl/root/1/0.crl")))),
        path_length=0,
        private=chains.key("p256", 901),
    )
    entropy = SeededEntropy(3)
    leaves = [
        issuing.leaf(
            chains.san(("dns", f"{DeviceId.draw(entropy)}.icu.h1.{_GROUP}")),
            chains.policies(_POLICY),
            chains.crl_points(chains.point(chains.point_name(("uri", "http://status.example/crl/h1.icu/1/0.crl")))),
        )
        for _ in range(count)
    ]
    return root, issuing, leaves


def _status(root: Made, issuing: Made) -> CrlStatus:
    """Both CAs' CRLs, the issuing CA's with 2,000 entries."""
    pool = Pool([PathAnchor.from_certificate(root.parsed)], [issuing.parsed])
    status = CrlStatus(pool)
    listed = [chains.Listed(serial) for serial in range(1, 2001)]
    status.load(chains.crl(root), AT)
    status.load(chains.crl(issuing, listed), AT)
    return status


def _settle() -> None:
    """Keep the collector from walking through the bench's own chains in the middle of a round."""
    gc.collect()
    gc.freeze()


def _median_us(acts: Sequence[Callable[[], object]], rounds: int = 7) -> float:
    """Median over rounds of the mean CPU microseconds of one act; each act runs once in a round."""
    means = []
    for _ in range(rounds):
        _settle()
        start = time.process_time()
        for act in acts:
            act()
        means.append((time.process_time() - start) / len(acts) * 1e6)
    return statistics.median(means)


def _forgetful(root: Made, status: CrlStatus) -> Validator:
    """A validator with nothing remembered of certificates and signatures; the CRLs stay compiled."""
    return Validator(AnchorSet([root.anchor]), status, certificates=CertificateCache(), verdicts=SignatureVerdicts())


def rows() -> list[Row]:
    """Warm, cold and repeated validation, the peers on the same chain, and one bare signature check as the limit."""
    root, issuing, leaves = _chain(_LEAVES)
    sent = [issuing.der]
    status = _status(root, issuing)

    def warm(validator: Validator, leaf: Made) -> Callable[[], object]:
        return lambda: validator.validate(leaf.der, sent, _WANTED, AT)

    def cold(leaf: Made) -> Callable[[], object]:
        return lambda: _forgetful(root, status).validate(leaf.der, sent, _WANTED, AT)

    key = load_der_public_key(issuing.parsed.spki_der)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    verifying = key
    one = leaves[0].parsed

    def bare() -> None:
        verifying.verify(one.signature, one.tbs_der, ec.ECDSA(SHA256()))

    limit = _median_us([bare] * _LEAVES)
    # warm: the issuing CA is known, each leaf is new in each round
    warm_means = []
    for _ in range(7):
        validator = _forgetful(root, status)
        validator.validate(leaves[0].der, sent, _WANTED, AT)
        warm_means.append(_median_us([warm(validator, leaf) for leaf in leaves[1:]], rounds=1))
    warm_us = statistics.median(warm_means)
    cold_us = _median_us([cold(leaf) for leaf in leaves])
    again_us = _median_us([warm(validator, leaves[0])] * _LEAVES)
    return [
        _row("validation, warm (new leaf, known CA)", warm_us, "bare ECDSA verify", limit, 200, verifies=1),
        _row("validation, cold (nothing known)", cold_us, "2 bare ECDSA verifies", 2 * limit, 400, verifies=2),
        _row("validation, the same leaf again", again_us, "bare ECDSA verify", limit, None),
        _row(
            "validation, warm, beside pyca", warm_us, "pyca verifier (no CRL, no policies)", _pyca(root, sent, leaves)
        ),
        _row(
            "validation, warm, beside pyOpenSSL",
            warm_us,
            "pyOpenSSL (no CRL, no names)",
            _openssl(root, issuing, leaves),
        ),
    ]


def _row(
    path: str, figure: float, limit_name: str, limit: float, bar: float | None = None, *, verifies: int = 0
) -> Row:
    return Row(
        path=path,
        figure=figure,
        unit="us CPU",
        limit_name=limit_name,
        limit=limit,
        is_rate=False,
        bar=bar,
        reference_limit=verifies * 1e6 / REFERENCE_VERIFY or None,
        note="policies, constraints and compiled CRLs on every certificate",
    )


def _pyca(root: Made, sent: list[bytes], leaves: list[Made]) -> float:
    """The library's own verifier: only what it can; its name constraints know no URI, so a plain chain is built."""
    plain = root.ca("O=Harbour,OU=ICU,CN=Plain CA", private=chains.key("p256", 902))
    entropy = SeededEntropy(4)
    made = [
        plain.leaf(chains.san(("dns", f"{DeviceId.draw(entropy)}.icu.h1.{_GROUP}"))).der for _ in range(len(leaves))
    ]
    store = Store([x509.load_der_x509_certificate(root.der)])
    leaf_policy = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    builder = (
        PolicyBuilder()
        .store(store)
        .time(AT)
        .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaf_policy)
    )
    verifier = builder.build_client_verifier()
    intermediate = x509.load_der_x509_certificate(plain.der)
    assert sent

    def act(content: bytes) -> Callable[[], object]:
        return lambda: verifier.verify(x509.load_der_x509_certificate(content), [intermediate])

    return _median_us([act(content) for content in made])


def _openssl(root: Made, issuing: Made, leaves: list[Made]) -> float:
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(root.der)))
    store.set_time(AT)
    intermediate = crypto.X509.from_cryptography(x509.load_der_x509_certificate(issuing.der))

    def act(content: bytes) -> Callable[[], object]:
        def run() -> None:
            leaf = crypto.load_certificate(crypto.FILETYPE_ASN1, content)
            crypto.X509StoreContext(store, leaf, [intermediate]).verify_certificate()

        return run

    return _median_us([act(leaf.der) for leaf in leaves])


if __name__ == "__main__":
    for row in itertools.chain(rows()):
        print(f"{row.path:40} {row.figure:8.1f} us   {row.limit_name}: {row.limit:.1f} us   ratio {row.ratio:.2f}")
