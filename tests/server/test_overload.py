"""Under load, cached responses are sent, and requests that need a signature get tryLater at once."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from cryptography.hazmat.primitives import hashes

from tests.simulator.publishing import PublishedHospital
from tests.simulator.refusals import refuses
from tests.simulator.status_listeners import Busy, question
from vagus.endpoints.revocation_status import OCSP_STATUS
from vagus.errors import LimitExceeded
from vagus.reasons import Reason
from vagus.server.overload import LoadGauge, SheddingOcsp
from vagus.x509.ocsp.messages import ResponseStatus

sha256_question = partial(question, algorithm=hashes.SHA256())


def test_cached_responses_are_sent_and_others_are_put_off(clinic: PublishedHospital) -> None:
    gauge, now = Busy(), clinic.built.clock.now()
    source = SheddingOcsp(clinic.responses, gauge)
    seen, unseen = sha256_question(clinic.issue()), sha256_question(clinic.issue())
    before = source.respond(seen, now)
    source.respond(sha256_question(clinic.issue(), nonce=bytes(32)), now)
    gauge.now = True
    assert source.respond(seen, now) == before
    for request in (unseen, sha256_question(clinic.issue(), nonce=bytes(32)), b"junk"):
        with refuses(Reason.OVERLOADED, LimitExceeded) as caught:
            source.respond(request, now)
        assert OCSP_STATUS[caught.value.reason] is ResponseStatus.TRY_LATER
    assert gauge.turned_away == 3
    gauge.now = False
    source.respond(unseen, now)


def test_a_response_signed_ahead_is_sent_under_load_to_the_first_client(clinic: PublishedHospital) -> None:
    gauge, now = Busy(), clinic.built.clock.now()
    source, issued = SheddingOcsp(clinic.responses, gauge), clinic.issue()
    while clinic.responses.presign_slice(now):
        pass
    gauge.now = True
    assert source.respond(question(issued), now).next_update is not None
    assert gauge.turned_away == 0


def test_a_loop_that_turns_is_not_behind_and_one_that_is_stuck_is() -> None:
    async def turn() -> tuple[bool, bool]:
        gauge = LoadGauge(0.05)
        gauge.start()
        gauge.start()
        await asyncio.sleep(0.1)
        time.sleep(0.2)  # noqa: ASYNC251  this is what overload looks like to a loop
        stuck = gauge.is_behind
        for _ in range(50):
            await asyncio.sleep(0.02)
            if not gauge.is_behind:
                break
        return stuck, gauge.is_behind

    assert asyncio.run(turn()) == (True, False)


def test_a_gauge_that_was_never_started_sees_no_load() -> None:
    gauge = LoadGauge(0.0)
    time.sleep(0.001)
    assert not gauge.is_behind
