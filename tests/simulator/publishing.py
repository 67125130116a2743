"""A hospital that has published its status, as a client fetches it; a test may spoil what it fetches."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.simulator.installation import BY, H1, ROOT, STATUS_URL, Installation, new_installation
from tests.simulator.installation import ICU as PLANNED_ICU
from vagus.authority.crls.published import PublishedCrls
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.issuers import Issuer, OpenIssuers
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, open_responders
from vagus.authority.ocsp.responses import OcspResponses
from vagus.endpoints.revocation_status import OCSP_STATUS, encode_ocsp_error
from vagus.errors import Unavailable, VagusError
from vagus.monitoring.prober import Prober, ProbeReport
from vagus.reasons import Reason
from vagus.records.engine.database import open_database
from vagus.records.publications import COMPLETE
from vagus.testing import FrozenClock, SeededEntropy
from vagus.x509 import der
from vagus.x509.certificates import PathCertificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.ocsp.building import cert_id

ICU = "h1/icu"


@dataclass
class PublishedHospital:
    """An installation whose unit h1/icu has published CRLs and OCSP responses."""

    built: Installation
    issuers: OpenIssuers
    responses: OcspResponses
    crls: PublishedCrls
    spoiled: dict[str, Callable[[bytes], bytes | None]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    @property
    def icu(self) -> Issuer:
        return self.issuers[ICU]

    def fetch(self, url: str, body: bytes | None = None) -> bytes:
        """What is handed out at `url`, unless a test spoiled it."""
        self.fetched.append(url)
        content: bytes | None
        place, _, asked = url.partition("/ocsp/")
        if asked:
            url, body = f"{place}/ocsp", base64.b64decode(unquote(asked), validate=True)
        if body is not None:
            try:
                content = self.responses.respond(body, self.built.clock.now()).response_der
            except VagusError as error:
                content = encode_ocsp_error(OCSP_STATUS[error.reason])
        elif url.startswith(f"{STATUS_URL}/ca/"):
            slug, name = url.removeprefix(f"{STATUS_URL}/ca/").split("/")
            content = self.crls.find_certificate(slug.replace(".", "/"), int(name.removesuffix(".cer")))
        else:
            slug, generation, name = url.removeprefix(f"{STATUS_URL}/crl/").split("/")
            stem, is_delta = name.removesuffix(".crl").removesuffix(".delta"), ".delta." in name
            shard = COMPLETE if stem == "complete" else int(stem)
            found = self.crls.find_crl(slug.replace(".", "/"), int(generation), shard, is_delta=is_delta)
            content = None if found is None else found.crl_der
        if url in self.spoiled and content is not None:
            content = self.spoiled[url](content)
        if content is None:
            raise Unavailable(Reason.STATUS_UNAVAILABLE, f"{url}: it answers with HTTP status 404", status=404)
        return content

    def prober(self, *, notes: bool = True, through_caches: bool = False) -> Prober:
        built = self.built
        return Prober(
            built.pack,
            built.database,
            built.clock,
            built.entropy,
            self.fetch,
            status_url=STATUS_URL,
            writer=built.writer if notes else None,
            through_caches=through_caches,
        )

    def probe(self, **how: bool) -> ProbeReport:
        return self.prober(**how).probe()

    def publish(self) -> None:
        for issuer in self.issuers.every():
            self.built.publisher.publish_due(issuer)
        self.responses.follower.catch_up()

    def issue(self) -> IssuedCertificate:
        issued = self.built.issue(self.issuers)
        self.built.settle()
        return issued

    def revoke(self, issued: IssuedCertificate, reason: RevocationReason = RevocationReason.SUPERSEDED) -> None:
        self.built.revocations.revoke(issued.issuer.authority_id, issued.serial, reason, by=BY).result()

    def advance(self, **by: float) -> None:
        self.built.advance(**by)
        self.responses.follower.catch_up()

    def place(self, name: str) -> str:
        return f"{STATUS_URL}/crl/h1.icu/1/{name}.crl"


def question_der(issuer: PathCertificate, serial: int) -> bytes:
    """The OCSPRequest for one certificate, without a nonce, as common clients write it."""
    return der.sequence(der.sequence(der.sequence(der.sequence(cert_id(issuer.subject.der, issuer.spki_der, serial)))))


def first_publication(built: Installation) -> None:
    """Root, h1 and h1/icu certified, every CRL published, the responder made."""
    built.build(ROOT, H1, PLANNED_ICU)
    issuer = built.issuers(ICU)[ICU]
    built.renew_responder(issuer)
    built.publisher.publish_due(issuer)


def make_template(folder: Path) -> Path:
    """A hospital on disk that has published. For copies."""
    folder.mkdir()
    with new_installation(folder, f"sqlite:///{folder}/vagus.sqlite3") as built:
        first_publication(built)
    return folder


def open_publishing(built: Installation) -> PublishedHospital:
    """What an installation publishes, followed from now on."""
    database, clock = built.database, built.clock
    with database.reading() as connection:
        responders = open_responders(connection, built.keystore(OCSP_KEYSTORE))
    responses = OcspResponses(database, built.follower(), built.pack.ocsp, responders)
    return PublishedHospital(built, built.issuers(ICU), responses, PublishedCrls(database, clock))


@contextmanager
def published_hospital(template: Path, folder: Path) -> Iterator[PublishedHospital]:
    """A copy of the template in `folder`, opened at the moment in which it was made."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    database = open_database(f"sqlite:///{folder}/vagus.sqlite3")
    built = Installation(folder, database, FrozenClock(), SeededEntropy(2))
    with built.writer:
        yield open_publishing(built)
    database.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every published hospital is copied from; founded once for each test process."""
    return make_template(tmp_path_factory.mktemp("published") / "template")


@pytest.fixture
def clinic(template: Path, tmp_path: Path) -> Iterator[PublishedHospital]:
    """One of its own for each test."""
    with published_hospital(template, tmp_path) as made:
        yield made
