"""What happens to a conversation, as `item_cache` tells it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bridge.cached_item import CachedItem


class ChangeKind(enum.StrEnum):
    """What happened. `UPDATED` has a `delta`; those from `SPEECH_STARTED` on have no item."""

    APPENDED = "appended"
    UPDATED = "updated"
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    TRANSCRIPT = "transcript"
    TRANSCRIPT_FAILED = "transcript_failed"
    TRUNCATED = "truncated"
    DELETED = "deleted"
    SPEECH_STARTED = "speech_started"
    SPEECH_STOPPED = "speech_stopped"
    RESPONSE_STARTED = "response_started"
    RESPONSE_DONE = "response_done"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new; exactly one field is set. The item has the whole."""

    text: str = ""
    transcript: str = ""
    audio: bytes = b""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened. `item` is the cache's own and goes on changing.

    `item_id` is set where an item is meant that is not there (any more, or yet). `note`: why something was ignored, or a
    response's status. `response_id` for the two kinds of a response.
    """

    kind: ChangeKind
    item_id: str = ""
    item: CachedItem | None = None
    delta: Delta | None = None
    note: str = ""
    response_id: str = ""
