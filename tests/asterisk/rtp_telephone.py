"""The voice of a SIP telephone, whose signalling is sipp's: sends G.711 speech and RFC 4733 digits, keeps what it gets.

One stream, as telephones do it: digits take the place of the audio, sequence numbers and timestamps go on. sipp's own
`rtp_stream` and its ready-made digits would be two senders, and Asterisk's strict RTP takes the second for an attacker;
and sipp does not record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import trio

from bridge.audio import pcm_to_ulaw, ulaw_to_pcm

RATE_HZ = 8000

PCMU, TELEPHONE_EVENT = 0, 101
_FRAME_S, _FRAME_SAMPLES = 0.020, 160
_DIGITS = "0123456789*#"
_SSRC = 0x0A57E215


@dataclass(frozen=True)
class Packet:
    """One packet of audio: when it came, and its PCM16 at 8 kHz."""

    at_s: float
    sequence: int
    timestamp: int
    ssrc: int
    pcm: bytes


@dataclass
class Earpiece:
    """What came. `digits`: keys that were pressed at the far end; `others`: payload types that are neither."""

    packets: list[Packet] = field(default_factory=list)
    digits: str = ""
    others: list[int] = field(default_factory=list)
    _digit_at: int | None = None

    def take(self, rtp: bytes, now: float) -> None:
        _, kind, sequence, timestamp, ssrc = struct.unpack_from(">BBHII", rtp)
        if kind & 127 == PCMU:
            self.packets.append(Packet(now, sequence, timestamp, ssrc, ulaw_to_pcm(rtp[12:])))
        elif kind & 127 == TELEPHONE_EVENT:
            if timestamp != self._digit_at:  # all packets of one event have one timestamp
                self.digits += _DIGITS[rtp[12]]
            self._digit_at = timestamp
        else:
            self.others.append(kind & 127)

    def pcm(self) -> bytes:
        """As a telephone plays it: each packet at its own timestamp, silence where there is none."""
        line = bytearray()
        for packet in self.packets:
            start = 2 * (packet.timestamp - self.packets[0].timestamp)
            line += bytes(max(0, start - len(line)))
            line[start : start + len(packet.pcm)] = packet.pcm
        return bytes(line)

    @property
    def lost(self) -> int:
        """Sequence numbers that never came."""
        numbers = {packet.sequence for packet in self.packets}
        return (self.packets[-1].sequence - self.packets[0].sequence) % 65536 + 1 - len(numbers)

    @property
    def late_ms(self) -> float:
        """How much the most delayed packet came later than the least delayed one: the jitter buffer that it takes."""
        delays = [packet.at_s - packet.timestamp / RATE_HZ for packet in self.packets]
        return (max(delays) - min(delays)) * 1000


@dataclass
class Telephone:
    """Collects what it is to send, and sends it once it is answered (`run`). Time goes on with everything that is added.

    `live`: it sends silence whenever it has nothing else, so that what is added later goes out at once.
    """

    live: bool = False
    heard: Earpiece = field(default_factory=Earpiece)
    packets: list[tuple[float, bytes]] = field(default_factory=list)
    _at_s: float = 0.0
    _sequence: int = 1000
    _timestamp: int = 160000
    _exchange: tuple[str, int] | None = None
    _connected: trio.Event = field(default_factory=trio.Event)

    def say(self, pcm_8k: bytes) -> None:
        """Speech, PCM16 at 8 kHz, in packets of 20 ms."""
        for start in range(0, len(pcm_8k), 2 * _FRAME_SAMPLES):
            frame = pcm_8k[start : start + 2 * _FRAME_SAMPLES].ljust(2 * _FRAME_SAMPLES, b"\0")
            self._packet(PCMU, pcm_to_ulaw(frame), self._timestamp, marker=not self.packets)
            self._timestamp += _FRAME_SAMPLES

    def be_silent(self, ms: int) -> None:
        self.say(bytes(16 * ms))

    def press(self, digit: str, ms: int = 100) -> None:
        """One key: an event every 20 ms with a growing duration and one timestamp, its end told three times."""
        frames = ms // 20
        for number in range(frames + 2):
            duration = min(number + 1, frames) * _FRAME_SAMPLES
            last = number + 1 >= frames
            event = struct.pack(">BBH", _DIGITS.index(digit), (0x80 if last else 0) | 10, duration)
            # The repetitions of the end follow at once; they take no time on the line.
            self._packet(TELEPHONE_EVENT, event, self._timestamp, marker=number == 0, takes=number < frames)
        self._timestamp += frames * _FRAME_SAMPLES

    def _packet(self, kind: int, payload: bytes, timestamp: int, *, marker: bool, takes: bool = True) -> None:
        header = struct.pack(">BBHII", 0x80, kind | (0x80 if marker else 0), self._sequence, timestamp, _SSRC)
        self.packets.append((self._at_s, header + payload))
        self._sequence += 1
        self._at_s += _FRAME_S if takes else 0.0

    async def run(self, task_status: trio.TaskStatus[int]) -> None:
        """Be on the line until cancelled. What was collected is sent from `connect` on, or else from the first packet that
        comes, to where that came from, as Asterisk does it (`rtp_symmetric`). Started with the UDP port of this end."""
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as line:
            await line.bind(("127.0.0.1", 0))
            task_status.started(line.getsockname()[1])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, line)
                while True:
                    rtp, exchange = await line.recvfrom(2048)
                    if self._exchange is None:
                        self.connect(exchange)
                    self.heard.take(rtp, trio.current_time())

    def connect(self, exchange: tuple[str, int]) -> None:
        """The line is open: send to this address from now on."""
        self._exchange = exchange
        self._connected.set()

    async def _send(self, line: trio.socket.SocketType) -> None:
        await self._connected.wait()
        began = trio.current_time()
        sent = 0
        while sent < len(self.packets) or self.live:
            if sent == len(self.packets):
                self.be_silent(20)
            at_s, rtp = self.packets[sent]
            assert self._exchange is not None
            await trio.sleep_until(began + at_s)
            await line.sendto(rtp, self._exchange)
            sent += 1
