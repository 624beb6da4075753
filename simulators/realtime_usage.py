"""What a response costs, and what is left of the minute's tokens: plausible numbers by the rules of section 5.

An audio token is 100 ms of the caller or 50 ms of the assistant, a text token four letters. The whole conversation is
input again each time; what stood at the same place the last time is cached, in steps of 64 tokens. So a truncated or
deleted early item breaks the cache from its place on, as the notes say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from simulators.model_script import Item
from simulators.realtime_schema import Json

_CACHE_STEP = 64
_LETTERS_PER_TOKEN = 4
# One of the figures that were captured, section 10; refilled within a minute.
_TOKENS_PER_MINUTE = 40000


def audio_tokens(role: str, ms: float) -> int:
    """Tokens of so much audio: 1 for 100 ms of a caller, 1 for 50 ms of the assistant."""
    return int(ms // (50 if role == "assistant" else 100))


def text_tokens(letters: int) -> int:
    """Tokens of so many letters."""
    return -(-letters // _LETTERS_PER_TOKEN)


class Meter:
    """The usage of one session. It remembers the last prompt, since its prefix is what the next one finds cached."""

    def __init__(self) -> None:
        self._last: list[tuple[str, int, int]] = []
        self._used = 0.0
        self._used_at = 0.0

    def prompt(self, config: Json, items: Iterable[Item]) -> Json:
        """The input half of `usage` for a response that begins now: instructions, tools and `items`."""
        tools = msgspec.json.encode(config.get("tools") or []).decode()
        said = str(config.get("instructions") or "")
        parts = [(said + tools, text_tokens(len(said) + len(tools)), 0)]
        for item in items:
            # An item with audio is read as audio; its transcript is not counted beside it.
            letters = 0 if item.pcm else len(item.text) + len(str(item.wire.get("arguments", "")))
            parts.append((item.id, text_tokens(letters), audio_tokens(item.role, item.audio_ms)))
        same = 0
        for before, now in zip(self._last, parts, strict=False):
            if before != now:
                break
            same += 1
        self._last = parts
        cached = _details(parts[:same], step=_CACHE_STEP)
        whole = _details(parts)
        return {
            "input_tokens": whole["text_tokens"] + whole["audio_tokens"],
            "input_token_details": {
                **whole,
                "cached_tokens": cached["text_tokens"] + cached["audio_tokens"],
                "cached_tokens_details": cached,
            },
        }

    def rate_limits(self, usage: Json | None, now: float) -> list[Json]:
        """The entries of `rate_limits.updated` after a response: only `tokens`, as captured (section 3.13)."""
        self._used = max(0.0, self._used - (now - self._used_at) * _TOKENS_PER_MINUTE / 60)
        self._used_at = now
        self._used = min(self._used + (usage or {}).get("total_tokens", 0), float(_TOKENS_PER_MINUTE))
        reset_s = round(self._used * 60 / _TOKENS_PER_MINUTE, 3)
        remaining = int(_TOKENS_PER_MINUTE - self._used)
        return [
            {"name": "tokens", "limit": _TOKENS_PER_MINUTE, "remaining": remaining, "reset_seconds": float(reset_s)}
        ]


def whole_usage(prompt: Json, *, output_text: int, output_audio: int) -> Json:
    """`usage` of a response: the prompt and what was made of it, in tokens."""
    made = output_text + output_audio
    return {
        "total_tokens": prompt["input_tokens"] + made,
        "output_tokens": made,
        "output_token_details": {"text_tokens": output_text, "audio_tokens": output_audio},
        **prompt,
    }


def no_usage() -> Json:
    """`usage` of a failed response: zeros (section 3.14)."""
    zeros = {**_details([]), "cached_tokens": 0, "cached_tokens_details": _details([])}
    return whole_usage({"input_tokens": 0, "input_token_details": zeros}, output_text=0, output_audio=0)


def _details(parts: Sequence[tuple[str, int, int]], *, step: int = 1) -> Json:
    text = sum(text for _, text, _ in parts) // step * step
    audio = sum(audio for _, _, audio in parts) // step * step
    return {"text_tokens": text, "audio_tokens": audio, "image_tokens": 0}
