"""A caller on an AudioSocket TCP stream: `identify` the connection, settle the format, then it is a `CallerLeg`.

What Asterisk demands of its peer, and where it is kept (facts: `res_audiosocket.c`, `app_audiosocket.c`):

* It always wants to be read: its writes never wait, and a short one puts the stream out of frame. The `MediaClock`
  reads every 10 ms, whatever the model does.
* Header and payload in one write, at most one TCP segment: `send_audio_nowait`.
* From us only kinds 0x00 and 0x10 to 0x18, never empty; anything else hangs up: nothing else is ever sent here.
* Some versions write nothing before they have read something (issue 2089): `learn_format` sends silence meanwhile.
* The dialplan goes on after 0x00 or FIN, but an RST hangs the caller up: `close`.
"""

from __future__ import annotations

from collections import deque
from uuid import UUID

import trio

from bridge.audio import PcmFormat
from bridge.audiosocket import HEADER_BYTES, KIND_OF_RATE, RATE_HZ_OF_KIND, FrameDecoder, Kind, encode
from bridge.ending import Farewell
from bridge.errors import MediaLost, MediaProtocolError
from bridge.leg import CallerAudio, CallerDigit, CallerLeft, LegEvent
from bridge.nowait_io import nowait_io
from bridge.playout import Metronome

SLIN = PcmFormat(8000)
SUPPORTED_RATES_HZ = (8000, 16000, 24000)

# Asterisk needs one round trip to read our 0x00 and close. A kernel that closes with unread audio in its buffer sends
# RST, which would hang up the caller instead of letting the dialplan go on; so we read until the far end has closed.
LINGER_S = 1.0
_READ_BYTES = 65536


async def identify(stream: trio.abc.Stream) -> AudioSocketLeg:
    """Read the UUID with which every AudioSocket connection begins. The caller bounds it with a cancel scope.

    Closes nothing. Raises `MediaProtocolError` (not an AudioSocket client) or `MediaLost` (closed before the UUID).
    """
    decoder = FrameDecoder()
    while (frame := decoder.next_frame()) is None:
        data = await _read(stream)
        if not data:
            raise MediaLost("the connection was closed before it said which call it belongs to")
        decoder.receive_data(data)
    return AudioSocketLeg(stream, decoder, UUID(bytes=frame.payload))


async def part(stream: trio.abc.Stream, *, goodbye: bool = True) -> None:
    """End a connection in order: 0x00 (`goodbye`), FIN, at most `LINGER_S` for the far end's FIN, free the socket.

    For a connection of which no leg was made, too. Never raises; cancelled, it frees the socket at once.
    """
    try:
        with trio.move_on_after(LINGER_S):
            if goodbye:
                await stream.send_all(encode(Kind.HANGUP))
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
                while await stream.receive_some(_READ_BYTES):
                    pass
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
        pass  # gone already, or another task still holds the stream: nothing is left but to free it
    finally:
        await trio.aclose_forcefully(stream)


class AudioSocketLeg:
    """One caller on AudioSocket; see `CallerLeg` for what each method promises. Made by `identify`.

    The format is slin (8 kHz) unless `expect_format` or `learn_format` say otherwise before the call starts.
    Counters: `frames_received` and `bytes_received` of audio, `frames_sent`.
    """

    def __init__(self, stream: trio.abc.Stream, decoder: FrameDecoder, call_id: UUID) -> None:
        self._stream = stream
        self._decoder = decoder
        self._call_id = call_id
        self._kept: deque[LegEvent] = deque()  # came while the format was learnt
        self._closing = False
        self._finished = False  # the far end sent FIN
        self._left = False  # and that has been told
        self._error: MediaProtocolError | MediaLost | None = None  # nothing comes after it
        self._unsent = b""  # the rest of a frame that the socket took in part
        io = nowait_io(stream)
        if io is None:
            raise TypeError(f"a leg needs a stream that can be tried without waiting, not {type(stream).__name__}")
        self._io = io
        self.frames_received = 0
        self.bytes_received = 0
        self.frames_sent = 0
        self.expect_format(SLIN)

    @property
    def call_id(self) -> UUID:
        return self._call_id

    @property
    def format(self) -> PcmFormat:
        return self._format

    @property
    def descriptor(self) -> int | None:
        return self._io.descriptor

    def expect_format(self, format: PcmFormat) -> None:
        """Fix the format, where we chose it ourselves (ARI). Only before the call starts. Raises `ValueError`."""
        if format.rate_hz not in SUPPORTED_RATES_HZ:
            raise ValueError(f"{format.rate_hz} Hz: {_ONLY}")
        self._format = format
        self._kind = KIND_OF_RATE[format.rate_hz]
        self._header = encode(self._kind, format.silence)[:HEADER_BYTES]
        self._whole_frame = HEADER_BYTES + format.frame_bytes

    async def learn_format(self) -> PcmFormat:
        """Find the format of a call that we did not ask for: by the kind of its first audio, which `receive` gives.

        Until then the far end gets 20 ms frames of silence at 8 kHz, legal on every version. The caller bounds it;
        when the bound strikes, or the caller leaves first, the format is slin. Raises as `receive` and `send_audio`.
        """
        self.expect_format(SLIN)
        metronome = Metronome()
        metronome.start(trio.current_time())
        while True:
            # A read that is cancelled loses nothing.
            with trio.move_on_at(metronome.next_deadline(trio.current_time())):
                while True:
                    event = await self._next_event()
                    self._kept.append(event)
                    if not isinstance(event, CallerDigit):
                        return self._format
            self.send_audio_nowait(SLIN.silence)

    async def wait_in_silence(self) -> None:
        """Keep the line while it is still decided who answers: the far end hears silence, what it sends is dropped. Returns
        when it leaves, which is told again by the next `receive_nowait`; else cancel it. Raises as that does."""
        metronome = Metronome()
        metronome.start(trio.current_time())
        while True:
            await trio.sleep_until(metronome.next_deadline(trio.current_time()))
            for event in self.receive_nowait():
                if isinstance(event, CallerLeft):
                    self._kept.append(event)
                    return
            self.send_audio_nowait(self._format.silence)

    @property
    def audio_received(self) -> tuple[int, int]:
        return self.frames_received, self.bytes_received

    def receive_nowait(self) -> list[LegEvent]:
        if self._error is not None:
            raise self._error
        data = self._read_nowait()
        if data is not None:
            # What comes nearly always, one frame of 20 ms and nothing before it, needs no decoder (0.8 us, not 3.5).
            in_step = not self._kept and not self._decoder.buffered_bytes  # it begins with a header
            if in_step and len(data) == self._whole_frame and data.startswith(self._header):
                return [self._audio(data[HEADER_BYTES:])]
            self._decoder.receive_data(data)
        events = list(self._kept)
        self._kept.clear()
        try:
            while not self._left and (event := self._decoded(learning=False)) is not None:
                events.append(event)
        except MediaProtocolError as error:
            self._error = error
        if self._error is not None:
            if not events:
                raise self._error
        elif self._finished and not self._left:
            self._left = True
            events.append(self._departure())
        return events

    def send_audio_nowait(self, frame: bytes) -> bool:
        if len(frame) != self._format.frame_bytes:
            raise ValueError(f"a frame has {self._format.frame_bytes} bytes at this rate, not {len(frame)}")
        # A write that the socket took in part (its buffer was full) is completed first: the stream must stay in frame.
        data = self._header + frame
        try:
            if self._unsent:
                self._unsent = self._unsent[self._io.write_nowait(self._unsent) :]
                if self._unsent:
                    return False
            taken = self._io.write_nowait(data)
        except OSError as error:
            raise MediaLost(f"the AudioSocket connection is gone: {error.strerror}") from error
        if not taken:
            return False
        if taken < len(data):
            self._unsent = data[taken:]
        self.frames_sent += 1
        return True

    def clear_audio_nowait(self) -> None:
        """Nothing to do: Asterisk plays at once what it gets."""

    async def close(self, farewell: Farewell) -> None:
        """Send 0x00 and FIN, wait at most `LINGER_S` for the far end's FIN, free the socket.

        Runs inside the caller's shielded and bounded scope; cancelled, it frees the socket at once.
        """
        if self._closing:
            await trio.lowlevel.checkpoint()
            return
        self._closing = True
        # In the middle of a frame the far end would take a 0x00 for audio; after its FIN nobody reads it.
        await part(self._stream, goodbye=not self._unsent and not self._finished)

    def _read_nowait(self) -> bytes | None:
        """What has come, if anything has; notes the end of the connection, in order or not."""
        if self._finished:
            return None
        try:
            data = self._io.read_nowait()
        except OSError as error:
            self._error = MediaLost(f"the AudioSocket connection broke: {error.strerror}")
            return None
        if data == b"":
            self._finished = True
        return data or None

    async def _next_event(self) -> LegEvent:
        """The next event while the format is being learnt."""
        while True:
            if (event := self._decoded(learning=True)) is not None:
                return event
            data = await _read(self._stream)
            if not data:
                self._finished = self._left = True
                return self._departure()
            self._decoder.receive_data(data)

    def _departure(self) -> CallerLeft:
        cut = f" in the middle of a frame ({self._decoder.buffered_bytes} bytes)"
        return CallerLeft("the far end closed the connection" + (cut if self._decoder.buffered_bytes else ""))

    def _decoded(self, *, learning: bool) -> LegEvent | None:
        """The next event in what has been read; None: more is needed."""
        while (frame := self._decoder.next_frame()) is not None:
            if frame.kind is self._kind and not learning:
                if frame.payload:  # Asterisk's own peers tolerate empty audio; so do we
                    return self._audio(frame.payload)
            elif frame.kind is Kind.HANGUP:
                self._finished = self._left = True
                return CallerLeft("the far end sent a hang-up frame")
            elif frame.kind is Kind.DTMF:
                return CallerDigit(frame.payload.decode("ascii"))
            elif frame.kind is Kind.ERROR:
                raise MediaProtocolError(f"the far end reports an error: {frame.payload.hex() or 'without a code'}")
            elif RATE_HZ_OF_KIND[frame.kind] not in SUPPORTED_RATES_HZ:
                raise MediaProtocolError(f"the far end sends {_name(frame.kind)} audio: {_ONLY}")
            elif learning:
                if frame.payload:
                    self.expect_format(PcmFormat(RATE_HZ_OF_KIND[frame.kind]))
                    return self._audio(frame.payload)
            elif frame.payload:
                raise MediaProtocolError(self._mismatch(frame.kind))
        return None

    def _audio(self, pcm: bytes) -> CallerAudio:
        self.frames_received += 1
        self.bytes_received += len(pcm)
        return CallerAudio(pcm)

    def _mismatch(self, kind: Kind) -> str:
        text = f"the far end sends {_name(kind)} audio (kind 0x{kind:02x}) though this call is {_name(self._kind)}"
        if kind is Kind.SLIN:
            # The version table of field report 5.1.
            text += '; Asterisk older than 20.17 / 22.7 labels everything 0x10: set asterisk.format = "slin"'
        return text


_ONLY = "only slin, slin16 and slin24 are supported"


def _name(kind: Kind) -> str:
    return kind.name.lower()


async def _read(stream: trio.abc.Stream) -> bytes:
    try:
        return bytes(await stream.receive_some(_READ_BYTES))
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise MediaLost(f"the AudioSocket connection broke: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """The operating system's words where there are some: trio's own only say that something is wrong."""
    return str(error.__cause__ or error) or type(error).__name__
