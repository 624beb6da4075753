"""One call as a tree of spans, from its events and its record: names, times, attributes. Without I/O and without a clock.

    call
    |- model.connect              from the media to the first session, configured and acknowledged
    |- answer                     from the media to the caller on the line
    |- greeting                   from asking for it to its first sound
    |- turn                       from the caller's last sound to the first of the answer; its parts below it:
    |   `- vad, commit, create, tools, model, bridge      as `latency` takes them apart
    |- execute_tool NAME          from the model's call to its answer
    |- transfer                   from the agent's decision to its success (the end of the call) or its failure
    `- model.reopen               from a lost session to the one that takes over

No attribute is of what people say, type or are called by: no number, word, argument, digit. What is about the model has
the names of OpenTelemetry's conventions for generative AI (`gen_ai.*`), the rest begins with `realtime_bridge.`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.call_record import CallRecord
from bridge.call_tools import TRANSFER_CALL

# What `CallTrace.heard` wants to hear of the call's own events.
WORDS = (
    "turn",
    "tool.called",
    "tool.answered",
    "session_lost",
    "session_resumed",
    "transfer_failed",
    "transfer_refused",
)
# In the order of time: the tools run while the model waits for them.
_PARTS = ("vad", "commit", "create", "tools", "model", "bridge")
_OPEN_AT_ONCE = 64
_UNDECLARED = "undeclared"

Attributes = dict[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span below the call's. Times are seconds since 1970; `trouble` is "" where nothing failed."""

    name: str
    began_s: float
    ended_s: float
    attributes: Attributes = field(default_factory=dict)
    trouble: str = ""
    parts: tuple[Span, ...] = ()


class CallTrace:
    """Fed with the events of one call; each gives the spans that it completes. What stays open is closed by `ended`."""

    def __init__(self, tool_names: frozenset[str] = frozenset()) -> None:
        self._tool_names = tool_names
        self._open: dict[str, tuple[str, float, Attributes]] = {}
        self._turns = 0

    def heard(self, kind: str, facts: Mapping[str, Any], now_s: float) -> Iterator[Span]:
        """An event of `WORDS`, at seconds since 1970."""
        match kind:
            case "turn":
                yield self._turn(facts, now_s)
            case "tool.called":
                name = str(facts.get("name", ""))
                shown = name if name in self._tool_names else _UNDECLARED
                call_id = str(facts.get("tool_call_id", ""))
                attributes: Attributes = {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": shown,
                    "gen_ai.tool.call.id": call_id,
                }
                self._begin(f"tool {call_id}", f"execute_tool {shown}", now_s, attributes)
                if name == TRANSFER_CALL:
                    self._begin("transfer", "transfer", now_s, {})
            case "tool.answered":
                trouble = "the tool failed" if facts.get("failed") else ""
                yield from self._end(f"tool {facts.get('tool_call_id', '')}", now_s, trouble)
            case "transfer_failed" | "transfer_refused":
                yield from self._end("transfer", now_s, kind)
            case "session_lost":
                self._begin(
                    "session", "model.reopen", now_s, {"realtime_bridge.lost_by": str(facts.get("reason", ""))}
                )
            case "session_resumed":
                yield from self._end("session", now_s, "")

    def ended(self, record: CallRecord) -> Iterator[Span]:
        """The call is over: what its record tells, and what had not come to an end."""
        began_s = record.began_unix_s
        ended_s = began_s + record.duration_s
        for name, after_s in (("model.connect", record.model_ready_after_s), ("answer", record.answered_after_s)):
            if after_s is not None:
                yield Span(name, began_s, began_s + after_s)
        if record.model_ready_after_s is None and record.duration_s:
            yield Span("model.connect", began_s, ended_s, trouble="the call ended before")
        done = record.reason == "transferred"
        for key in list(self._open):
            yield from self._end(key, ended_s, "" if done and key == "transfer" else "the call ended before")

    @staticmethod
    def of_call(record: CallRecord) -> Attributes:
        """The attributes of the call's own span."""
        usage, mine = record.usage, "realtime_bridge."
        told: Attributes = {
            mine + "call_id": record.call_id,
            mine + "agent": record.agent,
            mine + "direction": record.direction,
            mine + "reason": record.reason,
            mine + "completion_reason": record.completion_reason,
            mine + "media_format": record.media_format,
            mine + "hangup_cause": record.hangup_cause,
            mine + "replies": record.replies,
            mine + "interruptions": record.interruptions,
            mine + "model_reconnects": record.model_reconnects,
            mine + "frames_late": record.frames_late,
            mine + "frames_lost": record.frames_lost,
            "gen_ai.usage.input_tokens": usage.text_in_tokens + usage.audio_in_tokens + usage.image_in_tokens
            + usage.other_in_tokens,
            "gen_ai.usage.output_tokens": usage.text_out_tokens + usage.audio_out_tokens + usage.other_out_tokens,
        }  # fmt: skip
        if record.cost_usd is not None:
            told[mine + "cost_usd"] = record.cost_usd
        return told

    def _turn(self, facts: Mapping[str, Any], now_s: float) -> Span:
        """The event comes with the turn's first frame, and says how long ago each stage was."""
        at_s = began_s = now_s - float(facts["total_ms"]) / 1000
        if facts.get("began") == "prompted":
            self._turns += 1
            # The greeting is what is prompted first; keys prompt as well.
            return Span("greeting" if self._turns == 1 else "turn", began_s, now_s, {"realtime_bridge.spoken": False})
        self._turns += 1
        parts = []
        for name in _PARTS:
            if (lasted_ms := facts.get(f"{name}_ms")) is not None:
                parts.append(Span(name, at_s, at_s + lasted_ms / 1000))
                at_s += lasted_ms / 1000
        return Span("turn", began_s, now_s, {"realtime_bridge.spoken": True}, parts=tuple(parts))

    def _begin(self, key: str, name: str, now_s: float, attributes: Attributes) -> None:
        if len(self._open) < _OPEN_AT_ONCE:
            self._open.setdefault(key, (name, now_s, attributes))

    def _end(self, key: str, now_s: float, trouble: str) -> Iterator[Span]:
        if opened := self._open.pop(key, None):
            name, began_s, attributes = opened
            yield Span(name, began_s, now_s, attributes, trouble)
