"""What a soak run looks at while it runs: events between bridge and model, and what the caller hears."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio

from bridge.config import Limits
from simulators.realtime_server import REFUSALS

Json = dict[str, Any]

LEAVING = ("hang_up", "transfer_call")
# What the server may say without a fault of the bridge: a race of section 4, and what faults make it say.
RACES = frozenset({"response_cancel_not_active"})
FAULTS = (
    "Your session hit",
    "Invalid 'session': refused by the simulator's fault",
    *(message for _, _, message in REFUSALS.values()),
)
# A create that crosses with a response of the server's own is a race for about one way there and back.
RACE_S = 0.5
# A tick of 250 ms to see that a wait has begun, one to see that it is too long, and what is in the queue.
SILENCE_S = Limits().caller_waits_s + 2 * 0.25 + 0.1
# A connection that lived so long after a function call has seen its output: the tool's time, and reserves.
ANSWERED_S = Limits().tool_s + 5.0


class Watch:
    """One call's observer. Times are trio's. `cut_off`: what the server says now does not reach the bridge, so a turn
    that it commits meanwhile is none that the bridge could answer."""

    def __init__(self, cut_off: Callable[[], bool]) -> None:
        self._cut_off = cut_off
        self.listening = 0  # the connection that carries the caller's audio
        self.sessions = 0
        self.longest_s = 0.0
        self._found: list[str] = []
        self._counts: Counter[str] = Counter()
        # The dialogue, as the server sees it.
        self._active: dict[int, tuple[str, float]] = {}  # connection: response and when it was announced
        self._asked: dict[tuple[int, str], float] = {}  # (connection, call_id): when
        self._alive: dict[int, float] = {}  # connection: its last sign of life
        self._outputs: Counter[tuple[int, str]] = Counter()
        # Silence.
        self._speaks = False
        self._owed_since = math.inf
        self._loud_at = -math.inf
        self._owed_by = ""
        self._told = False

    # What the caller hears -------------------------------------------------------------------------------------------

    def frame(self, loud: bool, now: float) -> None:
        """20 ms reached the caller."""
        if loud:
            self._loud_at = now
            self._told = False
            return
        if self._speaks or self._owed_since == math.inf:
            return
        silence_s = now - max(self._owed_since, self._loud_at)
        self.longest_s = max(self.longest_s, silence_s)
        if silence_s > SILENCE_S and not self._told:
            self._told = True
            self._found.append(f"silence of more than {SILENCE_S:.2f} s at {now:.1f}, owed: {self._owed_by}")

    @property
    def caller_may_speak(self) -> bool:
        """The agent has said what it had to say, half a second ago."""
        return trio.current_time() - self._loud_at >= 0.5 and self._owed_since == math.inf

    def caller_speaks(self, speaks: bool, now: float) -> None:
        self._speaks = speaks
        if not speaks and self._owed_since < math.inf:
            self._owed_since = now

    def _owe(self, now: float, why: str) -> None:
        self._owed_by = why
        if self._owed_since == math.inf and not self._cut_off():
            self._owed_since = now
            self._told = False

    def _settle(self) -> None:
        self._owed_since = math.inf

    # What passes -----------------------------------------------------------------------------------------------------

    def event(self, who: str, connection: int, event: Json) -> None:
        """The tap of the simulator."""
        now = trio.current_time()
        self._alive[connection] = now
        kind = event.get("type")
        if kind == "input_audio_buffer.append":
            self.listening = max(self.listening, connection)
            return
        self._counts[f"{who} {kind}"] += 1
        if who == "C":
            self._client(connection, event, now)
        else:
            self._server(connection, event, now)

    def _client(self, connection: int, event: Json, now: float) -> None:
        match event:
            case {"type": "session.update"}:
                self.sessions = max(self.sessions, connection)
            case {"type": "response.create"}:
                if (event.get("response") or {}).get("conversation") != "none":
                    self._owe(now, "response.create")
            case {"type": "conversation.item.create", "item": {"type": "function_call", "call_id": call_id}}:
                self._asked.setdefault((connection, call_id), now)
            case {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": call_id}}:
                self._outputs[connection, call_id] += 1
                if self._outputs[connection, call_id] > 1:
                    self._found.append(f"{call_id} got {self._outputs[connection, call_id]} outputs at {now:.1f}")

    def _server(self, connection: int, event: Json, now: float) -> None:
        match event:
            case {"type": "response.created", "response": response} if response["conversation_id"]:
                self._active[connection] = response["id"], now
                self._owe(now, "response.created")
            case {"type": "response.done", "response": response} if response["conversation_id"]:
                self._active.pop(connection, None)
                self._done(connection, response, now)
            case {"type": "input_audio_buffer.committed"}:
                self._owe(now, "the caller's turn")
            case {"type": "input_audio_buffer.speech_started"}:
                self._settle()
            case {"type": "error", "error": error}:
                self._error(connection, error, now)

    def _done(self, connection: int, response: Json, now: float) -> None:
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        if response["status"] in ("completed", "incomplete"):
            for item in calls:
                if item["status"] == "completed" and item["name"] not in LEAVING:
                    self._asked.setdefault((connection, item["call_id"]), now)
            if any(item["name"] in LEAVING for item in calls):
                self._settle()  # the agent takes leave
            elif calls:
                self._owe(now, "a tool")
            else:
                self._settle()
        elif response["status"] == "cancelled":
            self._settle()
        else:
            self._owe(now, "a failed response")

    def _error(self, connection: int, error: Json, now: float) -> None:
        code = error["code"]
        if code == "conversation_already_has_active_response":
            announced = self._active.get(connection, ("", now))[1]
            if now - announced > RACE_S:
                self._found.append(f"response.create beside one that was announced {now - announced:.2f} s before")
        elif code not in RACES and error["type"] != "server_error" and not error["message"].startswith(FAULTS):
            self._found.append(f"the server refused something at {now:.1f}: {error}")

    # The verdict -----------------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What was wrong, in words."""
        unanswered = [
            f"{call_id} of connection {connection} got no output"
            for (connection, call_id), at in self._asked.items()
            if not self._outputs[connection, call_id] and self._alive[connection] - at > ANSWERED_S
        ]
        return self._found + unanswered

    def facts(self) -> Json:
        return {
            "responses": self._counts["S response.created"],
            "calls": len(self._asked),
            "truncates": self._counts["C conversation.item.truncate"],
            "longest_silence_s": round(self.longest_s, 2),
        }
