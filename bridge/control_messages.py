"""What is said on a control websocket, and what waits to be said. No I/O.

    -> {"id": 7, "command": "say", "call": UUID, "text": "One moment."}        the fields are those of `control_commands`
    <- {"id": 7, "ok": true, "status": 202, "result": {...}}                   what HTTP would have answered
    <- {"id": 8, "ok": false, "status": 404, "error": "what, and what to do"}
    <- {"call_id": UUID, "at": 1764270000.123, "source": "call", "type": "transcript.final", "data": {...}}
    <- {"call_id": "", "at": ..., "source": "stream", "type": "stream.missed", "data": {"count": 12}}

Commands are carried out one after another; an answer comes in the order of its command, between the events. A client that
reads too slowly loses the oldest events, never an answer, and is told how many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from bridge.control_commands import ALIASES
from bridge.errors import ConfigError
from bridge.http_exchange import Page

MOST_EVENTS = 1024
"""What may wait for one client: some minutes of a busy call, or the last seconds of a hundred."""
MOST_ANSWERS = 16
"""So many answers may wait; then the client's next command waits too."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One message of a client. `id`: whatever it wants to see again in the answer."""

    id: Any
    name: str
    call_id: str
    fields: dict[str, Any]


class MessageError(ConfigError):
    """A message that is no command; `id` where it had one."""

    def __init__(self, message: str, id: Any = None) -> None:
        super().__init__(message)
        self.id = id


def asked(message: str | bytes) -> Asked:
    """The command of a message. Raises `MessageError`."""
    try:
        told = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"a message must be one JSON object: {error}") from error
    if not isinstance(told, dict):
        raise MessageError('a message must be one JSON object, like {"id": 1, "command": "list_calls"}')
    id = told.pop("id", None)
    name, call_id = told.pop("command", None), told.pop("call", "")
    if not isinstance(name, str):
        raise MessageError('a message needs a "command", like {"id": 1, "command": "list_calls"}', id)
    if not isinstance(call_id, str):
        raise MessageError('"call" must be the UUID of a call', id)
    return Asked(id, ALIASES.get(name, name), call_id.lower(), told)


def answer(id: Any, page: Page) -> bytes:
    """What HTTP would have answered, as an answer on the websocket."""
    told: dict[str, Any] = {"id": id, "ok": page.status < 400, "status": page.status}
    content = msgspec.json.decode(page.text)
    return msgspec.json.encode(told | ({"result": content} if page.status < 400 else content))


def stream_event(kind: str, at_unix_s: float, data: Mapping[str, Any]) -> bytes:
    """Something about the stream itself, in the form of an event."""
    return msgspec.json.encode(
        {"call_id": "", "at": round(at_unix_s, 3), "source": "stream", "type": f"stream.{kind}", "data": data}
    )


_Event = TypeVar("_Event")


class StreamQueue(Generic[_Event]):
    """What waits for one client, in order: answers (bytes), and events, of which the oldest give way.

    `missed`: events that were dropped since it was last asked for by `take_missed`.
    """

    def __init__(self, most_events: int) -> None:
        self._most = most_events
        self._entries: deque[bytes | _Event] = deque()
        self._answers = 0
        self._missed = 0

    def put_answer(self, answer: bytes) -> None:
        self._answers += 1
        self._entries.append(answer)

    def put_event(self, event: _Event) -> None:
        if len(self._entries) - self._answers >= self._most:
            self._missed += 1
            oldest = next(index for index, it in enumerate(self._entries) if not isinstance(it, bytes))
            del self._entries[oldest]
        self._entries.append(event)

    @property
    def full_of_answers(self) -> bool:
        """No command may be carried out before one of its answers has gone."""
        return self._answers >= MOST_ANSWERS

    def take_missed(self) -> int:
        """How many events were dropped since the last time: to be told before what follows them."""
        missed, self._missed = self._missed, 0
        return missed

    def take(self) -> bytes | _Event | None:
        """The next to be said; None: nothing."""
        if not self._entries:
            return None
        entry = self._entries.popleft()
        self._answers -= isinstance(entry, bytes)
        return entry

    def __len__(self) -> int:
        return len(self._entries)
