"""What a client of `/realtime` wants of its session, in either form of the protocol, made into an agent's profile.

    wish_of      a config's settings -> what was said, in our own names, with warnings; raises what is wrong
    profile_of   a profile and a wish -> the profile of this session
    update_of    ... -> the fields of `session.update` for a session that runs
    model_of     the model asked for -> the model that is used

What a config does not say stays as the profile has it. Nothing is replaced silently: a voice or a model that only other
services have is an error, save the few that the protocol's own documentation names, which are told as a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bridge.agent import Agent
from bridge.errors import ConfigError, GatewayError
from bridge.gateway_messages import MOST_TOKENS, Form
from bridge.profile import agent_with
from bridge.session import checked, session_of
from bridge.validation import converted

VOICES = frozenset({"alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse"})
# Voices of speech synthesis that Realtime models do not have; the documentation's own examples ask for "nova".
SYNTHESIS_VOICES = frozenset({"fable", "nova", "onyx"})
# The only models that the documentation names. OpenAI has taken them away.
RETIRED_MODELS = ("gpt-4o-realtime-preview", "gpt-4o-mini-realtime-preview")
_PCM16 = frozenset({"pcm16", "pcm", "pcm_s16le", "linear16", "audio/pcm"})
_TURN_TYPES: Mapping[str, str] = {
    "server_vad": "server_vad",
    "semantic": "semantic_vad",
    "semantic_vad": "semantic_vad",
    "none": "manual",
    "manual": "manual",
}
# What OpenAI takes. A megabyte of small ones took 440 ms to be checked.
MOST_TOOLS = 128


class _Vad(msgspec.Struct, frozen=True):
    enabled: bool = True
    threshold: float | None = None
    silence_duration_ms: int | None = None
    prefix_padding_ms: int | None = None


class _TurnDetection(msgspec.Struct, frozen=True):
    mode: str | None = None
    type: str | None = None
    threshold: float | None = None
    silence_duration_ms: int | None = None
    prefix_padding_ms: int | None = None
    eagerness: str | None = None


class _Transcription(msgspec.Struct, frozen=True):
    enabled: bool = True
    model: str | None = None


class _Raw(msgspec.Struct, frozen=True):
    """Every key of either form, and two of ours: `agent` and `greeting`."""

    provider: str | None = None
    model: str | None = None
    voice: str | None = None
    instructions: str | None = None
    temperature: float | None = None
    max_response_tokens: int | str | None = None
    turn_detection: str | _TurnDetection | None = None
    vad: _Vad | None = None
    input_transcription: _Transcription | None = None
    transcribe_input: bool | None = None
    transcription_model: str | None = None
    tools: list[dict[str, Any]] | None = None
    modalities: list[str] | None = None
    input_audio_format: str | None = None
    output_audio_format: str | None = None
    reasoning_effort: str | None = None
    input_audio_noise_reduction: str | None = None
    agent: str | None = None
    greeting: str | None = None


KEYS = frozenset(_Raw.__struct_fields__)
_CODE_ONLY = frozenset(
    {
        "transcribe_input", "transcription_model", "tools", "modalities", "input_audio_format", "output_audio_format",
        "reasoning_effort", "input_audio_noise_reduction", "alias",
    }
)  # fmt: skip
_DOCUMENTED_ONLY = frozenset({"vad", "input_transcription"})

# Where our own keys are in the model's session: there the profile's table must not say them too.
_PLACES: Mapping[str, str] = {
    "voice": "audio.output.voice",
    "instructions": "instructions",
    "max_output_tokens": "max_output_tokens",
    "turn_detection": "audio.input.turn_detection",
    "transcription_model": "audio.input.transcription",
    "noise_reduction": "audio.input.noise_reduction",
}
_EXTRAS = ("output_modalities", "reasoning")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a config says. `patch`: keys of a profile; `extras`: fields of the session that no key of a profile makes;
    `tools`: the client's functions, or None where it said nothing of them; `said`: the places in the session."""

    model: str = ""
    agent: str = ""
    greeting: str | None = None
    patch: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] | None = None
    form: Form = Form.BOTH
    warnings: Sequence[tuple[str, str]] = ()


def wish_of(settings: Mapping[str, Any], *, any_voice: bool = False) -> Wish:
    """What the settings of a config say. `any_voice`: the model's server has voices of its own, so none is unknown.

    Raises `GatewayError`: parse_error for a wrong type, validation_error for a wrong value, invalid_provider.
    """
    try:
        raw = converted(settings, _Raw)
    except ConfigError as error:
        raise GatewayError("parse_error", f"{error.place}: {error}") from error
    if (raw.provider or "openai") != "openai":
        raise GatewayError("invalid_provider", f'provider {raw.provider!r} is not served here; say "openai"')
    if len(raw.tools or ()) > MOST_TOOLS:
        raise _invalid("tools", f"a session has at most {MOST_TOOLS} functions, not {len(raw.tools or ())}")
    warnings = [("ignored", f"{key}: is not known here and changes nothing") for key in settings if key not in KEYS]
    patch: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    if raw.voice in SYNTHESIS_VOICES:
        told = f"voice: {raw.voice!r} is a voice of speech synthesis, which no Realtime model has; the agent's own is used"
        warnings.append(("replaced", told))
    elif raw.voice:
        if not any_voice and raw.voice not in VOICES:
            raise _invalid("voice", f"{raw.voice!r} is unknown; there are {', '.join(sorted(VOICES))}")
        patch["voice"] = raw.voice
    if raw.instructions is not None:
        patch["instructions"] = raw.instructions
    if raw.temperature is not None:
        _ranged(raw.temperature, 0, 2, "temperature")
        warnings.append(("ignored", "temperature: the models of today have none, so it changes nothing"))
    if raw.max_response_tokens is not None:
        patch["max_output_tokens"] = _tokens(raw.max_response_tokens)
    if turns := _turns(raw):
        patch["turn_detection"] = turns
    _transcription(raw, patch)
    for key in ("input_audio_format", "output_audio_format"):
        if (value := getattr(raw, key)) and value not in _PCM16:
            raise _invalid(key, f'must be "pcm16" (24 kHz, mono), not {value!r}')
    if raw.modalities is not None:
        extras["output_modalities"] = _modalities(raw.modalities)
    if raw.reasoning_effort not in (None, "off"):
        extras["reasoning"] = {"effort": raw.reasoning_effort}
    if raw.input_audio_noise_reduction is not None:
        patch["noise_reduction"] = raw.input_audio_noise_reduction
    return Wish(
        model=raw.model or "",
        agent=raw.agent or "",
        greeting=raw.greeting,
        patch=patch,
        extras=extras,
        tools=None if raw.tools is None else [_tool(tool, index) for index, tool in enumerate(raw.tools)],
        form=_form(settings),
        warnings=warnings,
    )


def _form(settings: Mapping[str, Any]) -> Form:
    detection, tokens = settings.get("turn_detection"), settings.get("max_response_tokens")
    code = bool(_CODE_ONLY & settings.keys()) or isinstance(detection, Mapping) or tokens == -1
    documented = bool(_DOCUMENTED_ONLY & settings.keys()) or isinstance(detection, str) or tokens == "inf"
    return Form.BOTH if code == documented else Form.CODE if code else Form.DOCUMENTED


def _invalid(place: str, remedy: str) -> GatewayError:
    return GatewayError("validation_error", f"{place}: {remedy}")


def _ranged(value: float | None, least: float, most: float, place: str) -> None:
    if value is not None and not least <= value <= most:
        raise _invalid(place, f"must be {least:g} to {most:g}")


def _tokens(value: int | str) -> int:
    """As a profile says it: 0 for no limit."""
    if value in ("inf", -1):
        return 0
    if isinstance(value, str) or not 1 <= value <= MOST_TOKENS:
        raise _invalid("max_response_tokens", f'must be 1 to {MOST_TOKENS}, or "inf" (-1) for no limit')
    return value


def _turns(raw: _Raw) -> dict[str, Any]:
    """The changes of a profile's turn detection; empty where nothing was said."""
    detection, vad = raw.turn_detection, raw.vad
    if detection is None and vad is None:
        return {}
    word: str | None = detection if isinstance(detection, str) else None
    if isinstance(detection, _TurnDetection):
        word = detection.mode or detection.type or "server_vad"
    word = word or "server_vad"
    if word not in _TURN_TYPES:
        raise _invalid("turn_detection", f"{word!r} is unknown; there are server_vad, semantic and none (manual)")
    kind = _TURN_TYPES[word]
    if vad is not None and not vad.enabled:
        # Without it there is no turn detection, whatever a default of the SDK says beside it.
        kind = "manual"
    if kind == "manual":
        return {"type": kind, "talk_key": "", "send_key": "#", "idle_timeout_ms": 0}
    if kind == "semantic_vad":
        eagerness = (detection.eagerness if isinstance(detection, _TurnDetection) else None) or "auto"
        return {"type": kind, "eagerness": eagerness, "idle_timeout_ms": 0}
    changes: dict[str, Any] = {"type": kind}
    for where, source in (("vad", vad), ("turn_detection", detection)):
        if not isinstance(source, _Vad | _TurnDetection):
            continue
        _ranged(source.threshold, 0, 1, f"{where}.threshold")
        for key in ("threshold", "silence_duration_ms", "prefix_padding_ms"):
            if (value := getattr(source, key)) is not None:
                if value < 0:
                    raise _invalid(f"{where}.{key}", "must not be negative")
                changes[key] = value
    return changes


def _transcription(raw: _Raw, patch: dict[str, Any]) -> None:
    documented = raw.input_transcription
    enabled = documented.enabled if documented is not None else raw.transcribe_input
    model = (documented.model if documented is not None else None) or raw.transcription_model
    if enabled is False:
        patch["transcription_model"] = ""
    elif model:
        patch["transcription_model"] = model
    elif enabled:
        patch["transcription_model"] = None  # the profile's, or where that has none the default of all profiles


def _modalities(words: Sequence[str]) -> list[str]:
    if not words or not set(words) <= {"text", "audio"}:
        raise _invalid("modalities", 'must be ["audio"], ["text"] or both')
    # Both was the old way to ask for speech with its transcript, which comes anyway.
    return ["audio"] if "audio" in words else ["text"]


def _tool(tool: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """A function in the nested form of the protocol, or flat."""
    at = f"tools[{index}]"
    if tool.get("type", "function") != "function":
        raise _invalid(f"{at}.type", 'must be "function"')
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _invalid(at, "must have function.name")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping):
        raise _invalid(f"{at}.parameters", "must be a JSON schema")
    return {
        "name": function["name"],
        "description": str(function.get("description") or ""),
        "parameters": parameters,
    }


# Profiles --------------------------------------------------------------------------------------------------------------


def base_of(agent: Agent, *, named: bool) -> Agent:
    """A profile as a websocket client can use it: there is no channel that could be transferred.

    A client that did not choose its agent by name (`named`) gets none of what makes it a telephone call: no greeting, no
    hanging up, no keys. The protocol knows nothing of these.
    """
    changes: dict[str, Any] = {"transfers": {}, "press_keys": False}
    if not named:
        changes |= {"greeting": "", "hang_up": False, "collect": {}}
    # A key may say "transfer:NAME", and that name is gone.
    kept = {key: action for key, action in agent.keys.items() if named and not action.startswith("transfer")}
    return msgspec.structs.replace(agent, keys=kept, **changes)


def profile_of(agent: Agent, wish: Wish) -> Agent:
    """The profile with the wish over it. Raises `GatewayError` with validation_error."""
    said = {place for key, place in _PLACES.items() if key in wish.patch}
    patch = dict(wish.patch)
    if patch.get("transcription_model", "") is None and agent.transcription_model:
        patch["transcription_model"] = agent.transcription_model
    if wish.greeting is not None:
        patch["greeting"] = wish.greeting
    try:
        table = checked(agent.session, "session").session
        text_only = {key: table.pop(key) for key in _EXTRAS if key in table}
        table.pop("type", None)
        for place in said:
            _take_out(table, place)
        changed = agent_with(msgspec.structs.replace(agent, session=table), patch, at="config")
        extras = {**text_only, **wish.extras}
        changed = msgspec.structs.replace(changed, session={**changed.session, **extras})
        checked(session_of(changed, []), "session")
    except ConfigError as error:
        raise GatewayError("validation_error", str(error)) from error
    return changed


def _take_out(table: dict[str, Any], place: str) -> None:
    *outer, last = place.split(".")
    inner: Any = table
    for key in outer:
        inner = inner.get(key) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(last, None)


def update_of(agent: Agent, wish: Wish) -> dict[str, Any]:
    """The fields of `session.update` that bring a running session to `agent`, which has the wish; tools are not among
    them."""
    session = session_of(agent, [])
    update: dict[str, Any] = {key: session[key] for key in wish.extras}
    for key in wish.patch:
        *outer, last = _PLACES[key].split(".")
        source, target = session, update
        for name in outer:
            source, target = source[name], target.setdefault(name, {})
        target[last] = source.get(last, "inf" if last == "max_output_tokens" else None)
    return update


def model_of(asked: str, configured: str, further: Sequence[str]) -> tuple[str, tuple[str, str] | None]:
    """The model of a session, and a warning where it is another one than was asked for. Raises `GatewayError`."""
    if not asked or asked == configured:
        return configured, None
    if asked in further:
        return asked, None
    if asked.startswith(RETIRED_MODELS):
        told = f"model: {asked!r} is no longer served; you speak with {configured or 'the model of the server'!r}"
        return configured, ("replaced", told)
    known = ", ".join(dict.fromkeys([configured, *further])) or "none, the server has one of its own"
    raise GatewayError(
        "validation_error", f"model: {asked!r} may not be asked for here; there is {known} (gateway.models)"
    )
