"""The short way of a message into a client's websocket: one frame, one write, no task and no checkpoint.

`ClientConnection.send` costs 35 us and a switch to the task that may wait in it; fifty appends a second and call made that
the largest part of a call (README of `bench`). Nearly always the socket takes the whole frame at once. So the clock
writes it itself, where that can not disturb websockets' own writes (answers, pings, pongs, the closing handshake):

* websockets puts bytes into `protocol.writes` and drains that under `send_lock`, and between the two it only stops at
  the entrance of the lock, when it is cancelled there. So with the lock free and `writes` empty there is no byte of its
  own on the way, and none comes before we have written: nothing else runs meanwhile.
* A frame that the socket took in part is websockets' to finish: its rest goes to the front of the empty `writes`,
  ahead of whatever websockets writes next, and `finish` (or any write of websockets) sends it.
* In every other case nothing is written, and the message goes the ordinary way: another task is writing, the socket is
  full, the session is closing, a fragmented message is under way, or the stream is TLS.
* What breaks here is told by the ordinary way, too: it meets the same error.

Checked against websockets 17.4 (`trio/connection.py`: `send_context`, `send_data`; `protocol.py`: `send_frame`).
"""

from __future__ import annotations

import os
import struct

from websockets.protocol import State
from websockets.trio.client import ClientConnection

from bridge.nowait_io import nowait_io

try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets without its C extension
    from websockets.utils import apply_mask

_FINAL_TEXT = 0x81
_MASKED = 0x80
_SHORT = struct.Struct("!BB4s")
_MEDIUM = struct.Struct("!BBH4s")
_LONG = struct.Struct("!BBQ4s")
_KEYS_AT_ONCE = 1024


class _MaskingKeys:
    """Unpredictable keys, as RFC 6455 (5.3) asks for, taken from the kernel a thousand at a time."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []

    def next(self) -> bytes:
        if not self._keys:
            entropy = os.urandom(4 * _KEYS_AT_ONCE)
            self._keys = [entropy[at : at + 4] for at in range(0, len(entropy), 4)]
        return self._keys.pop()


_keys = _MaskingKeys()


def client_text_frame(payload: bytes, key: bytes) -> bytes:
    """One whole text message of a client: header, masking key, masked payload (RFC 6455, 5.2)."""
    length = len(payload)
    if length < 126:
        header = _SHORT.pack(_FINAL_TEXT, _MASKED | length, key)
    elif length < 1 << 16:
        header = _MEDIUM.pack(_FINAL_TEXT, _MASKED | 126, length, key)
    else:
        header = _LONG.pack(_FINAL_TEXT, _MASKED | 127, length, key)
    return header + apply_mask(payload, key)


class LightConnection(ClientConnection):
    """A connection that takes its `send_lock` only to send.

    websockets' reader takes it after each read, nearly always for nothing: a turn of the scheduler for each delta, during
    which the short way is barred. Worse, while a write waits for the far end nothing is read either, and a far end that
    waits in the same way waits for ever.
    """

    async def send_data(self) -> None:
        """Send what waits, if anything does. What another task has begun to send is that task's to finish."""
        if self.protocol.writes:
            await super().send_data()


class WebsocketWriter:
    """Writes text messages to an established `websocket` without waiting. Extensions would be left out: there are none."""

    __slots__ = ("_io", "_protocol", "_websocket")

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self._protocol = websocket.protocol
        self._io = None if websocket.protocol.extensions else nowait_io(websocket.stream)

    def send_nowait(self, payload: bytes) -> bool:
        """Whether the message is on its way; False: nothing was written, use `ClientConnection.send`. Never raises.

        Look at `unfinished` after True: then somebody has to `finish`.
        """
        websocket, protocol = self._websocket, self._protocol
        if (
            self._io is None
            or protocol.state is not State.OPEN
            or protocol.writes
            or websocket.send_lock.locked()
            or websocket.send_in_progress is not None
        ):
            return False
        frame = client_text_frame(payload, _keys.next())
        try:
            taken = self._io.write_nowait(frame)
        except OSError:
            return False
        if 0 < taken < len(frame):
            protocol.writes.append(frame[taken:])
        return taken > 0

    @property
    def unfinished(self) -> bool:
        """The socket took only a part of the last frame, and nobody has sent the rest yet."""
        return bool(self._protocol.writes)

    async def finish(self) -> None:
        """Send the rest, as soon as the socket takes it. Raises `ConnectionClosed` when the session is over."""
        async with self._websocket.send_context():
            pass  # on its way out it sends whatever waits
