"""When a client may ask for a response, and which function calls still want their output.

A `response.create` is refused while a response is active (protocol sheet 3.7), so what is asked for meanwhile waits. The
outputs of all the calls of one response are followed by one `response.create`, never by one each:

    calls done, response ended, output of each given   -> one `response.create`
    ... and the response was cancelled or failed       -> the outputs alone: whoever stopped it goes on from there
    ... and the caller is speaking                     -> after that turn, unless the server answers it by itself

Each call counts once, by its `call_id`, wherever it is mentioned; one with cut arguments (an interrupted response) is no
call. Pure: feed `client_event` and `server_event` with dicts, then carry out what `calls` and `requests` hand out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bridge.event_fields import Event, mapping

ACTIVE_ALREADY = "conversation_already_has_active_response"


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call that the model made. `arguments` is JSON as the model wrote it, so it may be broken."""

    call_id: str
    name: str
    arguments: str
    item_id: str
    response_id: str


@dataclass(slots=True)
class _Turn:
    """The calls of one response. `ended` is its final status, empty while it goes on."""

    open: set[str] = field(default_factory=set)
    ended: str = ""


class ToolTurns:
    """The responses and function calls of one session."""

    def __init__(self) -> None:
        self.active: str = ""  # the response that is being generated
        self._requested: str | None = None  # the event id of a `response.create` that has not been answered
        self._last: str = ""  # the event id of the newest one
        self._asked: Mapping[str, Any] | None = None  # its fields; None: there is nothing to repeat
        self._wanted: deque[Mapping[str, Any]] = deque()
        self._wanted_for_tools = False
        self._blocked = False  # refused for a response that we have not seen: wait for any sign of one
        self._apart: set[str] = set()
        self._apart_asked = 0
        self._seen: set[str] = set()
        self._turns: dict[str, _Turn] = {}
        self._turn_of: dict[str, str] = {}
        self._new_calls: list[FunctionCall] = []
        self._caller_speaks = False
        self._server_answers = True

    # What the application does ---------------------------------------------------------------------------------------

    def want(self, fields: Mapping[str, Any]) -> None:
        """A response is wanted, with this `response` object (empty: as the session says). See `requests`."""
        self._blocked = False
        self._wanted.append(fields)

    def forget_wishes(self) -> None:
        """Whatever was wanted and not asked for yet is not wanted any more."""
        self._wanted.clear()
        self._wanted_for_tools = False

    @property
    def requested(self) -> bool:
        """A response was asked for and has not begun."""
        return self._requested is not None

    @property
    def idle(self) -> bool:
        """No response is active, asked for or wanted, and no call waits for its output."""
        return not (self.active or self.requested or self._wanted or self._wanted_for_tools or self._turn_of)

    def is_apart(self, response_id: str) -> bool:
        """Whether this response, which goes on, is outside the conversation."""
        return response_id in self._apart

    def is_open(self, call_id: str) -> bool:
        """Whether this call waits for its output."""
        return call_id in self._turn_of

    def answered(self, call_id: str) -> bool:
        """The output of a call is on its way. False: it is unknown, or has been answered before."""
        response_id = self._turn_of.pop(call_id, None)
        if response_id is None:
            return False
        self._turns[response_id].open.discard(call_id)
        self._settle(response_id)
        return True

    def client_event(self, event: Event) -> None:
        """Whatever is sent, `response.create` by hand included."""
        if event.get("type") != "response.create":
            return
        if mapping(event.get("response")).get("conversation") == "none":
            self._apart_asked += 1
        elif event.get("event_id") != self._last:
            # By hand: if it is refused, that is not ours to mend.
            self._last, self._asked = str(event.get("event_id", "")), None
            if not self.active and self._requested is None:
                self._requested = self._last

    # What the session does next --------------------------------------------------------------------------------------

    def calls(self) -> list[FunctionCall]:
        """The calls that came since the last time, each once."""
        calls, self._new_calls = self._new_calls, []
        return calls

    def request(self, event_id: str) -> Mapping[str, Any] | None:
        """The fields of the `response.create` to send now, under this event id; None: not now.

        What was wanted with fields of its own is asked for one by one; bare wishes and those of tools are one.
        """
        if self.active or self._requested is not None or self._blocked:
            return None
        if self._wanted:
            fields = self._wanted.popleft()
            if not fields:
                self._wanted_for_tools = False
                while self._wanted and not self._wanted[0]:
                    self._wanted.popleft()
        elif self._wanted_for_tools and not self._caller_speaks:
            fields, self._wanted_for_tools = {}, False
        else:
            return None
        self._requested = self._last = event_id
        self._asked = fields
        return fields

    # What the server says --------------------------------------------------------------------------------------------

    def server_event(self, event: Event) -> None:
        """One event. What is malformed is passed over."""
        match event.get("type"):
            case "response.created":
                self._created(mapping(event.get("response")))
            case "response.output_item.done":
                self._call(mapping(event.get("item")), str(event.get("response_id", "")))
            case "response.done":
                self._done(mapping(event.get("response")))
            case "error":
                self._error(mapping(event.get("error")))
            case "input_audio_buffer.speech_started":
                self._caller_speaks = True
            case "input_audio_buffer.speech_stopped":
                self._caller_speaks = False
                if self._server_answers:
                    # The answer to this turn sees every output sent so far.
                    self._wanted_for_tools = False
            case "input_audio_buffer.committed" | "input_audio_buffer.cleared":
                self._caller_speaks = False
            case "session.created" | "session.updated":
                told = mapping(mapping(mapping(event.get("session")).get("audio")).get("input"))
                detection = told.get("turn_detection", {})
                self._server_answers = (
                    isinstance(detection, Mapping) and detection.get("create_response") is not False
                )
                self._caller_speaks = self._caller_speaks and isinstance(detection, Mapping)

    def _created(self, response: Mapping[str, Any]) -> None:
        response_id = str(response.get("id", ""))
        if self._apart_asked and "conversation_id" in response and response["conversation_id"] is None:
            self._apart_asked -= 1
            self._apart.add(response_id)
            return
        self.active, self._requested, self._blocked = response_id, None, False

    def _done(self, response: Mapping[str, Any]) -> None:
        response_id, output = str(response.get("id", "")), response.get("output")
        if response_id in self._apart:
            self._apart.discard(response_id)
            return
        status = str(response.get("status", ""))
        for item in output if isinstance(output, list) and status in ("completed", "incomplete") else ():
            self._call(mapping(item), response_id)
        if response_id == self.active or not self.active:
            self.active, self._blocked, self._asked = "", False, None
        if response_id in self._turns:
            self._turns[response_id].ended = status or "completed"
            self._settle(response_id)

    def _call(self, item: Mapping[str, Any], response_id: str) -> None:
        call_id = item.get("call_id")
        if item.get("type") != "function_call" or not isinstance(call_id, str) or not call_id:
            return
        if call_id in self._seen or response_id in self._apart or item.get("status") not in (None, "completed"):
            return
        self._seen.add(call_id)
        self._turns.setdefault(response_id, _Turn()).open.add(call_id)
        self._turn_of[call_id] = response_id
        arguments = item.get("arguments")
        # Some servers send the arguments as an object.
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
        self._new_calls.append(
            FunctionCall(call_id, str(item.get("name", "")), text, str(item.get("id", "")), response_id)
        )

    def _settle(self, response_id: str) -> None:
        turn = self._turns[response_id]
        if turn.ended and not turn.open:
            del self._turns[response_id]
            self._wanted_for_tools |= turn.ended in ("completed", "incomplete")

    def _error(self, error: Mapping[str, Any]) -> None:
        event_id = error.get("event_id")
        if error.get("code") == ACTIVE_ALREADY:
            # The response that has begun meanwhile was not the one that we asked for. No `response.done` follows for the
            # refused one; the active one's will.
            if event_id in (None, self._last):
                self._requested, asked, self._asked = None, self._asked, None
                if asked is not None:
                    self._blocked = not self.active
                    if asked:
                        self._wanted.appendleft(asked)
                    else:
                        self._wanted_for_tools = True
        elif event_id in (None, self._requested):
            # Without an event id it may be about our request: not to know is to be free to ask again.
            self._requested = None
