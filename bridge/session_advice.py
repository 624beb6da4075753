"""What works today and surprises later: retired models, and settings that the model in use does not know.

Facts with their dates: `docs/realtime-protocol.md` section 1.2. None of this stops a start: a model's name that is not
known here passes through unchanged, since other servers have their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_SHUT_DOWN_2027 = frozenset(
    {"gpt-realtime", "gpt-realtime-2025-08-28", "gpt-realtime-mini", "gpt-realtime-mini-2025-12-15"}
)
_TRANSCRIBERS_ENDING = frozenset(
    {"whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize"}
)
_STREAMING_TRANSCRIBERS = frozenset({"gpt-live-transcribe", "gpt-realtime-whisper"})
_VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
_WITHOUT_REASONING = _SHUT_DOWN_2027 | {"gpt-realtime-1.5"}


def model_advice(model: str, where: str = "realtime.model") -> list[str]:
    """Warnings about the model of the connection, which is set at `where`."""
    if model.startswith("gpt-4o-realtime-preview"):
        return [f"{where}: {model} is gone from OpenAI; use gpt-realtime-2.1"]
    if model in _SHUT_DOWN_2027:
        return [f"{where}: {model} ends at OpenAI on 2027-01-20; use gpt-realtime-2.1"]
    return []


def session_advice(session: Mapping[str, Any], model: str, where: str) -> list[str]:
    """Warnings about a whole valid session (`session.session_of`) with this model. `where` starts each."""
    return [f"{where}: {warning}" for warning in _advice(session, model)]


def _advice(session: Mapping[str, Any], model: str) -> Iterator[str]:
    transcription = session["audio"]["input"]["transcription"] or {}
    transcriber = transcription.get("model", "")
    if transcriber in _TRANSCRIBERS_ENDING:
        yield f"transcription with {transcriber} ends at OpenAI on 2027-02-26; use gpt-transcribe"
    if transcriber in _STREAMING_TRANSCRIBERS and session["audio"]["input"]["turn_detection"]:
        yield f"{transcriber} needs turn_detection.type = manual; with turn detection use gpt-transcribe"
    voice = session["audio"]["output"].get("voice")
    if model.startswith("gpt-realtime") and isinstance(voice, str) and voice not in _VOICES:
        yield f"voice {voice} is none of OpenAI's: {', '.join(_VOICES)}"
    if session.get("prompt"):
        yield "stored prompts (prompt) end at OpenAI on 2026-11-30; put the text into instructions"
    if session.get("tool_choice") == "required":
        yield "tool_choice = required makes the model call a tool after each tool's result, without end"
    if model in _WITHOUT_REASONING:
        for field in ("reasoning", "parallel_tool_calls"):
            if field in session:
                yield f"{field} is known to the 2.x models only, not to {model}"
