"""A caller on a websocket: binary messages are audio (PCM16, 24 kHz), text messages are somebody else's to understand.

websockets' sans-I/O protocol reads and makes the frames; here it is driven like every leg, by the `MediaClock`, without a
task that reads and without one that sends:

* What comes is handed out at most 100 ms of audio (and 16 texts, or one that is long) a turn, in the order of its coming: a
  client may send faster than real time, several seconds in one message, and neither the clock, which all calls share, nor
  the model's connection is flooded. What waits beyond 1 MB stays in the client's socket.
* Audio leaves as the clock paces it, so what the ledger calls played has left us. Behind that only the kernel's buffer is
  ours (`SEND_BUFFER_BYTES`, a third of a second of audio); what the client keeps is the client's.
* Where there is nothing to hear nothing is sent: the call's own silence is told from speech by identity
  (`PcmFormat.silence` is one object), so a pause that the model speaks stays a pause.
* A client that takes nothing gets no audio (`False`), and with `MOST_UNSENT_BYTES` of texts waiting it counts as lost.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from uuid import UUID

import trio
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from bridge.audio import MODEL_FORMAT, SAMPLE_BYTES, PcmFormat
from bridge.ending import Farewell
from bridge.errors import MediaLost, MediaProtocolError
from bridge.leg import CallerAudio, CallerLeft, LegEvent
from bridge.nowait_io import nowait_io

MOST_MESSAGE_BYTES = 10 * 1024 * 1024
SEND_BUFFER_BYTES = 16 * 1024
MOST_UNSENT_BYTES = 1024 * 1024
# How much is read ahead of the turns that hand it out.
MOST_WAITING_BYTES = 1024 * 1024
TURN_AUDIO_BYTES = MODEL_FORMAT.bytes_per_ms * 100
TURN_TEXTS = 16
TURN_TEXT_BYTES = 64 * 1024
# A text that waits costs more than its bytes.
_TEXT_OVERHEAD_BYTES = 256
# Frames cost their number, not their bytes: 65,536 bytes of empty ones took 80 ms, of pings 140 ms. So they are parsed
# in small pieces (at most 170 frames, 1 ms), and no more of them once a turn has had so many.
TURN_FRAMES = 128
_PIECE_BYTES = 1024
# How long the client may take to answer our close frame.
LINGER_S = 1.0

# websockets logs whole requests, tokens included, where somebody turns debugging on.
frames_log = logging.getLogger("bridge.websocket_leg.frames")
frames_log.setLevel(logging.WARNING)

OnText = Callable[[bytes], LegEvent | None]
"""Understands one text message; what it stands for on the line (a key), if anything. Must not raise."""


def server_protocol() -> ServerProtocol:
    """The protocol of one connection, before its handshake."""
    return ServerProtocol(max_size=MOST_MESSAGE_BYTES, logger=frames_log)


class WebSocketLeg:
    """One caller on an open websocket; see `CallerLeg` for what each method promises. Its handshake is done.

    `last_heard_s`: when the client sent its last message; `early_audio_bytes`: audio that came before the call.
    """

    format: PcmFormat = MODEL_FORMAT

    def __init__(
        self, stream: trio.abc.Stream, protocol: ServerProtocol, call_id: UUID, on_text: OnText = lambda _: None
    ) -> None:
        io = nowait_io(stream)
        if io is None:
            raise TypeError(f"a leg needs a stream that can be tried without waiting, not {type(stream).__name__}")
        self._io = io
        self._stream = stream
        self._protocol = protocol
        self.call_id = call_id
        self.on_text = on_text
        self._unparsed = b""
        self._inbox: deque[bytes | memoryview] = deque()  # audio is a view, a text is bytes
        self._waiting_bytes = 0
        self._text: bytearray | None = None  # a fragmented text, so far
        self._odd = b""  # half a sample
        self._unsent = bytearray()
        self._closing = self._closed = self._finished = False
        self._departure: CallerLeft | None = None
        self._error: MediaProtocolError | MediaLost | None = None
        self._header = b"\x82\x7e" + self.format.frame_bytes.to_bytes(2, "big")  # a whole binary message
        self.last_heard_s = trio.current_time()
        self.early_audio_bytes = 0
        self.frames_received = self.bytes_received = self.frames_sent = 0
        # A quick client's first frames come with its handshake.
        self._take_events()

    @property
    def descriptor(self) -> int | None:
        return self._io.descriptor

    @property
    def audio_received(self) -> tuple[int, int]:
        return self.frames_received, self.bytes_received

    # What the client says --------------------------------------------------------------------------------------------

    def receive_nowait(self) -> list[LegEvent]:
        if self._closed:
            raise MediaLost("the websocket is closed")
        if self._closing:
            return []
        self._read_nowait()
        events: list[LegEvent] = []
        audio_left, texts_left, text_left = TURN_AUDIO_BYTES, TURN_TEXTS, TURN_TEXT_BYTES
        while self._inbox and audio_left > 0 and texts_left > 0 and text_left > 0:
            message = self._inbox[0]
            if isinstance(message, bytes):
                self._waiting_bytes -= len(message) + _TEXT_OVERHEAD_BYTES
                self._inbox.popleft()
                texts_left -= 1
                text_left -= len(message)
                if (event := self.on_text(message)) is not None:
                    events.append(event)
                continue
            piece, rest = message[:audio_left], message[audio_left:]
            audio_left -= len(piece)
            self._waiting_bytes -= len(piece)
            if rest:
                self._inbox[0] = rest
            else:
                self._inbox.popleft()
            if pcm := self._whole_samples(bytes(piece)):
                self.frames_received += 1
                self.bytes_received += len(pcm)
                events.append(CallerAudio(pcm))
        if not self._inbox:
            if self._departure is not None:
                events.append(self._departure)
                self._departure = None
            elif self._error is not None and not events:
                raise self._error
        return events

    async def next_text(self) -> bytes | None:
        """Before the call: the next text message; None: the client has left. Audio is dropped and counted. The caller
        bounds it; cancelled, nothing is lost. Raises `MediaLost`, `MediaProtocolError`."""
        while True:
            while self._inbox:
                message = self._inbox.popleft()
                if isinstance(message, bytes):
                    self._waiting_bytes -= len(message) + _TEXT_OVERHEAD_BYTES
                    await trio.lowlevel.checkpoint()
                    return message
                self._waiting_bytes -= len(message)
                self.early_audio_bytes += len(message)
            if self._error is not None:
                raise self._error
            if self._departure is not None or self._finished:
                return None
            try:
                self._feed(bytes(await self._stream.receive_some(_PIECE_BYTES)))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._error = MediaLost(f"the websocket's connection broke: {error.__cause__ or error}")
            self._flush_quietly()

    def _read_nowait(self) -> None:
        """Read what has come, unless enough waits already; answer pings."""
        if not self._finished and self._error is None and self._waiting_bytes < MOST_WAITING_BYTES:
            if not self._unparsed:
                try:
                    data = self._io.read_nowait()
                except OSError as error:
                    self._error = MediaLost(f"the websocket's connection broke: {error.strerror}")
                    return
                if data == b"":
                    self._feed(b"")
                self._unparsed = data or b""
            self._parse()
        self._flush_quietly()

    def _parse(self) -> None:
        """As much of what was read as one turn may cost."""
        frames = at = 0
        while at < len(self._unparsed) and frames < TURN_FRAMES and self._error is None:
            frames += self._feed(self._unparsed[at : at + _PIECE_BYTES])
            at += _PIECE_BYTES
        self._unparsed = self._unparsed[at:]

    def _feed(self, data: bytes) -> int:
        """What was read; empty: the far end has finished. Returns how many frames it made."""
        if data:
            self._protocol.receive_data(data)
            return self._take_events()
        if not self._finished:
            self._finished = True
            if self._protocol.state is State.OPEN and self._departure is None:
                self._departure = CallerLeft("the client's connection ended without a close frame")
            self._protocol.receive_eof()
        return 0

    def _take_events(self) -> int:
        frames = self._protocol.events_received()
        for frame in frames:
            match getattr(frame, "opcode", None):
                case Opcode.TEXT | Opcode.BINARY | Opcode.CONT as opcode:
                    self.last_heard_s = trio.current_time()
                    self._sort(opcode, bytes(frame.data), frame.fin)  # type: ignore[union-attr]
                case Opcode.CLOSE:
                    closed = self._protocol.close_rcvd
                    told = f"the client closed the connection (code {closed.code})" if closed else "the client left"
                    self._departure = CallerLeft(told)
        if (broken := self._protocol.parser_exc) is not None and self._error is None:
            # The protocol has written its own close frame, which says why.
            self._error = MediaProtocolError(f"the client broke the websocket protocol: {broken}")
        for data in self._protocol.data_to_send():
            self._unsent += data  # the empty one asks for a FIN, which is `close`'s to send
        self._check_unsent()  # answers to pings
        return len(frames)

    def _sort(self, opcode: Opcode, data: bytes, whole: bool) -> None:
        """Texts wait whole, audio as it comes."""
        if opcode is Opcode.TEXT:
            self._text = bytearray()
        if self._text is None:
            if data:
                self._inbox.append(memoryview(data))
                self._waiting_bytes += len(data)
            return
        self._text += data
        if whole:
            self._inbox.append(bytes(self._text))
            self._waiting_bytes += len(self._text) + _TEXT_OVERHEAD_BYTES
            self._text = None

    def _whole_samples(self, data: bytes) -> bytes:
        """A message may end in mid-sample; the other half is at the beginning of the next."""
        if self._odd or len(data) % SAMPLE_BYTES:
            data = self._odd + data
            cut = len(data) - len(data) % SAMPLE_BYTES
            data, self._odd = data[:cut], data[cut:]
        return data

    # What the client is sent -----------------------------------------------------------------------------------------

    def send_audio_nowait(self, frame: bytes) -> bool:
        if len(frame) != self.format.frame_bytes:
            raise ValueError(f"a frame has {self.format.frame_bytes} bytes at this rate, not {len(frame)}")
        if self._closed or isinstance(self._error, MediaLost):
            raise self._error or MediaLost("the websocket is closed")
        if frame is self.format.silence or self._protocol.state is not State.OPEN:
            self._flush()
            return True
        if not self._flush():
            return False
        data = self._header + frame
        taken = self._write(data)
        if taken:
            self._unsent += data[taken:]
            self.frames_sent += 1
        return taken > 0

    def send_text(self, message: bytes) -> None:
        """Queue a text message, and send it as soon as the client takes it. Void on a connection that is closing."""
        if self._closing or self._error is not None or self._protocol.state is not State.OPEN:
            return
        self._protocol.send_text(message)
        for data in self._protocol.data_to_send():
            self._unsent += data
        self._flush_quietly()
        self._check_unsent()

    def _check_unsent(self) -> None:
        if len(self._unsent) > MOST_UNSENT_BYTES:
            self._error = MediaLost(f"the client has left {len(self._unsent)} bytes of messages unread")

    def clear_audio_nowait(self) -> None:
        """Nothing to do: what was sent is with the client, which is told of the interruption in words."""

    async def close(self, farewell: Farewell) -> None:
        """Send what waits and a close frame with `farewell.close_code`, wait at most `LINGER_S` for the client's, free the
        socket.

        Runs inside the caller's shielded and bounded scope; cancelled, it frees the socket at once.
        """
        if self._closing:
            await trio.lowlevel.checkpoint()
            return
        self._closing = True
        try:
            with trio.move_on_after(LINGER_S):
                if self._protocol.state is State.OPEN:
                    self._protocol.send_close(farewell.close_code)
                    self._unsent += b"".join(self._protocol.data_to_send())
                await self._stream.send_all(bytes(self._unsent))
                self._unsent.clear()
                while self._protocol.close_rcvd is None and not self._protocol.eof_sent:
                    data = bytes(await self._stream.receive_some(_PIECE_BYTES))
                    if not data:
                        break
                    self._protocol.receive_data(data)
                    self._protocol.events_received()
                    self._protocol.data_to_send()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # gone already: nothing is left but to free the socket
        finally:
            self._closed = True
            await trio.aclose_forcefully(self._stream)

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._io.write_nowait(bytes(data))
        except OSError as error:
            self._error = MediaLost(f"the websocket's connection is gone: {error.strerror}")
            raise self._error from error

    def _flush(self) -> bool:
        """Send what waits; whether nothing does any more. Raises `MediaLost`."""
        if self._unsent:
            del self._unsent[: self._write(self._unsent)]
        return not self._unsent

    def _flush_quietly(self) -> None:
        """As `_flush`; a connection that is gone is told by the next read."""
        try:
            self._flush()
        except MediaLost as error:
            self._error = error
