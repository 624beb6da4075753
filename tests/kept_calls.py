"""Records of calls, made by hand."""

from __future__ import annotations

from typing import Any

from bridge.call_record import CallRecord, Said, ToolUse
from bridge.kept_call import KeptCall, kept
from bridge.latency import Stage, TurnSpans
from bridge.records import AgentRecords
from bridge.usage import UsageTotals

BEGAN_S = 1_795_800_000.25


def record_of(number: int = 1, **changes: Any) -> CallRecord:
    """A whole call, the `number`th of its hour."""
    record = CallRecord(
        call_id=f"{number:08x}-0000-4000-8000-000000000000",
        agent="bakery",
        caller="+493012345678",
        called="100",
        media_format="slin16",
        began_unix_s=BEGAN_S + 60 * number,
        reason="caller_hung_up",
        completion_reason="normal conversation end",
        hangup_cause=16,
        duration_s=92.4,
        model_ready_after_s=0.75,
        answered_after_s=0.8,
        greeted_after_s=1.3,
        replies=2,
        interruptions=1,
    )
    record.transcript = [
        Said(1.3, "agent", "Smith's bakery, good morning."),
        Said(4.0, "caller", "When are you open? My number is 4711."),
        Said(7.5, "agent", "On Saturday from seven to", interrupted=True),
    ]
    record.tool_uses = [ToolUse(5.0, "t1", "opening_hours", '{"day": "saturday"}', "7 to 13", 0.42)]
    spans = TurnSpans(began=Stage.SPEECH_END, vad_ms=500.0, model_ms=300.0, bridge_ms=20.0, total_ms=820.0)
    record.turns.add(spans)
    record.noticed("turn", at_s=7.5, facts=spans.facts())
    usage = UsageTotals(responses=2, audio_in_tokens=120, audio_cached_tokens=80, audio_out_tokens=53, priced=2)
    record.account(usage, "2026-11-01")
    record.cost_usd = 0.0312
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def kept_of(number: int = 1, settings: AgentRecords | None = None, days: int = 0, **changes: Any) -> KeptCall:
    """The same as it is kept."""
    return kept(record_of(number, **changes), settings or AgentRecords(), retention_days=days, host="here")
