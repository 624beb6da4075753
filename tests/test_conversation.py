"""The dialogue, input by input: no clock, no network, every command compared."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from bridge.agent import Agent
from bridge.audio import PcmFormat
from bridge.call_events import Happening, UsageUpdated
from bridge.caller_keys import DIGIT_PAUSE_S
from bridge.caller_turns import SPEECH_MARGIN_S
from bridge.config import Limits
from bridge.conversation import Conversation
from bridge.destinations import Destination
from bridge.dialogue import (
    TRANSITIONS,
    AskApproval,
    CheckTransfer,
    ClearLegAudio,
    Command,
    DropSession,
    EndCall,
    Notice,
    OpenSession,
    ResendAudio,
    RunTool,
    SendEvent,
    State,
    Step,
    TransferCall,
)
from bridge.ending import EndReason
from bridge.errors import ModelProtocolError
from bridge.mcp_servers import McpServer
from bridge.playout import PlayoutQueue
from bridge.prices import load_prices
from bridge.usage import Usage

WIRE = PcmFormat(16000)
AGENT = Agent(instructions="Be kind.", greeting="Say hello.", transfers={"sales": Destination(to="600@phones")})


class Rig:
    """A conversation with its playout, and the server's side of the talk in short words."""

    def __init__(self, agent: Agent = AGENT, limits: Limits | None = None, lag_ms: int = 0, **more: Any) -> None:
        self.playout = PlayoutQueue(WIRE, 600_000)
        limits = limits or Limits(caller_silent_prompt_s=0)
        self.it = Conversation(agent, self.playout, limits, lag_ms=lag_ms, **more)
        self.now = 100.0
        self.it.session_update()
        self.it.connected(self.now, None)

    def server(self, type_: str, **fields: Any) -> list[Command]:
        return self.it.model_message(json.dumps({"type": type_, "event_id": "e", **fields}), self.now)

    def state(self) -> State:
        return self.it.state

    def created(self, response_id: str = "R1") -> list[Command]:
        return self.server("response.created", response={"id": response_id, "status": "in_progress", "output": []})

    def delta(self, ms: int, response_id: str = "R1", item_id: str = "A1") -> list[Command]:
        pcm = base64.b64encode(bytes(48 * ms)).decode()
        return self.server(
            "response.output_audio.delta", response_id=response_id, item_id=item_id, content_index=0, delta=pcm
        )

    def done(self, response_id: str = "R1", status: str = "completed", **fields: Any) -> list[Command]:
        response = {"id": response_id, "status": status, "output": [], "usage": None, **fields}
        return self.server("response.done", response=response)

    def words(self, text: str, item_id: str = "A1") -> list[Command]:
        return self.server("response.output_audio_transcript.done", item_id=item_id, transcript=text)

    def speech_started(self, item_id: str = "U1") -> list[Command]:
        return self.server("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=0)

    def speech_stopped(self) -> list[Command]:
        return self.server("input_audio_buffer.speech_stopped", item_id="U1", audio_end_ms=0)

    def play(self, ms: int) -> list[Command]:
        """Let the caller hear so many milliseconds."""
        commands: list[Command] = []
        for _ in range(ms // 20):
            self.now += 0.02
            if self.playout.next_frame() is not None:
                commands += self.it.playout_started(self.now)
            elif self.playout.idle:
                commands += self.it.playout_idle(self.now)
        return commands

    def greeted(self) -> Rig:
        """The greeting was asked for, generated, and heard."""
        self.it.media_ready(self.now)
        self.created("R0")
        self.delta(100, "R0", "A0")
        self.done("R0")
        self.play(140)
        assert self.state() is State.LISTENING
        return self


def sent(commands: Sequence[Command]) -> list[dict[str, Any]]:
    return [json.loads(it.payload) for it in commands if isinstance(it, SendEvent)]


def types(commands: Sequence[Command]) -> list[str]:
    return [event["type"] for event in sent(commands)]


def acts(commands: Sequence[Command]) -> list[Command]:
    """Everything but what is sent or told."""
    return [it for it in commands if not isinstance(it, SendEvent | Notice | Happening | UsageUpdated)]


def notices(commands: Sequence[Command], event: str) -> list[dict[str, Any]]:
    return [dict(it.facts) for it in commands if isinstance(it, Notice) and it.event == event]


def call(name: str, arguments: str = "{}", call_id: str = "C1", status: str = "completed") -> dict[str, Any]:
    return {
        "id": f"F-{call_id}", "type": "function_call", "status": status,
        "name": name, "call_id": call_id, "arguments": arguments,
    }  # fmt: skip


def test_every_state_answers_every_step_that_can_come() -> None:
    for state in State:
        for step in (Step.RESPONSE_CREATED, Step.BARGE_IN, Step.RESPONSE_DONE, Step.CLOSE):
            assert (state, step) in TRANSITIONS
    assert {state for state, step in TRANSITIONS if step is Step.STAY} == {State.CLOSING, State.ANNOUNCING}


def test_it_greets_once_and_keeps_the_persona() -> None:
    rig = Rig()
    (greeting,) = sent(rig.it.media_ready(rig.now))
    assert greeting["type"] == "response.create"
    assert greeting["response"] == {"instructions": "Be kind.\n\nSay hello."}
    assert rig.it.media_ready(rig.now) == []


def test_without_a_greeting_the_caller_speaks_first() -> None:
    rig = Rig(Agent(greeting=""))
    assert rig.it.media_ready(rig.now) == []


def test_speech_is_converted_once_and_played_whole() -> None:
    rig = Rig()
    rig.it.media_ready(rig.now)
    rig.created()
    assert rig.state() is State.RESPONDING
    rig.delta(200)
    rig.delta(210)
    rig.done()
    assert rig.state() is State.LISTENING
    assert rig.playout.queued_ms == 410
    rig.words("Hello there.")
    heard = rig.play(440)
    assert notices(heard, "agent_said") == [{"text": "Hello there.", "heard_ms": 410, "received_ms": 410}]


def test_words_that_come_after_the_audio_are_told_then() -> None:
    rig = Rig()
    rig.created()
    rig.delta(100)
    rig.done()
    assert notices(rig.play(140), "agent_said") == []
    assert notices(rig.words("Late."), "agent_said") == [{"text": "Late.", "heard_ms": 100, "received_ms": 100}]
    assert notices(rig.words("Late."), "agent_said") == []


def test_barge_in_while_generating_truncates_to_what_was_heard_and_drops_late_deltas() -> None:
    rig = Rig()
    rig.created()
    rig.delta(2000)
    rig.play(1480)
    commands = rig.speech_started()
    assert sent(commands) == [
        {"type": "conversation.item.truncate", "item_id": "A1", "content_index": 0, "audio_end_ms": 1480}
    ]
    assert acts(commands) == [ClearLegAudio()]
    assert rig.state() is State.INTERRUPTED
    rig.delta(500)
    assert rig.playout.idle
    rig.done(status="cancelled", status_details={"type": "cancelled", "reason": "turn_detected"})
    assert rig.state() is State.LISTENING
    assert types(rig.speech_stopped()) == []


def test_barge_in_in_the_buffered_tail_after_response_done() -> None:
    rig = Rig()
    rig.created()
    rig.delta(5000)
    rig.words("One two three four five six seven eight nine ten")
    rig.done()
    rig.play(2500)
    commands = rig.speech_started()
    assert sent(commands)[0]["audio_end_ms"] == 2500
    assert notices(commands, "agent_said")[0]["text"] == "One two three four five"
    assert rig.playout.idle


def test_the_lag_between_us_and_the_ear_is_taken_off() -> None:
    rig = Rig(lag_ms=60)
    rig.created()
    rig.delta(1000)
    rig.play(500)
    assert sent(rig.speech_started())[0]["audio_end_ms"] == 440


def test_an_item_that_nobody_heard_is_deleted_and_a_heard_one_left_alone() -> None:
    rig = Rig()
    rig.created()
    rig.delta(200, item_id="A1")
    rig.delta(200, item_id="A2")
    rig.delta(200, item_id="A3")
    rig.done()
    rig.play(300)
    assert [(it["type"], it["item_id"]) for it in sent(rig.speech_started())] == [
        ("conversation.item.truncate", "A2"),
        ("conversation.item.delete", "A3"),
    ]


def test_speech_of_a_silent_agent_interrupts_nothing() -> None:
    rig = Rig().greeted()
    assert sent(rig.speech_started()) == []
    assert acts(rig.speech_started()) == []


def test_audio_of_the_next_response_is_played_after_an_interruption() -> None:
    rig = Rig()
    rig.created()
    rig.delta(1000)
    rig.play(100)
    rig.speech_started()
    rig.done(status="cancelled")
    rig.speech_stopped()
    rig.created("R2")
    rig.delta(100, "R2", "A2")
    assert rig.state() is State.RESPONDING
    assert rig.playout.queued_ms >= 98


def test_speech_started_after_the_cancelled_response_done() -> None:
    """Some servers tell in this order (protocol sheet 3.6)."""
    rig = Rig()
    rig.created()
    rig.delta(1000)
    rig.play(200)
    rig.done(status="cancelled")
    assert sent(rig.speech_started())[0]["audio_end_ms"] == 200


def test_hang_up_waits_until_the_goodbye_was_heard() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(400)
    commands = rig.done(output=[call("hang_up", '{"reason":"all done"}')])
    assert rig.state() is State.CLOSING
    assert not rig.it.wants_audio
    assert acts(commands) == []
    assert acts(rig.play(400)) == []
    assert acts(rig.play(40)) == [EndCall(EndReason.AGENT_HUNG_UP, "all done")]


def test_hang_up_without_a_word_ends_at_once() -> None:
    rig = Rig().greeted()
    rig.created()
    assert acts(rig.done(output=[call("hang_up", "not json")])) == [EndCall(EndReason.AGENT_HUNG_UP, "")]


def test_the_caller_can_not_talk_into_the_goodbye() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(400)
    rig.done(output=[call("hang_up")])
    assert rig.speech_started() == []
    rig.created("R2")
    rig.delta(400, "R2", "A2")
    assert rig.playout.queued_ms <= 400
    rig.done("R2")
    assert acts(rig.play(440)) == [EndCall(EndReason.AGENT_HUNG_UP, "")]


def test_a_hang_up_that_the_caller_talked_into_does_not_happen() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(1000)
    rig.play(100)
    rig.speech_started()
    commands = rig.done(output=[call("hang_up")])
    assert rig.state() is State.LISTENING
    assert sent(commands)[0]["item"]["call_id"] == "C1"
    assert acts(commands) == []


def test_a_goodbye_that_never_drains_has_a_limit() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(1000)
    rig.done(output=[call("hang_up")])
    rig.play(1000)
    # A shell that never reports the end of playout (a stuck leg) must not hold the call.
    assert acts(rig.it.tick(rig.now)) == []
    assert acts(rig.it.tick(rig.now + 9.0)) == []
    assert acts(rig.it.tick(rig.now + 10.1)) == [EndCall(EndReason.AGENT_HUNG_UP, "")]
    assert acts(rig.it.tick(rig.now + 11)) == []


def test_transfer_acts_after_playout_and_comes_back_on_failure() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(100)
    wanted = TransferCall("C1", "sales", Destination(to="600@phones"))
    assert acts(rig.done(output=[call("transfer_call", '{"destination":"sales"}')])) == [CheckTransfer(wanted)]
    assert acts(rig.it.transfer_checked(wanted, "", "", rig.now)) == []
    assert acts(rig.play(140)) == [wanted]
    back = rig.it.transfer_failed("C1", "no such extension", rig.now)
    assert rig.state() is State.LISTENING
    assert rig.it.wants_audio
    assert types(back) == ["conversation.item.create", "response.create"]
    assert "no such extension" in sent(back)[0]["item"]["output"]


def test_transfer_to_an_unknown_destination_is_told_to_the_model() -> None:
    rig = Rig().greeted()
    rig.created()
    commands = rig.done(output=[call("transfer_call", '{"destination":"mars"}')])
    assert types(commands) == ["conversation.item.create", "response.create"]
    assert "sales" in sent(commands)[0]["item"]["output"]
    assert rig.state() is State.LISTENING


def test_parallel_tools_get_one_output_each_and_one_response() -> None:
    rig = Rig().greeted()
    rig.created()
    commands = rig.done(output=[call("a", "{}", "C1"), call("b", '{"x":1}', "C2")])
    assert acts(commands) == [RunTool("C1", "a", "{}"), RunTool("C2", "b", '{"x":1}')]
    assert types(rig.it.tool_finished("C2", "two", rig.now)) == ["conversation.item.create"]
    assert types(rig.it.tool_finished("C1", "one", rig.now)) == ["conversation.item.create", "response.create"]


def test_a_call_is_carried_out_once_however_often_it_is_told() -> None:
    rig = Rig().greeted()
    rig.created()
    assert acts(rig.server("response.output_item.done", response_id="R1", output_index=0, item=call("a"))) == []
    assert len(acts(rig.done(output=[call("a")]))) == 1
    rig.it.tool_finished("C1", "x", rig.now)
    rig.created("R2")
    assert acts(rig.done("R2", output=[call("a")])) == []


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_calls_of_a_cancelled_or_failed_response_are_not_carried_out(status: str) -> None:
    rig = Rig().greeted()
    rig.created()
    assert not any(isinstance(it, RunTool) for it in rig.done(status=status, output=[call("a")]))


def test_an_incomplete_call_is_not_carried_out() -> None:
    rig = Rig().greeted()
    rig.created()
    assert acts(rig.done(status="incomplete", output=[call("a", status="incomplete")])) == []


def test_a_tool_that_ends_while_the_caller_speaks_leaves_the_answer_to_the_next_turn() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.done(output=[call("a")])
    rig.speech_started()
    assert types(rig.it.tool_finished("C1", "x", rig.now)) == ["conversation.item.create"]
    assert types(rig.speech_stopped()) == []
    rig.created("R2")
    assert types(rig.done("R2")) == []


def test_a_tool_that_ends_during_another_response_is_answered_after_it() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.done(output=[call("a")])
    rig.created("R2")
    assert types(rig.it.tool_finished("C1", "x", rig.now)) == ["conversation.item.create"]
    assert types(rig.done("R2")) == ["response.create"]


def test_a_refused_request_is_made_again_when_the_active_response_is_done() -> None:
    rig = Rig()
    rig.it.media_ready(rig.now)
    error = {"type": "invalid_request_error", "code": "conversation_already_has_active_response", "message": "busy"}
    assert types(rig.server("error", error=error)) == []
    rig.created("R9")
    (again,) = sent(rig.done("R9"))
    assert again["response"]["instructions"] == "Be kind.\n\nSay hello."


@pytest.mark.parametrize(
    "code", ["response_cancel_not_active", "input_audio_buffer_commit_empty", "item_truncate_invalid_item_id", None]
)
def test_routine_errors_do_not_end_the_call(code: str | None) -> None:
    rig = Rig().greeted()
    assert acts(rig.server("error", error={"type": "invalid_request_error", "code": code, "message": "m"})) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("invalid_api_key", EndReason.MODEL_REJECTED),
        ("insufficient_quota", EndReason.MODEL_REJECTED),
    ],
)
def test_fatal_errors_end_the_call_with_their_reason(code: str, reason: EndReason) -> None:
    rig = Rig().greeted()
    (end,) = acts(rig.server("error", error={"type": "invalid_request_error", "code": code, "message": "so"}))
    assert isinstance(end, EndCall)
    assert (end.reason, end.code) == (reason, code)


def test_an_expired_session_is_replaced() -> None:
    rig = Rig().greeted()
    error = {"type": "invalid_request_error", "code": "session_expired", "message": "60 minutes"}
    (drop,) = acts(rig.server("error", error=error))
    assert isinstance(drop, DropSession)
    assert (drop.reason, drop.code) == (EndReason.MODEL_LOST, "session_expired")


def test_repeated_server_errors_end_the_session() -> None:
    rig = Rig().greeted()
    error = {"type": "server_error", "code": None, "message": "internal"}
    ends = [acts(rig.server("error", error=error)) for _ in range(5)]
    assert ends[:4] == [[], [], [], []]
    assert [it.reason for it in ends[4] if isinstance(it, DropSession)] == [EndReason.MODEL_FAILED]


def failed(code: str | None) -> dict[str, Any]:
    error = {"type": "server_error", "code": code, "message": "it broke"}
    return {"status": "failed", "status_details": {"type": "failed", "error": error}}


def test_a_failed_response_is_tried_once_more_then_the_call_ends() -> None:
    rig = Rig()
    rig.it.media_ready(rig.now)
    rig.created("R1")
    (again,) = sent(rig.done("R1", **failed(None)))
    assert again["response"]["instructions"].endswith("Say hello.")
    rig.created("R2")
    (end,) = acts(rig.done("R2", **failed("server_error")))
    assert isinstance(end, EndCall)
    assert (end.reason, end.code) == (EndReason.MODEL_FAILED, "server_error")
    assert "it broke" in end.detail


def test_a_failure_without_money_is_not_tried_again() -> None:
    rig = Rig().greeted()
    rig.created()
    (end,) = acts(rig.done(**failed("insufficient_quota")))
    assert isinstance(end, EndCall)
    assert end.reason is EndReason.MODEL_FAILED


def test_status_details_as_a_bare_string_are_understood() -> None:
    rig = Rig().greeted()
    rig.created()
    assert (
        "overloaded"
        in notices(rig.done(status="failed", status_details="overloaded"), "response_retried")[0]["message"]
    )


def test_a_model_that_does_not_answer_loses_its_session() -> None:
    rig = Rig(limits=Limits(response_stall_s=8))
    rig.it.media_ready(rig.now)
    assert acts(rig.it.tick(rig.now + 7.9)) == []
    assert [it.reason for it in acts(rig.it.tick(rig.now + 8)) if isinstance(it, DropSession)] == [
        EndReason.MODEL_STALLED
    ]


def test_a_response_that_makes_progress_does_not_stall() -> None:
    rig = Rig()
    rig.it.media_ready(rig.now)
    rig.created()
    rig.now += 7
    rig.server("response.function_call_arguments.delta", delta="{")
    assert acts(rig.it.tick(rig.now + 7)) == []
    assert acts(rig.it.tick(rig.now + 8.1)) != []


def test_the_callers_turn_must_be_answered() -> None:
    rig = Rig().greeted()
    rig.speech_started()
    rig.speech_stopped()
    rig.server("input_audio_buffer.committed", item_id="U1")
    assert [it.reason for it in acts(rig.it.tick(rig.now + 9)) if isinstance(it, DropSession)] == [
        EndReason.MODEL_STALLED
    ]


def test_a_silent_caller_does_not_hold_the_line_but_a_speaking_agent_does() -> None:
    rig = Rig(limits=Limits(caller_silent_s=30, caller_silent_prompt_s=0))
    rig.greeted()
    assert acts(rig.it.tick(rig.now + 29)) == []
    assert [it.reason for it in acts(rig.it.tick(rig.now + 30)) if isinstance(it, EndCall)] == [
        EndReason.CALLER_SILENT
    ]
    rig.created()
    rig.delta(100_000)
    rig.done()
    rig.play(80_000)
    assert acts(rig.it.tick(rig.now)) == []


def test_no_call_lasts_for_ever() -> None:
    rig = Rig(limits=Limits(max_duration_s=60)).greeted()
    began = rig.it._talk.started_at
    assert began is not None
    (goodbye,) = sent(rig.it.tick(began + 60))
    assert "say goodbye" in goodbye["response"]["instructions"]
    rig.now = began + 60
    rig.created("R1")
    rig.delta(100)
    rig.done("R1")
    (end,) = acts(rig.play(140))
    assert isinstance(end, EndCall)
    assert end.reason is EndReason.MAX_DURATION


def test_the_longest_call_ends_whatever_the_model_does() -> None:
    rig = Rig(limits=Limits(max_duration_s=60, goodbye_s=10, response_stall_s=100)).greeted()
    began = rig.it._talk.started_at
    assert began is not None
    rig.created()
    for second in range(60, 80):
        assert [it for it in acts(rig.it.tick(began + second)) if isinstance(it, EndCall)] == []
    (end,) = acts(rig.it.tick(began + 80))
    assert isinstance(end, EndCall)
    assert end.reason is EndReason.MAX_DURATION


def test_what_nobody_would_live_to_hear_makes_way_for_the_goodbye() -> None:
    rig = Rig(limits=Limits(max_duration_s=60)).greeted()
    began = rig.it._talk.started_at
    assert began is not None
    rig.created()
    rig.delta(60_000)
    rig.done()
    rig.play(2000)
    assert types(rig.it.tick(began + 60)) == ["conversation.item.truncate", "response.create"]


@pytest.mark.parametrize(("warning_s", "at_s"), [(20.0, 40.0), (0.0, None), (60.0, None)])
def test_the_agent_is_warned_before_the_longest_call_ends(warning_s: float, at_s: float | None) -> None:
    limits = Limits(max_duration_s=60, max_duration_warning_s=warning_s, caller_silent_prompt_s=0)
    rig = Rig(limits=limits).greeted()
    began = rig.it._talk.started_at
    assert began is not None
    told = [
        (second, event["item"]["content"][0]["text"])
        for second in range(60)
        for event in sent(rig.it.tick(began + second))
    ]
    assert [second for second, _ in told] == ([at_s] if at_s else [])
    assert all("in 20 seconds" in text for _, text in told)


def test_keys_are_told_together_after_a_pause() -> None:
    rig = Rig().greeted()
    assert [acts(rig.it.caller_digit(key, rig.now)) for key in "12"] == [[], []]
    assert sent(rig.it.tick(rig.now + DIGIT_PAUSE_S / 2)) == []
    told = rig.it.tick(rig.now + DIGIT_PAUSE_S)
    assert types(told) == ["conversation.item.create", "response.create"]
    assert "1 2" in sent(told)[0]["item"]["content"][0]["text"]
    assert "1" not in str(notices(told, "caller_pressed")), "digits are not for logs"


def test_a_hash_ends_the_entry_at_once() -> None:
    rig = Rig().greeted()
    rig.it.caller_digit("7", rig.now)
    assert types(rig.it.caller_digit("#", rig.now)) == ["conversation.item.create", "response.create"]


def test_reply_latency_is_split_between_model_and_bridge() -> None:
    rig = Rig().greeted()
    rig.speech_started()
    rig.speech_stopped()
    rig.now += 0.3
    rig.created()
    rig.delta(200)
    rig.now -= 0.012
    assert notices(rig.play(20), "agent_starts") == [{"bridge_ms": 8.0, "model_ms": 300}]


def test_a_retry_of_another_answer_does_not_greet_again() -> None:
    rig = Rig().greeted()
    rig.speech_started()
    rig.speech_stopped()
    rig.created("R1")
    (again,) = sent(rig.done("R1", **failed(None)))
    assert (again["type"], "response" in again) == ("response.create", False)


def test_a_rate_limit_is_waited_out_before_the_retry() -> None:
    rig = Rig().greeted()
    rig.created("R1")
    limited = failed("rate_limit_exceeded")
    limited["status_details"]["error"]["message"] = "Rate limit reached. Please try again in 1.5s."
    assert types(rig.done("R1", **limited)) == []
    assert types(rig.it.tick(rig.now + 1.4)) == []
    assert types(rig.it.tick(rig.now + 1.5)) == ["response.create"]


def test_the_servers_own_refused_answer_is_asked_for_after_ours() -> None:
    """Our request crossed with the end of the caller's turn: the server could not answer that by itself."""
    rig = Rig().greeted()
    rig.created("R1")
    error = {"type": "invalid_request_error", "code": "conversation_already_has_active_response", "message": "busy"}
    rig.server("error", error=error)
    assert types(rig.done("R1")) == ["response.create"]


def test_a_refusal_with_nothing_active_is_not_asked_again_in_a_loop() -> None:
    rig = Rig().greeted()
    error = {"type": "invalid_request_error", "code": "conversation_already_has_active_response", "message": "busy"}
    assert types(rig.server("error", error=error)) == []
    assert types(rig.it.tick(rig.now + 0.25)) == []
    assert types(rig.it.tick(rig.now + 0.5)) == ["response.create"]


def test_keys_pressed_before_the_greeting_wait_for_it() -> None:
    rig = Rig()
    assert acts(rig.it.caller_digit("1", rig.now)) == []
    assert acts(rig.it.caller_digit("#", rig.now)) == []
    assert rig.it.tick(rig.now + 60) == []
    assert types(rig.it.media_ready(rig.now + 60)) == ["response.create"]
    told = rig.it.tick(rig.now + 60.25)
    assert types(told) == ["conversation.item.create"]
    rig.created()
    assert types(rig.done()) == ["response.create"]


def test_a_response_that_crosses_with_the_callers_first_word_is_cancelled() -> None:
    rig = Rig()
    rig.it.media_ready(rig.now)
    rig.speech_started()
    assert sent(rig.created("R1")) == [{"type": "response.cancel", "response_id": "R1"}]
    assert rig.state() is State.INTERRUPTED
    rig.delta(1000, "R1")
    assert rig.playout.idle
    rig.done("R1", status="cancelled")
    rig.speech_stopped()
    rig.created("R2")
    rig.delta(100, "R2", "A2")
    assert not rig.playout.idle


def test_a_delta_after_response_done_neither_hangs_the_goodbye_nor_is_lost() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(100)
    rig.done(output=[call("hang_up")])
    rig.delta(11, item_id="A2")
    assert acts(rig.play(160)) == [EndCall(EndReason.AGENT_HUNG_UP, "")]


def test_no_goodbye_lasts_longer_than_the_longest_call() -> None:
    rig = Rig(limits=Limits(max_duration_s=60)).greeted()
    rig.created()
    rig.delta(100_000)
    rig.done(output=[call("hang_up")])
    assert acts(rig.it.tick(rig.now + 61)) == [], "it is a goodbye"
    assert [it.reason for it in acts(rig.it.tick(rig.now + 81)) if isinstance(it, EndCall)] == [
        EndReason.MAX_DURATION
    ]


def test_a_response_in_flight_does_not_delay_the_goodbyes_end() -> None:
    rig = Rig().greeted()
    rig.created("R1")
    rig.delta(100)
    rig.done("R1", output=[call("hang_up")])
    rig.created("R2")
    assert acts(rig.play(140)) == [EndCall(EndReason.AGENT_HUNG_UP, "")]


def test_a_misused_tool_beside_a_running_one_makes_one_response() -> None:
    rig = Rig().greeted()
    rig.created()
    commands = rig.done(output=[call("transfer_call", "{}", "C1"), call("weather", "{}", "C2")])
    assert types(commands) == ["conversation.item.create"]
    assert types(rig.it.tool_finished("C2", "sunny", rig.now)) == ["conversation.item.create", "response.create"]


def test_fields_of_unexpected_types_that_decide_nothing_end_no_call() -> None:
    rig = Rig().greeted()
    rig.server("input_audio_buffer.speech_started", item_id="U", audio_start_ms=1.5)
    rig.server("error", error={"type": "x", "code": 429, "message": None})
    rig.created()
    commands = rig.done(output=[call("weather") | {"arguments": {"city": "Oslo"}}])
    assert [it.arguments for it in commands if isinstance(it, RunTool)] == ['{"city":"Oslo"}']


def test_unknown_events_and_fields_are_ignored() -> None:
    rig = Rig().greeted()
    assert rig.server("rate_limits.updated", rate_limits=[{"name": "tokens"}]) == []
    assert rig.server("something.new", anything={"x": [1]}) == []
    assert rig.server("input_audio_buffer.speech_stopped", item_id="U", audio_end_ms=1, obfuscation="x") == []


@pytest.mark.parametrize("message", ["{", "[]", '"x"', '{"type":"response.created"}', '{"no":"type"}'])
def test_what_the_protocol_does_not_allow_is_the_models_fault(message: str) -> None:
    with pytest.raises(ModelProtocolError):
        Rig().it.model_message(message, 0.0)


def test_what_began_while_the_sessions_were_exchanged_is_asked_for_again() -> None:
    """The decision to change over was made in a quiet moment, but the old session's last message came after it."""
    rig = Rig().greeted()
    rig.it.successor_ready(rig.now)
    rig.created("R1")
    assert rig.state() is State.RESPONDING
    commands = rig.it.connected(rig.now, None)
    assert types(commands)[-1] == "response.create"
    assert rig.state() is State.LISTENING
    rig.created("R2")
    rig.delta(100, "R2", "A2")
    rig.done("R2")
    assert rig.playout.queued_ms == 100


def test_words_of_long_ago_are_not_answered_after_a_loss() -> None:
    """A noise that nobody transcribed or answered; minutes later the session is lost."""
    rig = Rig().greeted()
    rig.speech_started()
    rig.speech_stopped()
    rig.now += 60
    rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    commands = rig.it.connected(rig.now + 1, None)
    assert "response.create" not in types(commands)
    assert types(rig.it.tick(rig.now + 10)) == []


def test_a_greeting_that_was_heard_while_the_session_was_gone_is_protected_no_longer() -> None:
    """The next session had been told already to answer nothing: nobody would ever have answered the caller."""
    rig = Rig(msgspec.structs.replace(AGENT, greeting_barge_in="off"))
    rig.it.media_ready(rig.now)
    rig.created("R0")
    rig.delta(100, "R0", "A0")
    rig.done("R0")
    rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    rig.it.session_update()
    rig.play(140)
    (update, *_) = sent(rig.it.connected(rig.now, None))
    assert update["type"] == "session.update"
    assert update["session"]["audio"]["input"]["turn_detection"]["create_response"] is True


def test_a_successor_that_was_opened_before_a_change_hears_of_it() -> None:
    rig = Rig().greeted()
    rig.it.session_update()
    rig.it.successor_ready(rig.now)
    rig.it.application_event({"type": "session.update", "session": {"instructions": "Be short."}}, rig.now)
    (update, *_) = sent(rig.it.connected(rig.now, None))
    assert (update["type"], update["session"]["instructions"]) == ("session.update", "Be short.")
    rig.it.session_update()
    assert "session.update" not in types(rig.it.connected(rig.now, None))


def test_what_an_application_says_before_there_is_a_session_is_told_to_the_first_one() -> None:
    it = Conversation(AGENT, PlayoutQueue(WIRE, 1000), Limits())
    it.session_update()
    system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "A customer."}]}
    events = [
        {"type": "session.update", "session": {"instructions": "Be short."}},
        {"type": "conversation.item.create", "item": system},
    ]
    for event in events:
        assert sent(it.application_event(event, 1.0)) == []
    commands = it.connected(2.0, None)
    assert types(commands) == ["session.update", "conversation.item.create"]
    assert sent(commands)[0]["session"]["instructions"] == "Be short."
    assert sent(commands)[1]["item"]["content"] == system["content"]
    assert notices(commands, "session_resumed") == []


def refused(rig: Rig, request: dict[str, Any], code: str) -> list[Command]:
    return rig.server("error", error={"code": code, "message": "no", "event_id": request["event_id"]})


def test_a_request_of_the_application_that_the_server_refuses_ends_nothing() -> None:
    """No response follows a refused request: to wait for one cost the session, and at the third time the call."""
    rig = Rig().greeted()
    event = {"type": "response.create", "response": {"instructions": 5}}
    (request,) = sent(rig.it.application_event(event, rig.now))
    assert acts(refused(rig, request, "invalid_type")) == []
    rig.now += 60
    assert acts(rig.it.tick(rig.now)) == []


@pytest.mark.parametrize(("code", "wait_s"), [("rate_limit_exceeded", 2.0), ("unknown_trouble", 0.0)])
def test_a_refused_request_of_ours_is_made_again(code: str, wait_s: float) -> None:
    rig = Rig()
    (request,) = sent(rig.it.media_ready(rig.now))
    commands = refused(rig, request, code)
    rig.now += wait_s
    commands += rig.it.tick(rig.now)
    (again,) = [event for event in sent(commands) if event["type"] == "response.create"]
    assert again["response"] == request["response"]
    (end,) = acts(refused(rig, again, "unknown_trouble")) if not wait_s else [None]
    assert end is None or (isinstance(end, EndCall) and end.reason is EndReason.MODEL_FAILED)


def test_an_error_about_another_event_leaves_the_request_alone() -> None:
    rig = Rig()
    rig.it.media_ready(rig.now)
    refused(rig, {"event_id": "theirs"}, "invalid_value")
    refused(rig, {"event_id": None}, "invalid_value")
    assert types(rig.it.tick(rig.now)) == []


def test_the_application_cancels_what_the_server_would_not_cancel_by_itself() -> None:
    rig = Rig().greeted()
    rig.created("R1")
    rig.delta(500)
    rig.play(100)
    commands = rig.it.application_event({"type": "response.cancel"}, rig.now)
    assert types(commands) == ["response.cancel", "conversation.item.truncate"]
    assert sent(commands)[0]["response_id"] == "R1"


CRM = McpServer(server_label="crm", server_url="https://crm.test/mcp", approve="ask")
WISH = {"id": "M1", "type": "mcp_approval_request", "server_label": "crm", "name": "look_up", "arguments": "{}"}


def asked_for_approval() -> Rig:
    """The model wants to call an MCP tool, and has ended its response with that; the application is to decide."""
    rig = Rig(msgspec.structs.replace(AGENT, mcp=[CRM])).greeted()
    rig.created()
    assert acts(rig.server("conversation.item.done", item=WISH)) == [AskApproval("M1", "crm", "look_up", "{}")]
    rig.done(output=[WISH])
    return rig


def test_a_caller_waits_while_an_application_decides() -> None:
    rig = asked_for_approval()
    for _ in range(12):
        rig.now += 1
        rig.it.tick(rig.now)
    assert rig.it.longest_silence_s == pytest.approx(12)


@pytest.mark.parametrize("approve", [True, False])
def test_a_server_that_does_not_go_on_after_the_decision_is_asked_to(approve: bool) -> None:
    rig = asked_for_approval()
    assert types(rig.it.approval_given("M1", approve, "", rig.now)) == ["conversation.item.create"]
    assert types(rig.it.approval_given("M1", approve, "", rig.now)) == []
    assert types(rig.it.tick(rig.now + 1.9)) == []
    assert types(rig.it.tick(rig.now + 2.1)) == ["response.create"]


def test_a_server_that_goes_on_by_itself_is_not_asked_to() -> None:
    rig = asked_for_approval()
    rig.it.approval_given("M1", True, "", rig.now)
    rig.created("R2")
    rig.done("R2")
    assert types(rig.it.tick(rig.now + 9)) == []


def test_a_tool_that_the_server_runs_is_not_asked_about_while_it_runs() -> None:
    rig = asked_for_approval()
    rig.it.approval_given("M1", True, "", rig.now)
    rig.server("response.mcp_call.in_progress", item_id="M2", output_index=0)
    assert types(rig.it.tick(rig.now + 9)) == []
    rig.server("response.mcp_call.completed", item_id="M2", output_index=0)
    assert types(rig.it.tick(rig.now + 2.1)) == ["response.create"]


@pytest.mark.parametrize("lost", [True, False])
def test_what_waited_for_an_approval_is_asked_for_again_in_the_next_session(lost: bool) -> None:
    """The new session does not know the request; the old one took it with it, and nobody would have gone on."""
    rig = asked_for_approval()
    if lost:
        rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    assert types(rig.it.connected(rig.now, None))[-1] == "response.create"
    assert types(rig.it.approval_given("M1", True, "", rig.now)) == []


def test_a_call_that_an_application_wrote_down_is_not_carried_out() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.server("conversation.item.done", item=call("look_up"))
    assert acts(rig.done()) == []


def test_a_call_of_a_response_beside_the_dialogue_is_not_carried_out() -> None:
    rig = Rig().greeted()
    beside = {"type": "response.create", "response": {"conversation": "none"}}
    (request,) = sent(rig.it.application_event(beside, rig.now))
    metadata = request["response"]["metadata"]
    rig.server("response.created", response={"id": "RX", "status": "in_progress", "output": [], "metadata": metadata})
    rig.created("R1")
    rig.server("response.output_item.done", response_id="RX", item=call("look_up"))
    assert acts(rig.done("R1")) == []


@pytest.mark.parametrize("opened", [False, True])
def test_a_hand_over_that_fails_after_the_session_was_lost_opens_another(opened: bool) -> None:
    """During a goodbye a lost session is not replaced; but this call goes on, and nobody would have spoken any more."""
    rig = Rig().greeted()
    rig.created()
    if opened:
        rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
        rig.it.application_ends(TransferCall("", "sales", Destination(to="600@phones")), rig.now)
        rig.it.give_up(EndReason.MODEL_LOST, "gone", None, rig.now)
    else:
        rig.it.application_ends(TransferCall("", "sales", Destination(to="600@phones")), rig.now)
        rig.done()
        assert acts(rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)) == []
    assert acts(rig.it.transfer_failed("", "busy", rig.now)) == [OpenSession()]
    assert types(rig.it.connected(rig.now, None))[-1] == "response.create"


def test_what_the_caller_began_just_before_a_change_of_sessions_is_not_cut() -> None:
    """The old session had not told of it yet."""
    rig = Rig().greeted()
    assert acts(rig.it.connected(rig.now, None)) == [ResendAudio(rig.now - SPEECH_MARGIN_S)]


def test_a_session_that_stays_away_is_told_to_the_caller_whoever_speaks() -> None:
    rig = Rig().greeted()
    rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    for _ in range(10):
        rig.now += 1
        rig.it.tick(rig.now)
    assert rig.it.longest_silence_s == pytest.approx(10)


def test_a_greeting_that_fails_at_first_is_still_protected() -> None:
    rig = Rig(msgspec.structs.replace(AGENT, greeting_barge_in="off"))
    rig.it.media_ready(rig.now)
    rig.created("R0")
    assert types(rig.done("R0", "failed")) == ["response.create"]
    rig.created("R1")
    rig.delta(100, "R1", "A1")
    rig.speech_started()
    assert rig.playout.queued_ms > 0
    assert "session.update" in types(rig.done("R1")) + types(rig.play(140))


def test_a_greeting_that_is_broken_off_with_its_session_is_protected_until_its_end() -> None:
    rig = Rig(msgspec.structs.replace(AGENT, greeting_barge_in="off"))
    rig.it.media_ready(rig.now)
    rig.created("R0")
    rig.delta(100, "R0", "A0")
    rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    rig.play(140)
    (update,) = [json.loads(rig.it.session_update())["session"]]
    assert update["audio"]["input"]["turn_detection"]["interrupt_response"] is False
    assert "response.create" in types(rig.it.connected(rig.now, None))


def test_a_last_word_that_the_caller_came_before_is_said_after_the_answer() -> None:
    """What was owed is forgotten when the caller's turn brings an answer; the goodbye must not be."""
    agent = msgspec.structs.replace(AGENT, budget_usd=0.001)
    rig = Rig(agent, usage=Usage(load_prices()), model="gpt-realtime-2.1").greeted()
    rig.created("R1")
    rig.delta(100)
    rig.speech_started("U1")
    usage = {"output_tokens": 1000, "output_token_details": {"audio_tokens": 1000}}
    assert notices(rig.done("R1", "cancelled", usage=usage), "budget_spent") == [{}]
    rig.speech_stopped()
    rig.server("input_audio_buffer.committed", item_id="U1")
    rig.created("R2")
    (goodbye,) = [it for it in sent(rig.done("R2")) if it["type"] == "response.create"]
    assert "goodbye" in goodbye["response"]["instructions"]
    rig.created("R3")
    rig.done("R3", "failed")
    assert rig.state() is not State.CLOSING, "it has not been said yet"
    rig.created("R4")
    rig.delta(100, "R4", "A4")
    rig.done("R4")
    assert [it.reason for it in acts(rig.play(140)) if isinstance(it, EndCall)] == [EndReason.BUDGET_SPENT]


def test_words_of_a_reply_that_was_lost_with_its_session_are_told_when_they_were_heard() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(100)
    rig.server("response.output_audio_transcript.delta", item_id="A1", response_id="R1", delta="Good")
    rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    (told,) = notices(rig.play(140), "agent_said")
    assert told["text"] == "Good"


def test_a_silent_caller_is_prompted_once_whoever_answers_turns() -> None:
    rig = Rig(msgspec.structs.replace(AGENT, barge_in="off")).greeted()
    rig.server("input_audio_buffer.timeout_triggered", item_id="U1", audio_start_ms=0, audio_end_ms=5000)
    assert types(rig.server("input_audio_buffer.committed", item_id="U1")) == []
    rig.created("R1")
    rig.done("R1")
    rig.now += 5
    assert types(rig.it.tick(rig.now)) == []
    rig.server("input_audio_buffer.timeout_triggered", item_id="U2", audio_start_ms=0, audio_end_ms=5000)
    rig.server("input_audio_buffer.committed", item_id="U2")
    rig.now += 2.1
    assert types(rig.it.tick(rig.now)) == ["response.create"], "this server does not prompt by itself"


def test_a_budget_that_a_response_beside_the_dialogue_spends_is_spent() -> None:
    """Each warning is given once: whoever hears it must act."""
    agent = msgspec.structs.replace(AGENT, budget_usd=0.001)
    rig = Rig(agent, usage=Usage(load_prices()), model="gpt-realtime-2.1").greeted()
    beside = {"type": "response.create", "response": {"conversation": "none"}}
    (request,) = sent(rig.it.application_event(beside, rig.now))
    metadata = request["response"]["metadata"]
    rig.server("response.created", response={"id": "RX", "status": "in_progress", "output": [], "metadata": metadata})
    usage = {"output_tokens": 1000, "output_token_details": {"audio_tokens": 1000}}
    commands = rig.done("RX", usage=usage, metadata=metadata)
    assert notices(commands, "budget_spent") == [{}]
    assert types(commands) == ["response.create"]


def test_words_that_an_application_clears_away_are_waited_for_no_longer() -> None:
    """The server tells no end of them: nothing would ever have been asked for again."""
    rig = Rig().greeted()
    rig.speech_started()
    rig.it.application_event({"type": "input_audio_buffer.clear"}, rig.now)
    assert types(rig.it.application_event({"type": "response.create"}, rig.now)) == ["response.create"]


def test_a_request_of_the_application_that_nobody_answers_does_not_cost_the_session() -> None:
    """Servers often do not say which event an error is about, and what is asked for again is as wrong as before."""
    rig = Rig().greeted()
    rig.it.application_event({"type": "response.create", "response": {"instructions": 5}}, rig.now)
    refused(rig, {"event_id": None}, "invalid_type")
    rig.now += 8.1
    commands = rig.it.tick(rig.now)
    assert acts(commands) == []
    assert notices(commands, "request_unanswered") == [{}]
    rig.now += 60
    assert acts(rig.it.tick(rig.now)) == []


def test_audio_of_a_session_that_was_lost_before_it_was_heard_keeps_its_time() -> None:
    """The first frame of it leaves after another session has begun to answer; an interruption forgets it."""
    rig = Rig().greeted()
    rig.it.connected(rig.now, None)
    rig.created("R1")
    rig.delta(400)
    rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    rig.it.connected(rig.now, None)
    rig.created("R2")
    assert notices(rig.play(20), "agent_starts") == [{"bridge_ms": 20.0}]
    rig.delta(400, "R2", "A2")
    rig.speech_started()
    rig.done("R2", status="cancelled")
    rig.speech_stopped()
    rig.now += 1
    rig.created("R3")
    rig.delta(400, "R3", "A3")
    assert notices(rig.play(20), "agent_starts")[0]["bridge_ms"] == 20.0
