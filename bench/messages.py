"""What the simulated Realtime server says, as websocket frames made once and sent to every call.

Ids need to be unique within a session only, so the n-th reply has the same ids, and the same bytes, in all calls. The
order and the shapes are those of the real server, with its events that a bridge has no use for: one transcript delta
beside each audio delta, parts, items, rate limits.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from bench.signals import reply_pcm
from bench.websocket import server_frame

DELTA_MS = 200
# The real one ends anywhere; 130 ms make the last frame of a reply half a frame.
LAST_DELTA_MS = 130
_PCM = {"type": "audio/pcm", "rate": 24000}
_SESSION = {
    "type": "realtime",
    "object": "realtime.session",
    "id": "sess_bench",
    "model": "gpt-realtime-2.1",
    "output_modalities": ["audio"],
    "audio": {"input": {"format": _PCM}, "output": {"format": _PCM, "voice": "marin"}},
}
_USAGE = {"total_tokens": 400, "input_tokens": 250, "output_tokens": 150}


def _frame(kind: str, **fields: Any) -> bytes:
    return server_frame(
        json.dumps({"type": kind, "event_id": "event_bench", **fields}, separators=(",", ":")).encode()
    )


def response_id(reply: int) -> str:
    return f"resp_{reply:04d}"


def item_id(reply: int) -> str:
    return f"item_{reply:04d}"


SESSION_CREATED = _frame("session.created", session=_SESSION)
SESSION_UPDATED = _frame("session.updated", session=_SESSION)


@cache
def speech_started(turn: int) -> bytes:
    """The server hears the caller: a barge-in if something is being played."""
    return _frame("input_audio_buffer.speech_started", audio_start_ms=1000, item_id=f"user_{turn:04d}")


@cache
def speech_stopped(turn: int) -> bytes:
    """The caller has finished: the turn is committed and becomes an item."""
    user = f"user_{turn:04d}"
    item = {"id": user, "type": "message", "status": "completed", "role": "user", "content": []}
    return (
        _frame("input_audio_buffer.speech_stopped", audio_end_ms=2000, item_id=user)
        + _frame("input_audio_buffer.committed", previous_item_id=None, item_id=user)
        + _frame("conversation.item.added", previous_item_id=None, item=item)
        + _frame("conversation.item.done", previous_item_id=None, item=item)
    )


@cache
def reply_begins(reply: int) -> bytes:
    """Everything before the first audio."""
    ids: Mapping[str, Any] = {"response_id": response_id(reply), "output_index": 0}
    part = {"type": "output_audio", "transcript": ""}
    return (
        _frame("response.created", response=_response(reply, "in_progress"))
        + _frame("response.output_item.added", **ids, item=_item(reply, "in_progress"))
        + _frame("conversation.item.added", previous_item_id=None, item=_item(reply, "in_progress"))
        + _frame("response.content_part.added", **ids, item_id=item_id(reply), content_index=0, part=part)
    )


@cache
def reply_delta(reply: int, ms: int = DELTA_MS) -> bytes:
    """A piece of speech and the words that belong to it."""
    place: Mapping[str, Any] = {
        "response_id": response_id(reply),
        "item_id": item_id(reply),
        "output_index": 0,
        "content_index": 0,
    }
    audio = base64.b64encode(reply_pcm(reply, ms)).decode()
    return _frame("response.output_audio_transcript.delta", **place, delta=" word") + _frame(
        "response.output_audio.delta", **place, delta=audio
    )


@cache
def reply_ends(reply: int) -> bytes:
    """Everything after the last audio of a reply that was generated to its end."""
    ids: Mapping[str, Any] = {"response_id": response_id(reply), "output_index": 0}
    place: Mapping[str, Any] = {**ids, "item_id": item_id(reply), "content_index": 0}
    part = {"type": "output_audio", "transcript": "word word word"}
    return (
        _frame("response.output_audio.done", **place)
        + _frame("response.output_audio_transcript.done", **place, transcript="word word word")
        + _frame("response.content_part.done", **place, part=part)
        + _frame("conversation.item.done", previous_item_id=None, item=_item(reply, "completed"))
        + _frame("response.output_item.done", **ids, item=_item(reply, "completed"))
        + _frame("response.done", response=_response(reply, "completed"))
        + _frame("rate_limits.updated", rate_limits=[{"name": "tokens", "limit": 40000, "remaining": 39000}])
    )


@cache
def reply_cancelled(reply: int) -> bytes:
    """The server stops by itself since the caller speaks; it follows `speech_started`."""
    return _frame("response.output_audio.done", response_id=response_id(reply), item_id=item_id(reply)) + _frame(
        "response.done", response=_response(reply, "cancelled")
    )


@cache
def item_truncated(reply: int, audio_end_ms: int) -> bytes:
    return _frame("conversation.item.truncated", item_id=item_id(reply), content_index=0, audio_end_ms=audio_end_ms)


@cache
def item_deleted(reply: int) -> bytes:
    return _frame("conversation.item.deleted", item_id=item_id(reply))


def _item(reply: int, status: str) -> dict[str, Any]:
    content = [{"type": "output_audio", "transcript": "word word word"}] if status == "completed" else []
    return {"id": item_id(reply), "type": "message", "status": status, "role": "assistant", "content": content}


def _response(reply: int, status: str) -> dict[str, Any]:
    body: dict[str, Any] = {"object": "realtime.response", "id": response_id(reply), "status": status, "output": []}
    if status != "in_progress":
        body["usage"] = _USAGE
    if status == "completed":
        body["output"] = [_item(reply, status)]
    if status == "cancelled":
        body["status_details"] = {"type": "cancelled", "reason": "turn_detected"}
    return body
