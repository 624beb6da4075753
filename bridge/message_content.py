"""What a message may be made of, as the wire wants it: text, audio and images from plain Python values."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

Content = str | bytes | bytearray | memoryview | Mapping[str, Any]

# 15 MiB is the server's limit for one append (protocol sheet 1.4); a mebibyte is 22 s of PCM, so nobody waits for one.
APPEND_BYTES = 2**20


def content_parts(content: Iterable[Content], role: str) -> list[dict[str, Any]]:
    """The `content` of a message: text and audio as the role's parts, mappings (see `image`) as they are.

    Empty audio is left out, since the server takes none. Raises `TypeError` for anything else, and `ValueError` for what a
    message of this role can not hold: only a user's has audio and images (protocol sheet 2.3).
    """
    if isinstance(content, str | bytes | Mapping):
        raise TypeError("content is a list of parts; put a single part into one")
    parts = [_part(part, role) for part in content]
    if role != "user" and any(part.get("type") in ("input_audio", "input_image") for part in parts):
        raise ValueError(f"a message of the {role} holds text only")
    return [part for part in parts if part.get("audio") != ""]


def _part(part: Content, role: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part}
    if isinstance(part, bytes | bytearray | memoryview):
        return {"type": "input_audio", "audio": audio_text(part)}
    if not isinstance(part, Mapping):
        raise TypeError(f"a part of a message is str, bytes or a mapping, not {type(part).__name__}")
    if isinstance(audio := part.get("audio"), bytes | bytearray | memoryview):
        return {**part, "audio": audio_text(audio)}
    return dict(part)


def image(source: str | bytes, *, media_type: str = "image/png", detail: str = "auto") -> dict[str, Any]:
    """An image as a part: its URL, or its bytes, which are sent inside the message."""
    if isinstance(source, bytes):
        source = f"data:{media_type};base64,{base64.b64encode(source).decode()}"
    return {"type": "input_image", "image_url": source, "detail": detail}


def audio_text(pcm: bytes | bytearray | memoryview) -> str:
    """Audio as JSON carries it. Of a view, the bytes that it shows (never all of its buffer)."""
    return base64.b64encode(pcm).decode()


def in_appends(pcm: bytes | bytearray | memoryview) -> list[memoryview]:
    """Audio of any length in pieces that the server takes, none of which splits a sample."""
    view = memoryview(pcm).cast("B")
    return [view[at : at + APPEND_BYTES] for at in range(0, len(view), APPEND_BYTES)]
