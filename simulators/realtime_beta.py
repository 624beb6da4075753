"""The 2024/25 preview dialect at the edge of a GA session: what its clients send, what they are sent (section 2.6).

Written from the notes and from what the published JS reference client expects, never from `bridge.dialect`: the two check
each other. A client event is checked against beta's own rules first, so that GA shapes are refused as the old server
refused them; then it becomes a GA event, which the session checks again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import msgspec

from simulators.realtime_schema import (
    Check,
    Json,
    Refusal,
    anything,
    by_type,
    each,
    fields,
    flag,
    free_object,
    nullable,
    number,
    one_of,
    text,
    words_or_object,
)

DEFAULT_VOICE = "alloy"
_VOICES = (DEFAULT_VOICE, "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse")
_FORMATS = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_RENAMED = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
_UNKNOWN_TO_BETA = ("conversation.item.done", "input_audio_buffer.timeout_triggered")
_SHORT_CONTENT = {"output_text": "text", "output_audio": "audio"}
_LONG_CONTENT = {short: long for long, short in _SHORT_CONTENT.items()}

# --- what clients may say ------------------------------------------------------------------------------------------


def _modalities(value: Any, path: str) -> None:
    each(one_of("text", "audio"), fewest=1)(value, path)
    if sorted(value) not in (["text"], ["audio", "text"]):
        words = "Supported combinations are: ['text'] and ['audio', 'text']."
        raise Refusal("invalid_value", f"Invalid modalities: {value!r}. {words}", path)


_FUNCTION = fields(
    {"type": text(), "name": text(), "description": text(), "parameters": free_object}, required=("name",)
)
_SETTINGS: dict[str, Check] = {
    "modalities": _modalities,
    "instructions": text(),
    "voice": one_of(*_VOICES),
    "output_audio_format": one_of(*_FORMATS),
    "tools": each(by_type({"function": _FUNCTION})),
    "tool_choice": words_or_object(("none", "auto", "required"), anything),  # unconfirmed which object
    "temperature": number(0.6, 1.2),
    "max_response_output_tokens": words_or_object(("inf",), number(1, 4096, whole=True)),
}
_VAD: dict[str, Check] = {"type": text(), "create_response": flag, "interrupt_response": flag}
_TURN_DETECTION = by_type(
    {
        "server_vad": fields(
            _VAD
            | {
                "threshold": number(0, 1),
                "prefix_padding_ms": number(0, 60000, whole=True),
                "silence_duration_ms": number(0, 60000, whole=True),
            }
        ),
        "semantic_vad": fields(_VAD | {"eagerness": one_of("low", "medium", "high", "auto")}),
    }
)
_SESSION = fields(
    _SETTINGS
    | {
        "model": text(),
        "speed": number(0.25, 1.5),
        "tracing": anything,
        "input_audio_format": one_of(*_FORMATS),
        "input_audio_transcription": nullable(fields({"model": text(), "language": text(), "prompt": text()})),
        "input_audio_noise_reduction": nullable(fields({"type": one_of("near_field", "far_field")})),
        "turn_detection": nullable(_TURN_DETECTION),
    }
)
_RESPONSE = fields(
    _SETTINGS
    | {"conversation": one_of("auto", "none"), "metadata": nullable(free_object), "input": each(free_object)}
)


def _item(value: Any, path: str) -> None:
    free_object(value, path)
    one_of("message", "function_call", "function_call_output")(value.get("type"), f"{path}.type")
    words = ("text",) if value.get("role") == "assistant" else ("input_text", "input_audio")
    for index, part in enumerate(value.get("content") or []):
        one_of(*words)(part.get("type"), f"{path}.content[{index}].type")


_EVENT: dict[str, Check] = {"type": text(), "event_id": text(512)}
_CHECKED: dict[str, Check] = {
    "session.update": fields(_EVENT | {"session": _SESSION}, required=("session",)),
    "response.create": fields(_EVENT | {"response": nullable(_RESPONSE)}),
    "conversation.item.create": fields(
        _EVENT | {"item": _item, "previous_item_id": nullable(text())}, required=("item",)
    ),
}


class BetaEdge:
    """One connection's edge. Remembers what GA has no word for: the temperature."""

    def __init__(self) -> None:
        self._temperature = 0.8

    def from_client(self, message: str | bytes) -> str | bytes:
        """A client's message as GA. Raises `Refusal` for what beta refuses; what is no JSON is left to the session."""
        try:
            event = msgspec.json.decode(message)
        except msgspec.DecodeError:
            return message
        kind = event.get("type") if isinstance(event, dict) else None
        if kind not in _CHECKED or isinstance(message, bytes):
            return message
        _CHECKED[kind](event, "")
        match kind:
            case "session.update":
                self._temperature = event["session"].get("temperature", self._temperature)
                event["session"] = {"type": "realtime", **_to_ga(event["session"])}
            case "response.create" if event.get("response"):
                event["response"] = _to_ga(event["response"])
            case "conversation.item.create":
                event["item"] = _content(event["item"], _LONG_CONTENT)
        return msgspec.json.encode(event).decode()

    def to_client(self, event: Json) -> Sequence[Json]:
        """The events that a GA event is for a beta client: one, or none where beta has no such event."""
        kind = event["type"]
        if kind in _UNKNOWN_TO_BETA or ".mcp_" in kind or kind.startswith("mcp_"):
            return ()
        told = {**copy.deepcopy(event), "type": _RENAMED.get(kind, kind)}
        if "session" in told:
            told["session"] = self._session(told["session"])
        if "response" in told:
            told["response"] = self._response(told["response"])
        if "item" in told:
            told["item"] = {"object": "realtime.item", **_content(told["item"], _SHORT_CONTENT)}
        if kind == "response.function_call_arguments.done":
            told.pop("name", None)
        return (told,)

    @staticmethod
    def pause_s(event: Json) -> float:
        """How long the old server took before it said this: clients came to rely on not getting all at once.

        The reference client's own suite fails without: it counts two events until the update is acknowledged, and
        attaches the listener for the next item after the one before.
        """
        kind = event["type"]
        if kind.endswith(".delta") or kind == "error":
            return 0.0
        return {"session.created": 0.02, "session.updated": 0.15, "conversation.item.created": 0.03}.get(kind, 0.015)

    def _session(self, ga: Json) -> Json:
        audio = ga["audio"]
        flat = {name: value for name, value in ga.items() if name not in _GA_ONLY}
        detection = audio["input"]["turn_detection"]
        return flat | {
            "modalities": _both(ga["output_modalities"]),
            "voice": audio["output"]["voice"],
            "speed": audio["output"]["speed"],
            "input_audio_format": _name_of(audio["input"]["format"]),
            "output_audio_format": _name_of(audio["output"]["format"]),
            "input_audio_transcription": audio["input"]["transcription"],
            "input_audio_noise_reduction": audio["input"]["noise_reduction"],
            "turn_detection": detection and {k: v for k, v in detection.items() if k != "idle_timeout_ms"},
            "temperature": self._temperature,
            "max_response_output_tokens": ga["max_output_tokens"],
        }

    def _response(self, ga: Json) -> Json:
        output = ga.pop("audio")["output"]
        if isinstance(usage := ga.get("usage"), dict):
            usage["input_token_details"].pop("image_tokens", None)
            usage["input_token_details"].pop("cached_tokens_details", None)
        items = [{"object": "realtime.item", **_content(item, _SHORT_CONTENT)} for item in ga["output"]]
        told = {"modalities": _both(ga.pop("output_modalities")), "voice": output["voice"], "output": items}
        return ga | told | {"output_audio_format": _name_of(output["format"]), "temperature": self._temperature}


_GA_ONLY = frozenset(
    {"type", "audio", "truncation", "prompt", "include", "output_modalities", "max_output_tokens", "reasoning"}
    | {"parallel_tool_calls"}
)


def _both(modalities: list[str]) -> list[str]:
    return ["text", "audio"] if "audio" in modalities else ["text"]


def _name_of(audio_format: Json) -> str:
    for name, ga in _FORMATS.items():
        if ga == audio_format:
            return name
    return str(audio_format["type"])


def _to_ga(beta: Json) -> Json:
    """A flat session, or the settings of one response, as GA has them."""
    ga: Json = {key: beta[key] for key in ("instructions", "tools", "tool_choice", "tracing", "model") if key in beta}
    ga |= {key: beta[key] for key in ("conversation", "metadata") if key in beta}
    if "modalities" in beta:
        ga["output_modalities"] = ["audio"] if "audio" in beta["modalities"] else ["text"]
    if "max_response_output_tokens" in beta:
        ga["max_output_tokens"] = beta["max_response_output_tokens"]
    if "input" in beta:
        ga["input"] = [_content(item, _LONG_CONTENT) for item in beta["input"]]
    sides: Json = {"input": {}, "output": {}}
    for key, side, name in (
        ("input_audio_transcription", "input", "transcription"),
        ("input_audio_noise_reduction", "input", "noise_reduction"),
        ("turn_detection", "input", "turn_detection"),
        ("voice", "output", "voice"),
        ("speed", "output", "speed"),
    ):
        if key in beta:
            sides[side][name] = beta[key]
    for side in sides:
        if f"{side}_audio_format" in beta:
            sides[side]["format"] = _FORMATS[beta[f"{side}_audio_format"]]
    if audio := {side: settings for side, settings in sides.items() if settings}:
        ga["audio"] = audio
    return ga


def _content(item: Json, names: Json) -> Json:
    """A copy of `item` with the types of its content parts renamed."""
    if not item.get("content"):
        return item
    return {**item, "content": [{**part, "type": names.get(part["type"], part["type"])} for part in item["content"]]}
