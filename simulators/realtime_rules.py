"""What the Realtime server accepts, field by field.

Facts: `realtime-protocol.md` sections 2.1 to 2.3; the rules that the official types do not know (rate of PCM, one
modality, ranges) are there too. Written from the notes and never from `bridge.realtime`: the fake has to be independent
of the code under test.
"""

from __future__ import annotations

import copy
from typing import Any

from simulators.realtime_schema import (
    Check,
    Json,
    Refusal,
    anything,
    base64_audio,
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


def _only(**known: Check) -> Check:
    """`fields` with `type` allowed and the rest optional."""
    return fields({"type": text(), **known})


_FORMAT = by_type(
    {
        # openai-openapi 513, a staff answer: the rate is required for pcm and forbidden for G.711.
        "audio/pcm": fields({"type": text(), "rate": number(24000, 24000, whole=True)}, required=("rate",)),
        "audio/pcmu": _only(),
        "audio/pcma": _only(),
    }
)
_VAD_SWITCHES: dict[str, Check] = {"create_response": flag, "interrupt_response": flag}
_TURN_DETECTION = by_type(
    {
        "server_vad": _only(
            threshold=number(0, 1),
            prefix_padding_ms=number(0, 60000, whole=True),
            silence_duration_ms=number(0, 60000, whole=True),
            idle_timeout_ms=nullable(number(5000, 30000, whole=True)),
            **_VAD_SWITCHES,
        ),
        "semantic_vad": _only(eagerness=one_of("low", "medium", "high", "auto"), **_VAD_SWITCHES),
    }
)
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
_VOICE = words_or_object(VOICES, fields({"id": text()}, required=("id",)))
_EFFORT = one_of("minimal", "low", "medium", "high", "xhigh")


def _modalities(value: Any, path: str) -> None:
    each(one_of("text", "audio"), fewest=1)(value, path)
    if len(value) != 1:
        raise Refusal(
            "invalid_value",
            f"Invalid modalities: {value!r}. Supported combinations are: ['text'] and ['audio'].",
            path,
        )


def _max_tokens(value: Any, path: str) -> None:
    words_or_object(("inf",), number(1, 4096, whole=True))(value, path)


_MCP_PLACES = ("server_url", "connector_id", "tunnel_id")


def _mcp_tool(value: Any, path: str) -> None:
    known = {
        "type": text(),
        "server_label": text(),
        **dict.fromkeys((*_MCP_PLACES, "authorization"), text()),
        **dict.fromkeys(("headers", "allowed_tools", "require_approval"), anything),
        **dict.fromkeys(("server_description", "defer_loading", "allowed_callers"), anything),
    }
    fields(known, required=("server_label",))(value, path)
    if not any(value.get(name) for name in _MCP_PLACES):
        words = f"Missing required parameter: one of {', '.join(_MCP_PLACES)} must be provided."
        raise Refusal("missing_required_parameter", words, path)


_TOOLS = each(
    by_type(
        {
            "function": fields(
                {"type": text(), "name": text(64), "description": text(), "parameters": free_object},
                required=("name",),
            ),
            "mcp": _mcp_tool,
        }
    )
)
_TOOL_CHOICE = words_or_object(
    ("none", "auto", "required"),
    by_type(
        {
            "function": fields({"type": text(), "name": text()}, required=("name",)),
            "mcp": fields({"type": text(), "server_label": text(), "name": text()}, required=("server_label",)),
        }
    ),
)


def _metadata(value: Any, path: str) -> None:
    free_object(value, path)
    for key, entry in value.items():
        text(512)(entry, f"{path}.{key}")
    if len(value) > 16 or any(len(key) > 64 for key in value):
        raise Refusal("invalid_value", f"Invalid '{path}': at most 16 pairs, keys of at most 64 characters.", path)


_TRANSCRIPTION = fields(
    {
        "model": text(),
        "language": text(),
        "languages": each(text()),
        "prompt": text(),
        "keywords": each(text()),
        "delay": one_of("minimal", "low", "medium", "high", "xhigh"),
    }
)
SESSION = fields(
    {
        "type": one_of("realtime", "transcription"),
        "model": text(),
        "output_modalities": _modalities,
        "instructions": text(),
        "audio": fields(
            {
                "input": fields(
                    {
                        "format": _FORMAT,
                        "noise_reduction": nullable(
                            fields({"type": one_of("near_field", "far_field"), "strength": anything})
                        ),
                        "transcription": nullable(_TRANSCRIPTION),
                        "turn_detection": nullable(_TURN_DETECTION),
                    }
                ),
                "output": fields({"format": _FORMAT, "voice": _VOICE, "speed": number(0.25, 1.5)}),
            }
        ),
        "max_output_tokens": _max_tokens,
        "tools": _TOOLS,
        "tool_choice": _TOOL_CHOICE,
        "parallel_tool_calls": flag,
        "reasoning": fields({"effort": _EFFORT}),
        "truncation": words_or_object(
            ("auto", "disabled"),
            fields(
                {"type": one_of("retention_ratio"), "retention_ratio": number(0, 1), "token_limits": free_object},
                required=("type", "retention_ratio"),
            ),
        ),
        "include": nullable(each(one_of("item.input_audio_transcription.logprobs"))),
        "tracing": nullable(words_or_object(("auto",), free_object)),
        "prompt": nullable(free_object),
    },
    required=("type",),
)

_ITEM_COMMON: dict[str, Check] = {
    "type": text(),
    "id": text(32),
    "object": one_of("realtime.item"),
    "status": one_of("completed", "incomplete", "in_progress"),
}
_TEXT_PART = fields({"type": text(), "text": text()}, required=("text",))
_USER_PARTS = by_type(
    {
        "input_text": _TEXT_PART,
        "input_audio": fields({"type": text(), "audio": base64_audio, "transcript": text()}, required=("audio",)),
        "input_image": fields({"type": text(), "image_url": text(), "detail": text()}, required=("image_url",)),
    }
)
_PARTS_OF_ROLE = {
    "system": by_type({"input_text": _TEXT_PART}),
    "user": _USER_PARTS,
    # Clients may create assistant text only.
    "assistant": by_type({"output_text": _TEXT_PART}),
}


def _message(value: Any, path: str) -> None:
    known = _ITEM_COMMON | {"role": one_of(*_PARTS_OF_ROLE), "content": each(anything, fewest=1)}
    fields(known, required=("role", "content"))(value, path)
    each(_PARTS_OF_ROLE[value["role"]])(value["content"], f"{path}.content")


ITEM = by_type(
    {
        "message": _message,
        "function_call": fields(
            _ITEM_COMMON | {"name": text(), "arguments": text(), "call_id": text()}, required=("name", "arguments")
        ),
        "function_call_output": fields(
            _ITEM_COMMON | {"call_id": text(), "output": text()}, required=("call_id", "output")
        ),
        "mcp_approval_response": fields(
            _ITEM_COMMON | {"approval_request_id": text(), "approve": flag, "reason": nullable(text())},
            required=("approval_request_id", "approve"),
        ),
    }
)


def _input_item(value: Any, path: str) -> None:
    if isinstance(value, dict) and value.get("type") == "item_reference":
        fields({"type": text(), "id": text()}, required=("id",))(value, path)
    else:
        ITEM(value, path)


_RESPONSE = fields(
    {
        "output_modalities": _modalities,
        "instructions": text(),
        "audio": fields({"output": fields({"format": _FORMAT, "voice": _VOICE})}),
        "tools": _TOOLS,
        "tool_choice": _TOOL_CHOICE,
        "parallel_tool_calls": flag,
        "reasoning": fields({"effort": _EFFORT}),
        "max_output_tokens": _max_tokens,
        "conversation": one_of("auto", "none"),
        "metadata": nullable(_metadata),
        "input": each(_input_item),
        "prompt": nullable(free_object),
    }
)
_EVENT: dict[str, Check] = {"type": text(), "event_id": text(512)}
_ITEM_ID: dict[str, Check] = {"item_id": text()}


def _event(required: tuple[str, ...] = (), **known: Check) -> Check:
    return fields(_EVENT | known, required=required)


# `output_audio_buffer.clear` is missing on purpose: only WebRTC and SIP know it.
CLIENT_EVENTS: dict[str, Check] = {
    "session.update": _event(("session",), session=SESSION),
    "input_audio_buffer.append": _event(("audio",), audio=base64_audio),
    "input_audio_buffer.commit": _event(),
    "input_audio_buffer.clear": _event(),
    "conversation.item.create": _event(("item",), item=ITEM, previous_item_id=nullable(text())),
    "conversation.item.retrieve": _event(("item_id",), **_ITEM_ID),
    "conversation.item.truncate": _event(
        ("item_id", "content_index", "audio_end_ms"),
        content_index=number(0, 1000, whole=True),
        audio_end_ms=number(0, 2**31, whole=True),
        **_ITEM_ID,
    ),
    "conversation.item.delete": _event(("item_id",), **_ITEM_ID),
    "response.create": _event(response=nullable(_RESPONSE)),
    "response.cancel": _event(response_id=text()),
}


def check_client_event(event: Any) -> None:
    """Raise `Refusal` unless `event` (parsed JSON) is one that the server accepts by its shape."""
    if not isinstance(event, dict):
        raise Refusal("invalid_event", "The event must be a JSON object.")
    if "type" not in event:
        raise Refusal("missing_required_parameter", "Missing required parameter: 'type'.", "type")
    one_of(*CLIENT_EVENTS)(event["type"], "type")
    CLIENT_EVENTS[event["type"]](event, "")


_READ_ONLY = frozenset({"id", "object", "expires_at"})
_RESPONSE_SETTINGS = ("output_modalities", "max_output_tokens", "audio", "metadata")


def check_effective(settings: Json) -> None:
    """Raise `Refusal` if a session or a response, as the server shows it, breaks a rule that it imposes on clients."""
    if settings.get("object") == "realtime.response":
        _RESPONSE({name: settings[name] for name in _RESPONSE_SETTINGS if settings.get(name) is not None}, "response")
    else:
        SESSION({name: value for name, value in settings.items() if name not in _READ_ONLY}, "session")


def default_session(model: str, session_id: str, expires_at: int) -> Json:
    """The session as `session.created` shows it. The silence of 200 ms is what was seen; the docs say 500."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "Your knowledge cutoff is 2023-10. You are a helpful, witty, and friendly AI.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": expires_at,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": copy.deepcopy(_VAD_DEFAULTS["server_vad"]),
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
        },
        "include": None,
    }


_VAD_DEFAULTS: dict[str, Json] = {
    "server_vad": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    },
    "semantic_vad": {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    },
}


def merged_session(session: Json, update: Json) -> Json:
    """A new session: `update` laid over `session` field by field; formats and the like are replaced whole."""
    merged = copy.deepcopy(session)
    change = copy.deepcopy(update)
    audio = change.pop("audio", {})
    merged.update(change)
    merged["audio"]["output"].update(audio.get("output", {}))
    merged["audio"]["input"].update(audio.get("input", {}))
    if detection := audio.get("input", {}).get("turn_detection"):
        before = session["audio"]["input"]["turn_detection"] or {}
        same_kind = before.get("type") == detection["type"]
        base = before if same_kind else _VAD_DEFAULTS[detection["type"]]
        merged["audio"]["input"]["turn_detection"] = {**base, **detection}
    return merged
