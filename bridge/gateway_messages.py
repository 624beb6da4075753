"""The protocol of `/realtime`: a client's text messages decoded, and ours made. Pure; audio is binary and not here.

The gateway whose protocol this is has two forms of it, which differ: the one of its documentation and the one of its code.
Both are understood. Which one a client is *answered* in, its config tells by the keys that only one form has; a client
that used none of these gets both, and a client may ask for one (`/realtime?messages=documented`, `code` or `both`).

    documented                                 code
    ready {session_id}                         session_created {session_id, provider, model}
    speech_started, speech_stopped {audio_ms}  speech_event {event, audio_ms}

All others are the same in both. Keys are accepted in camelCase too: the TypeScript SDK of the documentation writes them so.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bridge.errors import GatewayError
from bridge.keys import is_key

MOST_INSTRUCTIONS_BYTES = 100 * 1024
MOST_TEXT_BYTES = 50 * 1024
MOST_RESULT_BYTES = 100 * 1024
# Of one answer.
MOST_TOKENS = 4096
# A config with its tools; what is longer would hold up the clock of all calls to be parsed.
MOST_MESSAGE_BYTES = 1024 * 1024
# All that there are, twice over. A megabyte of keys took 230 ms to be looked at.
MOST_KEYS = 64

CODES: Mapping[str, str] = {
    "parse_error": "the message is no JSON object of a known type, or a key has the wrong type",
    "validation_error": "a value is out of its range, too long or unknown",
    "invalid_provider": "only openai is served",
    "missing_api_key": "the bridge has no key for the model: set OPENAI_API_KEY there",
    "provider_error": "the model's server reports an error",
    "connection_error": "no session with the model's server",
    "audio_error": "audio can not be used",
    "text_error": "the text could not be put into the conversation",
    "response_error": "the response could not be asked for, or failed",
    "cancel_error": "the response could not be cancelled",
    "commit_error": "the audio could not be committed",
    "clear_error": "the audio could not be cleared",
    "function_error": "no call of this id waits for a result",
    "no_session": "send config first, and wait for ready",
    "update_error": "the session could not be changed like this",
    "websocket_error": "the websocket protocol was broken",
    "idle_timeout": "the client sent nothing for too long",
}
"""Every error code, and what it means."""


class Form(enum.StrEnum):
    """Which form of the protocol a client is answered in."""

    DOCUMENTED = "documented"
    CODE = "code"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Configure:
    """`config`: begin the session, or change it. `raw`: the settings, keys in snake_case."""

    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """`update_session`: change the running session."""

    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """`text`: a message of the user's, not answered by itself."""

    text: str


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """`create_response`; `fields` as in the Realtime API's `response.create`, empty: as the session says."""

    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CancelResponse:
    """`cancel_response`."""


@dataclass(frozen=True, slots=True)
class CommitAudio:
    """`commit_audio`: the end of the user's turn, without turn detection."""


@dataclass(frozen=True, slots=True)
class ClearAudio:
    """`clear_audio`: forget what was not committed."""


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """`function_result`; a result that is no text was made JSON."""

    call_id: str
    result: str


@dataclass(frozen=True, slots=True)
class PressKey:
    """`dtmf`: a key. Not in the original protocol."""

    digit: str


Message = (
    Configure | Update | Text | CreateResponse | CancelResponse | CommitAudio | ClearAudio | FunctionResult | PressKey
)


def decode(message: bytes) -> Message:
    """One text message of a client. Raises `GatewayError` with parse_error or validation_error."""
    if len(message) > MOST_MESSAGE_BYTES:
        raise GatewayError(
            "validation_error", f"a message has at most {MOST_MESSAGE_BYTES} bytes, not {len(message)}"
        )
    try:
        raw = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GatewayError("parse_error", f"not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise GatewayError("parse_error", "a message is a JSON object with a type")
    match raw.pop("type", None):
        case "config":
            return Configure(_settings(raw))
        case "update_session":
            return Update(_settings(raw))
        case "text":
            return Text(_sized(_text_of(raw, "text"), MOST_TEXT_BYTES, "text"))
        case "create_response":
            return CreateResponse(_response_fields(raw.get("response")))
        case "cancel_response":
            return CancelResponse()
        case "commit_audio":
            return CommitAudio()
        case "clear_audio":
            return ClearAudio()
        case "function_result":
            return _function_result(_snake(raw))
        case "dtmf":
            digit = _text_of(raw, "digit")
            if not is_key(digit):
                raise GatewayError("validation_error", "digit: must be one key of 0-9, *, # and A-D")
            return PressKey(digit)
        case unknown:
            raise GatewayError("parse_error", f"type {unknown!r} is unknown; known: {', '.join(_TYPES)}")


_TYPES = (
    "config", "update_session", "text", "create_response", "cancel_response", "commit_audio", "clear_audio",
    "function_result", "dtmf",
)  # fmt: skip


def _settings(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = _snake(raw)
    for key in ("vad", "turn_detection", "input_transcription"):
        if isinstance(settings.get(key), dict):
            settings[key] = _snake(settings[key])
    if isinstance(instructions := settings.get("instructions"), str):
        _sized(instructions, MOST_INSTRUCTIONS_BYTES, "instructions")
    return settings


_HUMP = re.compile(r"(?<=[a-z0-9])[A-Z]")


def _snake(raw: Mapping[str, Any]) -> dict[str, Any]:
    """One level of keys in snake_case. A key that is there in both forms counts as it is written in snake_case. Raises
    `GatewayError`."""
    if len(raw) > MOST_KEYS:
        raise GatewayError(
            "validation_error", f"an object of the protocol has at most {MOST_KEYS} keys, not {len(raw)}"
        )
    renamed = {_HUMP.sub(lambda hump: "_" + hump[0].lower(), key): value for key, value in raw.items()}
    return renamed | {key: value for key, value in raw.items() if key in renamed}


def _text_of(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise GatewayError("parse_error", f"{key}: must be a text")
    return value


def _sized(text: str, most_bytes: int, key: str) -> str:
    if (size := len(text.encode("utf-8", "replace"))) > most_bytes:
        raise GatewayError("validation_error", f"{key}: has {size} bytes, and may have {most_bytes}")
    return text


def _function_result(raw: Mapping[str, Any]) -> FunctionResult:
    if "result" not in raw:
        raise GatewayError("parse_error", "result: must be there, as a text or any JSON")
    result = raw["result"]
    text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
    return FunctionResult(_text_of(raw, "call_id"), _sized(text, MOST_RESULT_BYTES, "result"))


_OVERRIDES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "instructions": (str, "instructions"),
    "modalities": (list, "output_modalities"),
    "max_output_tokens": ((int, str), "max_output_tokens"),
    "metadata": (dict, "metadata"),
}


def _response_fields(response: object) -> Mapping[str, Any]:
    """What this one response is to have otherwise, in the Realtime API's names."""
    if response is None:
        return {}
    if not isinstance(response, dict):
        raise GatewayError("parse_error", "response: must be an object")
    raw = _snake(response)
    fields: dict[str, Any] = {}
    for key, (kind, name) in _OVERRIDES.items():
        if (value := raw.pop(key, None)) is not None:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise GatewayError("parse_error", f"response.{key}: has the wrong type")
            if wrong := _wrong(key, value):
                raise GatewayError("validation_error", f"response.{key}: {wrong}")
            fields[name] = "inf" if key == "max_output_tokens" and value == -1 else value
    voice, out_of_band = raw.pop("voice", None), raw.pop("out_of_band", None)
    for key, value, kind in (("voice", voice, str), ("out_of_band", out_of_band, bool)):
        if not isinstance(value, kind | None):
            raise GatewayError("parse_error", f"response.{key}: has the wrong type")
    if voice:
        fields["audio"] = {"output": {"voice": voice}}
    if out_of_band:
        fields["conversation"] = "none"
    if words := fields.get("output_modalities"):
        fields["output_modalities"] = ["audio"] if "audio" in words else ["text"]
    if raw:
        raise GatewayError("validation_error", f"response.{next(iter(raw))}: is unknown")
    return fields


def _wrong(key: str, value: Any) -> str:
    """What the model's server would refuse; empty: nothing."""
    match key:
        case "max_output_tokens" if value not in ("inf", -1) and not (
            isinstance(value, int) and 1 <= value <= MOST_TOKENS
        ):
            return f'must be 1 to {MOST_TOKENS}, or "inf" (-1) for no limit'
        case "modalities" if not value or any(word not in ("text", "audio") for word in value):
            return 'must be ["audio"], ["text"] or both'
        case "metadata" if len(value) > 16 or not all(isinstance(it, str) for it in value.values()):
            return "must be at most 16 keys with texts"
    return ""


# What we say ----------------------------------------------------------------------------------------------------------


def _made(kind: str, /, **fields: object) -> bytes:
    """A message; fields that are None are left out."""
    return msgspec.json.encode({"type": kind} | {key: value for key, value in fields.items() if value is not None})


def ready(form: Form, session_id: str, model: str) -> list[bytes]:
    """The session stands: audio may come."""
    told = []
    if form is not Form.CODE:
        told.append(_made("ready", session_id=session_id))
    if form is not Form.DOCUMENTED:
        told.append(_made("session_created", session_id=session_id, provider="openai", model=model))
    return told


def speech(form: Form, event: str, audio_ms: int | None, item_id: str) -> list[bytes]:
    """The user's speech `started` or `stopped`; `audio_ms`: where in the audio of this session."""
    told = []
    if form is not Form.CODE:
        told.append(_made(f"speech_{event}", audio_ms=audio_ms or 0, item_id=item_id))
    if form is not Form.DOCUMENTED:
        told.append(_made("speech_event", event=event, audio_ms=audio_ms or 0, item_id=item_id))
    return told


def session_updated() -> bytes:
    """The model's server has taken the change."""
    return _made("session_updated")


def transcript(role: str, text: str, *, final: bool, **more: object) -> bytes:
    """Words of `user` or `assistant`; partial ones are all so far of their message (`item_id`)."""
    return _made("transcript", role=role, text=text, is_final=final, **more)


def function_call(call_id: str, name: str, arguments: str) -> bytes:
    """The model calls a function of the client's; `arguments` is JSON as text."""
    return _made("function_call", call_id=call_id, name=name, arguments=arguments)


def response_started(response_id: str) -> bytes:
    """The model begins to answer."""
    return _made("response_started", response_id=response_id)


def response_done(response_id: str, status: str, error: Mapping[str, Any] | None, reason: str | None) -> bytes:
    """An answer is complete, or is not (`status`: completed, cancelled, incomplete, failed), and why."""
    return _made("response_done", response_id=response_id, status=status, error=error, reason=reason)


def error(code: str, message: str, *, name: str | None = None, provider_code: str | None = None) -> bytes:
    """`name`: what the documentation calls it, where it does; `provider_code`: the model's server's own word."""
    assert code in CODES, code
    return _made("error", code=code, message=message, error=name, provider_code=provider_code)


def warning(code: str, message: str, *, item_id: str | None = None) -> bytes:
    """Something was done otherwise than was asked, or could not be. Not in the original protocol."""
    return _made("warning", code=code, message=message, item_id=item_id)


def interrupted(item_id: str, heard_ms: int) -> bytes:
    """The user spoke: no more audio of this message comes; a client drops what it has not played. Ours."""
    return _made("interrupted", item_id=item_id, heard_ms=heard_ms)


def reconnecting(reason: str) -> bytes:
    """The session with the model is gone, and another one is being opened. Ours."""
    return _made("reconnecting", reason=reason)


def reconnected(gap_ms: int) -> bytes:
    """Another session goes on, told everything that was said. Ours."""
    return _made("reconnected", gap_ms=gap_ms)


def closing(reason: str) -> bytes:
    """The session is over; the connection closes behind this."""
    return _made("closing", reason=reason)


# The documentation's four errors, by the words of servers and of our own reasons.
_NAMES: Mapping[str, str] = (
    dict.fromkeys(
        ("invalid_api_key", "insufficient_permissions", "account_deactivated", "401", "403", "3000"),
        "AuthenticationFailed",
    )
    | dict.fromkeys(
        (
            "rate_limit_exceeded", "inference_rate_limit_exceeded", "insufficient_quota", "credit_balance_exhausted",
            "billing_hard_limit_reached", "429",
        ),
        "RateLimitExceeded",
    )
)  # fmt: skip


def documented_name(provider_code: str | None) -> str | None:
    """What the documentation calls an error of the model's server with this code; None: it has no name for it."""
    return _NAMES.get(provider_code or "")
