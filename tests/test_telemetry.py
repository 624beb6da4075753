"""What is told: figures of bounded size, one record a call, logs without secrets."""

from __future__ import annotations

import json
import logging
from typing import Any

from bridge.call_record import CallRecord
from bridge.latency import Stage, TurnSpans
from bridge.telemetry import ConsoleFormatter, JsonFormatter, call_id_of_context
from bridge.usage import UsageTotals


def test_the_record_is_plain_json() -> None:
    record = CallRecord(call_id="c", agent="default")
    record.uplink_ms.add(0.001)
    facts = json.loads(json.dumps(record.facts()))
    assert facts["uplink_ms"]["count"] == 1
    assert facts["reason"] == ""


# What people's dashboards read. Names may be added, none may go or change its type.
RECORD = {
    "call_id": str, "agent": str, "caller": str, "media_format": str, "began_unix_s": float, "reason": str, "detail": str,
    "also": list, "completion_reason": str, "error": None, "duration_s": float, "model_ready_after_s": None,
    "answered_after_s": None, "greeted_after_s": None,
    "replies": int, "model_reply_ms": dict, "bridge_reply_ms": dict, "uplink_ms": dict,
    "frame_lateness_ms": dict, "frames_late": int, "frames_lost": int, "audio_to_model_ms": int, "audio_dropped_ms": int,
    "audio_heard_ms": int, "interruptions": int, "underruns": int, "turns": dict, "usage": dict, "cost_usd": None,
    "priced_as_of": str, "model_reconnects": int, "longest_silence_ms": int,
}  # fmt: skip


def test_the_records_names_and_types_stay() -> None:
    facts = json.loads(json.dumps(CallRecord(call_id="c").facts()))
    told = {name: None if value is None else type(value) for name, value in facts.items()}
    assert {name: told.get(name) for name in RECORD} == RECORD
    assert set(facts["uplink_ms"]) == {"count", "p50_ms", "p99_ms", "max_ms"}


def test_the_record_tells_turns_and_cost() -> None:
    record = CallRecord(call_id="c")
    record.turns.add(TurnSpans(began=Stage.SPEECH_END, vad_ms=500.0, bridge_ms=20.0, total_ms=1400.0))
    record.account(UsageTotals(responses=3, priced=2, unpriced=1, priced_nano_usd=3_249_600), "2026-11-01")
    facts = json.loads(json.dumps(record.facts()))
    assert facts["turns"]["total_ms"] == {"count": 1, "p50_ms": 1400.0, "p95_ms": 1400.0, "max_ms": 1400.0}
    assert set(facts["turns"]) == {"vad_ms", "bridge_ms", "total_ms"}
    assert facts["usage"] == {"responses": 3, "priced": 2, "unpriced": 1, "priced_nano_usd": 3_249_600}
    assert (facts["cost_usd"], facts["priced_as_of"]) == (0.0032496, "2026-11-01")


def test_a_call_that_could_not_be_priced_is_not_told_as_free() -> None:
    record = CallRecord(call_id="c")
    record.account(UsageTotals(responses=1, unpriced=1), "2026-11-01")
    assert record.facts()["cost_usd"] is None


def line(formatter: logging.Formatter, **extra: Any) -> str:
    record = logging.LogRecord("bridge.call", logging.INFO, "f", 1, "agent_said", None, None)
    record.__dict__.update(extra)
    return formatter.format(record)


def test_json_lines_carry_call_and_facts() -> None:
    told = json.loads(
        line(JsonFormatter(words=True), call_id="abc", facts={"text": 'with "quotes"\nand lines', "ms": 5})
    )
    assert (told["event"], told["call_id"], told["text"], told["ms"]) == (
        "agent_said", "abc", 'with "quotes"\nand lines', 5,
    )  # fmt: skip


def test_no_fact_takes_a_json_line_away_from_its_call() -> None:
    told = json.loads(line(JsonFormatter(), call_id="abc", facts={"call_id": "call_1", "event": "other"}))
    assert (told["event"], told["call_id"]) == ("agent_said", "abc")


def test_console_lines_show_of_figures_the_half_and_the_longest_and_of_tables_no_tables() -> None:
    figures = {"count": 3, "p50_ms": 284.25, "p99_ms": 294.0, "max_ms": 294.0}
    usage = {"total_tokens": 9, "input_token_details": {"text_tokens": 4}}
    facts = {
        "call_id": "0123",
        "also": [],
        "none": {"count": 0},
        "reply_ms": figures,
        "turns": {"vad_ms": figures},
        "usage": usage,
    }
    text = line(ConsoleFormatter(), call_id="0123", facts=facts)
    assert text.endswith("[0123] agent_said reply_ms=284.25..294 turns=vad_ms:284.25..294 usage=total_tokens:9")


def test_console_lines_are_short() -> None:
    text = line(
        ConsoleFormatter(words=True), call_id="0123456789", facts={"text": "two words", "none": None, "ms": 5}
    )
    assert text.endswith("info    [01234567] agent_said text='two words' ms=5")


def test_the_call_id_belongs_to_the_task() -> None:
    assert call_id_of_context.get() == ""
