"""When a response may be asked for, and which calls want an answer."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.tool_turns import ACTIVE_ALREADY, ToolTurns

Event = dict[str, Any]


def created(response_id: str = "R", **fields: Any) -> Event:
    return {"type": "response.created", "response": {"id": response_id, **fields}}


def done(response_id: str = "R", status: str = "completed", *output: Event) -> Event:
    return {"type": "response.done", "response": {"id": response_id, "status": status, "output": list(output)}}


def call(call_id: str, status: str | None = "completed", **fields: Any) -> Event:
    item = {"id": f"item_{call_id}", "type": "function_call", "name": "f", "call_id": call_id, "arguments": "{}"}
    return {**item, "status": status, **fields}


def item_done(item: Event, response_id: str = "R") -> Event:
    return {"type": "response.output_item.done", "response_id": response_id, "item": item}


def error(code: str | None, event_id: str | None = None) -> Event:
    return {"type": "error", "error": {"code": code, "event_id": event_id}}


def after(*events: Event) -> ToolTurns:
    turns = ToolTurns()
    for event in events:
        turns.server_event(event)
    return turns


def request(turns: ToolTurns, event_id: str = "e") -> object:
    return turns.request(event_id)


def test_nothing_is_asked_for_unless_it_is_wanted() -> None:
    turns = ToolTurns()
    assert request(turns) is None
    turns.want({})
    assert request(turns) == {}
    assert request(turns) is None


def test_what_is_wanted_during_a_response_waits_and_bare_wishes_are_one() -> None:
    turns = after(created())
    for fields in ({}, {}, {"instructions": "a"}, {}):
        turns.want(fields)
    assert request(turns) is None
    asked = []
    for number in range(4):
        turns.server_event(done(f"R{number}" if number else "R"))
        asked.append(request(turns))
        turns.server_event(created(f"R{number + 1}"))
    assert asked == [{}, {"instructions": "a"}, {}, None]


@pytest.mark.parametrize("event_id", ["e", None])
def test_a_refused_request_is_made_again_when_the_active_one_is_done(event_id: str | None) -> None:
    turns = ToolTurns()
    turns.want({"instructions": "a"})
    request(turns)
    turns.server_event(created("theirs"))  # the server was first
    turns.want({"instructions": "b"})
    turns.server_event(done("theirs"))
    assert request(turns) == {"instructions": "b"}
    turns.server_event(error(ACTIVE_ALREADY, event_id))
    assert request(turns) is None  # of which response we know nothing: not in a loop
    turns.server_event(done("unseen"))
    assert request(turns) == {"instructions": "b"}


@pytest.mark.parametrize("fields", [{}, {"instructions": "a"}])
@pytest.mark.parametrize("event_id", ["e", None])
def test_a_response_of_the_servers_own_that_overtook_ours_is_told_from_it(
    fields: dict[str, str], event_id: str | None
) -> None:
    turns = ToolTurns()
    turns.want(fields)
    request(turns)
    for event in (created("theirs"), error(ACTIVE_ALREADY, event_id)):
        turns.server_event(event)
    assert request(turns) is None
    turns.server_event(done("theirs"))
    assert request(turns) == fields
    turns.server_event(created("ours"))
    turns.server_event(done("ours"))
    # What is refused after our response was done is not ours.
    for event in (error(ACTIVE_ALREADY, None), created("another"), done("another")):
        turns.server_event(event)
    assert request(turns) is None


@pytest.mark.parametrize(
    ("code", "event_id", "free"),
    [("invalid_value", "e", True), ("invalid_value", None, True), ("invalid_value", "other", False)],
)
def test_a_request_that_was_refused_for_good_blocks_nothing(code: str, event_id: str | None, free: bool) -> None:
    turns = ToolTurns()
    turns.want({"instructions": "a"})
    request(turns)
    turns.server_event(error(code, event_id))
    turns.want({"instructions": "b"})
    assert (request(turns) is not None) is free


def test_a_request_by_hand_counts_and_its_refusal_is_nothing_to_repeat() -> None:
    turns = ToolTurns()
    turns.client_event({"type": "response.create", "event_id": "mine"})
    turns.want({"instructions": "a"})
    assert request(turns) is None
    turns.server_event(error(ACTIVE_ALREADY, "mine"))
    assert request(turns) == {"instructions": "a"}


def test_a_response_apart_is_not_the_active_one() -> None:
    turns = ToolTurns()
    turns.client_event({"type": "response.create", "response": {"conversation": "none"}})
    for event in (created("X", conversation_id=None), item_done(call("c"), "X")):
        turns.server_event(event)
    assert (turns.active, turns.calls()) == ("", [])
    turns.want({})
    assert request(turns) == {}
    turns.server_event(done("X", "completed", call("c")))
    assert turns.requested


def test_a_call_counts_once_wherever_it_is_mentioned() -> None:
    turns = after(created(), item_done(call("c1")), done("R", "completed", call("c1"), call("c2")), done("R"))
    made = turns.calls()
    assert [(it.call_id, it.name, it.arguments, it.response_id) for it in made] == [
        ("c1", "f", "{}", "R"),
        ("c2", "f", "{}", "R"),
    ]
    assert turns.calls() == []


@pytest.mark.parametrize(
    "item", [call("c", "incomplete"), call("c", "in_progress"), call(""), call("c", type="message"), {}]
)
def test_what_is_no_whole_call_is_none(item: Event) -> None:
    assert after(created(), item_done(item)).calls() == []


@pytest.mark.parametrize("status", ["completed", None])
def test_arguments_as_an_object_and_a_status_that_is_not_said(status: str | None) -> None:
    turns = after(created(), item_done(call("c", status, arguments={"a": 1})))
    assert [it.arguments for it in turns.calls()] == ['{"a":1}']


@pytest.mark.parametrize(
    ("status", "asks"), [("completed", True), ("incomplete", True), ("cancelled", False), ("failed", False)]
)
@pytest.mark.parametrize("late", [False, True])
def test_one_request_follows_all_outputs_of_a_response_that_nobody_stopped(
    status: str, asks: bool, late: bool
) -> None:
    turns = after(created(), item_done(call("c1")), item_done(call("c2")))
    assert turns.answered("c1")
    if late:
        turns.server_event(done("R", status))
        assert request(turns) is None
        turns.answered("c2")
    else:
        turns.answered("c2")
        assert request(turns) is None
        turns.server_event(done("R", status))
    assert (request(turns) == {}) is asks
    assert request(turns) is None


def test_an_output_is_given_once() -> None:
    turns = after(created(), item_done(call("c")))
    assert turns.is_open("c")
    assert [turns.answered("c"), turns.answered("c"), turns.answered("x")] == [True, False, False]


def test_idle_is_when_nothing_more_comes_by_itself() -> None:
    turns = ToolTurns()
    idle = [turns.idle]
    for event in (created(), item_done(call("c")), done()):
        turns.server_event(event)
        idle.append(turns.idle)
    turns.answered("c")
    idle.append(turns.idle)
    request(turns)
    idle.append(turns.idle)
    for event in (created("R2"), done("R2")):
        turns.server_event(event)
        idle.append(turns.idle)
    assert idle == [True, False, False, False, False, False, False, True]


def test_outputs_wait_while_the_caller_speaks_and_the_answer_to_the_turn_covers_them() -> None:
    started, stopped = ({"type": f"input_audio_buffer.speech_{it}"} for it in ("started", "stopped"))
    turns = after(created(), item_done(call("c")), done(), started)
    turns.answered("c")
    assert request(turns) is None
    turns.server_event(stopped)
    assert request(turns) is None


def test_without_answers_of_the_server_we_ask_when_the_caller_has_finished() -> None:
    detection = {"type": "server_vad", "create_response": False}
    session = {"audio": {"input": {"turn_detection": detection}}}
    turns = after({"type": "session.updated", "session": session}, created(), item_done(call("c")), done())
    turns.server_event({"type": "input_audio_buffer.speech_started"})
    turns.answered("c")
    assert request(turns) is None
    turns.server_event({"type": "input_audio_buffer.speech_stopped"})
    assert request(turns) == {}


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [7]])
def test_no_event_whatever_it_holds_raises(value: object) -> None:
    turns = ToolTurns()
    kinds = ("response.created", "response.output_item.done", "response.done", "error", "session.updated")
    for kind in kinds:
        for name in ("response", "response_id", "item", "error", "session"):
            turns.server_event({"type": kind, name: value})
        turns.server_event({"type": kind, "response": {"output": value, "id": value, "status": "completed"}})
        turns.server_event({"type": kind, "item": {"type": "function_call", "call_id": "c", "arguments": value}})
    turns.client_event({"type": "response.create", "response": value})
