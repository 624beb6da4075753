"""One caller's end of an AudioSocket stream, as cheap as Python allows: a frame each 20 ms out, frames in.

Coming in, nearly every frame is the same bytes as the one before (silence, or the constant level of a reply), so it is
recognised by one comparison. Everything else takes the slow road through `_changed`.
"""

from __future__ import annotations

import socket
import time
import uuid

from bench.records import CallNotes, Reply
from bench.signals import click_frame, recognise

# The wire's own numbers, apart from the bridge's code on purpose.
KINDS = {8000: 0x10, 16000: 0x12, 24000: 0x13}
_HANGUP, _UUID, _SLIN, _HEADER_BYTES = 0x00, 0x01, 0x10, 3
_CLICK_EVERY_FRAMES = 50
FRAME_MS = 20


class CallerEnd:
    """Connects on construction; `send_frame` each 20 ms, `on_readable` when the socket says so."""

    def __init__(self, notes: CallNotes, address: tuple[str, int], rate_hz: int) -> None:
        self.notes = notes
        self._rate_hz = rate_hz
        payload = rate_hz // 1000 * FRAME_MS * 2
        self._frame_bytes = _HEADER_BYTES + payload
        self._header = bytes((KINDS[rate_hz], payload >> 8, payload & 0xFF))
        self._silence = self._header + bytes(payload)
        self._click = self._header + click_frame(rate_hz)
        # Clicks of different calls do not fall together.
        self._click_in = 25 + notes.number * 7 % _CLICK_EVERY_FRAMES
        self._last = self._silence
        self._rest = b""
        self._reply: Reply | None = None
        self._frame_ms = 0.0  # of the reply in frames like the last one
        self.closed = False
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.send(bytes((_UUID, 0, 16)) + uuid.uuid4().bytes)
        self.socket.setblocking(False)

    def send_frame(self) -> None:
        """One 20 ms frame, silence or a click. Asterisk's write never waits, and a short one breaks its stream."""
        frame, clicks = self._silence, False
        if self.notes.established_at is not None:
            self._click_in -= 1
            if not self._click_in:
                self._click_in = _CLICK_EVERY_FRAMES
                frame, clicks = self._click, True
        try:
            sent = self.socket.send(frame)
        except BlockingIOError:
            self.notes.violation("the bridge does not read: the socket is full")
            return
        except OSError as error:
            self._end(str(error))
            return
        if sent != len(frame):
            self.notes.violation("the bridge does not read: a short write")
        now = time.monotonic()
        self.notes.frame_sent(now, FRAME_MS)
        if clicks:
            self.notes.clicks.append((now, None))

    def on_readable(self) -> None:
        """Take what the bridge sent."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(str(error))
            return
        now = time.monotonic()
        if data == self._last and not self._rest:
            notes = self.notes
            notes.arrivals.append(now)
            if self._reply is not None:
                self._reply.heard_ms += self._frame_ms
                self._reply.last_heard_at = now
        elif data:
            self._take_apart(data, now)
        else:
            self._end("FIN")

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        self.socket.close()

    def _take_apart(self, data: bytes, now: float) -> None:
        data = self._rest + data
        while len(data) >= _HEADER_BYTES and not self.closed:
            length = _HEADER_BYTES + (data[1] << 8 | data[2])
            if len(data) < length:
                break
            self._frame(data[:length], now)
            data = data[length:]
        self._rest = data

    def _frame(self, frame: bytes, now: float) -> None:
        if frame[0] == _SLIN != self._header[0] and not self.notes.arrivals:
            return  # silence at 8 kHz while the bridge learns the format
        if frame[0] == _HANGUP:
            self._end("a hang-up frame")
            return
        if frame[:_HEADER_BYTES] != self._header:
            self.notes.violation(f"a frame with the header {frame[:_HEADER_BYTES].hex()}")
            return
        self.notes.arrivals.append(now)
        if frame != self._last:
            self._changed(frame)
        if self._reply is not None:
            if self._reply.first_heard_at is None:
                self._reply.first_heard_at = now
            self._reply.heard_ms += self._frame_ms
            self._reply.last_heard_at = now

    def _changed(self, frame: bytes) -> None:
        self._last = frame
        sound = recognise(frame[_HEADER_BYTES:], self._rate_hz)
        self._frame_ms = sound.ms
        self._reply = None if sound.reply is None else self.notes.reply_sounding(sound.reply)
        if sound.reply is not None and self._reply is None:
            self.notes.violation("audio that belongs to no reply")

    def _end(self, why: str) -> None:
        if not self.closed:
            self.notes.violation(f"the bridge ended the media connection: {why}")
            self.close()
