"""The record of a call: everything that is worth keeping of it, whatever happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import msgspec

from bridge.call_events import CallEnded
from bridge.ending import Ending
from bridge.latency import CallLatency, Latencies
from bridge.leg import CallControl
from bridge.usage import UsageTotals, usd_of

# What people said is not for the log.
_PERSONAL = frozenset({"transcript", "tool_uses"})
# Each answered turn has a line of its own in the log.
_TOLD_BEFORE = frozenset({"answered_turns"})
MOST_TURNS = 2000


@dataclass(slots=True)
class Said:
    """One thing that was said. `at_s` counts from the beginning of the call. Of the agent `text` is what the caller heard;
    `interrupted` says that more was to come."""

    at_s: float
    role: Literal["caller", "agent"]
    text: str
    interrupted: bool = False


@dataclass(slots=True)
class ToolUse:
    """One call of a tool. `output` is what the model was told; `lasted_s` is None where it was not answered."""

    at_s: float
    tool_call_id: str
    name: str
    arguments: str
    output: str = ""
    lasted_s: float | None = None
    failed: bool = False


@dataclass(slots=True)
class CallRecord:
    """Everything that is worth keeping of one call; filled while it runs, logged once at its end.

    `hangup_cause` is Q.850: the caller's, or what signalling was told where we hung up; 0: none is known.
    `model_ready_after_s` (first session), `answered_after_s`, `greeted_after_s` (first frame) count from the media on.
    `usage` and `cost_usd` are the server's figures at the prices of `priced_as_of`; `cost_usd` is None when nothing could
    be priced, and the least it cost while `usage.unpriced` is not 0. `turns` are the spans of `latency.TurnSpans`.
    `recording` says who recorded, where the file is and how much it holds; empty where the agent has no recording.
    `answered_turns` are the facts of each (`latency.TurnSpans.facts`) with `at_s`, when its answer was first heard; no more
    than `MOST_TURNS`, while `turns` counts all.
    `transcript` and `tool_uses` are what was said and done, in order; they are no part of `facts`, which are logged.
    `left_out` counts what `transcript.Transcript` had no room for.
    """

    call_id: str
    agent: str = ""
    direction: Literal["inbound", "outbound"] = "inbound"
    caller: str = ""
    called: str = ""
    media_format: str = ""
    began_unix_s: float = 0.0
    reason: str = ""
    detail: str = ""
    hangup_cause: int = 0
    also: list[str] = field(default_factory=list)
    completion_reason: str = ""
    error: dict[str, str | None] | None = None
    duration_s: float = 0.0
    model_ready_after_s: float | None = None
    answered_after_s: float | None = None
    greeted_after_s: float | None = None
    replies: int = 0
    model_reply_ms: Latencies = field(default_factory=Latencies)
    bridge_reply_ms: Latencies = field(default_factory=Latencies)
    uplink_ms: Latencies = field(default_factory=Latencies)
    frame_lateness_ms: Latencies = field(default_factory=Latencies)
    frames_late: int = 0
    frames_lost: int = 0
    audio_to_model_ms: int = 0
    audio_dropped_ms: int = 0
    audio_heard_ms: int = 0
    interruptions: int = 0
    underruns: int = 0
    turns: CallLatency = field(default_factory=CallLatency)
    usage: UsageTotals = field(default_factory=UsageTotals)
    cost_usd: float | None = None
    priced_as_of: str = ""
    model_reconnects: int = 0
    longest_silence_ms: int = 0
    recording: dict[str, object] = field(default_factory=dict)
    transcript: list[Said] = field(default_factory=list)
    tool_uses: list[ToolUse] = field(default_factory=list)
    left_out: int = 0
    answered_turns: list[dict[str, object]] = field(default_factory=list)

    def noticed(self, event: str, facts: Mapping[str, object], at_s: float) -> None:
        """Count what a notice of the call tells. `at_s` counts from its beginning."""
        match event, facts:
            case "agent_starts", {"bridge_ms": float(bridge_ms), **rest}:
                self.replies += 1
                self.bridge_reply_ms.add(bridge_ms / 1000)
                if isinstance(model_ms := rest.get("model_ms"), int):
                    self.model_reply_ms.add(model_ms / 1000)
                if self.greeted_after_s is None:
                    self.greeted_after_s = round(at_s, 4)
            case "agent_interrupted", _:
                self.interruptions += 1
            case "session_resumed", _:
                self.model_reconnects += 1
            case "turn", _ if len(self.answered_turns) < MOST_TURNS:
                self.answered_turns.append({"at_s": round(at_s, 3), **facts})

    def ended_by(self, ending: Ending) -> None:
        """Enter why the call ended, which is decided."""
        assert ending.reason is not None
        self.reason, self.detail, self.hangup_cause = ending.reason.value, ending.detail, ending.told_cause
        self.also = [f"{reason.value}: {detail}" for reason, detail in ending.later]
        self.completion_reason = ending.farewell.completion.value
        if ending.error is not None:
            self.error = {"code": ending.error.code, "message": ending.error.message}

    def account(self, usage: UsageTotals, priced_as_of: str) -> None:
        """Enter what the call used, and what that costs."""
        self.usage, self.cost_usd, self.priced_as_of = usage, usd_of(usage.cost_nano_usd), priced_as_of

    def end_event(self) -> CallEnded:
        """What applications are told of the end."""
        return CallEnded(
            reason=self.reason,
            completion_reason=self.completion_reason,
            error=self.error,
            duration_s=self.duration_s,
        )

    def facts(self) -> dict[str, Any]:
        """The record as plain JSON types, without what was said."""
        facts: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            if name in _PERSONAL or name in _TOLD_BEFORE:
                continue
            value = getattr(self, name)
            match value:
                case Latencies() | CallLatency():
                    facts[name] = value.summary()
                case UsageTotals():
                    facts[name] = msgspec.to_builtins(value)
                case _:
                    facts[name] = value
        return facts


def record_of(call_id: UUID, agent_name: str, control: CallControl, began_unix_s: float) -> CallRecord:
    """The record of a call that begins now, whether or not it gets any further."""
    return CallRecord(
        call_id=str(call_id),
        agent=agent_name,
        direction="outbound" if control.places else "inbound",
        caller=control.caller,
        called=control.called,
        began_unix_s=began_unix_s,
    )
