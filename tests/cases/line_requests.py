"""Requests on a maker's line: every file is reported by name, each valid one is signed, whatever lies beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.cases.case import Case, Check, Observation
from tests.cases.workshop import Workshop
from tests.simulator import plans
from tests.simulator.orders import new_key, signing_request
from tests.simulator.running import Outcome, done
from vagus.errors import VagusError
from vagus.x509 import der
from vagus.x509.names.distinguished import read_attributes
from vagus.x509.pem import REQUEST, decode_blocks, encode_block, list_labels

_SUFFIX = ".csr"
_TWIN = "TWIN-7"


def _requests(case: Case) -> dict[str, bytes]:
    """The requests by serial number, which is the file's name."""
    return {name.removesuffix(_SUFFIX): content for name, content in case.matching(_SUFFIX).items()}


def _maker(workshop: Workshop) -> Path:
    """A maker whose plan counts none of the serial numbers: a list names them."""
    folder = workshop.scratch() / "maker"
    done(folder, "init", "--kind", "maker", "--unsafe-fast-kdf")
    plan = folder.parent / "maker.toml"
    plan.write_text(plans.maker_plan(models=[plans.model(maker="", prefix="NONE")]))
    done(folder, "plan", "apply", str(plan), "--yes", "--ceremony")
    return folder


def _sign(workshop: Workshop, maker: Path, requests: Mapping[str, bytes]) -> tuple[Outcome, dict[str, dict[str, str]]]:
    """What the line reports of these requests, by file."""
    place = workshop.scratch()
    for serial, content in requests.items():
        (place / f"{serial}{_SUFFIX}").write_bytes(content)
    listed = place / "list.csv"
    listed.write_text("serial\n" + "".join(f"{serial}\n" for serial in requests))
    words = (
        "--requests",
        str(place),
        "--serials",
        str(listed),
        "--out",
        str(maker.parent / "out"),
        "--ignore-names",
        "--csv",
    )
    outcome = workshop.vagus("maker", "make-idevids", *words, folder=maker)
    return outcome, {row["file"]: row for row in csv.DictReader(io.StringIO(outcome.out))}


def is_sound(content: bytes) -> bool:
    """Whether a P-256 request verifies with its own key, by the library's primitives, whatever its encoding says."""
    try:
        (request,) = decode_blocks(content, REQUEST)
        (_, info, info_der), _, (_, signature, _) = der.split_elements(der.content_of(request, der.SEQUENCE))
        key = load_der_public_key(der.split_elements(info)[2][2])
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature[1:], info_der, ec.ECDSA(hashes.SHA256()))
    except (VagusError, ValueError, AssertionError, InvalidSignature):
        return False
    return True


def names_another(content: bytes, serial: str, others: Iterable[str]) -> bool:
    """Whether the subject of a request has the serial number of another file."""
    (request,) = decode_blocks(content, REQUEST)
    info = der.split_elements(der.content_of(request, der.SEQUENCE))[0][1]
    subject = read_attributes(der.split_elements(info)[1][2])
    found = {one.text.strip().casefold() for attributes in subject for one in attributes}
    return bool(found & {one.casefold() for one in others if one != serial})


def _observe_line(case: Case, workshop: Workshop) -> Iterator[Observation]:
    maker, requests = _maker(workshop), _requests(case)
    good = signing_request(new_key(), x509.Name([]))
    twins = {_TWIN: encode_block(good, REQUEST), f"{_TWIN}1": encode_block(good[:-1] + bytes([good[-1] ^ 1]), REQUEST)}
    outcome, rows = _sign(workshop, maker, {**requests, **twins})
    yield Observation("the exit code beside a broken file", str(outcome.code), "1", outcome.code == 1)
    for serial, content in {**requests, **twins}.items():
        is_good = is_sound(content) and not names_another(content, serial, requests)
        row, right = rows.get(f"{serial}{_SUFFIX}"), "signed" if is_good else "refused"
        seen = "no row" if row is None else f"{row['state']} {row['message']}"
        is_named = (
            row is not None and row["state"] == right and (right == "signed" or row["message"].startswith(serial))
        )
        yield Observation(f"{serial}{_SUFFIX}", seen, f"{right}, by name", is_named)
    signed = [serial for serial in {**requests, **twins} if rows[f"{serial}{_SUFFIX}"]["state"] == "signed"]
    again, known = _sign(workshop, maker, {serial: {**requests, **twins}[serial] for serial in signed})
    states = sorted({row["state"] for row in known.values()})
    yield Observation("a repeat of what was signed", f"{again.code} {states}", "0 ['known']", states == ["known"])


def _observe_labels(case: Case, workshop: Workshop) -> Iterator[Observation]:
    maker = _maker(workshop)
    for serial, content in _requests(case).items():
        labels = list_labels(content)
        _, rows = _sign(workshop, maker, {serial: content})
        (row,) = rows.values()
        seen = f"{row['state']} {row['message']}"
        is_told = row["state"] == "signed" or any(one in row["message"] for one in labels)
        yield Observation(f"a block {labels[0]}", seen, "signed, or refused with the label", is_told)
    for label, right in ((REQUEST, "signed"), ("NEW CERTIFICATE REQUEST", "signed"), ("PRIVATE KEY", "refused")):
        request = signing_request(new_key(), x509.Name([]))
        _, rows = _sign(workshop, maker, {f"{_TWIN}{len(label)}": encode_block(request, label)})
        (row,) = rows.values()
        is_right = row["state"] == right and (right == "signed" or label in row["message"])
        yield Observation(f"a twin with {label}", f"{row['state']} {row['message']}", right, is_right)


def _has_labels(case: Case) -> bool:
    found = [list_labels(content) for content in _requests(case).values()]
    return any(labels and labels[0] != REQUEST for labels in found)


CHECKS = (
    Check("requests on a line", lambda case: bool(_requests(case)), _observe_line),
    Check("PEM labels of requests", _has_labels, _observe_labels),
)
