"""Issuing in one process: the pure part of it, and a batch of requests on a maker's line, durable and logged."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.rig.installation import UNIT, hospital, maker, open_installation
from bench.rig.limits import REFERENCE_ISSUANCE, fsync_note, fsync_seconds, issuance_limit
from bench.rows import Row, cpu_rate
from vagus.authority.issuance import Issuance, IssuanceOrder
from vagus.fleet.line.selection import LineSelection
from vagus.fleet.line.signing import LineFile, LineState
from vagus.identifiers import DeviceId
from vagus.records.engine.writer import Batch, Writer
from vagus.x509.names.distinguished import SubjectFields
from vagus.x509.requests import decode_request

_BIRTHS = 4_000


def new_request() -> bytes:
    """A device's CSR, DER, with a new P-256 key."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def rows() -> list[Row]:
    """Rows 1 and 4 of design section 9."""
    limit = issuance_limit()
    return [_pure(limit), _bulk(limit)]


class _NoDisk:
    """Takes the place of the writer and drops what it is given: what is measured is everything but the disk."""

    def submit(self, _act: Callable[[Batch], object], *, is_patient: bool = False) -> Future[None]:  # noqa: ARG002
        done: Future[None] = Future()
        done.set_result(None)
        return done


def _pure(limit: float) -> Row:
    with hospital(1) as folder, open_installation(folder) as installation:
        issuer = installation.open_issuers([UNIT])[UNIT]
        issuance = Issuance(installation.pack, cast("Writer", _NoDisk()), installation.clock, installation.entropy)
        requests = itertools.cycle([new_request() for _ in range(500)])
        numbers = itertools.count()

        def issue() -> None:
            request = decode_request(next(requests))
            device = DeviceId.draw(installation.entropy)
            order = IssuanceOrder(
                request_id=f"bench-{next(numbers)}",
                profile="bedside",
                owner=f"device:{device}",
                device_id=str(device),
                public_key=request.public_key,
                subject=SubjectFields("Bench Hospital", "Intensive Care", str(device)),
                dns_names=(f"{device}.icu.h1.bench.example",),
            )
            prepared = issuance.prepare(order, issuer)
            # `record` returns the token at once; here it would be the disk that is measured.
            token = issuance._token(issuer, 0, prepared.serial, prepared.tbs_der)  # noqa: SLF001
            issuance.issue(token)

        figure = cpu_rate(issue, seconds=0.8, rounds=5)
    return Row(
        path="issue: decode CSR, policy, TBS, lints, sign; no I/O",
        figure=figure,
        unit="/CPU-s",
        limit_name="one verify + one sign",
        limit=limit,
        bar=4_000,
        reference_limit=REFERENCE_ISSUANCE,
        note="decode_request + prepare() + issue(), profile bedside, P-256",
    )


def _bulk(limit: float) -> Row:
    with maker() as folder, open_installation(folder) as installation:
        batch = [new_request() for _ in range(_BIRTHS)]
        disk = fsync_seconds(folder)
        wall, cpu = time.perf_counter(), time.process_time()
        serials = [f"AIP3-{number:06d}" for number in range(1, _BIRTHS + 1)]
        files = [LineFile(one, one, partial(bytes, request)) for one, request in zip(serials, batch, strict=True)]
        signed = installation.operations.maker_line.sign(
            installation.actor, files, LineSelection(), is_again=False, ignores_names=False
        )
        states = [one.state for one in signed]
        installation.writer.submit(lambda _: None).result()  # the last signatures are on the disk as well
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert states == [LineState.SIGNED] * _BIRTHS
    return Row(
        path="issue: bulk batch of CSRs, durable, logged",
        figure=_BIRTHS / cpu,
        unit="/CPU-s",
        limit_name="one verify + one sign",
        limit=limit,
        bar=2_500,
        reference_limit=REFERENCE_ISSUANCE,
        note=f"{_BIRTHS} IDevIDs on the maker's line; {_BIRTHS / wall:,.0f}/s wall; {fsync_note(disk)}",
    )
