"""The one table of moves: every law of a device's life holds for every sequence of wishes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Conflict, Malformed
from vagus.fleet import lifecycle
from vagus.fleet.lifecycle import DeviceState
from vagus.reasons import Reason

STATES = st.sampled_from(list(DeviceState))


def _walk(wishes: list[DeviceState]) -> list[DeviceState]:
    """The states that a device really goes through when `wishes` are asked of it."""
    walked = [DeviceState.MANUFACTURED]
    for wish in wishes:
        try:
            lifecycle.check_move(walked[-1], wish)
        except Conflict as error:
            assert error.reason is Reason.DEVICE_STATE
        else:
            walked.append(wish)
    return walked


@given(st.lists(STATES, max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_sequence_of_wishes_reaches_service_without_being_commissioned(wishes: list[DeviceState]) -> None:
    walked = _walk(wishes)
    if DeviceState.IN_SERVICE in walked:
        assert DeviceState.COMMISSIONED in walked[: walked.index(DeviceState.IN_SERVICE)]


@given(st.lists(STATES, max_size=60))
@settings(max_examples=150, deadline=None)
def test_nothing_comes_back_from_the_end(wishes: list[DeviceState]) -> None:
    walked = _walk(wishes)
    ended = [state in lifecycle.HAS_ENDED for state in walked]
    assert ended == sorted(ended)


@given(st.lists(STATES, max_size=60))
@settings(max_examples=100, deadline=None)
def test_disposed_is_reached_only_after_sanitising(wishes: list[DeviceState]) -> None:
    walked = _walk(wishes)
    if DeviceState.DISPOSED in walked:
        assert walked[walked.index(DeviceState.DISPOSED) - 1] is DeviceState.SANITISED


def test_every_state_has_its_row_and_can_be_reached() -> None:
    assert set(lifecycle.MOVES) == set(DeviceState)
    reached = {DeviceState.MANUFACTURED}
    for _ in DeviceState:
        reached |= {after for before in reached for after in lifecycle.MOVES[before]}
    assert reached == set(DeviceState)


def test_every_living_device_can_be_recalled_or_decommissioned() -> None:
    for state in set(DeviceState) - lifecycle.HAS_ENDED - {DeviceState.RECALLED}:
        assert lifecycle.MOVES[state] >= {DeviceState.RECALLED, DeviceState.DECOMMISSIONED}


def test_the_suspected_and_the_ended_obtain_nothing() -> None:
    barred = lifecycle.HAS_ENDED | {DeviceState.QUARANTINED, DeviceState.RECALLED}
    for allowed in (lifecycle.MAY_ENROL, lifecycle.MAY_RENEW, lifecycle.MAY_CONNECT):
        assert not allowed & barred


def test_an_illegal_move_names_the_legal_ones() -> None:
    with refuses(Reason.DEVICE_STATE, Conflict, match=r"commissioned, decommissioned, recalled"):
        lifecycle.check_move(DeviceState.RECEIVED, DeviceState.IN_SERVICE)


def test_a_refused_act_names_the_states_that_may() -> None:
    lifecycle.check_may(DeviceState.IN_SERVICE, lifecycle.MAY_RENEW, "renew")
    with pytest.raises(Conflict, match=r"quarantined.*may renew") as caught:
        lifecycle.check_may(DeviceState.QUARANTINED, lifecycle.MAY_RENEW, "renew")
    assert caught.value.facts["state"] == "quarantined"


def test_states_are_read_as_people_write_them() -> None:
    assert lifecycle.decode_state("in-service") is DeviceState.IN_SERVICE
    assert reason_of(lifecycle.decode_state, "asleep", error=Malformed) is Reason.BAD_ARGUMENT
