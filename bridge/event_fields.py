"""Fields of events as they come: whatever a server puts there, what is read is of its type, or empty."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

Event = Mapping[str, Any]

_MAX_PARTS = 64  # content parts of one item; one is usual


def bytes_per_ms(audio_format: object) -> int:
    """Of one of the wire's formats: 48 for PCM at 24 kHz, 8 for G.711."""
    return 8 if mapping(audio_format).get("type") in ("audio/pcmu", "audio/pcma") else 48


def word(wire: object, key: str) -> str:
    """A field that is to be text; empty where it is not."""
    value = wire.get(key) if isinstance(wire, Mapping) else None
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Mapping[str, Any]:
    """A value that is to be an object; empty where it is not."""
    return value if isinstance(value, Mapping) else {}


def index(event: Event) -> int:
    """The content index of an event, 0 where it makes no sense."""
    value = event.get("content_index")
    return value if isinstance(value, int) and 0 <= value < _MAX_PARTS else 0


def decoded(value: object) -> bytes:
    """Audio out of base64; empty where it is none."""
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str | bytes) else b""
    except ValueError:  # binascii's error is one, and letters outside ASCII are another
        return b""
