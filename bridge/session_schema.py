"""The `session` object of the Realtime API (GA dialect) as types: every field, its values and its ranges.

Facts: `docs/realtime-protocol.md` section 2.1, the server's rules that the official types do not know included (section
8). What is absent stays as it is at the server, so every field is `UNSET` unless set; `None` is allowed only where the
server takes null. Unknown fields are refused here because the server refuses the whole update for one of them.

`msgspec.to_builtins(Session(...))` is the JSON-plain form, which `session.checked` validates.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

_Text = Annotated[str, Meta(min_length=1)]
_Milliseconds = Annotated[int, Meta(ge=0)]
_Fraction = Annotated[float, Meta(ge=0, le=1)]
_Effort = Literal["minimal", "low", "medium", "high", "xhigh"]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common settings of all tables here."""


class AudioPcm(_Struct, frozen=True, tag_field="type", tag="audio/pcm"):
    """PCM16 little-endian, mono. The server demands the rate although the official types do not."""

    rate: Literal[24000]


class AudioPcmu(_Struct, frozen=True, tag_field="type", tag="audio/pcmu"):
    """G.711 mu-law. The server forbids a rate."""


class AudioPcma(_Struct, frozen=True, tag_field="type", tag="audio/pcma"):
    """G.711 A-law. The server forbids a rate."""


AudioFormat = AudioPcm | AudioPcmu | AudioPcma


class NoiseReduction(_Struct, frozen=True):
    """What is taken off the caller's audio before VAD and model. Without `type` an update changes the strength only."""

    type: Literal["near_field", "far_field"] | UnsetType = UNSET
    strength: float | UnsetType = UNSET


class Transcription(_Struct, frozen=True):
    """Which model writes down what the caller says. `delay` is for streaming models only."""

    model: _Text | UnsetType = UNSET
    language: str | UnsetType = UNSET
    languages: list[str] | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    keywords: list[str] | UnsetType = UNSET
    delay: _Effort | UnsetType = UNSET


class ServerVad(_Struct, frozen=True, tag_field="type", tag="server_vad"):
    """The caller's turn ends with silence. The switches must not be null."""

    threshold: _Fraction | UnsetType = UNSET
    prefix_padding_ms: _Milliseconds | UnsetType = UNSET
    silence_duration_ms: _Milliseconds | UnsetType = UNSET
    idle_timeout_ms: Annotated[int, Meta(ge=5000, le=30000)] | UnsetType | None = UNSET
    create_response: bool | UnsetType = UNSET
    interrupt_response: bool | UnsetType = UNSET


class SemanticVad(_Struct, frozen=True, tag_field="type", tag="semantic_vad"):
    """The caller's turn ends when what was said sounds complete."""

    eagerness: Literal["low", "medium", "high", "auto"] | UnsetType = UNSET
    create_response: bool | UnsetType = UNSET
    interrupt_response: bool | UnsetType = UNSET


class AudioInput(_Struct, frozen=True):
    """What the server does with the caller's audio. Null clears each of the last three."""

    format: AudioFormat | UnsetType = UNSET
    noise_reduction: NoiseReduction | UnsetType | None = UNSET
    transcription: Transcription | UnsetType | None = UNSET
    turn_detection: ServerVad | SemanticVad | UnsetType | None = UNSET


class CustomVoice(_Struct, frozen=True):
    """A voice of one's own, by its id."""

    id: _Text


class AudioOutput(_Struct, frozen=True):
    """How the agent sounds. The voice is locked after the first audio, the speed while a response runs."""

    format: AudioFormat | UnsetType = UNSET
    voice: _Text | CustomVoice | UnsetType = UNSET
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | UnsetType = UNSET


class Audio(_Struct, frozen=True):
    input: AudioInput | UnsetType = UNSET
    output: AudioOutput | UnsetType = UNSET


class FunctionTool(_Struct, frozen=True, tag_field="type", tag="function"):
    """A function that the model may call; flat, and with a name although the official types can do without."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    description: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET


class McpFilter(_Struct, frozen=True):
    """Some of the tools of an MCP server."""

    tool_names: list[str] | UnsetType = UNSET
    read_only: bool | UnsetType = UNSET


class McpApproval(_Struct, frozen=True):
    """Which tools of an MCP server need an approval, and which never."""

    always: McpFilter | UnsetType = UNSET
    never: McpFilter | UnsetType = UNSET


class McpTool(_Struct, frozen=True, tag_field="type", tag="mcp"):
    """An MCP server that the Realtime server calls by itself. `authorization` and `headers` are secrets."""

    server_label: _Text
    server_url: _Text | UnsetType = UNSET
    connector_id: _Text | UnsetType = UNSET
    tunnel_id: _Text | UnsetType = UNSET
    authorization: str | UnsetType = UNSET
    headers: dict[str, str] | UnsetType | None = UNSET
    server_description: str | UnsetType = UNSET
    allowed_tools: list[str] | McpFilter | UnsetType | None = UNSET
    require_approval: Literal["always", "never"] | McpApproval | UnsetType | None = UNSET
    defer_loading: bool | UnsetType = UNSET
    allowed_callers: list[Literal["direct", "programmatic"]] | UnsetType | None = UNSET


class FunctionChoice(_Struct, frozen=True, tag_field="type", tag="function"):
    name: _Text


class McpChoice(_Struct, frozen=True, tag_field="type", tag="mcp"):
    server_label: _Text
    name: str | UnsetType = UNSET


class Reasoning(_Struct, frozen=True):
    """How long the model thinks before it speaks (2.x models only)."""

    effort: _Effort | UnsetType = UNSET


class TokenLimits(_Struct, frozen=True):
    post_instructions: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class RetentionRatio(_Struct, frozen=True):
    """Drop more at once when the context is full, so that the cache survives longer."""

    type: Literal["retention_ratio"]
    retention_ratio: _Fraction
    token_limits: TokenLimits | UnsetType = UNSET


class Tracing(_Struct, frozen=True):
    workflow_name: str | UnsetType = UNSET
    group_id: str | UnsetType = UNSET
    metadata: Any = UNSET


class Prompt(_Struct, frozen=True):
    """A stored prompt (retired on 2026-11-30)."""

    id: _Text
    version: str | UnsetType | None = UNSET
    variables: dict[str, Any] | UnsetType | None = UNSET


_ONE_MODALITY = 'must be ["audio"] or ["text"], never both; audio always comes with its transcript'


class Session(_Struct, frozen=True):
    """`session.update.session`. The server demands `type` in every update."""

    type: Literal["realtime"] = "realtime"
    model: _Text | UnsetType = UNSET
    output_modalities: (
        Annotated[
            list[Literal["audio", "text"]],
            Meta(min_length=1, max_length=1, extra={"remedy": _ONE_MODALITY}),
        ]
        | UnsetType
    ) = UNSET
    instructions: str | UnsetType = UNSET
    audio: Audio | UnsetType = UNSET
    max_output_tokens: Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"] | UnsetType = UNSET
    tools: list[FunctionTool | McpTool] | UnsetType = UNSET
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | McpChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning: Reasoning | UnsetType = UNSET
    truncation: Literal["auto", "disabled"] | RetentionRatio | UnsetType = UNSET
    include: list[Literal["item.input_audio_transcription.logprobs"]] | UnsetType | None = UNSET
    tracing: Literal["auto"] | Tracing | UnsetType | None = UNSET
    prompt: Prompt | UnsetType | None = UNSET
