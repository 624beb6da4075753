"""What a session says on its way out: numbered, in the manner of other servers, up to the point where it is dropped."""

from __future__ import annotations

from collections.abc import Callable

from simulators.model_script import Drop
from simulators.realtime_faults import DropPoint, Faults
from simulators.realtime_schema import Json

# The event at which a session is dropped, and whether that event is still sent.
_DROPS: dict[DropPoint, tuple[str, bool]] = {
    DropPoint.AFTER_CREATED: ("session.created", True),
    DropPoint.BEFORE_FIRST_DELTA: ("response.output_audio.delta", False),
    DropPoint.MID_REPLY: ("response.output_audio.delta", False),
    DropPoint.BEFORE_DONE: ("response.done", False),
    DropPoint.MID_TOOL: ("response.done", True),
    DropPoint.DURING_SPEECH: ("input_audio_buffer.speech_started", True),
    DropPoint.AFTER_COMMIT: ("input_audio_buffer.committed", True),
}

# All that every server of section 9 sends.
_MINIMUM = frozenset(
    {
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
        "response.output_audio.delta",
        "response.done",
        "error",
    }
)


class Outbox:
    """The events of one session until they are taken. `number` is the session's; `drop` ends its connection."""

    def __init__(self, number: int, faults: Faults, drop: Callable[[Drop], None]) -> None:
        self.closed = False  # nothing more is said
        self.spoke = False  # audio was sent: the voice is locked
        self._number = number
        self._faults = faults
        self._drop = drop
        self._events: list[Json] = []
        self._count = 0
        self._deltas = 0  # of the response that was announced last

    def take(self) -> list[Json]:
        """The events to send now, in order; each is handed out once."""
        events, self._events = self._events, []
        return events

    def emit(self, event: Json) -> None:
        """Say this (without `event_id`), unless the session is over or is to be dropped here."""
        if self.closed:
            return
        drop, sent = self._drop_at(event)
        if sent:
            for one in self._as_others_do(event):
                self._queue(one)
        if drop is not None:
            self._drop(drop)

    def _drop_at(self, event: Json) -> tuple[Drop | None, bool]:
        """Whether to drop at this event, and whether the event is still sent."""
        if event["type"] == "response.created":
            self._deltas = 0
        self._deltas += event["type"] == "response.output_audio.delta"
        if not self._faults.drops:
            return None, True
        point, drop = self._faults.drops[0]
        kind, sent = _DROPS[point]
        reached = kind == event["type"]
        if point is DropPoint.MID_REPLY:
            reached = reached and self._deltas == 3
        if point is DropPoint.MID_TOOL and reached:
            reached = any(item["type"] == "function_call" for item in event["response"]["output"])
        if not reached:
            return None, True
        self._faults.drops.popleft()
        return drop, sent

    def _as_others_do(self, event: Json) -> list[Json]:
        """The event as a server of section 9 sends it: twice, under another name, or not at all."""
        faults = self._faults
        if faults.minimum_only and event["type"] not in _MINIMUM:
            return []
        match event["type"]:
            case "conversation.item.added" if faults.items_created:
                return [{**event, "type": "conversation.item.created"}]
            case "conversation.item.added" if faults.added_twice:
                return [event, event]
            case "conversation.item.done" if faults.items_created or faults.item_done_missing:
                return []
            case "rate_limits.updated" if faults.rate_limits_missing:
                return []
        return [event]

    def _queue(self, event: Json) -> None:
        self._count += 1
        named = {"type": event["type"], "event_id": f"event_{self._number:03d}{self._count:05d}", **event}
        if event["type"] == "response.output_audio.delta":
            self.spoke = True
        if self._faults.foreign:
            named["x_not_yet_invented"] = {"deep": [1, None]}
            self._events.append({"type": "weather.updated", "event_id": named["event_id"] + "x", "sky": "clear"})
        self._events.append(named)
