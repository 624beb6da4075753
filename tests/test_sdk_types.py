"""The shared checker itself: it passes the sample events of the protocol notes and fails what the server refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError
from sdk_types import CLIENT, SERVER, check, check_server

from simulators.realtime_rules import check_client_event
from simulators.realtime_schema import Refusal

Json = dict[str, Any]

UPDATE: Json = {
    "type": "session.update",
    "event_id": "c1",
    "session": {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "...",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "gpt-transcribe"},
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                    "create_response": True,
                    "interrupt_response": True,
                    "idle_timeout_ms": None,
                },
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
        },
        "tools": [{"type": "function", "name": "transfer", "description": "...", "parameters": {"type": "object"}}],
        "tool_choice": "auto",
    },
}


def changed(event: Json, path: str, value: Any) -> Json:
    """A copy of `event` with the value at a dotted path replaced; `...` deletes it."""
    event = copy.deepcopy(event)
    *way, last = path.split(".")
    place: Any = event
    for name in way:
        place = place[int(name)] if name.isdigit() else place.setdefault(name, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return event


def update(path: str, value: Any) -> Json:
    return changed(UPDATE, f"session.{path}", value)


TRUNCATE: Json = {"type": "conversation.item.truncate", "item_id": "item_A1", "content_index": 0, "audio_end_ms": 640}
OUTPUT: Json = {
    "type": "conversation.item.create",
    "item": {"type": "function_call_output", "call_id": "call_1", "output": '{"ok":true}'},
}
CREATE: Json = {"type": "response.create", "response": {"instructions": "Greet.", "metadata": {"topic": "x"}}}

GOOD = [
    UPDATE,
    TRUNCATE,
    OUTPUT,
    CREATE,
    {"type": "input_audio_buffer.append", "audio": "//79/w=="},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "conversation.item.delete", "item_id": "item_A1"},
    {"type": "conversation.item.retrieve", "item_id": "item_A1"},
    {"type": "response.cancel", "response_id": "resp_1"},
    {"type": "response.create"},
    changed(CREATE, "response.input", [{"type": "item_reference", "id": "item_1"}]),
    changed(CREATE, "response.conversation", "none"),
    {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}},
    update("audio.input.turn_detection", {"type": "semantic_vad", "eagerness": "low"}),
    update("max_output_tokens", "inf"),
    update("tool_choice", {"type": "function", "name": "transfer"}),
    update("audio.output.voice", {"id": "voice_1"}),
]

# What is wrong, the event, and the code with which the fake refuses it.
BAD: dict[str, tuple[Json, str]] = {
    "no session type": (update("type", ...), "missing_required_parameter"),
    "temperature": (update("temperature", 0.8), "unknown_parameter"),
    "beta format": (update("input_audio_format", "g711_ulaw"), "unknown_parameter"),
    "format as a word": (update("audio.input.format", "g711_ulaw"), "invalid_type"),
    "pcm without rate": (update("audio.output.format", {"type": "audio/pcm"}), "missing_required_parameter"),
    "pcm at 16 kHz": (update("audio.output.format.rate", 16000), "invalid_value"),
    "G.711 with rate": (update("audio.input.format.rate", 8000), "unknown_parameter"),
    "format without type": (update("audio.input.format", {}), "missing_required_parameter"),
    "both modalities": (update("output_modalities", ["audio", "text"]), "invalid_value"),
    "no modality": (update("output_modalities", []), "invalid_value"),
    "null switch": (update("audio.input.turn_detection.create_response", None), "invalid_type"),
    "idle too short": (update("audio.input.turn_detection.idle_timeout_ms", 4999), "invalid_value"),
    "idle with semantic": (
        update("audio.input.turn_detection", {"type": "semantic_vad", "idle_timeout_ms": 6000}),
        "unknown_parameter",
    ),
    "threshold": (update("audio.input.turn_detection.threshold", 1.1), "invalid_value"),
    "negative silence": (update("audio.input.turn_detection.silence_duration_ms", -1), "invalid_value"),
    "speed": (update("audio.output.speed", 1.6), "invalid_value"),
    "no tokens": (update("max_output_tokens", 0), "invalid_value"),
    "nested tool": (update("tools.0.function", {"name": "x"}), "unknown_parameter"),
    "nameless tool": (update("tools", [{"type": "function"}]), "missing_required_parameter"),
    "mcp server without an address": (
        update("tools", [{"type": "mcp", "server_label": "orders"}]),
        "missing_required_parameter",
    ),
    "float truncate": (changed(TRUNCATE, "audio_end_ms", 640.0), "invalid_type"),
    "boolean truncate": (changed(TRUNCATE, "audio_end_ms", True), "invalid_type"),
    "negative truncate": (changed(TRUNCATE, "audio_end_ms", -1), "invalid_value"),
    "no content_index": (changed(TRUNCATE, "content_index", ...), "missing_required_parameter"),
    "output as an object": (changed(OUTPUT, "item.output", {"ok": True}), "invalid_type"),
    "no base64": ({"type": "input_audio_buffer.append", "audio": "*"}, "invalid_value"),
    "no audio": ({"type": "input_audio_buffer.append", "audio": ""}, "invalid_value"),
    "beta event": ({"type": "transcription_session.update", "session": {}}, "invalid_value"),
    "SIP only": ({"type": "output_audio_buffer.clear"}, "invalid_value"),
    "long event id": ({"type": "response.create", "event_id": "x" * 513}, "invalid_value"),
    "unknown top field": ({"type": "response.cancel", "reason": "x"}, "unknown_parameter"),
    "assistant audio": (
        {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "assistant", "content": [{"type": "audio", "transcript": "x"}]},
        },
        "invalid_value",
    ),
    "metadata value": (changed(CREATE, "response.metadata", {"x": "y" * 513}), "invalid_value"),
}


@pytest.mark.parametrize("event", GOOD, ids=lambda event: event["type"])
def test_types_and_fake_accept_what_is_right(event: Json) -> None:
    check(event, CLIENT)
    check_client_event(event)


@pytest.mark.parametrize("name", BAD)
def test_types_and_fake_refuse_the_same(name: str) -> None:
    event, code = BAD[name]
    with pytest.raises((AssertionError, ValidationError)):
        check(event, CLIENT)
    with pytest.raises(Refusal) as refused:
        check_client_event(event)
    assert refused.value.code == code


DELTA: Json = {
    "type": "response.output_audio.delta",
    "event_id": "e5",
    "response_id": "resp_1",
    "item_id": "item_A1",
    "output_index": 0,
    "content_index": 0,
    "delta": "//79/w==",
}


def test_server_events() -> None:
    check_server(DELTA)
    check_server({**DELTA, "obfuscation": "abc"})
    for wrong in (
        {**DELTA, "delta": "*"},
        {**DELTA, "surprise": 1},
        {key: value for key, value in DELTA.items() if key != "event_id"},
        {**DELTA, "type": "response.audio.delta"},
    ):
        with pytest.raises((AssertionError, ValidationError)):
            check_server(wrong)


def test_tables_are_complete() -> None:
    assert (len(CLIENT), len(SERVER)) == (11, 46)
