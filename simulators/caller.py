"""The far end of an AudioSocket stream, as strict as Asterisk: it speaks, presses keys, listens and records.

Two roles. `Caller.dial` is Asterisk calling the bridge: it sends the UUID. `Caller.answer` is a phone which a real
Asterisk dials by `Dial(AudioSocket/…)` or originate: it receives the UUID and learns the rate from the first audio.

    caller = await Caller.dial(stream, uuid4(), 16000)
    nursery.start_soon(caller.run)
    caller.say(pcm)
    await caller.hears_speech()
    await caller.hang_up()

What Asterisk hangs up for (field report 5.4) is recorded in `violations`, and it hangs up. Time is trio's: in tests a
whole call takes no time. Recordings of both directions share one time line of 20 ms slots that begins with `run`.
"""

from __future__ import annotations

import math
import socket
import struct
import warnings
import wave
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal
from uuid import UUID

import trio

from bridge.audio import PcmFormat, resampler, rms_dbfs
from bridge.audiosocket import HEADER_BYTES, KIND_OF_RATE, RATE_HZ_OF_KIND, FrameDecoder, Kind, encode
from bridge.errors import MediaLost, MediaProtocolError
from bridge.playout import Metronome

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

SLOT_S = 0.020
# The bridge closes within its farewell limit (3 s); a caller that hung up does not wait longer.
LINGER_S = 4.0
# A voice is far above, comfort noise and the resampler's last bit far below.
SPEECH_DBFS = -45.0


class Caller:
    """One far end; made by `dial` or `answer`. `run` must be running for anything to happen.

    Records: `heard_frames` (arrival, audio), `digits_heard` (only whom Asterisk has dialled gets any), `violations` (why it
    hung up, as Asterisk would), `split_frames` (a header came without all of its payload: only on memory streams a sign of
    two writes), `ended` and `ended_how`: what the bridge did first, None when we aborted or refused it.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        decoder: FrameDecoder,
        call_id: UUID,
        rate_hz: int | None,
        *,
        may_press: bool,
        reads: bool,
        speaks_first: bool,
    ) -> None:
        self.call_id = call_id
        self.heard_frames: list[tuple[float, bytes]] = []
        self.violations: list[str] = []
        self.digits_heard = ""
        self.split_frames = 0
        self.ended = trio.Event()
        self.ended_how: Literal["hangup", "fin", "reset"] | None = None
        self._stream = stream
        self._decoder = decoder
        self._learnt = rate_hz is not None
        # Until the rate is known silence at 8 kHz goes out: legal on every version of Asterisk.
        self._format = PcmFormat(rate_hz or 8000)
        self._may_press = may_press
        self._reads = trio.Event()
        if reads:
            self._reads.set()
        self._may_speak = trio.Event()
        if speaks_first:
            self._may_speak.set()
        self._reading = trio.CancelScope()
        self._life = trio.CancelScope()
        self._leaving = trio.Event()
        self._speech = bytearray()
        self._urgent: deque[bytes] = deque()
        self._said_all = trio.Event()
        self._said_all.set()
        self._changed = trio.Event()
        self._started_at = math.nan
        self._ended_at: float | None = None
        self._loud_at = -math.inf
        self._said_slots: list[tuple[int, bytes]] = []

    @classmethod
    async def dial(
        cls,
        stream: trio.abc.Stream,
        call_id: UUID,
        rate_hz: int,
        *,
        reads: bool = True,
        speaks_first: bool = True,
    ) -> Caller:
        """Call the bridge as Asterisk does: the UUID is sent at once, audio as soon as `run` runs.

        `reads=False` never reads; `speaks_first=False` says nothing before it has got a frame (issue 2089).
        """
        await stream.send_all(encode(Kind.UUID, call_id.bytes))
        decoder = FrameDecoder(identified=True)
        return cls(stream, decoder, call_id, rate_hz, may_press=True, reads=reads, speaks_first=speaks_first)

    @classmethod
    async def answer(cls, stream: trio.abc.Stream, *, rate_hz: int | None = None) -> Caller:
        """Be the phone that Asterisk dials: wait for its UUID. Raises `MediaProtocolError` or `MediaLost`."""
        decoder = FrameDecoder()
        while (frame := decoder.next_frame()) is None:
            data = await stream.receive_some(65536)
            if not data:
                raise MediaLost("Asterisk closed the connection before its UUID")
            decoder.receive_data(bytes(data))
        call_id = UUID(bytes=frame.payload)
        return cls(stream, decoder, call_id, rate_hz, may_press=False, reads=True, speaks_first=True)

    # Doing -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Speak on the 20 ms grid and listen, until the connection is over; `ended` is set then. Never raises."""
        self._started_at = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                self._life = nursery.cancel_scope
                nursery.start_soon(self._send)
                await self._receive()
                nursery.cancel_scope.cancel()
        finally:
            self._ended_at = trio.current_time()
            self.ended.set()
            self._said_all.set()
            self._notify()
            await trio.aclose_forcefully(self._stream)

    @property
    def format(self) -> PcmFormat:
        """The line's format; in the answering role a guess until the first audio has come."""
        return self._format

    def say(self, pcm: bytes) -> None:
        """Queue speech at the line's rate behind what is queued; silence fills its last frame."""
        self._speech += pcm
        if pcm and self._said_all.is_set() and not self.ended.is_set():
            self._said_all = trio.Event()

    async def said(self) -> None:
        """Wait until everything queued has left, or the call has ended."""
        await self._said_all.wait()

    def press(self, digit: str) -> None:
        """Press a key; it leaves at the next tick. Only as Asterisk: it hangs up on a peer that sends digits."""
        if not self._may_press:
            raise RuntimeError("Asterisk drops a connection on which its peer sends DTMF")
        self._urgent.append(encode(Kind.DTMF, digit.encode("ascii")))

    async def hang_up(self) -> None:
        """Close in order (FIN), as Asterisk does when the caller hangs up, and wait until the bridge has closed too."""
        self._leaving.set()
        with trio.move_on_after(LINGER_S):
            await self.ended.wait()
        self._life.cancel()
        await self.ended.wait()

    async def abort(self) -> None:
        """Break the connection: RST on a socket, on a memory stream both directions closed at once."""
        if isinstance(self._stream, trio.SocketStream):
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self._stream)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Read nothing meanwhile (the bridge's writes will have to wait); go on afterwards."""
        self._reads = trio.Event()
        self._reading.cancel()
        try:
            yield
        finally:
            self._reads.set()

    # Listening -------------------------------------------------------------------------------------------------------

    async def hears_speech(self, level_dbfs: float = SPEECH_DBFS) -> float:
        """Wait for a frame above the level from now on; returns its arrival. Raises `MediaLost` if the call ends."""
        seen = len(self.heard_frames)
        while True:
            for arrival, pcm in self.heard_frames[seen:]:
                if rms_dbfs(pcm) > level_dbfs:
                    return arrival
            seen = len(self.heard_frames)
            if self.ended.is_set():
                raise MediaLost("the call ended before any speech was heard")
            await self._changed.wait()

    async def hears_quiet(self, for_ms: int = 300) -> float:
        """Wait until nothing above `SPEECH_DBFS` came for so long (or the call ended); returns when that began."""
        while not self.ended.is_set():
            since = max(self._loud_at + SLOT_S, self._started_at)
            if trio.current_time() >= since + for_ms / 1000 - 1e-6:
                break
            with trio.move_on_at(since + for_ms / 1000):
                await self.ended.wait()
        return max(self._loud_at + SLOT_S, self._started_at)

    def heard_pcm(self) -> bytes:
        """What was heard, on the time line, gaps filled with silence. Jitter of less than 10 ms moves nothing."""
        slots: list[tuple[int, bytes]] = []
        for arrival, pcm in self.heard_frames:
            slots.append((self._slot_of(arrival), pcm))
        return _laid_out(slots, self._format)

    def said_pcm(self) -> bytes:
        """What was sent, on the same time line."""
        return _laid_out(self._said_slots, self._format)

    def max_gap_ms(self) -> float:
        """The longest time without a frame: from `run` to the first, between two, and from the last to the end."""
        until = self._ended_at if self._ended_at is not None else trio.current_time()
        times = [self._started_at, *(arrival for arrival, _ in self.heard_frames), until]
        return max(later - earlier for earlier, later in pairwise(times)) * 1000

    def write_wav(self, path: str | Path) -> None:
        """Both directions as a two-channel WAV, aligned in time: left what the caller said, right what it heard."""
        left, right = self.said_pcm(), self.heard_pcm()
        size = max(len(left), len(right))
        stereo = audioop.add(
            audioop.tostereo(left.ljust(size, b"\0"), 2, 1, 0), audioop.tostereo(right.ljust(size, b"\0"), 2, 0, 1), 2
        )
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(self._format.rate_hz)
            file.writeframes(stereo)

    # The two tasks ---------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        try:
            await self._may_speak.wait()
            metronome = Metronome()
            metronome.start(trio.current_time())
            while not self._leaving.is_set():
                deadline = metronome.next_deadline(trio.current_time())
                with trio.move_on_at(deadline):
                    await self._leaving.wait()
                    break
                while self._urgent:
                    await self._stream.send_all(self._urgent.popleft())
                await self._send_frame(round((deadline - self._started_at) / SLOT_S))
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reading task finds out how it ended

    async def _send_frame(self, slot: int) -> None:
        format = self._format
        pcm = bytes(self._speech[: format.frame_bytes]) if self._learnt else b""
        del self._speech[: len(pcm)]
        last = pcm and not self._speech
        pcm = pcm.ljust(format.frame_bytes, b"\0")
        await self._stream.send_all(encode(KIND_OF_RATE[format.rate_hz], pcm))
        if self._learnt:
            self._said_slots.append((slot, pcm))
        if last:
            self._said_all.set()

    async def _receive(self) -> None:
        while True:
            await self._reads.wait()
            data: bytes | None = None
            with trio.CancelScope() as self._reading:
                try:
                    data = bytes(await self._stream.receive_some(65536))
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    if isinstance(error, trio.BrokenResourceError):
                        self.ended_how = "reset"
                    return
            if data is None:  # `stalled` begins
                continue
            if not data:
                self.ended_how = "fin"
                return
            self._may_speak.set()
            self._decoder.receive_data(data)
            if not self._take_frames():
                return
            self.split_frames += self._decoder.buffered_bytes >= HEADER_BYTES

    def _take_frames(self) -> bool:
        """Handle what has come; False when that ends the call."""
        while True:
            try:
                frame = self._decoder.next_frame()
            except MediaProtocolError as error:
                self.violations.append(str(error))
                return False
            if frame is None:
                return True
            if frame.kind is Kind.HANGUP:
                self.ended_how = "hangup"
                return False
            if frame.kind is Kind.DTMF and not self._may_press:
                # We are the one whom Asterisk has dialled: the other side's keys come so.
                self.digits_heard += frame.payload.decode("ascii", "replace")
                continue
            if frame.kind not in RATE_HZ_OF_KIND:
                self.violations.append(f"sent a {frame.kind.name} frame, for which Asterisk hangs up")
                return False
            if not frame.payload:
                self.violations.append("sent audio without a single sample, for which Asterisk hangs up")
                return False
            if RATE_HZ_OF_KIND[frame.kind] not in (8000, 16000, 24000):
                self.violations.append(f"sent {frame.kind.name} audio, which no call of ours has")
                return False
            self._hear(RATE_HZ_OF_KIND[frame.kind], frame.payload)

    def _hear(self, rate_hz: int, pcm: bytes) -> None:
        if not self._learnt:
            self._learnt = True
            self._format = PcmFormat(rate_hz)
        if rate_hz != self._format.rate_hz:
            # Legal (a bridge that has not learnt the rate yet sends slin); brought to the line's rate piece by piece.
            converter = resampler(rate_hz, self._format.rate_hz)
            pcm = converter.process(pcm) + converter.flush()
        now = trio.current_time()
        self.heard_frames.append((now, pcm))
        if rms_dbfs(pcm) > SPEECH_DBFS:
            self._loud_at = now
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _slot_of(self, arrival: float) -> int:
        # Relative to the first arrival, which stands in the middle of its slot: so jitter crosses no border.
        first = self.heard_frames[0][0]
        return round((first - self._started_at) / SLOT_S) + math.floor((arrival - first) / SLOT_S + 0.5)


def _laid_out(slots: list[tuple[int, bytes]], format: PcmFormat) -> bytes:
    """Frames at their slots; one that comes while the frame before still plays follows it."""
    line = bytearray()
    for slot, pcm in slots:
        start = slot * format.frame_bytes
        if start > len(line):
            line += bytes(start - len(line))
        line += pcm
    return bytes(line)
