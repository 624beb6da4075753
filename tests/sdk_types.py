"""Is an event what the official types say, and what the server is known to demand beyond them?

`check(event, CLIENT)` for what the bridge sends, `check(event, SERVER, ALLOWED)` for what the simulator emits. The SDK's
pydantic classes are strict about types and, through `extras`, about unknown keys; `_known_refusals` holds the rules that
they do not know (`realtime-protocol.md` section 8). The SDK's connection class and its `recv` validate nothing.
"""

from __future__ import annotations

import base64
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pydantic
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent

Json = dict[str, Any]
Table = Mapping[str, type[pydantic.BaseModel]]


def classes(union: object) -> dict[str, type[pydantic.BaseModel]]:
    """{wire type: pydantic class} of one of the SDK's annotated unions."""
    members = typing.get_args(typing.get_args(union)[0])
    return {typing.get_args(member.model_fields["type"].annotation)[0]: member for member in members}


CLIENT: Table = classes(RealtimeClientEvent)
SERVER: Table = classes(RealtimeServerEvent)
# Seen from the real server, unknown to the types.
ALLOWED = frozenset(
    {
        ".session.id",
        ".session.object",
        ".session.expires_at",
        ".obfuscation",
        ".item.phase",
        ".response.output[].phase",
    }
)


def extras(value: object, at: str = "") -> Iterator[str]:
    """Paths of the keys that the typed model does not know; elements of lists share theirs (`a[].b`)."""
    if isinstance(value, pydantic.BaseModel):
        yield from (f"{at}.{key}" for key in value.model_extra or {})
        for key in type(value).model_fields:
            yield from extras(getattr(value, key), f"{at}.{key}")
    elif isinstance(value, list):
        for element in value:
            yield from extras(element, f"{at}[]")


def check(event: Json, table: Table, allow: Collection[str] = ()) -> pydantic.BaseModel:
    """The typed event. Raises `AssertionError` or `pydantic.ValidationError` (a `ValueError`) if anything is wrong."""
    assert event.get("type") in table, f"no such event: {event.get('type')!r}"
    model = table[event["type"]].model_validate(_without_references(event), strict=True)
    unknown = [path for path in extras(model) if path not in allow]
    assert not unknown, (event["type"], unknown)
    problems = list(_known_refusals(event))
    assert not problems, (event["type"], problems)
    if table is SERVER:
        assert event.get("event_id"), (event["type"], "without event_id")
    return model


def check_server(event: Json) -> pydantic.BaseModel:
    """`check` for what a server sends on a GA websocket."""
    return check(event, SERVER, ALLOWED)


def _without_references(event: Json) -> Json:
    """`item_reference` in `response.input` is legal on the wire and missing in the SDK's classes."""
    response = event.get("response")
    if event["type"] != "response.create" or not isinstance(response, dict) or "input" not in response:
        return event
    items = [item for item in response["input"] if item.get("type") != "item_reference"]
    return {**event, "response": {**response, "input": items}}


def _known_refusals(event: Json) -> Iterator[str]:
    """What the server refuses although the types let it pass."""
    kind = event["type"]
    if kind in ("input_audio_buffer.append", "response.output_audio.delta"):
        yield from _audio(event.get("audio", event.get("delta")), may_be_empty=kind != "input_audio_buffer.append")
    if kind in ("conversation.item.truncate", "conversation.item.truncated") and event["audio_end_ms"] < 0:
        yield "audio_end_ms is negative"
    if kind.startswith(("session.", "response.c", "response.d")):
        yield from _settings(event.get("session") or event.get("response") or {})
    if len(event.get("event_id") or "") > 512:
        yield "event_id is longer than 512"
    if kind in ("output_audio_buffer.clear", "input_audio_buffer.dtmf_event_received"):
        yield "only on WebRTC or SIP"


def _audio(value: Any, *, may_be_empty: bool) -> Iterator[str]:
    try:
        size = len(base64.b64decode(value, validate=True))
    except ValueError:
        yield "not base64"
        return
    if size == 0 and not may_be_empty:
        yield "no audio"
    if size > 15 * 2**20:
        yield "more than 15 MiB"


def _settings(settings: Json) -> Iterator[str]:
    """Rules of a session, which hold for the settings of a response too."""
    modalities = settings.get("output_modalities")
    if modalities is not None and len(modalities) != 1:
        yield "output_modalities must be exactly one"
    tokens = settings.get("max_output_tokens")
    if isinstance(tokens, int) and not 1 <= tokens <= 4096:
        yield "max_output_tokens is 1 to 4096 or inf"
    for tool in settings.get("tools") or []:
        if tool["type"] == "function" and not tool.get("name"):
            yield "a function tool without a name"
    metadata = settings.get("metadata") or {}
    if len(metadata) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in metadata.items()):
        yield "metadata: 16 pairs, keys of 64, values of 512"
    audio = settings.get("audio") or {}
    for side in ("input", "output"):
        if "format" in audio.get(side, {}):
            yield from _format(audio[side]["format"])
    speed = audio.get("output", {}).get("speed", 1)
    if not 0.25 <= speed <= 1.5:
        yield "speed is 0.25 to 1.5"
    yield from _turn_detection(audio.get("input", {}).get("turn_detection") or {})


def _format(audio_format: Json | None) -> Iterator[str]:
    match audio_format:
        case {"type": "audio/pcm", "rate": 24000}:
            pass
        case {"type": "audio/pcm"}:
            yield "rate 24000 is required for audio/pcm"
        case {"type": "audio/pcmu" | "audio/pcma", "rate": _}:
            yield "rate is forbidden for G.711"
        case None:
            yield "a format must not be null"
        case dict() if "type" not in audio_format:
            yield "a format without type"


def _turn_detection(detection: Json) -> Iterator[str]:
    for name in ("create_response", "interrupt_response"):
        if detection.get(name, True) is None:
            yield f"{name} must not be null"
    if not 0 <= detection.get("threshold", 0.5) <= 1:
        yield "threshold is 0 to 1"
    for name in ("prefix_padding_ms", "silence_duration_ms"):
        if detection.get(name, 0) < 0:
            yield f"{name} is negative"
    idle_ms = detection.get("idle_timeout_ms")
    if idle_ms is not None and not 5000 <= idle_ms <= 30000:
        yield "idle_timeout_ms is null or 5000 to 30000"
