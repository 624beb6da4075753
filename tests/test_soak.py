"""A taste of the soak (`python -m tests.soak`): two minutes of dialogue with faults at random, a few times."""

from __future__ import annotations

import inspect

import pytest
import soak_faults
from soak import run_one
from soak_watch import LEAVING, SILENCE_S, Watch

from simulators.realtime_faults import Faults, FaultSwitches


@pytest.mark.parametrize("seed", range(1, 7))
def test_two_minutes_with_random_faults(seed: int) -> None:
    result = run_one(seed, 2.0)
    assert result.problems == []
    assert result.facts["responses"] > 0


def test_the_same_seed_is_the_same_call() -> None:
    first, second = run_one(11, 1.0), run_one(11, 1.0)
    assert (first.reason, first.minutes, first.facts) == (second.reason, second.minutes, second.facts)


# A manner that does not begin in mid call, and MCP, which has whole calls of its own.
NOT_AT_RANDOM = {"minimum_only"} | {name for name in vars(Faults()) if name.startswith("mcp_")}


def test_every_switch_of_the_simulator_is_thrown() -> None:
    thrown = inspect.getsource(soak_faults)
    methods = {name for name in vars(FaultSwitches) if not name.startswith("_")} - {"faults", "handshake", "faulty"}
    for name in methods:
        assert name in thrown, f"{name} is a fault that the soak never throws"
    for name in set(vars(Faults())) - NOT_AT_RANDOM:
        assert name in thrown + inspect.getsource(FaultSwitches), f"{name} is a switch that the soak never throws"


# The watch itself must be able to fail ----------------------------------------------------------------------------


class _Clock:
    now = 0.0


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr("soak_watch.trio.current_time", lambda: _Clock.now)
    _Clock.now = 0.0
    return Watch(lambda: False)


def _done(watch: Watch, *calls: str, status: str = "completed") -> None:
    output = [{"type": "function_call", "call_id": c, "name": "x", "status": "completed"} for c in calls]
    response = {"id": "R", "conversation_id": "C", "status": status, "output": output}
    watch.event("S", 1, {"type": "response.created", "response": response})
    watch.event("S", 1, {"type": "response.done", "response": response})


def _output(watch: Watch, call_id: str) -> None:
    item = {"type": "function_call_output", "call_id": call_id, "output": ""}
    watch.event("C", 1, {"type": "conversation.item.create", "item": item})


def test_silence_while_something_is_owed_is_found(watch: Watch) -> None:
    watch.event("C", 1, {"type": "response.create"})
    watch.frame(False, SILENCE_S - 0.1)
    assert watch.problems() == []
    watch.frame(False, SILENCE_S + 0.1)
    assert "silence" in watch.problems()[0]


def test_silence_while_nothing_is_owed_is_none(watch: Watch) -> None:
    _done(watch)
    watch.frame(False, 100.0)
    assert watch.problems() == []


def test_a_call_without_output_and_one_with_two_are_found(watch: Watch) -> None:
    _done(watch, "a", "b")
    _output(watch, "b")
    _output(watch, "b")
    _Clock.now = 60.0
    watch.event("S", 1, {"type": "input_audio_buffer.speech_started"})
    assert ["b got 2" in watch.problems()[0], "a of connection 1 got no output" in watch.problems()[1]] == [
        True,
        True,
    ]


def test_a_create_beside_a_response_is_found_unless_it_crossed(watch: Watch) -> None:
    response = {"id": "R", "conversation_id": "C"}
    refused = {"code": "conversation_already_has_active_response", "type": "", "message": ""}
    watch.event("S", 1, {"type": "response.created", "response": response})
    watch.event("S", 1, {"type": "error", "error": refused})
    assert watch.problems() == []
    _Clock.now = 3.0
    watch.event("S", 1, {"type": "error", "error": refused})
    assert "beside" in watch.problems()[0]


def test_a_refusal_is_found(watch: Watch) -> None:
    wrong = {"code": "invalid_value", "type": "invalid_request_error", "message": "Invalid 'item.id'."}
    watch.event("S", 1, {"type": "error", "error": wrong})
    assert "refused" in watch.problems()[0]
    assert "hang_up" in LEAVING
