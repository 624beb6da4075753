"""What was appended to the server's input buffer, kept to give each of the caller's items its own audio.

The server never sends a caller's audio back unless it is asked for each item (`conversation.item.retrieve`). It tells where
a turn began and ended, in milliseconds of appended audio (protocol sheet 6), and which item became of it.
"""

from __future__ import annotations

from collections import OrderedDict

from bridge.cached_item import AudioStore

_TURNS = 16  # turns of which the item has not been committed; one is usual


class CallerAudio:
    """Everything here takes at most twice `limit_bytes`: what is not committed yet, and what belongs to items."""

    def __init__(self, limit_bytes: int) -> None:
        """0: nothing is kept."""
        self.limit_bytes = limit_bytes
        self.store = AudioStore(limit_bytes)
        self.bytes_per_ms = 48
        self._buffer = bytearray()
        self._buffer_from = 0  # bytes appended before what is in the buffer
        self._turns: OrderedDict[str, tuple[int, int | None]] = OrderedDict()

    def append(self, data: bytes) -> None:
        """Audio that was sent. Without turns only the newest `limit_bytes` are kept, however long nobody speaks."""
        self._buffer += data
        self._forget_until(self._buffer_from + len(self._buffer) - self.limit_bytes)

    def started(self, item_id: str, start_ms: object) -> None:
        """The server's VAD heard the caller begin."""
        if isinstance(start_ms, int):
            self._turns[item_id] = (start_ms, None)
            while len(self._turns) > _TURNS:
                self._turns.popitem(last=False)

    def stopped(self, item_id: str, end_ms: object) -> None:
        """... and end. Without its beginning nothing is known about the turn."""
        if item_id in self._turns and isinstance(end_ms, int):
            self._turns[item_id] = (self._turns[item_id][0], end_ms)

    def committed(self, item_id: str) -> None:
        """The turn is this item now: what the VAD cut out, or all that was appended since the last commit."""
        if not self.limit_bytes:
            self._turns.pop(item_id, None)
            return
        end = self._buffer_from + len(self._buffer)
        start_ms, end_ms = self._turns.pop(item_id, (0, None))
        start = max(start_ms * self.bytes_per_ms, self._buffer_from)
        end = end if end_ms is None else max(start, min(end, end_ms * self.bytes_per_ms))
        self.store.extend(item_id, bytes(self._buffer[start - self._buffer_from : end - self._buffer_from]))
        self._forget_until(end)

    def cleared(self) -> None:
        """The server emptied its buffer."""
        self._forget_until(self._buffer_from + len(self._buffer))

    def _forget_until(self, position: int) -> None:
        if position > self._buffer_from:
            del self._buffer[: position - self._buffer_from]
            self._buffer_from = position
