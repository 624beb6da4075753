"""Each ordered sequence of section 3 of the protocol notes: as the fake server plays it, and as the bridge takes part.

First table: the pure session, driven by hand; every event in order, with the ids that belong together. Second table: the
same on a whole call. `protocol_table` explains how sequences are written.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from protocol_table import Event, Json, lines_of, match
from sdk_types import check_client, check_server

from simulators.model_script import Call, Fail, Incomplete, McpCall, Pace, Part, Say, Script, tone
from simulators.realtime_faults import Faults
from simulators.realtime_session import RealtimeSession

SLOW = Pace(speed=1, first_ms=100, delta_ms=200)


class Wire:
    """A pure session on a clock of its own, and what passed."""

    def __init__(self, script: Script, **faults: Any) -> None:
        self.faults = Faults(**faults)
        self.session = RealtimeSession(script, self.faults, model="gpt-realtime-2.1")
        self.events: list[Event] = []
        self.ids: dict[str, str] = {}
        self.now = 0.0
        self.session.start(self.now)
        self._collect()

    def client(self, kind: str, **fields: Any) -> None:
        """The client sends this now."""
        event: Json = {"type": kind, **fields}
        check_client(event)
        self.events.append(("C", event))
        self.session.receive(json.dumps(event), self.now)
        self._collect()

    def update(self, **audio_input: Any) -> None:
        session = {"type": "realtime", "audio": {"input": audio_input}}
        self.client("session.update", session=session)

    def append(self, pcm: bytes) -> None:
        self.client("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())

    def turn(self) -> None:
        """The caller says something for a second, found by VAD."""
        for pcm in (bytes(24000), tone(300, 1000), bytes(48000)):
            self.append(pcm)
            self.wait(0.01)

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.session.next_due) is not None and due <= until:
            self.now = max(self.now, due)
            self.session.advance(self.now)
            self._collect()
        self.now = until

    def item(self, kind: str) -> str:
        """The id of the newest item of this role or type."""
        return next(it.id for it in reversed(self.session.items) if kind in (it.role, it.type))

    def response(self) -> str:
        assert self.session.active is not None
        return self.session.active.id

    def speech(self, *, stops: bool) -> None:
        if stops:
            self.session.speech_stopped(self.now)
        else:
            self.session.speech_started(self.now)
        self._collect()

    def _collect(self) -> None:
        for event in self.session.take():
            check_server(event)
            self.events.append(("S", event))


def _first(table: str, count: int) -> str:
    return "\n".join(lines_of(table)[:count]) + "\n"


def _rest(table: str, count: int) -> str:
    return "\n".join(lines_of(table)[count:]) + "\n"


# One spoken item A of response R, of one delta, announced: 3.2 steps 7 to 11.
BEGINS = """
S response.created response.id=R response.status=in_progress response.output=[] response.usage=null
S response.output_item.added response_id=R output_index=0 item.id=A item.role=assistant
S conversation.item.added item.id=A item.status=in_progress item.content=[]
S response.content_part.added response_id=R item_id=A content_index=0 part.type=audio
S response.output_audio_transcript.delta response_id=R item_id=A
S response.output_audio.delta response_id=R item_id=A output_index=0 content_index=0
"""
# Steps 12 to 15, of a part that was finished or cut.
CLOSES = """
S response.output_audio.done response_id=R item_id=A
S response.output_audio_transcript.done response_id=R item_id=A transcript=*
S response.content_part.done response_id=R item_id=A part.type=audio
S conversation.item.done item.id=A item.status=%(item)s
S response.output_item.done response_id=R item.id=A item.status=%(item)s
"""
DONE = """
S response.done response.id=R response.status=%(status)s response.output.id=A response.usage.total_tokens=*
S rate_limits.updated rate_limits.0.name=tokens
"""
ANSWER = BEGINS + CLOSES % {"item": "completed"} + DONE % {"status": "completed"}
SESSION = """
S session.created session.type=realtime session.id=* session.expires_at=*
"""
UPDATE = SESSION + """
C session.update
S session.updated session.type=realtime
"""  # fmt: skip
# Another response with another item, after the first.
SECOND = ANSWER.replace("=R", "=R2").replace("=A", "=A2").replace("A2,", "A,")
TURN = """
C input_audio_buffer.append
C input_audio_buffer.append
S input_audio_buffer.speech_started item_id=U audio_start_ms=200
C input_audio_buffer.append
S input_audio_buffer.speech_stopped item_id=U audio_end_ms=1700
S input_audio_buffer.committed item_id=U
S conversation.item.added item.id=U item.role=user item.status=completed item.content.0.type=input_audio
S conversation.item.done item.id=U
"""
CALLS = """
S response.created response.id=R
S response.output_item.added response_id=R item.id=F item.call_id=C1 item.name=look_up item.arguments=""
S conversation.item.added item.id=F
S response.function_call_arguments.delta response_id=R item_id=F call_id=C1
S response.function_call_arguments.done response_id=R item_id=F call_id=C1 name=look_up arguments="{}"
S conversation.item.done item.id=F item.status=completed
S response.output_item.done response_id=R item.id=F
"""
HELLO = Say("Hello", ms=200)


@dataclass(frozen=True)
class Row:
    """`doing` drives the wire; `expected` is all that passes, in order."""

    section: str
    doing: Callable[[Wire], None]
    expected: str
    answers: Sequence[Part | Sequence[Part]] = (HELLO, HELLO)
    transcripts: Sequence[str | None] = ()
    faults: Json = field(default_factory=dict)


def start(wire: Wire) -> None:
    wire.update(turn_detection={"type": "server_vad"})


def ask(wire: Wire, seconds: float = 2, **response: Any) -> None:
    """Ask for a response, and wait."""
    wire.client("response.create", **({"response": response} if response else {}))
    wire.wait(seconds)


def vad_turn(wire: Wire, detection: Json | None = None, **transcription: Any) -> None:
    wire.update(turn_detection=detection or {"type": "server_vad"}, **transcription)
    wire.turn()
    wire.wait(2)


def push_to_talk(wire: Wire) -> None:
    wire.update(turn_detection=None)
    wire.client("input_audio_buffer.clear")
    wire.append(tone(300, 500))
    wire.wait(1)
    wire.client("input_audio_buffer.commit")
    ask(wire)


def own_answers(wire: Wire) -> None:
    """VAD finds the turns, the client answers them itself."""
    vad_turn(wire, {"type": "server_vad", "create_response": False, "interrupt_response": False})
    ask(wire)


def still_interrupts(wire: Wire) -> None:
    """create_response false, interrupt_response true: the server cancels all the same."""
    wire.update(turn_detection={"type": "server_vad", "create_response": False})
    ask(wire, 0.15)
    wire.speech(stops=False)
    wire.wait(0.2)
    wire.speech(stops=True)
    wire.wait(2)


def greeting_by_item(wire: Wire) -> None:
    start(wire)
    content = [{"type": "input_text", "text": "Greet the caller."}]
    wire.client("conversation.item.create", item={"type": "message", "role": "system", "content": content})
    ask(wire)


def barge_in(wire: Wire) -> None:
    """While the answer is being generated."""
    start(wire)
    ask(wire, 0.15)
    wire.speech(stops=False)
    wire.wait(0.2)
    place = {"item_id": wire.item("assistant"), "content_index": 0}
    wire.client("conversation.item.truncate", audio_end_ms=100, **place)
    wire.speech(stops=True)
    wire.wait(2)


def barge_in_after_done(wire: Wire) -> None:
    """The answer is generated, the caller still hears it."""
    start(wire)
    ask(wire)
    wire.speech(stops=False)
    place = {"item_id": wire.item("assistant"), "content_index": 0}
    wire.client("conversation.item.truncate", audio_end_ms=100, **place)


def barge_in_uninterrupted(wire: Wire) -> None:
    """interrupt_response false: the client cancels."""
    wire.update(turn_detection={"type": "server_vad", "interrupt_response": False, "create_response": False})
    ask(wire, 0.15)
    wire.speech(stops=False)
    wire.client("response.cancel", response_id=wire.response())
    wire.wait(0.2)


def truncated_too_far(wire: Wire) -> None:
    start(wire)
    ask(wire)
    place = {"item_id": wire.item("assistant"), "content_index": 0}
    wire.client("conversation.item.truncate", audio_end_ms=900, **place)


def cancel_too_early(wire: Wire) -> None:
    """The cancel comes before response.created and does nothing; it is repeated with the id."""
    start(wire)
    wire.client("response.create")
    wire.client("response.cancel")
    wire.wait(0.35)
    wire.client("response.cancel", response_id=wire.response())
    wire.wait(1)


def function_call(wire: Wire) -> None:
    start(wire)
    ask(wire)
    call = next(it for it in wire.session.items if it.type == "function_call")
    output = {"type": "function_call_output", "call_id": call.wire["call_id"], "output": "7"}
    wire.client("conversation.item.create", item=output)
    ask(wire)


def parallel_calls(wire: Wire) -> None:
    """All outputs, then one response.create."""
    start(wire)
    ask(wire)
    for call in [it for it in wire.session.items if it.type == "function_call"]:
        output = {"type": "function_call_output", "call_id": call.wire["call_id"], "output": "7"}
        wire.client("conversation.item.create", item=output)
    ask(wire)


def speech_while_the_tool_runs(wire: Wire) -> None:
    """A VAD response has begun when the output comes: the create is refused and no response.done follows for it."""
    start(wire)
    ask(wire)
    wire.speech(stops=False)
    wire.speech(stops=True)
    call = next(it for it in wire.session.items if it.type == "function_call")
    output = {"type": "function_call_output", "call_id": call.wire["call_id"], "output": "7"}
    wire.client("conversation.item.create", item=output)
    wire.client("response.create", event_id="mine")
    wire.wait(2)


def mcp_with_approval(wire: Wire) -> None:
    tool = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.test", "require_approval": "always"}
    wire.client("session.update", session={"type": "realtime", "tools": [tool]})
    wire.wait(2)
    ask(wire)
    request = next(it.id for it in wire.session.items if it.type == "mcp_approval_request")
    approval = {"type": "mcp_approval_response", "id": "item_yes", "approval_request_id": request, "approve": True}
    wire.client("conversation.item.create", item=approval)
    wire.wait(3)


def apart(wire: Wire) -> None:
    """Out of band, beside an active response and through a barge-in."""
    start(wire)
    ask(wire, 0.15)
    ask(wire, 0.01, conversation="none", metadata={"topic": "x"}, output_modalities=["text"], input=[])
    wire.speech(stops=False)
    wire.wait(2)


def delete_and_retrieve(wire: Wire) -> None:
    start(wire)
    ask(wire)
    wire.client("conversation.item.retrieve", item_id=wire.item("assistant"))
    wire.client("conversation.item.delete", item_id=wire.item("assistant"))
    wire.client("conversation.item.delete", item_id="item_gone")


def two_turns(wire: Wire) -> None:
    detection = {"type": "server_vad", "create_response": False}
    wire.update(turn_detection=detection, transcription={"model": "gpt-transcribe"})
    for _ in range(2):
        wire.speech(stops=False)
        wire.speech(stops=True)
    wire.wait(2)


def idle(wire: Wire) -> None:
    """Two rounds: it repeats after each response. The clock is that of the appended audio."""
    wire.update(turn_detection={"type": "server_vad", "idle_timeout_ms": 5000})
    ask(wire)
    for _ in range(2):
        wire.append(bytes(48 * 5300))
        wire.wait(2)


def greeting_by_instructions(wire: Wire) -> None:
    start(wire)
    ask(wire, instructions="Greet.")


def expiry(wire: Wire) -> None:
    start(wire)
    wire.wait(3600)


ASK = "C response.create\n"
FAILED = """
C response.create
S response.created response.id=R
S response.done response.id=R response.status=failed response.status_details.type=failed response.usage.total_tokens=0
S rate_limits.updated
"""
USER_TURN = """
S input_audio_buffer.speech_started item_id=U audio_start_ms=*
""" + _rest(TURN.replace("=1700", "=*"), 4)
TRANSCRIBED = "conversation.item.input_audio_transcription"

SEQUENCES: dict[str, Row] = {
    "start": Row("3.1", start, UPDATE),
    "start with conversation.created before": Row(
        "3.1",
        start,
        "S conversation.created conversation.id=*\n" + UPDATE,
        faults={"conversation_created": True},
    ),
    "server_vad turn": Row("3.2", vad_turn, UPDATE + TURN + ANSWER),
    "semantic_vad turn": Row(
        "3.3", lambda wire: vad_turn(wire, {"type": "semantic_vad"}), UPDATE + TURN.replace("=1700", "=2000") + ANSWER
    ),
    "push to talk": Row(
        "3.4",
        push_to_talk,
        UPDATE
        + """
        C input_audio_buffer.clear
        S input_audio_buffer.cleared
        C input_audio_buffer.append
        C input_audio_buffer.commit
        S input_audio_buffer.committed item_id=U previous_item_id=null
        S conversation.item.added item.id=U
        S conversation.item.done item.id=U
        C response.create
        """
        + ANSWER,
    ),
    "own answers": Row("3.4", own_answers, UPDATE + TURN + ASK + ANSWER),
    "no answers but interruption": Row(
        "3.4",
        still_interrupts,
        UPDATE
        + ASK
        + BEGINS
        + "S input_audio_buffer.speech_started item_id=U"
        + CLOSES % {"item": "incomplete"}
        + DONE % {"status": "cancelled"}
        + _rest(USER_TURN, 1),
        answers=[Say("Hello", ms=400, pace=SLOW)],
    ),
    "greeting by instructions": Row("3.5", greeting_by_instructions, UPDATE + ASK + ANSWER),
    "greeting by an item": Row(
        "3.5",
        greeting_by_item,
        UPDATE
        + """
        C conversation.item.create
        S conversation.item.added item.id=S1 item.role=system previous_item_id=null
        S conversation.item.done item.id=S1
        C response.create
        """
        + ANSWER.replace(
            "S conversation.item.added item.id=A", "S conversation.item.added previous_item_id=S1 item.id=A"
        ),
    ),
    "barge-in while generating": Row(
        "3.6",
        barge_in,
        UPDATE
        + ASK
        + BEGINS
        + "S input_audio_buffer.speech_started item_id=U"
        + CLOSES % {"item": "incomplete"}
        + "S response.done response.id=R response.status=cancelled response.status_details.reason=turn_detected\n"
        + """
        S rate_limits.updated
        C conversation.item.truncate
        S conversation.item.truncated item_id=A content_index=0 audio_end_ms=100
        """
        + _rest(USER_TURN, 1)
        + SECOND,
        answers=[Say("Hello", ms=400, pace=SLOW), HELLO],
    ),
    "late deltas after the interruption": Row(
        "3.6",
        still_interrupts,
        UPDATE
        + ASK
        + BEGINS
        + "S input_audio_buffer.speech_started item_id=U\n"
        + "S response.output_audio.delta response_id=R item_id=A"
        + CLOSES % {"item": "incomplete"}
        + "S response.done response.id=R response.status=cancelled\n"
        + "S rate_limits.updated\n"
        + _rest(USER_TURN, 1),
        answers=[Say("Hello", ms=400, pace=SLOW)],
        faults={"late_deltas": 1},
    ),
    "speech_started after the cancelled response.done": Row(
        "3.6",
        still_interrupts,
        UPDATE
        + ASK
        + BEGINS
        + CLOSES % {"item": "incomplete"}
        + "S response.done response.id=R response.status=cancelled\n"
        + "S input_audio_buffer.speech_started item_id=U\n"
        + "S rate_limits.updated\n"
        + _rest(USER_TURN, 1),
        answers=[Say("Hello", ms=400, pace=SLOW)],
        faults={"started_after_done": True},
    ),
    "barge-in after response.done": Row(
        "3.6",
        barge_in_after_done,
        UPDATE
        + ASK
        + ANSWER
        + """
        S input_audio_buffer.speech_started item_id=U
        C conversation.item.truncate item_id=A
        S conversation.item.truncated item_id=A audio_end_ms=100
        """,
    ),
    "barge-in with interrupt_response false": Row(
        "3.6",
        barge_in_uninterrupted,
        UPDATE
        + ASK
        + BEGINS
        + "S input_audio_buffer.speech_started item_id=U\n"
        + "C response.cancel response_id=R"
        + CLOSES % {"item": "incomplete"}
        + "S response.done response.id=R response.status=cancelled response.status_details.reason=client_cancelled\n"
        + "S rate_limits.updated",
        answers=[Say("Hello", ms=400, pace=SLOW)],
    ),
    "truncate beyond the end": Row(
        "3.6",
        truncated_too_far,
        UPDATE
        + ASK
        + ANSWER
        + """
        C conversation.item.truncate item_id=A audio_end_ms=900
        S error error.code=invalid_value error.event_id=null
        S conversation.item.truncated item_id=A audio_end_ms=200
        """,
    ),
    "cancel before response.created": Row(
        "3.6",
        cancel_too_early,
        UPDATE
        + """
        C response.create
        C response.cancel
        S error error.code=response_cancel_not_active
        """
        + BEGINS
        + "C response.cancel response_id=R"
        + CLOSES % {"item": "incomplete"}
        + "S response.done response.id=R response.status=cancelled response.status_details.reason=client_cancelled\n"
        + "S rate_limits.updated",
        answers=[Say("Hello", ms=400, pace=SLOW)],
        faults={"response_after_s": 0.2},
    ),
    "function call": Row(
        "3.7",
        function_call,
        UPDATE
        + ASK
        + CALLS
        + """
        S response.done response.id=R response.status=completed response.output.id=F response.output.call_id=C1
        S rate_limits.updated
        C conversation.item.create item.call_id=C1
        S conversation.item.added item.call_id=C1 item.id=O previous_item_id=F
        S conversation.item.done item.id=O
        C response.create
        """
        + SECOND,
        answers=[Call("look_up"), HELLO],
    ),
    "parallel calls": Row(
        "3.7",
        parallel_calls,
        UPDATE
        + ASK
        + CALLS
        + _rest(CALLS, 1).replace("=F", "=F2").replace("=C1", "=C2").replace("output_index=0", "output_index=1")
        + """
        S response.done response.id=R response.output.call_id=C1,C2
        S rate_limits.updated
        C conversation.item.create item.call_id=C1
        S conversation.item.added item.call_id=C1 item.id=O
        S conversation.item.done item.id=O
        C conversation.item.create item.call_id=C2
        S conversation.item.added item.call_id=C2 item.id=O2
        S conversation.item.done item.id=O2
        C response.create
        """
        + SECOND,
        answers=[[Call("look_up"), Call("look_up")], HELLO],
    ),
    "speech while the tool runs": Row(
        "3.7",
        speech_while_the_tool_runs,
        UPDATE
        + ASK
        + CALLS
        + """
        S response.done response.id=R response.output.call_id=C1
        S rate_limits.updated
        """
        + USER_TURN
        + """
        """
        + _first(SECOND, 4)
        + """
        C conversation.item.create item.call_id=C1
        S conversation.item.added item.call_id=C1 item.id=O
        S conversation.item.done item.id=O
        C response.create event_id=mine
        S error error.code=conversation_already_has_active_response error.event_id=mine
        """
        + _rest(SECOND, 4),
        answers=[Call("look_up"), HELLO],
    ),
    "mcp with approval": Row(
        "3.8",
        mcp_with_approval,
        SESSION
        + """
        C session.update
        S session.updated
        S mcp_list_tools.in_progress item_id=L
        S conversation.item.added item.id=L item.type=mcp_list_tools item.server_label=shop
        S conversation.item.done item.id=L
        S mcp_list_tools.completed item_id=L
        C response.create
        S response.created response.id=R
        S response.output_item.added response_id=R item.id=Q item.type=mcp_approval_request
        S conversation.item.added item.id=Q
        S response.mcp_call_arguments.delta response_id=R item_id=Q
        S response.mcp_call_arguments.done response_id=R item_id=Q arguments="{}"
        S conversation.item.done item.id=Q item.name=search item.server_label=shop
        S response.output_item.done response_id=R item.id=Q
        S response.done response.id=R response.status=completed response.output.id=Q
        S rate_limits.updated
        C conversation.item.create item.approval_request_id=Q item.id=Y
        S conversation.item.added item.id=Y item.type=mcp_approval_response
        S conversation.item.done item.id=Y
        S response.created response.id=R2
        S response.output_item.added response_id=R2 item.id=M item.type=mcp_call item.approval_request_id=Q
        S conversation.item.added item.id=M
        S response.mcp_call.in_progress item_id=M output_index=0
        S response.mcp_call.completed item_id=M output_index=0
        S conversation.item.done item.id=M item.output=ok
        S response.output_item.done response_id=R2 item.id=M
        """
        + _rest(SECOND, 1)
        .replace("output_index=0", "output_index=1")
        .replace("response.output.id=A2", "response.output.id=M,A2"),
        answers=[[McpCall("shop", "search"), Say("found", ms=200)]],
    ),
    "out of band": Row(
        "3.9",
        apart,
        UPDATE
        + ASK
        + BEGINS
        + """
        C response.create response.conversation=none
        S response.created response.id=N response.conversation_id=null response.metadata.topic=x
        S response.output_item.added response_id=N item.id=X
        S response.content_part.added response_id=N item_id=X part.type=text
        S input_audio_buffer.speech_started item_id=U
        """
        + CLOSES % {"item": "incomplete"}
        + """
        S response.done response.id=R response.status=cancelled
        S rate_limits.updated
        S response.output_text.delta response_id=N item_id=X
        S response.output_text.done response_id=N item_id=X text=apart
        S response.content_part.done response_id=N item_id=X
        S response.output_item.done response_id=N item.id=X
        S response.done response.id=N response.status=completed response.conversation_id=null response.metadata.topic=x
        S rate_limits.updated
        """,
        answers=[Say("Hello", ms=400, pace=SLOW), Say("apart")],
    ),
    "delete and retrieve": Row(
        "3.10",
        delete_and_retrieve,
        UPDATE
        + ASK
        + ANSWER
        + """
        C conversation.item.retrieve item_id=A
        S conversation.item.retrieved item.id=A item.content.0.audio=*
        C conversation.item.delete item_id=A
        S conversation.item.deleted item_id=A
        C conversation.item.delete item_id=item_gone
        S error error.code=item_delete_invalid_item_id
        """,
    ),
    "transcript during the answer": Row(
        "3.11",
        lambda wire: vad_turn(wire, transcription={"model": "gpt-transcribe"}),
        UPDATE
        + TURN
        + _first(BEGINS, 4)
        + f"""
        S {TRANSCRIBED}.delta item_id=U content_index=0 delta=yes
        S {TRANSCRIBED}.completed item_id=U transcript=yes usage.type=duration
        """
        + _rest(BEGINS, 4)
        + CLOSES % {"item": "completed"}
        + DONE % {"status": "completed"},
        answers=[Say("Hello", ms=200, pace=Pace(first_ms=500))],
        transcripts=["yes"],
    ),
    "transcription fails": Row(
        "3.11",
        lambda wire: vad_turn(
            wire, {"type": "server_vad", "create_response": False}, transcription={"model": "gpt-transcribe"}
        ),
        UPDATE + TURN + f"S {TRANSCRIBED}.failed item_id=U error.code=audio_unintelligible",
        transcripts=[None],
    ),
    "two turns are transcribed in reverse": Row(
        "3.11",
        two_turns,
        UPDATE
        + USER_TURN
        + USER_TURN.replace("=U", "=U2")
        + f"""
        S {TRANSCRIBED}.delta item_id=U2
        S {TRANSCRIBED}.completed item_id=U2 transcript=second
        S {TRANSCRIBED}.completed item_id=U transcript=""
        """,
        transcripts=["", "second"],
        faults={"transcripts_reversed": True},
    ),
    "idle timeout": Row(
        "3.12",
        idle,
        UPDATE
        + ASK
        + ANSWER
        + "".join(
            f"""
            C input_audio_buffer.append
            S input_audio_buffer.timeout_triggered item_id=U{n} audio_start_ms=* audio_end_ms=*
            S input_audio_buffer.committed item_id=U{n}
            S conversation.item.added item.id=U{n} item.role=user
            S conversation.item.done item.id=U{n}
            """
            + SECOND.replace("=R2", f"=R{n}").replace("=A2", f"=A{n}")
            for n in (2, 3)
        ),
        answers=[HELLO, HELLO, HELLO],
    ),
    "rate limits": Row(
        "3.13",
        ask,
        SESSION
        + ASK
        + ANSWER.replace("rate_limits.0.name=tokens", "rate_limits.0.limit=40000 rate_limits.0.remaining=*"),
    ),
    "failed": Row("3.14", ask, SESSION + FAILED, answers=[Fail()]),
    "rate limited": Row(
        "3.14",
        ask,
        SESSION + FAILED.replace("status_details.type=failed", "status_details.error.code=rate_limit_exceeded"),
        answers=[Fail.rate_limited(2)],
    ),
    "incomplete": Row(
        "3.14",
        ask,
        SESSION
        + ASK
        + BEGINS
        + CLOSES % {"item": "incomplete"}
        + "S response.done response.status=incomplete response.status_details.reason=max_output_tokens\n"
        + "S rate_limits.updated",
        answers=[[HELLO, Incomplete()]],
    ),
    "completed without output": Row(
        "3.14",
        ask,
        SESSION
        + ASK
        + """
        S response.created response.id=R
        S response.done response.id=R response.status=completed response.status_details=null response.output=[]
        S rate_limits.updated
        """,
        answers=[[]],
    ),
    "expiry": Row(
        "3.15",
        expiry,
        UPDATE + "S error error.type=invalid_request_error error.code=session_expired error.event_id=null",
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_server_keeps_to_the_order_of_the_notes(name: str) -> None:
    row = SEQUENCES[name]
    wire = Wire(Script.of(*row.answers, transcripts=row.transcripts), **row.faults)
    row.doing(wire)
    match(row.expected, wire.events)


def test_the_end_of_an_expired_session_is_a_close() -> None:
    wire = Wire(Script.of())
    wire.wait(3600)
    assert wire.session.closing == (1001, "Your session hit the maximum duration of 60 minutes.")
