"""An ended call as it is kept: its record, without what its agent's settings leave out, as the rows of a database.

`kept` makes it, once, before anything is stored anywhere: what waits on disk for a database that is away has been redacted
too. The columns are those of `record_tables`, whose page is `docs/records.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.call_record import CallRecord
from bridge.records import AgentRecords
from bridge.redaction import Redactor, kept_number, number_in

Row = dict[str, Any]

# A text that is longer is cut: nobody says so much, and a tool that answers so much did not mean the telephone.
MOST_CHARACTERS = 20_000
MOST_ROWS = 5_000
_NOT_STORED = {0: "\ufffd"} | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


class KeptCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call: a row of `calls`, and its rows of `turns`, `tool_calls` and `latencies` in order. JSON-plain throughout, so
    that it can wait on disk. Times are unix seconds in `call`, seconds from the beginning of the call elsewhere.

    A call is one of the same `call_id` and `began_at`: a dialplan may use a UUID twice.
    """

    call: Row
    turns: list[Row] = []
    tool_calls: list[Row] = []
    latencies: list[Row] = []

    @property
    def key(self) -> str:
        """One name for the one call, fit for a file."""
        return f"{self.call['began_at']:.6f}-{self.call['call_id']}"


def kept(record: CallRecord, settings: AgentRecords, *, retention_days: int = 0, host: str = "") -> KeptCall:
    """What is kept of a call. `retention_days`: for how long, 0 for ever; `host`: the machine that has its recording."""
    caller, called = record.caller, record.called
    masked: list[tuple[str, str]] = []
    if settings.keep_numbers != "whole":
        theirs = record.called if record.direction == "outbound" else record.caller
        instead = kept_number(theirs, settings.keep_numbers)
        for text in (theirs, number_in(theirs)):
            masked.append((text, kept_number(text, settings.keep_numbers) or "[number]"))
        caller, called = (caller, instead) if record.direction == "outbound" else (instead, called)
    redactor = Redactor(settings.redact, masked)
    numbers = Redactor((), masked)
    facts = _storable(numbers.plain(record.facts() | {"caller": "", "called": ""}))
    facts |= {"caller": _storable(caller), "called": _storable(called)}
    call = {
        **{name: facts[name] for name in _SAME_NAMES},
        "began_at": round(record.began_unix_s, 6),
        "error_code": (facts["error"] or {}).get("code"),
        "error_message": (facts["error"] or {}).get("message"),
        "turn_p50_ms": _percentile(facts["turns"], "p50_ms"),
        "turn_p95_ms": _percentile(facts["turns"], "p95_ms"),
        "input_tokens": _tokens(facts["usage"], "in"),
        "cached_tokens": _tokens(facts["usage"], "cached"),
        "output_tokens": _tokens(facts["usage"], "out"),
        "cost_is_complete": not facts["usage"].get("unpriced"),
        "recording_by": record.recording.get("by") or "",
        # As it is on the disk, or nobody would find it.
        "recording_path": _storable(str(record.recording.get("file") or "")),
        "recording_ms": record.recording.get("length_ms") or 0,
        "host": host,
        "retention_days": retention_days,
        "facts": facts,
    }
    return KeptCall(
        call=call,
        turns=_turns(record, redactor) if settings.keep_transcript else [],
        tool_calls=_tool_calls(record, redactor, arguments=settings.keep_tool_arguments),
        latencies=[_latency(number, it) for number, it in enumerate(record.answered_turns[:MOST_ROWS], 1)],
    )


_SAME_NAMES = (
    "call_id", "agent", "direction", "caller", "called", "duration_s", "reason", "detail", "completion_reason",
    "hangup_cause", "media_format", "model_ready_after_s", "answered_after_s", "greeted_after_s", "replies",
    "interruptions", "model_reconnects", "longest_silence_ms", "frames_late", "frames_lost", "audio_to_model_ms",
    "audio_heard_ms", "cost_usd", "priced_as_of",
)  # fmt: skip


def _turns(record: CallRecord, redactor: Redactor) -> list[Row]:
    return [
        {
            "number": number,
            "at_s": round(said.at_s, 3),
            "role": said.role,
            "text": _storable(redactor.text(said.text)),
            "interrupted": said.interrupted,
        }
        for number, said in enumerate(record.transcript[:MOST_ROWS], 1)
    ]


def _tool_calls(record: CallRecord, redactor: Redactor, *, arguments: bool) -> list[Row]:
    return [
        {
            "number": number,
            "at_s": round(use.at_s, 3),
            "tool_call_id": _storable(use.tool_call_id),
            "name": _storable(use.name),
            "arguments": _storable(redactor.json_text(use.arguments)) if arguments else "",
            "output": _storable(redactor.json_text(use.output)) if arguments else "",
            "lasted_s": None if use.lasted_s is None else round(use.lasted_s, 3),
            "failed": use.failed,
        }
        for number, use in enumerate(record.tool_uses[:MOST_ROWS], 1)
    ]


_SPANS = ("vad_ms", "commit_ms", "create_ms", "model_ms", "tools_ms", "bridge_ms", "total_ms")


def _latency(number: int, turn: Mapping[str, Any]) -> Row:
    spans = {name: turn.get(name) for name in _SPANS}
    return {"number": number, "at_s": round(turn["at_s"], 3), "began": turn["began"], **spans}


def _percentile(turns: Mapping[str, Any], name: str) -> float | None:
    """Of the caller's turns; None: none was answered."""
    found: float | None = turns.get("total_ms", {}).get(name)
    return found


def _tokens(usage: Mapping[str, Any], kind: str) -> int:
    return sum(count for name, count in usage.items() if name.endswith(f"_{kind}_tokens"))


def _storable(value: Any) -> Any:
    """What every database takes: PostgreSQL refuses NUL in texts, and nobody takes half a surrogate pair or infinity."""
    match value:
        case str():
            text = value.translate(_NOT_STORED)
            left = len(text) - MOST_CHARACTERS
            return text if left <= 0 else f"{text[:MOST_CHARACTERS]}... ({left} more characters)"
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {_storable(str(key)): _storable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_storable(inner) for inner in value]
    return value
