"""The events of one call on their way to the model: in order, never waited for, and bounded.

An event is written at once when nothing waits before it; else, or where the model's connection takes nothing just now,
it queues for `transmit`. So the clock and the dialogue only ever hand over, and a slow network costs them nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

# Full means that the server's side has taken nothing for a long time.
MAX_WAITING = 256
# Audio that waits longer than this for the model's socket is old news; control events never yield to it.
MAX_WAITING_AUDIO = 25


class EventConnection(Protocol):
    """What an uplink needs of the model's connection; `RealtimeConnection` is one."""

    def send_audio_nowait(self, payload: bytes) -> bool:
        """Write an append event if that is possible at once; False: nothing was written."""
        ...

    @property
    def unfinished(self) -> bool:
        """The end of the last event written is still here: `finish` must be called."""
        ...

    async def finish(self) -> None: ...

    async def send(self, payload: bytes) -> None: ...


class Uplink:
    """`put` and `offer_audio` from the call, `transmit` as a task for as long as there is a connection.

    `sent(heard_at)` is told each append that has been handed to the network, with the time that came with it.
    """

    def __init__(self, sent: Callable[[float], None]) -> None:
        self._sent = sent
        # (event, when its audio was heard). What is being sent stays at the front until it has been: nobody overtakes.
        # An empty event stands for the rest of one that the socket took in part.
        self._waiting: deque[tuple[bytes, float | None]] = deque()
        self._connection: EventConnection | None = None
        self._news = trio.Event()
        self.stuck_since = math.inf
        """Since when the network has not taken the event at the front; infinite while nothing waits for it."""

    def put(self, payload: bytes) -> bool:
        """Send a control event. False, and not taken: `MAX_WAITING` wait already."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._queue(payload, None)
        return True

    def offer_audio(self, payload: bytes, heard_at: float) -> bool:
        """Send an append event. False, and not taken: so much waits already that it would be heard too late."""
        connection = self._connection
        if not self._waiting and connection is not None and connection.send_audio_nowait(payload):
            if connection.unfinished:
                self._queue(b"", heard_at)
            else:
                self._sent(heard_at)
            return True
        if len(self._waiting) >= MAX_WAITING_AUDIO:
            return False
        self._queue(payload, heard_at)
        return True

    def clear(self) -> None:
        """Forget what waits: it was meant for a session that is over. Only while no `transmit` runs."""
        self._waiting.clear()

    async def transmit(self, connection: EventConnection) -> None:
        """Send through `connection` until cancelled. Raises what `connection` raises: the event at the front is lost.

        Cancelled in the middle of an event, the connection is of no more use.
        """
        self._connection = connection
        try:
            while True:
                while self._waiting:
                    await self._send_first(connection)
                self._news = trio.Event()
                await self._news.wait()
        finally:
            self._connection = None
            self.stuck_since = math.inf

    async def _send_first(self, connection: EventConnection) -> None:
        payload, heard_at = self._waiting[0]
        self.stuck_since = trio.current_time()
        try:
            # Audio that came while websockets was writing goes the short way still, if that is free now.
            if payload and (heard_at is None or not connection.send_audio_nowait(payload)):
                await connection.send(payload)
            elif not payload or connection.unfinished:
                await connection.finish()
        finally:
            self._waiting.popleft()
        self.stuck_since = math.inf
        if heard_at is not None:
            self._sent(heard_at)

    def _queue(self, payload: bytes, heard_at: float | None) -> None:
        self._waiting.append((payload, heard_at))
        self._news.set()
