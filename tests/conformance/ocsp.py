"""OpenSSL's OCSP responses: the scenarios of the manifest, and each response by the meaning of its file name."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.conformance.reading import pem_certificate
from tests.conformance.verdicts import Case, Expected, judge
from tests.x509.rule_sets import with_legacy_algorithms
from vagus.errors import NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.trust.status import issuer_in
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.ocsp.checks import OcspRules, check_response
from vagus.x509.ocsp.messages import decode_ocsp_response
from vagus.x509.paths.checks import PathInputs
from vagus.x509.paths.rules import PKIX
from vagus.x509.paths.search import PathAnchor, Pool, Search, find_path
from vagus.x509.signatures import SignatureVerdicts

_VERDICTS = SignatureVerdicts()
# everything here is signed with SHA-1; one responder has no nocheck, which RFC 6960 4.2.2.2.1 leaves to the client
_RULES = OcspRules(unsafe_legacy=True, requires_nocheck=False)


def run(folder: Path) -> Iterator[Case]:
    """The manifest's scenarios, then OpenSSL's own recipe over the files."""
    for case in json.loads((folder / "openssl-ocsp.json").read_text(encoding="utf-8")):
        expected = Expected.REFUSE if "error" in case else Expected.ACCEPT
        yield judge("ocsp-openssl", case["name"], expected, partial(_run_scenario, folder, case))
    yield from _run_recipe(folder)


def _certificate(folder: Path, name: str) -> PathCertificate:
    return decode_certificate(pem_certificate((folder / name).read_text(encoding="ascii")))


def _response(folder: Path, name: str) -> bytes:
    return base64.b64decode((folder / name).read_bytes())


def _run_scenario(folder: Path, case: dict[str, Any]) -> None:
    """Each certificate of the path that a given response speaks of must get `good`; at least the leaf must."""
    at = datetime.fromisoformat(case["moment"])
    anchor = PathAnchor.from_certificate(_certificate(folder, case["root"]))
    others = [_certificate(folder, name) for name in case.get("other_certs", ())]
    leaf = _certificate(folder, case["cert"])
    rules = replace(with_legacy_algorithms(PKIX), name="pkix with SHA-1")
    path = find_path(leaf, Search(Pool([anchor]), Pool((), others), rules, PathInputs(at=at), _VERDICTS))
    responses = [_response(folder, name) for name in case["ocsps"]]
    for index, certificate in enumerate(path.certificates[: len(responses)]):
        _check_one(certificate, issuer_in(path, index), responses, at)


def _check_one(certificate: PathCertificate, issuer: PathCertificate, responses: list[bytes], at: datetime) -> None:
    refusal: VagusError = NotTrusted(Reason.STATUS_UNAVAILABLE, "no response")
    for response in responses:
        try:
            check_response(response, certificate, issuer, at, _VERDICTS, _RULES)
        except VagusError as fault:
            refusal = refusal if fault.reason is Reason.OCSP_MISMATCH and len(responses) > 1 else fault
        else:
            return
    raise refusal


# what a prefix of the file name says is wrong in the response, and what one before an issuer's name says
_BAD_RESPONSES = ("ISOP", "WRID", "WINH", "WIKH", "WKDOSC", "ISDOSC")
_BAD_ISSUERS = {"WSNIC": Expected.REFUSE, "WKIC": Expected.REFUSE, "ISIC": Expected.ACCEPT}
# ISIC: the issuer's certificate bears a broken signature, but it is given as trusted; its key is right


def _run_recipe(folder: Path) -> Iterator[Case]:
    for chain in ("ND1", "ND2", "ND3", "D1", "D2", "D3"):
        subjects = [*folder.glob(f"{chain}_Cert_*.pem")]
        issuers = [*folder.glob(f"{chain}_Issuer_*.pem")]
        if not subjects or not issuers or not (folder / f"{chain}.ors").exists():
            continue
        subject, issuer = subjects[0].name, issuers[0].name
        yield _recipe_case(folder, chain, subject, issuer, Expected.ACCEPT)
        for prefix in _BAD_RESPONSES:
            if (folder / f"{prefix}_{chain}.ors").exists():
                yield _recipe_case(folder, f"{prefix}_{chain}", subject, issuer, Expected.REFUSE)
        for prefix, expected in _BAD_ISSUERS.items():
            if (folder / f"{prefix}_{issuer}").exists():
                yield _recipe_case(folder, chain, subject, f"{prefix}_{issuer}", expected)


def _recipe_case(folder: Path, response: str, subject: str, issuer: str, expected: Expected) -> Case:
    name = f"recipe: {response}.ors for {subject} with {issuer}"
    return judge("ocsp-openssl", name, expected, lambda: _check_file(folder, response, subject, issuer))


def _check_file(folder: Path, response: str, subject: str, issuer: str) -> None:
    response_der = _response(folder, f"{response}.ors")
    at = decode_ocsp_response(response_der).produced_at
    check_response(response_der, _certificate(folder, subject), _certificate(folder, issuer), at, _VERDICTS, _RULES)
