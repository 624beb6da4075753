"""Transcripts of the caller's turns: another model's work, asynchronous to everything (section 3.11).

`Transcription.of_turn` says what to emit and how long after the commit; the session keeps the clock.
"""

from __future__ import annotations

from collections.abc import Callable

from simulators.model_script import Item
from simulators.realtime_faults import Faults
from simulators.realtime_schema import Json
from simulators.realtime_usage import audio_tokens, text_tokens

_KIND = "conversation.item.input_audio_transcription"
# Billed by tokens; the others by the length of the audio (section 5).
_BY_TOKENS = frozenset({"gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize"})
# Send the words as they understand them, the others in one delta.
_STREAMING = frozenset({"gpt-live-transcribe", "gpt-realtime-whisper", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"})

After = Callable[[float, Callable[[float], None]], None]


class Transcription:
    """The transcripts of one session. `emit` takes events without `event_id`; `after` calls back so many s later."""

    def __init__(self, emit: Callable[[Json], None], after: After, faults: Faults) -> None:
        self._emit = emit
        self._after = after
        self._faults = faults
        self._held: list[tuple[Item, str | None, Json]] = []

    def of_turn(self, item: Item, words: str | None, config: Json, *, logprobs: bool) -> None:
        """A turn was committed: its transcript follows by the faults' rules. `words` None: it will have failed."""
        config = {**config, "logprobs": logprobs}
        if self._faults.transcripts_reversed and not self._held:
            self._held.append((item, words, config))
            return
        # The one that was held back comes right behind: two turns in reverse order.
        turns = [(item, words, config), *self._held]
        self._held.clear()

        def tell(_now: float) -> None:
            for turn in turns:
                self._tell(*turn)

        if self._faults.transcript_after_s:
            self._after(self._faults.transcript_after_s, tell)
        else:
            tell(0.0)  # before the response that this turn brings

    def _tell(self, item: Item, words: str | None, config: Json) -> None:
        place = {"item_id": item.id, "content_index": 0}
        if words is None:
            message = "The audio could not be transcribed."
            error = {
                "type": "transcription_error",
                "code": "audio_unintelligible",
                "message": message,
                "param": None,
            }
            self._emit({"type": f"{_KIND}.failed", **place, "error": error})
            return
        model = config.get("model", "")
        pieces = words.split(" ") if model in _STREAMING else [words]
        for index, piece in enumerate(pieces):
            if piece:
                delta = f" {piece}" if index else piece
                self._emit({"type": f"{_KIND}.delta", **place, "delta": delta, **_logprobs(delta, config)})
        if model == "gpt-4o-transcribe-diarize" and words:
            segment = {"id": f"seg_{item.id}", "speaker": "A", "start": 0.0, "end": item.audio_ms / 1000}
            self._emit({"type": f"{_KIND}.segment", **place, "text": words, **segment})
        content = item.wire.get("content") or []
        if content:
            content[0]["transcript"] = words
        completed = {"type": f"{_KIND}.completed", **place, "transcript": words, "usage": _usage(model, item, words)}
        if model == "gpt-transcribe":
            completed["languages"] = [{"code": config.get("language") or "en"}] if words else []
        self._emit(completed | _logprobs(words, config))


def _logprobs(words: str, config: Json) -> Json:
    if not config["logprobs"]:
        return {}
    return {"logprobs": [{"token": words, "bytes": list(words.encode()), "logprob": -0.1}]}


def _usage(model: str, item: Item, words: str) -> Json:
    if model not in _BY_TOKENS:
        return {"type": "duration", "seconds": item.audio_ms / 1000}
    heard, written = audio_tokens("user", item.audio_ms), text_tokens(len(words))
    return {
        "type": "tokens",
        "input_tokens": heard,
        "output_tokens": written,
        "total_tokens": heard + written,
        "input_token_details": {"audio_tokens": heard, "text_tokens": 0},
    }
